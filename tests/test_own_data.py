"""Responses of one's own: labelled, written, read back by their path, and refused by name."""

import shutil

import numpy as np
import pytest
import soundfile
import xarray as xr

from analysis_lib import data, encoding, results, rsa
from analysis_lib.data import own
from analysis_lib.errors import AlignmentError, DataError, MissingDataError

NAMES = ["rain", "bell", "dog", "song"]
VALUES = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    """Audio of four sounds in two categories, and one that nobody heard."""
    rng = np.random.default_rng(0)
    for name, category in zip([*NAMES, "unheard"], ["nature", "", "nature", "", ""], strict=True):
        path = tmp_path / "audio" / category / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(4000), 8000)
    return tmp_path / "audio"


def test_an_array_is_labelled():
    array = data.own_responses(VALUES, NAMES, ["a", "b", "c"], subject=["s1", "s1", "s2"], x=0.5)
    assert array.dims == ("sound", "target") and list(array["sound"].values) == NAMES
    assert array.sel(sound="bell", target="c") == 5
    assert list(array["subject"].values) == ["s1", "s1", "s2"]
    assert list(array["roi"].values) == ["all"] * 3 and list(array["x"].values) == [0.5] * 3
    assert set(array["category"].values) == {""}
    repeated = data.own_responses(np.stack([VALUES, VALUES], -1), NAMES)
    assert repeated.sizes == {"sound": 4, "target": 3, "repetition": 2}


def test_sounds_bring_their_categories():
    heard = data.simulated_sounds(1)
    array = data.own_responses(np.ones((6, 1)), heard)
    assert tuple(array["category"].values) == heard.categories


@pytest.mark.parametrize(
    ("values", "names", "labels", "error", "message"),
    [
        (VALUES[0], NAMES, {}, DataError, r"shape \(3,\): \(sound, target\)"),
        (VALUES[:, :0], NAMES, {}, DataError, "at least one of each"),
        (VALUES.T, NAMES, {}, AlignmentError, "3 rows, but 4 sounds are named.*transpose"),
        (VALUES, ["rain", "bell", "rain", "song"], {}, AlignmentError, "named twice: rain"),
        (VALUES * [[1], [np.inf], [1], [1]], NAMES, {}, DataError, "target 0 to sound 'bell'"),
        (VALUES * [[1], [1], [np.nan], [1]], NAMES, {}, DataError, "no response at all to dog"),
        (VALUES, NAMES, {"roi": ["A", "B"]}, AlignmentError, "roi has 2 entries.* 3 targets"),
        (VALUES, NAMES, {"targets": ["a", "a", "b"]}, AlignmentError, "must be unique"),
    ],
)
def test_what_does_not_fit_is_named(values, names, labels, error, message):
    with pytest.raises(error, match=message):
        data.own_responses(values, names, **labels)


def test_a_target_with_nan_is_kept_and_scores_nan():
    values = np.random.default_rng(0).standard_normal((12, 2))
    values[3, 1] = np.nan
    array = data.own_responses(values, [f"s{k}" for k in range(12)])
    features = {"layer": np.random.default_rng(1).standard_normal((12, 3))}
    score = encoding.nested_cv_ridge(features, array, np.arange(12) % 3)["score"]
    assert np.isfinite(score[0]) and np.isnan(score[1])


def test_a_folder_of_audio_is_a_sound_set(folder):
    sounds = data.sounds(str(folder))
    assert set(sounds) == {*NAMES, "unheard"}
    assert dict(zip(sounds.names, sounds.categories, strict=True))["dog"] == "nature"
    with pytest.raises(MissingDataError, match="no audio .* in .*empty. Put the sounds there"):
        (folder / "empty").mkdir()
        data.sounds(str(folder / "empty"))


def test_two_files_of_one_name_are_refused(folder):
    shutil.copy(folder / "bell.wav", folder / "nature" / "bell.wav")
    with pytest.raises(AlignmentError, match="given twice: bell"):
        data.sounds(str(folder))


