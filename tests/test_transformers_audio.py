"""AST, wav2vec 2.0 and Speech2Text against the originals' values."""

import golden
import pytest
import torch
from published import TRANSFORMERS, assert_golden_alone_and_in_a_batch, click_time
from safetensors.torch import save_file

from analysis_lib import models
from analysis_lib.errors import AudioNotice, WeightsError


@pytest.fixture(scope="module", params=TRANSFORMERS, ids=lambda member: member.name)
def loaded(request):
    return request.param, request.param.load()


def test_golden_alone_and_in_a_ragged_batch(loaded):
    assert_golden_alone_and_in_a_batch(*loaded)


def test_a_layer_alone_is_the_same(loaded):
    _, model = loaded
    wave = golden.chirp(16_000, 0.5, 3)[None]
    chosen = [model.layers[0], model.layers[2]]
    every, some = model.embed(wave, layers=model.layers[:4]), model.embed(wave, layers=chosen)
    assert list(some) == chosen
    for layer in chosen:
        torch.testing.assert_close(some[layer], every[layer], rtol=0, atol=0)


def test_shortest_sound(loaded):
    _, model = loaded
    wave = golden.chirp(16_000, 0.5, 3)[None, : model.min_samples]
    assert model.embed(wave, layers=["Embedding"])["Embedding"].shape[1] >= 1


def test_frames_lie_where_the_model_says(loaded):
    member, model = loaded
    rate = {"braindnn_ast": 10, "braindnn_wav2vec2": 50, "braindnn_s2t": 25}[member.name]
    assert model.frame_rate("Embedding") == pytest.approx(rate)
    # The positional convolution of wav2vec 2.0 reaches over more than a second on either side.
    layer, seconds = (
        ("Embedding", 4.0) if member.name == "braindnn_wav2vec2" else ("Embedding", 1.0)
    )
    at = 2.4 if seconds == 4 else 0.6
    assert click_time(model, layer, seconds, at) == pytest.approx(at, abs=0.5 / rate)


def test_ast_sees_ten_seconds():
    model = models.load("braindnn_ast", untrained=True, device="cpu")
    wave = golden.chirp(16_000, 12, 3)[None]
    with pytest.warns(AudioNotice, match=r"first 10\.24 s"):
        long = model.embed(wave, layers=["Embedding"])["Embedding"]
    short = model.embed(wave[:, : model.max_samples], layers=["Embedding"])["Embedding"]
    torch.testing.assert_close(long, short, rtol=0, atol=0)
    assert model.frame_rate("Final") == 0


def test_hub_names_of_the_positional_convolution(tmp_path):
    """The Hub's file calls the two factors of the weight g and v."""
    member = TRANSFORMERS[1]
    published = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in member.meta_checkpoint().items()
    }
    model = member.meta_model()
    assert model.network.state_dict().keys() <= model.from_published(published).keys()


def test_checkpoint_of_another_family_is_refused(tmp_path):
    save_file({"linear1.weight": torch.zeros(300, 400)}, tmp_path / "enhance_model.safetensors")
    with pytest.raises(WeightsError, match="unexpected: linear1.weight"):
        models.load("braindnn_s2t", checkpoint=tmp_path / "enhance_model.safetensors")
