"""The on-disk format of HEAR tasks (Turian et al. 2022): reading, checking, writing.

A task is a folder::

    task_metadata.json       kind of labels, how it is split, which metrics, ...
    labelvocabulary.csv      columns idx, label: the one order of the labels
    <split>.json             clip -> its labels, or its events with start and end in ms
    <rate>/<split>/<clip>    the audio, at one or more sampling rates

Splits are ``train``, ``valid``, ``test``, or ``fold00``, ``fold01``, ...
"""

import csv
import json
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import soundfile

from ..errors import DataError, DataNotice, MissingDataError, UnknownNameError
from ..paths import content_key
from .natural_sounds import Sounds

__all__ = [
    "EVENT_TOLERANCE",
    "Event",
    "Partition",
    "Task",
    "move_into_place",
    "read_task",
    "write_task",
]

Event = tuple[str, float, float]  # label, start, end, in seconds
EVENT_TOLERANCE = {"event_onset_200ms_fms": 0.2, "event_onset_50ms_fms": 0.05}  # seconds
_CHOICES = {
    "embedding_type": ("scene", "event"),
    "prediction_type": ("multiclass", "multilabel"),
    "split_mode": ("trainvaltest", "presplit_kfold", "new_split_kfold"),
}
TRAIN_VALID_TEST = ("train", "valid", "test")


