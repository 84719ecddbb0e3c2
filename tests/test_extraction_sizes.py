"""Extraction for real sizes: memory, several models at once, long and short sounds, provenance."""

import gc
import json
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis_lib import device as devices
from analysis_lib import extraction, models
from analysis_lib.data import Sounds
from analysis_lib.errors import AudioError, MemoryBudgetError, ParameterError, UnknownNameError
from analysis_lib.models import dasheng
from analysis_lib.models.audio_model import AudioModel
from analysis_lib.models.cards import ModelCard
from analysis_lib.paths import cache_dir

RATE = 1000


class Sized(AudioModel):
    """Takes ``n_bytes_per_sample`` times the sound's length to the power ``growth``."""

    extra_layers = ("hidden",)

    def __init__(self, name="sized", rate=RATE, growth=1.0, width=1):
        super().__init__(ModelCard(name, name, "Tiny", "untrained", "sums", rate, ("mean",)))
        self.network.weight = torch.nn.Parameter(torch.ones(1), False)
        self.growth, self.width, self.batches = growth, width, []

    def _forward(self, waveforms, layers):
        self.batches.append(tuple(waveforms.shape))
        n_values = int(self.width * waveforms.shape[1] ** self.growth)
        scratch = torch.zeros(len(waveforms), n_values)
        mean = waveforms.reshape(len(waveforms), -1, 1) * self.network.weight
        outputs = {"mean": mean + scratch[:, :1, None], "hidden": 2 * mean}
        return {layer: outputs[layer] for layer in layers}

    def _frame_grid(self, layer):
        return 1 / self.sample_rate, 0.0


def sounds_of(*seconds, rate=RATE, seed=0):
    rng = np.random.default_rng(seed)
    waves = [rng.uniform(-0.5, 0.5, round(s * rate)).astype("f4") for s in seconds]
    return Sounds([f"s{i:03d}" for i in range(len(waves))], waves, None, rate)


def memory(monkeypatch, n_bytes):
    for module in (devices, extraction):
        monkeypatch.setattr(module, "available_memory", lambda device: n_bytes)


# -- memory ---------------------------------------------------------------------------------


def test_memory_of_a_computation_is_what_lives_at_once():
    def compute():
        a = torch.ones(1000, 1000)
        b = a + 1
        del a
        return (b * 2).t().sum()

    result, n_bytes = devices.memory_of(compute, torch.device("cpu"))
    assert result == 4e6 and n_bytes == pytest.approx(8e6, rel=1e-3)


def test_memory_of_a_computation_counts_what_every_core_makes():
    cpu, n_threads = torch.device("cpu"), torch.get_num_threads()

    def compute():
        with devices.each_core(cpu, 4) as every:
            return sum(every(lambda n: torch.ones(n).sum(), [1000, 2000, 500, 10]))

    _, n_bytes = devices.memory_of(compute, cpu)
    assert n_bytes >= 4 * 2000
    assert compute() == 3510 and torch.get_num_threads() == n_threads


def test_memory_of_a_computation_does_not_count_what_was_there():
    weight = torch.ones(1000, 1000)
    _, n_bytes = devices.memory_of(lambda: weight.t() @ weight[:, :10], torch.device("cpu"))
    assert n_bytes == pytest.approx(1000 * 10 * 4)


def test_peak_memory_of_this_process():
    assert 5e7 < devices.peak_memory(torch.device("cpu")) < 1e12


def test_the_batch_is_fitted_to_what_is_free(monkeypatch):
    # The longest sound comes first, alone; a second takes 1000 * 100 * 4 bytes and a little more.
    model = Sized(width=100)
    memory(monkeypatch, 8.4 * 1000 * 100 * 4)
    extraction.extract(model, sounds_of(*[1.0] * 9), cache=False)
    assert model.batches == [(1, 1000), (4, 1000), (4, 1000)]
    model.batches.clear()
    memory(monkeypatch, 1e12)
    extraction.extract(model, sounds_of(*[1.0] * 9), cache=False)
    assert model.batches == [(1, 1000), (8, 1000)]


