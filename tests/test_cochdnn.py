"""CochResNet50 and CochCNN9 against the originals' values, names and file format."""

import sys
import types

import golden
import pytest
import torch

from analysis_lib import models
from analysis_lib.errors import AudioError, WeightsError
from analysis_lib.models import registry, weights

MEMBERS = {
    f"braindnn_{network}_{task}": (family, "word" if task == "word" else "multihead")
    for network, family in (("resnet50", "cochresnet50"), ("kell2018", "cochcnn9"))
    for task in ("word", "speaker", "audioset", "word_speaker_audioset")
}


def needed(row):
    return not row["name"].startswith("attacker.")


def meta_model(name):
    card = models.card(name)
    with torch.device("meta"):
        return registry.family_class(card.family)(card)


def loaded_from_file(name, folder):
    family, member = MEMBERS[name]
    path = folder / "checkpoint.safetensors"
    golden.save_checkpoint(golden.strong_checkpoint(family, member, keep=needed), path)
    model = models.load(name, checkpoint=path, device="cpu")
    path.unlink()
    return model


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return loaded_from_file("braindnn_resnet50_word", tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def cnn9(tmp_path_factory):
    return loaded_from_file("braindnn_kell2018_word", tmp_path_factory.mktemp("cnn9"))


def assert_golden(model, taps, wave):
    output = model.embed(wave[None])
    assert list(output) == list(model.layers)
    for layer, tap in taps.items():
        if layer not in model.layers:
            continue
        # Published as (batch, channel, frequency, time).
        n_frames = tap["shape"][3] if len(tap["shape"]) == 4 else 1
        assert output[layer].shape[1] == n_frames
        assert output[layer][0, 0].numel() == torch.Size(tap["vector_shape"]).numel()
        assert golden.worst_deviation(output[layer], tap) < 1e-4, layer


@pytest.mark.parametrize("name", MEMBERS)
def test_every_published_tensor_has_its_place(name):
    assert golden.disagreements(meta_model(name), *MEMBERS[name]) == set()


@pytest.mark.parametrize("name", MEMBERS)
def test_card_counts_the_parameters_of_its_layers(name):
    model = meta_model(name)
    assert model.card.parameters == sum(p.numel() for p in model.network.parameters())


def test_golden_resnet(resnet):
    taps = golden.golden("cochresnet50", "golden_strong_word.json")["2s"]["taps"]
    assert_golden(resnet, taps, golden.chirp(20_000, 2, 0))


def test_golden_resnet_longer_sound(tmp_path):
    model = loaded_from_file("braindnn_resnet50_word_speaker_audioset", tmp_path)
    taps = golden.golden("cochresnet50", "golden_strong_multihead_5p3s_extension.json")
    assert_golden(model, taps["5.3s"]["taps"], golden.chirp(20_000, 5.3, 1))


def test_golden_cnn9(cnn9):
    taps = golden.golden("cochcnn9", "golden_strong_word.json")["2s"]["taps"]
    assert_golden(cnn9, taps, golden.chirp(20_000, 2, 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["braindnn_resnet50_speaker", "braindnn_kell2018_audioset"])
def test_golden_other_members(name, tmp_path):
    family, _ = MEMBERS[name]
    taps = golden.golden(family, "golden_strong_multihead.json")["2s"]["taps"]
    assert_golden(loaded_from_file(name, tmp_path), taps, golden.chirp(20_000, 2, 0))


def test_ragged_batch_equals_alone(resnet, cnn9):
    sounds = [golden.chirp(20_000, seconds, 1) for seconds in (0.8, 0.3, 0.8)]
    assert golden.batch_error(resnet, sounds) < 1e-5
    assert golden.batch_error(cnn9, sounds, layers=cnn9.layers[:-1]) < 1e-5
    two_seconds = [golden.chirp(20_000, 2, seed) for seed in (0, 1)]
    assert golden.batch_error(cnn9, two_seconds, layers=["relufc"]) < 1e-5


def test_level_does_not_matter(resnet):
    wave = golden.chirp(20_000, 0.5, 0)[None]
    loud, quiet = (resnet.embed(gain * wave, layers=["layer2"])["layer2"] for gain in (4, 0.01))
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-4)


def test_fixed_length_layer_says_what_to_do(cnn9):
    wave = golden.chirp(20_000, 1, 0)[None]
    with pytest.raises(AudioError, match=r"relufc.*2 s.*got 190 frames.*layers=\['relu0'"):
        cnn9.embed(wave)
    assert list(cnn9.embed(wave, layers=["relu4", "avgpool"])) == ["relu4", "avgpool"]


def test_later_layers_are_not_computed(resnet, monkeypatch):
    monkeypatch.setattr(resnet.network.layer2, "forward", None)
    assert list(resnet.embed(torch.randn(1, 4000), layers=["layer1"])) == ["layer1"]


@pytest.mark.parametrize(
    ("fixture", "layer", "seconds"),
    [
        ("resnet", "conv1_relu1", 1.0),
        ("resnet", "layer1", 1.0),
        ("resnet", "layer3", 1.0),
        ("cnn9", "relu0", 2.0),
        ("cnn9", "maxpool1", 2.0),
        ("cnn9", "avgpool", 2.0),
    ],
)
def test_frames_are_where_they_say(fixture, layer, seconds, request):
    """A click changes frames around its own time."""
    model = request.getfixturevalue(fixture)
    wave = 0.1 * torch.randn(int(seconds * 20_000), generator=torch.manual_seed(0))
    clicked = wave.clone()
    clicked[9000:9020] += 0.3
    change = model.embed(torch.stack([wave, clicked]), layers=[layer])[layer].diff(dim=0)[0]
    energy = change.double().flatten(1).square().sum(dim=1)
    times = model.frame_times(layer, len(energy))
    centre = ((times * energy).sum() / energy.sum()).item()
    assert centre == pytest.approx(0.4505, abs=max(0.01, 0.5 / model.frame_rate(layer)))


def test_padding_of_two_seconds_is_the_published_one(cnn9):
    # 390 frames: 11 zeros around conv0 (5 before), 3 around maxpool0 (1 before).
    step, first = cnn9._frame_grid("maxpool0")
    assert step == pytest.approx(6 / 200)
    assert first == pytest.approx(500.5 / 20_000 + (6.5 - 5 + 3 * (2 - 1)) / 200)


def test_published_file(resnet, tmp_path, monkeypatch):
    """A torch file as its authors wrote it: everything twice, and a schedule pickled by dill."""
    tensors = golden.strong_checkpoint("cochresnet50", "word", keep=needed)
    state = {}
    for name, placeholder in golden.placeholders("cochresnet50", "word").items():
        state[f"module.{name}"] = tensors.get(name.removeprefix("attacker."), placeholder)
    path = tmp_path / "5_checkpoint.pt"
    with monkeypatch.context() as patch:
        content = {
            "model": state,
            "epoch": 151,
            "nat_prec1": torch.tensor(60.0),
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []},
            "schedule": dilled_function(patch),
        }
        torch.save(content, path)
    model = models.load("braindnn_resnet50_word", checkpoint=path, device="cpu")
    assert model.weights_sha256 == resnet.weights_sha256


