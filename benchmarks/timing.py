"""Timing things side by side, on a machine that may have other work to do."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Timing", "alone", "in_turns"]


@dataclass(frozen=True)
class Timing:
    """Wall times of the calls of one function, in seconds, and what the last one returned."""

    seconds: tuple[float, ...]
    result: object

    @property
    def median(self) -> float:
        """Median wall time, in seconds."""
        return statistics.median(self.seconds)


def in_turns(
    *functions: Callable[[], object],
    repeats: int = 3,
    device: torch.device | str = "cpu",
    warm_up: bool = True,
) -> list[Timing]:
    """Time functions in turns, so that all of them meet the same machine.

    Parameters
    ----------
    *functions : callable without arguments
        Called one after the other, then all again.
    repeats : int
        Measured rounds.
    device : torch.device or str
        Waited for at the end of every call.
    warm_up : bool
        Whether a first round is not measured.

    Returns
    -------
    list of Timing
        One per function.
    """
    device = torch.device(device)
    seconds, results = [[] for _ in functions], [None] * len(functions)
    for turn in range(repeats + warm_up):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            results[i] = function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn >= warm_up:
                seconds[i].append(time.perf_counter() - start)
    return [Timing(tuple(each), result) for each, result in zip(seconds, results, strict=True)]


def alone(
    function: Callable[[], object],
    repeats: int = 3,
    device: torch.device | str = "cpu",
    warm_up: bool = False,
) -> Timing:
    """Time one function; see :func:`in_turns`."""
    return in_turns(function, repeats=repeats, device=device, warm_up=warm_up)[0]
