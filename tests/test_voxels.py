import io
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io

from analysis_lib.data import fetch, voxels
from analysis_lib.data.archives import unpack
from analysis_lib.data.pickled_tables import read_table
from analysis_lib.data.splits import tuckute_splits
from analysis_lib.data.voxel_twin import random_features, write_twin
from analysis_lib.errors import AlignmentError, DataError, MissingDataError

TABLES = Path(__file__).with_name("tables")


@pytest.fixture(autouse=True)
def _no_mirror(monkeypatch):
    monkeypatch.delenv("BRAINBOOK_DATA", raising=False)


@pytest.fixture
def twin(tmp_path):
    return write_twin(tmp_path, random_features(24, 6), n_voxels=4, n_subjects=3)


def rewrite(path, change):
    table = pd.read_pickle(path)
    change(table).to_pickle(path)


def tar_of(folder, path):
    with tarfile.open(path, "w") as tar:
        tar.add(folder, "data")
    return path


# --- what is read ---------------------------------------------------------------------------


def test_nh2015_keeps_subjects_scanned_three_times(twin):
    raw = np.load(twin / "neural/NH2015/voxel_features_array.npy")
    meta = np.load(twin / "neural/NH2015/voxel_features_meta.npy")
    responses = voxels.nh2015(twin)
    assert responses.dims == ("sound", "target", "repetition") and responses.shape[2] == 3
    assert sorted(set(responses["subject"].values)) == ["sub-00", "sub-02", "sub-03"]  # a gap
    np.testing.assert_array_equal(responses.values, raw[:, meta["n_reps"] == 3])
    np.testing.assert_array_equal(responses["voxel_id"], meta["voxel_id"][meta["n_reps"] == 3])
    assert not np.array_equal(np.sort(responses["voxel_id"]), responses["voxel_id"])
    assert set(responses["roi"].values) == {"Primary", "Lateral", "Anterior", "Posterior", ""}
    assert np.isnan(raw[:, meta["n_reps"] == 2]).any(), "the twin must hold the trap"


def test_b2021_is_cut_to_the_shared_sounds(twin):
    raw = np.load(twin / "neural/B2021/voxel_features_array.npy")
    responses = voxels.b2021(twin)
    assert len(raw) == 24 + 27 and responses.sizes["sound"] == 24
    np.testing.assert_array_equal(responses.values, raw[:24])
    np.testing.assert_array_equal(responses["sound"], voxels.nh2015(twin)["sound"])


def test_full_size_lists_192_sounds(tmp_path):
    folder = write_twin(tmp_path, n_voxels=1, n_subjects=2)
    assert voxels.b2021(folder).sizes["sound"] == 165
    stored = scipy.io.loadmat(folder / "neural/B2021/stim_info_v4.mat")["stim_info"]
    assert stored["stim_names"][0][0].shape == (192, 1)


def test_components_are_in_category_order(twin):
    stored = scipy.io.loadmat(twin / "neural/NH2015comp/components.mat", simplify_cells=True)
    labels = list(stored["category_labels"])
    assert labels == sorted(labels)
    assert list(stored["stim_names"]) != list(voxels.nh2015(twin)["sound"].values)


def test_planted_signal_comes_through(tmp_path):
    features = random_features(40, 5)
    folder = write_twin(tmp_path, features, n_voxels=5, noise=1e-3)
    responses = voxels.nh2015(folder).mean("repetition")
    x = np.column_stack([features["spectrum"], np.ones(40)])
    for roi, expected in (("Primary", 0), ("Lateral", 1)):
        y = responses.values[:, responses["roi"].values == roi]
        residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        unexplained = residual.var(axis=0) / y.var(axis=0)
        assert (unexplained < 1e-4).all() if expected == 0 else (unexplained > 0.2).all()


def test_archive_and_folder_agree_and_are_converted_once(twin, tmp_path, monkeypatch):
    archive = tar_of(twin, tmp_path / "data.tar")
    first = voxels.nh2015(archive)
    assert first.identical(voxels.nh2015(twin).assign_attrs(source=str(archive)))
    monkeypatch.setattr(voxels, "_read", lambda *_: pytest.fail("converted twice"))
    assert first.identical(voxels.nh2015(archive))


# --- what is refused ------------------------------------------------------------------------


def test_wrong_voxel_order(twin):
    rewrite(twin / "neural/NH2015/df_roi_meta.pkl", lambda t: t.iloc[::-1])
    with pytest.raises(AlignmentError, match="voxel_id: the same entries in another order; row 0"):
        voxels.nh2015(twin)


def test_table_disagrees_with_arrays(twin):
    rewrite(
        twin / "neural/NH2015/df_roi_meta.pkl",
        lambda t: t.assign(
            hemi=t["hemi"].where(t.index != 3, "rh" if t["hemi"][3] == "lh" else "lh")
        ),
    )
    with pytest.raises(AlignmentError, match="hemi per voxel: other entries; row 3"):
        voxels.nh2015(twin)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="x_ras"), "expected columns"),
        (lambda t: t.assign(roi_label_general="Temporal"), "found .*Temporal"),
        (lambda t: t.iloc[:-1], "entries, expected"),
    ],
)
def test_unexpected_table(twin, change, message):
    rewrite(twin / "neural/B2021/df_roi_meta.pkl", change)
    with pytest.raises(DataError, match=message):
        voxels.b2021(twin)


def test_sounds_of_b2021_in_another_order(twin):
    path = twin / "neural/B2021/stim_info_v4.mat"
    names = scipy.io.loadmat(path)["stim_info"]["stim_names"][0, 0].ravel()
    cells = names[::-1].reshape(-1, 1)
    scipy.io.savemat(path, {"stim_info": {"stim_names": cells}})
    with pytest.raises(AlignmentError, match="sound names: other entries; row 0"):
        voxels.b2021(twin)


