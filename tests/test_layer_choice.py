import numpy as np
import pytest
import xarray as xr

from analysis_lib.encoding.layer_choice import (
    best_layer_position,
    choose_by_split_halves,
    subject_medians,
)
from analysis_lib.errors import DataError, ParameterError


def scores(values, **coords):
    return xr.DataArray(
        values,
        dims=("layer", "split", "target"),
        coords={"layer": [f"l{k}" for k in range(len(values))], **coords},
    )


def test_the_better_layer_is_chosen_and_read_on_other_splits():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 0.1, (3, 10, 40))
    values[1] += 0.5
    chosen = choose_by_split_halves(scores(values))
    assert set(chosen["layer"].values.ravel()) == {"l1"}
    assert chosen["score"].shape == (10, 40)
    assert float(chosen["score"].mean()) == pytest.approx(0.55, abs=0.01)
    assert float(chosen["score"].std("iteration").mean()) > 0  # divisions differ


def test_choice_and_reading_share_no_split_when_divided_once():
    """Each split holds its own power of two, so a median names the splits it came from."""
    values = np.broadcast_to(2.0 ** -np.arange(2)[None, :, None], (3, 2, 5))
    chosen = choose_by_split_halves(scores(values), independent=False)
    assert set(chosen["score"].values.ravel()) == {1.0, 0.5}
    per_iteration = chosen["score"].values
    assert (per_iteration == per_iteration[:, :1]).all()
    apart = choose_by_split_halves(scores(values), independent=True)["score"].values
    assert not (apart == apart[:, :1]).all()


def test_reading_is_unbiased_when_divided_once():
    """Splits that are easy or hard for all layers alike lower the published read-out."""
    rng = np.random.default_rng(1)
    difficulty = rng.standard_normal((1, 10, 2000)) * 0.1
    values = difficulty + 0.001 * rng.standard_normal((20, 10, 2000))
    expected = float(np.median(difficulty, axis=1).mean())
    once = choose_by_split_halves(scores(values), independent=False)["score"].mean()
    anew = choose_by_split_halves(scores(values), independent=True)["score"].mean()
    assert float(once) == pytest.approx(expected, abs=0.005)
    assert float(anew) < expected - 0.03


def test_clipped_after_the_median_ties_at_random_nan_kept_out():
    values = np.full((4, 10, 300), 2.0)
    values[:, :, 0] = np.nan
    chosen = choose_by_split_halves(scores(values))
    assert (chosen["score"][:, 1:] == 1).all() and chosen["score"][:, 0].isnull().all()
    assert set(chosen["layer"].values[:, 0]) == {""}
    _, counts = np.unique(chosen["layer"].values[:, 1:], return_counts=True)
    assert counts.min() > 0.2 * counts.sum()
    with pytest.raises(ParameterError, match="two splits"):
        choose_by_split_halves(scores(values[:, :1]))


def test_medians_within_subjects():
    coords = {
        "subject": ("target", ["a", "a", "a", "b", "b", "c"]),
        "roi": ("target", ["P", "P", "", "P", "L", ""]),
    }
    values = xr.DataArray(
        [[1.0, 3.0, 8.0, 5.0, np.nan, np.nan], [2.0, 4.0, 9.0, 6.0, np.nan, np.nan]],
        dims=("iteration", "target"),
        coords=coords,
    )
    medians = subject_medians(values)
    np.testing.assert_allclose(medians, [3.5, 5.5, np.nan])
    by_roi = subject_medians(values, ("subject", "roi"))
    assert by_roi.sel(subject="a", roi="P") == 2.5
    assert np.isnan(by_roi.sel(subject="b", roi="L"))
    with pytest.raises(DataError, match="no subject"):
        subject_medians(values.drop_vars("subject"))


def test_position_of_the_best_layer():
    values = xr.DataArray(
        [[0.1, 0.9, np.nan], [0.5, 0.2, np.nan], [0.5, 0.1, np.nan]], dims=("layer", "target")
    )
    np.testing.assert_allclose(best_layer_position(values), [0.5, 0.0, np.nan])
    with pytest.raises(ParameterError, match="two layers"):
        best_layer_position(values[:1])
