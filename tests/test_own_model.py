"""A newcomer's model, and the ways in which one can be unclear."""

import golden
import pytest
import torch
from published import click_time

from analysis_lib import models
from analysis_lib.errors import AudioError, MissingDataError, ParameterError, UnknownNameError

TEN_LINES = """\
import torch
from torch import nn


def my_model():
    model = nn.Sequential(
        nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 8, 400, stride=160), nn.ReLU(), nn.Conv1d(8, 16, 3)
    )
    model.sample_rate = 16_000
    return model
"""

NETWORK = """\
import torch
from torch import nn


class Network(nn.Module):
    sample_rate = 8000

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv1d(1, 6, 64, stride=32)
        self.image = nn.Conv2d(1, 3, 3, padding=1)
        self.drop = nn.Dropout()
        self.memory = nn.LSTM(6, 5)
        self.attention = nn.Softmax(dim=-1)
        self.summary = nn.Linear(5, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.drop(self.filters(x[:, None]))  # (batch, unit, frame)
        self.image(x[:, None])  # (batch, channel, frequency, frame)
        out, _ = self.memory(x.permute(2, 0, 1))  # (frame, batch, unit)
        out = out.transpose(0, 1)
        if self.with_attention:
            out = self.attention(out @ out.mT) @ out  # (batch, frame, frame)
        return self.summary(out.mean(dim=1))  # (batch, unit)

    with_attention = False


def plain():
    return Network()


def attentive():
    network = Network()
    network.with_attention = True
    return network


def declared():
    network = attentive()
    network.layers = {"filter bank": "filters", "weights": "attention"}
    network.frame_axis = {"weights": 1}
    return network


def wrong_name():
    network = Network()
    network.layers = ["filtres"]
    return network


def never_used():
    network = Network()
    network.layers = ["unused"]
    return network


def without_rate():
    return nn.Linear(2, 2)


def not_a_module():
    return 3
"""

HEAR = """\
import torch


class Model(torch.nn.Module):
    sample_rate, scene_embedding_size, timestamp_embedding_size = 16000, 4, 4

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Linear(800, 4)


def load_model(model_file_path=""):
    return Model()


def get_timestamp_embeddings(audio, model):
    frames = audio.unfold(1, 800, 400)
    times = 25.0 + 25.0 * torch.arange(frames.shape[1])
    return model.project(frames), times.expand(len(audio), -1)


def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(dim=1)
"""


@pytest.fixture
def file(tmp_path):
    def write(code):
        path = tmp_path / "my_model.py"
        path.write_text(code)
        return path

    return write


def test_ten_lines_make_a_model(file):
    assert len(TEN_LINES.splitlines()) <= 10
    name = f"{file(TEN_LINES)}:my_model"
    model = models.load(name, device="cpu")
    assert model.layers == ("0", "1", "2", "3")
    wave = golden.chirp(16_000, 0.5, 1)[None]
    outputs = model.embed(wave, layers=["1", "3"])
    x = model.network[:2](wave)
    torch.testing.assert_close(outputs["1"], x.transpose(1, 2), rtol=0, atol=0)
    torch.testing.assert_close(outputs["3"], model.network[2:](x).mT, rtol=0, atol=0)
    assert model.frame_rate("3") == pytest.approx(100)
    # Frames of a window of 400 samples every 160; the last layer sees three of them.
    assert model.frame_times("1", 2).tolist() == pytest.approx([199.5 / 16e3, 359.5 / 16e3])
    assert model.frame_times("3", 1).item() == pytest.approx(359.5 / 16e3)
    assert click_time(model, "3") == pytest.approx(0.6, abs=0.005)
    card = models.card(name)
    assert (card.sample_rate, card.parameters) == (16_000, 8 * 401 + 16 * 25)


