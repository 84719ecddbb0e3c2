"""Pickled tables from outside, read without running what they contain.

The public voxel data describe their voxels in DataFrames pickled by pandas 1.1. Reading a pickle
normally runs whatever it names; here only what a DataFrame is built of may be named.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from pandas._libs import internals
from pandas.core.arrays.string_ import StringArray, StringDtype
from pandas.core.indexes.base import _new_Index
from pandas.core.internals.managers import BlockManager

from ..errors import DataError, MissingDataError
from ..pickles import CONTAINERS, NUMPY, RestrictedUnpickler

__all__ = ["PANDAS", "read_table"]

_rebuild_extension = pd.array(["a"], dtype="string[python]").__reduce__()[0]

# Names under which pandas 1.1 to 3 store the parts of a DataFrame with a plain index and columns of
# numbers and strings. Dates, categories and nested indices are left out: no file needs them.
PANDAS: Mapping[str, object] = MappingProxyType(
    {
        "pandas.core.frame.DataFrame": pd.DataFrame,
        "pandas.DataFrame": pd.DataFrame,
        "pandas.core.internals.managers.BlockManager": BlockManager,
        "pandas._libs.internals._unpickle_block": internals._unpickle_block,
        "pandas.core.internals.blocks.new_block": internals._unpickle_block,
        "pandas.core.indexes.base._new_Index": _new_Index,
        "pandas.core.indexes.base.Index": pd.Index,
        "pandas.Index": pd.Index,
        "pandas.core.indexes.range.RangeIndex": pd.RangeIndex,
        "pandas.RangeIndex": pd.RangeIndex,
        **{f"pandas.core.indexes.numeric.{kind}64Index": pd.Index
           for kind in ("Int", "UInt", "Float")},
        "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": _rebuild_extension,
        "pandas.arrays.StringArray": StringArray,
        "pandas.core.arrays.string_.StringArray": StringArray,
        "pandas.StringDtype": StringDtype,
        "pandas.core.arrays.string_.StringDtype": StringDtype,
    }
)  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """Read a pickled DataFrame.

    Parameters
    ----------
    path : path
        Written by ``DataFrame.to_pickle``, uncompressed, by any pandas from 1.1 to 3.

    Returns
    -------
    DataFrame

    Raises
    ------
    MissingDataError
        When there is no such file.
    DataError
        When the pickle names anything that a DataFrame is not built of (it is then refused,
        and nothing of it has run), is damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"no table {path}")
    with open(path, "rb") as stream:
        try:
            table = RestrictedUnpickler(stream, str(path), {**CONTAINERS, **NUMPY, **PANDAS}).load()
            # A hand-made block manager may disagree with itself; rebuilding finds out here.
            table = pd.DataFrame({str(name): table[name].to_numpy() for name in table.columns})
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{path} is not a readable pickled table ({type(error).__name__}: {error}). "
                "Fetch it again from its source."
            ) from error
    return table
