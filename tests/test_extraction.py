"""Extraction with a model so small that its features can be written down."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from analysis_lib import data, extraction
from analysis_lib.data import Sounds
from analysis_lib.errors import AudioError, ParameterError, StorageError, UnknownNameError
from analysis_lib.models.audio_model import AudioModel
from analysis_lib.models.cards import ModelCard
from analysis_lib.paths import cache_dir

RATE = 1000
FRAME = 50
N_SOUNDS = 70  # two full chunks and a part of one
N_CHUNKS = -(-N_SOUNDS // extraction.CHUNK)


class TinyModel(AudioModel):
    """Frames of 50 samples; their products with a matrix; the sign of those, in two dimensions."""

    def __init__(self, seed=0, pause=0.0, kill_at=None, **card):
        card = {"name": "tiny", "label": "Tiny", "family": "Tiny", "kind": "untrained",
                "architecture": "a matrix", "sample_rate": RATE, "layers": ("product", "sign"),
                **card}  # fmt: skip
        super().__init__(ModelCard(**card))
        self.network.weight = torch.nn.Parameter(
            torch.randn(6, FRAME, generator=torch.Generator().manual_seed(seed)), False
        )
        self.n_forwarded, self.pause, self.kill_at = 0, pause, kill_at

    def _forward(self, waveforms, layers):
        self.n_forwarded += len(waveforms)
        if self.kill_at is not None and self.n_forwarded > self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.pause)
        product = waveforms.unfold(1, FRAME, FRAME) @ self.network.weight.T
        product[waveforms.amax(dim=1) == 1] = torch.nan
        return {"product": product, "sign": product.sign().unflatten(2, (2, 3))}

    def _frame_grid(self, layer):
        return FRAME / RATE, FRAME / RATE / 2


def waves(n_sounds=N_SOUNDS):
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.5, 0.5, rng.integers(60, 400)).astype("f4") for _ in range(n_sounds)]


def tiny_sounds(n_sounds=N_SOUNDS):
    names = [f"sound{i:02d}" for i in range(n_sounds)]
    return Sounds(names, waves(n_sounds), ["even", "odd"] * (n_sounds // 2), RATE)


def by_hand(pool=np.mean):
    """Pooled activations in float64, one sound and one frame at a time."""
    weight = TinyModel().network.weight.double().numpy()
    product, sign = [], []
    for wave in waves():
        frames = [weight @ wave[i : i + FRAME] for i in range(0, len(wave) - FRAME + 1, FRAME)]
        product.append(pool(frames, axis=0))
        sign.append(pool(np.sign(frames), axis=0))
    return {"product": np.array(product), "sign": np.array(sign)}


def assert_equal(features, expected, **tolerance):
    assert list(features) == list(expected)
    for layer in expected:
        np.testing.assert_allclose(features[layer].data, np.asarray(expected[layer]), **tolerance)


@pytest.mark.parametrize("pooling, pool", [("mean", np.mean), ("max", np.max)])
def test_features_are_those_of_each_sound_alone(pooling, pool):
    features = extraction.extract(TinyModel(), tiny_sounds(), pooling=pooling)
    assert_equal(features, by_hand(pool), atol=2e-6)


def test_features_are_labelled():
    features = extraction.extract(TinyModel(), tiny_sounds())
    x = features["sign"]
    assert x.dims == ("sound", "unit") and x.dtype == np.float32 and x.name == "sign"
    assert list(x["sound"].values) == [f"sound{i:02d}" for i in range(N_SOUNDS)]
    assert list(x["category"].values[:3]) == ["even", "odd", "even"]
    assert features.layers == ("product", "sign") and features.n_units("sign") == 6
    with pytest.raises(UnknownNameError, match="layer 'signs'. Did you mean 'sign'"):
        features["signs"]


def test_stored_features_are_those_computed_in_memory():
    in_memory = extraction.extract(TinyModel(), tiny_sounds(), cache=False)
    assert not cache_dir().exists()
    stored = extraction.extract(TinyModel(), tiny_sounds())
    assert_equal(stored, in_memory, atol=0)
    assert stored.key == in_memory.key
    for features in (stored, in_memory):
        assert features.provenance["model"] == "tiny" and features.provenance["device"] == "cpu"
        assert features.provenance["weights_sha256"] == TinyModel().weights_sha256


def test_what_is_stored_is_not_computed_again(caplog):
    caplog.set_level("INFO", logger="brainbook")
    model = TinyModel()
    first = extraction.extract(model, tiny_sounds())
    second = extraction.extract(model, tiny_sounds(), batch_size=3, device="cpu")
    assert model.n_forwarded == N_SOUNDS and second.key == first.key
    assert f"computed features of tiny: none stored under {first.key}" in caplog.text
    assert f"reused features of tiny ({first.key})" in caplog.text
    assert_equal(second, first, atol=0)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_the_batch_size_does_not_matter(batch_size):
    features = extraction.extract(TinyModel(), tiny_sounds(), batch_size=batch_size, cache=False)
    assert_equal(features, by_hand(), atol=2e-6)


def key(model=None, sounds=None, **options):
    model, sounds = model or TinyModel(), sounds or tiny_sounds(4)
    return extraction.extract(model, sounds, cache=False, **options).key


def changed_sounds(change):
    sounds = waves(4)
    names = [f"sound{i:02d}" for i in range(4)]
    if change == "sample":
        sounds[2][9] = np.nextafter(sounds[2][9], 1)
    elif change == "order":
        names[0], names[1], sounds[0], sounds[1] = names[1], names[0], sounds[1], sounds[0]
    elif change == "name":
        names[3] = "another"
    return Sounds(names, sounds, None, RATE)


def newer():
    model = TinyModel()
    model.code_version = "2"
    return model


@pytest.mark.parametrize(
    "other",
    [
        lambda: key(TinyModel(seed=1)),
        lambda: key(TinyModel(name="tiny2")),
        lambda: key(TinyModel(options={"n": 1})),
        lambda: key(TinyModel(sample_rate=2 * RATE)),
        lambda: key(newer()),
        lambda: key(pooling="max"),
        lambda: key(layers=["sign"]),
        lambda: key(layers=["sign", "product"]),
        lambda: key(sounds=tiny_sounds(2)),
        lambda: key(sounds=changed_sounds("sample")),
        lambda: key(sounds=changed_sounds("order")),
        lambda: key(sounds=changed_sounds("name")),
    ],
    ids=["weights", "model", "options", "sample rate", "code", "pooling", "layers", "layer order",
         "fewer sounds", "one sample", "sound order", "sound name"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::analysis_lib.errors.AudioNotice")
def test_the_key_changes_with(other):
    assert other() != key()


def test_the_key_does_not_change_with_how_it_is_computed():
    assert key(sounds=changed_sounds("nothing")) == key() == key(batch_size=1, device="cpu")


def extract_in(cache, kill_at=None, kill_at_write=None, pause=0.0, ready=None):
    """Extract in a process of its own; die at a forward pass or at the write of a layer."""
    os.environ["BRAINBOOK_CACHE"] = cache
    array, n_writes = extraction._Run._stored, 0

    def array_or_death(self, *arguments):
        nonlocal n_writes
        n_writes += 1
        if n_writes == kill_at_write:
            os.kill(os.getpid(), signal.SIGKILL)
        return array(self, *arguments)

    extraction._Run._stored = array_or_death
    if ready is not None:
        ready.wait(60)
    extraction.extract(TinyModel(kill_at=kill_at, pause=pause), tiny_sounds(), batch_size=32)


@pytest.mark.parametrize(
    "death, n_left",
    [({"kill_at": 40}, N_SOUNDS - 32), ({"kill_at_write": 4}, N_SOUNDS - 32),
     ({"kill_at": 66}, N_SOUNDS - 64)],
    ids=["computing the second chunk", "writing the second chunk", "computing the last chunk"],
)  # fmt: skip
def test_a_killed_run_resumes(processes, caplog, death, n_left):
    caplog.set_level("INFO", logger="brainbook")
    child = processes.Process(target=extract_in, args=(str(cache_dir()),), kwargs=death)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    model = TinyModel()
    features = extraction.extract(model, tiny_sounds())
    assert model.n_forwarded == n_left
    assert "resuming: " in caplog.text
    assert_equal(features, extraction.extract(TinyModel(), tiny_sounds(), cache=False), atol=0)


def test_a_chunk_half_written_is_written_again():
    features = extraction.extract(TinyModel(), tiny_sounds())
    expected = {layer: features[layer].data.copy() for layer in features}
    folder = cache_dir("features", features.key)
    (folder / "finished.json").unlink()
    (folder / "chunk-000000.done").unlink()
    (folder / "chunk-000064.done").unlink()
    for chunk in [*folder.rglob("c/0/0"), *folder.rglob("c/2/0")]:
        chunk.write_bytes(chunk.read_bytes()[:20])
    model = TinyModel()
    assert_equal(extraction.extract(model, tiny_sounds()), expected, atol=0)
    assert model.n_forwarded == 32 + 6


def test_two_runs_at_once_on_one_cache(processes):
    ready = processes.Barrier(2)
    both = [
        processes.Process(target=extract_in, args=(str(cache_dir()), None, None, 0.02, ready))
        for _ in range(2)
    ]
    for child in both:
        child.start()
    for child in both:
        child.join(60)
    assert [child.exitcode for child in both] == [0, 0]
    model = TinyModel()
    features = extraction.extract(model, tiny_sounds())
    assert model.n_forwarded == 0
    assert_equal(features, by_hand(), atol=2e-6)


def test_activations_that_are_not_finite_name_model_layer_and_sound():
    sounds = waves(3)
    sounds[1][0] = 1.0
    bad = Sounds(["a", "loud", "c"], sounds, None, RATE)
    message = "tiny: layer 'product' is not finite for sound 'loud'. Check"
    with pytest.raises(AudioError, match=message):
        extraction.extract(TinyModel(), bad)
    assert list(cache_dir().rglob("finished.json")) == []


def test_a_sound_that_cannot_be_read_is_named(tmp_path):
    sounds = Sounds(["here", "gone"], [waves(1)[0], tmp_path / "gone.wav"], None, RATE)
    with pytest.raises(AudioError, match="sound 'gone': no file"):
        extraction.extract(TinyModel(), sounds)


def test_unknown_names_and_impossible_requests():
    sounds = tiny_sounds(2)
    with pytest.raises(UnknownNameError, match="layer of tiny 'prodct'. Did you mean 'product'"):
        extraction.extract(TinyModel(), sounds, layers=["prodct"])
    with pytest.raises(UnknownNameError, match="unknown pooling 'means'. Did you mean 'mean'"):
        extraction.extract(TinyModel(), sounds, pooling="means")
    with pytest.raises(UnknownNameError, match="unknown model 'log-mell'. Did you mean 'log-mel'"):
        extraction.extract("log-mell", sounds)
    for size in (0, -1, 2.5, "all"):
        with pytest.raises(ParameterError, match="batch_size must be 'auto' or a positive integer"):
            extraction.extract(TinyModel(), sounds, batch_size=size)
    with pytest.raises(ParameterError, match="no sounds"):
        extraction.extract(TinyModel(), sounds[:0])
    with pytest.raises(ParameterError, match="at least one layer"):
        extraction.extract(TinyModel(), sounds, layers=[])


def test_a_full_disk(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extraction.zarr.Array, "__setitem__", full)
    with pytest.raises(StorageError, match="the disk is full"):
        extraction.extract(TinyModel(), tiny_sounds(2))
    assert list(cache_dir().rglob("*.done")) == []


def test_features_by_the_name_of_their_source():
    sounds = data.simulated_sounds(1)
    planted = extraction.features("planted", sounds)
    assert planted.layers == ("spectrum", "modulation", "conjunction")
    assert planted.key != extraction.features("planted", sounds[::-1]).key
    log_mel = extraction.features("log-mel", sounds, pooling="max")
    assert log_mel.provenance["pooling"] == "max"
    finished = cache_dir("features", log_mel.key, "finished.json")
    assert json.loads(finished.read_text()) == log_mel.provenance


def test_processes_share_the_sounds(tmp_path):
    """Under torchrun each process computes every other chunk, and the features are the same."""
    rng = np.random.default_rng(0)
    names = [f"s{i:03d}" for i in range(3 * extraction.CHUNK + 5)]
    waves = [0.1 * rng.standard_normal(4_000).astype(np.float32) for _ in names]
    program = tmp_path / "program.py"
    np.save(tmp_path / "waves.npy", np.stack(waves))
    program.write_text(
        "import sys, os, numpy as np\n"
        "from pathlib import Path\n"
        "from analysis_lib import data, extraction\n"
        "waves = np.load(sys.argv[1])\n"
        f"sounds = data.Sounds({names!r}, list(waves), sample_rate=16_000)\n"
        "computed = []\n"
        "finish = extraction._Run.finish_chunk\n"
        "def counted(run, start):\n"
        "    computed.append(start)\n"
        "    finish(run, start)\n"
        "extraction._Run.finish_chunk = counted\n"
        "features = extraction.extract('log-mel', sounds, device='cpu')\n"
        "rank = os.environ['RANK']\n"
        "Path(sys.argv[2], rank).write_text(' '.join(map(str, computed)))\n"
        "np.save(Path(sys.argv[2], rank + '.npy'), np.asarray(features['log_mel']))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(program), str(tmp_path / "waves.npy"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    shares = [(tmp_path / rank).read_text() for rank in "01"]
    size = extraction.CHUNK
    assert shares == [f"0 {2 * size}", f"{size} {3 * size}"]
    alone = extraction.extract(
        "log-mel", Sounds(names, waves, sample_rate=16_000), device="cpu", cache=False
    )
    for rank in "01":
        np.testing.assert_array_equal(np.load(tmp_path / f"{rank}.npy"), alone["log_mel"].data)
