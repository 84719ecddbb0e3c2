"""The two voxel data sets of auditory cortex, as published with Tuckute et al. (2023).

=======  ==========  =======  =============================================================
name     subjects    voxels   measured by
=======  ==========  =======  =============================================================
nh2015   8           7,694    Norman-Haignere, Kanwisher & McDermott (2015)
b2021    20          26,792   Boebinger, Norman-Haignere, McDermott & Kanwisher (2021)
=======  ==========  =======  =============================================================

Both hold three repetitions of the same 165 sounds. The archive's layout is documented nowhere, so
everything that is assumed about it is checked when it is read, and it is read once: the result is
kept as netCDF.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from ..errors import AlignmentError, DataError, MissingDataError
from ..paths import atomic_path, cache_dir, content_key, file_sha256
from . import fetch
from .archives import unpack
from .pickled_tables import read_table

__all__ = ["ARCHIVE_URL", "b2021", "nh2015"]

log = logging.getLogger("brainbook")
ARCHIVE_URL = "https://mcdermottlab.mit.edu//tuckute_feather_2023/data.tar"
_FORMAT = 1  # of the converted files; a change converts again
_NAMES = "NH2015/neural_stim_meta.npy"


@dataclass(frozen=True)
class _Dataset:
    """What is published about one data set, and the files that hold it."""

    name: str
    n_voxels: int
    n_subjects: int
    citation: str
    files: tuple[str, ...]


_NH2015 = _Dataset(
    "nh2015",
    7694,
    8,
    "normanhaignere2015distinct",
    (
        _NAMES,
        "NH2015/voxel_features_array.npy",
        "NH2015/voxel_features_meta.npy",
        "NH2015/df_roi_meta.pkl",
    ),
)
_B2021 = _Dataset(
    "b2021",
    26792,
    20,
    "boebinger2021music",
    (
        _NAMES,
        "B2021/voxel_features_array.npy",
        "B2021/voxel_features_meta.npy",
        "B2021/df_roi_meta.pkl",
        "B2021/stim_info_v4.mat",
    ),
)


def nh2015(folder: Path | None = None) -> xr.DataArray:
    """Load the voxels of Norman-Haignere et al. (2015): 8 subjects, 7,694 voxels, 3 repetitions.

    Subjects who were scanned twice only are left out, as in every later use of the data.

    Parameters
    ----------
    folder : path, optional
        An unpacked archive (the folder that holds ``neural``, or its parent), or the archive
        itself. By default the public archive (180 MB), fetched on first use.

    Returns
    -------
    DataArray (sound, target, repetition)
        In the file's order of sounds, with ``category``. ``target`` carries ``subject``,
        ``roi`` (Primary, Anterior, Lateral, Posterior, or empty), ``roi_specific`` (Glasser
        parcel), ``hemisphere`` (lh, rh), ``x`` and ``y`` (mm on the flattened 2 mm grid),
        ``voxel_id``, ``reliability`` (median correlation between repetitions), ``kind`` and the
        functional regions ``tonotopic``, ``pitch``, ``music`` and ``speech``.

    Raises
    ------
    AlignmentError
        When sounds, voxels or their descriptions are not in one order.
    DataError
        When a file is damaged, unsafe, or not laid out as expected; it says what differs.
    MissingDataError
        When a file is not there.
    """
    return _load(_NH2015, folder)


def b2021(folder: Path | None = None) -> xr.DataArray:
    """Load the voxels of Boebinger et al. (2021): 20 subjects, 26,792 voxels, 3 repetitions.

    Of the 192 sounds the first 165, which are those of NH2015, are kept.

    Parameters, returned array and errors are those of :func:`nh2015`; there are no functional
    regions.
    """
    return _load(_B2021, folder)


def _load(dataset: _Dataset, source: Path | None) -> xr.DataArray:
    public = source is None
    source = fetch.fetch_url("tuckute2023", "data.tar", ARCHIVE_URL) if public else Path(source)
    if source.is_dir():
        neural = _neural_folder(source, dataset)
        key = content_key(_FORMAT, {file: file_sha256(neural / file) for file in dataset.files})
    elif source.is_file():
        neural, key = None, content_key(_FORMAT, file_sha256(source))
    else:
        raise MissingDataError(f"{source} is neither a folder nor an archive")

    converted = cache_dir("data", "tuckute2023", f"{dataset.name}-{key}.nc")
    if converted.is_file():
        log.info("reused %s", converted)
    else:
        log.info("computed %s because %s was not converted yet", converted, source)
        if neural is None:
            with tempfile.TemporaryDirectory(prefix="brainbook-") as temporary:
                unpack(source, Path(temporary), lambda name: name.endswith(dataset.files))
                responses = _read(dataset, _neural_folder(Path(temporary), dataset, source))
        else:
            responses = _read(dataset, neural)
        with atomic_path(converted) as temporary:
            responses.to_netcdf(temporary, engine="h5netcdf")
    with xr.open_dataarray(converted, engine="h5netcdf") as stored:
        responses = stored.load()
    if public:
        _check_published(dataset, responses)
    return responses.assign_attrs(source=ARCHIVE_URL if public else str(source))


def _neural_folder(folder: Path, dataset: _Dataset, source: Path | None = None) -> Path:
    """Find the folder that holds ``NH2015`` and ``B2021``, with every file there."""
    candidates = [folder, folder / "neural", folder / "data" / "neural"]
    neural = next((c for c in candidates if (c / "NH2015").is_dir()), candidates[-1])
    missing = [file for file in dataset.files if not (neural / file).is_file()]
    if missing:
        raise MissingDataError(
            f"{source or folder} lacks {', '.join(missing)} under data/neural. "
            "If it is a download, it may have been cut short: remove it and fetch it again."
        )
    return neural


def _read(dataset: _Dataset, neural: Path) -> xr.DataArray:
    names, categories = _sound_names(neural / _NAMES)
    place = neural / dataset.name.upper()
    values = _array(place / "voxel_features_array.npy")
    meta = _array(place / "voxel_features_meta.npy")
    table = read_table(place / "df_roi_meta.pkl")
    _expect(values.ndim == 3 and values.shape[2] == 3, place, "three repetitions", values.shape)
    _expect(values.shape[1:2] == meta.shape, place, f"{values.shape[1]} voxel ids", meta.shape)

    if dataset is _B2021:
        listed = _mat_names(place / "stim_info_v4.mat")
        _expect(len(values) == len(listed), place, f"{len(listed)} listed sounds", values.shape)
        _same_order(listed[: len(names)], names, f"{place / 'stim_info_v4.mat'}: sound names")
        values = values[: len(names)]
        voxel_id = meta if meta.dtype.names is None else meta["voxel_id"]
    else:
        fields = ("n_reps", "subj_idx", "hemi", "x_ras", "y_ras", "voxel_id")
        absent = set(fields) - set(meta.dtype.names or ())
        _expect(not absent, place, f"voxel fields {', '.join(fields)}", meta.dtype)
        _expect(len(values) == len(names), place, f"{len(names)} named sounds", values.shape)
        scanned_thrice = meta["n_reps"] == 3
        values, meta = values[:, scanned_thrice], meta[scanned_thrice]
        voxel_id = meta["voxel_id"]

    _check_table(table, voxel_id, place)
    if meta.dtype.names is not None:
        for field in ("subj_idx", "hemi", "x_ras", "y_ras"):
            _same_order(_text(meta[field]), _text(table[field]), f"{place}: {field} per voxel")
    broken = ~np.isfinite(values).all(axis=(0, 2))
    if broken.any():
        raise DataError(
            f"{place}: {broken.sum()} of {len(voxel_id)} voxels with three repetitions hold NaN "
            f"(first: voxel_id {voxel_id[broken.argmax()]}); none was expected to"
        )
    return xr.DataArray(
        values,
        dims=("sound", "target", "repetition"),
        coords={
            "sound": np.array(names, dtype=object),
            "category": ("sound", np.array(categories, dtype=object)),
            "target": np.arange(len(voxel_id)),
            **{name: ("target", column) for name, column in _voxel_columns(table).items()},
        },
        name="response",
        attrs={"dataset": dataset.name, "citation": dataset.citation},
    )


def _voxel_columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Voxel table under the names of the book."""
    columns = {
        "subject": np.array([f"sub-{index:02d}" for index in table["subj_idx"]], dtype=object),
        "roi": _label(table["roi_label_general"]),
        "roi_specific": _label(table["roi_label_specific"]),
        "hemisphere": _label(table["hemi"]),
        "x": table["x_ras"].to_numpy(dtype=float),
        "y": table["y_ras"].to_numpy(dtype=float),
        "voxel_id": table["voxel_id"].to_numpy(dtype=int),
        "reliability": table["pearson_r_reliability"].to_numpy(dtype=float),
        "kind": np.full(len(table), "voxel", dtype=object),
    }
    for region in ("tonotopic", "pitch", "music", "speech"):
        if region in table:
            columns[region] = table[region].to_numpy(dtype=bool)
    return columns


