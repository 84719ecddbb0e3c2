"""The whole grid of probes together against one configuration at a time.

    python benchmarks/probes.py [--clips 240 2000] [--sizes 5x128] [--repeats 3]

In turns, medians, by number of clips and size of the features:

* plain: a module, batch norm, Adam and a loop over configurations, as one would write it first;
* ours: ``train_probes`` with the same 16 configurations, seeds and epochs;
* the floor: the matrix products that both have to do, and nothing else. No probe can be faster
  than ``plain / floor`` times the plain one.
"""

import argparse
import json
import platform
from pathlib import Path

from analysis_lib.probes import metrics  # isort: skip (first: it sets how threads wait)

import numpy as np
import torch
from timing import in_turns

from analysis_lib.probes.recipe import (
    BATCH,
    DROPOUT,
    PAPER_GRID,
    dropout_kept,
    epoch_batches,
    epoch_generator,
    initial_parameters,
)
from analysis_lib.probes.training import ProbeData, train_probes


class PlainProbe(torch.nn.Module):
    """One probe, written plainly."""

    def __init__(self, configuration, n_layers, n_units, n_classes, seed, dtype):
        super().__init__()
        start = initial_parameters(configuration, n_layers, n_units, n_classes, seed, dtype)
        widths = (n_units, *configuration.hidden, n_classes)
        self.mix = torch.nn.Parameter(start["mix"])
        self.linears = torch.nn.ModuleList(
            torch.nn.Linear(a, b, bias=i == len(configuration.hidden), dtype=dtype)
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.norms = torch.nn.ModuleList(
            torch.nn.BatchNorm1d(width, dtype=dtype) for width in configuration.hidden
        )
        with torch.no_grad():
            for i, linear in enumerate(self.linears):
                linear.weight.copy_(start[f"weight{i}"])
            self.linears[-1].bias.zero_()

    def forward(self, x, masks=None):
        """Logits (n_clips, n_classes) of x (n_layers, n_clips, n_units)."""
        weights = self.mix.abs() / self.mix.abs().sum()
        h = (weights[:, None, None] * x).sum(dim=0)
        for i, norm in enumerate(self.norms):
            h = norm(self.linears[i](h))
            if masks is not None:
                h = h * masks[i]
            h = torch.relu(h)
        return self.linears[-1](h)


def train_plainly(data, configuration, seed=0, max_epochs=200, patience=20):
    """Train one configuration; returns its losses, best validation score and test logits."""
    n_layers, n_train, n_units = data.train.shape
    dtype = data.train.dtype
    n_classes = data.train_targets.shape[1]
    probe = PlainProbe(configuration, n_layers, n_units, n_classes, seed, dtype)
    optimiser = torch.optim.Adam(probe.parameters(), lr=configuration.learning_rate)
    if data.multilabel:
        loss_of = torch.nn.BCEWithLogitsLoss()
        targets = data.train_targets
    else:
        loss_of = torch.nn.CrossEntropyLoss()
        targets = data.train_targets.argmax(dim=1)
    losses, best, best_epoch, best_state = [], -np.inf, 0, None
    for epoch in range(1, max_epochs + 1):
        order, *dropouts = (
            epoch_generator(seed, epoch, torch.device("cpu"), layer)
            for layer in (None, *range(len(configuration.hidden)))
        )
        probe.train()
        total = 0.0
        for rows in epoch_batches(n_train, order):
            x = data.train[:, rows]
            masks = [
                dropout_kept(width, x.shape[1], dropout).T.to(dtype) / (1 - DROPOUT)
                for width, dropout in zip(configuration.hidden, dropouts, strict=True)
            ]
            optimiser.zero_grad()
            loss = loss_of(probe(x, masks), targets[rows])
            loss.backward()
            optimiser.step()
            total += loss.item() * x.shape[1]
        losses.append(total / n_train)
        probe.eval()
        with torch.no_grad():
            score = float(data.valid_score(probe(data.valid)))
        if score > best:
            best, best_epoch = score, epoch
            best_state = {name: value.clone() for name, value in probe.state_dict().items()}
        if epoch - best_epoch >= patience:
            break
    probe.load_state_dict(best_state)
    with torch.no_grad():
        return losses, best, probe(data.test)


def planted(n_clips, n_layers, n_units, n_classes=10, dtype=torch.float32, seed=0, noise=2.0):
    """Gaussian classes with noise; one layer carries the signal."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(n_clips) % n_classes
    centres = torch.randn(n_classes, n_units, generator=generator)
    x = noise * torch.randn(n_layers, n_clips, n_units, generator=generator)
    x[n_layers // 2] += centres[classes]
    targets = torch.nn.functional.one_hot(classes, n_classes).to(dtype)
    part = torch.randperm(n_clips, generator=generator)
    train, valid, test = (
        part[: n_clips * 3 // 5],
        part[n_clips * 3 // 5 : n_clips * 4 // 5],
        part[n_clips * 4 // 5 :],
    )
    x = x.to(dtype)
    return ProbeData(
        x[:, train], x[:, valid], x[:, test], targets[train], False,
        lambda logits: metrics.top1_accuracy(logits, targets[valid]),
    )  # fmt: skip


def floor(data, n_epochs):
    """Multiply what has to be multiplied, configuration by configuration, and nothing else.

    Per linear map: output, gradient of the weights, gradient of the input (of the first only
    where layers are mixed), and the output for the validation clips; into memory that is there.
    """
    n_layers, n_train, n_units = data.train.shape
    batches = [len(rows) for rows in torch.arange(n_train).split(BATCH)]
    products = []
    for configuration in PAPER_GRID:
        widths = (n_units, *configuration.hidden, data.train_targets.shape[1])
        for i, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
            needs_input = i > 0 or n_layers > 1
            for n in batches:
                products += [(n_out, n_in, n), (n_out, n, n_in)]
                products += [(n_in, n_out, n)] * needs_input
            products.append((n_out, n_in, data.valid.shape[1]))
    shapes = {side for a, b, c in products for side in ((a, b), (b, c), (a, c))}
    memory = {shape: torch.rand(shape) for shape in shapes}
    out = {shape: torch.empty(shape) for shape in shapes}

    def multiply():
        for _ in range(n_epochs):
            for a, b, c in products:
                torch.mm(memory[a, b], memory[b, c], out=out[a, c])

    return multiply


def compare(n_clips, n_layers, n_units, n_epochs, repeats):
    """Seconds per epoch, and the largest difference of the losses, for the paper's grid."""
    data = planted(n_clips, n_layers, n_units)
    options = {"max_epochs": n_epochs, "patience": n_epochs}
    *timings, products = in_turns(
        lambda: [train_plainly(data, configuration, **options)[0] for configuration in PAPER_GRID],
        lambda: train_probes(data, PAPER_GRID, **options).train_loss.numpy(),
        floor(data, n_epochs),
        repeats=repeats,
        warm_up=False,
    )
    difference = np.abs(np.array(timings[0].result) - timings[1].result).max()
    return *(timing.median / n_epochs for timing in (*timings, products)), difference


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[240, 500, 1000, 2000, 4500])
    parser.add_argument("--sizes", nargs="+", default=["5x64", "5x128", "5x256", "10x768"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the ratios here")
    arguments = parser.parse_args()
    report = {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads, cpu"}
    print(f"{torch.get_num_threads()} thread(s), the paper's 16 configurations, seconds per epoch")
    print(
        "clips  layers x units   plain    ours   floor   plain/ours  plain/floor  ours/floor  loss"
    )
    for size in arguments.sizes:
        n_layers, n_units = map(int, size.split("x"))
        for n_clips in arguments.clips:
            n_epochs = 20 if n_clips <= 1000 else 8
            *seconds, difference = compare(n_clips, n_layers, n_units, n_epochs, arguments.repeats)
            plain, ours, bare = seconds
            print(
                f"{n_clips:5d} {size:>15s} {plain:7.2f} {ours:7.2f} {bare:7.2f}"
                f"{plain / ours:13.2f}{plain / bare:13.2f}{ours / bare:12.2f}  {difference:.0e}",
                flush=True,
            )
            report[f"{n_clips} clips of {size}"] = {
                "plain_over_ours": round(plain / ours, 2),
                "plain_over_floor": round(plain / bare, 2),
            }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
