"""One program in several processes: who this one is, and sums over all of them.

``torchrun`` starts the processes and says so in the environment. Alone, every function here does
nothing or gives its argument back, so that callers need not ask.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from .device import resolve_device

__all__ = ["Processes", "processes"]


class Processes:
    """The processes that train together.

    Attributes
    ----------
    rank, n : int
        Number of this process, and how many there are.
    device : torch.device
        Where this one computes: its own GPU when there are several.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib.processes import Processes
    >>> alone = Processes(rank=0, n=1, device=torch.device("cpu"))
    >>> alone.is_first, alone.sum(torch.tensor(2.0)).item()
    (True, 2.0)
    """

    def __init__(self, rank: int, n: int, device: torch.device):
        self.rank, self.n, self.device = rank, n, device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that its gradients are averaged over the processes."""
        if self.n == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Add up the tensors of all processes, in place."""
        if self.n > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, make):
        """Call ``make`` in the first process, and give every process what it returned."""
        if self.n == 1:
            return make()
        box = [make() if self.is_first else None]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.n > 1:
            dist.barrier()


@contextmanager
def processes(device: str | torch.device = "auto") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, or be alone.

    Parameters
    ----------
    device : str
        See :func:`analysis_lib.device.resolve_device`. Of several GPUs each process takes its own.

    Yields
    ------
    Processes

    Examples
    --------
    >>> from analysis_lib.processes import processes
    >>> with processes("cpu") as group:
    ...     group.n, group.is_first
    ...
    (1, True)
    """
    n = int(os.environ.get("WORLD_SIZE", 1))
    device = resolve_device(device)
    if n == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    joined_here = not dist.is_initialized()
    if joined_here:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), n, device)
    finally:
        if joined_here:
            dist.destroy_process_group()
