"""Extraction: how much of a bare forward loop's speed, and memory against the number of sounds.

    python benchmarks/extraction.py [--scale 1] [--device auto] [--repeats 3]

Side by side in one run, medians of several repetitions, with fresh weights:

* ours: ``extraction.extract``, from sounds to stored features: reading, hashing, batching, checks,
  pooling over time, writing;
* the bare loop: the forward passes of the same batches, already in memory, and nothing else.

Memory is the growth of the process's peak from a run over few sounds to one over many; each run
is a process of its own.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from timing import in_turns

from analysis_lib import extraction, models
from analysis_lib.data import Sounds
from analysis_lib.device import peak_memory, resolve_device

FRESH = {"untrained": True}
# Three families of the paper, and the worst case: a network that takes a millisecond per sound.
FAMILIES = {"BEATs_iter1": FRESH, "dasheng_base": FRESH, "mel256-ec-small": FRESH, "small-cnn": {}}
N_SOUNDS = {"BEATs_iter1": 16, "dasheng_base": 32, "mel256-ec-small": 32, "small-cnn": 256}
SECONDS = 2.0


def make_sounds(n_sounds, rate, seed=0):
    """Noise of two seconds each, at the model's rate."""
    rng = np.random.default_rng(seed)
    waves = rng.uniform(-0.5, 0.5, (n_sounds, round(SECONDS * rate))).astype("f4")
    return Sounds([f"sound{i:05d}" for i in range(n_sounds)], list(waves), None, rate)


def compare(name, n_sounds, batch_size, device, repeats):
    """Throughput of ours and of the bare loop, in seconds of audio per second."""
    model = models.load(name, device=str(device), **FAMILIES[name])
    sounds = make_sounds(n_sounds, model.sample_rate)
    waves = torch.from_numpy(np.stack([sounds.waveform(sound) for sound in sounds]))
    batches = [
        batch for chunk in waves.split(extraction.CHUNK) for batch in chunk.split(batch_size)
    ]

    def bare():
        with torch.inference_mode():
            for batch in batches:
                model._forward(batch.to(device), model.layers)

    def ours():
        with tempfile.TemporaryDirectory() as cache:
            os.environ["BRAINBOOK_CACHE"] = cache
            extraction.extract(model, sounds, batch_size=batch_size)

    timings = in_turns(bare, ours, repeats=repeats, device=device)
    bare_seconds, our_seconds = (timing.median for timing in timings)
    pairs = zip(*(timing.seconds for timing in timings), strict=True)
    return {
        "sounds": n_sounds,
        "batch": batch_size,
        "audio_seconds_per_second": round(n_sounds * SECONDS / our_seconds, 1),
        "bare_audio_seconds_per_second": round(n_sounds * SECONDS / bare_seconds, 1),
        "throughput_of_bare": round(statistics.median(b / o for b, o in pairs), 3),
    }


def run_in_files(name, device, n_sounds, connection):
    """Extract from files on disk, in a process of its own; send back its peak memory."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["BRAINBOOK_CACHE"] = folder
        model = models.load(name, device=device, **FAMILIES[name])
        rng, files = np.random.default_rng(0), []
        for i in range(n_sounds):
            files.append(Path(folder) / f"sound{i:05d}.wav")
            noise = rng.uniform(-0.5, 0.5, round(SECONDS * model.sample_rate))
            soundfile.write(files[-1], noise, model.sample_rate)
        sounds = Sounds([file.stem for file in files], files)
        extraction.extract(model, sounds, batch_size=8)
    connection.send(peak_memory(torch.device(device)))


def memory(name, device, counts):
    """Peak memory of a process in MB against the number of sounds."""
    context, peaks = multiprocessing.get_context("spawn"), {}
    for n_sounds in counts:
        here, there = context.Pipe()
        child = context.Process(target=run_in_files, args=(name, str(device), n_sounds, there))
        child.start()
        peaks[n_sounds] = round(here.recv() / 1e6)
        child.join()
    return peaks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=1, help="times the number of sounds")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", default="benchmarks/results/extraction.json")
    options = parser.parse_args()
    device = resolve_device(options.device)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {device}"
    counts = {name: options.scale * n_sounds for name, n_sounds in N_SOUNDS.items()}
    report = {"machine": machine, "seconds_per_sound": SECONDS, "families": {}}
    # First, while this process is small: a child's peak begins at its parent's.
    report["peak_memory_mb"] = {
        name: memory(name, device, (extraction.CHUNK, 3 * extraction.CHUNK)) for name in counts
    }
    print("peak memory (MB) by number of sounds", report["peak_memory_mb"])
    for name, n_sounds in counts.items():
        found = compare(name, n_sounds, options.batch, device, options.repeats)
        report["families"][name] = found
        print(f"{name:16s}{found['throughput_of_bare']:7.1%} of the bare loop", found)
    Path(options.json).parent.mkdir(parents=True, exist_ok=True)
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
