"""Runs of Friends in every layout, the twin's truth, and what bad data are told."""

import shutil
import warnings
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.signal
import soundfile
import torch

from analysis_lib.data import (
    friends,
    friends_audio,
    friends_files,
    friends_networks,
    friends_splits,
    friends_twin,
)
from analysis_lib.errors import (
    AudioNotice,
    DataError,
    DataNotice,
    MissingDataError,
    ParameterError,
    UnknownNameError,
)
from analysis_lib.models.soundnet import SoundNet8

RUNS = ("s01e01a", "s01e01b", "s02e01a", "s04e01a")
SMALL = friends_twin.Twin(RUNS, 24, 2, {"start": 2, "brain": 3, "null": 2})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return friends_twin.write_twin(tmp_path_factory.mktemp("twin"), SMALL)


@pytest.fixture
def twin(written, tmp_path):
    """A copy that may be damaged."""
    shutil.copytree(written, tmp_path / "twin")
    return tmp_path / "twin"


def h5_of(folder, subject="sub-01"):
    return next(folder.rglob(f"{subject}_task-friends_*.h5"))


def wav_of(folder, run):
    return next(folder.rglob(f"friends_{run}.wav"))


# --- names and splits -----------------------------------------------------------------------


def season_runs(seasons, n_episodes=24):
    return [f"s{s:02d}e{e:02d}{h}" for s in seasons for e in range(1, n_episodes + 1) for h in "ab"]


def test_names_are_parsed():
    assert friends.parse_run("s06e15d") == (6, 15, "d")
    for wrong in ("s1e02a", "s01e02", "bourne01", "s01e02ab"):
        with pytest.raises(DataError, match="s01e02a"):
            friends.parse_run(wrong)


def test_paper_split_has_the_published_sizes():
    runs = [*season_runs((1, 2, 3)), "s03e25a", "s03e25b", *season_runs((4, 5))]
    parts = friends.split(runs)
    assert {part: len(names) for part, names in parts.items()} == {
        "train": 109, "validation": 37, "test": 48,
    }  # fmt: skip
    assert all(name.startswith("s04") for name in parts["test"])
    assert not set(parts["train"]) & set(parts["validation"])
    halves = {name[:-1] for name in parts["train"]} & {name[:-1] for name in parts["validation"]}
    assert halves, "halves of one episode part in the paper's scheme"
    assert parts == friends.split(reversed(runs)), "the order given must not matter"
    assert parts["train"] != friends.split(runs, seed=1)["train"]


def test_episode_split_keeps_episodes_together():
    runs = season_runs((1, 2, 3, 4))
    parts = friends.split(runs, "episode")
    assert len(parts["train"]) + len(parts["validation"]) == 144
    assert 36 <= len(parts["validation"]) <= 37
    assert not {n[:-1] for n in parts["train"]} & {n[:-1] for n in parts["validation"]}


def test_splits_that_cannot_be():
    with pytest.raises(DataError, match="no run of season 4.*1, 2, 3"):
        friends.split(season_runs((1, 2, 3)))
    with pytest.raises(DataError, match="too few"):
        friends.split(["s01e01a", "s04e01a"])
    with pytest.raises(ParameterError, match="scheme"):
        friends.split(season_runs((1, 4)), "random")
    with pytest.raises(DataError, match="nothing is left for train"):
        friends.split(["s01e01a", "s01e01b", "s04e01a"], "episode")


# --- the twin -------------------------------------------------------------------------------


def test_twin_is_read_as_real_data_are(written):
    data = friends.open(written, "sub-02")
    assert friends.subjects(written) == ["sub-01", "sub-02"]
    assert list(data.runs) == list(RUNS) and data.subject == "sub-02" and data.tr == 1.49
    run = data.runs["s02e01a"]
    assert (run.season, run.episode, run.half, run.session, run.n_trs) == (2, 1, "a", "ses-001", 24)
    bold = run.bold()
    assert bold.dims == ("time", "target") and bold.dtype == np.float32 and bold.shape == (24, 7)
    np.testing.assert_allclose(bold["time"], 1.49 * np.arange(24))
    with h5py.File(h5_of(written, "sub-02")) as file:
        assert set(file) == {f"ses-001_task-{name}" for name in RUNS}
        np.testing.assert_array_equal(bold, file["ses-001_task-s02e01a"][()])
    assert list(data.targets.columns) == ["x", "y", "z", "hemisphere"]
    assert list(data.targets.index) == list(bold["target"].values)
    assert (np.sign(data.targets["x"]) == np.where(data.targets["hemisphere"] == "lh", -1, 1)).all()


