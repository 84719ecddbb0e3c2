"""Taking activations out of a network while it runs, and knowing where they lie in time."""

from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import nn

__all__ = ["run_tapped", "stacked_grid", "take_layers"]


class _Enough(Exception):
    """Ends a forward pass whose remaining layers nobody wants."""


def run_tapped(
    call: Callable[[], object],
    outputs: Mapping[str, nn.Module],
    inputs: Mapping[str, nn.Module] | None = None,
) -> dict[str, torch.Tensor]:
    """Run a network until every wanted module has spoken.

    Parameters
    ----------
    call : callable
        Runs the network; it is left as soon as nothing more is wanted.
    outputs, inputs : mapping of str to module
        Modules whose output, or first positional argument, is taken at their first use.

    Returns
    -------
    dict of str to tensor
        By the keys of ``outputs`` and ``inputs``. A module that was not used is missing.
    """
    inputs = inputs or {}
    taken: dict[str, torch.Tensor] = {}
    n_wanted = len(outputs) + len(inputs)

    def take(name: str, value: object) -> None:
        taken.setdefault(name, value[0] if isinstance(value, (tuple, list)) else value)
        if len(taken) == n_wanted:
            raise _Enough

    handles = [
        module.register_forward_hook(lambda _, args, output, name=name: take(name, output))
        for name, module in outputs.items()
    ] + [
        module.register_forward_pre_hook(lambda _, args, name=name: take(name, args))
        for name, module in inputs.items()
    ]
    try:
        call()
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return taken


def stacked_grid(
    convolutions: Iterable[tuple[int, int, int]], step: float = 1.0, first: float = 0.0
) -> tuple[float, float]:
    """Where the frames of a stack of convolutions lie.

    Parameters
    ----------
    convolutions : iterable of (kernel, stride, padding)
        In the order in which they are applied; ``padding`` is that at the start.
    step, first : float
        Distance between the input's frames and centre of the first one, in any unit.

    Returns
    -------
    step, first : float
        Of the output, in the same unit.
    """
    for kernel, stride, padding in convolutions:
        first += step * ((kernel - 1) / 2 - padding)
        step *= stride
    return step, first


def take_layers(
    stages: Iterable[tuple[str, torch.Tensor]], layers: Collection[str]
) -> dict[str, torch.Tensor]:
    """Take the wanted layers from a network that computes one stage after the other.

    Parameters
    ----------
    stages : iterable of (str, tensor)
        Each stage's name and output, in order; a generator computes no more than is taken.
    layers : collection of str
        Those wanted.

    Returns
    -------
    dict of str to tensor
        A layer that is no stage is missing.
    """
    taken = {}
    for name, output in stages:
        if name in layers:
            taken[name] = output
            if len(taken) == len(layers):
                break
    return taken


def measured_grid(n_frames: Callable[[int], int], start: int, span: int = 8) -> tuple[float, float]:
    """Where frames lie, from the lengths at which one more appears.

    Parameters
    ----------
    n_frames : callable
        Number of frames of a sound of that many samples; must not decrease.
    start : int
        Length in samples to start from.
    span : int
        Number of frames to measure over.

    Returns
    -------
    step, first : float
        Samples between frames, and centre of the first frame if a sound that just holds its
        frames holds them symmetrically.
    """

    def shortest(count: int, low: int) -> int:
        """Find the shortest length with at least ``count`` frames."""
        reach = 1
        while n_frames(low + reach) < count:
            reach *= 2
        high, low = low + reach, low + reach // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if n_frames(middle) >= count else (middle, high)
        return high

    one = shortest(n_frames(start) + 1, start)
    several = shortest(n_frames(one) + span, one)
    counts = n_frames(one), n_frames(several)
    step = (several - one) / (counts[1] - counts[0])
    return step, (one - 1 - (counts[0] - 1) * step) / 2
