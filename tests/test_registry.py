import pytest
import torch

from analysis_lib import models
from analysis_lib.errors import MissingDataError, ParameterError, UnknownNameError
from analysis_lib.models import registry
from analysis_lib.models.cards import KINDS


def test_list_by_pattern_and_kind():
    everything = models.list_models()
    assert len(models.list_models("mel256-*")) == 8
    assert "log-mel" in models.list_models(kind="handcrafted")
    assert sorted(everything) == sorted(m for kind in KINDS for m in models.list_models(kind=kind))
    assert models.list_models("no such *") == []


def test_unknown_kind():
    with pytest.raises(
        UnknownNameError, match="kind of model 'hand-crafted'. Did you mean 'handcr"
    ):
        models.list_models(kind="hand-crafted")


def test_a_loaded_model_is_ready_and_frozen():
    model = models.load("small-cnn", device="cpu")
    assert model.device == torch.device("cpu") and model.card is models.card("small-cnn")
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_an_alias_loads_the_same_model():
    assert models.card("spectrotemporal").name == "braindnn_spectemp_filters"


def test_loading_leaves_the_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    models.load("small-cnn", device="cpu", seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_shuffled_network_has_the_same_weights_in_other_places():
    plain = models.load("small-cnn", device="cpu")
    shuffled = models.load("small-cnn", device="cpu", permuted=True)
    again = models.load("small-cnn", device="cpu", permuted=True)
    assert shuffled.weights_sha256 == again.weights_sha256 != plain.weights_sha256
    for name, weight in plain.network.named_parameters():
        moved = dict(shuffled.network.named_parameters())[name]
        assert torch.equal(moved.flatten().sort().values, weight.flatten().sort().values)


def test_requests_that_contradict_themselves():
    for options in ({"permuted": True}, {"checkpoint": "weights.pt"}):
        with pytest.raises(ParameterError, match="untrained=True takes neither a checkpoint nor"):
            models.load("small-cnn", untrained=True, **options)


def test_unknown_model_and_device():
    with pytest.raises(
        UnknownNameError, match="unknown model 'small-cnnn'. Did you mean 'small-cnn'"
    ):
        models.load("small-cnnn")
    with pytest.raises(ParameterError, match="unknown device 'gpu'"):
        models.load("small-cnn", device="gpu")


def test_a_published_model_without_its_checkpoint_is_not_made_up(monkeypatch):
    monkeypatch.delenv("BRAINBOOK_DATA", raising=False)
    monkeypatch.setattr(registry.checkpoints, "locate", missing)
    with pytest.raises(MissingDataError, match="of soundnet"):
        models.load("soundnet", device="cpu")


def missing(card):
    raise MissingDataError(f"no checkpoint of {card.name}")
