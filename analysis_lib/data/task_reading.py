"""Reading tasks in the HEAR format, and checking that they can be used.

The format is described in :mod:`analysis_lib.data.task_format`.
"""

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from ..errors import DataError, DataNotice, MissingDataError, UnknownNameError
from .task_format import EVENT_TOLERANCE, TRAIN_VALID_TEST, Task

__all__ = ["read_task"]

_CHOICES = {
    "embedding_type": ("scene", "event"),
    "prediction_type": ("multiclass", "multilabel"),
    "split_mode": ("trainvaltest", "presplit_kfold", "new_split_kfold"),
}


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
