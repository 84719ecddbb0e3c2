import json
import shutil
import tarfile

import numpy as np
import pandas as pd
import pytest
import soundfile

from analysis_lib.data import fetch, hear, light_tasks
from analysis_lib.errors import DataError, DataNotice, MissingDataError, UnknownNameError


@pytest.fixture
def folder(tmp_path):
    """A sound task of three folds, two classes and twelve clips."""
    tone = np.sin(np.arange(800) / 5) * 0.5
    clips = {
        f"fold{fold:02d}": {
            f"{label}{fold}{i}.wav": ([label], tone) for label in ("rain", "dog") for i in range(2)
        }
        for fold in range(3)
    }
    metadata = {
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "new_split_kfold",
        "evaluation": ["top1_acc"],
    }
    return hear.write_task(tmp_path / "task", metadata, clips, 8000)


def edit(folder, name, change):
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_written_task_is_read_back(folder):
    task = hear.read_task(folder)
    assert task.vocabulary == ("dog", "rain")  # sorted, whatever order they came in
    assert task.clips[:4] == ("dog00.wav", "dog01.wav", "rain00.wav", "rain01.wav")
    assert task.targets.sum(axis=0).tolist() == [6, 6]
    assert task.targets[0].tolist() == [1, 0]
    sounds = task.sounds()
    assert sounds.names == task.clips and sounds.waveform("dog00.wav", 8000).shape == (800,)
    assert soundfile.info(task.path("dog00.wav")).samplerate == task.sample_rate == 8000
    assert (folder / "labelvocabulary.csv").read_text() == "idx,label\n0,dog\n1,rain\n"


def test_every_fold_is_tested_on_once_and_the_next_is_chosen_on(folder):
    task = hear.read_task(folder)
    split = np.array([task.split_of[clip] for clip in task.clips])
    tested = np.concatenate([partition.test for partition in task.partitions])
    assert sorted(tested) == list(range(12))
    for i, partition in enumerate(task.partitions):
        assert set(split[partition.test]) == {f"fold0{i}"}
        assert set(split[partition.valid]) == {f"fold0{(i + 1) % 3}"}
        assert set(split[partition.train]) == {f"fold0{(i + 2) % 3}"}


def test_missing_split_is_named(folder):
    (folder / "fold01.json").unlink()
    with pytest.raises(MissingDataError, match=r"fold01\.json is missing"):
        hear.read_task(folder)


def test_label_outside_the_vocabulary_is_named(folder):
    edit(folder, "fold01.json", lambda lists: lists.update({"dog10.wav": ["dgo"]}))
    with pytest.raises(DataError, match="dog10.wav.*'dgo'.*'dog'"):
        hear.read_task(folder)


def test_clip_in_two_folds_is_named(folder):
    edit(folder, "fold01.json", lambda lists: lists.update({"dog00.wav": ["dog"]}))
    with pytest.raises(DataError, match="'dog00.wav' is in fold00 and in fold01"):
        hear.read_task(folder)


def test_clip_listed_but_absent_is_named(folder):
    (folder / "8000" / "fold02" / "rain20.wav").unlink()
    with pytest.raises(MissingDataError, match="not there: rain20.wav"):
        hear.read_task(folder)


def test_class_without_training_clips_is_refused(folder):
    edit(folder, "fold02.json", lambda lists: [lists.pop(k) for k in list(lists) if "dog" in k])
    with pytest.raises(DataError, match="no clip of dog in the train part when fold00"):
        hear.read_task(folder)


def test_class_missing_from_a_test_part_is_noticed(tmp_path):
    tone = 0.1 * np.ones(100)
    clips = {
        "train": {"a.wav": (["x"], tone), "b.wav": (["y"], tone)},
        "valid": {"c.wav": (["x"], tone), "d.wav": (["y"], tone)},
        "test": {"e.wav": (["x"], tone)},
    }
    metadata = {
        "embedding_type": "scene",
        "prediction_type": "multiclass",
        "split_mode": "trainvaltest",
        "evaluation": ["top1_acc"],
    }
    folder = hear.write_task(tmp_path / "task", metadata, clips, 8000)
    with pytest.warns(DataNotice, match="no clip of y in the test part"):
        hear.read_task(folder)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("split_mode", "folds", "split_mode is 'folds'"),
        ("embedding_type", None, "embedding_type is None"),
        ("evaluation", [], "names no metric"),
        ("splits", ["fold00", "fold01"], "at least three"),
    ],
)
def test_bad_metadata_is_refused(folder, key, value, complaint):
    edit(folder, "task_metadata.json", lambda metadata: metadata.update({key: value}))
    with pytest.raises(DataError, match=complaint):
        hear.read_task(folder)


def test_other_breaches_of_the_format_are_refused(folder):
    edit(folder, "fold00.json", lambda lists: lists.update({"dog00.wav": ["dog", "rain"]}))
    with pytest.raises(DataError, match="has 2 labels"):
        hear.read_task(folder)
    (folder / "labelvocabulary.csv").write_text("idx,label\n0,dog\n2,rain\n")
    with pytest.raises(DataError, match="count from 0"):
        hear.read_task(folder)
    (folder / "fold00.json").write_text("{")
    (folder / "labelvocabulary.csv").write_text("idx,label\n0,dog\n1,rain\n")
    with pytest.raises(DataError, match="not readable JSON"):
        hear.read_task(folder)


