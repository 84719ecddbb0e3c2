"""The contract of a model: waveforms in, a frame sequence per layer out."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import torch

from ..errors import AudioError, ParameterError, UnknownNameError
from .cards import ModelCard

__all__ = ["AudioModel"]


class AudioModel:
    """Base of every model in the zoo.

    A family implements :meth:`_forward` on a batch of equally long waveforms and
    :meth:`_frame_grid`; unequal lengths, the choice of layers and the checks live here.

    Parameters
    ----------
    card : ModelCard
        What the model is.

    Attributes
    ----------
    card : ModelCard
    network : torch.nn.Module
        Holds every weight and buffer, so that moving it moves the model.
    sample_rate : int
        In Hz.
    layers : tuple of str
        First to last.
    extra_layers : tuple of str
        Further layers, given when they are asked for by name.
    min_samples : int
        Shortest sound that gives at least one frame in every layer.
    unused_tensors : tuple of str
        Regular expressions of published tensors that no layer depends on.
    code_version : str
        Raised by hand whenever the family computes something else; part of every cache key.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import models
    >>> model = models.load("small-cnn", device="cpu")
    >>> activations = model.embed(torch.randn(2, 16000) / 10, layers=["conv1", "conv5"])
    >>> {layer: tuple(values.shape) for layer, values in activations.items()}
    {'conv1': (2, 49, 16, 32), 'conv5': (2, 4, 256, 2)}
    >>> model.frame_rate("conv1"), model.frame_times("conv1", 3).numpy().round(4).tolist()
    (50.0, [0.0125, 0.0325, 0.0525])
    """

    code_version = "1"
    extra_layers: tuple[str, ...] = ()
    min_samples = 1
    unused_tensors: tuple[str, ...] = ()

    def __init__(self, card: ModelCard):
        self.card = card
        self.sample_rate = card.sample_rate
        self.layers = card.layers
        self.network = torch.nn.Module()

    # -- what a family implements ---------------------------------------------------------

    def _forward(self, waveforms: torch.Tensor, layers: Collection[str]) -> dict[str, torch.Tensor]:
        """Activations of equally long waveforms.

        Parameters
        ----------
        waveforms : tensor of shape (batch, time), float32
            On the model's device, every one complete (no padding).
        layers : collection of str
            Layers to return; others need not be computed.

        Returns
        -------
        dict of str to tensor of shape (batch, frame, *units)
        """
        raise NotImplementedError

    def _frame_grid(self, layer: str) -> tuple[float, float] | None:
        """Seconds between frames of a layer and centre of its first frame in seconds.

        None for a layer with one vector for the whole sound.
        """
        raise NotImplementedError

    def from_published(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename published tensors to the names of :attr:`network`; by default they agree."""
        return dict(tensors)

    def accept_settings(self, settings: Mapping[str, object]) -> None:
        """Check, or adopt, the settings that a published file holds beside its weights.

        Parameters
        ----------
        settings : mapping
            Text, numbers, and lists and mappings of these; empty where the file has none.

        Raises
        ------
        WeightsError
            When they are not those of this model.
        """

    # -- what everybody uses --------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        return tensors[0].device if tensors else self._device

    _device = torch.device("cpu")

    def to(self, device: torch.device | str) -> "AudioModel":
        """Move the model, in place."""
        self._device = torch.device(device)
        self.network.to(device)
        return self

    @cached_property
    def weights_sha256(self) -> str:
        """Digest of every weight and buffer, by name. Computed once, after loading."""
        digest = hashlib.sha256()
        for name, tensor in self.network.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
        return digest.hexdigest()

    @property
    def identity(self) -> dict[str, str]:
        """What the features of this model depend on, besides the sounds."""
        return {
            "model": self.card.name,
            "class": type(self).__name__,
            "sample_rate": str(self.sample_rate),
            "options": repr(sorted(self.card.options.items())),
            "code_version": self.code_version,
            "weights_sha256": self.weights_sha256,
        }

    @torch.inference_mode()
    def embed(
        self,
        waveforms: torch.Tensor,
        lengths: Sequence[int] | None = None,
        layers: Collection[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Activations of a batch of sounds.

        Each sound gets what it would get alone: sounds of one length run together, padding
        never enters a network.

        Parameters
        ----------
        waveforms : tensor of shape (batch, time), float32
            Mono, in [-1, 1], at :attr:`sample_rate`; short sounds are padded at the end.
        lengths : sequence of int, optional
            True number of samples of each sound; by default all of them.
        layers : collection of str, optional
            Layers to return, by default all.
        names : sequence of str, optional
            What to call the sounds in messages.

        Returns
        -------
        dict of str to tensor of shape (batch, frame, *units)
            Frames past the end of a shorter sound are NaN.

        Raises
        ------
        AudioError
            When a sound is too short for the network, or gives NaN activations.
        """
        waveforms = torch.as_tensor(waveforms, dtype=torch.float32)
        if waveforms.ndim != 2 or not len(waveforms):
            raise ParameterError(
                "waveforms must have shape (batch, time) and hold at least one sound, not "
                f"{tuple(waveforms.shape)}"
            )
        wanted = self._checked_layers(layers)
        n_sounds, n_samples = waveforms.shape
        lengths = [n_samples] * n_sounds if lengths is None else [int(n) for n in lengths]
        if len(lengths) != n_sounds or max(lengths) > n_samples:
            raise ParameterError(
                f"lengths must give one number of samples, at most {n_samples}, "
                f"for each of the {n_sounds} sounds"
            )
        if min(lengths) < self.min_samples:
            raise AudioError(
                f"{self.card.name} needs at least {self.min_samples} samples "
                f"({self.min_samples / self.sample_rate:.3f} s); "
                f"{_called(lengths.index(min(lengths)), names)} has {min(lengths)}. "
                "Pad or leave out the sound."
            )
        parts = {}
        for length in sorted(set(lengths)):
            rows = [row for row, n in enumerate(lengths) if n == length]
            # TensorFloat-32 keeps three digits, fewer than the published features have.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                outputs = self._forward(waveforms[rows, :length].to(self.device), wanted)
            for layer in wanted:
                self._check_finite(outputs[layer], layer, rows, names)
            parts[length] = rows, outputs
        return {layer: _join(parts.values(), layer, n_sounds) for layer in wanted}

    def frame_rate(self, layer: str) -> float:
        """Frames per second of a layer; 0 for one vector per sound."""
        self._checked_layers([layer])
        grid = self._frame_grid(layer)
        return 0.0 if grid is None else 1.0 / grid[0]

    def frame_times(self, layer: str, n_frames: int) -> torch.Tensor:
        """Centre of each frame in seconds from the start of the sound, shape (n_frames,)."""
        self._checked_layers([layer])
        grid = self._frame_grid(layer)
        if grid is None:
            raise ParameterError(f"{self.card.name}: layer {layer!r} has no frames in time")
        step, first = grid
        return first + step * torch.arange(n_frames, dtype=torch.float64)

    def _checked_layers(self, layers: Collection[str] | None) -> tuple[str, ...]:
        if layers is None:
            return self.layers
        known = self.layers + self.extra_layers
        for layer in layers:
            if layer not in known:
                raise UnknownNameError(f"layer of {self.card.name}", layer, known)
        return tuple(layer for layer in known if layer in set(layers))

    def _check_finite(
        self, output: torch.Tensor, layer: str, rows: list[int], names: Sequence[str] | None
    ) -> None:
        finite = torch.isfinite(output.flatten(1)).all(dim=1)
        if not finite.all():
            bad = rows[int((~finite).int().argmax())]
            raise AudioError(
                f"{self.card.name}: layer {layer!r} is not finite for {_called(bad, names)}. "
                "Check the sound's level, and the checkpoint."
            )


def _called(row: int, names: Sequence[str] | None) -> str:
    return f"sound {row} of the batch" if names is None else f"sound {names[row]!r}"


def _join(parts, layer: str, n_sounds: int) -> torch.Tensor:
    """Put the outputs of equally long groups into one tensor, NaN past each sound's end."""
    parts = [(rows, outputs[layer]) for rows, outputs in parts]
    n_frames = max(output.shape[1] for _, output in parts)
    first = parts[0][1]
    joined = first.new_full((n_sounds, n_frames, *first.shape[2:]), float("nan"))
    for rows, output in parts:
        joined[rows, : output.shape[1]] = output
    return joined
