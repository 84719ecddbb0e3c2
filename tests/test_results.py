import functools
import json
import os
import signal

import numpy as np
import pytest
import xarray as xr

from analysis_lib import results
from analysis_lib.errors import DataError, ParameterError, StorageError, UnknownNameError
from analysis_lib.extraction import Features
from analysis_lib.paths import results_dir


def analysis(x, scale=1.0, device="auto", n_targets_batch=8):
    values = scale * np.asarray(x, dtype=float)
    names = np.array([f"s{i}" for i in range(len(values))], dtype=object)
    return xr.Dataset({"score": ("target", values)}, {"target": names})


X = np.array([0.25, 0.5])


def labelled(names=("a", "b"), values=X):
    return xr.DataArray(values, dims="sound", coords={"sound": list(names)})


def features(key):
    return Features({"layer": np.zeros((2, 1))}, ["a", "b"], ["", ""], key)


def files():
    return sorted(results_dir().glob("*/[!.]*"))


def test_the_same_call_is_answered_from_the_store(caplog):
    caplog.set_level("INFO", logger="brainbook")
    calls = []

    @functools.wraps(analysis)
    def counted(**arguments):
        calls.append(arguments)
        return analysis(**arguments)

    first = results.cached("scores", counted, {"model": "tiny"}, x=X, scale=2.0)
    second = results.cached("scores", counted, {"model": "tiny"}, x=X.copy(), scale=2.0)
    assert len(calls) == 1
    xr.testing.assert_identical(second.drop_attrs(), first.drop_attrs())
    assert second.attrs == first.attrs
    assert files() == [results_dir() / "scores" / f"{first.attrs['key']}.nc"]
    assert f"computed scores tiny ({first.attrs['key']})" in caplog.text
    assert f"reused scores tiny ({first.attrs['key']})" in caplog.text


def key_of(name="scores", about=None, **arguments):
    return results.cached(name, analysis, about, **{"x": X, **arguments}).attrs["key"]


@pytest.mark.parametrize(
    "changed",
    [
        {"x": np.nextafter(X, 1)},
        {"x": X.astype("float32")},
        {"x": X[::-1]},
        {"x": labelled()},
        {"x": labelled("ac")},
        {"x": labelled(values=X + 1)},
        {"scale": 2.0},
        {"about": {"model": "tiny"}},
        {"about": {"model": "tinier"}},
        {"name": "other-scores"},
    ],
    ids=["last bit", "dtype", "order", "labels", "names", "values", "option", "about", "about else",
         "analysis"],
)  # fmt: skip
def test_the_key_changes_with_every_input(changed):
    keys = {key_of(), key_of(x=labelled("ad")), key_of(about={"model": "tiniest"})}
    assert key_of(**changed) not in keys


def test_features_enter_the_key_by_their_own_key():
    def key(of):
        return results.cached("f", lambda features: analysis(X), features=of).attrs["key"]

    assert key(features("one")) == key(features("one")) != key(features("two"))
    assert key({"a": features("one")}) != key({"a": features("two")})


def test_the_key_changes_with_the_algorithm(monkeypatch):
    before = key_of()
    monkeypatch.setitem(globals(), "ALGORITHM_VERSION", 2)
    assert key_of() != before


def test_the_key_does_not_change_with_how_it_is_computed():
    assert key_of(device="cpu", n_targets_batch=3) == key_of()


def test_every_result_says_how_it_came_about():
    options = dict(x=X, scale=2.0, device="cpu")
    stored = results.cached("scores", analysis, {"model": "tiny"}, **options)
    history = json.loads(stored.attrs["provenance"])
    assert set(history["versions"]) >= {"torch", "numpy", "scipy", "xarray"}
    assert history["device"] == "cpu" and history["wall_seconds"] >= 0
    assert 0.01 < history["peak_memory_gb"] < 1000
    assert history["created"].endswith("Z") and history["python"].startswith("3.")
    assert history["commit"] and history["platform"]
    parameters = json.loads(stored.attrs["parameters"])
    assert parameters["model"] == "tiny" and parameters["scale"] == 2.0
    assert (
        parameters["x"]
        == json.loads(results.cached("scores", analysis, x=X.copy()).attrs["parameters"])["x"]
    ), "arrays are told apart by their content"


