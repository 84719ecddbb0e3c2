"""Scores of a probe, under the names that the HEAR tasks give them.

All but the event scores take any number of leading dimensions, so that the probes of a whole
grid are scored at once, on the device that trained them.
"""

from collections.abc import Mapping, Sequence

import scipy
import torch

from ..data.task_format import Event
from ..errors import DataError, ParameterError, UnknownNameError

__all__ = [
    "auroc",
    "average_precision",
    "chroma_accuracy",
    "d_prime",
    "events_from_probabilities",
    "mean_average_precision",
    "onset_f",
    "scene_score",
    "top1_accuracy",
]


def top1_accuracy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Fraction of clips whose highest-scoring class is the true one.

    Parameters
    ----------
    scores : tensor of shape (..., n_clips, n_classes)
        Of the probes; higher is likelier.
    targets : tensor of shape (n_clips, n_classes)
        One-hot.

    Returns
    -------
    tensor of shape (...,)
    """
    _require_rows(targets)
    return (scores.argmax(dim=-1) == targets.argmax(dim=-1)).double().mean(dim=-1)


def chroma_accuracy(
    scores: torch.Tensor, targets: torch.Tensor, pitches: torch.Tensor
) -> torch.Tensor:
    """Fraction of notes given the right pitch class, whatever the octave.

    Parameters
    ----------
    scores, targets
        As :func:`top1_accuracy`.
    pitches : tensor of shape (n_classes,)
        MIDI number of each class.
    """
    _require_rows(targets)
    pitches = torch.as_tensor(pitches, device=scores.device)
    chosen, true = pitches[scores.argmax(dim=-1)], pitches[targets.argmax(dim=-1)]
    return (chosen % 12 == true % 12).double().mean(dim=-1)


def average_precision(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Average precision per class: mean, over true clips, of the precision at their score.

    Clips of equal score enter together. NaN for a class that is never true.

    Parameters
    ----------
    scores : tensor of shape (..., n_clips, n_classes)
        Of the probes; higher is likelier.
    targets : tensor of shape (n_clips, n_classes)
        0 or 1.

    Returns
    -------
    tensor of shape (..., n_classes)
    """
    _require_rows(targets)
    by_class = scores.double().transpose(-1, -2).contiguous()
    falling, order = by_class.sort(dim=-1, descending=True)
    relevant = targets.double().T.expand_as(falling).gather(-1, order)
    # Last place of each clip's group of equal scores.
    last = torch.searchsorted(-falling, -falling, right=True) - 1
    precision = relevant.cumsum(dim=-1).gather(-1, last) / (last + 1)
    n_relevant = relevant.sum(dim=-1)
    precision = (precision * relevant).sum(dim=-1) / n_relevant
    return torch.where(n_relevant > 0, precision, torch.nan)