def _check_table(table: pd.DataFrame, voxel_id: np.ndarray, place: Path) -> None:
    needed = (
        "subj_idx", "hemi", "x_ras", "y_ras", "voxel_id", "roi_label_general",
        "roi_label_specific", "pearson_r_reliability",
    )  # fmt: skip
    absent = [column for column in needed if column not in table]
    _expect(not absent, place / "df_roi_meta.pkl", f"columns {', '.join(needed)}", [*table.columns])
    if len(np.unique(voxel_id)) != len(voxel_id):
        raise AlignmentError(f"{place / 'voxel_features_meta.npy'} holds a voxel_id twice")
    _same_order(table["voxel_id"].to_numpy(), voxel_id, f"{place}: voxel_id")
    hemispheres = set(table["hemi"])
    _expect(hemispheres <= {"lh", "rh"}, place, "hemispheres lh and rh", sorted(hemispheres))
    labels = set(_label(table["roi_label_general"])) - {""}
    known = {"Primary", "Anterior", "Lateral", "Posterior"}
    _expect(labels <= known, place, f"regions {', '.join(sorted(known))}", sorted(labels))


def _check_published(dataset: _Dataset, responses: xr.DataArray) -> None:
    n_subjects = len(np.unique(responses["subject"]))
    found = (responses.sizes["sound"], responses.sizes["target"], n_subjects)
    expected = (165, dataset.n_voxels, dataset.n_subjects)
    if found != expected:
        raise DataError(
            f"{dataset.name}: the archive holds (sounds, voxels, subjects) = {found}, "
            f"published are {expected}. Remove it and fetch it again."
        )


