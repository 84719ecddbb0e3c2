import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from analysis_lib import paths
from analysis_lib.errors import StorageError
from analysis_lib.paths import atomic_path, content_key, file_sha256


def test_a_finished_write_is_the_only_file_left(tmp_path):
    target = tmp_path / "new" / "folder" / "result.nc"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".nc" and temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    usual = tmp_path / "usual"
    usual.write_text("")
    with atomic_path(tmp_path / "ours") as temporary:
        temporary.write_text("")
    assert (tmp_path / "ours").stat().st_mode == usual.stat().st_mode


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "result.nc"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk always full")
def test_a_full_disk_while_writing(tmp_path):
    target = tmp_path / "result.nc"
    message = f"the disk is full: {target} could not be written. Free some room under {tmp_path}"
    with pytest.raises(StorageError, match=message), atomic_path(target) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_text("no room for this")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_found_out_when_flushing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(paths.os, "fsync", full)
    with (
        pytest.raises(StorageError, match="disk is full"),
        atomic_path(tmp_path / "x") as temporary,
    ):
        temporary.write_text("cached by the system")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "results").write_text("")
    with (
        pytest.raises(StorageError, match=r"cannot write to .*results.*BRAINBOOK_RESULTS"),
        atomic_path(tmp_path / "results" / "encoding" / "x.nc"),
    ):
        pass


def test_a_folder_without_permission(tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(paths.tempfile, "mkstemp", refused)
    expected = rf"cannot write to {tmp_path} \(Permission denied\). Make it writable"
    with pytest.raises(StorageError, match=expected), atomic_path(tmp_path / "x"):
        pass


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        (tmp_path / "absent").read_text()


WRITER = """
import sys
from analysis_lib.paths import atomic_path
for _ in range(200):
    with atomic_path(sys.argv[1]) as temporary:
        temporary.write_text(sys.argv[2] * 50_000)
"""


def test_a_reader_never_sees_half_of_two_writers_files(tmp_path):
    target = tmp_path / "shared"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(target), letter], cwd=Path.cwd())
        for letter in "ab"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            text = target.read_text()
            seen.add((text[0], len(text), text.count(text[0])))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert {length for _, length, _ in seen} == {50_000} and all(n == m for _, n, m in seen)
    assert list(tmp_path.glob("*")) == [target]


def test_file_sha256_of_a_known_text(tmp_path):
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    assert file_sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


ARRAY = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "other",
    [
        ARRAY.astype("float32"),
        ARRAY.astype(">f8"),
        ARRAY.reshape(3, 2),
        ARRAY.ravel(),
        ARRAY[:, ::-1],
        np.nextafter(ARRAY, 9),
        ARRAY.tolist(),
        ARRAY.tobytes().hex(),
    ],
    ids=["dtype", "byte order", "shape", "flat", "order", "last bit", "list", "text"],
)
def test_key_changes_with_an_array(other):
    assert content_key(ARRAY) != content_key(other)


def test_key_depends_on_values_not_on_memory_layout():
    assert content_key(ARRAY) == content_key(np.asfortranarray(ARRAY))
    assert content_key(ARRAY[:, ::2]) == content_key(ARRAY[:, ::2].copy())


@pytest.mark.parametrize("dtype", ["U", "S", object, bool, "datetime64[D]"])
def test_key_of_arrays_of_other_kinds(dtype):
    first = np.array([1, 0, 1], dtype=int).astype(dtype)
    second = np.array([1, 1, 0], dtype=int).astype(dtype)
    assert content_key(first) == content_key(first.copy()) != content_key(second)


def test_key_of_empty_arrays_tells_shapes_apart():
    assert content_key(np.zeros((0, 3))) != content_key(np.zeros((0, 4)))


def test_key_is_free_of_a_mappings_order_but_not_of_a_sequences():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({3, 1, 2}) == content_key({1, 2, 3})
    assert content_key(["a", "b"]) != content_key(["b", "a"])


@pytest.mark.parametrize(
    "one, other",
    [
        (("ab", "c"), ("a", "bc")),
        (([1], [2]), ([1, 2],)),
        (([[1], 2],), ([[1, 2]],)),
        (({"a": "b"},), (["a", "b"],)),
        ((1,), ("1",)),
        ((1,), (True,)),
        ((None,), ("",)),
        ((0.1,), (np.nextafter(0.1, 1),)),
    ],
)
def test_key_tells_neighbours_apart(one, other):
    assert content_key(*one) != content_key(*other)


def test_key_takes_numpy_scalars_and_paths_as_their_plain_values():
    assert content_key(np.float64(0.5), np.int32(3)) == content_key(0.5, 3)
    assert content_key(Path("a/b")) == content_key("a/b")


def test_key_refuses_what_has_no_content():
    with pytest.raises(TypeError):
        content_key(object())


def test_folders_follow_their_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("BRAINBOOK_RESULTS", str(tmp_path / "r"))
    monkeypatch.setenv("BRAINBOOK_DATA", str(tmp_path / "d"))
    assert paths.cache_dir("features", "k") == tmp_path / "c" / "features" / "k"
    assert paths.results_dir() == tmp_path / "r"
    assert paths.data_mirror() == (tmp_path / "d").resolve()
    monkeypatch.delenv("BRAINBOOK_RESULTS")
    monkeypatch.setenv("BRAINBOOK_DATA", "")
    assert paths.results_dir() == paths.project_root() / "results"
    assert paths.data_mirror() is None


def test_project_root_is_the_folder_of_the_book():
    assert (paths.project_root() / "_toc.yml").is_file()
    assert (paths.project_root() / "notebooks").is_dir()
