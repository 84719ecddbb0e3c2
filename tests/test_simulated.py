import numpy as np
import pytest

from analysis_lib import data
from analysis_lib.data.simulated import AREAS
from analysis_lib.errors import ParameterError, UnknownNameError


@pytest.fixture(scope="module")
def sounds():
    return data.simulated_sounds(4)


@pytest.fixture(scope="module")
def layers(sounds):
    return data.planted_features(sounds)


def test_sounds_are_as_described(sounds):
    assert len(sounds) == 24 and sounds.sample_rate == 16_000
    assert {sounds.categories.count(kind) for kind in sounds.categories} == {4}
    for name in sounds:
        waveform = sounds.waveform(name)
        assert waveform.shape == (32_000,) and np.abs(waveform).max() <= 1
        assert np.sqrt((waveform**2).mean()) == pytest.approx(0.05, rel=0.05)


def test_same_seed_same_sounds(sounds):
    def hashes(of):
        return [of.content_hash(name) for name in of]

    assert hashes(data.simulated_sounds(4)) == hashes(sounds)
    assert not set(hashes(data.simulated_sounds(4, seed=1))) & set(hashes(sounds))


def test_planted_layers_do_not_depend_on_the_sound_order(sounds, layers):
    backwards = data.planted_features(sounds[::-1])
    assert {name: x.shape for name, x in layers.items()} == {
        "spectrum": (24, 24), "modulation": (24, 48), "conjunction": (24, 64),
    }  # fmt: skip
    for name, x in layers.items():
        np.testing.assert_allclose(backwards[name][::-1], x, atol=1e-9)
        np.testing.assert_allclose(x.std(axis=0), 1, atol=1e-6)


def test_same_seed_same_cortex(sounds, layers):
    one = data.plant(layers, sounds.names)
    np.testing.assert_array_equal(one, data.plant(layers, sounds.names))
    assert np.abs(one - data.plant(layers, sounds.names, seed=1)).max() > 0.1


def test_layout_is_that_of_the_real_voxels(sounds, layers):
    cortex = data.plant(layers, sounds.names, n_subjects=2, n_voxels=5, n_repetitions=3, n_null=4)
    assert cortex.dims == ("sound", "target", "repetition")
    assert cortex.shape == (24, 2 * (len(AREAS) * 5 + 4), 3)
    assert list(cortex["sound"].values) == list(sounds)
    for coord in ("subject", "roi", "hemisphere", "x", "y", "kind"):
        assert cortex[coord].dims == ("target",)
    places = list(
        zip(*(cortex[c].values for c in ("subject", "hemisphere", "x", "y")), strict=True)
    )
    assert len(set(places)) == len(places)


def test_a_voxel_is_a_linear_function_of_its_planted_layer(sounds, layers):
    quiet = data.plant(layers, sounds.names, noise=0.0, n_repetitions=1, n_null=2)
    for layer in set(AREAS.values()):
        voxels = quiet.sel(target=quiet["planted_layer"] == layer).isel(repetition=0)
        x = np.c_[np.ones(24), layers[layer]]
        fitted = x @ np.linalg.lstsq(x, voxels.values, rcond=None)[0]
        np.testing.assert_allclose(fitted, voxels, atol=1e-6)
        np.testing.assert_allclose(voxels.std("sound"), 1, atol=1e-6)
    nothing = quiet.sel(target=quiet["planted_layer"] == "none")
    assert not nothing.any() and (nothing["roi"] == "").all() and (nothing["ceiling"] == 0).all()


@pytest.mark.parametrize("noise, n_repetitions", [(1.0, 3), (2.0, 2), (0.5, 1)])
def test_ceiling_is_what_the_true_signal_reaches(noise, n_repetitions):
    rng = np.random.default_rng(0)
    x = {"layer": rng.standard_normal((2000, 3))}
    options = dict(areas={"A": "layer"}, n_subjects=1, n_voxels=20, n_repetitions=n_repetitions)
    names = [f"s{i}" for i in range(2000)]
    truth = data.plant(x, names, noise=0.0, n_null=0, **options).isel(repetition=0).values
    heard = data.plant(x, names, noise=noise, n_null=0, **options)
    mean = heard.mean("repetition").values
    reached = [np.corrcoef(truth[:, v], mean[:, v])[0, 1] ** 2 for v in range(20)]
    assert np.mean(reached) == pytest.approx(heard["ceiling"].values[0], abs=0.01)


def test_bad_requests(sounds, layers):
    with pytest.raises(UnknownNameError, match="planted layer 'spectra'. Did you mean 'spectrum'"):
        data.plant(layers, sounds.names, areas={"A": "spectra"})
    for bad in ({"noise": -1}, {"n_subjects": 0}, {"n_voxels": 0}, {"n_repetitions": 0}):
        with pytest.raises(ParameterError, match="must be positive, noise at least 0"):
            data.plant(layers, sounds.names, **bad)
