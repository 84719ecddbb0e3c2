import numpy as np
import pytest
import scipy.io

from analysis_lib import data
from analysis_lib.data import components, fetch
from analysis_lib.errors import AlignmentError

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


def test_components_have_the_published_means_and_correlations(real_data):
    measured = data.responses("nh2015-components")
    assert measured.shape == (165, 6)
    assert list(measured["target"].values) == list(data.COMPONENTS.values())
    np.testing.assert_allclose(measured.max("sound"), 0.01909912, atol=5e-9)
    means = measured.groupby("category").mean()
    for component, of_category in MEANS.items():
        for category in CATEGORIES:
            mean = float(means.sel(category=category, target=component))
            if category in of_category:
                assert mean == pytest.approx(of_category[category], abs=5e-4)
            else:
                assert mean < MEANS_ELSEWHERE[component] + 5e-4
    for (one, other), expected in CORRELATIONS.items():
        pair = measured.sel(target=[one, other]).values.T
        assert np.corrcoef(pair)[0, 1] == pytest.approx(expected, abs=5e-4)


def test_rows_are_matched_by_name_and_not_in_the_files_order(real_data):
    measured, sounds = data.responses("nh2015-components"), data.natural_sounds()
    assert list(measured["sound"].values) == list(sounds)
    assert list(measured["category"].values) == list(sounds.categories)
    counts = dict(zip(*np.unique(measured["category"], return_counts=True), strict=True))
    assert counts == CATEGORIES
    content = scipy.io.loadmat(fetch.path("natsound165", "components.mat"), simplify_cells=True)
    in_file = [str(name) for name in content["stim_names"]]
    assert in_file != list(sounds)
    for row in (0, 80, 164):
        np.testing.assert_array_equal(measured.sel(sound=in_file[row]), content["R"][row])


def test_reconstructed_voxels_are_mixtures_of_the_components(real_data):
    voxels = data.responses("nh2015-reconstructed")
    measured = data.responses("nh2015-components")
    assert voxels.shape == (165, 11_065) and voxels.attrs["rank"] == 6
    variances = np.linalg.eigvalsh(voxels.values @ voxels.values.T)[::-1]
    assert variances[5] > 1e-6 * variances[0] and variances[6] < 1e-13 * variances[0]
    weights = np.linalg.lstsq(measured.values, voxels.values, rcond=None)[0]
    np.testing.assert_allclose(measured.values @ weights, voxels.values, atol=1e-12)
    dominant = measured["target"].values[weights.argmax(axis=0)]
    assert (voxels["dominant_component"].values == dominant).all()


def test_a_matrix_with_other_components_is_refused():
    content = {"component_names": ["speech", "music"]}
    with pytest.raises(AlignmentError, match=r"lists components \['speech', 'music'\], expected"):
        components._named(np.zeros((2, 2)), content, ["a", "b"], "component")
