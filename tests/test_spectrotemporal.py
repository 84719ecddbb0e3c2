"""The modulation filters against a literal transcription and the original's values."""

import golden
import numpy as np
import pytest
import torch
from scipy import fft

from analysis_lib import models
from analysis_lib.models.spectrotemporal import ModulationFilters

RATES = [0, 0.5, 1, 2, 4, 8, 16, 32, 64]
SCALES = [0, 0.0625, 0.125, 0.25, 0.5, 1, 2]
N_CHANNELS = 211


def modulation_plane(scale, rate, sign, n_frames):
    """Transfer function of one filter over both modulation frequencies, step by step."""
    n_time, n_spec = 3 * n_frames, 2 * N_CHANNELS
    temporal = np.zeros(n_time, complex)
    if rate == 0:
        temporal[0] = 1
    else:
        t = rate * np.arange(n_frames) / 200
        h = np.sin(2 * np.pi * t) * t**2 * np.exp(-3.5 * t)
        response = fft.fft(np.concatenate([h - h.mean(), np.zeros(2 * n_frames)]))
        gain = np.abs(response) / np.abs(response).max()
        if rate == 64:
            middle = n_time // 2 + 1
            gain[np.argmax(gain[:middle]) : middle + np.argmax(gain[middle:])] = 1
        temporal = gain * np.exp(1j * np.angle(response))
    spectral = np.zeros(n_spec)
    if scale == 0:
        spectral[0] = 1
    else:
        q = (6 * np.arange(N_CHANNELS + 1) / n_spec / scale) ** 2
        g = q * np.exp(-q)
        g /= g.max()
        if scale == 2:
            g[np.argmax(g) :] = 1
        spectral[: N_CHANNELS + 1] = g
        spectral[N_CHANNELS + 1 :] = g[1:-1][::-1]
    plane = np.outer(spectral, temporal)
    if rate == 0:
        sign = 1
    f_time, f_spec = np.sign(fft.fftfreq(n_time)), np.sign(fft.fftfreq(n_spec))
    if n_time % 2 == 0:
        f_time[n_time // 2] = 0
    f_spec[N_CHANNELS] = 0
    against = f_spec[:, None] * f_time * sign < 0
    plane[against] = 0
    return plane


def all_filters():
    for sign in (-1, 1):
        for scale in SCALES:
            for rate in RATES:
                if sign == -1 or (scale and rate):
                    yield scale, rate, sign


def slow_power(cochleagram, filters):
    """Mean power of one cochleagram in each filter, by two-dimensional transforms."""
    n_frames = cochleagram.shape[1]
    padded = np.zeros((2 * N_CHANNELS, 3 * n_frames))
    padded[:N_CHANNELS, :n_frames] = 100 * cochleagram
    spectrum = fft.fft2(padded)
    powers = []
    for scale, rate, sign in filters:
        filtered = fft.ifft2(spectrum * modulation_plane(scale, rate, sign, n_frames))
        cropped = filtered[:N_CHANNELS, :n_frames].real
        powers.append(np.maximum(cropped**2, 1e-8).mean(axis=1))
    return np.array(powers)


def assert_same_power(fast, slow):
    np.testing.assert_array_less(np.abs(fast - slow), np.where(slow > 1e-3, 1e-4 * slow, 1e-5))


@pytest.fixture(scope="module")
def reference():
    return golden.golden("spectrotemporal", "golden_spectrotemporal.json")


@pytest.fixture(scope="module")
def features():
    model = models.load("spectrotemporal", device="cpu")
    return model.embed(golden.chirp(20_000, 2, 0)[None])["avgpool"]


def test_oracle_has_the_published_filters():
    table = golden.golden("spectrotemporal", "filters_spectrotemporal.json")
    filters = list(all_filters())
    assert len(filters) == 111
    assert [[sign * rate, scale] for scale, rate, sign in filters] == table[
        "spec_temp_freqs_rate_hz_scale"
    ]
    for index in range(0, 111, 10):
        plane = modulation_plane(*filters[index], 390)
        assert np.abs(plane).sum() == pytest.approx(
            table["modulation_filters_abs_sum"][index], rel=1e-4
        )
        assert (np.abs(plane) ** 2).sum() == pytest.approx(
            table["modulation_filters_energy"][index], rel=1e-4
        )


def test_golden_features(features, reference):
    tap = reference["taps"]["avgpool"]
    assert features.shape == (1, 1, 111, 211)
    vector = features.double().flatten().numpy()
    assert_same_power(vector[:8], np.array(tap["first8"]))
    assert_same_power(vector[tap["strided_index"]], np.array(tap["strided8"]))
    assert_same_power(
        features[0, 0].double().mean(dim=1).numpy(),
        np.array(tap["per_filter_mean_over_frequency"]),
    )
    assert vector.std() == pytest.approx(tap["std"], rel=1e-4)


@pytest.mark.parametrize("n_frames", [111, 390], ids=["odd-length", "2s"])
def test_equals_the_literal_transcription(n_frames):
    generator = np.random.default_rng(n_frames)
    cochleagram = generator.uniform(0.004, 0.4, (N_CHANNELS, n_frames)) ** 2
    cochleagram[:, : n_frames // 3] = 0.004
    # At full length only the filters that touch both highest frequencies, and a few others.
    filters = list(all_filters())
    chosen = range(111) if n_frames == 111 else [0, 3, 9, 13, 52, 53, 61, 62, 69, 101, 109, 110]
    slow = slow_power(cochleagram, [filters[index] for index in chosen])
    batch = torch.from_numpy(cochleagram).float()[None]
    fast = ModulationFilters()(batch)[0].double().numpy()[list(chosen)]
    assert_same_power(fast, slow)


def test_first_filters_prefer_rising_frequency():
    frames, channels = np.arange(390) / 200, np.arange(N_CHANNELS) / 6
    rising = 0.2 + 0.1 * np.cos(2 * np.pi * (0.25 * channels[:, None] - 4 * frames))
    power = ModulationFilters()(torch.from_numpy(rising).float()[None])[0].mean(dim=1)
    filters = list(all_filters())
    # The mean level, too, has an edge at the end of the sound; look at directed filters only.
    directed = [i for i, (scale, rate, _) in enumerate(filters) if scale and rate]
    best = max(directed, key=lambda i: power[i])
    assert filters[best] == (0.25, 4, -1)
    assert power[best] > 5 * power[filters.index((0.25, 4, 1))]


def test_batch_equals_alone():
    model = models.load("braindnn_spectemp_filters", device="cpu")
    sounds = [golden.chirp(20_000, seconds, 0) for seconds in (0.5, 0.3, 0.5)]
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    together = model.embed(padded, [len(s) for s in sounds])["avgpool"]
    for sound, output in zip(sounds, together, strict=True):
        torch.testing.assert_close(
            model.embed(sound[None])["avgpool"][0], output, rtol=1e-5, atol=1e-6
        )


def test_silence_is_at_the_floor():
    model = models.load("spectrotemporal", device="cpu")
    power = model.embed(torch.zeros(1, 8000))["avgpool"]
    assert torch.isfinite(power).all()
    # The cochleagram's floor is constant; the first filter sees its mean over padded frames and
    # channels.
    assert power[0, 0, 0, 0] == pytest.approx((100 * 2e-8**0.3 / 6) ** 2, rel=1e-3)


def test_one_vector_per_sound():
    model = models.load("spectrotemporal", device="cpu")
    assert model.frame_rate("avgpool") == 0
