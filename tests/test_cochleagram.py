"""The cochleagram against a literal transcription and the original's values."""

import golden
import numpy as np
import pytest
import torch

from analysis_lib import models
from analysis_lib.errors import AudioError
from analysis_lib.models.cochleagram import (
    CochleagramTransform,
    cochlear_filters,
    normalize_level,
)


def slow_cochleagram(wave):
    """Float64, one complex transform of full length per channel."""
    n = len(wave)
    spectrum = np.fft.rfft(np.clip(wave, -1, 1))
    position = (np.arange(1001) - 500.5) / 100
    kernel = np.sinc(position) / 100 * np.kaiser(1001, 5)
    frames = (n - 1001) // 100 + 1
    rows = []
    for response in cochlear_filters(n):
        padded = np.zeros(n, complex)
        padded[: n // 2 + 1] = spectrum * response
        envelope = np.sqrt(np.maximum(np.abs(np.fft.ifft(padded)) ** 2, 1e-16))
        rows.append([envelope[100 * t : 100 * t + 1001] @ kernel for t in range(frames)])
    return (np.maximum(rows, 0) + 1e-8) ** 0.3


@pytest.fixture(scope="module")
def model():
    return models.load("cochleagram", device="cpu")


def test_filters_are_the_published_ones():
    table = golden.golden("spectrotemporal", "filters_spectrotemporal.json")
    filters = cochlear_filters(40_000)
    assert list(filters.shape) == table["coch_filters_shape"]
    # One peak falls between two bins.
    np.testing.assert_allclose(filters.argmax(axis=1), table["coch_filter_peak_bin"], atol=1)
    np.testing.assert_allclose(filters.sum(axis=1), table["coch_filters_sum"], rtol=1e-5)
    widths = np.count_nonzero(filters, axis=1)
    np.testing.assert_allclose(widths, table["coch_filter_nonzero_bins"], atol=1)


@pytest.mark.parametrize("n_samples", [1001, 7777, 40_000])
def test_filters_conserve_energy(n_samples):
    np.testing.assert_allclose((cochlear_filters(n_samples) ** 2).sum(axis=0), 1, atol=1e-12)


def test_golden_cochleagram(model):
    stages = golden.golden("cochleagram", "golden_cochleagram_1.json")["synthetic_seed0"]
    wave = golden.chirp(20_000, 2, 0)[None]
    level = normalize_level(wave)[0].double().numpy()
    stage = stages["waveform_after_preproc"]
    np.testing.assert_allclose(
        level[stage["strided_index_flat"]], stage["strided8_flat"], atol=1e-6
    )
    stage = stages["cochleagram"]
    output = model.embed(wave)["cochleagram"]
    assert output.shape == (1, 390, 211)
    flat = output[0].T.double().flatten().numpy()
    np.testing.assert_allclose(flat[:8], stage["first8_flat"], atol=1e-5)
    np.testing.assert_allclose(flat[stage["strided_index_flat"]], stage["strided8_flat"], atol=1e-5)
    assert flat.mean() == pytest.approx(stage["mean"], abs=1e-6)
    assert flat.std() == pytest.approx(stage["std"], abs=1e-6)
    over_time = output[0].double().mean(dim=0).numpy()
    expected = stage["mean_over_time"]
    np.testing.assert_allclose(
        over_time[expected["strided_index"]], expected["strided8"], atol=1e-5
    )


@pytest.mark.parametrize("n_samples", [1001, 5003, 12_000])
def test_any_length_equals_the_literal_transcription(n_samples):
    wave = golden.chirp(20_000, n_samples / 20_000, 0)
    fast = CochleagramTransform()(wave[None])[0].double().numpy()
    np.testing.assert_allclose(fast, slow_cochleagram(wave.double().numpy()), atol=1e-5)


def test_peaks_are_clipped():
    wave = torch.full((1, 3000), 0.1)
    wave[0, 1500] = 40.0
    transform = CochleagramTransform()
    torch.testing.assert_close(transform(wave), transform(wave.clamp(-1, 1)))


def test_level_does_not_matter(model):
    wave = golden.chirp(20_000, 0.4, 0)[None]
    quiet = model.embed(1e-3 * wave + 0.2)["cochleagram"]
    torch.testing.assert_close(model.embed(wave)["cochleagram"], quiet, rtol=0, atol=2e-3)
    assert normalize_level(wave).square().mean().sqrt() == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -0.7])
def test_silence_gives_the_floor(model, value):
    output = model.embed(torch.full((1, 4000), value))["cochleagram"]
    # Envelopes of at least 1e-8, and 1e-8 added before compression.
    torch.testing.assert_close(output, torch.full_like(output, 2e-8**0.3), rtol=0, atol=1e-5)


def test_ragged_batch_equals_alone(model):
    sounds = [golden.chirp(20_000, seconds, 1) for seconds in (0.6, 0.2, 0.35, 0.2)]
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    together = model.embed(padded, [len(s) for s in sounds])["cochleagram"]
    for sound, output in zip(sounds, together, strict=True):
        alone = model.embed(sound[None])["cochleagram"][0]
        torch.testing.assert_close(output[: len(alone)], alone, rtol=0, atol=1e-5)
        assert output[len(alone) :].isnan().all()


def test_frames_are_where_they_say(model):
    """A click shows up at the frame whose centre is nearest."""
    for at in (4000, 9000, 14_050):
        wave = torch.zeros(1, 20_000)
        wave[0, at] = 1.0
        output = model.embed(wave)["cochleagram"][0]
        times = model.frame_times("cochleagram", len(output))
        # The highest channels are short in time and show the click without spread.
        peak = times[output[:, 150:].mean(dim=1).argmax()]
        assert peak == pytest.approx(at / 20_000, abs=0.5 / model.frame_rate("cochleagram") + 1e-4)


def test_too_short_a_sound_is_refused(model):
    with pytest.raises(AudioError, match="at least 1001 samples"):
        model.embed(torch.zeros(1, 1000))


def test_filters_are_kept_for_few_lengths():
    transform = CochleagramTransform(n_cached=2)
    for n_samples in (2000, 2001, 2000, 2002, 2003):
        transform(torch.zeros(1, n_samples))
    info = transform._filter_bank.cache_info()
    assert (info.currsize, info.hits) == (2, 1)