def test_text_and_missing_values_survive(tmp_path):
    layer = np.array([["a", ""], ["layer b", "a"]], dtype=object)
    dataset = xr.Dataset({"layer": (("fold", "target"), layer), "score": ("target", [np.nan, 1])})
    key = results.save(dataset, "kept").stem
    xr.testing.assert_equal(results.open("kept", key), dataset)


def test_list_and_filter():
    for model in ("tiny", "large"):
        for scale in (1.0, 2.0):
            results.cached("scores", analysis, {"model": model}, x=X, scale=scale)
    results.save(xr.Dataset({"a": 1}), "other", seed=3)
    assert results.analyses() == ["other", "scores"]
    table = results.load("scores")
    assert len(table) == 4 and set(table["model"]) == {"tiny", "large"}
    tiny = results.load("scores", model="tiny", scale=2.0)
    assert tiny["mean_score"].tolist() == [0.75]
    xr.testing.assert_identical(results.open("scores", tiny["key"][0])["score"].drop_attrs(),
                                analysis(X, 2.0)["score"])  # fmt: skip
    assert len(results.load("scores", model="medium")) == 0
    assert results.load("other")["seed"].tolist() == [3]


def test_names_that_are_not_there():
    key = key_of()
    with pytest.raises(
        UnknownNameError, match="analysis in the result store 'score'. Did you mean"
    ):
        results.load("score")
    with pytest.raises(UnknownNameError, match=f"scores result '{key[:-1]}'. Did you mean '{key}'"):
        results.open("scores", key[:-1])
    with pytest.raises(ParameterError, match="needs to know which analysis"):
        results.save(xr.Dataset({"a": 1}))


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"no netCDF", lambda b: b""]
)
def test_a_damaged_file_is_refused_by_name(damage):
    key = key_of()
    (file,) = files()
    file.write_bytes(damage(file.read_bytes()))
    message = rf"{file} is not a readable result \(.*\). Remove it and run again"
    with pytest.raises(DataError, match=f"(?s){message}"):
        results.open("scores", key)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINBOOK_RESULTS", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot write to .*file/scores .* BRAINBOOK_RESULTS"):
        results.save(analysis(X), "scores")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk always full")
def test_a_full_disk(monkeypatch):
    write = xr.Dataset.to_netcdf
    monkeypatch.setattr(
        xr.Dataset, "to_netcdf", lambda self, path, **options: write(self, "/dev/full", **options)
    )
    with pytest.raises(StorageError, match=r"the disk is full: .*\.nc could not be written"):
        results.save(analysis(X), "scores")
    assert files() == []


def save_and_die(folder):
    """Save a result; die when it is written but has not got its name."""
    os.environ["BRAINBOOK_RESULTS"] = folder
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    results.cached("scores", analysis, {"model": "tiny"}, x=X)


def save_often(folder, ready):
    os.environ["BRAINBOOK_RESULTS"] = folder
    ready.wait(60)
    for _ in range(20):
        results.save(results.cached("scores", analysis, {"model": "tiny"}, x=X))


def test_a_killed_write_leaves_no_half_file(processes):
    child = processes.Process(target=save_and_die, args=(str(results_dir()),))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert files() == [] and results.analyses() == []
    stored = results.cached("scores", analysis, {"model": "tiny"}, x=X)
    assert results.load("scores")["key"].tolist() == [stored.attrs["key"]]


def test_two_processes_writing_one_result(processes):
    ready = processes.Barrier(2)
    both = [
        processes.Process(target=save_often, args=(str(results_dir()), ready)) for _ in range(2)
    ]
    for child in both:
        child.start()
    for child in both:
        child.join(60)
    assert [child.exitcode for child in both] == [0, 0]
    assert len(results.load("scores")) == 1
    np.testing.assert_array_equal(
        results.cached("scores", analysis, {"model": "tiny"}, x=X).score, X
    )
