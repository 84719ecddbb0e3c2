"""Training the probes of a whole grid together.

A probe mixes the layers of a representation with learned non-negative weights and classifies the
mix with a small network (Pepino et al. 2025, after HEAR)::

    x = sum_l w_l x_l,  w = |a| / sum |a|        then        [linear, batch norm, dropout, ReLU]
    once or twice                                then        linear

All configurations go through the epochs together. What does not depend on them is done once: a
batch is gathered, its dropout masks are drawn, the validation clips are scored. On a GPU
configurations of one shape are also computed together, by batched matrix products. On a CPU every
core takes one configuration after the other: a batch is too small to be shared out among cores, and
a product of stacked matrices no faster than one after the other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch

from ..device import Every, available_memory, each_core, require_memory
from ..errors import DataError, ParameterError
from .recipe import (
    BATCH,
    INITIALISERS,
    PAPER_GRID,
    Configuration,
    dropout_kept,
    epoch_batches,
    epoch_generator,
    initial_parameters,
)
from .stack import Stack, Workspace

__all__ = ["ProbeData", "TrainedProbes", "train_probes"]


@dataclass(frozen=True)
class ProbeData:
    """What probes are trained, chosen and tested on.

    Attributes
    ----------
    train, valid, test : tensor of shape (n_layers, n_clips, n_units)
    train_targets : tensor of shape (n_clips, n_classes)
        0 or 1; one-hot unless ``multilabel``.
    multilabel : bool
        Sigmoid and binary cross-entropy instead of softmax and cross-entropy.
    valid_score : callable of (..., n_clips, n_classes) logits to (...,) scores
        What is maximised.
    """

    train: torch.Tensor
    valid: torch.Tensor
    test: torch.Tensor
    train_targets: torch.Tensor
    multilabel: bool
    valid_score: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class TrainedProbes:
    """Outcome for each configuration, in the order given.

    Attributes
    ----------
    valid_score : tensor of shape (n_configurations,)
        Best over epochs.
    best_epoch, n_epochs : tensor of shape (n_configurations,)
        Counted from 1.
    test_logits : tensor of shape (n_configurations, n_test, n_classes)
        At the best epoch.
    valid_logits : tensor of shape (n_configurations, n_valid, n_classes)
        At the best epoch.
    layer_weights : tensor of shape (n_configurations, n_layers)
        At the best epoch; they sum to 1.
    train_loss : tensor of shape (n_configurations, max_epochs)
        Mean over each epoch; NaN once stopped.
    """

    valid_score: torch.Tensor
    best_epoch: torch.Tensor
    n_epochs: torch.Tensor
    test_logits: torch.Tensor
    valid_logits: torch.Tensor
    layer_weights: torch.Tensor
    train_loss: torch.Tensor


def train_probes(
    data: ProbeData,
    configurations: Sequence[Configuration] = PAPER_GRID,
    seed: int = 0,
    max_epochs: int = 200,
    patience: int = 20,
    check_every: int = 1,
    n_configurations_batch: int | str = "auto",
) -> TrainedProbes:
    """Train a probe per configuration with Adam and early stopping.

    Parameters
    ----------
    data : ProbeData
        All tensors on the device that is to compute, in one floating type.
    configurations : sequence of Configuration
        By default the paper's grid.
    seed : int
        Decides initial weights, order of clips and dropout.
    max_epochs : int
        Longest training.
    patience : int
        A configuration stops after this many checks without a better validation score.
    check_every : int
        Epochs between two checks.
    n_configurations_batch : int or "auto"
        How many configurations of one shape are stacked and computed at once; changes nothing but
        speed and memory. ``"auto"`` takes all that fit on a GPU, and one on a CPU.

    Raises
    ------
    DataError
        When there are fewer than two clips to train on.
    ParameterError
        When a configuration names unknown initial weights.
    MemoryBudgetError
        When the grid would not fit.
    """
    if data.train.shape[1] < 2:
        raise DataError(f"a probe needs at least two clips to train on, not {data.train.shape[1]}")
    for configuration in configurations:
        if configuration.init not in INITIALISERS:
            raise ParameterError(
                f"init {configuration.init!r} must be one of {', '.join(INITIALISERS)}"
            )
    grid = _Grid(data, configurations, seed, n_configurations_batch)
    with each_core(data.train.device, len(grid.stacks)) as every:
        grid.fit(max_epochs, patience, check_every, every)
        return grid.outcome(every)


class _Grid:
    """All configurations, as stacks that take turns at every batch."""

    def __init__(self, data: ProbeData, configurations, seed: int, stack_size: int | str):
        self.data, self.seed = data, seed
        self.device, self.dtype = data.train.device, data.train.dtype
        groups = {}
        for i, configuration in enumerate(configurations):
            groups.setdefault(configuration.hidden, []).append(i)
        # The largest first, so that no thread is left with one at the end.
        groups = dict(sorted(groups.items(), key=lambda group: sum(group[0]), reverse=True))
        size = _stack_size(data, groups, stack_size)
        members = [
            group[start : start + size]
            for group in groups.values()
            for start in range(0, len(group), size)
        ]
        n_layers, _, n_units = data.train.shape
        n_classes = data.train_targets.shape[1]
        shape = (n_layers, n_units, n_classes, seed, self.dtype)

        @cache
        def drawn(hidden, init):  # equal at all learning rates
            return initial_parameters(Configuration(hidden, 0.0, init), *shape)

        space = Workspace(self.device, self.dtype)
        parts = [[configurations[i] for i in part] for part in members]
        self.stacks = [
            Stack(
                part,
                [drawn(one.hidden, one.init) for one in part],
                data.multilabel,
                self.device,
                space,
            )
            for part in parts
        ]
        self.members = members  # configurations of each stack
        self.active = [list(part) for part in members]  # those that still train
        n = len(configurations)
        self.best_score = torch.full((n,), -math.inf, dtype=torch.float64)
        self.best_epoch = torch.zeros(n, dtype=torch.long)
        self.n_epochs = torch.zeros(n, dtype=torch.long)
        # (n_classes, n_clips), and one-hot if exactly one label is meant to be there.
        self.targets = data.train_targets.T.to(self.dtype).contiguous()

    def fit(self, max_epochs: int, patience: int, check_every: int, every: Every) -> None:
        """Train until every configuration has stopped."""
        self.train_loss = torch.full((len(self.n_epochs), max_epochs), math.nan)
        for epoch in range(1, max_epochs + 1):
            active = [i for part in self.active for i in part]
            self.train_loss[active, epoch - 1] = self._train_epoch(epoch, every)
            self.n_epochs[active] = epoch
            if epoch % check_every and epoch < max_epochs:
                continue
            self._check(active, epoch, every)
            waited = epoch - self.best_epoch
            for k, part in enumerate(self.active):
                kept = [row for row, i in enumerate(part) if waited[i] < patience * check_every]
                if kept and len(kept) < len(part):
                    self.stacks[k].keep(kept)
                self.active[k] = [part[row] for row in kept]
            if not any(self.active):
                return

    def outcome(self, every: Every) -> TrainedProbes:
        """Everything at its best epoch, in the order of the configurations."""
        order = torch.tensor([i for part in self.members for i in part]).argsort()
        test, valid = (
            torch.cat(every(lambda stack, x=x: _predicted(stack, x, best=True), self.stacks))
            for x in (self.data.test, self.data.valid)
        )
        test, valid = test.cpu()[order], valid.cpu()[order]
        weights = torch.cat([stack.mixing_weights() for stack in self.stacks]).cpu()[order]
        return TrainedProbes(
            self.best_score, self.best_epoch, self.n_epochs, test, valid, weights, self.train_loss
        )

    def _training(self) -> list[Stack]:
        return [stack for stack, part in zip(self.stacks, self.active, strict=True) if part]

    def _train_epoch(self, epoch: int, every: Every) -> torch.Tensor:
        """Take one pass over the training clips; mean loss of the active configurations."""
        stacks, n_train = self._training(), self.data.train.shape[1]
        layers = sorted({(i, width) for stack in stacks for i, width in enumerate(stack.hidden)})
        generators = {
            (i, width): epoch_generator(self.seed, epoch, self.device, i) for i, width in layers
        }
        totals = 0
        for rows in epoch_batches(n_train, epoch_generator(self.seed, epoch, self.device)):
            x, targets = self.data.train[:, rows], self.targets[:, rows]
            drawn = every(lambda layer, n=x.shape[1]: self._ceiling(layer, n, generators), layers)
            ceilings = dict(zip(layers, drawn, strict=True))
            losses = every(partial(_step, x=x, targets=targets, ceilings=ceilings), stacks)
            totals = totals + torch.cat(losses) * x.shape[1]
        return (totals / n_train).float().cpu()

    def _check(self, active: Sequence[int], epoch: int, every: Every) -> None:
        """Score the validation clips, and remember what is better than ever."""
        valid = self.data.valid
        logits = torch.cat(every(lambda stack: _predicted(stack, valid), self._training()))
        score = self.data.valid_score(logits).double().cpu().nan_to_num(nan=-math.inf)
        better = score > self.best_score[active]
        improved = {i for i, is_better in zip(active, better.tolist(), strict=True) if is_better}
        self.best_score[active] = torch.maximum(score, self.best_score[active])
        self.best_epoch[sorted(improved)] = epoch
        rows = {
            stack: {row: members.index(i) for row, i in enumerate(part) if i in improved}
            for stack, part, members in zip(self.stacks, self.active, self.members, strict=True)
        }
        every(lambda stack: stack.remember(rows[stack]), self.stacks)

    def _ceiling(self, layer, n_clips: int, generators) -> torch.Tensor:
        """Infinite where dropout keeps, 0 elsewhere: clamping to it is dropout and ReLU."""
        kept = dropout_kept(layer[1], n_clips, generators[layer])
        return torch.where(kept, torch.inf, 0.0).to(self.dtype)


def _step(stack: Stack, x, targets, ceilings) -> torch.Tensor:
    return stack.step(x, targets, [ceilings[layer] for layer in enumerate(stack.hidden)])


def _predicted(stack: Stack, x: torch.Tensor, best: bool = False) -> torch.Tensor:
    """Logits of all clips, shape (n_configurations, n_clips, n_classes), in blocks of clips."""
    if x.shape[1] <= 4 * BATCH:
        return stack.predict(x, best)
    return torch.cat([stack.predict(part, best) for part in x.split(4 * BATCH, dim=1)], dim=1)


def _stack_size(data: ProbeData, groups: dict, wanted: int | str) -> int:
    """How many configurations to stack; refuses a grid that does not fit in memory."""
    n_layers, n_train, n_units = data.train.shape
    n_classes, item = data.train_targets.shape[1], data.train.element_size()
    n_rows = max(min(n_train, BATCH), min(data.valid.shape[1], 4 * BATCH))
    kept = largest = 0
    for hidden, members in groups.items():
        widths = (n_units, *hidden, n_classes)
        n_parameters = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
        kept += 4 * len(members) * n_parameters * item  # weights, two moments, best copy
        # Gradients; two activations per hidden layer, two errors, mixed layers and their error.
        step = n_parameters + n_rows * (2 * n_units + 4 * sum(hidden))
        largest = max(largest, step * item)
    n_working = torch.get_num_threads() if data.train.device.type == "cpu" else 1
    require_memory(
        kept + n_working * largest,
        data.train.device,
        "training the probes",
        "Reduce the units first, for instance by PCA to a common width, or give a smaller grid.",
    )
    if wanted != "auto":
        if not isinstance(wanted, int) or wanted < 1:
            raise ParameterError(f"n_configurations_batch must be 'auto' or >= 1, not {wanted!r}")
        return wanted
    if data.train.device.type == "cpu":
        return 1
    return max(1, int((0.5 * available_memory(data.train.device) - kept) / largest))
