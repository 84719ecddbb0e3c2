"""CochResNet50: a ResNet-50 on cochleagrams (Tuckute, Feather et al. 2023)."""

from collections.abc import Iterator

import torch
from torch import nn

from .cards import ModelCard
from .cochdnn import CochDNN
from .cochleagram import FIRST_FRAME, FRAME_STEP
from .taps import stacked_grid

__all__ = ["CochResNet50", "ResNet50"]


class Bottleneck(nn.Module):
    """Residual block: 1x1, 3x3 (with the stride) and 1x1 convolutions around a shortcut."""

    expansion = 4

    def __init__(self, n_in: int, n_inner: int, stride: int, project: bool):
        super().__init__()
        n_out = self.expansion * n_inner
        self.conv1 = nn.Conv2d(n_in, n_inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_inner)
        self.conv2 = nn.Conv2d(n_inner, n_inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_inner)
        self.conv3 = nn.Conv2d(n_inner, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = nn.Sequential()
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the shortcut and what the three convolutions add to it."""
        shortcut = self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return (self.bn3(self.conv3(x)) + shortcut).relu()


class ResNet50(nn.Module):
    """ResNet-50 (He et al. 2016) with one input channel and without a classifier.

    The stride of a stage is in the 3x3 convolution of its first block.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        n_in = 64
        for number, n_blocks in enumerate((3, 4, 6, 3)):
            n_inner, blocks = 64 * 2**number, []
            for block in range(n_blocks):
                first = block == 0
                stride = 2 if first and number > 0 else 1
                blocks.append(Bottleneck(n_in, n_inner, stride, project=first))
                n_in = Bottleneck.expansion * n_inner
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Compute one stage after the other.

        Parameters
        ----------
        x : tensor of shape (batch, 1, frequency, time)
            Cochleagrams.

        Yields
        ------
        str, tensor
            Name, and output of shape (batch, channel, frequency, time); ``avgpool``, over
            frequency and time, has shape (batch, channel).
        """
        x = self.bn1(self.conv1(x)).relu()
        yield "conv1_relu1", x
        x = self.maxpool(x)
        yield "maxpool1", x
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            yield name, x
        yield "avgpool", x.mean(dim=(2, 3))


class CochResNet50(CochDNN):
    """ResNet-50 on cochleagrams, trained on words, speakers, environmental sounds, or all three.

    Layers have shape (batch, frame, channel, frequency); ``avgpool`` is one vector of 2,048 per
    sound. Published for sounds of 2 s; takes any length.
    """

    head = "fc"

    def __init__(self, card: ModelCard):
        super().__init__(card)
        self.network = ResNet50()

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        if layer == "avgpool":
            return None
        # layer1 keeps the rate of maxpool1; layer2, 3 and 4 halve it in a 3x3 convolution.
        n_halved = {"conv1_relu1": 1, "maxpool1": 2, "layer1": 2, "layer2": 3, "layer3": 4}
        halvings = [(7, 2, 3), *[(3, 2, 1)] * 4]
        return stacked_grid(halvings[: n_halved.get(layer, 5)], FRAME_STEP, FIRST_FRAME)