def _sound_names(path: Path) -> tuple[list[str], list[str]]:
    """Names and categories, in the order of the responses."""
    meta = _array(path)
    fields = meta.dtype.names or ()
    _expect(len(fields) >= 5, path, "a structured array of at least 5 fields", meta.dtype)
    files = _text(meta["filename" if "filename" in fields else fields[0]])
    names = [name.removesuffix(".wav") for name in files]
    _expect(len(set(names)) == len(names), path, "unique sound names", f"{len(names)} with doubles")
    return names, _text(meta[fields[4]])


def _mat_names(path: Path) -> list[str]:
    try:
        nested = scipy.io.loadmat(path)["stim_info"]["stim_names"][0, 0]
    except (KeyError, ValueError, IndexError, TypeError, OSError) as error:
        raise DataError(f"{path} does not hold stim_info.stim_names ({error})") from error
    names = []
    for cell in np.ravel(nested):
        while isinstance(cell, np.ndarray):
            cell = cell.ravel()[0] if cell.size else ""
        names.append(str(cell).removesuffix(".wav"))
    return names


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a readable NumPy array ({error})") from error


def _text(values: Sequence) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in np.asarray(values).tolist()]


def _label(column: pd.Series) -> np.ndarray:
    """Strings, empty where the table has none."""
    return np.array(["" if pd.isna(v) else str(v) for v in column], dtype=object)


def _expect(holds: bool, place: Path, expected: str, found: object) -> None:
    if not holds:
        raise DataError(f"{place}: expected {expected}, found {found}")


def _same_order(found: Sequence, expected: Sequence, what: str) -> None:
    """Compare two lists entry by entry and say where they part."""
    found, expected = list(found), list(expected)
    if len(found) != len(expected):
        raise AlignmentError(f"{what}: {len(found)} entries, expected {len(expected)}")
    for row, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a != b:
            shuffled = (
                "the same entries in another order"
                if _counts(found) == _counts(expected)
                else "other entries"
            )
            raise AlignmentError(f"{what}: {shuffled}; row {row} is {a!r}, expected {b!r}")


def _counts(values: Sequence) -> Mapping:
    kinds, counts = np.unique(np.asarray(values), return_counts=True)
    return dict(zip(kinds.tolist(), counts.tolist(), strict=True))
