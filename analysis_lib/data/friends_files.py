"""Layouts in which the Friends data come. All of them end as the same scans.

========  ==================================================================================
layout    files of one subject
========  ==================================================================================
h5        ``sub-01_task-friends_*_bold.h5`` (Algonauts 2025), one data set per run called
          ``ses-001_task-s01e02a``; or ``sub-01_task-friends_*.h5`` (friends.timeseries), a
          group per session with data sets ``ses-001_task-s01e02a_timeseries``
npz       ``sub-01_ses-001_task-s01e02a*.npz`` with an array ``X``
nifti     ``sub-01_ses-001_task-s01e02a*_desc-preproc_bold.nii.gz`` (fMRIPrep), with confounds and
          brain mask beside them where they are; averaged over the parcels of an image
========  ==================================================================================

Every array is (n_trs, n_targets).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd

from ..errors import DataError, MissingDataError, ParameterError, UnknownNameError
from . import fetch
from .friends_audio import walk

__all__ = ["Scan", "Scans", "parcels", "scans", "subjects"]

_SUBJECT = re.compile(r"(sub-\d+)_")
_KEY = re.compile(r"(ses-\d+).*?task-(s\d{2}e\d{2}[a-z])")
# Parcellation of the paper: 210 parcels, and their names. It is offered as part of an archive.
_MIST_SOURCE = "https://doi.org/10.6084/m9.figshare.5633638"
_MIST = (
    (
        "MIST_ROI.nii.gz",
        "a80af30e33889395df7d4bea22f86f93ae1aa371dfc2401c489c1193a8d532d7",
        27_043,
    ),
    (
        "MIST_ROI.csv",
        "9c39e1a22c02974b71e405ac0b93fbeaa47094086cfdd6914c2c05f9171a95d9",
        25_942,
    ),
)
_PATTERNS = {
    "h5": "*_task-friends_*.h5",
    "npz": "*_task-s[0-9][0-9]e*.npz",
    "nifti": "*_task-s[0-9][0-9]e*_desc-preproc_bold.nii.gz",
}


@dataclass(frozen=True)
class Scan:
    """One scan of one run; ``read`` gives its array (n_trs, n_targets)."""

    run: str
    session: str
    n_trs: int
    read: Callable[[], np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class Scans:
    """All scans of a subject, their targets, and the folder that was searched."""

    scans: list[Scan]
    targets: pd.DataFrame
    folder: Path
    parcellation: Path | None


def subjects(source: Path) -> list[str]:
    """Names of the subjects that a folder holds."""
    files = [file for files in _files_by_layout(source).values() for file in files]
    return sorted({_SUBJECT.match(file.name)[1] for file in files if _SUBJECT.match(file.name)})


def scans(
    source: Path, subject: str, tr: float, parcellation: str | Path | None, masker: Mapping
) -> Scans:
    """Find the scans of one subject. Arguments as for :func:`analysis_lib.data.friends.open`."""
    if not source.exists():
        raise MissingDataError(
            f"there is nothing at {source}. Give 'friends-twin', 'friends-real-audio-twin', or "
            "the folder of a data set; the guide on the Friends data says how to get one."
        )
    known = subjects(source)
    if known and subject not in known:
        raise UnknownNameError("subject", subject, known)
    found = {
        layout: [file for file in files if file.name.startswith(f"{subject}_")]
        for layout, files in _files_by_layout(source).items()
    }
    found = {layout: files for layout, files in found.items() if files}
    if len(found) != 1:
        what = f"several layouts ({', '.join(found)})" if found else "no runs of Friends"
        raise DataError(
            f"{source} holds {what}. Give a folder with one of: {', '.join(_PATTERNS.values())}"
        )
    ((layout, files),) = found.items()
    image = _parcellation(parcellation, source, subject)
    if layout == "h5":
        listed = _from_h5(files)
    elif layout == "npz":
        listed = [_from_npz(file) for file in files]
    else:
        listed = _from_nifti(files, tr, image, masker)
    targets = _targets(listed, image, layout)
    return Scans(listed, targets, source if source.is_dir() else source.parent, image)


def parcels(image: str | Path) -> pd.DataFrame:
    """Name the parcels of a labelled image, and say where they are.

    Parameters
    ----------
    image : path
        NIfTI image with labels 1 to n. A ``.csv`` of the same stem may name them: columns
        ``roi`` (the label) and ``label``, separated by semicolons, as MIST's.

    Returns
    -------
    DataFrame
        In order of the labels: ``x``, ``y``, ``z`` of the centre of mass in mm, ``hemisphere``.
    """
    image = Path(image)
    loaded = nibabel.load(image)
    labels = np.asarray(loaded.dataobj).round().astype(int)
    present = np.unique(labels[labels > 0])
    if len(present) == 0 or present[-1] != len(present):
        raise DataError(f"{image} must hold the labels 1 to n, each at least once")
    where = np.argwhere(labels > 0)
    label = labels[tuple(where.T)] - 1
    count = np.bincount(label)
    centre = np.stack([np.bincount(label, axis) / count for axis in where.T], axis=1)
    xyz = nibabel.affines.apply_affine(loaded.affine, centre)
    table = pd.DataFrame(xyz, columns=["x", "y", "z"])
    table["hemisphere"] = np.where(table["x"] < 0, "lh", "rh")
    names = image.with_name(image.name.split(".")[0] + ".csv")
    if names.is_file():
        listed = pd.read_csv(names, sep=";").set_index("roi")["label"]
        table.index = pd.Index(listed.loc[present].to_numpy(dtype=object), name="target")
    else:
        table.index = _numbered(len(table))
    return table


def _files_by_layout(source: Path) -> dict[str, list[Path]]:
    if source.is_file():
        layout = next((k for k, p in _PATTERNS.items() if fnmatchcase(source.name, p)), None)
        if layout is None:
            raise DataError(f"{source.name} is named like none of {', '.join(_PATTERNS.values())}")
        return {layout: [source]}
    return {layout: list(walk(source, pattern)) for layout, pattern in _PATTERNS.items()}


def _from_h5(files: list[Path]) -> list[Scan]:
    """List the scans of one h5 file, keys nested or not."""
    if len(files) > 1:
        listed = ", ".join(file.name for file in files)
        raise ParameterError(f"several files of one subject: {listed}. Give one of them.")
    (path,) = files
    found, strange = [], []

    def visit(key: str, item: h5py.HLObject) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        match = _KEY.search(key)
        if match and item.ndim == 2:
            found.append(Scan(match[2], match[1], item.shape[0], lambda: _h5_values(path, key)))
            widths.add(item.shape[1])
        elif "ses-" in key:
            strange.append(key)

    widths: set[int] = set()
    try:
        with h5py.File(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise DataError(f"{path} is not readable as HDF5 ({error}); fetch it again") from error
    if strange or not found:
        what = f"keys that name no run: {', '.join(strange[:3])}" if strange else "no key"
        raise DataError(f"{path.name} holds {what}; ses-001_task-s01e02a or similar is expected")
    if len(widths) > 1:
        raise DataError(f"{path.name}: runs differ in the number of targets: {sorted(widths)}")
    return found


def _h5_values(path: Path, key: str) -> np.ndarray:
    with h5py.File(path) as file:
        if key not in file:
            raise MissingDataError(f"{path.name} has no key {key!r} any more")
        return file[key][()]


def _from_npz(path: Path) -> Scan:
    def values() -> np.ndarray:
        with np.load(path, allow_pickle=False) as arrays:
            if "X" not in arrays:
                held = ", ".join(arrays.files)
                raise DataError(f"{path.name} has no array 'X' (it holds {held or 'none'})")
            return arrays["X"]

    match = _KEY.search(path.name)
    if match is None:
        raise DataError(f"{path.name} does not say which run it is: ses-001_task-s01e02a")
    array = values()
    if array.ndim != 2:
        raise DataError(f"{path.name}: X has shape {array.shape}, (n_trs, n_targets) is needed")
    return Scan(match[2], match[1], len(array), values)


def _from_nifti(files: list[Path], tr: float, image: Path | None, masker: Mapping) -> list[Scan]:
    if image is None:
        raise ParameterError("NIfTI runs need a parcellation: give 'mist' or a NIfTI image")
    found, n_parcels = [], len(parcels(image))
    for path in files:
        match = _KEY.search(path.name)
        if match is None:
            raise DataError(f"{path.name} does not say which run it is: ses-001_task-s01e02a")
        header = nibabel.load(path).header
        if len(header.get_data_shape()) != 4:
            raise DataError(f"{path.name} is no series of volumes: {header.get_data_shape()}")
        own = float(header.get_zooms()[3])
        if abs(own - tr) > 0.005:
            raise DataError(
                f"{path.name} has a repetition time of {own:.3f} s, not {tr} s: check the file, "
                "or give its tr"
            )

        def values(path: Path = path) -> np.ndarray:
            return _parcel_means(path, tr, image, n_parcels, masker)

        found.append(Scan(match[2], match[1], header.get_data_shape()[3], values))
    return found


def _parcel_means(
    path: Path, tr: float, image: Path, n_parcels: int, masker: Mapping
) -> np.ndarray:
    """Time series of the parcels of one run, (n_trs, n_parcels)."""
    from nilearn.interfaces.fmriprep import load_confounds
    from nilearn.maskers import NiftiLabelsMasker

    stem = path.name.split("_space-")[0]
    mask = next(path.parent.glob(path.name.replace("preproc_bold", "brain_mask")), None)
    confounds = None
    if any(path.parent.glob(f"{stem}_desc-confounds_*.tsv")):
        # What load_confounds called "minimal": 6 motion parameters, slow cosines, two tissues.
        confounds, _ = load_confounds(str(path), strategy=("motion", "high_pass", "wm_csf"),
                                      motion="basic", wm_csf="basic")  # fmt: skip
    averager = NiftiLabelsMasker(
        str(image),
        mask_img=str(mask) if mask else None,
        t_r=tr,
        **{**masker, "standardize": "zscore_sample" if masker["standardize"] else None},
    )
    means = averager.fit_transform(str(path), confounds=confounds)
    # Parcels outside the brain mask have no column there: here they have one, of NaN.
    values = np.full((len(means), n_parcels), np.nan)
    for column in range(means.shape[1]):
        values[:, int(averager.region_ids_[column]) - 1] = means[:, column]
    return values


def _parcellation(given: str | Path | None, source: Path, subject: str) -> Path | None:
    """Image of the parcels: the given one, or the one that Algonauts 2025 puts beside the data."""
    if given == "mist":
        image, _ = (
            fetch.fetch_url("mist", file, "", sha256, n_bytes, _MIST_SOURCE)
            for file, sha256, n_bytes in _MIST
        )
        return image
    if given is not None:
        if not Path(given).is_file():
            raise MissingDataError(f"there is no parcellation {given}")
        return Path(given)
    root = source if source.is_dir() else source.parent.parent
    return next(walk(root, f"{subject}_*_parcellation.nii.gz"), None)


def _targets(listed: list[Scan], image: Path | None, layout: str) -> pd.DataFrame:
    named = None if image is None else parcels(image)
    if layout == "nifti":
        return named
    width = listed[0].read().shape[1]
    if named is None:
        return pd.DataFrame(index=_numbered(width))
    if len(named) != width:
        raise DataError(f"the data have {width} targets, but {image.name} has {len(named)} parcels")
    return named


def _numbered(n_targets: int) -> pd.Index:
    names = [f"parcel-{i:04d}" for i in range(1, n_targets + 1)]
    return pd.Index(np.array(names, dtype=object), name="target")
