"""The whole grid of probes at once against one configuration at a time.

``python benchmarks/probes.py`` prints the ratio of the two by number of clips, measured side by
side on this machine. The reference is a plain module and optimiser, as one would write it first.
"""

import time

import numpy as np
import torch

from analysis_lib.probes import metrics
from analysis_lib.probes.training import (
    PAPER_GRID,
    ProbeData,
    dropout_mask,
    epoch_batches,
    epoch_generator,
    initial_parameters,
    train_probes,
)


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
        generator = epoch_generator(seed, epoch, torch.device("cpu"))
        probe.train()
        total = 0.0
        for rows in epoch_batches(n_train, generator):
            x = data.train[:, rows]
            masks = [
                dropout_mask(width, x.shape[1], generator, dtype).T
                for width in configuration.hidden
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


def compare(n_clips, n_layers, n_units, max_epochs):
    """Seconds of both ways, for the paper's grid."""
    data = planted(n_clips, n_layers, n_units)
    start = time.perf_counter()
    for configuration in PAPER_GRID:
        train_plainly(data, configuration, max_epochs=max_epochs, patience=max_epochs)
    plain = time.perf_counter() - start
    start = time.perf_counter()
    train_probes(data, PAPER_GRID, max_epochs=max_epochs, patience=max_epochs)
    return plain, time.perf_counter() - start


def main():
    """Print the table."""
    print(f"torch threads: {torch.get_num_threads()}")
    print("clips layers units   one at a time    at once   ratio")
    for n_clips, n_layers, n_units, n_epochs in (
        (240, 1, 128, 10),
        (240, 6, 128, 10),
        (600, 6, 128, 6),
        (2000, 6, 128, 3),
        (5000, 6, 128, 2),
        (600, 10, 768, 5),
        (2000, 10, 768, 2),
    ):
        plain, batched = compare(n_clips, n_layers, n_units, n_epochs)
        print(
            f"{n_clips:5d} {n_layers:6d} {n_units:5d} {plain / n_epochs:10.2f} s/epoch "
            f"{batched / n_epochs:6.2f} s/epoch {plain / batched:5.1f}"
        )


if __name__ == "__main__":
    main()
