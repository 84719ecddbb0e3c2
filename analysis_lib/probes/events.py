"""Probes of event tasks: what happens when, from embeddings over time.

The linear counterpart of HEAR's event predictor: ridge regression of frame-wise labels, then
median filter, threshold and shortest duration, all chosen on the validation clips by the
F-measure of onsets. Labels are laid onto frames by the timestamps, so wrong timestamps show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import xarray as xr

from ..data.task_format import EVENT_TOLERANCE, Event, Task
from ..errors import ParameterError
from ..hear_api import HearModel, get_timestamp_embeddings
from ..models import AudioModel
from .evaluation import LINEAR_PENALTIES, require_disjoint, ridge_path
from .metrics import events_from_probabilities, onset_f

__all__ = ["evaluate_events"]

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
DEFAULT_GRID = {"median_filter_ms": [250], "min_duration": [125, 250]}  # HEAR's


@dataclass(frozen=True)
class _Clip:
    """Frames of one clip: embeddings, times in seconds, labels."""

    embeddings: torch.Tensor
    times: torch.Tensor
    targets: torch.Tensor


def evaluate_events(
    model: AudioModel,
    task: Task,
    layer: str | None = None,
    penalties: Sequence[float] = LINEAR_PENALTIES,
) -> xr.Dataset:
    """Find events with a linear probe on embeddings over time.

    Parameters
    ----------
    model : AudioModel
        With frames in time, or else heard through windows.
    task : Task
        An event task. Its ``evaluation_params.event_postprocessing_grid`` is searched, by
        default HEAR's.
    layer : str, optional
        By default as :class:`~analysis_lib.hear_api.HearModel` chooses.
    penalties : sequence of float
        Of the ridge regression, in units of the mean squared norm of the training frames.

    Returns
    -------
    Dataset
        ``score`` (metric, fold) on the test clips, ``mean_score`` (metric,), ``valid_score``
        (fold,) and ``chosen`` (fold,).

    Raises
    ------
    ParameterError
        When the task is not an event task.

    Examples
    --------
    >>> from analysis_lib import data, models, probes
    >>> task, model = data.task("demo-events"), models.load("log-mel", device="cpu")
    >>> result = probes.evaluate_events(model, task, penalties=[1e-3])
    >>> [str(metric) for metric in result["metric"].values]
    ['event_onset_200ms_fms', 'event_onset_50ms_fms']
    """
    if task.embedding_type != "event":
        raise ParameterError(f"task {task.name} is a scene task: use probes.evaluate()")
    require_disjoint(model, task)
    hear = HearModel(model, timestamp_layer=layer)
    sounds = task.sounds()
    clips = [_frames(hear, sounds.waveform(name, hear.sample_rate), name, task) for name in sounds]
    events = {name: task.events[name] for name in task.clips}
    grid = task.metadata.get("evaluation_params", {}).get("event_postprocessing_grid", DEFAULT_GRID)
    settings = [
        {
            "median_filter_s": median / 1000,
            "min_duration_s": shortest / 1000,
            "threshold": threshold,
        }
        for median, shortest, threshold in product(
            grid["median_filter_ms"], grid["min_duration"], THRESHOLDS
        )
    ]
    scores, valid_scores, chosen = [], [], []
    for partition in task.partitions:
        predict = _fit([clips[row] for row in partition.train], penalties)
        best = (-np.inf, None, None)
        valid = {task.clips[row]: predict(clips[row]) for row in partition.valid}
        for i, setting in product(range(len(penalties)), settings):
            found = _detect({n: y[i] for n, y in valid.items()}, clips, task, setting)
            score = onset_f(
                {name: events[name] for name in valid}, found, EVENT_TOLERANCE[task.metrics[0]]
            )
            if score > best[0]:
                best = (score, i, setting)
        valid_scores.append(best[0])
        chosen.append(f"penalty {penalties[best[1]]:.2g} threshold {best[2]['threshold']}")
        test = {task.clips[row]: predict(clips[row])[best[1]] for row in partition.test}
        found = _detect(test, clips, task, best[2])
        reference = {name: events[name] for name in test}
        scores.append([onset_f(reference, found, EVENT_TOLERANCE[m]) for m in task.metrics])
    scores = np.array(scores).T
    return xr.Dataset(
        {
            "score": (("metric", "fold"), scores),
            "mean_score": (("metric",), scores.mean(axis=1)),
            "valid_score": (("fold",), valid_scores),
            "chosen": (("fold",), chosen),
        },
        coords={"metric": list(task.metrics), "fold": [p.name for p in task.partitions]},
        attrs={
            "analysis": "event_probes",
            "model": model.card.name,
            "layer": hear.timestamp_layer,
            "task": task.name,
            "task_content": task.content_key,
            "n_clips": len(task.clips),
        },
    )


def _frames(hear: HearModel, waveform: np.ndarray, name: str, task: Task) -> _Clip:
    audio = torch.from_numpy(waveform)[None].to(hear.model.device)
    embeddings, timestamps = get_timestamp_embeddings(audio, hear)
    times = timestamps[0].double().cpu() / 1000
    targets = torch.zeros(len(times), len(task.vocabulary), dtype=torch.float64)
    for label, start, end in task.events[name]:
        targets[(times >= start) & (times < end), task.vocabulary.index(label)] = 1
    return _Clip(embeddings[0].double(), times, targets.to(embeddings.device))


def _fit(clips: Sequence[_Clip], penalties: Sequence[float]):
    """Ridge from frames to labels; returns a function of a clip, (n_penalties, n_frames, label)."""
    x = torch.cat([clip.embeddings for clip in clips])
    y = torch.cat([clip.targets for clip in clips])
    mean, std, centre = x.mean(dim=0), x.std(dim=0), y.mean(dim=0)
    std = torch.where(std > 1e-12, std, torch.inf)
    penalties = torch.tensor(list(penalties), dtype=torch.float64, device=x.device)
    predict = ridge_path((x - mean) / std, y - centre, penalties)
    return lambda clip: predict((clip.embeddings - mean) / std) + centre


def _detect(
    predicted: Mapping[str, torch.Tensor], clips: Sequence[_Clip], task: Task, setting: Mapping
) -> dict[str, list[Event]]:
    row = {name: i for i, name in enumerate(task.clips)}
    return {
        name: events_from_probabilities(y, clips[row[name]].times, task.vocabulary, **setting)
        for name, y in predicted.items()
    }