def test_shorter_sounds_go_together_and_come_back_in_order():
    seconds = [0.2, 3.0, 0.5, 0.2, 3.0, 0.1]
    model, heard = Sized(), sounds_of(*seconds)
    together = extraction.extract(model, heard, cache=False)
    assert model.batches[0] == (1, 3000) and len(model.batches) == 5
    expected = [heard.waveform(name).mean(dtype="f8") for name in heard]
    np.testing.assert_allclose(together["mean"].data[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("growth, fits", [(1.0, True), (1.8, False)])
def test_a_long_sound_is_weighed_before_it_is_run(monkeypatch, growth, fits):
    heard = sounds_of(0.5, 600.0)
    model = Sized(growth=growth)
    memory(monkeypatch, 1e8)
    if fits:
        extraction.extract(model, heard, cache=False)
        assert (1, 600_000) in model.batches
        return
    message = (
        r"sized: sound 's001' \(600 s\) needs about (.*) GB on cpu.*Cut the sound into shorter"
    )
    with pytest.raises(MemoryBudgetError, match=message) as error:
        extraction.extract(model, heard, cache=False)
    told = float(re.search(message, str(error.value))[1])
    assert told == pytest.approx(4e-9 * 600_000**1.8, rel=0.05)
    assert max(shape[1] for shape in model.batches) == 30_000


def test_running_out_of_memory_says_what_to_do():
    class Hungry(Sized):
        def _forward(self, waveforms, layers):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryBudgetError, match="sized: 2 sounds of up to 1.0 s .*smaller batch"):
        extraction.extract(Hungry(), sounds_of(1, 1), batch_size=2, cache=False)


def test_memory_does_not_grow_with_the_number_of_sounds():
    heard = sounds_of(*[0.3] * 600)
    extraction.extract(Sized(), heard[:40])
    peaks = []
    for n_sounds in (100, 600):
        gc.collect()
        tracemalloc.start()
        extraction.extract(Sized(f"sized{n_sounds}"), heard[:n_sounds])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 500 * 300 * 4 / 2  # half of the waveforms themselves


# -- several models in one pass -------------------------------------------------------------


def test_each_sound_is_read_once_per_rate(monkeypatch):
    heard = sounds_of(*[0.5] * 40, rate=4 * RATE)
    read = []
    waveform = Sounds.waveform

    def counted(self, name, sample_rate=None):
        read.append((name, sample_rate))
        return waveform(self, name, sample_rate)

    monkeypatch.setattr(Sounds, "waveform", counted)
    three = [Sized("a"), Sized("b"), Sized("c", rate=2 * RATE)]
    together = extraction.extract_many(three, heard)
    assert sorted(read) == sorted((name, rate) for name in heard for rate in (RATE, 2 * RATE))
    assert list(together) == ["a", "b", "c"]
    for model in three:
        alone = extraction.extract(model, heard, cache=False)
        np.testing.assert_allclose(together[model.card.name]["mean"], alone["mean"], atol=1e-7)
        assert together[model.card.name].key == alone.key


def test_models_that_are_done_are_not_run_again(monkeypatch):
    heard = sounds_of(*[0.5] * 40)
    done, half, fresh = Sized("done"), Sized("half"), Sized("fresh")
    extraction.extract(done, heard)
    features = extraction.extract(half, heard)
    cache_dir("features", features.key, "finished.json").unlink()
    cache_dir("features", features.key, "chunk-000032.done").unlink()
    for model in (done, half, fresh):
        model.batches.clear()
    together = extraction.extract_many([done, half, fresh], heard)
    n_run = {m.card.name: sum(n for n, _ in m.batches) for m in (done, half, fresh)}
    assert n_run == {"done": 0, "half": 8, "fresh": 40}
    for features in together.values():
        np.testing.assert_array_equal(features["mean"], together["done"]["mean"])


def test_models_by_name_and_twice():
    heard = sounds_of(0.5, 0.5, rate=16_000)
    assert list(extraction.extract_many(["log-mel", "mfcc"], heard)) == ["log-mel", "mfcc"]
    with pytest.raises(ParameterError, match="log-mel is there twice"):
        extraction.extract_many(["log-mel", models.load("log-mel", device="cpu")], heard)


# -- layers, precision, provenance ----------------------------------------------------------


def test_extra_layers_come_when_asked_for():
    heard = sounds_of(0.5)
    assert extraction.extract(Sized(), heard).layers == ("mean",)
    both = extraction.extract(Sized(), heard, layers=["hidden", "mean"])
    assert both.layers == ("hidden", "mean")
    np.testing.assert_allclose(both["hidden"], 2 * both["mean"].data)
    with pytest.raises(UnknownNameError, match="layer of sized 'hiden'. Did you mean 'hidden'"):
        extraction.extract(Sized(), heard, layers=["hiden"])


def test_half_precision_only_on_request():
    heard = sounds_of(1, 1, rate=16_000)
    model = models.load("small-cnn", device="cpu")
    full = extraction.extract(model, heard)
    half = extraction.extract(model, heard, autocast=True)
    assert full.key != half.key and half.provenance["autocast"] is True
    assert full.provenance["autocast"] is False
    layer = model.layers[-1]
    x, y = full[layer].data, half[layer].data
    assert y.dtype == np.float32 and 1e-4 < np.abs(x - y).max() / x.std() < 0.3


def test_provenance_reports_throughput_and_memory():
    heard = sounds_of(*[0.5] * 33)
    features = extraction.extract(Sized(), heard)
    told = features.provenance
    assert told["audio_seconds"] == 16.5 and told["n_sounds"] == 33
    ratio = told["audio_seconds"] / told["wall_seconds"]
    assert told["audio_seconds_per_second"] == pytest.approx(ratio, rel=0.1)
    assert 0.05 < told["peak_memory_gb"] < 1000
    stored = cache_dir("features", features.key, "finished.json")
    assert json.loads(stored.read_text()) == told


# -- bad and unusual sounds -----------------------------------------------------------------


def test_activations_that_are_not_finite_name_layer_and_sound():
    class Broken(Sized):
        def _forward(self, waveforms, layers):
            outputs = super()._forward(waveforms, layers)
            outputs["mean"][waveforms.abs().amax(dim=1) > 0.9] = torch.nan
            return outputs

    waves = [np.full(500, level, "f4") for level in (0.1, 0.2, 0.95, 0.3)]
    heard = Sounds(["rain", "wind", "siren", "bird"], waves, None, RATE)
    for batch_size in ("auto", 1, 4):
        with pytest.raises(AudioError, match="layer 'mean' is not finite for sound 'siren'"):
            extraction.extract(Broken(), heard, batch_size=batch_size, cache=False)


@pytest.mark.parametrize("name", ["log-mel", "mfcc", "cochleagram", "small-cnn"])
def test_a_clip_of_50_ms_gives_features_or_is_named(name):
    model = models.load(name, device="cpu")
    heard = sounds_of(1.0, 0.05, rate=model.sample_rate)
    if model.min_samples > 0.05 * model.sample_rate:
        with pytest.raises(AudioError, match="needs at least .*sound 's001' has"):
            extraction.extract(model, heard, cache=False)
        return
    features = extraction.extract(model, heard, cache=False)
    alone = extraction.extract(model, heard[["s001"]], cache=False)
    for layer in features:
        np.testing.assert_allclose(features[layer][1], alone[layer][0], atol=1e-5)


def test_a_clip_too_short_for_a_network_is_named():
    model = tiny_transformer()
    model.min_samples = 1600
    with pytest.raises(
        AudioError, match=r"at least 1600 samples \(0.100 s\); sound 's001' has 800"
    ):
        extraction.extract(model, sounds_of(1.0, 0.05, rate=16_000), cache=False)


def test_a_sound_of_96_khz_is_resampled():
    t = np.arange(96_000) / 96_000
    tone = (0.3 * np.sin(2 * np.pi * 1000 * t)).astype("f4")
    ultrasound = tone + (0.3 * np.sin(2 * np.pi * 30_000 * t)).astype("f4")
    heard = Sounds(["tone", "ultrasound"], [tone, ultrasound], None, 96_000)
    low = Sounds(["low"], [tone[::6]], None, 16_000)
    found = extraction.extract("log-mel", heard, device="cpu", cache=False)["log_mel"].data
    expected = extraction.extract("log-mel", low, device="cpu", cache=False)["log_mel"].data[0]
    loud = expected > expected.max() - 4
    np.testing.assert_allclose(found[:, loud], [expected[loud]] * 2, atol=0.05)


def tiny_transformer():
    """Dasheng with two narrow blocks; it takes long sounds in chunks, as its authors do."""
    card = models.card("dasheng_base")
    options = {**card.options, "depth": 2, "width": 32, "n_heads": 2}
    card = replace(card, name="dasheng_tiny", layers=("block_0", "block_1"), options=options)
    torch.manual_seed(0)
    model = dasheng.Dasheng(card)
    model.network.eval()
    return model


@pytest.mark.parametrize("name", ["log-mel", "transformer"])
def test_a_clip_of_ten_minutes(name):
    model = tiny_transformer() if name == "transformer" else models.load(name, device="cpu")
    heard = sounds_of(600.0, 1.0, rate=16_000)
    features = extraction.extract(model, heard, cache=False)
    short = extraction.extract(model, heard[["s001"]], cache=False)
    for layer in features:
        x = features[layer].data
        assert np.isfinite(x).all()
        np.testing.assert_allclose(x[1], short[layer].data[0], atol=1e-5)
    assert features.provenance["audio_seconds"] == 601