def test_audio_is_resampled_once_and_as_long_as_the_run(written):
    run = friends.open(written).runs["s01e01a"]
    stored, rate = soundfile.read(wav_of(written, "s01e01a"), dtype="float32")
    assert rate == 22_050
    np.testing.assert_array_equal(run.audio(22_050), stored[: round(24 * 1.49 * 22_050)])
    low = run.audio(8_000)
    assert low.shape == (round(24 * 1.49 * 8_000),) and low.dtype == np.float32


def test_same_seed_same_twin(written, tmp_path):
    other = friends_twin.write_twin(tmp_path, replace(SMALL, n_subjects=1))
    with h5py.File(h5_of(written)) as a, h5py.File(h5_of(other)) as b:
        np.testing.assert_allclose(a["ses-001_task-s01e01a"], b["ses-001_task-s01e01a"], atol=1e-4)


def test_truth_says_how_the_responses_came_about(written):
    truth = friends_twin.read_truth(written, "sub-01")
    assert truth.kind.value_counts().to_dict() == {"start": 2, "brain": 3, "null": 2}
    data = friends.open(written)
    kinds = truth.kind.to_numpy()
    assert not truth.weights[kinds == "null"].any() and (truth.ceiling[kinds == "null"] == 0).all()
    assert truth.ceiling[kinds != "null"].between(0.2, 0.9).all()
    units = {
        kind: {
            name: friends_networks.hear(tensors, run.audio(22_050))
            for name, run in data.runs.items()
        }
        for kind, tensors in (("start", truth.start), ("brain", truth.brain))
    }
    clock = np.arange(24) * 1.49 * 22_050 / 32_768
    for kind, target in (("start", 0), ("brain", 4)):
        at = {
            name: np.stack([np.interp(clock, np.arange(len(f)), column) for column in f.T], axis=1)
            for name, f in units[kind].items()
        }
        mean = np.concatenate(list(at.values())).mean(axis=0)
        for name, values in at.items():
            driven = (values - mean) @ truth.weights[target]
            expected = scipy.signal.lfilter(truth.fir[target], 1, driven)
            assert np.corrcoef(expected, truth.signal[name][:, target])[0, 1] > 0.999
    assert truth.fir.shape == (7, 5) and np.allclose(truth.fir.sum(axis=1), 1)
    assert (truth.signal["s01e01a"][:, kinds == "null"] == 0).all()


def test_networks_differ_in_conv4_alone_and_are_soundnets(written):
    truth = friends_twin.read_truth(written, "sub-01")
    weights = [name for name in truth.start if name.endswith("0.weight")]
    differ = [name for name in weights if not torch.equal(truth.start[name], truth.brain[name])]
    assert differ == ["conv4.0.weight"]
    half = truth.start["conv4.0.weight"].shape[1] // 2
    assert not truth.start["conv4.0.weight"][:, half:].any()
    network = SoundNet8()
    missing, unexpected = network.load_state_dict(truth.brain, strict=False)
    assert {name.split(".")[0] for name in missing} == {"conv8", "conv8_2"} and not unexpected
    waveform = friends.open(written).runs["s01e01b"].audio(22_050)[: 10 * 22_050]
    with torch.inference_mode():
        stages = dict(network.eval().stages(256 * torch.from_numpy(waveform)[None]))
    np.testing.assert_allclose(
        friends_networks.hear(truth.brain, waveform), stages["conv7"][0].T, atol=1e-4
    )


def test_subjects_share_a_part(written):
    one, two = (friends_twin.read_truth(written, f"sub-0{i}") for i in (1, 2))
    driven = one.kind.to_numpy() != "null"
    signal = [np.concatenate(list(t.signal.values()))[:, driven] for t in (one, two)]
    r = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(signal[0].T, signal[1].T, strict=True)])
    assert 0.2 < r < 0.98
    assert not np.allclose(one.fir, two.fir)


