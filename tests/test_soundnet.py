"""SoundNet against the original's values, names and file formats."""

import golden
import numpy as np
import pytest
import torch

from analysis_lib import models
from analysis_lib.errors import AudioError, WeightsError
from analysis_lib.models import registry
from analysis_lib.models.taps import take_layers

POOLED = {"conv1", "conv2", "conv5"}


@pytest.fixture(scope="module")
def tensors():
    return golden.strong_checkpoint("soundnet", "soundnet8")


@pytest.fixture(scope="module")
def model(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("soundnet") / "checkpoint.safetensors"
    golden.save_checkpoint(tensors, path)
    return models.load("soundnet", checkpoint=path, device="cpu")


def tap_of(taps, layer):
    """Golden entry of a block's output: after its pooling, where it pools."""
    if layer.startswith("conv8"):
        return taps[layer]
    return taps[f"{layer}_{'pool' if layer in POOLED else 'relu'}"]


@pytest.mark.parametrize(
    ("length", "seconds", "seed"), [("2s", 2, 0), ("5.3s", 5.3, 1), ("13s", 13, 2)]
)
def test_golden(model, length, seconds, seed):
    taps = golden.golden("soundnet", "golden_strong_soundnet8.json")[length]["taps"]
    layers = model.layers + (model.extra_layers if length == "13s" else ())
    output = model.embed(golden.chirp(22_050, seconds, seed)[None], layers=layers)
    assert list(output) == list(layers)
    for layer, values in output.items():
        tap = tap_of(taps, layer)
        assert list(values.shape) == [1, tap["shape"][2], tap["shape"][1]]
        assert golden.worst_deviation(values, tap) < 1e-4, layer


def test_every_published_tensor_has_its_place():
    with torch.device("meta"):
        model = registry.family_class("SoundNet")(models.card("soundnet"))
    assert golden.disagreements(model, "soundnet", "soundnet8") == set()
    blocks = [p for name, p in model.network.named_parameters() if not name.startswith("conv8")]
    assert sum(p.numel() for p in blocks) == model.card.parameters == 2_874_320


def test_frames_lie_where_the_strides_put_them(model):
    """Frame centres in samples: conv4 at 1024 k - 273.5, conv7 at 32768 k - 10001.5."""
    for layer, step, first in (("conv4", 1024, -273.5), ("conv7", 32_768, -10_001.5)):
        samples = model.frame_times(layer, 3) * 22_050
        torch.testing.assert_close(samples, first + step * torch.arange(3, dtype=torch.float64))
        # Pooling passes on the gradient of one sample: several sounds together touch all.
        waves = torch.randn(4, 10 * step, generator=torch.manual_seed(0), requires_grad=True)
        output = take_layers(model.network.stages(waves), [layer])[layer]
        output[:, :, 5].sum().backward()
        touched = waves.grad.abs().sum(dim=0).nonzero()
        centre = (touched[0] + touched[-1]).item() / 2
        assert centre == pytest.approx(first + step * 5, abs=step / 100)


def test_ragged_batch_equals_alone(model):
    sounds = [golden.chirp(22_050, seconds, 1) for seconds in (2, 0.21, 1.4, 2)]
    assert golden.batch_error(model, sounds) < 1e-5


def test_input_scale_is_an_option(model):
    wave = golden.chirp(22_050, 1, 0)[None]
    conv1 = next(output for _, output in model.network.stages(256 * wave))
    torch.testing.assert_close(model.embed(wave)["conv1"], conv1.transpose(1, 2))
    assert model.card.options["input_scale"] == 256


def test_categories_need_long_sounds(model):
    shortest = torch.randn(1, 209_374, generator=torch.manual_seed(0))
    output = model.embed(shortest, layers=["conv8", "conv8_2"])
    assert [tuple(o.shape) for o in output.values()] == [(1, 1, 1000), (1, 1, 401)]
    with pytest.raises(AudioError, match=r"'conv8_2' needs at least 209,374 samples"):
        model.embed(shortest[:, 1:], layers=["conv7", "conv8_2"])


def test_shortest_sound(model):
    assert model.embed(torch.randn(1, 4574))["conv7"].shape == (1, 1, 1024)
    with pytest.raises(AudioError, match="at least 4574 samples"):
        model.embed(torch.randn(1, 4573))


def test_published_torch_file(model, tensors, tmp_path):
    counters = {f"conv{i}.1.num_batches_tracked": torch.tensor(100.0) for i in range(1, 8)}
    torch.save({**tensors, **counters}, tmp_path / "sound8.pth")
    loaded = models.load("soundnet", checkpoint=tmp_path / "sound8.pth", device="cpu")
    wave = golden.chirp(22_050, 1, 0)[None]
    assert torch.equal(loaded.embed(wave)["conv7"], model.embed(wave)["conv7"])


def test_published_numpy_file(model, tensors, tmp_path):
    """Layer by layer, kernels as (time, 1, in, out)."""
    names = {"0.weight": "weights", "0.bias": "biases", "1.weight": "gamma", "1.bias": "beta",
             "1.running_mean": "mean", "1.running_var": "var"}  # fmt: skip
    layers = {}
    for name, tensor in tensors.items():
        layer, _, part = name.partition(".")
        array = tensor.numpy()
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        layers.setdefault(layer, {})[names[part]] = array
    np.save(tmp_path / "sound8.npy", layers)
    loaded = models.load("soundnet", checkpoint=tmp_path / "sound8.npy", device="cpu")
    assert loaded.weights_sha256 == model.weights_sha256


@pytest.mark.parametrize("problem", ["missing", "unexpected", "wrong shape"])
def test_a_tensor_out_of_place_is_named(tensors, tmp_path, problem):
    changed, culprit = dict(tensors), "conv3.1.running_var"
    if problem == "missing":
        del changed[culprit]
    elif problem == "unexpected":
        culprit = "conv9.0.weight"
        changed[culprit] = torch.ones(2)
    else:
        changed[culprit] = torch.ones(65)
    path = golden.save_checkpoint(changed, tmp_path / "sound8.safetensors")
    with pytest.raises(WeightsError, match=f"{problem}: {culprit}"):
        models.load("soundnet", checkpoint=path, device="cpu")
