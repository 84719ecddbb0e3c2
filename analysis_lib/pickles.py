"""Reading pickles from outside without running what they contain."""

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from .errors import DataError

__all__ = ["CONTAINERS", "NUMPY", "Inert", "RestrictedUnpickler"]

CONTAINERS: Mapping[str, object] = {
    "collections.OrderedDict": OrderedDict,
    **{f"{module}.{kind.__name__}": kind
       for module in ("builtins", "__builtin__")
       for kind in (set, frozenset, list, dict, tuple, bytes, bytearray, complex, slice)},
    "_codecs.encode": lambda text, encoding: text.encode(encoding),
}  # fmt: skip

_rebuild_array, _rebuild_scalar = (
    np.ones(1).__reduce__()[0],
    np.float64(1).__reduce__()[0],
)
NUMPY: Mapping[str, object] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy.{core}.multiarray.{function.__name__}": function
       for core in ("core", "_core")
       for function in (_rebuild_array, _rebuild_scalar)},
    **{f"numpy.{core}.numeric._frombuffer": np._core.numeric._frombuffer
       for core in ("core", "_core")},
}  # fmt: skip


class Inert:
    """Stands where a pickle holds an object that nobody needs. Does nothing at all."""

    def __new__(cls, *args, **kwargs):  # noqa: D102
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):  # noqa: D102
        return Inert()

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        """Swallow an item."""

    def extend(self, items):
        """Swallow items."""

    def __hash__(self):
        return id(self)


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that builds what it is told to and refuses the rest.

    Parameters
    ----------
    stream : binary file
        The pickle.
    source : str
        For messages.
    allowed : mapping of str to callable
        ``"module.name"`` of each global that may be built, and what builds it.
    inert : sequence of str
        Prefixes of globals that are replaced by :class:`Inert`: bookkeeping that comes along
        with the data.
    persistent : callable, optional
        Resolves persistent identifiers (torch storages).

    Raises
    ------
    DataError
        From :meth:`load`, naming the first global that is neither allowed nor inert.
    """

    def __init__(
        self,
        stream: BinaryIO,
        source: str,
        allowed: Mapping[str, object],
        inert: Sequence[str] = (),
        persistent: Callable | None = None,
    ):
        super().__init__(stream, encoding="latin1")
        self._source, self._allowed, self._inert = source, allowed, tuple(inert)
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> object:
        """Look a global up in the lists; never import."""
        full = f"{module}.{name}"
        if full in self._allowed:
            return self._allowed[full]
        if full.startswith(self._inert) and self._inert:
            return Inert
        raise DataError(
            f"{self._source} is a pickle that would run {full!r}; it was refused. "
            "Take the file from its original source, or convert it where you trust it."
        )

    def persistent_load(self, identifier: object) -> object:
        """Resolve a persistent identifier, or refuse it."""
        if self._persistent is None:
            raise DataError(f"{self._source} refers to data outside itself; it was refused")
        return self._persistent(identifier)