def test_named_twins_are_written_once(monkeypatch):
    monkeypatch.setattr(friends_twin, "TWINS", {"friends-twin": replace(SMALL, n_subjects=1)})
    data = friends.open("friends-twin")
    monkeypatch.setattr(friends_twin, "write_twin", lambda *_: pytest.fail("written twice"))
    assert list(friends.open("friends-twin").runs) == list(data.runs)
    assert friends.truth("friends-twin").kind.size == 7
    assert friends.subjects("friends-twin") == ["sub-01"]
    with pytest.raises(UnknownNameError, match="friends-twin"):
        friends.truth("friends-twn")


def test_real_audio_twin_keeps_recordings_within_a_season(real_data):
    spec = friends_twin.TWINS["friends-real-audio-twin"]
    per_fold = len(spec.runs) / 5
    assert per_fold == int(per_fold)
    seasons = [friends.parse_run(run)[0] for run in spec.runs]
    folds = np.repeat(np.arange(5), int(per_fold))
    assert set(folds[np.array(seasons) == 4]).isdisjoint(folds[np.array(seasons) < 4])
    first = next(iter(friends_twin._real_audio(replace(spec, runs=spec.runs[:5], n_trs=20))))
    assert first.shape == (int(np.ceil(20 * 1.49 * 22_050)),) and 0 < np.abs(first).max() <= 1


# --- other layouts --------------------------------------------------------------------------


def test_nested_h5(twin):
    path = h5_of(twin)
    with h5py.File(path) as file:
        arrays = {key: file[key][()] for key in file}
    path.unlink()
    nested = path.with_name("sub-01_task-friends_space-MNI_timeseries.h5")
    with h5py.File(nested, "w") as file:
        for i, (key, values) in enumerate(arrays.items()):
            task = key.split("_", 1)[1]
            file[f"ses-{i:03d}/ses-{i:03d}_{task}_timeseries"] = values
    data = friends.open(twin, "sub-01")
    assert list(data.runs) == list(RUNS) and data.runs["s01e01b"].session == "ses-001"
    np.testing.assert_array_equal(data.runs["s04e01a"].bold(), arrays["ses-001_task-s04e01a"])
    assert list(friends.open(nested, stimuli=twin / "stimuli").runs) == list(RUNS)


def test_npz_runs(twin, tmp_path):
    folder = tmp_path / "npz"
    folder.mkdir()
    rng = np.random.default_rng(0)
    arrays = {run: rng.standard_normal((25, 5)) for run in RUNS}
    for run, values in arrays.items():
        np.savez(folder / f"sub-03_ses-002_task-{run}_space-MNI_bold.npz", X=values)
    with pytest.warns(DataNotice, match="cropped.*s01e01a \\+1"):
        data = friends.open(folder, "sub-03", stimuli=twin)
    assert data.targets.shape == (5, 0) and data.targets.index[4] == "parcel-0005"
    bold = data.runs["s02e01a"].bold()
    np.testing.assert_array_equal(bold, arrays["s02e01a"][:24].astype(np.float32))
    np.savez(folder / "sub-03_ses-002_task-s01e01a_space-MNI_bold.npz", Y=1)
    with pytest.raises(DataError, match="no array 'X' .it holds Y."):
        friends.open(folder, "sub-03", stimuli=twin)


def nifti_runs(folder, tr=1.49):
    """Two parcels, left and right, whose voxels follow known courses."""
    folder.mkdir()
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-28, -28, -28)
    labels = np.zeros((8, 8, 8), np.int16)
    labels[1:3, 2:6, 2:6], labels[5:7, 2:6, 2:6] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "pair.nii.gz")
    pd.DataFrame({"roi": [1, 2], "label": ["L_a", "R_a"]}).to_csv(folder / "pair.csv", sep=";")
    rng = np.random.default_rng(0)
    courses = rng.standard_normal((24, 2))
    volume = np.stack([courses[:, k - 1] if k else np.zeros(24) for k in labels.ravel()])
    volume = 100 + volume.reshape(8, 8, 8, 24) + 0.01 * rng.standard_normal((8, 8, 8, 24))
    image = nibabel.Nifti1Image(volume.astype(np.float32), affine)
    image.header.set_zooms((8, 8, 8, tr))
    name = "sub-01_ses-004_task-s01e01a_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    nibabel.save(image, folder / name)
    return courses


