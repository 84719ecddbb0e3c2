"""CochCNN9: nine stages of convolution and pooling on cochleagrams (after Kell et al. 2018)."""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional

from ..errors import AudioError
from .cards import ModelCard
from .cochdnn import CochDNN
from .cochleagram import FIRST_FRAME, FRAME_STEP, N_CHANNELS
from .taps import stacked_grid

__all__ = ["CNN9", "CochCNN9"]

# Kernel and stride of each stage, (frequency, time), in order.
SHAPES: Mapping[str, tuple[tuple[int, int], tuple[int, int]]] = MappingProxyType({
    "conv0": ((7, 14), (3, 3)),
    "maxpool0": ((2, 5), (2, 2)),
    "conv1": ((4, 8), (2, 2)),
    "maxpool1": ((2, 5), (2, 2)),
    "conv2": ((2, 5), (1, 1)),
    "conv3": ((2, 5), (1, 1)),
    "conv4": ((2, 5), (1, 1)),
    "avgpool": ((2, 5), (2, 2)),
})  # fmt: skip
N_FRAMES = 390  # of 2 s


class CNN9(nn.Module):
    """Five convolutions, three poolings and a dense layer, without a classifier.

    Every stage is padded as TensorFlow's "SAME" does: to ceil(size / stride) outputs, the odd
    element at the end.
    """

    def __init__(self):
        super().__init__()
        widths = (1, 96, 256, 512, 1024, 512)
        for number in range(5):
            if number < 3:
                self.add_module(f"batchnorm{number}", nn.BatchNorm2d(widths[number]))
            kernel, stride = SHAPES[f"conv{number}"]
            convolution = nn.Conv2d(widths[number], widths[number + 1], kernel, stride, bias=False)
            self.add_module(f"conv{number}", convolution)
        n_flat = widths[-1]
        for axis, n in enumerate((N_CHANNELS, N_FRAMES)):
            for _, stride in SHAPES.values():
                n = -(-n // stride[axis])
            n_flat *= n
        self.fullyconnected = nn.Linear(n_flat, 4096)

    def stages(self, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Compute one stage after the other.

        Parameters
        ----------
        x : tensor of shape (batch, 1, 211, time)
            Cochleagrams; ``relufc`` takes those of 2 s.

        Yields
        ------
        str, tensor
            Name, and output of shape (batch, channel, frequency, time); ``relufc`` has shape
            (batch, 4096).
        """
        for number in (0, 1):
            x = self._convolve(number, self.get_submodule(f"batchnorm{number}")(x))
            yield f"relu{number}", x
            kernel, stride = SHAPES[f"maxpool{number}"]
            x = functional.max_pool2d(_pad_same(x, kernel, stride, -torch.inf), kernel, stride)
            yield f"maxpool{number}", x
        x = self.batchnorm2(x)
        for number in (2, 3, 4):
            x = self._convolve(number, x)
            yield f"relu{number}", x
        # The zeros of the padding count in the mean.
        kernel, stride = SHAPES["avgpool"]
        x = functional.avg_pool2d(_pad_same(x, kernel, stride), kernel, stride)
        yield "avgpool", x
        yield "relufc", self.fullyconnected(x.flatten(1)).relu()

    def _convolve(self, number: int, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = SHAPES[f"conv{number}"]
        return self.get_submodule(f"conv{number}")(_pad_same(x, kernel, stride)).relu()


def _pad_same(x, kernel, stride, value=0.0) -> torch.Tensor:
    """Pad frequency and time so that each stage has ceil(size / stride) outputs."""
    (top, bottom), (left, right) = (
        _same_padding(size, k, s) for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)
    )
    return functional.pad(x, (left, right, top, bottom), value=value)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class CochCNN9(CochDNN):
    """CNN on cochleagrams, trained on words, speakers, environmental sounds, or all three.

    Layers have shape (batch, frame, channel, frequency); ``relufc`` is one vector of 4,096 per
    sound and takes sounds of 2 s only. How a stage is padded, and so where its frames lie,
    depends on the sound's length; the frame times given are those of 2 s.
    """

    head = "classification"

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.network = CNN9()

    def _stages(
        self, cochleagrams: torch.Tensor, layers: Collection[str]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        n_frames = cochleagrams.shape[-1]
        if "relufc" in layers and n_frames != N_FRAMES:
            others = ", ".join(repr(layer) for layer in self.layers if layer != "relufc")
            raise AudioError(
                f"{self.card.name}: layer 'relufc' takes sounds of 2 s (40,000 samples at 20 kHz, "
                f"{N_FRAMES} frames) and got {n_frames} frames. Cut or pad the sounds to 2 s, "
                f"or leave the layer out: layers=[{others}]."
            )
        return self.network.stages(cochleagrams)

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        if layer == "relufc":
            return None
        size, stages = N_FRAMES, []
        for name, ((_, kernel), (_, stride)) in SHAPES.items():
            stages.append((kernel, stride, _same_padding(size, kernel, stride)[0]))
            size = -(-size // stride)
            if name == layer.replace("relu", "conv"):
                break
        return stacked_grid(stages, FRAME_STEP, FIRST_FRAME)
