"""Tasks in the on-disk format of HEAR (Turian et al. 2022): what one is, and writing one.

A task is a folder::

    task_metadata.json       kind of labels, how it is split, which metrics, ...
    labelvocabulary.csv      columns idx, label: the one order of the labels
    <split>.json             clip -> its labels, or its events with start and end in ms
    <rate>/<split>/<clip>    the audio, at one or more sampling rates

Splits are ``train``, ``valid``, ``test``, or ``fold00``, ``fold01``, ... Reading and checking is
in :mod:`analysis_lib.data.task_reading`.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

from ..paths import content_key
from .natural_sounds import Sounds

__all__ = [
    "EVENT_TOLERANCE",
    "TRAIN_VALID_TEST",
    "Event",
    "Partition",
    "Task",
    "move_into_place",
    "write_task",
]

Event = tuple[str, float, float]  # label, start, end, in seconds
EVENT_TOLERANCE = {"event_onset_200ms_fms": 0.2, "event_onset_50ms_fms": 0.05}  # seconds
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

    Examples
    --------
    >>> from analysis_lib import data
    >>> task = data.task("demo-scene")
    >>> task
    Task(demo-scene: 80 clips, 4 labels, scene, multiclass, splits fold00, fold01, ...
    >>> task.clips[0], task.labels[task.clips[0]]
    ('chirp_00.wav', ('chirp',))
    >>> task.metrics
    ('top1_acc',)
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
        copied as it is, or an array of shape (n_samples,), float or int16, written with 16 bits
        in the format that the clip's name ends in (``.wav``, ``.flac``).
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
