"""The untrained network: deterministic, alive, and causal about its frames."""

import dataclasses

import golden
import pytest
import torch
from torch.nn import functional

from analysis_lib import models
from analysis_lib.errors import AudioError
from analysis_lib.models.small_cnn import SmallCNN


@pytest.fixture(scope="module")
def model():
    return models.load("small-cnn", device="cpu")


@pytest.mark.parametrize("name", ["small-cnn", "small-cnn-wide", "small-cnn-shallow"])
def test_card_counts_its_parameters(name):
    model = models.load(name, device="cpu")
    assert model.card.parameters == sum(p.numel() for p in model.network.parameters())


def test_equals_the_formulas(model):
    wave = golden.chirp(16_000, 1, 0)[None]
    x = model.network.front_end(wave)
    x = ((x - x.mean()) / x.std(correction=0))[:, None]
    output = model.embed(wave)
    for number in range(1, 6):
        weight = model.network.state_dict()[f"blocks.{number - 1}.0.weight"]
        x = functional.relu(functional.conv2d(x, weight, stride=2, padding=1) / (1 + 1e-5) ** 0.5)
        torch.testing.assert_close(output[f"conv{number}"], x.transpose(1, 2), rtol=1e-3, atol=2e-3)


def test_the_seed_decides(model):
    wave = golden.chirp(16_000, 0.5, 0)[None]
    again, other = (models.load("small-cnn", device="cpu", seed=seed) for seed in (0, 1))
    assert model.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert torch.equal(model.embed(wave)["conv5"], again.embed(wave)["conv5"])


def test_every_layer_tells_sounds_apart(model):
    sounds = torch.stack([golden.chirp(16_000, 2, 0), 0.1 * torch.randn(32_000)])
    for layer, output in model.embed(sounds).items():
        one, other = output.mean(dim=1).flatten(1)
        assert one.numel() == 512
        assert 0.2 < (output > 0).float().mean() < 0.8
        assert (one - other).norm() > 0.1 * one.norm(), layer


def test_layers_not_wanted_are_not_computed(model, monkeypatch):
    monkeypatch.setattr(model.network.blocks[2], "forward", None)
    assert list(model.embed(torch.randn(1, 8000), layers=["conv2"])) == ["conv2"]


def test_ragged_batch_equals_alone(model):
    sounds = [golden.chirp(16_000, seconds, 1) for seconds in (0.9, 0.025, 0.4)]
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    together = model.embed(padded, [len(s) for s in sounds])
    for row, sound in enumerate(sounds):
        for layer, alone in model.embed(sound[None]).items():
            output = together[layer][row, : alone.shape[1]]
            torch.testing.assert_close(output, alone[0], rtol=1e-5, atol=1e-5)


def test_width_and_depth_are_options(model):
    card = dataclasses.replace(
        model.card, layers=("conv1", "conv2"), options={"widths": [3, 7], "n_mels": 32}
    )
    outputs = SmallCNN(card).embed(torch.randn(1, 16_000))
    assert [tuple(o.shape) for o in outputs.values()] == [(1, 49, 3, 16), (1, 25, 7, 8)]


def test_frames_follow_an_onset(model):
    wave = torch.zeros(1, 16_000)
    wave[0, 8000:] = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    for layer, output in model.embed(wave).items():
        change = output[0].flatten(1).diff(dim=0).norm(dim=1)
        step = 1 / model.frame_rate(layer)
        # The change from frame k to k + 1 lies half a step after frame k.
        at = model.frame_times(layer, len(change))[change.argmax()] + step / 2
        assert at == pytest.approx(0.5, abs=step + 0.0125)


def test_short_and_silent_sounds(model):
    assert torch.isfinite(model.embed(torch.zeros(1, 400))["conv5"]).all()
    with pytest.raises(AudioError, match="at least 400 samples"):
        model.embed(torch.zeros(1, 399))
