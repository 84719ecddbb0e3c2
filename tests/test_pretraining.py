"""Whole runs of pretraining: resuming, learning, controls, loading."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from analysis_lib import cli, data, extraction, models, pretraining, training
from analysis_lib.errors import (
    AudioError,
    MissingDataError,
    ParameterError,
    TrainingError,
    UnknownNameError,
    WeightsError,
)
from analysis_lib.pretraining import Clip, Corpus, Size, network, recipe_of
from analysis_lib.pretraining import run as run_module

RATE = 24_000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Very small networks and codebooks that are learned on little."""
    make_small(monkeypatch)


def make_small(patch):
    patch.setattr(network, "SIZES", {**network.SIZES, "tiny": Size(2, 24, 2, 32, 1)})
    patch.setattr(run_module, "_N_VECTORS", 1000)
    patch.setattr(run_module, "_VALIDATION_CROPS", 8)


def noises(n=6, seconds=1.0):
    """Recordings of noise at different levels, with two labels."""
    rng = np.random.default_rng(0)
    waves = [0.02 * (i + 1) * rng.standard_normal(int(seconds * RATE)) for i in range(n)]
    return Corpus(
        [
            Clip(f"{i}", wave.astype(np.float32), len(wave), RATE, "ab"[i % 2])
            for i, wave in enumerate(waves)
        ]
    )


def pretrain(folder, audio=None, **changes):
    options = {
        "n_steps": 8,
        "batch_size": 4,
        "seconds": 0.5,
        "n_codebooks": 2,
        "n_codes": 8,
        "n_checkpoints": 4,
        "warmup": 2,
        "held_out": 0.2,
        "device": "cpu",
        "progress": False,
        **changes,
    }
    return pretraining.pretrain("demo", noises() if audio is None else audio, folder, **options)


def last(run):
    return load_file(run.checkpoints[max(run.checkpoints)])


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        return pretrain(tmp_path_factory.mktemp("whole") / "run")


