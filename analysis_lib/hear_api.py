"""Every model of the zoo as a HEAR module, with true timestamps, and a validator.

The functions follow the common API of HEAR 2021 (Turian et al. 2022); this module is itself a
HEAR module, whose "weights file" is the name of a model. The validator needs no TensorFlow, and
measures whether the timestamps are true: the public one looks at their shape and spacing only,
and accepts a wrapper whose timestamps are 15 s off after two minutes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import scipy
import soxr
import torch

from . import models
from .errors import AudioError, ParameterError, UnknownNameError
from .models import AudioModel

__all__ = [
    "HearModel",
    "ValidationReport",
    "get_scene_embeddings",
    "get_timestamp_embeddings",
    "hear_module",
    "load_model",
    "validate",
]

SAMPLE_RATES = (16_000, 22_050, 44_100, 48_000)  # in Hz, that every version of HEAR allows
LONGEST_HOP = 0.05  # seconds between timestamps that HEAR suggests at most
WINDOW = 0.5  # seconds that a model without frames in time hears for each timestamp


class HearModel(torch.nn.Module):
    """A model of the zoo with the attributes that HEAR asks for.

    Parameters
    ----------
    model : AudioModel
    scene_layer : str, optional
        Layer averaged over time for scene embeddings; by default the last that takes sounds of
        any length.
    timestamp_layer : str, optional
        Layer for timestamp embeddings; by default the last with at least 20 frames per second,
        or else the one with most. A layer without frames in time hears windows of half a
        second, one centred on every 50 ms.

    Attributes
    ----------
    sample_rate : int
        Of the audio it takes, in Hz: the lowest that HEAR allows and the model does not lose by.
    scene_embedding_size, timestamp_embedding_size : int

    Examples
    --------
    >>> from analysis_lib import hear_api
    >>> model = hear_api.load_model("small-cnn")
    >>> model.sample_rate, model.scene_embedding_size, model.timestamp_embedding_size
    (16000, 512, 512)
    """

    def __init__(
        self,
        model: AudioModel,
        scene_layer: str | None = None,
        timestamp_layer: str | None = None,
    ):
        super().__init__()
        for layer in (scene_layer, timestamp_layer):
            if layer is not None and layer not in model.layers:
                raise UnknownNameError(f"layer of {model.card.name}", layer, model.layers)
        self.model = model
        self.network = model.network  # so that .to() and .eval() reach it
        self.sample_rate = next(
            (rate for rate in SAMPLE_RATES if rate >= model.sample_rate), SAMPLE_RATES[-1]
        )
        self.timestamp_layer = timestamp_layer or _fine_layer(model)
        second = torch.zeros(1, self.sample_rate)
        second[0, :: self.sample_rate // 100] = 0.1
        self.scene_layer = scene_layer or self._last_layer_for(second)
        self.scene_embedding_size = self.frames(second, self.scene_layer).shape[-1]
        self.timestamp_embedding_size = self.frames(second, self.timestamp_layer).shape[-1]

    def _last_layer_for(self, audio: torch.Tensor) -> str:
        """Last layer that takes this sound; fully connected ones take one length only."""
        for layer in reversed(self.model.layers):
            try:
                self.frames(audio, layer)
            except AudioError:
                continue
            return layer
        raise AudioError(f"{self.model.card.name}: no layer takes a sound of one second")

    def frames_and_times(self, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations of the timestamp layer, and the centre of each frame.

        Parameters
        ----------
        audio : tensor of shape (n_sounds, n_samples), float32
            As for :meth:`frames`.

        Returns
        -------
        activations : tensor of shape (n_sounds, n_frames, n_units), float32
        times : tensor of shape (n_frames,), float64
            Seconds; some may lie before the start or after the end of the sound.
        """
        if self.model.frame_rate(self.timestamp_layer):
            activations = self.frames(audio, self.timestamp_layer)
            return activations, self.model.frame_times(self.timestamp_layer, activations.shape[1])
        window = 2 * round(WINDOW * self.sample_rate / 2)
        hop = round(LONGEST_HOP * self.sample_rate)
        padded = torch.nn.functional.pad(audio, (window // 2, window // 2))
        windows = padded.unfold(1, window, hop)
        activations = torch.cat(
            [
                self.frames(part, self.timestamp_layer).mean(dim=1)
                for part in windows.reshape(-1, window).split(64)
            ]
        )
        times = hop / self.sample_rate * torch.arange(windows.shape[1], dtype=torch.float64)
        return activations.view(len(audio), len(times), -1), times

    def frames(self, audio: torch.Tensor, layer: str) -> torch.Tensor:
        """Activations of a layer, all units in one dimension.

        Parameters
        ----------
        audio : tensor of shape (n_sounds, n_samples), float32
            In [-1, 1] at :attr:`sample_rate`; padded with silence if too short for the network.
        layer : str
            Of the model.

        Returns
        -------
        tensor of shape (n_sounds, n_frames, n_units), float32
        """
        if audio.ndim != 2 or audio.shape[1] == 0:
            raise ParameterError(
                f"audio must have shape (n_sounds, n_samples), not {tuple(audio.shape)}"
            )
        if self.sample_rate != self.model.sample_rate:
            resampled = soxr.resample(
                audio.detach().cpu().numpy().T, self.sample_rate, self.model.sample_rate
            )
            audio = torch.from_numpy(np.ascontiguousarray(resampled.T)).to(audio.device)
        missing = self.model.min_samples - audio.shape[1]
        if missing > 0:
            audio = torch.nn.functional.pad(audio, (0, missing))
        return self.model.embed(audio, layers=[layer])[layer].flatten(2).float()


def load_model(model_file_path: str = "log-mel") -> HearModel:
    """Load a model for HEAR.

    Parameters
    ----------
    model_file_path : str
        Name of a model in the zoo, or ``name@checkpoint`` with the path of its published file.

    Examples
    --------
    >>> from analysis_lib import hear_api
    >>> hear_api.load_model("log-mel").sample_rate
    16000
    """
    name, _, checkpoint = str(model_file_path).partition("@")
    return HearModel(models.load(name, checkpoint=checkpoint or None))


def get_scene_embeddings(audio: torch.Tensor, model: HearModel) -> torch.Tensor:
    """One embedding per sound: the time average of the scene layer.

    Parameters
    ----------
    audio : tensor of shape (n_sounds, n_samples), float32
        In [-1, 1], at ``model.sample_rate``.
    model : HearModel
        From :func:`load_model`.

    Returns
    -------
    tensor of shape (n_sounds, scene_embedding_size), float32

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import hear_api
    >>> model = hear_api.load_model("mfcc")
    >>> audio = torch.randn(2, model.sample_rate) / 10
    >>> hear_api.get_scene_embeddings(audio, model).shape
    torch.Size([2, 40])
    """
    return model.frames(audio, model.scene_layer).mean(dim=1)


def get_timestamp_embeddings(
    audio: torch.Tensor, model: HearModel
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of each sound over time, with the time that each is about.

    Parameters
    ----------
    audio, model
        As :func:`get_scene_embeddings`.

    Returns
    -------
    embeddings : tensor of shape (n_sounds, n_frames, timestamp_embedding_size), float32
    timestamps : tensor of shape (n_sounds, n_frames), float32
        Centre of each frame in milliseconds from the start, from the network's own strides and
        paddings. Frames centred before the start or after the end of the sound are left out.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import hear_api
    >>> model = hear_api.load_model("mfcc")
    >>> audio = torch.randn(2, model.sample_rate) / 10
    >>> embeddings, timestamps = hear_api.get_timestamp_embeddings(audio, model)
    >>> embeddings.shape, timestamps[0, :3].tolist()
    (torch.Size([2, 98, 40]), [12.5, 22.5, 32.5])
    """
    embeddings, times = model.frames_and_times(audio)
    times = 1000 * times
    inside = (times >= 0) & (times <= 1000 * audio.shape[1] / model.sample_rate)
    if not inside.any():
        inside[(times - 500 * audio.shape[1] / model.sample_rate).abs().argmin()] = True
    timestamps = times[inside].float().to(audio.device).expand(len(audio), -1)
    return embeddings[:, inside.to(embeddings.device)], timestamps


def hear_module(name: str) -> ModuleType:
    """Make a HEAR module of one model: ``load_model()`` needs no argument.

    Put it into ``sys.modules`` to hand it to tools that import a module by name.

    Examples
    --------
    >>> from analysis_lib import hear_api
    >>> module = hear_api.hear_module("log-mel")
    >>> module.load_model().scene_embedding_size
    128
    """
    models.card(name)
    module = ModuleType(f"hear_{name.replace('-', '_')}")

    def load(model_file_path: str = "") -> HearModel:
        return load_model(f"{name}@{model_file_path}" if model_file_path else name)

    module.load_model = load
    module.get_scene_embeddings = get_scene_embeddings
    module.get_timestamp_embeddings = get_timestamp_embeddings
    return module


def _fine_layer(model: AudioModel) -> str:
    rates = {layer: model.frame_rate(layer) for layer in model.layers}
    fine = [layer for layer, rate in rates.items() if rate >= 1 / LONGEST_HOP - 1e-6]
    return fine[-1] if fine else max(rates, key=rates.get)


@dataclass
class ValidationReport:
    """What the validator found.

    Attributes
    ----------
    errors : list of str
        Reasons to refuse the module.
    warnings : list of str
        Things that HEAR advises against.
    measured : dict
        ``hop_ms``, declared; ``rate``, declared seconds per true second; ``offset_ms``,
        declared minus true time in the middle of the sound.

    Examples
    --------
    >>> from analysis_lib import hear_api
    >>> hear_api.ValidationReport(errors=["timestamps are wrong"]).ok
    False
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the module is accepted."""
        return not self.errors

    def __str__(self) -> str:
        lines = ["accepted" if self.ok else "refused"]
        lines += [f"error: {text}" for text in self.errors]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"{name}: {value:.4g}" for name, value in self.measured.items()]
        return "\n".join(lines)


def validate(
    module: ModuleType, model_file_path: str = "", device: str = "cpu"
) -> ValidationReport:
    """Check a module against the HEAR API, and its timestamps against the sound.

    Parameters
    ----------
    module : module
        With ``load_model``, ``get_scene_embeddings`` and ``get_timestamp_embeddings``.
    model_file_path : str
        Handed to ``load_model`` unless empty.
    device : str
        Where to run it.

    Returns
    -------
    ValidationReport

    Examples
    --------
    >>> from analysis_lib import hear_api
    >>> report = hear_api.validate(hear_api.hear_module("mfcc"))
    >>> report.ok, report.errors
    (True, [])
    """
    report = ValidationReport()
    for name in ("load_model", "get_scene_embeddings", "get_timestamp_embeddings"):
        if not callable(getattr(module, name, None)):
            report.errors.append(f"the module has no function {name}")
    if report.errors:
        return report
    model = module.load_model(model_file_path) if model_file_path else module.load_model()
    if not isinstance(model, torch.nn.Module):
        report.errors.append(f"load_model returned {type(model).__name__}, not a torch module")
        return report
    model.to(device)
    if getattr(model, "sample_rate", None) not in SAMPLE_RATES:
        report.errors.append(f"sample_rate must be one of {', '.join(map(str, SAMPLE_RATES))}")
    for size in ("scene_embedding_size", "timestamp_embedding_size"):
        if not isinstance(getattr(model, size, None), int):
            report.errors.append(f"the model has no integer {size}")
    if report.errors:
        return report
    with torch.inference_mode():
        _check_scene(report, module, model, device)
        for seconds in (1.07, 1.98, 4.0):
            _check_timestamps(report, module, model, device, seconds)
        if report.ok:
            _check_truth(report, module.get_timestamp_embeddings, model, device)
    return report


def _noise(n_sounds: int, seconds: float, model, device: str, level: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (n_sounds, round(seconds * model.sample_rate))
    return (level * torch.randn(shape, generator=generator)).clamp(-1, 1).to(device)


def _check_scene(report, module, model, device) -> None:
    embeddings = module.get_scene_embeddings(_noise(4, 2.74, model, device), model)
    expected = (4, model.scene_embedding_size)
    if tuple(embeddings.shape) != expected or embeddings.dtype != torch.float32:
        report.errors.append(
            f"scene embeddings are {tuple(embeddings.shape)} {embeddings.dtype}; expected "
            f"{expected} float32"
        )
    elif not torch.isfinite(embeddings).all():
        report.errors.append("scene embeddings are not finite")


def _check_timestamps(report, module, model, device, seconds: float) -> None:
    audio = _noise(2, seconds, model, device)
    embeddings, timestamps = module.get_timestamp_embeddings(audio, model)
    where = f"for {seconds} s of sound"
    if embeddings.ndim != 3 or embeddings.dtype != torch.float32:
        report.errors.append(
            f"timestamp embeddings must be float32 (n_sounds, n_frames, size), not "
            f"{tuple(embeddings.shape)} {embeddings.dtype} {where}"
        )
        return
    if embeddings.shape[0] != 2 or embeddings.shape[2] != model.timestamp_embedding_size:
        report.errors.append(f"timestamp embeddings have shape {tuple(embeddings.shape)} {where}")
    if tuple(timestamps.shape) != tuple(embeddings.shape[:2]):
        report.errors.append(
            f"timestamps have shape {tuple(timestamps.shape)}, embeddings "
            f"{tuple(embeddings.shape)} {where}"
        )
        return
    if not torch.isfinite(embeddings).all():
        report.errors.append(f"timestamp embeddings are not finite {where}")
    end = 1000 * seconds
    if timestamps.min() < 0 or timestamps.max() > end:
        report.errors.append(
            f"timestamps run from {timestamps.min():.0f} to {timestamps.max():.0f} ms {where}"
        )
    if timestamps.shape[1] < 2:
        report.warnings.append(f"only {timestamps.shape[1]} timestamp {where}")
        return
    hops = timestamps.double().diff(dim=1)
    hop = float(hops.mean())
    if (hops - hop).abs().max() > 1:
        report.errors.append(f"the spacing of the timestamps varies by more than 1 ms {where}")
    if hop > 1000 * LONGEST_HOP + 1e-3:
        report.warnings.append(f"timestamps are {hop:.0f} ms apart; HEAR suggests 50 ms or less")
    reach = max(hop, 1000 * LONGEST_HOP)
    if timestamps.min() > reach or timestamps.max() < end - reach:
        report.warnings.append(
            f"timestamps run from {timestamps.min():.0f} to {timestamps.max():.0f} ms only {where}"
        )
    report.measured["hop_ms"] = hop


def _check_truth(report, embed: Callable, model, device: str) -> None:
    """Compare the declared times with where clicks at known times show up."""
    seconds, n_clicks = 6.0, 13
    true = np.linspace(1.0, 5.0, n_clicks) + 0.0137 * (np.arange(n_clicks) % 3)
    audio = _noise(1, seconds, model, device, level=0.01).repeat(n_clicks + 1, 1)
    width = round(0.005 * model.sample_rate)
    burst = _noise(1, 0.005, model, device, level=0.2)[0]
    # A louder one early in every sound, so that a model that normalises the level of a whole
    # sound does so alike with and without the click.
    audio[:, round(0.3 * model.sample_rate) :][:, : len(burst)] += 1.5 * burst
    for row, t in enumerate(true, start=1):
        first = round(t * model.sample_rate) - width // 2
        audio[row, first : first + len(burst)] += burst
    embeddings, timestamps = embed(audio, model)
    response = (embeddings[1:] - embeddings[:1]).double().square().sum(dim=2).cpu()
    response = response - response.median(dim=1, keepdim=True).values
    # Only the peak: a network may change a little everywhere (attention, normalisation).
    response = torch.where(response >= 0.5 * response.amax(dim=1, keepdim=True), response, 0.0)
    total = response.sum(dim=1)
    if not (total > 0).all():
        report.warnings.append("clicks leave no trace, so the timestamps could not be checked")
        return
    declared = (response * timestamps[1:].double().cpu()).sum(dim=1) / total / 1000
    rate, *_ = scipy.stats.theilslopes(declared.numpy(), true)
    offset = float(np.median(declared.numpy() - true))
    hop = float(timestamps[0].double().diff().mean()) / 1000
    report.measured |= {"rate": float(rate), "offset_ms": 1000 * offset}
    if abs(rate - 1) > 0.02 + 0.5 * hop / (true[-1] - true[0]):
        report.errors.append(
            f"the timestamps are wrong: {rate:.3f} s are declared per second of sound "
            f"({100 * (rate - 1):+.0f} %). Derive them from the strides of the network."
        )
    elif abs(offset) > 0.05 + 1.5 * hop:
        report.errors.append(
            f"the timestamps are wrong: {1000 * offset:+.0f} ms off in the middle of the sound. "
            "Count the paddings of the network, and frames left out."
        )