def test_nan_after_the_filter(twin):
    path = twin / "neural/NH2015/voxel_features_array.npy"
    values = np.load(path)
    values[3, 0, 1] = np.nan
    np.save(path, values)
    with pytest.raises(DataError, match="1 of .* voxels with three repetitions hold NaN"):
        voxels.nh2015(twin)


def test_wrong_number_of_repetitions_and_missing_file(twin):
    path = twin / "neural/B2021/voxel_features_array.npy"
    np.save(path, np.load(path)[..., :2])
    with pytest.raises(DataError, match="expected three repetitions, found .*2"):
        voxels.b2021(twin)
    path.unlink()
    with pytest.raises(MissingDataError, match="lacks B2021/voxel_features_array.npy"):
        voxels.b2021(twin)


def test_published_archive_must_have_the_published_size(twin, tmp_path, monkeypatch):
    archive = tar_of(twin, tmp_path / "data.tar")
    monkeypatch.setattr(voxels.fetch, "fetch_url", lambda *_: archive)
    with pytest.raises(DataError, match=r"published are \(165, 7694, 8\)"):
        voxels.nh2015()


def test_checksum_is_recorded_at_first_and_compared_after(twin, tmp_path, monkeypatch, caplog):
    def offline(*arguments):
        raise MissingDataError("no network in this test")

    monkeypatch.setattr(fetch, "download", offline)
    place = tmp_path / "cache" / "data" / "tuckute2023"
    place.mkdir(parents=True)
    tar_of(twin, place / "data.tar")
    with pytest.raises(DataError, match="published are"):
        voxels.nh2015()
    with open(place / "data.tar", "ab") as stream:
        stream.write(b"\0" * 512)
    with pytest.raises(MissingDataError):  # the changed file is set aside, and fetched again
        voxels.nh2015()
    assert "recorded when it first arrived" in caplog.text
    assert not (place / "data.tar").exists() and len(list(place.glob("*data.tar*"))) == 1


def test_truncated_archive(twin, tmp_path):
    whole = tar_of(twin, tmp_path / "data.tar").read_bytes()
    for kept in (0.3, 0.75):
        cut = tmp_path / f"cut{kept}.tar"
        cut.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(DataError, match="cut short"):
            voxels.b2021(cut)
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(DataError, match="cut short"):
        voxels.b2021(tmp_path / "empty.tar")


def entry(name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    member.size = 3 if kind == tarfile.REGTYPE else 0
    return member


@pytest.mark.parametrize(
    "member",
    [
        entry("data/../../escaped"),
        entry("/etc/escaped"),
        entry("data/link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("data/hard", tarfile.LNKTYPE, "data/good"),
        entry("data/device", tarfile.CHRTYPE),
    ],
    ids=lambda member: member.name,
)
def test_unsafe_archive_writes_nothing(tmp_path, member):
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(entry("data/good"), io.BytesIO(b"abc"))
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(DataError, match=f"refused: its entry {member.name!r}"):
        unpack(archive, tmp_path / "out", lambda name: True)
    assert not (tmp_path / "out").exists() and not (tmp_path / "escaped").exists()


# --- pickled tables -------------------------------------------------------------------------


def test_table_pickled_by_pandas_1_1():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read_table(TABLES / "roi_table_pandas_1.1.5.pkl")
    assert list(table["voxel_id"]) == [4, 9, 2, 17, 30, 11]
    assert list(table["hemi"]) == ["rh", "lh"] * 3
    assert list(table["roi_label_general"][:3]) == ["Primary", "Anterior", "Anterior"]
    assert table["roi_label_general"][3:].isna().all()
    np.testing.assert_allclose(table["kell_r_reliability"], np.linspace(0.3, 0.8, 6))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_table_pickled_by_this_pandas(tmp_path, protocol):
    table = pd.DataFrame(
        {"a": [1, 2], "b": ["x", None], "c": [True, False], "d": [0.5, np.nan]}, index=[7, 3]
    )
    table.to_pickle(tmp_path / "t.pkl", protocol=protocol)
    read = read_table(tmp_path / "t.pkl")
    pd.testing.assert_frame_equal(read, table.reset_index(drop=True), check_dtype=False)


class Tampered:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_tampered_pickle_is_refused_and_does_not_run(twin, tmp_path):
    witness = tmp_path / "ran"
    path = twin / "neural/B2021/df_roi_meta.pkl"
    table = pd.read_pickle(path)
    table.attrs["note"] = Tampered(f"touch {witness}")
    with open(path, "wb") as stream:
        pickle.dump(table, stream)
    with pytest.raises(DataError, match="would run '(posix|nt).system'; it was refused"):
        voxels.b2021(twin)
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2])])
def test_damaged_pickle(tmp_path, content):
    (tmp_path / "t.pkl").write_bytes(content)
    with pytest.raises(DataError, match="not a readable pickled table"):
        read_table(tmp_path / "t.pkl")


# --- splits ---------------------------------------------------------------------------------


def test_splits_are_those_of_the_reference():
    table = pd.read_csv(TABLES / "tuckute_splits_seed0.csv", index_col="row")
    splits = tuckute_splits([f"s{row}" for row in range(165)])
    np.testing.assert_array_equal(splits.values, table.to_numpy(dtype=bool).T)
    assert (splits.sum("sound") == 83).all()


def test_splits_need_unique_names():
    with pytest.raises(AlignmentError, match="unique"):
        tuckute_splits(["a", "a", "b"])
