"""Reading checkpoints safely, and filling networks from them."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from analysis_lib.errors import WeightsError, WeightsNotice
from analysis_lib.models import weights


def network():
    return nn.ModuleDict(
        {
            "conv": nn.Conv1d(1, 4, 3),
            "norm": nn.BatchNorm1d(4),
            "lstm": nn.LSTM(4, 5, num_layers=2, batch_first=True),
        }
    )


def run(net, x):
    return net["lstm"](net["norm"](net["conv"](x)).transpose(1, 2))[0]


def unfilled_network():
    with weights.parameters_unfilled():
        return network()


def test_unfilled_parameters_draw_nothing_and_cannot_compute():
    before = torch.get_rng_state()
    net = unfilled_network()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.is_meta for parameter in net.parameters())
    assert net["norm"].running_var.tolist() == [1] * 4
    assert not any(parameter.is_meta for parameter in network().parameters())


def test_ordinary_construction_is_back_after_an_error():
    with pytest.raises(ZeroDivisionError), weights.parameters_unfilled():
        _ = 1 / 0
    assert not nn.Linear(2, 2).weight.is_meta


def test_unfilled_and_ordinary_networks_load_alike():
    source = network().eval()
    tensors = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    x = torch.randn(2, 1, 20)
    for target in (unfilled_network(), network()):
        weights.load_exactly(target.eval(), tensors)
        torch.testing.assert_close(run(target, x), run(source, x))
        assert all(isinstance(parameter, nn.Parameter) for parameter in target.parameters())


def test_checkpoint_tensors_are_taken_over_without_a_copy():
    tensors = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    target = unfilled_network()
    weights.load_exactly(target, tensors)
    assert target["conv"].weight.data_ptr() == tensors["conv.weight"].data_ptr()


def test_precision_of_the_network_wins():
    tensors = {name: t.half() for name, t in nn.Linear(3, 2).state_dict().items()}
    with weights.parameters_unfilled():
        target = nn.Linear(3, 2)
    weights.load_exactly(target, tensors)
    assert target.weight.dtype == torch.float32


def test_shared_modules_stay_shared():
    with weights.parameters_unfilled():
        shared = nn.Linear(3, 3)
        target = nn.ModuleList([shared, shared])
    tensors = {name: torch.randn(p.shape) for name, p in target.state_dict().items()}
    weights.load_exactly(target, tensors)
    assert target[0].weight is target[1].weight
    torch.testing.assert_close(target[0].weight.data, tensors["1.weight"])


def test_checkpoint_of_another_model_is_recognised():
    with pytest.raises(WeightsError, match="another model"):
        weights.load_exactly(unfilled_network(), {"encoder.weight": torch.ones(3)})
    tensors = dict(network().state_dict())
    del tensors["conv.bias"]
    with pytest.raises(WeightsError, match="missing: conv.bias") as error:
        weights.load_exactly(unfilled_network(), tensors)
    assert "another model" not in str(error.value)


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
        tensors, settings = weights._read(path)
        assert tensors["weight"].tolist() == [0, 1, 2]
        assert settings == {"config": "WIDTH = 3", "cfg": {"layers": [1, 2]}}
    assert weights.read_checkpoint(path).keys() == {"weight"}


def test_tied_copies():
    tensors = {f"layers.{i}.ffn.weight": torch.ones(2) for i in range(3)}
    pattern = r"layers\.\d+\.(ffn\..*)"
    weights.check_tied(tensors, pattern)
    tensors["layers.1.ffn.weight"] = torch.zeros(2)
    with pytest.warns(WeightsNotice, match=r"layers\.1\.ffn\.weight"):
        weights.check_tied(tensors, pattern)


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
        weights.read_checkpoint(tmp_path / file)
    assert not marker.exists()
    assert not list(Path(os.environ["BRAINBOOK_CACHE"]).rglob("*.safetensors"))


def test_objects_of_unknown_packages_are_refused(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"state_dict": {"weight": torch.ones(3)}, "trainer": Unknown()}, path)
    with pytest.raises(WeightsError, match="would run 'test_weights.Unknown'"):
        weights.read_checkpoint(path)


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
    loaded = weights.read_checkpoint(path)
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
    loaded = weights.read_checkpoint(tmp_path / "file.pt")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_converted_once(tmp_path, monkeypatch):
    path = tmp_path / "file.npy"
    save_numpy({"conv1": {"weights": np.ones((2, 2), np.float32)}}, path)
    first = weights.read_checkpoint(path)
    monkeypatch.setattr(weights, "_read_torch", None)
    second = weights.read_checkpoint(path)
    assert first.keys() == second.keys() == {"conv1.weights"}
    assert torch.equal(first["conv1.weights"], second["conv1.weights"])


@pytest.mark.parametrize("file", ["file.pt", "file.pth", "file.npy", "file.safetensors"])
def test_damaged_files_are_refused_by_name(tmp_path, file):
    path = tmp_path / file
    with pytest.raises(WeightsError, match=f"no checkpoint at .*{file}"):
        weights.read_checkpoint(path)
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
            weights.read_checkpoint(path)


def test_another_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.pt", "w") as archive:
        archive.writestr("readme.txt", "no tensors")
    with pytest.raises(WeightsError, match="file.pt is an archive, but not"):
        weights.read_checkpoint(tmp_path / "file.pt")


def test_a_file_without_named_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match="no mapping of names to tensors"):
        weights.read_checkpoint(tmp_path / "file.pt")


def test_every_problem_is_named():
    tensors = dict(network().state_dict())
    del tensors["conv.bias"]
    tensors["head.weight"] = torch.ones(1)
    tensors["conv.weight"] = torch.ones(4, 1, 5)
    with pytest.raises(WeightsError) as error:
        weights.load_exactly(network(), tensors, source="file.pt")
    for part in (
        "file.pt does not fit",
        "missing: conv.bias",
        "unexpected: head.weight",
        "wrong shape: conv.weight is (4, 1, 5), should be (4, 1, 3)",
    ):
        assert part in str(error.value)
    del tensors["conv.weight"], tensors["head.weight"]
    tensors |= {name: network().state_dict()[name] for name in ("conv.bias", "conv.weight")}
    tensors["heads.3.weight"] = torch.ones(1)
    weights.load_exactly(network(), tensors, unused=[r"heads\.\d+\.weight"])
    with pytest.raises(WeightsError, match="unexpected"):
        weights.load_exactly(network(), tensors, unused=[r"heads"])
