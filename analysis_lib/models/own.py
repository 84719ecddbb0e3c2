"""A model of your own: ``path/to/file.py:function``.

The function takes no arguments and returns a :class:`torch.nn.Module` that is called with
waveforms of shape (batch, time). The module says what it must, and may say more:

=================  ==========================================================================
attribute
=================  ==========================================================================
``sample_rate``    Hz; required
``layers``         names of submodules, or a mapping of layer name to submodule name; by
                   default every submodule without children, but for dropout and identity
``frame_axis``     axis of a layer's output that is time, None if there is none: one for all
                   layers or a mapping; by default found by running sounds of two lengths
``frame_rate``     frames per second of a layer: one for all or a mapping; by default measured
``min_samples``    shortest sound it can take
=================  ==========================================================================

Or the file follows the API of the HEAR challenge (Turian et al. 2022): ``file.py:load_model`` with
``get_timestamp_embeddings`` beside it gives one layer, ``timestamp``.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import util
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from ..errors import AudioError, MissingDataError, ParameterError, UnknownNameError
from ..paths import file_sha256
from .audio_model import AudioModel
from .cards import ModelCard
from .taps import measured_grid, run_tapped

__all__ = ["HearModel", "OwnModel", "describe", "open_model"]

PASSIVE = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)


def describe(name: str) -> ModelCard:
    """Card of a model; the function is run to see what it returns."""
    with torch.random.fork_rng(devices=[]):
        return open_model(name).card


def open_model(name: str, untrained: bool = False) -> AudioModel:
    """Run the function of ``path/to/file.py:function`` and wrap what it returns.

    Raises
    ------
    MissingDataError
        When there is no such file.
    UnknownNameError
        When the file has no such function.
    ParameterError
        When what it returns cannot be used; says what to declare.
    """
    if untrained:
        raise ParameterError(
            f"{name} makes its own weights: write a second function that leaves them untrained"
        )
    file, _, function = name.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise MissingDataError(f"no file {path}, where {name!r} should be")
    with _importable(path.parent):
        module = _import(path)
        if not callable(getattr(module, function, None)):
            functions = [key for key, value in vars(module).items() if callable(value)]
            raise UnknownNameError(f"function in {path.name}", function, functions)
        made = getattr(module, function)()
    source = file_sha256(path)
    if function == "load_model" and hasattr(module, "get_timestamp_embeddings"):
        return HearModel(name, module.get_timestamp_embeddings, made, source)
    return OwnModel(name, made, source)


class OwnModel(AudioModel):
    """A torch module whose submodules are layers.

    Parameters
    ----------
    name : str
        What to call it.
    module : torch.nn.Module
        See the top of this page for its attributes.
    source_sha256 : str
        Checksum of the code that made it, part of the model's identity.
    """

    def __init__(self, name: str, module: nn.Module, source_sha256: str = ""):
        if not isinstance(module, nn.Module):
            raise ParameterError(f"{name} gave {type(module).__name__}, not a torch.nn.Module")
        self.network = module.eval()
        self._source_sha256 = source_sha256
        rate = _sample_rate(name, module)
        self.min_samples = int(getattr(module, "min_samples", 1))
        declared = getattr(module, "layers", None)
        self._modules = _tapped_modules(name, module, declared)
        self._axes = self._find_axes(name, rate, must=_is_declared(declared))
        super().__init__(_card(name, module, rate, tuple(self._axes)))
        self.network = module

    @property
    def identity(self) -> dict[str, str]:
        """What the features depend on, the source file included."""
        return super().identity | {"source_sha256": self._source_sha256}

    def _find_axes(self, name: str, rate: int, must: bool) -> dict[str, tuple[int, int | None]]:
        """Find each layer's batch and frame axis: what grows with more, and with longer, sounds."""
        length = max(rate // 2, 2 * self.min_samples)
        shapes = [
            self._shapes(torch.randn(n_sounds, n, generator=torch.manual_seed(0)) * 0.1)
            for n_sounds, n in ((2, length), (3, length), (2, 2 * length))
        ]
        axes = {}
        for layer in self._modules:
            small, more, longer = (each.get(layer) for each in shapes)
            if small is None or more is None or longer is None:
                if must:
                    raise ParameterError(
                        f"{name}: layer {layer!r} did not give one tensor per run: it was not "
                        "used, used several times, or returns something else. Name another "
                        "submodule in `layers`."
                    )
                continue
            batch = [axis for axis in range(len(small)) if small[axis] != more[axis]]
            frame = [axis for axis in range(len(small)) if small[axis] != longer[axis]]
            declared = getattr(self.network, "frame_axis", {})
            if not isinstance(declared, Mapping):
                declared = dict.fromkeys(self._modules, declared)
            if layer in declared:
                frame = [] if declared[layer] is None else [declared[layer] % len(small)]
            if len(batch) != 1 or len(frame) > 1 or batch == frame:
                raise ParameterError(
                    f"{name}: layer {layer!r} has shape {small} for 2 sounds and {longer} for "
                    f"sounds twice as long: which axis is time? Declare it on the module, "
                    f"frame_axis = {{{layer!r}: …}} (None for no time), or name the layers to "
                    "use in `layers`."
                )
            axes[layer] = batch[0], (frame[0] if frame else None)
        if not axes:
            raise ParameterError(f"{name}: no submodule gave a tensor; name some in `layers`")
        return axes

    @torch.inference_mode()
    def _shapes(self, waveforms: torch.Tensor) -> dict[str, tuple[int, ...]]:
        """Shape of each layer's output; only of layers that ran once and gave a tensor."""
        seen: dict[str, list] = {layer: [] for layer in self._modules}
        handles = [
            module.register_forward_hook(lambda _, args, output, to=seen[layer]: to.append(output))
            for layer, module in self._modules.items()
        ]
        try:
            self.network(waveforms.to(self.device))
        finally:
            for handle in handles:
                handle.remove()
        first = {layer: _first(outputs[0]) for layer, outputs in seen.items() if len(outputs) == 1}
        return {
            layer: tuple(value.shape)
            for layer, value in first.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        }

    def _forward(self, waveforms, layers):
        try:
            taken = run_tapped(
                lambda: self.network(waveforms), {layer: self._modules[layer] for layer in layers}
            )
        except RuntimeError as error:
            raise AudioError(
                f"{self.card.name} could not run on {waveforms.shape[1]} samples "
                f"({waveforms.shape[1] / self.sample_rate:.3f} s): {error}"
            ) from error
        return {layer: self._frames_first(layer, taken[layer]) for layer in layers}

    def _frames_first(self, layer: str, values: torch.Tensor) -> torch.Tensor:
        batch, frame = self._axes[layer]
        if frame is None:
            return values.movedim(batch, 0)[:, None]
        return values.movedim((batch, frame), (0, 1))

    def _frame_grid(self, layer):
        if self._axes[layer][1] is None:
            return None
        if layer not in self._grids:
            self._grids[layer] = self._measure(layer)
        return self._grids[layer]

    @cached_property
    def _grids(self) -> dict[str, tuple[float, float]]:
        return {}

    def _measure(self, layer: str) -> tuple[float, float]:
        """Frame times from the lengths at which a further frame appears."""

        def n_frames(n_samples: int) -> int:
            wave = torch.zeros(1, n_samples, device=self.device)
            return self._forward(wave, [layer])[layer].shape[1]

        declared = getattr(self.network, "frame_rate", None)
        if isinstance(declared, Mapping):
            declared = declared.get(layer)
        with torch.inference_mode():
            start = max(self.min_samples, self.sample_rate // 2)
            step, first = measured_grid(n_frames, start)
        step = self.sample_rate / declared if declared else step
        return step / self.sample_rate, first / self.sample_rate


class HearModel(AudioModel):
    """A model behind the API of the HEAR challenge: one layer, ``timestamp``.

    Parameters
    ----------
    name : str
        What to call it.
    get_timestamp_embeddings : callable
        ``(audio, model) -> (embeddings, timestamps in ms)``.
    model : object
        What ``load_model`` returned; has ``sample_rate``.
    source_sha256 : str
        Checksum of the code, part of the model's identity.
    """

    def __init__(self, name: str, get_timestamp_embeddings: Callable, model, source_sha256: str):
        super().__init__(_card(name, model, _sample_rate(name, model), ("timestamp",)))
        self._embed_timestamps, self._model = get_timestamp_embeddings, model
        self._source_sha256 = source_sha256
        if isinstance(model, nn.Module):
            self.network = model

    @property
    def identity(self) -> dict[str, str]:
        """What the features depend on, the source file included."""
        return super().identity | {"source_sha256": self._source_sha256}

    def _forward(self, waveforms, layers):
        embeddings, _ = self._embed_timestamps(waveforms, self._model)
        return {"timestamp": torch.as_tensor(embeddings).float()}

    @cached_property
    def _grid(self) -> tuple[float, float]:
        wave = torch.zeros(1, 2 * self.sample_rate, device=self.device)
        with torch.inference_mode():
            _, milliseconds = self._embed_timestamps(wave, self._model)
        times = torch.as_tensor(milliseconds).double().reshape(-1) / 1000
        if len(times) < 2:
            raise ParameterError(f"{self.card.name} gives fewer than two timestamps in 2 s")
        return (times[-1] - times[0]).item() / (len(times) - 1), times[0].item()

    def _frame_grid(self, layer):
        return self._grid


def _tapped_modules(name: str, module: nn.Module, declared) -> dict[str, nn.Module]:
    """Layer names and the submodules behind them."""
    known = dict(module.named_modules())
    if not _is_declared(declared):
        return {
            key: part
            for key, part in known.items()
            if key and not [*part.children()] and not isinstance(part, PASSIVE)
        } or {"output": module}
    chosen = declared if isinstance(declared, Mapping) else {key: key for key in declared}
    for key in chosen.values():
        if key not in known:
            raise UnknownNameError(f"submodule of {name}", key, filter(None, known))
    return {layer: known[key] for layer, key in chosen.items()}


def _is_declared(layers: object) -> bool:
    """Whether `layers` names layers; many networks keep a list of their blocks there."""
    return (
        isinstance(layers, Collection)
        and not isinstance(layers, (str, nn.Module))
        and len(layers) > 0
        and all(isinstance(layer, str) for layer in layers)
    )


def _card(name: str, made: object, rate: int, layers: tuple[str, ...]) -> ModelCard:
    parameters = [*made.parameters()] if isinstance(made, nn.Module) else []
    return ModelCard(
        name=name,
        label=name.rpartition(":")[2],
        family="Your own",
        kind="trained-here",
        architecture=type(made).__name__,
        sample_rate=rate,
        layers=layers,
        parameters=sum(parameter.numel() for parameter in parameters),
        training_data="not stated",
    )


def _sample_rate(name: str, made: object) -> int:
    rate = getattr(made, "sample_rate", None)
    if not isinstance(rate, (int, float)) or rate <= 0:
        raise ParameterError(
            f"{name}: say at which rate (Hz) the model takes sounds: set `sample_rate` on the "
            f"{type(made).__name__} before returning it"
        )
    return int(rate)


def _first(output: object) -> object:
    return output[0] if isinstance(output, (tuple, list)) else output


def _import(path: Path) -> ModuleType:
    """Import a file under a name of its own."""
    name = f"own_{path.stem}_{file_sha256(path)[:8]}"
    spec = util.spec_from_file_location(name, path)
    module = util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
