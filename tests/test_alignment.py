import numpy as np
import pytest
import xarray as xr

from analysis_lib.alignment import align, align_rows, target_coords
from analysis_lib.errors import AlignmentError, DataError

NAMES = ["stim5_a", "stim7_b", "stim28_c", "stim33_d"]


def features(names, d=3):
    values = np.arange(len(names) * d, dtype=np.float32).reshape(len(names), d)
    return xr.DataArray(values, dims=("sound", "unit"), coords={"sound": names})


def responses(names=NAMES):
    return xr.DataArray(
        np.arange(len(names) * 2.0).reshape(-1, 2),
        dims=("sound", "target"),
        coords={"sound": names, "subject": ("target", [3, 7])},
    )


def test_matched_by_name_not_by_row():
    x = features(NAMES)
    shuffled = x.isel(sound=[2, 0, 3, 1])
    aligned, y, names = align({"a": x, "b": shuffled.T}, responses())
    np.testing.assert_array_equal(aligned["a"], aligned["b"])
    np.testing.assert_array_equal(aligned["a"], x.values)
    assert list(names) == NAMES and y.shape == (4, 2)


def test_extra_sounds_in_features_are_left_out():
    aligned, _, _ = align({"a": features([*NAMES, "stim40_e"])}, responses())
    np.testing.assert_array_equal(aligned["a"], features(NAMES).values)


def test_missing_sounds_are_named():
    with pytest.raises(AlignmentError, match=r"layer 'a' lacks 1 of 4 sounds: stim28_c"):
        align({"a": features(NAMES).drop_sel(sound="stim28_c")}, responses())


def test_duplicate_names_are_named():
    with pytest.raises(AlignmentError, match="twice: stim5_a"):
        align({"a": features(["stim5_a", "stim5_a", "stim28_c", "stim33_d"])}, responses())


def test_plain_arrays_keep_their_order():
    x = np.random.default_rng(0).normal(size=(4, 5))
    aligned, y, names = align({"a": x.astype(np.float16)}, np.ones((4, 2, 3), dtype=int))
    assert names is None and y.dtype == np.float64 and aligned["a"].dtype == np.float32
    with pytest.raises(AlignmentError, match="has 3 rows, the responses have 4"):
        align({"a": x[:3]}, np.ones((4, 2)))


def test_names_from_features_when_responses_have_none():
    shuffled = features(NAMES).isel(sound=[1, 0, 2, 3])
    aligned, _, names = align({"a": features(NAMES), "b": shuffled}, np.ones((4, 2)))
    assert list(names) == NAMES
    np.testing.assert_array_equal(aligned["a"], aligned["b"])


@pytest.mark.parametrize("bad", [np.full((4, 2), np.nan), np.ones(4), np.ones((4, 2, 2))])
def test_unusable_layers_are_refused(bad):
    with pytest.raises(DataError, match="layer 'a'"):
        align({"a": bad}, responses())


def test_rows_of_folds_and_splits():
    folds = xr.DataArray([0, 1, 2, 3], dims="sound", coords={"sound": NAMES})
    np.testing.assert_array_equal(align_rows(folds, NAMES[::-1]), [3, 2, 1, 0])
    splits = xr.DataArray(np.eye(4), dims=("split", "sound"), coords={"sound": NAMES})
    np.testing.assert_array_equal(align_rows(splits, NAMES[::-1], "splits"), np.eye(4)[:, ::-1])
    with pytest.raises(AlignmentError, match="stim99"):
        align_rows(folds, [*NAMES, "stim99"])


def test_target_coordinates_travel():
    assert list(target_coords(responses())["subject"].values) == [3, 7]
    assert list(target_coords(np.ones((4, 3)))["target"].values) == [0, 1, 2]
