import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from analysis_lib import cleaning, cli, data, encoding, extraction, results, rsa, store
from analysis_lib.errors import DataError, ParameterError, UnknownNameError
from analysis_lib.paths import cache_dir, results_dir

ABOUT = {"dataset": "simulated-components", "model": "mfcc"}


def inputs():
    sounds = data.sounds(ABOUT["dataset"])
    return {
        "features": extraction.features(ABOUT["model"], sounds),
        "responses": data.responses(ABOUT["dataset"]),
        "folds": data.folds("auto", sounds),
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two results that can be computed again, and one that cannot; made once."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("cache", "results"):
            patch.setenv(f"BRAINBOOK_{name.upper()}", str(folder / name))
        given = inputs()
        strict = {**given, "scheme": "strict"}
        null = {
            "features": given["features"],
            "responses": given["responses"].data[::-1].copy(),
            "folds": given["folds"].data,
        }
        stored = {
            "encoding": results.cached("encoding", encoding.nested_cv_ridge, ABOUT, **given),
            "rsa-strict": results.cached("rsa-strict", rsa.cross_validated, ABOUT, **strict),
            "encoding-null": results.cached(
                "encoding-null", encoding.nested_cv_ridge, ABOUT, **null
            ),
        }
    return folder, stored


@pytest.fixture
def stored(made):
    """Those results, copied to the folders of this test."""
    folder, stored = made
    shutil.copytree(folder / "cache", cache_dir())
    shutil.copytree(folder / "results", results_dir())
    return stored


def path_of(result):
    return results_dir() / result.attrs["analysis"] / f"{result.attrs['key']}.nc"


def tamper(path, name="score", by=0.125):
    with h5py.File(path, "r+") as file:
        file[name][...] = file[name][...] + by


def run(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def test_a_table_of_everything_its_filters_and_export(stored, tmp_path):
    table = store.table()
    assert sorted(table["analysis"]) == ["encoding", "encoding-null", "rsa-strict"]
    assert list(store.table(scheme="strict")["analysis"]) == ["rsa-strict"]
    assert len(store.table("encoding", model="mfcc")) == 1
    assert len(store.table(model="absent")) == 0
    written = pd.read_csv(store.export(table, tmp_path / "all.csv"))
    assert written["key"].tolist() == table["key"].tolist()
    np.testing.assert_allclose(written["mean_score"], table["mean_score"])
    with pytest.raises(ParameterError, match="must end in .csv or .parquet"):
        store.export(table, tmp_path / "all.xls")


def test_parquet_is_written_or_refused_with_what_to_install(stored, tmp_path):
    target = tmp_path / "all.parquet"
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(ParameterError, match="pip install pyarrow"):
            store.export(store.table(), target)
    else:
        store.export(store.table(), target)
        assert pd.read_parquet(target)["key"].tolist() == store.table()["key"].tolist()


def test_every_stored_result_is_computed_again_where_its_inputs_have_names(stored):
    checked = store.verify().set_index("analysis")
    assert checked["as_stored"].all() and (checked["file"] == "intact").all()
    assert checked.loc[["encoding", "rsa-strict"], "again"].tolist() == ["identical"] * 2
    assert "no responses of that content" in checked.loc["encoding-null", "again"]


def test_only_a_sample_is_computed_again(stored):
    assert (store.verify(sample=1)["again"] != "").sum() == 1
    assert (store.verify(sample=0)["again"] != "").sum() == 0
    assert list(store.verify(sample=0, analysis="encoding")["analysis"]) == ["encoding"]
    with pytest.raises(UnknownNameError, match="Did you mean 'encoding'"):
        store.verify(analysis="encodng")


def test_a_tampered_file_is_found_by_its_digest(stored):
    path = path_of(stored["encoding"])
    tamper(path)
    checked = store.verify(sample=0).set_index("analysis")
    assert checked.loc["encoding", "file"] == "changed" and not checked.loc["encoding", "as_stored"]
    assert checked["as_stored"].sum() == 2
    with pytest.raises(DataError, match="was changed after it was written"):
        results.open("encoding", stored["encoding"].attrs["key"])
    reply = run("verify", "--sample", "0")
    assert reply.exit_code == 1 and "1 not as stored" in reply.output and "changed" in reply.output


def test_tampering_that_mends_the_digest_is_found_by_computing_again(stored):
    forged = stored["encoding"].copy(deep=True)
    forged["score"] = forged["score"] + 0.125
    results.save(forged)
    xr.testing.assert_equal(results.read(path_of(forged))["score"], forged["score"])
    checked = store.verify().set_index("analysis")
    assert checked.loc["encoding", ["file", "again"]].tolist() == ["intact", "differs"]
    assert not checked.loc["encoding", "as_stored"] and checked.loc["rsa-strict", "as_stored"]


def test_provenance_is_under_the_digest_too(stored):
    path = path_of(stored["encoding"])
    with h5py.File(path, "r+") as file:
        history = json.loads(file.attrs["provenance"])
        file.attrs["provenance"] = json.dumps({**history, "commit": "another"})
    with pytest.raises(DataError, match="was changed after"):
        results.read(path)


def test_a_digest_survives_text_missing_values_and_integers(tmp_path):
    names = np.array(["a", "", "ü"], dtype=object)
    dataset = xr.Dataset(
        {
            "x": ("t", np.array([1.5, np.nan, np.inf], dtype="float32")),
            "n": ("t", np.array([1, 2, 3])),
            "b": ("t", np.array([True, False, True])),
            "s": ("t", names),
        },
        {"t": np.array(["u", "v", "w"])},
    )
    path = results.save(dataset, "kept", model="m")
    assert results.read(path).attrs["digest"] == results.read(path).attrs["digest"] != ""


def test_another_version_of_an_analysis_is_not_compared(stored, monkeypatch):
    monkeypatch.setattr("analysis_lib.encoding.nested.ALGORITHM_VERSION", 99)
    again = store.verify(analysis="encoding")["again"]
    assert again.tolist() == ["not possible: it was made by another version of the analysis"]


def test_a_copied_store_opens_verifies_and_compares(stored, tmp_path, monkeypatch):
    copied = tmp_path / "elsewhere" / "results"
    shutil.copytree(results_dir(), copied)
    table = store.compare_stores(results_dir(), copied)
    assert table["verdict"].tolist() == ["identical"] * 3 and table["versions"].tolist() == [""] * 3
    original = results_dir()
    monkeypatch.setenv("BRAINBOOK_RESULTS", str(copied))
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "empty"))
    checked = store.verify().set_index("analysis")
    assert (
        checked.loc[["encoding", "rsa-strict"], "again"]
        .isin(["identical", "equal to rounding"])
        .all()
    )
    path_of(stored["rsa-strict"]).unlink()
    forged = stored["encoding"].copy(deep=True)
    forged["score"] = forged["score"] * (1 + 1e-3)
    results.save(forged)
    table = store.compare_stores(original, copied).set_index("analysis")
    assert table.loc["rsa-strict", "verdict"] == "only in a"
    assert table.loc["encoding", "verdict"] == "differs"
    assert table.loc["encoding", "largest"] == pytest.approx(1e-3)
    reply = run("compare", str(original), str(copied))
    assert reply.exit_code == 1 and "only in a" in reply.output
    with pytest.raises(DataError, match="is not the folder of a result store"):
        store.compare_stores(original, tmp_path / "absent")