def dilled_function(patch):
    """Object that a pickle rebuilds by calling a function of dill, which is not installed."""
    module = types.ModuleType("dill._dill")

    def _create_function(*args):
        raise AssertionError("the checkpoint's bookkeeping was run")

    _create_function.__module__, _create_function.__qualname__ = "dill._dill", "_create_function"
    module._create_function = _create_function
    patch.setitem(sys.modules, "dill", types.ModuleType("dill"))
    patch.setitem(sys.modules, "dill._dill", module)

    class Schedule:
        def __reduce__(self):
            return _create_function, (b"code", {"rate": 0.1}), {"last_epoch": 3}

    return Schedule()


@pytest.mark.parametrize("name", ["braindnn_resnet50_speaker", "braindnn_kell2018_word"])
@pytest.mark.parametrize("problem", ["missing", "unexpected", "wrong shape"])
def test_a_tensor_out_of_place_is_named(name, problem):
    model = meta_model(name)
    tensors = golden.placeholders(*MEMBERS[name])
    culprit = "conv1.weight"
    if problem == "missing":
        del tensors[f"model.1.{culprit}"]
    elif problem == "unexpected":
        culprit = "conv1.bias"
        tensors[f"model.1.{culprit}"] = torch.zeros(64)
    else:
        tensors[f"model.1.{culprit}"] = torch.zeros(64, 3, 7, 7)
    with pytest.raises(WeightsError, match=f"{problem}: {culprit}"):
        weights.load_exactly(
            model.network, model.from_published(tensors), unused=model.unused_tensors
        )


def test_other_members_are_told_apart():
    model = meta_model("braindnn_resnet50_speaker")
    tensors = model.from_published(golden.placeholders("cochresnet50", "word"))
    with pytest.raises(WeightsError, match=r"unexpected: fc\.bias, fc\.weight"):
        weights.load_exactly(model.network, tensors, unused=model.unused_tensors)
    tensors = model.from_published(golden.placeholders("cochcnn9", "multihead"))
    with pytest.raises(WeightsError, match="checkpoint of another model"):
        weights.load_exactly(model.network, tensors, unused=model.unused_tensors)


def test_silence_is_finite(resnet):
    assert all(torch.isfinite(o).all() for o in resnet.embed(torch.zeros(1, 4000)).values())