def test_nifti_runs(twin, tmp_path):
    folder = tmp_path / "nifti"
    courses = nifti_runs(folder)
    options = {"stimuli": twin, "parcellation": folder / "pair.nii.gz", "smoothing_fwhm": None}
    data = friends.open(folder, **options)
    assert list(data.targets.index) == ["L_a", "R_a"] and list(data.targets["hemisphere"]) == [
        "lh",
        "rh",
    ]
    bold = data.runs["s01e01a"].bold().values
    np.testing.assert_allclose(bold.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(bold.std(axis=0, ddof=1), 1, atol=1e-4)
    assert min(np.corrcoef(bold[:, k], courses[:, k])[0, 1] for k in (0, 1)) > 0.999
    raw = friends.open(folder, standardize=False, **options).runs["s01e01a"].bold().values
    assert raw.mean() == pytest.approx(100, abs=1)
    with pytest.raises(ParameterError, match="parcellation"):
        friends.open(folder, stimuli=twin)
    stem = "sub-01_ses-004_task-s01e01a_space-MNI152NLin2009cAsym_desc"
    labels = nibabel.load(folder / "pair.nii.gz")
    mask = (labels.get_fdata() == 2).astype(np.int8)
    nibabel.save(nibabel.Nifti1Image(mask, labels.affine), folder / f"{stem}-brain_mask.nii.gz")
    with pytest.warns(DataNotice, match="1 of 2 targets.*L_a"):
        masked = friends.open(folder, **options).runs["s01e01a"].bold().values
    assert np.isnan(masked[:, 0]).all() and np.corrcoef(masked[:, 1], courses[:, 1])[0, 1] > 0.999


def test_nifti_confounds_are_the_papers(twin, tmp_path):
    folder = tmp_path / "nifti"
    courses = nifti_runs(folder)
    rng = np.random.default_rng(1)
    names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "csf", "white_matter"]
    table = pd.DataFrame(rng.standard_normal((24, 8)), columns=names)
    table["cosine00"] = np.cos(np.pi * (np.arange(24) + 0.5) / 24)
    table["trans_x"] = courses[:, 0]  # what moves with the head goes
    stem = "sub-01_ses-004_task-s01e01a_desc-confounds_timeseries"
    table.to_csv(folder / f"{stem}.tsv", sep="\t", index=False)
    (folder / f"{stem}.json").write_text("{}")
    options = {"stimuli": twin, "parcellation": folder / "pair.nii.gz", "smoothing_fwhm": None}
    bold = friends.open(folder, standardize=False, **options).runs["s01e01a"].bold().values
    assert abs(np.corrcoef(bold[:, 0], courses[:, 0])[0, 1]) < 0.5
    assert bold[:, 0].std() < 0.1 < bold[:, 1].std()


def test_mist_is_the_parcellation_of_the_paper(real_data):
    image = friends_files._parcellation("mist", None, "sub-01")
    table = friends_files.parcels(image)
    assert len(table) == 210 and table.index[153] == "R_STgyr_m" and table.index[152] == "L_STgyr_m"
    stored = pd.read_csv(image.with_name("MIST_ROI.csv"), sep=";")
    np.testing.assert_allclose(table[["x", "y", "z"]], stored[["x", "y", "z"]], atol=2)
    assert (table["hemisphere"] == table.index.str[0].map({"L": "lh", "R": "rh"})).mean() > 0.9