class TestResuming:
    @pytest.mark.parametrize("killed_at", [0, 3, 7])
    def test_a_stopped_run_ends_with_the_same_bytes(self, whole, tmp_path, killed_at, monkeypatch):
        n_done = []
        step = torch.optim.AdamW.step

        def interrupted(self, *args, **kwargs):
            if len(n_done) == killed_at:
                raise KeyboardInterrupt
            n_done.append(1)
            return step(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pretrain(tmp_path / "run")
        resumed = pretrain(tmp_path / "run")
        assert same(last(whole), last(resumed))
        columns = ["step", "loss", "masked_loss", "validation_masked_loss"]
        assert resumed.history[columns].equals(whole.history[columns])

    @pytest.mark.parametrize("step", [0, 2])
    def test_from_any_checkpoint(self, whole, tmp_path, step):
        run = pretrain(tmp_path / "run")
        assert step in run.checkpoints
        again = pretrain(tmp_path / "run", resume_from=step)
        assert same(last(whole), last(again))

    def test_a_killed_process(self, tmp_path, processes):
        """SIGKILL, wherever it strikes."""
        process = processes.Process(
            target=_endless, args=(tmp_path / "run", torch.get_num_threads())
        )
        process.start()
        deadline = time.monotonic() + 120
        while max(training.checkpoints(tmp_path / "run"), default=0) < 5:
            assert time.monotonic() < deadline and process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
        assert process.exitcode == -9
        changes = {"n_steps": _MANY, "save_every": 5, "schedule": "constant"}
        record = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
        assert 5 < len(record) < _MANY
        uninterrupted = pretrain(tmp_path / "other", **changes)
        assert same(last(pretrain(tmp_path / "run", **changes)), last(uninterrupted))

    def test_seeds(self, whole, tmp_path):
        assert same(last(whole), last(pretrain(tmp_path / "again")))
        other = last(pretrain(tmp_path / "other", seed=1))
        assert not any(
            torch.equal(tensor, other[name])
            for name, tensor in last(whole).items()
            if tensor.ndim == 2
        )

    def test_parts_do_what_one_batch_does(self, whole, tmp_path):
        parts = pretrain(tmp_path / "parts", accumulate=2)
        np.testing.assert_allclose(
            parts.history["loss"].dropna(), whole.history["loss"].dropna(), rtol=1e-4
        )

    def test_a_folder_belongs_to_one_run(self, whole, tmp_path):
        pretrain(tmp_path, n_steps=2)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        for changes in ({"learning_rate": 1.0}, {"size": "mini"}, {"seed": 3}, {"n_codes": 9}):
            with pytest.raises(ParameterError, match="another folder"):
                pretrain(tmp_path, n_steps=2, **changes)
        with pytest.raises(ParameterError, match="another folder"):
            pretrain(tmp_path, n_steps=2, audio=noises(7))
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


_MANY = 60


def _endless(folder, torch_threads):
    make_small(pytest.MonkeyPatch())
    torch.set_num_threads(torch_threads)
    pretrain(folder, n_steps=_MANY, save_every=5, schedule="constant")


def flickering(n=48, seconds=1.5, seed=0):
    """Each recording has a tone of its own, 7 pieces of 10; the others are other tones."""
    rng = np.random.default_rng(seed)
    tones = 400 * 1.35 ** np.arange(8)
    clips = []
    for i in range(n):
        pieces = int(seconds / 0.0265)
        chosen = np.where(rng.random(pieces) < 0.7, i % 8, rng.integers(8, size=pieces))
        hertz = np.repeat(tones[chosen], 636)
        wave = 0.1 * np.sin(2 * np.pi * np.cumsum(hertz) / RATE)
        clips.append(Clip(f"{i}", wave.astype(np.float32), len(wave), RATE, f"{i % 8}"))
    return Corpus(clips)


def test_learns_what_frequencies_and_neighbours_do_not_tell(tmp_path):
    """Against a sound whose every gap is best filled by what the rest of it says."""
    run = pretrain(
        tmp_path,
        flickering(),
        n_steps=120,
        batch_size=16,
        seconds=0.8,
        n_codebooks=1,
        n_codes=16,
        warmup=10,
        n_checkpoints=1,
        held_out=0.17,
    )
    baselines = pretraining.baselines(tmp_path)
    found = run.history.dropna(subset=["validation_loss"]).iloc[-1]
    assert found["validation_masked_nats"] < 0.9 * baselines["unigram_nats"]
    assert found["validation_masked_loss"] < 0.9 * baselines["unigram_loss"]
    assert found["validation_masked_accuracy"] > baselines["copy_accuracy"] + 0.05


class TestTargets:
    def test_encodec(self, tmp_path):
        from transformers import EncodecConfig, EncodecModel

        torch.manual_seed(0)
        config = EncodecConfig(
            num_filters=4, hidden_size=16, codebook_size=32, codebook_dim=16, num_lstm_layers=1
        )
        EncodecModel(config).save_pretrained(tmp_path / "encodec")
        run = pretrain(tmp_path / "run", targets="encodec", encodec=tmp_path / "encodec", n_steps=2)
        weights = last(run)
        assert weights["head.layer.weight"].shape == (2 * 32, 24)
        assert not any("target" in name for name in weights)
        with pytest.raises(MissingDataError, match="no EnCodec in .*nowhere"):
            pretrain(tmp_path / "other", targets="encodec", encodec=tmp_path / "nowhere")

    def test_self_training(self, whole, tmp_path):
        teacher = str(whole.checkpoints[8])
        run = pretrain(tmp_path / "run", targets=teacher, n_codebooks=1, n_steps=3)
        codebooks = load_file(run.folder / "codebooks.safetensors")["codebooks"]
        assert codebooks.shape == (1, 8, 24)
        about = json.loads((run.folder / "about.json").read_text())
        assert about["targets"] == teacher
        assert run.history["loss"].notna().sum() == 3


class TestControls:
    @pytest.mark.parametrize("control", ["shuffled", "noise", "labels"])
    def test_start_alike_and_are_trained_on_something_else(self, whole, tmp_path, control):
        run = pretrain(tmp_path, control=control)
        start, end = (pretraining.load(run.checkpoints[step], "cpu") for step in (0, 8))
        natural = [pretraining.load(whole.checkpoints[step], "cpu") for step in (0, 8)]
        assert start.weights_sha256 == natural[0].weights_sha256
        assert end.weights_sha256 not in (natural[1].weights_sha256, start.weights_sha256)
        assert control in end.card.training_data
        assert ("accuracy" in run.history) == (control == "labels")

    def test_labels_learn_labels(self, tmp_path):
        changes = {"n_steps": 60, "batch_size": 16, "seconds": 0.8, "warmup": 10}
        run = pretrain(tmp_path, flickering(), control="labels", **changes)
        assert run.history["accuracy"].iloc[-5:].mean() > 0.5  # by chance 0.125
        with pytest.raises(MissingDataError, match="taught by labels have none"):
            pretraining.baselines(tmp_path)

    def test_unknown(self, tmp_path):
        with pytest.raises(UnknownNameError, match="Did you mean 'shuffled'"):
            pretrain(tmp_path, control="shufled")
        unlabelled = Corpus([Clip(str(i), np.ones(RATE) / 9, RATE, RATE) for i in range(4)])
        with pytest.raises(ParameterError, match="at least two labels"):
            pretrain(tmp_path, unlabelled, control="labels")


class TestBadInput:
    def test_a_loss_that_is_not_finite(self, tmp_path):
        """Stops, keeps the last good checkpoint, says where."""
        with pytest.raises(TrainingError, match="last good checkpoint is .*step-0000000"):
            pretrain(tmp_path, learning_rate=1e30, warmup=0, n_steps=20)
        saved = training.checkpoints(tmp_path)
        assert saved and all(t.isfinite().all() for t in load_file(saved[max(saved)]).values())

    def test_crops_longer_than_recordings(self, tmp_path):
        refusing = noises().with_short("refuse")
        with pytest.raises(AudioError, match="6 of 6 recordings are shorter .* 2 s, such as 0"):
            pretrain(tmp_path, refusing, seconds=2.0)
        assert pretrain(tmp_path, refusing, n_steps=1).checkpoints

    def test_crops_shorter_than_gaps(self, tmp_path):
        with pytest.raises(ParameterError, match="gaps of 15 frames cannot hide"):
            pretrain(tmp_path, seconds=0.1)
        with pytest.raises(ParameterError, match="of 1 frames"):
            pretrain(tmp_path, seconds=0.01)

    def test_empty_folder(self, tmp_path):
        (tmp_path / "audio").mkdir()
        with pytest.raises(AudioError, match="audio holds no audio"):
            pretrain(tmp_path / "run", tmp_path / "audio")


class TestLoading:
    def test_is_the_encoder_that_was_trained(self, whole):
        """Layers of the loaded model against the network of the run, on the same frames."""
        path = whole.checkpoints[8]
        model = pretraining.load(path, "cpu")
        trained = pretraining.MaskedAutoencoder(network.SIZES["tiny"], 2, 8)
        trained.load_state_dict(load_file(path))
        wave = torch.from_numpy(noises().crop(RATE, np.random.default_rng(0))[0])[None]
        frames = models.residual_transformer.mel_front_end()(wave)
        with torch.no_grad():
            expected = trained.encode(frames)
        found = model.embed(wave)
        assert model.layers == ("layer_0", "layer_1")
        torch.testing.assert_close(found["layer_1"], expected)
        assert model.card.kind == "trained-here" and model.card.name.endswith("/step-00000008")

    @pytest.mark.filterwarnings("ignore::analysis_lib.errors.AudioNotice")
    def test_gives_features(self, whole):
        sounds = data.simulated_sounds(1)
        names = [str(whole.checkpoints[step]) for step in (0, 8)]
        start, end = (extraction.features(name, sounds) for name in names)
        assert start["layer_1"].shape == (6, 24) and start.key != end.key
        assert extraction.features(names[1], sounds).key == end.key
        assert not np.allclose(start["layer_1"], end["layer_1"])

    def test_permuted(self, whole):
        name = str(whole.checkpoints[8])
        permuted = models.load(name, device="cpu", permuted=True)
        assert permuted.weights_sha256 != models.load(name, device="cpu").weights_sha256

    def test_what_is_missing_is_named(self, whole, tmp_path):
        with pytest.raises(MissingDataError, match="no checkpoint at .*step-99"):
            pretraining.load(tmp_path / "step-99.safetensors")
        copy = tmp_path / "step-00000008.safetensors"
        copy.write_bytes(whole.checkpoints[8].read_bytes())
        with pytest.raises(MissingDataError, match="network.json, which should say"):
            pretraining.load(copy)
        (tmp_path / "network.json").write_text("{}")
        with pytest.raises(WeightsError, match="does not describe a network"):
            pretraining.load(copy)
        told = json.loads((whole.folder / "network.json").read_text())
        told["options"]["n_layers"] = 3
        (tmp_path / "network.json").write_text(json.dumps(told))
        with pytest.raises(WeightsError, match=r"missing: visible_encoder.encoder_layers.2"):
            pretraining.load(copy)
        with pytest.raises(ParameterError, match="its step 0"):
            models.load(str(whole.checkpoints[8]), untrained=True)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    """Under torchrun, sums are rounded in another order and nothing else."""
    settings = [f"--set={text}" for text in ("n_steps=4", "n_codes=8", "n_checkpoints=2")]
    ends = []
    for name, starter in (
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
        ("one", []),
    ):
        command = [sys.executable, *starter, "-m", "analysis_lib", "pretrain", "demo"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [*command, tmp_path / name, "--device=cpu", *settings], check=True, env=environment
        )
        ends.append(load_file(tmp_path / name / "step-00000004.safetensors"))
    for tensor, other in zip(ends[0].values(), ends[1].values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=1e-5)


class TestCommand:
    def invoke(self, *arguments):
        return CliRunner().invoke(cli.app, ["pretrain", *map(str, arguments)])

    def test_trains_on_a_folder(self, tmp_path):
        for clip in noises().clips:
            soundfile.write(tmp_path / f"{clip.name}.wav", clip.source, RATE)
        settings = [
            f"--set={text}"
            for text in ("n_steps=3", "batch_size=2", "seconds=0.5", "n_codes=8", "held_out=0.3")
        ]
        run = tmp_path / "run"
        result = self.invoke("demo", run, "--audio", tmp_path, "--device", "cpu", *settings)
        assert result.exit_code == 0, result.output
        assert f"4 checkpoints in {run}" in result.output
        assert sorted(training.checkpoints(run)) == [0, 1, 2, 3]

    def test_mistakes(self, tmp_path):
        for arguments, error in (
            (["paper", tmp_path], MissingDataError),
            (["dem", tmp_path, "--audio", "demo"], UnknownNameError),
            (["demo", tmp_path, "--set", "n_steps"], ParameterError),
            (["demo", tmp_path, "--set", "n_stps=3"], UnknownNameError),
        ):
            assert isinstance(self.invoke(*arguments).exception, error)


def test_recipes_are_within_reach():
    """Every recipe has room for its gaps."""
    for name in pretraining.RECIPES:
        recipe = recipe_of(name)
        frames = models.residual_transformer.mel_front_end().n_frames(recipe.n_samples)
        assert pretraining.gap_mask(frames, np.random.default_rng(0), recipe.mask_gap).any()
