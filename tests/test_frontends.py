"""Front ends against float64 transcriptions and the originals' values."""

import golden
import numpy as np
import pytest
import torch

from analysis_lib.models.frontends import DecibelMel, KaldiSpectrogram, kaldi_mel

KALDI = {
    "BEATs": dict(sample_rate=16_000, frame_length=400, frame_shift=160, n_mels=128),
    "EnCodecMAE": dict(
        sample_rate=24_000, frame_length=637, frame_shift=318, n_mels=256, window="hanning"
    ),
    "Speech2Text": dict(sample_rate=16_000, frame_length=400, frame_shift=160, n_mels=80),
    "narrow": dict(
        sample_rate=8_000, frame_length=200, frame_shift=67, n_mels=20, fmin=100.0, fmax=3_000.0,
        preemphasis=0.0, remove_dc=False, power=1, log_floor=None, log_offset=0.01,
    ),
}  # fmt: skip


def mel(hertz):
    return 1127 * np.log(1 + hertz / 700)


def slow_fbank(
    wave, sample_rate, frame_length, frame_shift, n_mels, window="povey", fmin=20.0, fmax=None,
    preemphasis=0.97, remove_dc=True, power=2, log_floor=2**-23, log_offset=0.0,
):  # fmt: skip
    """One frame, one filter, one bin at a time, in float64."""
    n_fft = 1
    while n_fft < frame_length:
        n_fft *= 2
    k = np.arange(frame_length)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * k / (frame_length - 1))
    taper = taper**0.85 if window == "povey" else taper
    points = np.linspace(mel(fmin), mel(fmax or sample_rate / 2), n_mels + 2)
    rows = []
    for start in range(0, len(wave) - frame_length + 1, frame_shift):
        frame = wave[start : start + frame_length].astype(float)
        if remove_dc:
            frame = frame - frame.mean()
        emphasised = frame.copy()
        for i in range(1, frame_length):
            emphasised[i] = frame[i] - preemphasis * frame[i - 1]
        emphasised[0] = frame[0] - preemphasis * frame[0]
        spectrum = np.abs(np.fft.fft(emphasised * taper, n_fft)) ** power
        row = []
        for left, peak, right in zip(points, points[1:], points[2:], strict=False):
            total = 0.0
            for bin_ in range(n_fft // 2):
                m = mel(bin_ * sample_rate / n_fft)
                if left < m < right:
                    rising = m <= peak
                    weight = (m - left) / (peak - left) if rising else (right - m) / (right - peak)
                    total += weight * spectrum[bin_]
            row.append(np.log((max(total, log_floor) if log_floor else total) + log_offset))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("settings", KALDI.values(), ids=KALDI.keys())
def test_kaldi_against_float64(settings):
    wave = golden.chirp(settings["sample_rate"], 0.1, 3)
    spectrogram = KaldiSpectrogram(**settings)(wave[None])[0]
    # Nearly empty bins hold the rounding noise of a float32 FFT.
    np.testing.assert_allclose(spectrogram, slow_fbank(wave.numpy(), **settings), atol=2e-3)


@pytest.mark.parametrize("sample_rate, n_mels, n_fft", [(24_000, 256, 1024), (16_000, 128, 512)])
def test_filters_too_narrow_for_the_fft_are_empty(sample_rate, n_mels, n_fft):
    filters = kaldi_mel(sample_rate, n_fft, n_mels)
    assert np.count_nonzero(filters.sum(axis=0) == 0) == {256: 5, 128: 1}[n_mels]
    assert not filters[-1].any()


def test_linear_spectrogram():
    wave = golden.chirp(24_000, 0.2, 4) * 100
    log = KaldiSpectrogram(24_000, 637, 318, None, window="hanning")(wave[None])[0].numpy()
    frame = wave[318 : 318 + 637].double().numpy()
    frame -= frame.mean()
    assert log.shape == (14, 513)
    np.testing.assert_allclose(log[1, 0], np.log((frame**2).sum()), atol=1e-4)
    emphasised = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
    power = np.abs(np.fft.rfft(emphasised * np.hanning(637), 1024)) ** 2
    np.testing.assert_allclose(log[1, 1:], np.log(power[1:]), atol=1e-3)


def test_silence_is_finite():
    silence = torch.zeros(2, 4_000)
    for n_mels in (40, None):
        assert KaldiSpectrogram(16_000, 400, 160, n_mels)(silence).isfinite().all()
    np.testing.assert_allclose(DecibelMel()(silence), -100, rtol=1e-6)


@pytest.mark.parametrize("seconds, seed", [(2, 0), (5.3, 1)])
def test_golden_front_ends(seconds, seed):
    def block(family, file, key):
        return golden.golden(family, file)[f"{seconds}s"][key]

    kaldi = KaldiSpectrogram(**KALDI["BEATs"])(golden.chirp(16_000, seconds, seed)[None] * 2**15)
    expected = block("beats", "golden_strong_BEATs_iter3.json", "fbank_normalised")
    golden.assert_front_end((kaldi[0] - 15.41663) / (2 * 6.55582), expected, 5e-5)

    kaldi = KaldiSpectrogram(**KALDI["EnCodecMAE"])(golden.chirp(24_000, seconds, seed)[None])
    expected = block("encodecmae", "golden_strong_mel256-ec-small.json", "front_end_first_chunk")
    golden.assert_front_end((kaldi[0, :300] + 6.12) / 4.82, expected, 2e-4)

    decibels = DecibelMel()(golden.chirp(16_000, seconds, seed)[None])
    expected = block("dasheng", "golden_strong_dasheng_base.json", "mel_db")
    golden.assert_front_end(decibels[0].T, expected, 2e-4)


@pytest.mark.parametrize("seconds, seed", [(2, 0), (5.3, 1)])
def test_golden_vggish_settings(seconds, seed):
    front_end = KaldiSpectrogram(
        16_000, 400, 160, n_mels=64, fmin=125, fmax=7_500, window="hann", preemphasis=0.0,
        remove_dc=False, power=1, log_floor=None, log_offset=0.01,
    )  # fmt: skip
    values = front_end(golden.chirp(16_000, seconds, seed)[None])[0]
    stage = golden.golden("vggish", "golden_strong_vggish.json")[f"{seconds}s"]
    stage = stage["front_end"]["log_mel_all_frames"]
    flat = values.flatten()
    assert list(values.shape) == stage["shape"]
    np.testing.assert_allclose(flat[:8], stage["first8_flat"], atol=2e-4)
    np.testing.assert_allclose(flat[stage["strided_index_flat"]], stage["strided8_flat"], atol=2e-4)


def test_decibels_against_float64():
    wave = golden.chirp(16_000, 0.1, 5).double().numpy()
    padded = np.pad(wave, 256, mode="reflect")
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    power = np.array(
        [
            np.abs(np.fft.rfft(padded[i : i + 512] * taper)) ** 2
            for i in range(0, len(wave) + 1, 160)
        ]
    )
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66) / 2595) - 1)
    hertz = np.arange(257) * 31.25
    filters = [np.interp(hertz, edges[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(64)]
    expected = 10 * np.log10(np.maximum(np.array(filters) @ power.T, 1e-10))
    found = DecibelMel()(torch.from_numpy(wave.astype(np.float32))[None])[0]
    assert found.shape == (64, 11)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_dynamic_range_is_that_of_each_sound():
    loud = golden.chirp(16_000, 0.5, 0)
    gap = loud * (torch.arange(loud.numel()) < 4_000)
    faint = loud * 1e-5
    front_end = DecibelMel()
    alone = torch.cat([front_end(wave[None]) for wave in (loud, gap, faint)])
    torch.testing.assert_close(front_end(torch.stack([loud, gap, faint])), alone)
    spread = front_end(gap[None]).amax() - front_end(gap[None]).amin()
    np.testing.assert_allclose(spread, 120, atol=1e-3)


def test_tables_are_no_weights():
    for front_end in (KaldiSpectrogram(16_000, 400, 160, 40), DecibelMel()):
        assert not front_end.state_dict()
        assert len(list(front_end.buffers())) == 2
