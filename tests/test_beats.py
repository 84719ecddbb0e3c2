"""BEATs against the original's values."""

import math

import golden
import numpy as np
import pytest
import torch
from torch import nn

from analysis_lib import models
from analysis_lib.errors import AudioError, WeightsError, WeightsNotice
from analysis_lib.models import beats, weights
from analysis_lib.models.beats import BEATs

MEMBERS = ["BEATs_iter1", "BEATs_iter2", "BEATs_iter3", "BEATs_iter3_finetuned_on_AS2M_cpt1"]
FINE_TUNED = MEMBERS[-1]
LENGTHS = {"2s": (2, 0), "5.3s": (5.3, 1)}


@pytest.fixture(scope="module")
def tensors():
    return golden.strong_checkpoint("beats", FINE_TUNED)


@pytest.fixture(scope="module")
def pretrained(tensors):
    return {name: t for name, t in tensors.items() if not name.startswith("predictor")}


@pytest.fixture(scope="module")
def model(pretrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("beats") / "BEATs_iter3.safetensors"
    golden.save_checkpoint(pretrained, path)
    yield models.load("BEATs_iter3", checkpoint=path, device="cpu")
    path.unlink()


@pytest.fixture
def unfilled():
    with weights.parameters_unfilled():
        return BEATs(models.card("BEATs_iter3"))


@pytest.mark.parametrize("length", LENGTHS)
def test_golden(model, length):
    seconds, seed = LENGTHS[length]
    taps = golden.golden("beats", "golden_strong_BEATs_iter3.json")[length]["taps"]
    outputs = model.embed(
        golden.chirp(16_000, seconds, seed)[None], layers=model.layers + model.extra_layers
    )
    for layer in model.layers:
        output, tap = outputs[layer], taps[layer]
        tokens = outputs[f"{layer}_by_frequency"]
        assert output.shape == (1, tap["shape"][1] // 8, 768)
        assert tokens.shape == (1, tap["shape"][1] // 8, 8, 768)
        assert golden.worst_deviation(output, tap) <= 1e-4, layer
        assert golden.frame_deviation(tokens.flatten(1, 2), tap) <= 1e-4, layer
        if "freq_kept_strided8" in tap:
            vector = tokens[0].mean(dim=0).flatten()
            index = [int((k + 0.5) * tap["freq_kept_len"] / 8) for k in range(8)]
            np.testing.assert_allclose(vector[index], tap["freq_kept_strided8"], atol=1e-4)


def test_golden_fine_tuned_from_the_published_format(tensors, tmp_path):
    path = tmp_path / f"{FINE_TUNED}.pt"
    cfg = {**beats.SETTINGS, "finetuned_model": True, "predictor_class": 527, "dropout": 0.0}
    torch.save({"cfg": cfg, "model": tensors, "label_dict": {0: "/m/0dgw9r"}}, path)
    model = models.load(FINE_TUNED, checkpoint=path, device="cpu")
    expected = golden.golden("beats", f"golden_strong_{FINE_TUNED}.json")["2s"]
    (output,) = model.embed(golden.chirp(16_000, 2, 0)[None], layers=["tap_12"]).values()
    assert golden.worst_deviation(output, expected["taps"]["tap_12"]) <= 1e-4
    probabilities = model.network["predictor"](output).mean(dim=1).sigmoid()[0, :8]
    np.testing.assert_allclose(probabilities, expected["head_probs_first8"], atol=1e-5)


def test_batch_equals_alone(model):
    waves = [golden.chirp(16_000, *pair) for pair in ((2, 0), (1.1, 2), (2, 3), (0.2, 4))]
    layers = ["tap_0", "tap_6", "tap_12", "tap_12_by_frequency"]
    assert golden.batch_error(model, waves, layers) <= 1e-5


@pytest.mark.parametrize("budget", [1, 12 * 264 * 100])
def test_queries_in_blocks_change_nothing(model, monkeypatch, budget):
    wave = golden.chirp(16_000, 5.3 if budget > 1 else 0.5, 1)[None]
    whole = model.embed(wave, layers=["tap_12"])["tap_12"]
    monkeypatch.setattr(beats, "ATTENTION_BUDGET", budget)
    in_blocks = model.embed(wave, layers=["tap_12"])["tap_12"]
    torch.testing.assert_close(in_blocks, whole, rtol=0, atol=1e-5)


def test_position_buckets():
    def bucket(r):
        side, a = (160 if r > 0 else 0), abs(r)
        if a < 80:
            return side + a
        return side + min(159, 80 + math.trunc(math.log(a / 80) / math.log(800 / 80) * 80))

    offsets = torch.arange(-1500, 1501)
    found = beats._bucket(offsets).tolist()
    # On an exact power the float32 logarithm of the original may round to either side.
    differing = [r for r, b in zip(offsets.tolist(), found, strict=True) if b != bucket(r)]
    assert set(differing) <= {-800, 800}


def test_only_what_is_asked_for_is_computed(model, monkeypatch):
    def refuse(*args):
        raise AssertionError("computed a block too many")

    monkeypatch.setattr(model.network["encoder"]["layers"][2], "forward", refuse)
    wave = golden.chirp(16_000, 1, 0)[None]
    assert list(model.embed(wave, layers=["tap_0", "tap_2"])) == ["tap_0", "tap_2"]
    with pytest.raises(AssertionError):
        model.embed(wave, layers=["tap_3"])


def test_frames(model):
    assert model.frame_rate("tap_5") == pytest.approx(6.25)
    np.testing.assert_allclose(model.frame_times("tap_5", 2), [0.0875, 0.2475])
    assert model.embed(torch.ones(1, 2_800))["tap_12"].shape == (1, 1, 768)
    with pytest.raises(AudioError, match="2800"):
        model.embed(torch.ones(1, 2_799))


@pytest.mark.parametrize("name", MEMBERS)
def test_accounts_for_every_published_tensor(name):
    with torch.device("meta"):
        model = BEATs(models.card(name))
    assert not golden.disagreements(model, "beats", name)
    assert golden.shapes_on_meta(model) == {(2, 12, 768), (2, 12, 8, 768)}
    learned = [p for n, p in model.network.named_parameters() if not n.startswith("predictor")]
    assert sum(p.numel() for p in learned) == models.card(name).parameters


def test_wrong_tensors_are_named(unfilled):
    tensors = golden.placeholders("beats", "BEATs_iter3")
    name = "encoder.layers.7.fc1.weight"
    for wrong in (
        {n: t for n, t in tensors.items() if n != name},
        {**tensors, f"{name}.extra": torch.ones(1)},
        {**tensors, name: torch.ones(3072, 767)},
    ):
        with pytest.raises(WeightsError, match=name):
            weights.load_exactly(unfilled.network, unfilled.from_published(wrong))


def test_pretrained_and_fine_tuned_are_told_apart(unfilled, pretrained, tensors):
    with pytest.raises(WeightsError, match="unexpected: predictor"):
        weights.load_exactly(unfilled.network, tensors, unfilled.unused_tensors)
    with weights.parameters_unfilled():
        fine_tuned = BEATs(models.card(FINE_TUNED))
    with pytest.raises(WeightsError, match="missing: predictor"):
        weights.load_exactly(fine_tuned.network, pretrained, fine_tuned.unused_tensors)


def test_settings_in_the_file_must_agree(unfilled):
    unfilled.accept_settings({"cfg": {**beats.SETTINGS, "finetuned_model": False}})
    unfilled.accept_settings({})
    with pytest.raises(WeightsError, match="max_distance = 1280"):
        unfilled.accept_settings({"cfg": {**beats.SETTINGS, "max_distance": 1280}})


def test_differing_copies_of_the_position_bias(unfilled, pretrained):
    name = "encoder.layers.11.self_attn.relative_attention_bias.weight"
    tensors = {**pretrained, name: pretrained[name] + 1}
    with pytest.warns(WeightsNotice, match="relative_attention_bias"):
        renamed = unfilled.from_published(tensors)
    weights.load_exactly(unfilled.network, renamed)
    for block in unfilled.network["encoder"]["layers"]:
        torch.testing.assert_close(
            block.self_attn.relative_attention_bias.weight.data, tensors[name]
        )


def test_untrained():
    first, again = (models.load("BEATs_iter1", untrained=True, device="cpu") for _ in range(2))
    assert first.weights_sha256 == again.weights_sha256
    assert {norm.eps for norm in first.network.modules() if isinstance(norm, nn.LayerNorm)} == {
        1e-5
    }
    outputs = first.embed(golden.chirp(16_000, 1, 0)[None])
    assert all(0.1 < output.std() < 10 for output in outputs.values())
    assert all(p.is_cpu and not p.requires_grad for p in first.network.parameters())
