"""VGGish against the original's values and names."""

import golden
import numpy as np
import pytest
import torch

from analysis_lib import models
from analysis_lib.errors import AudioError, WeightsError
from analysis_lib.models import registry, weights

NAME = "braindnn_vggish"


@pytest.fixture(scope="module")
def tensors():
    return golden.strong_checkpoint("vggish", "vggish")


@pytest.fixture(scope="module")
def model(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("vggish") / "checkpoint.safetensors"
    golden.save_checkpoint(tensors, path)
    model = models.load(NAME, checkpoint=path, device="cpu")
    path.unlink()
    return model


@pytest.fixture(scope="module")
def reference():
    return golden.golden("vggish", "golden_strong_vggish.json")


@pytest.fixture(scope="module")
def meta_model():
    with torch.device("meta"):
        return registry.family_class("VGGish")(models.card(NAME))


def test_every_published_tensor_has_its_place(meta_model):
    assert golden.disagreements(meta_model, "vggish", "vggish") == set()
    n_parameters = sum(p.numel() for p in meta_model.network.parameters())
    assert meta_model.card.parameters == n_parameters


@pytest.mark.parametrize(("length", "seconds", "seed"), [("2s", 2, 0), ("5.3s", 5.3, 1)])
def test_golden(model, reference, length, seconds, seed):
    wave = golden.chirp(16_000, seconds, seed)
    stage = reference[length]["front_end"]["log_mel_all_frames"]
    log_mel = model.network.front_end(wave[None])[0].double().numpy()
    assert list(log_mel.shape) == stage["shape"]
    np.testing.assert_allclose(log_mel.mean(), stage["mean"], atol=1e-4)
    flat = log_mel.ravel()
    np.testing.assert_allclose(flat[stage["strided_index_flat"]], stage["strided8_flat"], atol=1e-3)
    for layer, output in model.embed(wave[None]).items():
        assert golden.worst_deviation(output, reference[length]["taps"][layer]) < 1e-4, layer


def test_mel_filters_are_the_published_ones(model, reference):
    table = reference["mel_matrix_257x64"]
    filters = model.network.front_end.filters.double().numpy()
    assert list(filters.shape) == table["shape"]
    assert filters.mean() == pytest.approx(table["mean"], rel=1e-5)
    flat = filters.ravel()[table["strided_index_flat"]]
    np.testing.assert_allclose(flat, table["strided8_flat"], atol=1e-6)


def test_ragged_batch_equals_alone(model):
    sounds = [golden.chirp(16_000, seconds, 1) for seconds in (2, 1, 0.975)]
    assert golden.batch_error(model, sounds) < 1e-5


def test_frames_are_where_they_say(model):
    wave = 0.1 * torch.randn(48_000, generator=torch.manual_seed(0))
    clicked = wave.clone()
    clicked[23_000] += 2.0  # in the middle of the second of three patches
    for layer in ("ReLU_1", "MaxPool2d_2", "ReLU_6", "ReLU_9"):
        change = model.embed(torch.stack([wave, clicked]), layers=[layer])[layer].diff(dim=0)[0]
        energy = change.double().flatten(1).square().sum(dim=1)
        times = model.frame_times(layer, len(energy))
        centre = ((times * energy).sum() / energy.sum()).item()
        assert centre == pytest.approx(23_000 / 16_000, abs=0.02), layer


def test_later_layers_are_not_computed(model, monkeypatch):
    monkeypatch.setattr(model.network.features[8], "forward", None)
    assert list(model.embed(torch.randn(1, 16_000), layers=["ReLU_3"])) == ["ReLU_3"]


def test_less_than_a_patch_is_refused(model):
    with pytest.raises(AudioError, match=r"at least 15600 samples \(0\.975 s\)"):
        model.embed(torch.zeros(1, 15_599))
    assert all(torch.isfinite(o).all() for o in model.embed(torch.zeros(1, 15_600)).values())


def test_published_file(model, tensors, tmp_path):
    path = tmp_path / "vggish-10086976.pth"
    torch.save(tensors, path)
    loaded = models.load(NAME, checkpoint=path, device="cpu")
    assert loaded.weights_sha256 == model.weights_sha256


@pytest.mark.parametrize("problem", ["missing", "unexpected", "wrong shape"])
def test_a_tensor_out_of_place_is_named(meta_model, problem):
    tensors = golden.placeholders("vggish", "vggish")
    culprit = "embeddings.4.bias"
    if problem == "missing":
        del tensors[culprit]
    elif problem == "unexpected":
        culprit = "embeddings.6.bias"
        tensors[culprit] = torch.zeros(2)
    else:
        tensors[culprit] = torch.zeros(127)
    with pytest.raises(WeightsError, match=f"{problem}: {culprit}"):
        weights.load_exactly(meta_model.network, meta_model.from_published(tensors))
