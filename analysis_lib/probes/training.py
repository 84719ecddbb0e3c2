"""Training the probes of a whole grid at once.

A probe mixes the layers of a representation with learned non-negative weights and classifies the
mix with a small network (Pepino et al. 2025, after HEAR)::

    x = sum_l w_l x_l,  w = |a| / sum |a|        then        [linear, batch norm, dropout, ReLU]
    once or twice                                then        linear

Configurations with the same number of hidden layers are stacked and trained together by batched
matrix products. They share the order of the clips and the dropout masks (common random numbers),
so that a configuration trained alone does exactly the same, and configurations differ by what
they are rather than by luck.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..device import available_memory, require_memory
from ..errors import DataError, ParameterError

__all__ = [
    "PAPER_GRID",
    "Configuration",
    "ProbeData",
    "TrainedProbes",
    "dropout_mask",
    "initial_parameters",
    "train_probes",
]

BATCH = 1024
DROPOUT = 0.1
_BN_MOMENTUM, _BN_EPS = 0.1, 1e-5
# On a CPU, larger tensors leave the cache and are mapped anew at every step.
_CPU_BYTES_PER_TENSOR = 16 << 20


@dataclass(frozen=True)
class Configuration:
    """One point of the grid: hidden widths, learning rate, initial weights."""

    hidden: tuple[int, ...]
    learning_rate: float
    init: str

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.hidden))} lr {self.learning_rate:g} {self.init}"


PAPER_GRID = tuple(
    Configuration(hidden, rate, init)
    for hidden in ((1024,), (1024, 1024))
    for rate in (3.2e-3, 1e-3, 3.2e-4, 1e-4)
    for init in ("xavier_uniform", "xavier_normal")
)


@dataclass(frozen=True)
class ProbeData:
    """What probes are trained, chosen and tested on.

    Attributes
    ----------
    train, valid, test : tensor of shape (n_layers, n_clips, n_units)
    train_targets, valid_targets : tensor of shape (n_clips, n_classes)
        0 or 1.
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
        How many configurations are trained at once; less needs less memory, and changes nothing
        else. ``"auto"`` takes all on a GPU, and on a CPU as many as keep a step in its cache.

    Raises
    ------
    DataError
        When there are fewer than two clips to train on.
    MemoryBudgetError
        When even one configuration at a time would not fit.
    """
    n_layers, n_train, n_units = data.train.shape
    if n_train < 2:
        raise DataError(f"a probe needs at least two clips to train on, not {n_train}")
    for configuration in configurations:
        if configuration.init not in _INITIALISERS:
            raise ParameterError(
                f"init {configuration.init!r} must be one of {', '.join(_INITIALISERS)}"
            )
    groups = {}
    for i, configuration in enumerate(configurations):
        groups.setdefault(configuration.hidden, []).append(i)
    outcomes = [None] * len(configurations)
    for hidden, members in groups.items():
        size = _batch_size(data, hidden, len(members), n_configurations_batch)
        for start in range(0, len(members), size):
            part = members[start : start + size]
            trained = _Stack(data, [configurations[i] for i in part], seed)
            trained.fit(max_epochs, patience, check_every)
            for i, outcome in zip(part, trained.outcomes(), strict=True):
                outcomes[i] = outcome
    return TrainedProbes(*(torch.stack(parts) for parts in zip(*outcomes, strict=True)))


def initial_parameters(
    configuration: Configuration,
    n_layers: int,
    n_units: int,
    n_classes: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """Draw the initial parameters of one probe, on the CPU.

    Equal for configurations that differ by the learning rate only. Biases start at 0 (the paper
    does not say). A linear map before batch norm has none: the norm would take it out again.
    """
    generator = _generator(seed, 0, torch.device("cpu"))
    widths = (n_units, *configuration.hidden)
    parameters = {"mix": torch.ones(n_layers, dtype=dtype)}
    for i, (n_in, n_out) in enumerate(zip(widths, (*widths[1:], n_classes), strict=True)):
        weight = torch.empty(n_out, n_in, dtype=torch.float32)
        _INITIALISERS[configuration.init](weight, generator=generator)
        parameters[f"weight{i}"] = weight.to(dtype)
        if i < len(configuration.hidden):
            parameters[f"scale{i}"] = torch.ones(n_out, dtype=dtype)
        parameters[f"shift{i}"] = torch.zeros(n_out, dtype=dtype)
    return parameters


def dropout_mask(
    width: int, n_clips: int, generator: torch.Generator, dtype: torch.dtype
) -> torch.Tensor:
    """Mask of one dropout layer, shape (width, n_clips): 0, or 1 over the chance of being kept."""
    shape = (width, n_clips)
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    return (drawn >= DROPOUT).to(dtype).mul_(1 / (1 - DROPOUT))


def epoch_batches(n_clips: int, generator: torch.Generator) -> list[torch.Tensor] | list[slice]:
    """Rows of each step of one epoch, shuffled unless one step takes all.

    Batch norm cannot use a single clip, so a last batch of one joins the one before.
    """
    if n_clips <= BATCH:
        return [slice(None)]
    order = torch.randperm(n_clips, generator=generator, device=generator.device)
    batches = list(order.split(BATCH))
    if len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def epoch_generator(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Random numbers of one epoch (counted from 1), the same for every configuration."""
    return _generator(seed, epoch, device)


