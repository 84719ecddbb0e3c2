import numpy as np
import pytest

from analysis_lib import data
from analysis_lib.data import cortex
from analysis_lib.errors import AlignmentError, ParameterError, UnknownNameError

# The published vector, in ascending order of stimulus number.
PEPINO_FOLDS = """
0 1 2 3 4 0 1 2 3 4 1 2 4 0 0 3 3 4 1 2 0 1 3 2 4 4 1 2 3 0 0 2 1 3 4 0 1 3 4 2 1 0 2 3 4 0 4 1 2
1 3 2 3 0 0 4 0 1 2 3 4 1 2 3 4 1 0 2 3 2 0 4 1 3 1 2 4 4 1 0 3 1 0 2 0 2 3 4 4 3 0 1 2 0 3 4 1 3
1 2 2 4 0 3 0 4 1 2 4 4 0 3 1 2 0 4 3 2 1 0 3 2 1 4 1 1 3 0 2 3 4 3 2 0 4 0 1 2 3 4 2 1 0 3 4 0 1
2 3 4 0 1 2 3 4 0 4 2 1 3 2 4 3 0 1
"""


@pytest.fixture(scope="module")
def simulated():
    return data.responses("simulated"), data.sounds("simulated")


def test_pepino_folds_are_the_published_ones():
    folds = data.folds("pepino")
    numbers = [int(name.removeprefix("stim").split("_")[0]) for name in folds["sound"].values]
    published = np.array(PEPINO_FOLDS.split(), dtype=int)
    np.testing.assert_array_equal(folds.values[np.argsort(numbers)], published)
    assert np.bincount(folds).tolist() == [33] * 5


def test_pepino_folds_follow_the_sounds_by_name(real_data):
    sounds = data.natural_sounds()[::-1]
    folds = data.folds("pepino", sounds)
    assert list(folds["sound"].values) == list(sounds)
    np.testing.assert_array_equal(folds.values[::-1], np.array(PEPINO_FOLDS.split(), dtype=int))
    np.testing.assert_array_equal(data.folds("auto", sounds), folds)


def test_pepino_folds_do_not_cover_other_sounds(simulated):
    _, sounds = simulated
    message = "no fold for speech_01, .* …. Use folds='stratified' for other sounds"
    with pytest.raises(AlignmentError, match=message):
        data.folds("pepino", sounds)


@pytest.mark.parametrize("name", ["stratified", "auto"])
def test_stratified_folds_spread_every_category_evenly(simulated, name):
    _, sounds = simulated
    folds = data.folds(name, sounds, n_folds=4)
    assert list(folds["sound"].values) == list(sounds)
    categories = np.array(sounds.categories)
    for kind in set(sounds.categories):
        counts = np.bincount(folds.values[categories == kind], minlength=4)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(folds, data.folds(name, sounds, n_folds=4))


def test_folds_that_cannot_be_drawn(simulated):
    _, sounds = simulated
    with pytest.raises(AlignmentError, match="needs the sounds"):
        data.folds("stratified")
    with pytest.raises(UnknownNameError, match="set of folds 'peppino'. Did you mean 'pepino'"):
        data.folds("peppino")
    message = "5 stratified folds cannot be drawn from 4 sounds whose largest category has 1:"
    with pytest.raises(ParameterError, match=message):
        data.folds("stratified", sounds[["speech_01", "song_01", "music_01", "alarm_01"]])


def test_simulated_responses_belong_to_the_simulated_sounds(simulated):
    cortex_, sounds = simulated
    assert list(cortex_["sound"].values) == list(sounds)
    assert list(cortex_["category"].values) == list(sounds.categories)
    few = sounds[::10]
    small = data.responses("simulated", sounds=few, seed=3, n_voxels=2, n_subjects=1, n_null=0)
    assert small.sizes == {"sound": 6, "target": 8, "repetition": 3}
    assert small.attrs["seed"] == 3 and list(small["sound"].values) == list(few)


def test_simulated_components_are_one_noise_free_target_per_layer(simulated):
    _, sounds = simulated
    components = data.responses("simulated-components")
    layers = data.planted_features(sounds)
    assert list(components["target"].values) == [layer.capitalize() for layer in layers]
    for x, target in zip(layers.values(), components.values.T, strict=True):
        design = np.c_[np.ones(len(x)), x]
        fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
        np.testing.assert_allclose(fitted[: x.shape[0]], target, atol=1e-6)


def test_unknown_names():
    with pytest.raises(
        UnknownNameError, match="response data set 'nh2015-component'. Did you mean"
    ):
        data.responses("nh2015-component")
    with pytest.raises(UnknownNameError, match="sound set 'natsound'. Did you mean 'natsound165'"):
        data.sounds("natsound")


def test_twins_of_the_voxel_data_are_written_once_and_heard_by_name(monkeypatch):
    twin = data.responses("nh2015-twin")
    sounds = data.sounds("nh2015-twin")
    category = dict(zip(sounds.names, sounds.categories, strict=True))
    assert twin.dims == ("sound", "target", "repetition") and twin.sizes["repetition"] == 3
    assert sorted(twin["sound"].values) == sorted(sounds)
    assert all(category[str(s.values)] == s["category"] for s in twin["sound"])
    assert {"subject", "roi", "hemisphere", "x", "y"} <= set(twin.coords)
    monkeypatch.setattr(cortex, "write_twin", None)
    np.testing.assert_array_equal(data.responses("nh2015-twin"), twin)
    assert data.responses("b2021-twin").sizes["sound"] == len(sounds)
