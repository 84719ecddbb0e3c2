"""Fine-tuning on one brain, on several, or on all but one; and what it predicts afterwards."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from .. import training
from ..data import friends
from ..device import resolve_device
from ..errors import MissingDataError, ParameterError
from ..paths import atomic_path, cache_dir, content_key
from ..time_series.scores import r_squared
from .baselines import ridge_head
from .checkpoints import save_network, start_network
from .network import EncodingModel, recount_statistics
from .scores import scored
from .segments import Recordings, Segments, precompute, record
from .settings import Settings

__all__ = ["ALGORITHM_VERSION", "checkpoint", "finetune", "fit", "leave_one_out", "predict"]

ALGORITHM_VERSION = 1
_BEST, _NETWORK = "best.safetensors", "soundnet.safetensors"


def finetune(
    source: str | Path,
    subjects: Sequence[str],
    settings: Settings | Mapping[str, object] | None = None,
    checkpoint: str | Path | None = None,
    test_subjects: Sequence[str] | None = None,
    device: str = "auto",
    progress: bool = False,
) -> xr.Dataset:
    """Fine-tune SoundNet on the brain of one subject or of several, and test it on season 4.

    A run that was interrupted goes on where it was, and gives what it would have given.

    Parameters
    ----------
    source : str or path
        As for :func:`analysis_lib.data.friends.open`.
    subjects : sequence of str
        One makes an individual model, several a group model.
    settings : Settings or mapping, optional
        By default the robust protocol. A mapping may hold some of the settings.
    checkpoint : path, optional
        Weights to begin with; by default the published ones.
    test_subjects : sequence of str, optional
        Whose responses to compare with; by default those of the training. A shared head may be
        tested on anyone.
    device : str
        See :func:`analysis_lib.device.resolve_device`.
    progress : bool
        Show bars.

    Returns
    -------
    Dataset
        ``r2`` and ``r`` (subject, run, target) on the runs of the test season, NaN where a
        subject lacks the run or a target holds no data, as :mod:`analysis_lib.time_series` counts
        them; ``prediction`` (head, run, time, target), NaN past a run's end;
        ``validation`` (epoch, measure) along training. Attributes: ``network_key``, for
        :func:`checkpoint`; ``best_epoch``; ``seconds_per_step``; ``n_steps``; ``subjects``.

    Raises
    ------
    DataError
        When runs, sound and subjects do not fit (see :mod:`analysis_lib.data.friends`).
    ParameterError
        When a subject is to be tested for whom a per-subject head was not trained.
    TrainingError
        When the loss is not finite any more.

    References
    ----------
    Freteault et al. (2025), Imaging Neuroscience.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> both, own_heads = ["sub-01", "sub-02"], finetuning.Settings(heads="per-subject")
    >>> finetuning.finetune("friends-twin", both, own_heads, test_subjects=["sub-03"])
    Traceback (most recent call last):
        ...
    analysis_lib.errors.ParameterError: sub-03 has no head: with heads='per-subject' only ...
    >>> start = finetuning.twin_checkpoint("friends-twin")  # doctest: +SKIP
    >>> finetuning.finetune("friends-twin", ["sub-01"], None, start)["r2"]  # doctest: +SKIP
    """
    settings = Settings.of(settings)
    subjects, tested = list(subjects), list(test_subjects or subjects)
    strangers = [subject for subject in tested if subject not in subjects]
    if strangers and settings.heads == "per-subject" and len(subjects) > 1:
        raise ParameterError(
            f"{strangers[0]} has no head: with heads='per-subject' only subjects of the training "
            f"can be tested ({', '.join(subjects)}). Use heads='shared'."
        )
    data = {name: friends.open(source, name) for name in dict.fromkeys([*subjects, *tested])}
    parts = friends.split(
        {run for name in subjects for run in data[name].runs}, settings.split
    )  # seed 42 is the paper's
    learned = record([data[name] for name in subjects], parts["train"] + parts["validation"],
                     settings, progress)  # fmt: skip
    trained, folder, history = fit(learned, parts, settings, checkpoint, device, progress)
    heard = {run for name in tested for run in data[name].runs}
    runs = [run for run in friends.split(heard, settings.split)["test"]]
    unheard = record([data[name] for name in tested], runs, settings, progress)
    predictions = predict(trained, unheard, runs, device)
    row_of = {name: subjects.index(name) if trained.n_heads > 1 else 0 for name in tested}
    result = scored(predictions, unheard, row_of, data[tested[0]].targets)
    evaluated = history.dropna(subset="validation_loss")
    measures = ["loss", "r2_mean", "r2_max"]
    values = evaluated[[f"validation_{name}" for name in measures]].to_numpy()
    result["validation"] = (("epoch", "measure"), values)
    result = result.assign_coords(epoch=np.arange(len(evaluated)), measure=measures)
    return result.assign_attrs(
        network_key=folder.name,
        best_epoch=int(np.argmin(values[:, 0])),
        n_steps=int(history["step"].max()),
        seconds_per_step=float(history.get("seconds", pd.Series([np.nan])).median()),
        subjects=", ".join(subjects),
    )


def leave_one_out(
    source: str | Path,
    subjects: Sequence[str],
    settings: Settings | Mapping[str, object] | None = None,
    **options,
) -> xr.Dataset:
    """Train a group model without each subject in turn, and test it on the one left out.

    Parameters
    ----------
    source, settings, **options
        As for :func:`finetune`; one shared head.
    subjects : sequence of str
        At least two.

    Returns
    -------
    Dataset
        ``r2`` and ``r`` (subject, run, target) of the subjects left out.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> finetuning.leave_one_out("friends-twin", ["sub-01"])
    Traceback (most recent call last):
        ...
    analysis_lib.errors.ParameterError: leaving one subject out takes at least two subjects
    >>> start = finetuning.twin_checkpoint("friends-twin")  # doctest: +SKIP
    >>> both = ["sub-01", "sub-02"]
    >>> finetuning.leave_one_out("friends-twin", both, checkpoint=start)["r2"]  # doctest: +SKIP
    """
    if len(subjects) < 2:
        raise ParameterError("leaving one subject out takes at least two subjects")
    settings = replace(Settings.of(settings), heads="shared")
    found = []
    for left_out in subjects:
        others = [subject for subject in subjects if subject != left_out]
        tuned = finetune(source, others, settings, test_subjects=[left_out], **options)
        found.append(tuned[["r2", "r"]].drop_attrs())
    return xr.concat(found, "subject")


def checkpoint(result: xr.Dataset | str) -> Path:
    """File of a fine-tuned network, for ``models.load("soundnet", checkpoint=...)``.

    Parameters
    ----------
    result : Dataset or str
        From :func:`finetune`, or its ``network_key``.

    Raises
    ------
    MissingDataError
        When the cache was emptied since.

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> finetuning.checkpoint("0123abcd")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.MissingDataError: the fine-tuned network 0123abcd is not in the cache ...
    >>> start = finetuning.twin_checkpoint("friends-twin")  # doctest: +SKIP
    >>> tuned = finetuning.finetune("friends-twin", ["sub-01"], None, start)  # doctest: +SKIP
    >>> finetuning.checkpoint(tuned).name  # doctest: +SKIP
    'soundnet.safetensors'
    """
    key = result if isinstance(result, str) else result.attrs["network_key"]
    path = cache_dir("finetuning", key, _NETWORK)
    if not path.is_file():
        raise MissingDataError(
            f"the fine-tuned network {key} is not in the cache any more. Remove its result from "
            "the store and run the fine-tuning again."
        )
    return path


def fit(
    recordings: Recordings,
    parts: Mapping[str, Sequence[str]],
    settings: Settings,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    progress: bool = False,
    network=None,
) -> tuple[EncodingModel, Path, pd.DataFrame]:
    """Train a network and its head; the weights of the best evaluation are kept.

    Parameters
    ----------
    recordings : Recordings
        Of the runs in ``parts``, with their sound.
    parts : mapping of {"train", "validation"} to sequence of str
        Names of runs.
    settings : Settings
        All of its choices, but for the split, which ``parts`` is.
    checkpoint, device, progress
        As for :func:`finetune`.
    network : SoundNet8, optional
        Weights to begin with, instead of a checkpoint.

    Returns
    -------
    model : EncodingModel
        With the weights that did best in validation, in evaluation mode.
    folder : Path
        Of the run, in the cache; ``soundnet.safetensors`` in it is the network.
    history : DataFrame
        See :class:`analysis_lib.training.Training`.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import finetuning
    >>> from analysis_lib.models.soundnet import SoundNet8
    >>> rng, runs, tr = np.random.default_rng(0), ("s01e01a", "s01e02a"), 1.49
    >>> noise = {run: rng.standard_normal(5 * 32_768).astype("float32") for run in runs}
    >>> sound = {run: finetuning.paper_chunks(noise[run], 4, tr)[None] for run in runs}
    >>> brain = {run: rng.standard_normal((1, 4, 3)).astype("float32") for run in runs}
    >>> there = dict.fromkeys(runs, np.ones((1, 4), dtype=bool))
    >>> known = np.ones((1, 3), dtype=bool)
    >>> recordings = finetuning.Recordings(
    ...     sound, 0, dict.fromkeys(runs, 4), brain, there, known, tr
    ... )
    >>> settings = finetuning.Settings(
    ...     protocol="paper", batch_size=1, n_taps=2, segment_trs=2, max_epochs=1
    ... )
    >>> parts = {"train": [runs[0]], "validation": [runs[1]]}
    >>> network = SoundNet8(widths=(2, 2, 2, 2, 2, 2, 4))
    >>> model, folder, history = finetuning.fit(
    ...     recordings, parts, settings, device="cpu", network=network
    ... )
    >>> history["step"].tolist(), sorted(path.name for path in folder.glob("soundnet*"))
    ([0, 1, 2], ['soundnet.safetensors'])
    """
    device = resolve_device(device)
    if network is None:
        network = start_network(settings, checkpoint)
    if settings.statistics == "recounted":
        recount_statistics(
            network.to(device), map(recordings.waveform, parts["train"]), settings.input_scale
        )
    known = torch.from_numpy(recordings.known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = EncodingModel(network, known.shape[1], known.shape[0], settings, known).to(device)
    if settings.head_start == "ridge":
        weight, bias = ridge_head(recordings, parts, deepcopy(network), settings, str(device))
        model.head.convolution.weight.data.copy_(weight.nan_to_num())
        model.head.convolution.bias.data.copy_(bias.nan_to_num())
    about = {
        "settings": settings.as_dict(),
        "start": content_key({k: v.cpu().numpy() for k, v in network.state_dict().items()}),
        "recordings": _content(recordings),
        "parts": {part: list(parts[part]) for part in ("train", "validation")},
        "version": ALGORITHM_VERSION,
    }
    folder = cache_dir("finetuning", content_key(about))
    ready = precompute(recordings, model, device, progress)
    train = Segments(ready, parts["train"], settings, model.first)
    validation = Segments(ready, parts["validation"], settings, model.first)
    best = _Best(folder)

    def evaluate(step: int) -> dict[str, float]:
        found = _validation(model, validation, device)
        best.consider(step, found["loss"], model)
        return found

    optimiser = torch.optim.AdamW(model.groups(), weight_decay=settings.weight_decay)
    every = train.steps_per_epoch
    _warm_up(optimiser, settings.warmup_epochs * every)
    done = training.fit(
        model,
        train.batch_of,
        optimiser,
        folder,
        n_steps=settings.max_epochs * every,
        save_every=every,
        schedule=torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=0.1, patience=settings.plateau_patience
        ),
        evaluate=evaluate,
        evaluate_every=every,
        stop=lambda history: _is_over(history, settings.patience),
        precision=settings.precision,
        seed=settings.seed,
        device=str(device),
        about=about,
        audio_per_step=settings.batch_size * settings.segment_trs * recordings.tr,
        progress=progress,
    )
    model.load_state_dict(load_file(folder / _BEST))
    save_network(model.network, folder / _NETWORK, settings.input_scale)
    return model.eval(), folder, done.history


def predict(
    model: EncodingModel, recordings: Recordings, runs: Sequence[str], device: str = "auto"
) -> dict[str, np.ndarray]:
    """Predict whole runs, segment by segment.

    Under the robust protocol segments hear what is around them, and together are what one pass
    over the run would give.

    Parameters
    ----------
    model : EncodingModel
        Moved to the device.
    recordings : Recordings
        With sound.
    runs : sequence of str
        Which of them to predict.
    device : str
        See :func:`analysis_lib.device.resolve_device`.

    Returns
    -------
    dict of str to array of shape (n_heads, n_trs, n_targets)
        By run.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import finetuning
    >>> from analysis_lib.models.soundnet import SoundNet8
    >>> noise = np.random.default_rng(0).standard_normal(5 * 32_768).astype("float32")
    >>> recordings = finetuning.Recordings(
    ...     inputs={"s01e01a": finetuning.paper_chunks(noise, 4, 1.49)[None]},
    ...     lead=0, n_trs={"s01e01a": 4},
    ...     responses={"s01e01a": np.zeros((1, 4, 3), dtype="float32")},
    ...     present={"s01e01a": np.ones((1, 4), dtype=bool)},
    ...     known=np.ones((1, 3), dtype=bool), tr=1.49,
    ... )
    >>> settings = finetuning.Settings(protocol="paper", batch_size=1, n_taps=2, segment_trs=2)
    >>> network = SoundNet8(widths=(2, 2, 2, 2, 2, 2, 4))
    >>> model = finetuning.EncodingModel(network, n_targets=3, settings=settings)
    >>> finetuning.predict(model, recordings, ["s01e01a"], "cpu")["s01e01a"].shape
    (1, 4, 3)
    """
    device = resolve_device(device)
    ready = precompute(recordings, model.to(device), device, progress=False)
    segments = Segments(ready, runs, model.settings, model.first)
    model.eval()
    return {run: _predicted(model, segments, run, device) for run in runs}


@torch.no_grad()
def _predicted(
    model: EncodingModel, segments: Segments, run: str, device: torch.device
) -> np.ndarray:
    n_trs = segments.recordings.n_trs[run]
    predicted = np.full((model.n_heads, n_trs, model.n_targets), np.nan, dtype=np.float32)
    for row in segments.of_run(run):
        inputs, positions, *_ = segments.batch([row])
        values = model.predict(inputs.to(device), positions.to(device))[0].cpu().numpy()
        first = segments.first_of(row)
        predicted[:, first : first + values.shape[1]] = values[:, : n_trs - first]
    return predicted


def _validation(model: EncodingModel, segments: Segments, device: torch.device) -> dict[str, float]:
    """Mean and largest R², and the loss that training is stopped and selected by."""
    recordings, r2, squared = segments.recordings, [], 0.0
    n_segments = len(segments)
    for run in segments.runs:
        predicted = _predicted(model, segments, run, device)
        for row, present in enumerate(recordings.present[run]):
            if present.any():
                known = recordings.known[row]
                measured = recordings.responses[run][row][present][:, known]
                head = predicted[row if model.n_heads > 1 else 0][present][:, known]
                r2.append(r_squared(head, measured))
                squared += float(((measured - head) ** 2).sum())
    by_target = np.mean([np.nanmean(values) for values in r2])
    largest = float(np.mean([np.nanmax(values) for values in r2]))
    if model.settings.protocol == "paper":
        loss = 0.01 * squared / model.settings.segment_trs / n_segments
    else:
        loss = 1 - by_target
    return {"loss": float(loss), "r2_mean": float(by_target), "r2_max": largest}


def _warm_up(optimiser: torch.optim.Optimizer, n_steps: int) -> None:
    """Let learning rates rise over the optimiser's first steps, which it counts itself."""

    def before(optimiser, *_):
        counts = (state["step"] for state in optimiser.state.values())
        share = min(1.0, (float(next(counts, 0)) + 1) / max(n_steps, 1))
        for group in optimiser.param_groups:
            group["full"], group["lr"] = group["lr"], share * group["lr"]

    def after(optimiser, *_):
        for group in optimiser.param_groups:
            group["lr"] = group.pop("full")

    optimiser.register_step_pre_hook(before)
    optimiser.register_step_post_hook(after)


def _is_over(history: pd.DataFrame, patience: int) -> bool:
    losses = history["validation_loss"].dropna().to_numpy()
    return len(losses) - 1 - int(losses.argmin()) >= patience


def _content(recordings: Recordings) -> str:
    return content_key(
        *(dict(part) for part in (recordings.inputs, recordings.responses, recordings.present)),
        recordings.known,
        recordings.tr,
    )


class _Best:
    """The weights of the best evaluation so far, in a file, so that a resumed run knows them."""

    def __init__(self, folder: Path):
        self.weights, self.record = folder / _BEST, folder / "best.json"

    def consider(self, step: int, loss: float, model: EncodingModel) -> None:
        stored = json.loads(self.record.read_text()) if self.record.is_file() else {}
        if loss < stored.get("loss", inf):
            tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
            with atomic_path(self.weights) as temporary:
                save_file(tensors, temporary)
            with atomic_path(self.record) as temporary:
                temporary.write_text(json.dumps({"step": step, "loss": loss}))