_INITIALISERS = {
    "xavier_uniform": torch.nn.init.xavier_uniform_,
    "xavier_normal": torch.nn.init.xavier_normal_,
}


def _generator(seed: int, stream: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed((seed + 1) * 1_000_003 + stream)


def _batch_size(data: ProbeData, hidden, n_members: int, wanted: int | str) -> int:
    n_layers, n_train, n_units = data.train.shape
    n_classes = data.train_targets.shape[1]
    item = data.train.element_size()
    widths = (n_units, *hidden, n_classes)
    n_parameters = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
    n_rows = min(n_train, BATCH)
    step = n_rows * (n_units + 5 * sum(hidden)) * item
    each = 6 * n_parameters * item + step  # weights, gradients, two moments, best copy, spare
    require_memory(
        each,
        data.train.device,
        "training one probe",
        "Reduce the units first, for instance by PCA to a common width.",
    )
    if wanted != "auto":
        if not isinstance(wanted, int) or wanted < 1:
            raise ParameterError(f"n_configurations_batch must be 'auto' or >= 1, not {wanted!r}")
        return wanted
    fitting = int(0.5 * available_memory(data.train.device) / each)
    if data.train.device.type == "cpu":
        widest = max(widths)
        largest = max(n_rows * widest, *(a * b for a, b in zip(widths, widths[1:], strict=False)))
        fitting = min(fitting, _CPU_BYTES_PER_TENSOR // (largest * item))
    return max(1, min(n_members, fitting))


class _Stack:
    """Probes of one shape, their parameters stacked along a first dimension.

    Activations are (configuration, width, clip): batch norm then reduces over contiguous memory.
    """

    def __init__(self, data: ProbeData, configurations: Sequence[Configuration], seed: int):
        self.data, self.seed = data, seed
        self.device, self.dtype = data.train.device, data.train.dtype
        n_layers, _, n_units = data.train.shape
        self.hidden = configurations[0].hidden
        drawn = [
            initial_parameters(
                configuration, n_layers, n_units, data.train_targets.shape[1], seed, self.dtype
            )
            for configuration in configurations
        ]
        self.parameters = {
            name: torch.stack([one[name] for one in drawn]).to(self.device) for name in drawn[0]
        }
        n = len(configurations)
        self.statistics = {
            f"{kind}{i}": torch.full((n, width), start, dtype=self.dtype, device=self.device)
            for i, width in enumerate(self.hidden)
            for kind, start in (("mean", 0.0), ("variance", 1.0))
        }
        self.rates = [configuration.learning_rate for configuration in configurations]
        self._make_optimiser()
        self.best = {name: value.clone() for name, value in self._state().items()}
        self.best_score = torch.full((n,), -math.inf, dtype=torch.float64)
        self.best_epoch = torch.zeros(n, dtype=torch.long)
        self.n_epochs = torch.zeros(n, dtype=torch.long)
        self.active = torch.arange(n)  # configurations that the stacked tensors still hold

    def _state(self) -> dict[str, torch.Tensor]:
        return {**self.parameters, **self.statistics}

    def fit(self, max_epochs: int, patience: int, check_every: int) -> None:
        """Train until every configuration has stopped."""
        self.train_loss = torch.full((len(self.active), max_epochs), math.nan)
        for epoch in range(1, max_epochs + 1):
            self.train_loss[self.active, epoch - 1] = self._train_epoch(epoch)
            self.n_epochs[self.active] = epoch
            if epoch % check_every and epoch < max_epochs:
                continue
            state = self._state()
            logits = self._predict(self.data.valid, state)
            score = self.data.valid_score(logits).double().cpu().nan_to_num(nan=-math.inf)
            better = score > self.best_score[self.active]
            if better.any():
                improved = self.active[better]
                self.best_score[improved] = score[better]
                self.best_epoch[improved] = epoch
                rows, targets = better.to(self.device), improved.to(self.device)
                for name, value in state.items():
                    self.best[name][targets] = value[rows]
            waited = epoch - self.best_epoch[self.active]
            keep = waited < patience * check_every
            if not keep.any():
                return
            if not keep.all():
                self._keep(keep)

    def outcomes(self) -> list[tuple[torch.Tensor, ...]]:
        """Fields of :class:`TrainedProbes`, per configuration."""
        test = self._predict(self.data.test, self.best).cpu()
        valid = self._predict(self.data.valid, self.best).cpu()
        weights = _mixing_weights(self.best["mix"]).cpu()
        return list(
            zip(
                self.best_score, self.best_epoch, self.n_epochs, test, valid, weights,
                self.train_loss, strict=True,
            )
        )  # fmt: skip

    def _keep(self, keep: torch.Tensor) -> None:
        """Go on with some of the configurations only."""
        self.active = self.active[keep]
        rows = keep.to(self.device)
        self.parameters = {name: value[rows] for name, value in self.parameters.items()}
        self.statistics = {name: value[rows] for name, value in self.statistics.items()}
        kept = keep.nonzero().flatten().tolist()
        moments = [[self.optimiser.state[view] for view in self.views[i]] for i in kept]
        self.rates = [self.rates[i] for i in kept]
        self._make_optimiser(moments)

    def _make_optimiser(self, moments: Sequence[Sequence[dict]] | None = None) -> None:
        """Adam on views into the stacked parameters, one group per configuration."""
        trained = [
            value for name, value in self.parameters.items() if name != "mix" or value.shape[1] > 1
        ]
        self.views = [[value[i] for value in trained] for i in range(len(self.rates))]
        groups = [
            {"params": views, "lr": rate}
            for views, rate in zip(self.views, self.rates, strict=True)
        ]
        self.optimiser = torch.optim.Adam(groups, fused=True)
        if moments is not None:
            for views, states in zip(self.views, moments, strict=True):
                self.optimiser.state.update(zip(views, states, strict=True))

    def _train_epoch(self, epoch: int) -> torch.Tensor:
        """Take one pass over the training clips; mean loss per configuration."""
        generator = epoch_generator(self.seed, epoch, self.device)
        n_train = self.data.train.shape[1]
        total = torch.zeros(len(self.active), dtype=self.dtype, device=self.device)
        for rows in epoch_batches(n_train, generator):
            x, targets = self.data.train[:, rows], self.data.train_targets[rows]
            masks = [
                dropout_mask(width, x.shape[1], generator, self.dtype) for width in self.hidden
            ]
            leaves = {
                name: value.detach().requires_grad_() for name, value in self.parameters.items()
            }
            losses = self._losses(self._forward(x, leaves, masks), targets)
            names = [name for name in leaves if name != "mix" or x.shape[0] > 1]
            gradients = torch.autograd.grad(losses.sum(), [leaves[name] for name in names])
            for i, views in enumerate(self.views):
                for view, gradient in zip(views, gradients, strict=True):
                    view.grad = gradient[i]
            self.optimiser.step()
            total += losses.detach() * x.shape[1]
        return (total / n_train).float().cpu()

    def _forward(self, x, parameters, masks) -> torch.Tensor:
        """Logits in training, shape (configuration, n_classes, n_clips)."""
        h = _mixed(x, parameters["mix"])
        for i, width in enumerate(self.hidden):
            h = torch.matmul(parameters[f"weight{i}"], h)
            n_stacked, _, n_clips = h.shape
            running = self.statistics[f"mean{i}"], self.statistics[f"variance{i}"]
            h = F.batch_norm(
                h.reshape(1, n_stacked * width, n_clips),
                running[0].view(-1),
                running[1].view(-1),
                parameters[f"scale{i}"].reshape(-1),
                parameters[f"shift{i}"].reshape(-1),
                training=True,
                momentum=_BN_MOMENTUM,
                eps=_BN_EPS,
            ).view(n_stacked, width, n_clips)
            h = h.mul_(masks[i]).relu_()
        i = len(self.hidden)
        return torch.matmul(parameters[f"weight{i}"], h) + parameters[f"shift{i}"][..., None]

    @torch.no_grad()
    def _predict(self, x: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits in evaluation, shape (configuration, n_clips, n_classes)."""
        outputs = []
        for rows in torch.arange(x.shape[1], device=x.device).split(4 * BATCH):
            h = _mixed(x if len(rows) == x.shape[1] else x[:, rows], state["mix"])
            for i in range(len(self.hidden)):
                # Batch norm with running statistics is one more affine map.
                scale = state[f"scale{i}"] * (state[f"variance{i}"] + _BN_EPS).rsqrt()
                shift = state[f"shift{i}"] - state[f"mean{i}"] * scale
                h = torch.matmul(state[f"weight{i}"], h)
                h = h.mul_(scale[..., None]).add_(shift[..., None]).relu_()
            i = len(self.hidden)
            h = torch.matmul(state[f"weight{i}"], h) + state[f"shift{i}"][..., None]
            outputs.append(h.transpose(1, 2))
        return torch.cat(outputs, dim=1)

    def _losses(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss over clips (and labels), per configuration."""
        if self.data.multilabel:
            targets = targets.T.expand_as(logits)
            losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            return losses.mean(dim=(1, 2))
        classes = targets.argmax(dim=1).expand(len(logits), -1)
        return F.cross_entropy(logits, classes, reduction="none").mean(dim=1)


def _mixing_weights(mix: torch.Tensor) -> torch.Tensor:
    return mix.abs() / mix.abs().sum(dim=-1, keepdim=True)


def _mixed(x: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """Mix layers per configuration: (layer, clip, unit) to (configuration, unit, clip).

    One layer needs no mixing (its weight is 1 whatever is learned) and is not copied.
    """
    n_layers, n_clips, n_units = x.shape
    if n_layers == 1:
        return x.transpose(1, 2)
    mixed = _mixing_weights(mix) @ x.reshape(n_layers, n_clips * n_units)
    return mixed.view(-1, n_clips, n_units).transpose(1, 2)
