"""Fine-tuning: preparing audio, a training step against a bare loop, larger batches.

    python benchmarks/finetuning.py [--minutes 12] [--device auto] [--repeats 3]

Side by side in one run, medians of several repetitions, with fresh weights:

* audio: a run as a stereo WAV of 44,100 Hz. The paper's way opens the file for each volume,
  resamples its 1.49 s and keeps lists of numbers; ours resamples the run once and keeps that. The
  first use and every later one (each depth, seed and subject) are told apart, since the paper
  prepares the sound anew for every training. Its resampler is that of the librosa 0.8.0 which the
  logs of its trainings name (``kaiser_best`` of resampy: measured where that is installed), and the
  one that librosa uses today (soxr), whose list of requirements is public.
* step: ``training.fit`` with segments cut from memory, against the same network and optimiser in a
  bare loop over the same batches, already cut.
* layers: a step from conv4 whose frozen layers are computed each time, against one that reads
  their output.
* batch: sound trained on per second, by the number of segments in a step.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from analysis_lib import finetuning, training
from analysis_lib.data import friends
from analysis_lib.device import resolve_device
from analysis_lib.finetuning.segments import Segments, precompute
from analysis_lib.models.soundnet import SoundNet8

NATIVE, RATE, TR, N_TARGETS = 44_100, 22_050, 1.49, 210


def seconds(function, device=None):
    """Wall time of a call."""
    started = time.perf_counter()
    function()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def write_run(folder, minutes):
    """Write a run of noise in the npz layout, and its sound as a stereo WAV."""
    rng = np.random.default_rng(0)
    n_trs = int(minutes * 60 / TR)
    n_samples = int(np.ceil(n_trs * TR * NATIVE)) + 1
    wave = 0.1 * rng.standard_normal((n_samples, 2)).astype("f4")
    soundfile.write(folder / "friends_s01e01a.wav", wave, NATIVE, "PCM_16")
    bold = rng.standard_normal((n_trs, N_TARGETS)).astype("f4")
    np.savez(folder / "sub-01_ses-001_task-s01e01a.npz", X=bold)
    return n_trs


def resamplers():
    """Name what the paper's way may resample a chunk with: name to function."""
    found = {"paper_soxr": lambda chunk: soxr.resample(chunk, NATIVE, RATE, "HQ")}
    if importlib.util.find_spec("resampy"):
        from resampy import resample

        found["paper"] = lambda chunk: resample(chunk, NATIVE, RATE, filter="kaiser_best")
    return found


def papers_way(path, n_trs, resample):
    """Open the file and resample once per volume; keep lists of numbers."""
    chunks = []
    for i in range(n_trs):
        with soundfile.SoundFile(path) as file:
            file.seek(int(i * TR * NATIVE))
            chunk = file.read(int(TR * NATIVE), dtype="float32")
        chunks.append(resample(chunk.mean(axis=1)).tolist())
    return chunks


def audio(folder, n_trs, repeats):
    """Seconds to prepare a run's sound, each way."""
    run = friends.open(folder, "sub-01").runs["s01e01a"]
    ways = {
        name: partial(papers_way, folder / "friends_s01e01a.wav", n_trs, resample)
        for name, resample in resamplers().items()
    }
    ways["first_use"] = ways["later_use"] = partial(run.audio, RATE)
    for resample in resamplers().values():
        papers_way(folder / "friends_s01e01a.wav", 1, resample)  # resampy compiles what it needs
    times = {name: [] for name in ways}
    for repeat in range(repeats):
        os.environ["BRAINBOOK_CACHE"] = str(folder / f"cache-{repeat}")
        for name, way in ways.items():
            times[name].append(seconds(way))
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratios = {
        f"{use}_times_faster_than_{name}": round(medians[name] / medians[use], 1)
        for name in medians
        if name.startswith("paper")
        for use in ("first_use", "later_use")
    }
    return {**{f"{name}_s": round(value, 3) for name, value in medians.items()}, **ratios}


def built(recordings, settings, device):
    """Make a fresh model and its segments."""
    torch.manual_seed(0)
    model = finetuning.EncodingModel(SoundNet8(), N_TARGETS, settings=settings).to(device)
    ready = precompute(recordings, model, device, progress=False)
    segments = Segments(ready, list(ready.inputs), settings, model.first)
    optimiser = torch.optim.AdamW(model.groups(), weight_decay=settings.weight_decay)
    return model, segments, optimiser


def step_seconds(recordings, settings, device, n_steps, fit):
    """Seconds per step of ``training.fit``, or of a bare loop."""
    model, segments, optimiser = built(recordings, settings, device)
    batches = [segments.batch_of(step, 0, 1) for step in range(n_steps)]

    def bare():
        model.train()
        for batch in batches:
            optimiser.zero_grad()
            loss, weight, _ = model(*(tensor.to(device) for tensor in batch))
            (loss / weight).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
            optimiser.step()

    if not fit:
        bare()
        return seconds(bare, device) / n_steps
    with tempfile.TemporaryDirectory() as folder:
        training.fit(
            model, segments.batch_of, optimiser, folder, n_steps=2, device=str(device),
            progress=False,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        done = training.fit(
            model, segments.batch_of, optimiser, folder, n_steps=n_steps, device=str(device),
            progress=False,
        )  # fmt: skip
        return float(done.history["seconds"].sum()) / n_steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", default="benchmarks/results/finetuning.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = resolve_device(options.device)
    report = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {device}"}
    settings = finetuning.Settings(segment_trs=70, n_taps=5, batch_size=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_trs = write_run(folder, options.minutes)
        report["audio"] = {"minutes": options.minutes, **audio(folder, n_trs, options.repeats)}
        print("audio", report["audio"])
        os.environ["BRAINBOOK_CACHE"] = str(folder / "cache")
        data = [friends.open(folder, "sub-01")]
        recordings = finetuning.record(data, ["s01e01a"], settings, progress=False)

        pairs = [
            [step_seconds(recordings, settings, device, options.steps, fit) for fit in (0, 1)]
            for _ in range(options.repeats)
        ]
        bare, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
        report["step"] = {
            "bare_s": round(bare, 3),
            "fit_s": round(ours, 3),
            "speed_of_bare": round(statistics.median(b / o for b, o in pairs), 3),
        }
        print("step", report["step"])

        whole = replace(settings, start="conv1", statistics="frozen")
        all_layers = step_seconds(recordings, whole, device, 2, fit=False)
        report["layers"] = {
            "conv1_to_conv7_s": round(all_layers, 3),
            "conv4_to_conv7_s": round(bare, 3),
            "times_faster": round(all_layers / bare, 1),
        }
        print("layers", report["layers"])

        report["batch"] = {}
        for size in (1, 2, 4, 8):
            larger = replace(settings, batch_size=size)
            took = step_seconds(recordings, larger, device, max(1, options.steps // size), False)
            report["batch"][size] = round(size * settings.segment_trs * TR / took, 1)
        print("sound per second of training, by segments in a step", report["batch"])
    # One epoch over the 109 training runs of the paper, and its 29 to 43 epochs.
    per_epoch = 109 * 479 * TR / max(report["batch"].values()) / 3600
    report["paper_hours"] = [round(n * per_epoch, 2) for n in (29, 43)]
    print("hours for the paper's training at this speed, 29 to 43 epochs", report["paper_hours"])
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
