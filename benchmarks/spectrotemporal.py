"""Speed of the SpectroTemporal baseline against a literal transcription of its definition.

    python benchmarks/spectrotemporal.py [--repeats 5] [--device auto]

Both run side by side on the same two-second sound, in single precision. The transcription
multiplies the cochleagram's two-dimensional transform by the 111 transfer functions, all at once
as the definition reads (1.3 GB), and one at a time, which is easier on the memory. Medians are
printed, and the largest difference between the results.
"""

import argparse
from functools import partial

import numpy as np
import torch
from timing import in_turns

from analysis_lib import models
from analysis_lib.device import resolve_device
from analysis_lib.models.cochleagram import cochlear_filters, normalize_level

N_CHANNELS, N_FRAMES, N_SAMPLES = 211, 390, 40_000


class LiteralTranscription:
    """The published steps, one by one, with full complex transforms."""

    def __init__(self, device):
        position = (np.arange(1001) - 500.5) / 100
        kernel = np.sinc(position) / 100 * np.kaiser(1001, 5)
        self.kernel = torch.tensor(kernel, dtype=torch.float32, device=device)[None, None]
        self.cochlear = torch.tensor(
            cochlear_filters(N_SAMPLES), dtype=torch.complex64, device=device
        )
        self.modulation = torch.stack([
            torch.tensor(modulation_filter(scale, rate, sign), dtype=torch.complex64)
            for sign in (-1, 1)
            for scale in (0, 0.0625, 0.125, 0.25, 0.5, 1, 2)
            for rate in (0, 0.5, 1, 2, 4, 8, 16, 32, 64)
            if sign == -1 or (scale and rate)
        ]).to(device)  # fmt: skip

    def cochleagram(self, wave):
        """(time,) -> (211, 390)."""
        product = torch.fft.rfft(wave.clamp(-1, 1)) * self.cochlear
        padded = torch.nn.functional.pad(product, (0, N_SAMPLES - product.shape[-1]))
        subbands = torch.fft.ifft(padded)
        envelopes = (subbands.real**2 + subbands.imag**2).clamp(min=1e-16).sqrt()
        frames = torch.nn.functional.conv1d(envelopes[:, None], self.kernel, stride=100)[:, 0]
        return (frames.clamp(min=0) + 1e-8) ** 0.3

    def power(self, cochleagram, n_at_once=1):
        """(211, 390) -> (111, 211)."""
        padded = torch.nn.functional.pad(100 * cochleagram, (0, 2 * N_FRAMES, 0, N_CHANNELS))
        spectrum = torch.fft.fft2(padded)
        outputs = []
        for transfer in self.modulation.split(n_at_once):
            filtered = torch.fft.ifft2(spectrum * transfer)[:, :N_CHANNELS, :N_FRAMES].real
            outputs.append((filtered**2).clamp(min=1e-8).mean(dim=2))
        return torch.cat(outputs)


def modulation_filter(scale, rate, sign):
    """Transfer function of one filter, shape (422, 1170)."""
    n_time, n_spec = 3 * N_FRAMES, 2 * N_CHANNELS
    temporal = np.eye(1, n_time)[0].astype(complex)
    if rate:
        t = rate * np.arange(N_FRAMES) / 200
        h = np.sin(2 * np.pi * t) * t**2 * np.exp(-3.5 * t)
        temporal = np.fft.fft(h - h.mean(), n_time)
        temporal /= np.abs(temporal).max()
        if rate == 64:
            middle = n_time // 2 + 1
            gain = np.abs(temporal)
            passed = slice(gain[:middle].argmax(), middle + gain[middle:].argmax())
            temporal[passed] = np.exp(1j * np.angle(temporal[passed]))
    spectral = np.eye(1, n_spec)[0]
    if scale:
        q = (6 * np.arange(N_CHANNELS + 1) / n_spec / scale) ** 2
        gain = q * np.exp(-q) * np.e
        gain /= gain.max()
        if scale == 2:
            gain[gain.argmax() :] = 1
        spectral = np.concatenate([gain, gain[-2:0:-1]])
    plane = np.outer(spectral, temporal)
    if rate and scale:
        f_time, f_spec = np.sign(np.fft.fftfreq(n_time)), np.sign(np.fft.fftfreq(n_spec))
        f_time[n_time // 2] = f_spec[N_CHANNELS] = 0
        plane[f_spec[:, None] * f_time * sign < 0] = 0
    return plane


@torch.inference_mode()
def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)

    literal = LiteralTranscription(device)
    transform, bank = models.load("spectrotemporal", device=device).network
    wave = 0.1 * torch.randn(1, N_SAMPLES, generator=torch.Generator().manual_seed(0))
    wave = normalize_level(wave.to(device))
    cochleagram = transform(wave)
    fast = {
        "cochleagram": lambda: transform(wave),
        "modulation power": lambda: bank(cochleagram),
        "whole model": lambda: bank(transform(wave)),
    }
    slow = {
        "cochleagram": lambda n: literal.cochleagram(wave[0]),
        "modulation power": lambda n: literal.power(cochleagram[0], n),
        "whole model": lambda n: literal.power(literal.cochleagram(wave[0]), n),
    }
    print(f"one sound of 2 s, {device}, {torch.get_num_threads()} thread(s), medians in ms")
    print(f"{'':18s}{'here':>8s}{'literal':>10s}{'ratio':>7s}{'one by one':>13s}{'ratio':>7s}")
    for part, function in fast.items():
        timings = in_turns(
            function, partial(slow[part], 111), partial(slow[part], 1),
            repeats=arguments.repeats, device=device,
        )  # fmt: skip
        here, at_once, one_by_one = (timing.median for timing in timings)
        print(
            f"{part:18s}{1e3 * here:8.0f}{1e3 * at_once:10.0f}{at_once / here:6.1f}x"
            f"{1e3 * one_by_one:13.0f}{one_by_one / here:6.1f}x"
        )
    expected, result = literal.power(literal.cochleagram(wave[0])), bank(transform(wave))[0]
    difference = ((result - expected).abs() / expected.clamp(min=1e-3)).max()
    print(f"largest difference, relative above 1e-3: {difference:.1e}")


if __name__ == "__main__":
    main()
