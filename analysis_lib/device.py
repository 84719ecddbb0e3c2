"""Which device computes, and how much memory it has left.

The one place that turns ``device="auto"`` into a device.
"""

import resource
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves

from .errors import MemoryBudgetError, ParameterError

__all__ = [
    "Every",
    "available_memory",
    "each_core",
    "memory_of",
    "peak_memory",
    "require_memory",
    "resolve_device",
]


def resolve_device(device: str | torch.device = "auto", float64: bool = False) -> torch.device:
    """Turn a device request into a device that is there.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:<i>", "mps"} or torch.device
        ``"auto"`` takes CUDA if there is one, then Apple's MPS, then the CPU.
    float64 : bool
        The computation needs double precision. MPS has none, so it is passed over by
        ``"auto"`` and answered with the CPU (and a warning) when asked for by name.

    Raises
    ------
    ParameterError
        When the device was asked for by name and is not there.

    Examples
    --------
    >>> from analysis_lib import device
    >>> device.resolve_device("cpu")
    device(type='cpu')
    >>> device.resolve_device("gpu")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.ParameterError: unknown device 'gpu': use 'auto', 'cpu', ...
    """
    has_mps = torch.backends.mps.is_available()
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if has_mps and not float64 else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ParameterError(
            f"unknown device {device!r}: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ParameterError(
            f"device {device!r} was asked for, but this machine shows "
            f"{torch.cuda.device_count()} CUDA device(s). Use device='auto' or 'cpu'."
        )
    if resolved.type == "mps":
        if not has_mps:
            raise ParameterError(
                "device 'mps' was asked for, but it is not available. Use 'auto' or 'cpu'."
            )
        if float64:
            warnings.warn("MPS has no float64; this step runs on the CPU", stacklevel=2)
            return torch.device("cpu")
    return resolved


def available_memory(device: torch.device) -> int:
    """Bytes that a new computation on ``device`` may use.

    Examples
    --------
    >>> from analysis_lib import device
    >>> device.available_memory(device.resolve_device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require_memory(n_bytes: float, device: torch.device, what: str, advice: str) -> None:
    """Refuse a computation that would not fit, before it starts.

    Parameters
    ----------
    n_bytes : float
        Estimated peak, in bytes.
    device : torch.device
        Where it would be allocated.
    what, advice : str
        The computation's name, and what the user can do to shrink it.

    Raises
    ------
    MemoryBudgetError
        When the estimate is above 90 % of what is free.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import device
    >>> device.require_memory(1e18, torch.device("cpu"), "a large product", "Take fewer voxels.")
    Traceback (most recent call last):
        ...
    analysis_lib.errors.MemoryBudgetError: a large product needs about 1000000000.0 GB ...
    """
    free = available_memory(device)
    if n_bytes > 0.9 * free:
        raise MemoryBudgetError(
            f"{what} needs about {n_bytes / 1e9:.1f} GB on {device}, and {free / 1e9:.1f} GB "
            f"are free. {advice}"
        )


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of this process, or of its tensors on a CUDA device.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import device
    >>> device.peak_memory(torch.device("cpu")) > 0
    True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def memory_of(compute: Callable[[], object], device: torch.device) -> tuple[object, int]:
    """Run a computation and measure how much memory it takes.

    Returns
    -------
    result
        Of the computation.
    n_bytes : int
        Most bytes of new tensors that were there at once. On CUDA as the allocator counts them;
        elsewhere those that operations returned, without what one operation uses for itself.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import device
    >>> result, n_bytes = device.memory_of(lambda: torch.ones(1000), torch.device("cpu"))
    >>> n_bytes
    4000
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = compute()
        return result, torch.cuda.max_memory_allocated(device) - before
    with _NewTensors() as tensors:
        result = compute()
    return result, tensors.peak


class _NewTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, for as long as they live."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing is compiled here, and skipping would import the compiler

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self._note((args, kwargs), new=False)
        made = function(*args, **(kwargs or {}))
        self._live = {k: entry for k, entry in self._live.items() if not entry[0].expired()}
        self._note(made, new=True)
        self.peak = max(self.peak, sum(n_bytes for _, n_bytes in self._live.values()))
        return made

    def _note(self, values: object, new: bool) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, torch.Tensor):
                reference = StorageWeakRef(tensor.untyped_storage())
                n_bytes = tensor.untyped_storage().nbytes() if new else 0
                self._live.setdefault(reference.cdata, (reference, n_bytes))


Every = Callable[[Callable, Sequence], list]  # like map


@contextmanager
def each_core(device: torch.device, n_items: int) -> Iterator[Every]:
    """Let each core of a CPU take one piece of work after the other.

    For work whose pieces are too small to be shared out among cores by torch itself. While
    :func:`memory_of` measures, which sees the calling thread alone, that thread does them all.

    Parameters
    ----------
    device : torch.device
        Other devices than a CPU get one piece after the other, in the calling thread.
    n_items : int
        No more threads than this are started.

    Yields
    ------
    callable
        ``every(function, items)`` gives the list of results, in the order of the items.

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import device
    >>> with device.each_core(torch.device("cpu"), 3) as every:
    ...     every(torch.sum, [torch.ones(i) for i in range(3)])
    ...
    [tensor(0.), tensor(1.), tensor(2.)]
    """
    n_threads, with_gradient = torch.get_num_threads(), torch.is_grad_enabled()
    n_workers = min(n_threads, n_items) if device.type == "cpu" else 1
    if n_workers <= 1 or isinstance(_get_current_dispatch_mode(), _NewTensors):
        yield lambda function, items: [function(item) for item in items]
        return

    def begin() -> None:
        torch.set_num_threads(1)
        torch.set_grad_enabled(with_gradient)

    try:
        with ThreadPoolExecutor(n_workers, initializer=begin) as pool:
            yield lambda function, items: list(pool.map(function, items))
    finally:
        torch.set_num_threads(n_threads)  # some libraries keep one number for all threads