def mean_average_precision(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of :func:`average_precision` over the classes that occur (mAP)."""
    return average_precision(scores, targets).nanmean(dim=-1)


def auroc(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Area under the ROC curve per class; NaN for a class that is always or never true.

    Parameters and returns as :func:`average_precision`.
    """
    _require_rows(targets)
    by_class = scores.double().transpose(-1, -2).contiguous()
    rising = by_class.sort(dim=-1).values
    below = torch.searchsorted(rising, by_class)
    not_above = torch.searchsorted(rising, by_class, right=True)
    rank = (below + not_above + 1).double() / 2  # mean rank of tied clips, from 1
    true = targets.double().T
    n_true = true.sum(dim=-1)
    n_false = true.shape[-1] - n_true
    area = ((rank * true).sum(dim=-1) - n_true * (n_true + 1) / 2) / (n_true * n_false)
    return torch.where((n_true > 0) & (n_false > 0), area, torch.nan)


def d_prime(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sensitivity index per class: sqrt(2) times the normal quantile of its :func:`auroc`."""
    return 2**0.5 * torch.special.ndtri(auroc(scores, targets))


def scene_score(
    metric: str, scores: torch.Tensor, targets: torch.Tensor, vocabulary: Sequence[str]
) -> torch.Tensor:
    """Score by the name of a HEAR metric.

    Parameters
    ----------
    metric : {"top1_acc", "pitch_acc", "chroma_acc", "mAP", "aucroc", "d_prime"}
        Its name in ``task_metadata.json``.
    scores : tensor of shape (..., n_clips, n_classes)
        Of the probes; higher is likelier.
    targets : tensor of shape (n_clips, n_classes)
        0 or 1.
    vocabulary : sequence of str
        The classes; MIDI numbers where pitch classes are to be compared.

    Returns
    -------
    tensor of shape (...,)
        Averaged over classes where the metric is per class.
    """
    if metric in ("top1_acc", "pitch_acc"):
        return top1_accuracy(scores, targets)
    if metric == "mAP":
        return mean_average_precision(scores, targets)
    if metric == "aucroc":
        return auroc(scores, targets).nanmean(dim=-1)
    if metric == "d_prime":
        return d_prime(scores, targets).nanmean(dim=-1)
    if metric == "chroma_acc":
        try:
            pitches = torch.tensor([int(label) for label in vocabulary])
        except ValueError as error:
            raise ParameterError(
                f"chroma_acc compares pitches: the labels must be MIDI numbers ({error})"
            ) from error
        return chroma_accuracy(scores, targets, pitches)
    known = ["top1_acc", "pitch_acc", "chroma_acc", "mAP", "aucroc", "d_prime"]
    raise UnknownNameError("scene metric", metric, known)


def events_from_probabilities(
    probabilities: torch.Tensor,
    times: torch.Tensor,
    vocabulary: Sequence[str],
    median_filter_s: float = 0.25,
    min_duration_s: float = 0.125,
    threshold: float = 0.5,
) -> list[Event]:
    """Events of one clip from frame-wise probabilities.

    Parameters
    ----------
    probabilities : tensor of shape (n_frames, n_classes)
        Or anything to be compared with the threshold.
    times : tensor of shape (n_frames,)
        Seconds, evenly spaced.
    vocabulary : sequence of str
        The classes.
    median_filter_s, min_duration_s : float
        Length of the median filter, and of the shortest event kept, in seconds.
    threshold : float
        Probability above which a class is on.

    Returns
    -------
    list of (label, start, end)
        Seconds, in order of class and time.
    """
    if len(times) < 2:
        return []
    hop = float(times[1] - times[0])
    smoothed = probabilities.double().cpu().numpy()
    length = round(median_filter_s / hop)
    if length > 1:
        smoothed = scipy.ndimage.median_filter(smoothed, size=(length, 1))
    events = []
    for label, active in zip(vocabulary, (smoothed > threshold).T, strict=True):
        edges = (
            torch.from_numpy(active)
            .int()
            .diff(prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int))
        )
        starts = edges.eq(1).nonzero().flatten().tolist()
        ends = edges.eq(-1).nonzero().flatten().tolist()
        for start, end in zip(starts, ends, strict=True):
            begin, finish = float(times[start]), float(times[end - 1]) + hop
            if finish - begin >= min_duration_s:
                events.append((label, begin, finish))
    return events


def onset_f(
    reference: Mapping[str, Sequence[Event]],
    estimated: Mapping[str, Sequence[Event]],
    tolerance_s: float,
) -> float:
    """F-measure of event onsets over all clips and classes together.

    An estimated event is right when an event of its class, not yet taken by another, starts
    within the tolerance; as many as possible are matched.

    Parameters
    ----------
    reference, estimated : mapping of clip to list of (label, start, end)
        Seconds. A clip absent from ``estimated`` has no estimated events.
    tolerance_s : float
        Largest distance of two onsets, in seconds.

    Raises
    ------
    DataError
        When events are estimated for a clip that the reference does not have.
    """
    unknown = sorted(estimated.keys() - reference.keys())
    if unknown:
        raise DataError(f"events estimated for clips that are not in the reference: {unknown[:5]}")
    n_hits = n_reference = n_estimated = 0
    for clip, true in reference.items():
        guessed = estimated.get(clip, ())
        n_reference, n_estimated = n_reference + len(true), n_estimated + len(guessed)
        for label in {event[0] for event in true}:
            n_hits += _n_matched(
                sorted(event[1] for event in true if event[0] == label),
                sorted(event[1] for event in guessed if event[0] == label),
                tolerance_s,
            )
    return 2 * n_hits / (n_reference + n_estimated) if n_reference + n_estimated else float("nan")


def _n_matched(true: Sequence[float], guessed: Sequence[float], tolerance: float) -> int:
    """Size of the largest matching of two sorted sets of onsets.

    Taking the earliest pair that fits is optimal, because all intervals are equally long.
    """
    hits = i = j = 0
    while i < len(true) and j < len(guessed):
        distance = guessed[j] - true[i]
        if abs(distance) <= tolerance + 1e-9:
            hits, i, j = hits + 1, i + 1, j + 1
        elif distance < 0:
            j += 1
        else:
            i += 1
    return hits


def _require_rows(targets: torch.Tensor) -> None:
    if targets.shape[0] == 0:
        raise DataError("nothing to score: there are no clips")
