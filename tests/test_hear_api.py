import subprocess
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from analysis_lib import hear_api, models
from analysis_lib.errors import ParameterError, UnknownNameError

LIGHT = ["log-mel", "mfcc", "small-cnn"]


@pytest.mark.parametrize("name", LIGHT)
def test_models_are_accepted_and_their_timestamps_are_true(name):
    report = hear_api.validate(hear_api.hear_module(name))
    assert report.ok, str(report)
    assert report.measured["rate"] == pytest.approx(1, abs=0.02)
    assert abs(report.measured["offset_ms"]) < 0.5 * report.measured["hop_ms"] + 2


def wrapped(name, change):
    """HEAR module of a model whose output is changed."""
    module = hear_api.hear_module(name)

    def embed(audio, model):
        return change(*hear_api.get_timestamp_embeddings(audio, model))

    return SimpleNamespace(
        load_model=module.load_model,
        get_scene_embeddings=module.get_scene_embeddings,
        get_timestamp_embeddings=embed,
    )


@pytest.mark.parametrize("factor", [1 / 1.17, 0.83, 0.9])
def test_wrong_hop_is_refused(factor):
    report = hear_api.validate(wrapped("small-cnn", lambda e, t: (e, factor * t)))
    assert not report.ok and "timestamps are wrong" in report.errors[0]
    assert report.measured["rate"] == pytest.approx(factor, abs=0.02)


def test_frames_left_out_without_telling_are_refused():
    """As in a published wrapper: the first five frames dropped, times counted from zero."""
    report = hear_api.validate(wrapped("small-cnn", lambda e, t: (e[:, 5:], t[:, :-5])))
    assert not report.ok and "ms off" in report.errors[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda e, t: (e.double(), t), "float32"),
        (lambda e, t: (e, t[:, :-1]), "shape"),
        (lambda e, t: (e, t * t / t[:, -1:]), "varies"),
        (lambda e, t: (e, 2 * t), "run from"),
        (lambda e, t: (e[..., :-1], t), "shape"),
        (lambda e, t: (e / 0, t), "finite"),
    ],
)
def test_breaches_of_the_api_are_refused(change, complaint):
    report = hear_api.validate(wrapped("log-mel", change))
    assert any(complaint in error for error in report.errors), str(report)


def test_a_module_without_functions_is_refused():
    report = hear_api.validate(SimpleNamespace(load_model=lambda: None))
    assert [
        name in error for name, error in zip(("scene", "timestamp"), report.errors, strict=True)
    ]


def test_timestamps_are_frame_centres_within_the_sound():
    model = hear_api.load_model("small-cnn")
    audio = 0.1 * torch.randn(3, model.sample_rate, generator=torch.Generator().manual_seed(0))
    embeddings, timestamps = hear_api.get_timestamp_embeddings(audio, model)
    assert embeddings.shape == (*timestamps.shape, model.timestamp_embedding_size)
    assert timestamps.min() >= 0 and timestamps.max() <= 1000
    grid = models.load("small-cnn").frame_times(model.timestamp_layer, 200) * 1000
    assert all((grid - t).abs().min() < 1e-3 for t in timestamps[0].double())
    assert hear_api.get_scene_embeddings(audio, model).shape == (3, model.scene_embedding_size)


def test_another_rate_is_resampled_and_short_sounds_are_padded():
    model = hear_api.load_model("cochleagram")
    assert model.model.sample_rate == 20_000 and model.sample_rate == 22_050
    module = hear_api.load_model("log-mel")
    embeddings, timestamps = hear_api.get_timestamp_embeddings(torch.randn(1, 100) * 0.1, module)
    assert embeddings.shape[1] == timestamps.shape[1] == 1


class Loudness(models.AudioModel):
    """A model without frames in time."""

    def __init__(self):
        super().__init__(SimpleNamespace(name="loudness", sample_rate=16_000, layers=("rms",)))

    def _forward(self, waveforms, layers):
        return {"rms": waveforms.square().mean(dim=1).sqrt()[:, None, None]}

    def _frame_grid(self, layer):
        return None


def test_a_model_without_frames_hears_windows():
    model = hear_api.HearModel(Loudness())
    audio = torch.zeros(2, 32_000)
    audio[1, 16_000:20_000] = 0.5  # 1 s to 1.25 s
    embeddings, timestamps = hear_api.get_timestamp_embeddings(audio, model)
    assert timestamps[0, :3].tolist() == [0, 50, 100] and timestamps.max() == 2000
    heard = timestamps[1][embeddings[1, :, 0] > 0]
    assert heard.min() == 800 and heard.max() == 1450  # half a second around each timestamp
    assert (embeddings[0] == 0).all()


def test_bad_input_is_refused_by_name():
    with pytest.raises(UnknownNameError, match="log-mel"):
        hear_api.load_model("logmel")
    with pytest.raises(UnknownNameError, match="conv9"):
        hear_api.HearModel(models.load("small-cnn"), scene_layer="conv9")
    with pytest.raises(ParameterError, match="n_samples"):
        hear_api.get_scene_embeddings(torch.zeros(100), hear_api.load_model("log-mel"))


@pytest.mark.slow
def test_the_public_validator_accepts_three_modules(tmp_path):
    """``hearvalidator`` of the package index, in an environment of its own (about 2 GB)."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    for wanted in (["tensorflow-cpu"], ["--no-deps", "hearvalidator==2021.0.2"]):
        installed = subprocess.run(
            [python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True
        )
        if installed.returncode:
            pytest.skip(f"{wanted[-1]} cannot be installed: {installed.stderr[-200:]}")
    # Everything else, torch above all, comes from the environment that runs this test.
    (site_packages,) = environment.glob("lib/python*/site-packages")
    inherited = [str(Path(hear_api.__file__).parents[1]), sysconfig.get_path("purelib")]
    (site_packages / "inherited.pth").write_text("\n".join(inherited))
    for name in LIGHT:
        checked = subprocess.run(
            [environment / "bin" / "hear-validator", "analysis_lib.hear_api", "-m", name],
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stderr[-2000:]
        assert "Checking get_scene_embeddings" in checked.stdout