def test_two_results_are_compared_in_inputs_versions_and_numbers(stored):
    a = stored["encoding"]
    assert str(store.compare(a, a)) == "numbers: identical\ninputs: the same\nversions: the same"
    b = a.copy(deep=True)
    b["score"] = b["score"] * (1 + 1e-7)
    history = json.loads(a.attrs["provenance"])
    history["versions"]["torch"] = "1.0"
    b.attrs["provenance"] = json.dumps(history)
    b.attrs["parameters"] = json.dumps({**json.loads(a.attrs["parameters"]), "model": "log-mel"})
    found = store.compare(a, b)
    assert found.verdict == "equal to rounding" and set(found.numbers) == {"score"}
    assert found.inputs == {"model": ("mfcc", "log-mel")}
    assert found.versions["torch"][1] == "1.0" and set(found.versions) == {"torch"}
    b["alpha"] = 2 * b["alpha"]
    assert store.compare(a, b).verdict == "equal to rounding", "rounding may choose the penalty"
    b["layer"][0, 0] = "other"
    assert store.compare(a, b).verdict == "differs"
    assert store.compare(a, b.isel(target=[0])).numbers["score"] == np.inf
    assert "inputs: the same" in run("compare", a.attrs["key"], str(path_of(a))).output


def test_clean_shows_first_and_removes_only_what_cannot_be_used(stored, monkeypatch):
    assert cleaning.orphans() == []
    assert "nothing to remove" in run("clean").output
    (finished,) = cache_dir("features").glob("*/finished.json")
    made_by = json.loads(finished.read_text())
    finished.write_text(json.dumps({**made_by, "code_version": "0"}))
    old = cache_dir("jobs", "extract-1.json")
    old.parent.mkdir()
    old.write_text(json.dumps({"source": "other"}))
    monkeypatch.setattr("analysis_lib.encoding.nested.ALGORITHM_VERSION", 99)
    reasons = {orphan.path: orphan.reason for orphan in cleaning.orphans()}
    assert "made by code version 0" in reasons.pop(finished.parent)
    assert "planned with other sources" in reasons.pop(old)
    assert set(reasons) == {path_of(stored["encoding"]), path_of(stored["encoding-null"])}
    shown = run("clean").output
    assert "4 to remove" in shown and finished.is_file() and path_of(stored["encoding"]).is_file()
    assert "removed 4" in run("clean", "--yes").output
    assert not finished.parent.exists() and not path_of(stored["encoding"]).exists()
    assert path_of(stored["rsa-strict"]).is_file() and cleaning.orphans() == []


def test_features_of_models_from_elsewhere_are_nobodys_orphans(stored):
    (finished,) = cache_dir("features").glob("*/finished.json")
    made_by = json.loads(finished.read_text())
    finished.write_text(json.dumps({**made_by, "model": "my own", "code_version": "0"}))
    assert cleaning.orphans() == []


def test_features_without_a_result_are_orphans_only_when_asked(stored):
    extraction.features("log-mel", data.sounds("simulated"))
    assert cleaning.orphans() == []
    (orphan,) = cleaning.orphans(unused=True)
    assert "log-mel" in orphan.reason and orphan.n_bytes > 0
    table = cleaning.sizes()
    assert table["mb"].is_monotonic_decreasing and str(cache_dir("features")) in set(
        table["folder"]
    )


def test_the_command_shows_filters_and_exports(stored, tmp_path):
    output = run("results", "analysis=encoding", "model=mfcc").output
    assert stored["encoding"].attrs["key"] in output and "rsa-strict" not in output
    assert "no results" in run("results", "model=absent").output
    target = tmp_path / "all.csv"
    assert f"3 results in {target}" in run("results", "--csv", str(target)).output
    assert len(pd.read_csv(target)) == 3
    assert isinstance(run("results", "model").exception, ParameterError)