def test_mist_is_asked_for_where_it_is_not(monkeypatch):
    monkeypatch.delenv("BRAINBOOK_DATA", raising=False)
    with pytest.raises(MissingDataError, match="MIST_ROI.nii.gz.*figshare"):
        friends_files._parcellation("mist", None, "sub-01")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_films_through_ffmpeg(twin):
    import subprocess

    path = wav_of(twin, "s01e01a")
    wave = soundfile.read(path, dtype="float32")[0]
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(path),
        "-c:a",
        "flac",
        str(path.with_suffix(".mkv")),
    ]
    subprocess.run(command, check=True)
    path.unlink()
    run = friends.open(twin).runs["s01e01a"]
    np.testing.assert_allclose(run.audio(22_050), wave[: run.audio(22_050).size], atol=1e-4)


def test_films_need_ffmpeg(twin, monkeypatch):
    path = wav_of(twin, "s01e01a")
    path.rename(path.with_suffix(".mkv"))
    monkeypatch.setattr(friends_audio.shutil, "which", lambda _: None)
    with pytest.raises(MissingDataError, match="ffprobe.*ffmpeg.*friends_s01e01a.wav"):
        friends.open(twin)


def fake_tools(folder, monkeypatch, wave, rate):
    """Stand-ins for ffprobe and ffmpeg that hand out two channels of a known waveform."""
    tools = folder / "bin"
    tools.mkdir()
    np.stack([wave, -0.5 * wave], axis=1).astype("<f4").tofile(tools / "pcm")
    told = f'{{"streams": [{{"sample_rate": "{rate}", "channels": 2}}], "format": {{"duration": "{len(wave) / rate}"}}}}'
    (tools / "told").write_text(told)
    for name, file in (("ffprobe", "told"), ("ffmpeg", "pcm")):
        (tools / name).write_text(f"#!/bin/sh\nexec cat {tools / file}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")


def test_films_are_mixed_down(twin, tmp_path, monkeypatch):
    path = wav_of(twin, "s01e01a")
    wave = soundfile.read(path, dtype="float32")[0]
    fake_tools(tmp_path, monkeypatch, wave, 22_050)
    path.rename(path.with_suffix(".mkv"))
    run = friends.open(twin).runs["s01e01a"]
    with pytest.warns(AudioNotice, match="2 channels"):
        heard = run.audio(22_050)
    np.testing.assert_allclose(heard, 0.25 * wave[: heard.size], atol=1e-6)


# --- bad data -------------------------------------------------------------------------------


def rewritten(path, change):
    with h5py.File(path, "a") as file:
        change(file)


def longer(file, key, extra):
    values = np.concatenate([file[key][()], np.zeros((max(extra, 0), 7), np.float32)])
    del file[key]
    file[key] = values[: len(values) + min(extra, 0)]


@pytest.mark.parametrize(("extra", "kept"), [(3, 24), (-3, 21)])
def test_a_scan_and_its_audio_may_differ_a_little(twin, extra, kept):
    rewritten(h5_of(twin), lambda file: longer(file, "ses-001_task-s01e01b", extra))
    with pytest.warns(DataNotice, match=rf"1 of 4 runs.*s01e01b \{extra:+d}"):
        data = friends.open(twin)
    run = data.runs["s01e01b"]
    assert run.n_trs == kept and run.bold().shape == (kept, 7)
    assert run.audio(22_050).shape == (round(kept * 1.49 * 22_050),)


@pytest.mark.parametrize("extra", [11, -11])
def test_more_than_a_little_is_an_error(twin, extra):
    rewritten(h5_of(twin), lambda file: longer(file, "ses-001_task-s01e01b", extra))
    with pytest.raises(DataError, match=f"s01e01b has {24 + extra} volumes.*more than 10"):
        friends.open(twin)
    with pytest.warns(DataNotice, match="cropped"):
        friends.open(twin, tolerance=12)


def test_a_wrong_repetition_time_is_noticed(twin, tmp_path):
    with pytest.raises(DataError, match="1.49 s would fit"):
        friends.open(twin, tr=0.8)
    folder = tmp_path / "nifti"
    nifti_runs(folder, tr=2.0)
    with pytest.raises(DataError, match="repetition time of 2.000 s, not 1.49"):
        friends.open(folder, stimuli=twin, parcellation=folder / "pair.nii.gz")


