"""Reading checkpoints safely."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from analysis_lib.errors import WeightsError
from analysis_lib.models import checkpoints


def test_settings_come_with_the_tensors(tmp_path):
    path = tmp_path / "file.pt"
    content = {
        "state_dict": {"weight": torch.arange(3.0)},
        "config": "WIDTH = 3",
        "cfg": {"layers": [1, 2]},
        "optimizer": {"moment": torch.ones(2)},
    }
    torch.save(content, path)
    for _ in range(2):  # read from the file, then from its conversion
        tensors, settings = checkpoints.read_with_settings(path)
        assert tensors["weight"].tolist() == [0, 1, 2]
        assert settings == {"config": "WIDTH = 3", "cfg": {"layers": [1, 2]}}
    assert checkpoints.read_checkpoint(path).keys() == {"weight"}


class Command:
    """Pickles as a command that leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Unknown:
    """An object of a package that is not among the bookkeeping."""


def save_numpy(content, path):
    np.save(path, content, allow_pickle=True)


def save_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("file", "save"),
    [("file.pt", torch.save), ("file.npy", save_numpy), ("legacy.pt", save_legacy)],
)
def test_code_in_a_checkpoint_is_refused_and_never_runs(tmp_path, file, save):
    marker = tmp_path / "marker"
    save({"weight": np.ones(3), "extra": Command(marker)}, tmp_path / file)
    with pytest.raises(WeightsError, match=rf"{file}.* refused"):
        checkpoints.read_checkpoint(tmp_path / file)
    assert not marker.exists()
    assert not list(Path(os.environ["BRAINBOOK_CACHE"]).rglob("*.safetensors"))


def test_objects_of_unknown_packages_are_refused(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"state_dict": {"weight": torch.ones(3)}, "trainer": Unknown()}, path)
    with pytest.raises(WeightsError, match="would run 'test_checkpoints.Unknown'"):
        checkpoints.read_checkpoint(path)


def test_restricted_reading_gives_what_torch_gives(tmp_path):
    """Types, strides, offsets and shared storage, through the unpickler of this package."""
    base = torch.arange(24.0)
    tensors = {
        "base": base,
        "view": base[3:21].reshape(3, 6).T,
        "expanded": torch.tensor(7.0).expand(2, 3),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "parameter": nn.Parameter(torch.randn(2, 2)),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(5).bfloat16(),
        "double": torch.randn(5).double(),
        "bool": torch.tensor([True, False]),
        "byte": torch.arange(3, dtype=torch.uint8),
    }
    # An optimizer's class makes PyTorch's own safe reader give up.
    path = tmp_path / "file.pt"
    torch.save({"state_dict": tensors, "optimizer": torch.optim.SGD}, path)
    loaded = checkpoints.read_checkpoint(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "best_accuracy": torch.tensor(0.7)},
        lambda state: {"model": {"state_dict": state}, "mean": np.zeros(2)},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    ],
)
def test_wrappers_are_taken_off(tmp_path, wrap):
    state = nn.Linear(3, 2).state_dict()
    torch.save(wrap(state), tmp_path / "file.pt")
    loaded = checkpoints.read_checkpoint(tmp_path / "file.pt")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_converted_once(tmp_path, monkeypatch):
    path = tmp_path / "file.npy"
    save_numpy({"conv1": {"weights": np.ones((2, 2), np.float32)}}, path)
    first = checkpoints.read_checkpoint(path)
    monkeypatch.setattr(checkpoints, "_read_torch", None)
    second = checkpoints.read_checkpoint(path)
    assert first.keys() == second.keys() == {"conv1.weights"}
    assert torch.equal(first["conv1.weights"], second["conv1.weights"])


@pytest.mark.parametrize("file", ["file.pt", "file.pth", "file.npy", "file.safetensors"])
def test_damaged_files_are_refused_by_name(tmp_path, file):
    path = tmp_path / file
    with pytest.raises(WeightsError, match=f"no checkpoint at .*{file}"):
        checkpoints.read_checkpoint(path)
    state = {"weight": torch.randn(300, 10)}
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".npy":
        save_numpy({"weight": state["weight"].numpy()}, path)
    else:
        torch.save(state, path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:50], b"", b"<html>not found</html>"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=file):
            checkpoints.read_checkpoint(path)


def test_another_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        archive.writestr("readme.txt", "no tensors")
    with pytest.raises(WeightsError, match="file.pt is an archive, but not"):
        checkpoints.read_checkpoint(tmp_path / "file.pt")


def test_a_file_without_named_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="no mapping of names to tensors"):
        checkpoints.read_checkpoint(tmp_path / "file.pt")
