"""DeepSpeech2, DCASE 2020, SepFormer, MetricGAN+ and ZeroSpeech against their originals."""

import re
import sys
import types

import golden
import pytest
import torch
from published import (
    RECURRENT,
    TRANSFORMERS,
    assert_golden_alone_and_in_a_batch,
    click_time,
)
from safetensors.torch import save_file

from analysis_lib import models
from analysis_lib.errors import AudioError, WeightsError
from analysis_lib.models import checkpoints, weights
from analysis_lib.models.sepformer import chunked, positions

ALL = RECURRENT + TRANSFORMERS
BY_NAME = {member.name: member for member in ALL}


def _marked(member):
    """SepFormer computes for ten seconds and more."""
    slow = [pytest.mark.slow] if member.name == "braindnn_sepformer" else []
    return pytest.param(member, marks=slow, id=member.name)


@pytest.fixture(scope="module", params=map(_marked, RECURRENT))
def loaded(request):
    return request.param, request.param.load()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "cache"))


def test_golden_alone_and_in_a_ragged_batch(loaded):
    assert_golden_alone_and_in_a_batch(*loaded)


def test_layers_can_be_asked_for_one_at_a_time(loaded):
    _, model = loaded
    wave = golden.chirp(model.sample_rate, 0.5, 3)[None]
    every = model.embed(wave)
    for layer in (model.layers[0], model.layers[1]):
        (only,) = model.embed(wave, layers=[layer]).items()
        assert only[0] == layer
        torch.testing.assert_close(only[1], every[layer], rtol=0, atol=0)


def test_shortest_sound(loaded):
    _, model = loaded
    model.embed(golden.chirp(model.sample_rate, 1, 3)[None, : model.min_samples])
    if model.min_samples > 1:
        with pytest.raises(AudioError, match=f"at least {model.min_samples} samples"):
            model.embed(golden.chirp(model.sample_rate, 1, 3)[None, : model.min_samples - 1])


@pytest.mark.parametrize(
    ("name", "layer", "rate", "tolerance"),
    [
        ("braindnn_deepspeech", "Tanh_1", 50, 0.01),
        ("braindnn_deepspeech", "Tanh_2", 50, 0.01),
        ("braindnn_zerospeech", "ReLU_1", 100, 0.005),
        ("braindnn_zerospeech", "ReLU_5", 50, 0.01),
        ("braindnn_sepformer", "Embedding", 1000, 0.001),
        ("braindnn_metricgan", "Linear_1", 62.5, 0.01),
    ],
)
def test_frames_lie_where_the_model_says(name, layer, rate, tolerance):
    model = models.load(name, untrained=True, device="cpu")
    assert model.frame_rate(layer) == pytest.approx(rate)
    assert click_time(model, layer) == pytest.approx(0.6, abs=tolerance)


def test_layers_without_time_have_one_frame():
    model = models.load("braindnn_dcase2020", untrained=True, device="cpu")
    for layer, output in model.embed(golden.chirp(44_100, 0.3, 1)[None]).items():
        assert output.shape[1] == 1 and model.frame_rate(layer) == 0


# -- published files ----------------------------------------------------------------------


@pytest.mark.parametrize("member", ALL, ids=lambda member: member.name)
def test_every_published_tensor_has_its_place(member):
    model = member.meta_model()
    published = model.from_published(member.meta_checkpoint())
    network = model.network.state_dict()
    assert {name: published[name].shape for name in network} == {
        name: tensor.shape for name, tensor in network.items()
    }
    unused = [
        name
        for name in published
        if any(re.fullmatch(pattern, name) for pattern in model.unused_tensors)
    ]
    assert sorted([*network, *unused]) == sorted(published)


@pytest.mark.parametrize("member", ALL, ids=lambda member: member.name)
def test_card_counts_the_parameters(member):
    model = member.meta_model()
    n = sum(parameter.numel() for parameter in model.network.parameters())
    assert models.card(member.name).parameters == n


@pytest.mark.parametrize("member", ALL, ids=lambda member: member.name)
@pytest.mark.parametrize("damage", ["missing", "unexpected", "wrong shape"])
def test_a_tensor_that_does_not_fit_is_named(member, damage):
    model = member.meta_model()
    published = model.from_published(member.meta_checkpoint())
    *_, name = (key for key in model.network.state_dict() if key.endswith("weight"))
    if damage == "missing":
        del published[name]
    elif damage == "unexpected":
        name = name + "_of_something_else"
        published[name] = torch.empty(3, device="meta")
    else:
        published[name] = torch.empty(7, 5, 3, device="meta")
    with pytest.raises(WeightsError, match=f"{damage}: {re.escape(name)}"):
        weights.load_exactly(model.network, published, model.unused_tensors)


def test_file_with_a_missing_tensor_is_refused(tmp_path):
    tensors = BY_NAME["braindnn_metricgan"].checkpoint()
    del tensors["linear2.bias"]
    save_file(tensors, tmp_path / "enhance_model.safetensors")
    with pytest.raises(WeightsError, match="missing: linear2.bias"):
        models.load("braindnn_metricgan", checkpoint=tmp_path / "enhance_model.safetensors")


def small_checkpoint(name):
    """Published tensors without the large parts that the layers do not need."""
    return BY_NAME[name].checkpoint()


def assert_loads(name, path, tensors):
    model = models.load(name, checkpoint=path, device="cpu")
    for key, value in model.network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, tensors[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("braindnn_dcase2020", "dcase_model_baseline_pre_trained.pt"),
        ("braindnn_metricgan", "enhance_model.ckpt"),
    ],
)
def test_plain_torch_file(name, file, tmp_path):
    tensors = small_checkpoint(name)
    torch.save(tensors, tmp_path / file)
    assert_loads(name, tmp_path / file, tensors)


