"""Probes of one shape, stacked along a first dimension and computed together.

Forward and backward passes are written out: nearly all of the time then goes into the matrix
products, which no implementation can do without. What surrounds them works in place, in memory
that is used again for every step and every stack (new memory has to be mapped page by page, which
takes longer than to compute what goes there).

Activations are (configuration, width, clip): batch norm then reduces over contiguous memory, and
all products read their factors as they lie.
"""

import threading
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from .recipe import BN_EPS, BN_MOMENTUM, DROPOUT, Configuration, initial_parameters

__all__ = ["Stack", "Workspace"]

_KEPT = 1 / (1 - DROPOUT)  # what dropout multiplies by where it keeps


class Workspace(threading.local):
    """Named pieces of memory, given out again and again; every thread has its own."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        self._options = {"device": device, "dtype": dtype}
        self._pieces: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, *shape: int) -> torch.Tensor:
        """Memory of a shape; its content is whatever was last written under the name."""
        shape = torch.Size(shape)
        piece = self._pieces.get(name)
        if piece is None or piece.numel() < shape.numel():
            piece = self._pieces[name] = torch.empty(shape.numel(), **self._options)
        return piece[: shape.numel()].view(shape)


class Stack:
    """Probes that differ by learning rate and initial weights only.

    Parameters
    ----------
    configurations : sequence of Configuration
        With the same hidden widths.
    n_layers, n_units, n_classes : int
        Of the data.
    multilabel : bool
        Binary cross-entropy of every label instead of cross-entropy.
    seed : int
        Of the initial weights.
    space : Workspace
        May be shared with other stacks.

    Attributes
    ----------
    parameters, statistics, best : dict of str to tensor of shape (n_configurations, ...)
        Trained; running means and variances; both as they were when last remembered.
    """

    def __init__(
        self,
        configurations: Sequence[Configuration],
        n_layers: int,
        n_units: int,
        n_classes: int,
        multilabel: bool,
        seed: int,
        device: torch.device,
        space: Workspace,
        dtype: torch.dtype,
    ):
        self.hidden, self.multilabel, self.space = configurations[0].hidden, multilabel, space
        shape = (n_layers, n_units, n_classes, seed, dtype)
        drawn = {  # equal at all learning rates
            configuration.init: initial_parameters(configuration, *shape)
            for configuration in {one.init: one for one in configurations}.values()
        }
        drawn = [drawn[configuration.init] for configuration in configurations]
        self.parameters = {
            name: torch.stack([one[name] for one in drawn]).to(device) for name in drawn[0]
        }
        self.statistics = {
            f"{kind}{i}": torch.full(
                (len(configurations), width), start, dtype=dtype, device=device
            )
            for i, width in enumerate(self.hidden)
            for kind, start in (("mean", 0.0), ("variance", 1.0))
        }
        self._rates = [configuration.learning_rate for configuration in configurations]
        self._make_optimiser()
        self.best = {name: value.clone() for name, value in self._state().items()}

    def __len__(self) -> int:
        return len(self._rates)

    def step(
        self, x: torch.Tensor, targets: torch.Tensor, masks: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Take one step of Adam on a batch.

        Parameters
        ----------
        x : tensor of shape (n_layers, n_clips, n_units)
            The batch.
        targets : tensor of shape (n_classes, n_clips)
            0 or 1.
        masks : sequence of tensor of shape (width, n_clips)
            Per hidden layer, infinite where dropout keeps and 0 elsewhere.

        Returns
        -------
        tensor of shape (n_configurations,)
            Mean loss over clips (and labels), before the step.
        """
        p, depth = self.parameters, len(self.hidden)
        mixing = _mixing_weights(p["mix"])
        inputs, before, moments = [_mixed(x, mixing)], [], []
        for i in range(depth):
            before.append(self._product(f"before{i}", p[f"weight{i}"], inputs[i]))
            output, mean, spread = self._normalised(before[i], i)
            inputs.append(torch.clamp(output, before[i].new_zeros(()), masks[i], out=output))
            moments.append((mean, spread))
        last = p[f"weight{depth}"]
        logits = torch.baddbmm(p[f"shift{depth}"][..., None], last, inputs[depth])
        loss, error = self._loss(logits, targets)

        gradients = {f"shift{depth}": error.sum(dim=2)}
        for i in reversed(range(depth + 1)):
            if i < depth:
                error = torch.ops.aten.threshold_backward(error, inputs[i + 1], 0)
                error, scale, shift = self._normalised_backward(error, before[i], i, *moments[i])
                gradients[f"scale{i}"], gradients[f"shift{i}"] = scale, shift
            gradients[f"weight{i}"] = self._product(f"weight{i}", error, inputs[i].transpose(1, 2))
            if i > 0:
                error = self._product("error", p[f"weight{i}"].transpose(1, 2), error)
        if len(x) > 1:
            error = self._product("mixed", error.transpose(1, 2), p["weight0"])
            by_layer = error.flatten(1) @ x.flatten(1).T
            by_layer = by_layer - (by_layer * mixing).sum(dim=1, keepdim=True)
            total = p["mix"].abs().sum(dim=1, keepdim=True)
            gradients["mix"] = p["mix"].sign() * by_layer / total
        for i, views in enumerate(self._views):
            for name, view in views.items():
                view.grad = gradients[name][i]
        self._optimiser.step()
        return loss

    def predict(self, x: torch.Tensor, best: bool = False) -> torch.Tensor:
        """Logits in evaluation, shape (n_configurations, n_clips, n_classes)."""
        state, depth = self.best if best else self._state(), len(self.hidden)
        h = _mixed(x, _mixing_weights(state["mix"]))
        for i in range(depth):
            # Batch norm with running statistics is one more affine map.
            scale = state[f"scale{i}"] * (state[f"variance{i}"] + BN_EPS).rsqrt()
            shift = state[f"shift{i}"] - state[f"mean{i}"] * scale
            h = self._product(f"before{i}", state[f"weight{i}"], h)
            h = torch.addcmul(shift[..., None], h, scale[..., None], out=h).relu_()
        logits = torch.baddbmm(state[f"shift{depth}"][..., None], state[f"weight{depth}"], h)
        return logits.transpose(1, 2)

    def mixing_weights(self) -> torch.Tensor:
        """Weights of the layers as last remembered, shape (n_configurations, n_layers)."""
        return _mixing_weights(self.best["mix"])

    def remember(self, rows: Mapping[int, int]) -> None:
        """Copy some configurations (place in the stack: place at the start) to :attr:`best`."""
        for name, value in self._state().items():
            for row, first in rows.items():
                self.best[name][first].copy_(value[row])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the configurations only."""
        moments = [
            {name: self._optimiser.state[view] for name, view in self._views[row].items()}
            for row in rows
        ]
        self.parameters = {name: value[rows] for name, value in self.parameters.items()}
        self.statistics = {name: value[rows] for name, value in self.statistics.items()}
        self._rates = [self._rates[row] for row in rows]
        self._make_optimiser()
        for views, states in zip(self._views, moments, strict=True):
            self._optimiser.state.update((views[name], state) for name, state in states.items())

    def _state(self) -> dict[str, torch.Tensor]:
        return {**self.parameters, **self.statistics}

    def _make_optimiser(self) -> None:
        """Adam on views into the stacked parameters, one group per configuration."""
        single = self.parameters["mix"].shape[1] == 1  # the weight of the only layer is 1
        names = [name for name in self.parameters if not (name == "mix" and single)]
        self._views = [{name: self.parameters[name][i] for name in names} for i in range(len(self))]
        groups = [
            {"params": list(views.values()), "lr": rate}
            for views, rate in zip(self._views, self._rates, strict=True)
        ]
        self._optimiser = torch.optim.Adam(groups, fused=True)

    def _product(self, name: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Batched matrix product, in memory of that name."""
        return torch.bmm(a, b, out=self.space(name, len(a), a.shape[1], b.shape[2]))

    def _normalised(self, x: torch.Tensor, i: int) -> tuple[torch.Tensor, ...]:
        """Batch norm after the i-th linear map, times dropout's factor; mean, 1 / deviation."""
        n_channels = x.shape[0] * x.shape[1]
        flat = (1, n_channels, x.shape[2])
        output = self.space(f"after{i}", *x.shape)
        _, mean, spread = torch.native_batch_norm(
            x.view(flat),
            (self.parameters[f"scale{i}"] * _KEPT).view(-1),
            (self.parameters[f"shift{i}"] * _KEPT).view(-1),
            self.statistics[f"mean{i}"].view(-1),
            self.statistics[f"variance{i}"].view(-1),
            True,
            BN_MOMENTUM,
            BN_EPS,
            out=(output.view(flat), x.new_empty(n_channels), x.new_empty(n_channels)),
        )
        return output, mean, spread

    def _normalised_backward(self, error, x, i, mean, spread) -> tuple[torch.Tensor, ...]:
        """Gradients with respect to input, scale and shift of :meth:`_normalised`."""
        flat, stacked = (1, len(mean), x.shape[2]), x.shape[:2]
        error, scale, shift = torch.ops.aten.native_batch_norm_backward(
            error.view(flat),
            x.view(flat),
            (self.parameters[f"scale{i}"] * _KEPT).view(-1),
            None,
            None,
            mean,
            spread,
            True,
            BN_EPS,
            [True, True, True],
        )
        return error.view(x.shape), scale.view(stacked) * _KEPT, shift.view(stacked) * _KEPT

    def _loss(
        self, logits: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss per configuration, and its gradient with respect to the logits."""
        n_classes, n_clips = targets.shape
        if self.multilabel:
            losses = F.binary_cross_entropy_with_logits(
                logits, targets.expand_as(logits), reduction="none"
            )
            gradient = (logits.sigmoid() - targets) / (n_clips * n_classes)
            return losses.mean(dim=(1, 2)), gradient
        logarithms = logits.log_softmax(dim=1)
        losses = -(logarithms * targets).sum(dim=1)
        return losses.mean(dim=1), (logarithms.exp() - targets) / n_clips


def _mixing_weights(mix: torch.Tensor) -> torch.Tensor:
    return mix.abs() / mix.abs().sum(dim=-1, keepdim=True)


def _mixed(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mix layers per configuration: (layer, clip, unit) to (configuration, unit, clip).

    One layer needs no mixing (its weight is 1 whatever is learned) and is not copied.
    """
    n_layers, n_clips, n_units = x.shape
    if n_layers == 1:
        mixed = x.expand(len(weights), -1, -1)
    else:
        mixed = (weights @ x.flatten(1)).view(-1, n_clips, n_units)
    return mixed.transpose(1, 2)