def test_audio_rate_is_chosen_or_refused(folder):
    shutil.copytree(folder / "8000", folder / "16000")
    assert hear.read_task(folder).sample_rate == 16_000
    assert hear.read_task(folder, sample_rate=8000).sample_rate == 8000
    with pytest.raises(MissingDataError, match="rates there: 8000, 16000"):
        hear.read_task(folder, sample_rate=48_000)


def test_numbers_of_the_benchmark():
    tasks = hear.hear_tasks()
    assert len(tasks) == 19
    assert (tasks["embedding_type"] == "event").sum() == 2
    assert set(tasks["split_mode"]) <= {"trainvaltest", "presplit_kfold", "new_split_kfold"}
    archives = pd.read_csv(hear._TABLES / "hear_archives.csv")
    assert set(archives["task_dir"]) <= set(tasks["task_dir"]) and len(archives) == 6
    assert archives["url"].str.startswith("https://zenodo.org/records/6332517/files/").all()


def test_task_of_the_benchmark_is_fetched_and_unpacked_once(folder, tmp_path, monkeypatch):
    archive = tmp_path / "hear2021-esc50-v2.0.0-full-48000.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname="hear-2021.0.6/tasks/esc50-v2.0.0-full")
    asked = []

    def fetch_url(dataset, file, url, sha256, n_bytes):
        asked.append(file)
        return archive

    monkeypatch.setattr(fetch, "fetch_url", fetch_url)
    for name in ("ESC-50", "esc50-v2.0.0-full"):
        assert len(hear.task(name).clips) == 12
    assert asked == [archive.name]
    with pytest.raises(MissingDataError, match=r"zenodo\.org/records/6332517"):
        hear.task("Libricount")


def test_archive_that_escapes_is_refused(tmp_path, monkeypatch):
    archive = tmp_path / "evil.tar.gz"
    (tmp_path / "x").write_text("x")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "x", arcname="../../escaped")
    with pytest.raises(DataError, match="cannot be unpacked"):
        hear._unpack(archive, tmp_path / "inner" / "task")
    assert not (tmp_path / "escaped").exists()


def test_unknown_task_gets_the_nearest_names(tmp_path):
    with pytest.raises(UnknownNameError, match="spoken-digits"):
        hear.task("spoken-digit")
    with pytest.raises(MissingDataError, match="no task_metadata"):
        hear.task(tmp_path)


@pytest.mark.parametrize("name", ["demo-scene", "demo-notes", "demo-tags", "demo-events"])
def test_generated_tasks_need_no_data_and_never_change(name, monkeypatch, tmp_path):
    task = hear.task(name)
    assert task.name == name and task.metadata["licence"]
    once = task.sounds().waveform(task.clips[0], 16_000)
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "other"))
    again = hear.task(name)
    np.testing.assert_array_equal(once, again.sounds().waveform(task.clips[0], 16_000))
    assert again.content_key == task.content_key


def test_events_are_read_in_seconds():
    task = hear.task("demo-events")
    assert task.embedding_type == "event"
    events = task.events[task.clips[0]]
    assert len(events) == 3 and all(0 < start < end < 3 for _, start, end in events)


def test_instruments_of_the_pitch_task_are_on_one_side():
    task = hear.task("pitch")
    sides = {}
    for clip in task.clips:
        sides.setdefault(clip.split("_")[0], set()).add(task.split_of[clip])
    assert all(len(side) == 1 for side in sides.values()) and len(sides) == 7
    assert task.vocabulary == tuple(map(str, light_tasks.NOTE_PITCHES))


def test_pitches_of_the_instrument_task_are_on_one_side():
    task = hear.task("instrument")
    sides = {}
    for clip in task.clips:
        sides.setdefault(clip.split("_")[1], set()).add(task.split_of[clip])
    assert all(len(side) == 1 for side in sides.values())


def test_esc10_has_its_published_folds(real_data):
    task = hear.task("esc10")
    assert len(task.clips) == 400 and len(task.vocabulary) == 10
    assert [int((task.targets[p.test]).sum()) for p in task.partitions] == [80] * 5
    recordings = {}
    for clip in task.clips:
        assert task.split_of[clip] == f"fold{int(clip[0]) - 1:02d}"
        recordings.setdefault(clip.split("-")[1], set()).add(task.split_of[clip])
    assert all(len(folds) == 1 for folds in recordings.values())


def test_no_speaker_of_the_digit_task_is_on_two_sides(real_data):
    task = hear.task("spoken-digits")
    speaker = np.array([clip.split("_")[1] for clip in task.clips])
    for partition in task.partitions:
        sides = [set(speaker[rows]) for rows in (partition.train, partition.valid, partition.test)]
        assert all(len(side) == 1 for side in sides) and len(set.union(*sides)) == 3


def test_no_utterance_of_the_speaker_task_is_on_two_sides(real_data):
    task = hear.task("spoken-speakers")
    assert len(task.vocabulary) == 3
    sides = {}
    for clip in task.clips:
        digit, _, number = clip.removesuffix(".wav").split("_")
        sides.setdefault((digit, number), set()).add(task.split_of[clip])
    assert all(len(side) == 1 for side in sides.values())
    for partition in task.partitions:
        assert task.targets[partition.test].sum(axis=0).tolist() == [40, 40, 40]


def test_linear_probe_of_esc10_lands_where_published(real_data):
    """Simple spectral features give 60 to 75 % in the literature (Piczak 2015)."""
    from analysis_lib import models, probes

    task = hear.task("esc10")
    result = probes.evaluate(models.load("log-mel"), task, protocol="linear")
    assert 0.60 <= float(result["mean_score"][0]) <= 0.75