def test_zerospeech_file_holds_parts_and_optimiser(tmp_path):
    tensors = small_checkpoint("braindnn_zerospeech")
    parts = {"encoder": {}, "decoder": {}}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    state = {0: {"step": 500_000, "exp_avg": torch.ones(3)}}
    parts |= {"optimizer": {"state": state, "param_groups": [{"lr": 4e-4}]}, "step": 500_000}
    torch.save(parts, tmp_path / "model.ckpt-500000.pt")
    assert_loads("braindnn_zerospeech", tmp_path / "model.ckpt-500000.pt", tensors)


def test_sepformer_folder_holds_a_file_per_part(tmp_path):
    tensors = small_checkpoint("braindnn_sepformer")
    for part in ("encoder", "masknet", "decoder"):
        inner = {
            name.removeprefix(f"{part}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{part}.")
        }
        torch.save(inner, tmp_path / f"{part}.ckpt")
    assert_loads("braindnn_sepformer", tmp_path, tensors)


def test_deepspeech_file_holds_settings_of_other_packages(tmp_path, monkeypatch):
    """A Lightning checkpoint whose hyper-parameters are objects we neither have nor build."""
    for package, names in {
        "omegaconf": [],
        "omegaconf.dictconfig": ["DictConfig"],
        "deepspeech_pytorch": [],
        "deepspeech_pytorch.enums": ["SpectrogramWindow"],
    }.items():
        module = types.ModuleType(package)
        for name in names:
            setattr(module, name, type(name, (), {"__module__": package}))
        monkeypatch.setitem(sys.modules, package, module)
    config = sys.modules["omegaconf.dictconfig"].DictConfig()
    config.window = sys.modules["deepspeech_pytorch.enums"].SpectrogramWindow()
    config.kind = int
    tensors = small_checkpoint("braindnn_deepspeech")
    path = tmp_path / "librispeech_pretrained_v3.ckpt"
    torch.save({"state_dict": tensors, "hyper_parameters": {"model_cfg": config}}, path)
    monkeypatch.undo()
    monkeypatch.setenv("BRAINBOOK_CACHE", str(tmp_path / "cache"))
    assert_loads("braindnn_deepspeech", path, tensors)


def test_folders_of_checkpoints(tmp_path):
    tensors = {"a.weight": torch.ones(2), "b.weight": torch.zeros(3)}
    whole, shards, pickled, empty = (tmp_path / name for name in "wspe")
    for folder in (whole, shards, pickled, empty):
        folder.mkdir()
    save_file(tensors, whole / "model.safetensors")
    for index, (name, tensor) in enumerate(tensors.items(), start=1):
        save_file({name: tensor}, shards / f"model-0000{index}-of-00002.safetensors")
    torch.save(tensors, pickled / "pytorch_model.bin")
    for folder in (whole, shards, pickled):
        read = checkpoints.read_checkpoint(folder)
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    with pytest.raises(WeightsError, match="neither model.safetensors"):
        checkpoints.read_checkpoint(empty)


# -- parts with an independent account ----------------------------------------------------


def test_deepspeech_spectrogram_is_standardised():
    model = models.load("braindnn_deepspeech", untrained=True, device="cpu")
    spectrogram = model.spectrogram(golden.chirp(16_000, 1.003, 1)[None])
    assert spectrogram.shape == (1, 161, 1 + 16_048 // 160)
    assert spectrogram.mean().abs() < 1e-5
    assert spectrogram.std().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "front_end", "value"),
    [
        ("braindnn_dcase2020", "log_mel", "log_mel"),
        ("braindnn_zerospeech", "log_mel", "log_mel"),
        ("braindnn_deepspeech", "spectrogram", "normalised"),
        ("braindnn_metricgan", "spectrogram", "log1p_magnitude"),
        ("braindnn_ast", "log_mel", "input_values_(1,1024,128)"),
        ("braindnn_s2t", "log_mel", "input_features"),
    ],
)
@pytest.mark.parametrize("length", ["2s", "5.3s"])
def test_golden_front_end(name, front_end, value, length):
    member = BY_NAME[name]
    file = golden.golden(member.family, f"golden_strong_{member.member}.json")
    expected = file[length]["front_end"][value]
    with weights.parameters_unfilled():
        entry = models.card(name)
        model = models.registry.family_class(entry.family)(entry)
    values = getattr(model, front_end)(member.waveform(length)[None]).double().flatten().numpy()
    scale = expected["std"]
    assert abs(values.mean() - expected["mean"]) < 1e-5 * scale
    assert abs(values.std() - expected["std"]) < 1e-5 * scale
    assert abs(values[:8] - expected["first8_flat"]).max() < 1e-4 * scale
    assert abs(values[expected["strided_index_flat"]] - expected["strided8_flat"]).max() < 1e-4


@pytest.mark.parametrize("n_frames", [1, 124, 125, 126, 249, 250, 1999])
def test_sepformer_chunks_hold_every_frame_twice(n_frames):
    x = torch.arange(1.0, n_frames + 1)[None, :, None]
    chunks = chunked(x)
    assert chunks.shape[1] % 2 == 0 and chunks.shape[2:] == (250, 1)
    counts = torch.bincount(chunks.flatten().long(), minlength=n_frames + 1)
    assert (counts[1:] == 2).all()


def test_sepformer_positions_are_the_published_table():
    table = golden.golden("sepformer", "golden_strong_sepformer-whamr.json")["pos_enc"]
    ours = positions(2500, torch.empty(0)).flatten()
    torch.testing.assert_close(
        ours[table["strided_index_flat"]], torch.tensor(table["strided8_flat"]), rtol=0, atol=1e-4
    )
