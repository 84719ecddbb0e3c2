"""Dasheng against the original's values."""

import golden
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from analysis_lib import models
from analysis_lib.errors import AudioError, WeightsError
from analysis_lib.models import weights
from analysis_lib.models.dasheng import Dasheng

MEMBERS = ["dasheng_base", "dasheng_06B", "dasheng_12B", "dasheng_base_ft-as"]
FINE_TUNED = MEMBERS[-1]
LENGTHS = {"2s": (2, 0), "5.3s": (5.3, 1), "25s": (25, 3)}


def built(name):
    with weights.parameters_unfilled():
        return Dasheng(models.card(name))


@pytest.fixture(scope="module")
def tensors():
    return golden.strong_checkpoint("dasheng", FINE_TUNED)


@pytest.fixture(scope="module")
def pretrained(tensors):
    return {name: t for name, t in tensors.items() if not name.startswith("outputlayer")}


@pytest.fixture(scope="module")
def model(pretrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("dasheng") / "dasheng_base.safetensors"
    golden.save_checkpoint(pretrained, path)
    yield models.load("dasheng_base", checkpoint=path, device="cpu")
    path.unlink()


def assert_golden(model, file, length):
    seconds, seed = LENGTHS[length]
    taps = golden.golden("dasheng", file)[length]["taps"]
    outputs = model.embed(
        golden.chirp(16_000, seconds, seed)[None], layers=(*model.layers, "final_norm")
    )
    for layer, output in outputs.items():
        assert list(output.shape) == taps[layer]["shape"]
        assert golden.worst_deviation(output, taps[layer]) <= 1e-4, layer
        assert golden.frame_deviation(output, taps[layer]) <= 1e-4, layer


@pytest.mark.parametrize("length", LENGTHS)
def test_golden(model, length):
    assert_golden(model, "golden_strong_dasheng_base.json", length)


@pytest.mark.slow
def test_golden_06B(tmp_path):  # noqa: N802
    tensors = golden.strong_checkpoint("dasheng", "dasheng_06B")
    path = golden.save_checkpoint(tensors, tmp_path / "06B.safetensors")
    del tensors
    model = models.load("dasheng_06B", checkpoint=path, device="cpu")
    path.unlink()
    for length in ("2s", "5.3s"):
        assert_golden(model, "golden_strong_dasheng_06B.json", length)


def test_normalised_spectrogram(model):
    block = golden.golden("dasheng", "golden_strong_dasheng_base.json")["2s"]["after_init_bn"]
    spectrogram = model.network.spectrogram(golden.chirp(16_000, 2, 0)[None])
    golden.assert_front_end(model.network.init_bn(spectrogram)[0].T, block, 2e-4)


def test_published_formats(model, tensors, pretrained, tmp_path):
    wave = golden.chirp(16_000, 1, 0)[None]
    expected = model.embed(wave)["block_11"]
    tables = {
        row["name"]: torch.zeros(row["shape"])
        for row in golden.manifest("dasheng", "dasheng_base")
        if row["name"].startswith("front_end")
    }
    counter = {"init_bn.1.num_batches_tracked": torch.tensor(7)}
    huggingface = tmp_path / "model.safetensors"
    golden.save_checkpoint({f"encoder.{name}": t for name, t in pretrained.items()}, huggingface)
    zenodo = tmp_path / "dasheng_base.pt"
    config = {"target_length": 1008, "n_mels": 64, "hop_size": 160, "embed_dim": 768}
    torch.save({"model": {**pretrained, **tables, **counter}, "config": config}, zenodo)
    tagging = tmp_path / "dasheng_audioset_mAP497.pt"
    torch.save({**tensors, **tables}, tagging)
    for name, path in (
        ("dasheng_base", huggingface),
        ("dasheng_base", zenodo),
        (FINE_TUNED, tagging),
    ):
        loaded = models.load(name, checkpoint=path, device="cpu")
        torch.testing.assert_close(loaded.embed(wave)["block_11"], expected)
        path.unlink()


def test_batch_equals_alone(model):
    pairs = ((2, 0), (1.1, 2), (2, 3), (10.5, 4))
    waves = [golden.chirp(16_000, *pair) for pair in pairs]
    waves.append(waves[0] * 1e-6)  # so quiet that a dynamic range shared with others would show
    assert golden.batch_error(model, waves, ["block_0", "block_11", "final_norm"]) <= 1e-5


def test_long_sounds_in_groups(model):
    wave = golden.chirp(16_000, 25, 3)[None]
    output = model.embed(wave, layers=["block_11"])["block_11"]
    network = model.network
    patches = network.patch_embed["proj"](network.init_bn(network.spectrogram(wave))[:, None])
    middle = patches[..., 252:504] + network.time_pos_embed + network.freq_pos_embed
    tokens = middle.flatten(2).transpose(1, 2)
    for block in network.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(output[:, 252:504], tokens)


def test_frames(model):
    assert model.frame_rate("block_3") == pytest.approx(25)
    np.testing.assert_allclose(model.frame_times("block_3", 2), [0.015, 0.055])
    assert model.embed(torch.randn(1, 480))["block_11"].shape == (1, 1, 768)
    with pytest.raises(AudioError, match="480"):
        model.embed(torch.randn(1, 479))


def test_only_what_is_asked_for_is_computed(model, monkeypatch):
    def refuse(*args):
        raise AssertionError("computed a block too many")

    monkeypatch.setattr(model.network.blocks[3], "forward", refuse)
    wave = golden.chirp(16_000, 1, 0)[None]
    assert list(model.embed(wave, layers=["block_2"])) == ["block_2"]
    for layer in ("block_3", "final_norm"):
        with pytest.raises(AssertionError):
            model.embed(wave, layers=[layer])


@pytest.mark.parametrize("name", MEMBERS)
def test_accounts_for_every_published_tensor(name):
    with torch.device("meta"):
        model = Dasheng(models.card(name))
    assert not golden.disagreements(model, "dasheng", name)
    assert golden.shapes_on_meta(model) == {(2, 50, model.card.options["width"])}
    learned = [p for n, p in model.network.named_parameters() if not n.startswith("outputlayer")]
    assert sum(p.numel() for p in learned) == models.card(name).parameters


def test_wrong_tensors_are_named():
    model = built("dasheng_base")
    tensors = golden.placeholders("dasheng", "dasheng_base")
    name = "blocks.7.attn.qkv.weight"
    for wrong in (
        {n: t for n, t in tensors.items() if n != name},
        {**tensors, f"{name}.extra": torch.ones(1)},
        {**tensors, name: torch.ones(2304, 767)},
    ):
        with pytest.raises(WeightsError, match=name):
            weights.load_exactly(model.network, model.from_published(wrong), model.unused_tensors)


def test_pretrained_and_fine_tuned_are_told_apart():
    for name, other, problem in (
        ("dasheng_base", FINE_TUNED, "unexpected: outputlayer"),
        (FINE_TUNED, "dasheng_base", "missing: outputlayer"),
        ("dasheng_06B", "dasheng_base", "missing: blocks.12"),
    ):
        model = built(name)
        tensors = model.from_published(golden.placeholders("dasheng", other))
        with pytest.raises(WeightsError, match=problem):
            weights.load_exactly(model.network, tensors, model.unused_tensors)


def test_settings_in_the_file_must_agree():
    model = built("dasheng_base")
    model.accept_settings({"config": {"depth": 12, "target_length": 1008, "dropout": 0.0}})
    with pytest.raises(WeightsError, match="hop_size = 320"):
        model.accept_settings({"config": {"hop_size": 320}})


@pytest.mark.parametrize("n_positions", [100, 252, 300])
def test_time_code_is_fitted(n_positions):
    model = built("dasheng_base")
    code = torch.randn(1, 768, 1, n_positions)
    fitted = model.from_published({"time_pos_embed": code})["time_pos_embed"]
    if n_positions >= 252:
        expected = code[..., :252]
    else:
        expected = F.interpolate(code[:, :, 0], 252, mode="linear")[:, :, None]
    torch.testing.assert_close(fitted, expected)


def test_untrained():
    first, again = (models.load("dasheng_base", untrained=True, device="cpu") for _ in range(2))
    assert first.weights_sha256 == again.weights_sha256
    network = first.network
    eps = {norm.eps for norm in network.modules() if isinstance(norm, nn.LayerNorm)}
    assert eps == {1e-6} and network.init_bn[1].eps == 1e-5
    assert built(FINE_TUNED).network.outputlayer[0].eps == 1e-5
    outputs = first.embed(golden.chirp(16_000, 1, 0)[None])
    assert all(0.01 < output.std() < 10 for output in outputs.values())
