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

from .recipe import BN_EPS, BN_MOMENTUM, DROPOUT, Configuration

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
    drawn : sequence of mapping of str to tensor
        Initial parameters of each.
    multilabel : bool
        Binary cross-entropy of every label instead of cross-entropy.
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
        drawn: Sequence[Mapping[str, torch.Tensor]],
        multilabel: bool,
        device: torch.device,
        space: Workspace,
    ):
        self.hidden, self.multilabel, self.space = configurations[0].hidden, multilabel, space
        self.parameters = {
            name: torch.stack([one[name] for one in drawn]).to(device) for name in drawn[0]
        }
        self.statistics = {
            f"{kind}{i}": torch.full_like(self.parameters[f"scale{i}"], start)
            for i in range(len(self.hidden))
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
        inputs, norms, zero = [_mixed(x, mixing)], [], x.new_zeros(())
        for i in range(depth):
            before = self._product(f"before{i}", p[f"weight{i}"], inputs[i])
            output, *norm = self._normalised(before, i)
            inputs.append(torch.clamp(output, zero, masks[i], out=output))
            norms.append(norm)
        last = p[f"weight{depth}"]
        logits = torch.baddbmm(p[f"shift{depth}"][..., None], last, inputs[depth])
        loss, error = self._loss(logits, targets)

        gradients = {f"shift{depth}": error.sum(dim=2)}
        for i in reversed(range(depth + 1)):
            if i < depth:
                torch.ops.aten.threshold_backward(error, inputs[i + 1], 0, grad_input=error)
                scale, shift = self._normalised_backward(error, i, *norms[i])
                gradients[f"scale{i}"], gradients[f"shift{i}"] = scale, shift
            gradients[f"weight{i}"] = self._product(f"weight{i}", error, inputs[i].transpose(1, 2))
            if i > 0:
                error = self._product(f"error{i}", p[f"weight{i}"].transpose(1, 2), error)
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
        """Batch norm after the i-th linear map, times dropout's factor; centred x, 1 / deviation.

        Passes over contiguous rows, one after the other: together they take a third of the time
        of PyTorch's kernel for this layout.
        """
        n_clips = x.shape[2]
        mean = x.mean(dim=2)
        x.sub_(mean[..., None])
        variance = torch.linalg.vector_norm(x, dim=2).square_() / n_clips
        self.statistics[f"mean{i}"].lerp_(mean, BN_MOMENTUM)
        self.statistics[f"variance{i}"].lerp_(variance * n_clips / (n_clips - 1), BN_MOMENTUM)
        inverse = (variance + BN_EPS).rsqrt()
        scale = self.parameters[f"scale{i}"] * inverse * _KEPT
        output = torch.mul(x, scale[..., None], out=self.space(f"after{i}", *x.shape))
        output.add_((self.parameters[f"shift{i}"] * _KEPT)[..., None])
        return output, x, inverse

    def _normalised_backward(self, error, i, centred, inverse) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn an error of :meth:`_normalised`'s output into that of its input, in place.

        Gives the gradients of scale and shift. ``centred`` is used up.
        """
        n_clips = error.shape[2]
        shift = error.sum(dim=2)
        scale = torch.linalg.vecdot(error, centred) * inverse
        centred.mul_((scale * inverse / n_clips)[..., None]).add_((shift / n_clips)[..., None])
        error.sub_(centred).mul_((self.parameters[f"scale{i}"] * inverse * _KEPT)[..., None])
        return scale * _KEPT, shift * _KEPT

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