def test_axes_are_found(file):
    model = models.load(f"{file(NETWORK)}:plain", device="cpu")
    assert model.layers == ("filters", "image", "memory", "summary")
    waves = torch.stack([golden.chirp(8000, 0.5, seed) for seed in range(4)])
    shapes = {layer: tuple(values.shape) for layer, values in model.embed(waves).items()}
    n_frames = (4000 - 64) // 32 + 1
    assert shapes == {
        "filters": (4, n_frames, 6),
        "image": (4, n_frames, 3, 6),
        "memory": (4, n_frames, 5),
        "summary": (4, 1, 4),
    }
    assert model.frame_rate("memory") == pytest.approx(250)
    assert model.frame_rate("summary") == 0


def test_a_sound_in_a_ragged_batch_is_as_alone(file):
    model = models.load(f"{file(NETWORK)}:plain", device="cpu")
    waves = [golden.chirp(8000, seconds, 1) for seconds in (0.4, 0.61)]
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    together = model.embed(padded, lengths=[len(wave) for wave in waves])
    for row, wave in enumerate(waves):
        for layer, alone in model.embed(wave[None]).items():
            ours = together[layer][row, : alone.shape[1]]
            torch.testing.assert_close(ours, alone[0], rtol=0, atol=1e-5)


def test_what_is_ambiguous_is_asked_and_what_is_declared_is_done(file):
    path = file(NETWORK)
    with pytest.raises(ParameterError, match=r"'attention'.*which axis is time.*frame_axis"):
        models.load(f"{path}:attentive", device="cpu")
    model = models.load(f"{path}:declared", device="cpu")
    assert model.layers == ("filter bank", "weights")
    weights = model.embed(golden.chirp(8000, 0.5, 1)[None])["weights"]
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 124))


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("wrong_name", UnknownNameError, "'filters'"),
        ("never_used", ParameterError, "'unused' did not give one tensor"),
        ("without_rate", ParameterError, "sample_rate"),
        ("not_a_module", ParameterError, "int, not a torch.nn.Module"),
        ("plian", UnknownNameError, "'plain'"),
    ],
)
def test_mistakes_are_explained(file, function, error, message):
    with pytest.raises(error, match=message):
        models.load(f"{file(NETWORK)}:{function}", device="cpu")


def test_missing_file_and_impossible_requests(file, tmp_path):
    with pytest.raises(MissingDataError, match="nowhere.py"):
        models.load(f"{tmp_path}/nowhere.py:model")
    path = file(TEN_LINES)
    with pytest.raises(ParameterError, match="second function"):
        models.load(f"{path}:my_model", untrained=True)
    with pytest.raises(ParameterError, match="takes no checkpoint"):
        models.load(f"{path}:my_model", checkpoint=path)
    model = models.load(f"{path}:my_model", device="cpu")
    with pytest.raises(AudioError, match="could not run on 100 samples"):
        model.embed(torch.randn(1, 100))


def test_identity_notices_code_and_weights(file):
    path = file(TEN_LINES)
    first = models.load(f"{path}:my_model", device="cpu").identity
    assert models.load(f"{path}:my_model", device="cpu").identity == first
    other_weights = models.load(f"{path}:my_model", device="cpu", seed=1).identity
    assert other_weights["weights_sha256"] != first["weights_sha256"]
    file(TEN_LINES + "# changed\n")
    changed = models.load(f"{path}:my_model", device="cpu").identity
    assert changed["weights_sha256"] == first["weights_sha256"]
    assert changed["source_sha256"] != first["source_sha256"]


def test_hear_api(file):
    model = models.load(f"{file(HEAR)}:load_model", device="cpu")
    assert model.layers == ("timestamp",)
    wave = golden.chirp(16_000, 0.5, 1)[None]
    values = model.embed(wave)["timestamp"]
    torch.testing.assert_close(values, model.network.project(wave.unfold(1, 800, 400)))
    assert model.frame_rate("timestamp") == pytest.approx(40)
    assert model.frame_times("timestamp", 2).tolist() == pytest.approx([0.025, 0.05])


def test_neighbouring_files_can_be_imported(file, tmp_path):
    (tmp_path / "my_parts.py").write_text(TEN_LINES)
    model = models.load(f"{file('from my_parts import my_model')}:my_model", device="cpu")
    assert model.sample_rate == 16_000
