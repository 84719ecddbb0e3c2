"""The restricted unpickler builds data and refuses code."""

import collections
import io
import os
import pickle
import pickletools
import sys
import types

import numpy as np
import pytest

from analysis_lib.errors import DataError
from analysis_lib.pickles import CONTAINERS, NUMPY, Inert, RestrictedUnpickler


def load(data, **arguments):
    return RestrictedUnpickler(
        io.BytesIO(data), "some.file", {**CONTAINERS, **NUMPY}, **arguments
    ).load()


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_come_back(protocol):
    content = {
        "plain": [1, 2.5, True, None, "text", b"bytes", (1, 2), {"a": {3}}],
        "more": [frozenset([1]), complex(1, 2), bytearray(b"ab"), slice(1, 2)],
        "ordered": collections.OrderedDict(z=1, a=2),
        "scalar": np.float32(1.5),
    }
    arrays = {
        "floats": np.arange(6.0).reshape(2, 3).T,
        "large": np.arange(70_000, dtype="i4"),
        "objects": np.array([{"a": 1}, "text"], dtype=object),
        "empty": np.zeros((0, 3), np.float16),
    }
    loaded = load(pickle.dumps((content, arrays), protocol))
    assert loaded[0] == content
    assert list(loaded[0]["ordered"]) == ["z", "a"]
    for name, array in arrays.items():
        assert loaded[1][name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[1][name], array)


def test_arrays_of_older_numpy_come_back():
    data = pickle.dumps(np.arange(3.0), 2)
    older = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert older != data
    np.testing.assert_array_equal(load(older), [0, 1, 2])


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {marker}",), f"{os.system.__module__}.system"),
        (eval, ("open({marker!r}, 'w')",), "builtins.eval|__builtin__.eval"),
        (getattr, ("text", "format"), "builtins.getattr|__builtin__.getattr"),
        (__import__, ("os",), "builtins.__import__|__builtin__.__import__"),
        (pickle.loads, (b"",), "_?pickle.loads"),
    ],
)
def test_code_is_refused_and_never_runs(tmp_path, protocol, function, arguments, name):
    marker = tmp_path / "marker"
    arguments = [a.format(marker=str(marker)) if isinstance(a, str) else a for a in arguments]
    data = pickle.dumps({"weights": [1, 2], "x": Calls(function, *arguments)}, protocol)
    with pytest.raises(DataError, match=f"some.file is a pickle that would run '({name})'"):
        load(data)
    assert not marker.exists()


@pytest.mark.parametrize("inert", ["", "collections.", "numpy."])
def test_attributes_of_what_is_allowed_are_out_of_reach(inert):
    # Protocol 4 can name an attribute of a module's attribute: "numpy", "ndarray.tofile".
    data = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    assert any(op.name == "STACK_GLOBAL" for op, *_ in pickletools.genops(data))
    if inert == "numpy.":
        assert load(data, inert=[inert]) is Inert
    else:
        with pytest.raises(DataError, match="numpy.ndarray.tofile"):
            load(data, inert=[inert] if inert else [])


def test_bookkeeping_is_left_unbuilt(monkeypatch):
    module = types.ModuleType("trainer")
    monkeypatch.setitem(sys.modules, "trainer", module)

    def schedule(*_):
        raise AssertionError("bookkeeping was run")

    class Log(list):
        """Pickles with items, a state and a hash."""

    class Table(dict):
        """Pickles with keys."""

    for thing in (schedule, Log, Table):
        thing.__module__, thing.__qualname__ = "trainer", thing.__name__
        setattr(module, thing.__name__, thing)
    log, table = Log([1, 2]), Table(a=1)
    log.rate = 0.1
    content = {"epoch": 3, "x": [Calls(schedule, 1), log, table], Calls(schedule): 1}
    data = pickle.dumps(content)
    with pytest.raises(DataError, match="trainer.schedule"):
        load(data)
    monkeypatch.delitem(sys.modules, "trainer")
    loaded = load(data, inert=["trainer."])
    assert loaded["epoch"] == 3
    assert all(isinstance(item, Inert) for item in loaded["x"])
    assert "trainer" not in sys.modules


def test_data_outside_the_pickle_are_refused():
    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return "elsewhere" if item == "storage" else None

    stream = io.BytesIO()
    Pickler(stream).dump(["storage"])
    with pytest.raises(DataError, match="outside itself"):
        load(stream.getvalue())
    assert load(stream.getvalue(), persistent=str.upper) == ["ELSEWHERE"]