def test_missing_runs(twin):
    with pytest.raises(UnknownNameError, match="s01e01b"):
        friends.open(twin, runs=["s01e01c"])
    assert list(friends.open(twin, runs=["s02e01a", "s01e01a"]).runs) == ["s01e01a", "s02e01a"]
    wav_of(twin, "s02e01a").unlink()
    with pytest.raises(MissingDataError, match="1 of 4 runs have no audio .s02e01a."):
        friends.open(twin)
    with pytest.warns(DataNotice, match="s02e01a.*left out"):
        data = friends.open(twin, missing="drop")
    assert "s02e01a" not in data.runs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = friends.open(twin, "sub-02", runs=["s01e01a", "s04e01a"])
    assert friends.shared_runs(data, other) == ["s01e01a", "s04e01a"]
    shutil.rmtree(twin / "stimuli")
    with pytest.raises(MissingDataError, match="stimuli"):
        friends.open(twin)


def test_a_key_that_vanished(twin):
    run = friends.open(twin).runs["s01e01a"]
    rewritten(h5_of(twin), lambda file: file.pop("ses-001_task-s01e01a"))
    with pytest.raises(MissingDataError, match="no key 'ses-001_task-s01e01a'"):
        run.bold()


def test_strange_keys_and_files(twin):
    rewritten(h5_of(twin), lambda file: file.move("ses-001_task-s01e01a", "ses-001_task-rest"))
    with pytest.raises(DataError, match="name no run: ses-001_task-rest"):
        friends.open(twin)
    h5_of(twin).write_bytes(b"not HDF5")
    with pytest.raises(DataError, match="not readable as HDF5"):
        friends.open(twin)
    with pytest.raises(UnknownNameError, match="sub-02"):
        friends.open(twin, "sub-03")
    with pytest.raises(MissingDataError, match="nothing at"):
        friends.open(twin / "elsewhere")
    with pytest.raises(DataError, match="no runs of Friends"):
        friends.open(twin / "stimuli", "sub-01")


def test_runs_of_different_width(twin):
    def narrower(file):
        values = file["ses-001_task-s01e01a"][()]
        del file["ses-001_task-s01e01a"]
        file["ses-001_task-s01e01a"] = values[:, :5]

    rewritten(h5_of(twin), narrower)
    with pytest.raises(DataError, match=r"number of targets: \[5, 7\]"):
        friends.open(twin)


def test_two_sessions_of_one_run(twin):
    def again(file):
        file["ses-012_task-s01e01a"] = 0 * file["ses-001_task-s01e01a"][()]

    rewritten(h5_of(twin), again)
    with pytest.warns(DataNotice, match="s01e01a .ses-001, ses-012: kept ses-012"):
        run = friends.open(twin).runs["s01e01a"]
    assert run.session == "ses-012" and not run.bold().values.any()
    with pytest.warns(DataNotice, match="kept ses-001"):
        assert friends.open(twin, session="first").runs["s01e01a"].bold().values.any()


def test_nan_parcels_are_named(twin):
    def broken(file):
        file["ses-001_task-s01e01a"][3, 2] = np.nan

    rewritten(h5_of(twin), broken)
    run = friends.open(twin).runs["s01e01a"]
    with pytest.warns(DataNotice, match="s01e01a: 1 of 7 targets.*parcel-0003"):
        bold = run.bold()
    assert np.isnan(bold[:, 2]).all() and np.isfinite(bold[:, [0, 1, 3, 4, 5, 6]]).all()


def test_a_subject_without_season_4(twin):
    rewritten(h5_of(twin), lambda file: file.pop("ses-001_task-s04e01a"))
    data = friends.open(twin)
    with pytest.raises(DataError, match="no run of season 4"):
        friends.split(data.runs)
    assert friends_splits.split(data.runs, test_season=2, train_seasons=(1,))["test"] == ["s02e01a"]


def test_arguments_are_checked(twin):
    for wrong in ({"session": "best"}, {"missing": "ignore"}, {"tr": 0}, {"tolerance": -1}):
        with pytest.raises(ParameterError):
            friends.open(twin, **wrong)
    with pytest.raises(MissingDataError, match="no parcellation"):
        friends.open(twin, parcellation=twin / "atlas.nii.gz")
    with pytest.raises(DataError, match="named like none"):
        friends.open(wav_of(twin, "s01e01a"))
