import numpy as np
import pytest

from analysis_lib import data
from analysis_lib.data import cortex, fetch
from analysis_lib.errors import AlignmentError, ParameterError, UnknownNameError

# Category means and correlations of the published components, to the digits printed there.
MEANS = {
    "Speech": {"ForSpeech": 0.018, "EngSpeech": 0.015, "Song": 0.008},
    "Music": {"Song": 0.014, "Music": 0.014},
}
MEANS_ELSEWHERE = {"Speech": 0.003, "Music": 0.005}
CORRELATIONS = {
    ("Pitch", "Music"): 0.634,
    ("Low frequency", "Speech"): 0.610,
    ("Low frequency", "Pitch"): 0.581,
    ("High frequency", "Pitch"): -0.454,
    ("Speech", "Music"): 0.143,
}
CATEGORIES = {
    "Mechanical": 39, "EnvSound": 27, "Music": 24, "HumNonVoc": 15, "HumVoc": 13, "Song": 11,
    "EngSpeech": 10, "AniVoc": 10, "ForSpeech": 7, "AniNonVoc": 5, "Nature": 4,
}  # fmt: skip

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


def test_components_have_the_published_means_and_correlations(real_data):
    components = data.responses("nh2015-components")
    assert components.shape == (165, 6)
    assert list(components["target"].values) == list(cortex.COMPONENTS.values())
    np.testing.assert_allclose(components.max("sound"), 0.01909912, atol=5e-9)
    means = components.groupby("category").mean()
    for component, of_category in MEANS.items():
        for category in CATEGORIES:
            mean = float(means.sel(category=category, target=component))
            if category in of_category:
                assert mean == pytest.approx(of_category[category], abs=5e-4)
            else:
                assert mean < MEANS_ELSEWHERE[component] + 5e-4
    for (one, other), expected in CORRELATIONS.items():
        pair = components.sel(target=[one, other]).values.T
        assert np.corrcoef(pair)[0, 1] == pytest.approx(expected, abs=5e-4)


def test_rows_are_matched_by_name_and_not_in_the_files_order(real_data):
    components, sounds = data.responses("nh2015-components"), data.natural_sounds()
    assert list(components["sound"].values) == list(sounds)
    assert list(components["category"].values) == list(sounds.categories)
    counts = dict(zip(*np.unique(components["category"], return_counts=True), strict=True))
    assert counts == CATEGORIES
    content = cortex.scipy.io.loadmat(
        fetch.path("natsound165", "components.mat"), simplify_cells=True
    )
    in_file = [str(name) for name in content["stim_names"]]
    assert in_file != list(sounds)
    for row in (0, 80, 164):
        np.testing.assert_array_equal(components.sel(sound=in_file[row]), content["R"][row])


def test_reconstructed_voxels_are_mixtures_of_the_components(real_data):
    voxels = data.responses("nh2015-reconstructed")
    components = data.responses("nh2015-components")
    assert voxels.shape == (165, 11_065) and voxels.attrs["rank"] == 6
    variances = np.linalg.eigvalsh(voxels.values @ voxels.values.T)[::-1]
    assert variances[5] > 1e-6 * variances[0] and variances[6] < 1e-13 * variances[0]
    weights = np.linalg.lstsq(components.values, voxels.values, rcond=None)[0]
    np.testing.assert_allclose(components.values @ weights, voxels.values, atol=1e-12)
    dominant = components["target"].values[weights.argmax(axis=0)]
    assert (voxels["dominant_component"].values == dominant).all()


def test_a_matrix_with_other_components_is_refused():
    content = {"component_names": ["speech", "music"]}
    with pytest.raises(AlignmentError, match=r"lists components \['speech', 'music'\], expected"):
        cortex._named(np.zeros((2, 2)), content, ["a", "b"], "component")


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