def test_a_file_is_a_data_set_with_its_sounds(folder, tmp_path):
    array = data.own_responses(VALUES, NAMES, ["a", "b", "c"], subject=["s1", "s2", "s2"])
    path = data.write_responses(array, tmp_path / "mine.nc", folder)
    read = data.responses(str(path))
    np.testing.assert_array_equal(read, array)
    assert list(read["category"].values) == ["nature", "", "nature", ""]
    assert read["subject"].dtype == object and list(read["target"].values) == ["a", "b", "c"]
    sounds = data.sounds(str(path))
    assert list(sounds) == NAMES and len(sounds.waveform("dog")) == 4000
    assert not data.is_generated(str(path))


def test_a_result_on_a_file_survives_the_store(folder, tmp_path):
    values = np.random.default_rng(0).standard_normal((4, 3))
    path = data.write_responses(data.own_responses(values, NAMES), tmp_path / "mine.nc", folder)
    read = data.responses(str(path))
    assert read["target"].dtype.kind == "i" and read["roi"].dtype == object
    about = read.isel(sound=0, drop=True).to_dataset(name="score")
    saved = results.save(about, "demo", model="mine")
    np.testing.assert_array_equal(results.open("demo", saved.stem)["score"], about["score"])


def test_file_and_folder_can_move_together(folder, tmp_path):
    array = data.own_responses(VALUES, NAMES)
    path = data.write_responses(array, folder.parent / "mine.nc", folder)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(folder, moved / "audio")
    shutil.move(path, moved / "mine.nc")
    assert list(data.sounds(str(moved / "mine.nc"))) == NAMES


def test_files_stand_for_a_data_set(folder, tmp_path):
    path = data.write_responses(data.own_responses(VALUES, NAMES), tmp_path / "mine.nc", folder)
    assert own.files_of(path)[0] == path and len(own.files_of(path)) == 6
    heard = data.simulated_sounds()
    array = data.own_responses(np.ones((len(heard), 1)), heard)
    path = data.write_responses(array, tmp_path / "other.nc", "simulated")
    assert own.files_of(path) == [path] and list(data.sounds(str(path))) == list(heard)


def test_a_file_that_is_not_there_or_something_else(folder, tmp_path):
    with pytest.raises(MissingDataError, match="no file .*absent.nc. Write it with"):
        data.responses(str(tmp_path / "absent.nc"))
    (tmp_path / "text.nc").write_text("no netCDF")
    with pytest.raises(DataError, match="does not hold one array of responses"):
        data.responses(str(tmp_path / "text.nc"))
    xr.DataArray(np.ones((2, 2)), dims=("a", "b"), name="x").to_netcdf(
        tmp_path / "dims.nc", engine="h5netcdf"
    )
    with pytest.raises(DataError, match=r"dimensions \('a', 'b'\); sound and target"):
        data.responses(str(tmp_path / "dims.nc"))
    with pytest.raises(DataError, match="does not say where its sounds are"):
        data.sounds(str(tmp_path / "dims.nc"))


def test_writing_asks_for_the_audio_and_the_ending(folder, tmp_path):
    array = data.own_responses(VALUES, ["rain", "bell", "dog", "whale"])
    with pytest.raises(AlignmentError, match="no audio for 1 of 4 sounds: whale"):
        data.write_responses(array, tmp_path / "mine.nc", folder)
    with pytest.raises(DataError, match="must end in .nc"):
        data.write_responses(array, tmp_path / "mine.h5", folder)
    assert not list(tmp_path.glob("*.nc"))


def test_the_analyses_take_them():
    rng = np.random.default_rng(0)
    names = [f"s{k}" for k in range(20)]
    x = rng.standard_normal((20, 4))
    noisy = (x @ rng.standard_normal((4, 6)))[..., None] + 0.3 * rng.standard_normal((20, 6, 3))
    array = data.own_responses(noisy, names, subject=["a"] * 3 + ["b"] * 3, roi="A1")
    features = {"layer": xr.DataArray(x, dims=("sound", "unit"), coords={"sound": names})}
    shuffled = {layer: values.isel(sound=rng.permutation(20)) for layer, values in features.items()}
    result = encoding.nested_cv_ridge(shuffled, array, np.arange(20) % 5)
    assert float(result["score"].min()) > 0.7
    assert encoding.aggregate(result, "roi").loc["A1", "n_subjects"] == 2
    assert float(rsa.layerwise(features, array)["score"].min()) > 0.3
    assert float(encoding.explainable(array).min()) > 0.7
