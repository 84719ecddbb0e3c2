"""Log-mel and cepstra against SciPy and the formulas."""

import golden
import numpy as np
import pytest
import torch
from scipy import fft, signal

from analysis_lib import models
from analysis_lib.errors import AudioError
from analysis_lib.models.handcrafted import dct_matrix


def mel_power(wave, n_mels=128, n_fft=1024):
    """Mel power by SciPy's spectrogram and triangles drawn one by one."""
    _, _, power = signal.spectrogram(
        wave, window=signal.get_window("hann", 400), noverlap=240, nfft=n_fft,
        detrend=False, scaling="density", fs=1.0, mode="psd",
    )  # fmt: skip
    # Undo SciPy's density scaling: one-sided spectra carry twice the power, per window energy.
    power *= (signal.get_window("hann", 400) ** 2).sum()
    power[1:-1] /= 2

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(20), mel(8000), n_mels + 2)
    bins = mel(np.arange(n_fft // 2 + 1) * 16_000 / n_fft)
    triangles = np.array(
        [np.interp(bins, edges[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(n_mels)]
    )
    return (triangles @ power).T


@pytest.fixture(scope="module")
def wave():
    return golden.chirp(16_000, 1.3, 0)


def test_log_mel_equals_scipy(wave):
    output = models.load("log-mel", device="cpu").embed(wave[None])["log_mel"][0].numpy()
    expected = np.log(mel_power(wave.double().numpy()))
    assert output.shape == expected.shape == ((len(wave) - 400) // 160 + 1, 128)
    np.testing.assert_allclose(output, expected, atol=1e-3)


def test_mfcc_is_the_cosine_transform_of_log_mel(wave):
    output = models.load("mfcc", device="cpu").embed(wave[None])["mfcc"][0].numpy()
    log_mel = np.log(mel_power(wave.double().numpy()))
    expected = fft.dct(log_mel, type=2, norm="ortho", axis=1)[:, :40]
    np.testing.assert_allclose(output, expected, atol=2e-3)


def test_dct_is_orthonormal():
    matrix = dct_matrix(128, 128).double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(128).double(), rtol=0, atol=1e-6)


def test_no_band_is_empty():
    noise = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    bands = models.load("log-mel", device="cpu").embed(noise)["log_mel"][0].mean(dim=0)
    assert bands.min() > -5


@pytest.mark.parametrize("name", ["log-mel", "mfcc"])
def test_ragged_batch_equals_alone(name):
    model = models.load(name, device="cpu")
    (layer,) = model.layers
    sounds = [golden.chirp(16_000, seconds, 1) for seconds in (0.5, 0.025, 0.31)]
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    together = model.embed(padded, [len(s) for s in sounds])[layer]
    for sound, output in zip(sounds, together, strict=True):
        alone = model.embed(sound[None])[layer][0]
        torch.testing.assert_close(output[: len(alone)], alone, rtol=1e-5, atol=1e-5)
        assert output[len(alone) :].isnan().all()


def test_silence_is_finite_and_short_sounds_are_refused():
    model = models.load("mfcc", device="cpu")
    assert torch.isfinite(model.embed(torch.zeros(1, 800))["mfcc"]).all()
    with pytest.raises(AudioError, match="at least 400 samples"):
        model.embed(torch.zeros(1, 399))


def test_frames_are_where_they_say():
    model = models.load("log-mel", device="cpu")
    wave = torch.zeros(1, 16_000)
    wave[0, 8000] = 1.0
    output = model.embed(wave)["log_mel"][0]
    times = model.frame_times("log_mel", len(output))
    peak = times[output.mean(dim=1).argmax()]
    assert peak == pytest.approx(0.5, abs=0.5 / model.frame_rate("log_mel") + 1e-4)