@dataclass(frozen=True)
class Partition:
    """One way to train, choose and test: rows of ``task.clips`` in each part."""

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class Task:
    """A task in the HEAR format.

    Attributes
    ----------
    name : str
        Name to print; the folder's unless made here.
    folder : Path
    metadata : mapping
        Content of ``task_metadata.json``.
    vocabulary : tuple of str
        Labels, in the order of ``labelvocabulary.csv``.
    splits : tuple of str
    labels : mapping of clip to tuple of str
        For scene tasks; for event tasks the labels that occur.
    events : mapping of clip to tuple of (label, start, end)
        Seconds; empty for scene tasks.
    split_of : mapping of clip to split
    sample_rate : int
        In Hz, of the audio folder in use.
    """

    name: str
    folder: Path
    metadata: Mapping
    vocabulary: tuple[str, ...]
    splits: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    events: Mapping[str, tuple[Event, ...]]
    split_of: Mapping[str, str]
    sample_rate: int

    @property
    def embedding_type(self) -> str:
        """``"scene"`` (one answer per clip) or ``"event"`` (what happens when)."""
        return self.metadata["embedding_type"]

    @property
    def prediction_type(self) -> str:
        """``"multiclass"`` (one label per clip) or ``"multilabel"``."""
        return self.metadata["prediction_type"]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the primary one first."""
        return tuple(self.metadata["evaluation"])

    @property
    def is_folded(self) -> bool:
        """Whether it is split into folds rather than train, valid and test."""
        return self.metadata["split_mode"] != "trainvaltest"

    @cached_property
    def clips(self) -> tuple[str, ...]:
        """Names of the clips, by split, then by name."""
        place = {split: i for i, split in enumerate(self.splits)}
        return tuple(sorted(self.labels, key=lambda clip: (place[self.split_of[clip]], clip)))

    @cached_property
    def targets(self) -> np.ndarray:
        """Labels as 0 and 1, float32 array of shape (n_clips, n_labels)."""
        column = {label: i for i, label in enumerate(self.vocabulary)}
        targets = np.zeros((len(self.clips), len(column)), dtype=np.float32)
        for row, clip in enumerate(self.clips):
            for label in self.labels[clip]:
                targets[row, column[label]] = 1
        return targets

    @cached_property
    def partitions(self) -> tuple[Partition, ...]:
        """Parts to train on, choose on and test on.

        With folds, every fold is tested on once, the next one (cyclically) is chosen on, and
        the rest is trained on.
        """
        split = np.array([self.split_of[clip] for clip in self.clips])
        if not self.is_folded:
            return (Partition("test", *(np.flatnonzero(split == s) for s in TRAIN_VALID_TEST)),)
        partitions = []
        for i, fold in enumerate(self.splits):
            valid = self.splits[(i + 1) % len(self.splits)]
            is_test, is_valid = split == fold, split == valid
            rows = (np.flatnonzero(part) for part in (~is_test & ~is_valid, is_valid, is_test))
            partitions.append(Partition(fold, *rows))
        return tuple(partitions)

    @cached_property
    def content_key(self) -> str:
        """Digest of labels and splits (the audio has its own, see :class:`Sounds`)."""
        return content_key(
            self.vocabulary,
            [
                [clip, self.split_of[clip], self.labels[clip], self.events.get(clip, ())]
                for clip in self.clips
            ],
        )

    def path(self, clip: str) -> Path:
        """Audio file of a clip."""
        return self.folder / str(self.sample_rate) / self.split_of[clip] / clip

    def sounds(self) -> Sounds:
        """Give the clips as sounds, in the order of :attr:`clips`; a silent one only warns."""
        return Sounds(
            self.clips,
            [self.path(clip) for clip in self.clips],
            [" ".join(self.labels[clip]) for clip in self.clips],
            on_silence="warn",
        )

    def __repr__(self) -> str:
        return (
            f"Task({self.name}: {len(self.clips)} clips, {len(self.vocabulary)} labels, "
            f"{self.embedding_type}, {self.prediction_type}, splits {', '.join(self.splits)})"
        )


def read_task(folder: str | Path, name: str | None = None, sample_rate: int | None = None) -> Task:
    """Read a task and check that it can be used.

    Parameters
    ----------
    folder : path
        Of the task.
    name : str, optional
        By default the folder's.
    sample_rate : int, optional
        Which audio to use, in Hz; by default the highest rate there.

    Raises
    ------
    MissingDataError
        When a split's list, the vocabulary, the metadata or a clip's audio is not there.
    DataError
        When a label is not in the vocabulary, a clip is in two splits or has no or several
        labels where it should have one, or a class has no clip to train on.

    Warns
    -----
    DataNotice
        When a class has no clip in a part that is chosen or tested on.
    """
    folder = Path(folder)
    metadata = _read_metadata(folder)
    vocabulary = _read_vocabulary(folder)
    splits = _split_names(folder, metadata)
    labels, events, split_of = {}, {}, {}
    for split in splits:
        for clip, entry in _read_json(folder / f"{split}.json").items():
            if clip in split_of:
                raise DataError(
                    f"task {folder.name}: clip {clip!r} is in {split_of[clip]} and in {split}. "
                    "A clip must be on one side only; take it out of one of the lists."
                )
            split_of[clip] = split
            if metadata["embedding_type"] == "event":
                events[clip] = tuple(
                    (str(event["label"]), event["start"] / 1000, event["end"] / 1000)
                    for event in entry
                )
                labels[clip] = tuple(sorted({event[0] for event in events[clip]}))
            else:
                entry = [entry] if isinstance(entry, (str, int)) else entry
                labels[clip] = tuple(str(label) for label in entry)
    found = Task(
        name=name or folder.name,
        folder=folder,
        metadata=MappingProxyType(metadata),
        vocabulary=vocabulary,
        splits=splits,
        labels=MappingProxyType(labels),
        events=MappingProxyType(events),
        split_of=MappingProxyType(split_of),
        sample_rate=_choose_rate(folder, sample_rate),
    )
    _check_labels(found)
    _check_audio(found)
    _check_classes(found)
    return found


def write_task(
    folder: Path,
    metadata: Mapping,
    clips: Mapping[str, Mapping[str, tuple[Sequence, Path | np.ndarray]]],
    sample_rate: int,
    vocabulary: Sequence[str] | None = None,
) -> Path:
    """Write a task, completely or not at all.

    Parameters
    ----------
    folder : Path
        Must not exist.
    metadata : mapping
        At least ``embedding_type``, ``prediction_type``, ``split_mode`` and ``evaluation``.
    clips : mapping of split to mapping of clip to (labels, audio)
        Labels are strings, or for event tasks (label, start, end) in seconds. Audio is a file,
        copied as it is, or a float array of shape (n_samples,), written as 16-bit WAV.
    sample_rate : int
        In Hz.
    vocabulary : sequence of str, optional
        By default the labels that occur, sorted.
    """
    is_event = metadata["embedding_type"] == "event"
    if vocabulary is None:
        vocabulary = sorted(
            {
                label[0] if is_event else label
                for entries in clips.values()
                for labels, _ in entries.values()
                for label in labels
            }
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        full = {**metadata, "splits": sorted(clips)}
        (work / "task_metadata.json").write_text(json.dumps(full, indent=1))
        with open(work / "labelvocabulary.csv", "w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(
                [("idx", "label"), *enumerate(vocabulary)]
            )
        for split, entries in clips.items():
            listed = {clip: _as_json(labels, is_event) for clip, (labels, _) in entries.items()}
            (work / f"{split}.json").write_text(json.dumps(listed, indent=1, sort_keys=True))
            audio = work / str(sample_rate) / split
            audio.mkdir(parents=True)
            for clip, (_, source) in entries.items():
                if isinstance(source, np.ndarray):
                    soundfile.write(audio / clip, source, sample_rate, subtype="PCM_16")
                else:
                    shutil.copyfile(source, audio / clip)
        move_into_place(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def move_into_place(work: Path, folder: Path) -> None:
    """Rename a finished folder; another process may have been faster, with the same content."""
    work.chmod(0o755)
    try:
        os.replace(work, folder)
    except OSError:
        if not (folder / "task_metadata.json").is_file():
            raise


def _as_json(labels: Sequence, is_event: bool) -> list:
    if not is_event:
        return list(labels)
    return [{"label": name, "start": 1000 * t0, "end": 1000 * t1} for name, t0, t1 in labels]


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise MissingDataError(
            f"task {path.parent.name}: {path.name} is missing. A complete task has a list for "
            "every split; unpack it again, or write the list."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object")
    return content


def _read_metadata(folder: Path) -> dict:
    metadata = _read_json(folder / "task_metadata.json")
    for key, allowed in _CHOICES.items():
        if metadata.get(key) not in allowed:
            raise DataError(
                f"task {folder.name}: {key} is {metadata.get(key)!r} in task_metadata.json; it "
                f"must be one of {', '.join(allowed)}"
            )
    if not metadata.get("evaluation"):
        raise DataError(f"task {folder.name}: task_metadata.json names no metric (evaluation)")
    for_events = EVENT_TOLERANCE.keys() & set(metadata["evaluation"])
    if metadata["embedding_type"] == "scene" and for_events:
        raise DataError(f"task {folder.name}: {sorted(for_events)} needs an event task")
    return metadata


def _read_vocabulary(folder: Path) -> tuple[str, ...]:
    path = folder / "labelvocabulary.csv"
    if not path.is_file():
        raise MissingDataError(f"task {folder.name}: labelvocabulary.csv is missing")
    table = pd.read_csv(path, dtype={"label": str}, keep_default_na=False)
    if not {"idx", "label"} <= set(table.columns):
        raise DataError(f"{path} must have the columns idx and label")
    table = table.sort_values("idx")
    if list(table["idx"]) != list(range(len(table))) or table["label"].duplicated().any():
        raise DataError(f"{path}: idx must count from 0 without gaps, and no label come twice")
    return tuple(table["label"])


def _split_names(folder: Path, metadata: Mapping) -> tuple[str, ...]:
    if metadata["split_mode"] == "trainvaltest":
        return TRAIN_VALID_TEST
    listed = metadata.get("splits") or [path.stem for path in folder.glob("fold*.json")]
    if len(listed) < 3:
        raise DataError(
            f"task {folder.name}: {len(listed)} fold(s); at least three are needed to train, "
            "choose and test"
        )
    return tuple(sorted(listed))


def _choose_rate(folder: Path, wanted: int | None) -> int:
    rates = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    if not rates or (wanted is not None and wanted not in rates):
        here = ", ".join(map(str, rates)) or "none"
        raise MissingDataError(
            f"task {folder.name}: no audio at {wanted or 'any'} Hz (rates there: {here})"
        )
    return wanted or rates[-1]


def _check_labels(task: Task) -> None:
    known = set(task.vocabulary)
    one_label = task.embedding_type == "scene" and task.prediction_type == "multiclass"
    for clip, labels in task.labels.items():
        for label in labels:
            if label not in known:
                unknown = UnknownNameError("label", label, known)
                raise DataError(f"task {task.name}, clip {clip!r}: {unknown}")
        if one_label and len(labels) != 1:
            raise DataError(
                f"task {task.name}, clip {clip!r} has {len(labels)} labels; a multiclass task "
                "needs exactly one"
            )
    for clip, events in task.events.items():
        for label, start, end in events:
            if not 0 <= start <= end:
                raise DataError(
                    f"task {task.name}, clip {clip!r}: event {label!r} lasts from {start} s to "
                    f"{end} s"
                )
    for split in task.splits:
        if split not in task.split_of.values():
            raise DataError(f"task {task.name}: {split}.json lists no clips")
    if task.embedding_type == "event" and task.metrics[0] not in EVENT_TOLERANCE:
        raise DataError(
            f"task {task.name}: the primary metric of an event task must be one of "
            f"{', '.join(EVENT_TOLERANCE)}, not {task.metrics[0]!r}"
        )


def _check_audio(task: Task) -> None:
    present = {
        split: set(os.listdir(task.folder / str(task.sample_rate) / split))
        if (task.folder / str(task.sample_rate) / split).is_dir()
        else set()
        for split in task.splits
    }
    absent = [clip for clip in task.clips if clip not in present[task.split_of[clip]]]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise MissingDataError(
            f"task {task.name}: listed but not there: {', '.join(absent[:5])}{more} (looked in "
            f"{task.folder / str(task.sample_rate)}). Unpack the task again."
        )


def _check_classes(task: Task) -> None:
    for partition in task.partitions:
        for part in TRAIN_VALID_TEST:
            present = Counter(
                label for row in getattr(partition, part) for label in task.labels[task.clips[row]]
            )
            empty = [label for label in task.vocabulary if label not in present]
            if not empty:
                continue
            shown = ", ".join(empty[:5]) + (" …" if len(empty) > 5 else "")
            message = (
                f"task {task.name}: no clip of {shown} in the {part} part when {partition.name} "
                "is tested on"
            )
            if part == "train" and task.prediction_type == "multiclass":
                raise DataError(f"{message}; it could never be learned. Split the task anew.")
            warnings.warn(DataNotice(message), stacklevel=3)
