"""Filling networks with weights."""

import pytest
import torch
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


def test_tied_copies():
    tensors = {f"layers.{i}.ffn.weight": torch.ones(2) for i in range(3)}
    pattern = r"layers\.\d+\.(ffn\..*)"
    weights.check_tied(tensors, pattern)
    tensors["layers.1.ffn.weight"] = torch.zeros(2)
    with pytest.warns(WeightsNotice, match=r"layers\.1\.ffn\.weight"):
        weights.check_tied(tensors, pattern)


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
