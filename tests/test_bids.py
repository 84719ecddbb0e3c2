"""Responses from a BIDS data set whose truth is known, and what is wrong with a bad one."""

import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest

from analysis_lib import data
from analysis_lib.errors import AlignmentError, DataError, MissingDataError

AREAS = ("", "Anterior", "Lateral", "Posterior", "Primary")  # in the order of the mask's numbers


@pytest.fixture(scope="module")
def truth():
    sounds = data.simulated_sounds(3)
    planted = data.plant(
        data.planted_features(sounds), sounds.names, n_subjects=2, n_voxels=4, n_repetitions=2,
        n_null=2, noise=0.2,
    )  # fmt: skip
    return sounds, planted


@pytest.fixture(scope="module")
def written(truth, tmp_path_factory):
    return data.simulated_bids(tmp_path_factory.mktemp("bids"), *truth, noise=0.2)


@pytest.fixture
def folder(written, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(written, tmp_path / "bids")


def mask_of(folder):
    return folder / "derivatives" / "mask.nii.gz"


def load(folder, **options):
    options = {"noise_model": "ols", **options}
    return data.bids_responses(folder, "listen", mask_of(folder), **options)


def edit_events(folder, change, run=1):
    path = folder / "sub-01" / "func" / f"sub-01_task-listen_run-{run}_events.tsv"
    change(pd.read_csv(path, sep="\t")).to_csv(path, sep="\t", index=False)


def test_the_planted_responses_come_back(written, truth):
    areas = dict(enumerate(AREAS, start=1))
    responses = load(written, areas=areas)
    planted = truth[1].sel(sound=responses["sound"])
    assert dict(responses.sizes) == {"sound": 18, "target": 36, "repetition": 2}
    np.testing.assert_array_equal(responses["subject"], planted["subject"])
    np.testing.assert_array_equal(responses["roi"], planted["roi"])
    driven = (planted["roi"] != "").values
    for run in (0, 1):
        pairs = zip(
            responses.values[:, driven, run].T, planted.values[:, driven, run].T, strict=True
        )
        assert np.median([np.corrcoef(a, b)[0, 1] for a, b in pairs]) > 0.9


def test_voxels_know_their_place(written):
    responses = load(written)
    mask = nibabel.load(mask_of(written))
    first = responses.isel(target=0)
    place = [float(first[f"{axis}_mm"]) for axis in "xyz"]
    index = nibabel.affines.apply_affine(np.linalg.inv(mask.affine), place).round().astype(int)
    assert index.tolist() == np.argwhere(np.asarray(mask.dataobj) > 0)[0].tolist()
    assert ((responses["hemisphere"] == "lh") == (responses["x_mm"] < 0)).all()
    assert str(first["roi"].values).startswith("area ")


def test_other_events_are_no_sounds(folder):
    button = pd.DataFrame({"onset": [30.0], "duration": [0.0], "trial_type": ["button"]})
    edit_events(folder, lambda table: pd.concat([table, button]))
    assert load(folder).sizes["sound"] == 18


def test_another_column_can_name_the_sounds(folder):
    for run in (1, 2):
        for subject in ("sub-01", "sub-02"):
            path = folder / subject / "func" / f"{subject}_task-listen_run-{run}_events.tsv"
            table = pd.read_csv(path, sep="\t")
            stems = [file.rsplit("/", 1)[1].removesuffix(".wav") for file in table["stim_file"]]
            table.drop(columns="stim_file").assign(trial_type=stems).to_csv(
                path, sep="\t", index=False
            )
    with pytest.raises(DataError, match="columns onset, duration, trial_type, not 'stim_file'"):
        load(folder)
    responses = load(folder, sound_column="trial_type")
    np.testing.assert_allclose(responses, load(folder, sound_column="trial_type"))
    assert "speech_01" in responses["sound"]


def test_unequal_numbers_of_repetitions_are_refused_or_averaged(folder):
    edit_events(folder, lambda table: table[~table["stim_file"].str.contains("song_02")])
    with pytest.raises(AlignmentError, match="'song_02' in 1 runs of sub-01, others in up to 2"):
        load(folder)
    averaged = load(folder, average=True)
    assert averaged.dims == ("sound", "target") and "song_02" in averaged["sound"]


def test_a_sound_that_one_subject_did_not_hear_is_named(folder):
    for run in (1, 2):
        edit_events(folder, lambda t: t[~t["stim_file"].str.contains("song_02")], run)
    with pytest.raises(AlignmentError, match="sub-01 did not hear song_02"):
        load(folder)
    assert load(folder, sub_labels=["02"]).sizes["target"] == 18


def test_onsets_in_milliseconds_are_noticed(folder):
    edit_events(folder, lambda table: table.assign(onset=1000 * table["onset"]))
    with pytest.raises(DataError, match="begins at .* s, after the .* images of sub-01.*seconds"):
        load(folder)


def test_events_without_sounds(folder):
    edit_events(folder, lambda table: table.assign(stim_file="n/a"))
    with pytest.raises(DataError, match="name no sound in column 'stim_file'"):
        load(folder)


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(MissingDataError, match="no mask .*absent"):
        data.bids_responses(folder, "listen", tmp_path / "absent.nii")
    with pytest.raises(MissingDataError, match="no folder .*fmriprep: give the folder"):
        load(folder, derivatives="derivatives/fmriprep")
    with pytest.raises(MissingDataError, match="task rest"):
        data.bids_responses(folder, "rest", mask_of(folder))
    empty = nibabel.Nifti1Image(np.zeros((2, 2, 2), "int8"), np.eye(4))
    with pytest.raises(DataError, match="no volume with voxels above 0"):
        data.bids_responses(folder, "listen", empty)


def test_the_written_folder_serves_as_sounds_too(written, truth, tmp_path):
    sounds, _ = truth
    path = data.write_responses(load(written), tmp_path / "mine.nc", written / "stimuli")
    read = data.sounds(str(path))
    assert set(read) == set(sounds)
    category = dict(zip(sounds.names, sounds.categories, strict=True))
    assert [category[name] for name in read] == list(read.categories)
    np.testing.assert_allclose(read.waveform("song_01"), sounds.waveform("song_01"), atol=1 / 32000)
