"""A small simulated copy of the public voxel archive, in exactly its layout.

Tests and demonstrations read it with the loaders of the real files. It has their traps: subjects
with two scans only, whose third repetition is NaN; voxel ids that are no row numbers; subject
numbers with gaps; voxels without a region; components ordered by category; sounds that only one
of the two data sets has.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from ..paths import atomic_path
from .components import COMPONENTS
from .simulated import AREAS, plant

__all__ = ["random_features", "write_twin"]

_PARCELS = {"Primary": "A1", "Lateral": "A4", "Anterior": "TA2", "Posterior": "RI"}
_CATEGORIES = ("Music", "EngSpeech", "Nature", "Mechanical", "EnvSound")


def random_features(n_sounds: int = 165, n_units: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw features without any meaning: one independent layer per driver of :data:`AREAS`.

    Returns
    -------
    dict of str to array of shape (n_sounds, n_units)
    """
    rng = np.random.default_rng(seed)
    return {
        layer: rng.standard_normal((n_sounds, n_units)) for layer in dict.fromkeys(AREAS.values())
    }


def write_twin(
    folder: Path,
    features: Mapping[str, np.ndarray] | None = None,
    names: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    areas: Mapping[str, str] = AREAS,
    n_subjects: int = 4,
    n_voxels: int = 12,
    n_extra_sounds: int = 27,
    noise: float = 1.0,
    seed: int = 0,
) -> Path:
    """Write a simulated ``data`` folder: ``neural/{NH2015,B2021,NH2015comp}`` and ``stimuli``.

    Parameters
    ----------
    folder : path
        Gets a subfolder ``data``.
    features : mapping of str to array of shape (n_sounds, n_units), optional
        What drives the voxels; by default :func:`random_features`.
    names, categories : sequence of str, optional
        Of the sounds, in the order of the arrays; by default made up.
    areas : mapping of str to str
        Which layer drives which region (Primary, Lateral, Anterior, Posterior).
    n_subjects : int
        Subjects with three scans in each data set; NH2015 gets two more with two scans.
    n_voxels : int
        Voxels per region and subject.
    n_extra_sounds : int
        Sounds at the end of B2021 that NH2015 lacks.
    noise : float
        Standard deviation of one repetition's noise, in units of the signal's.
    seed : int
        Same seed, same bytes in the arrays.

    Returns
    -------
    Path
        The folder to give to :func:`~analysis_lib.data.voxels.nh2015`.
    """
    features = random_features(seed=seed) if features is None else features
    n_sounds = len(next(iter(features.values())))
    if names is None:
        names = [f"stim{3 * row + 5}_sound_{row:03d}" for row in range(n_sounds)]
    if categories is None:
        categories = [_CATEGORIES[row % len(_CATEGORIES)] for row in range(n_sounds)]
    rng = np.random.default_rng([seed, n_sounds])
    planted = {"areas": areas, "n_voxels": n_voxels, "noise": noise}
    neural = Path(folder) / "data" / "neural"

    first = plant(features, names, n_subjects=n_subjects + 2, seed=seed, **planted)
    _write_nh2015(neural / "NH2015", first, names, categories, rng)
    second = plant(features, names, n_subjects=n_subjects, seed=seed + 1, **planted)
    _write_b2021(neural / "B2021", second, names, n_extra_sounds, rng)
    _write_components(neural / "NH2015comp", names, categories, rng)
    stimuli = pd.DataFrame(
        {"category_label": np.array(categories, dtype=object)}, index=list(names)
    )
    _pickle(stimuli, neural.parent / "stimuli" / "df_stimuli_meta.pkl")
    return neural.parent


def _write_nh2015(
    place: Path, responses: xr.DataArray, names: Sequence[str], categories: Sequence[str], rng
) -> None:
    values = responses.values.copy()
    subjects, subject = np.unique(responses["subject"], return_inverse=True)
    # Two scans only for the second and the last subject: the numbers left have a gap.
    twice = np.isin(subject, [1, len(subjects) - 1])
    values[:, twice, 2] = np.nan
    table = _voxel_table(responses, subject, rng.permutation(4 * len(subject))[: len(subject)])
    meta = np.zeros(
        len(table),
        dtype=[("n_reps", "i8"), ("subj_idx", "i8"), ("hemi", "S2"), ("x_ras", "i8"),
               ("y_ras", "i8"), ("voxel_id", "i8")],
    )  # fmt: skip
    meta["n_reps"] = np.where(twice, 2, 3)
    for field in ("subj_idx", "hemi", "x_ras", "y_ras", "voxel_id"):
        meta[field] = table[field].to_numpy().astype(meta.dtype[field])
    for region in ("tonotopic", "pitch", "music", "speech"):
        table[region] = (rng.random(len(table)) < 0.2).astype(float)
    table["any_roi"] = table[["tonotopic", "pitch", "music", "speech"]].max(axis=1)

    stimuli = np.zeros(
        len(names),
        dtype=[("filename", "S80"), ("embedded-wav-start-idx", "i8"),
               ("embedded-wav-end-idx", "i8"), ("fmri_stim_num", "i8"), ("cat_assignment", "U20"),
               ("id", "i8")],
    )  # fmt: skip
    stimuli["filename"] = [f"{name}.wav".encode() for name in names]
    stimuli["embedded-wav-end-idx"] = 32000
    stimuli["cat_assignment"], stimuli["id"] = categories, np.arange(len(names))
    _save(stimuli, place / "neural_stim_meta.npy")
    _save(values, place / "voxel_features_array.npy")
    _save(meta, place / "voxel_features_meta.npy")
    _pickle(table[~twice].reset_index(drop=True), place / "df_roi_meta.pkl")


def _write_b2021(
    place: Path, responses: xr.DataArray, names: Sequence[str], n_extra: int, rng
) -> None:
    _, subject = np.unique(responses["subject"], return_inverse=True)
    extra = rng.standard_normal((n_extra, *responses.shape[1:]))
    table = _voxel_table(responses, subject + 1, np.arange(len(subject)))
    listed = [*names, *(f"stim{900 + k}_drums_{k:02d}" for k in range(n_extra))]
    cells = np.empty((len(listed), 1), dtype=object)
    cells[:, 0] = listed
    _save(np.concatenate([responses.values, extra]), place / "voxel_features_array.npy")
    _save(table["voxel_id"].to_numpy(), place / "voxel_features_meta.npy")
    _pickle(table, place / "df_roi_meta.pkl")
    _matlab(place / "stim_info_v4.mat", {"stim_info": {"stim_names": cells}})


def _write_components(place: Path, names: Sequence[str], categories: Sequence[str], rng) -> None:
    by_category = np.argsort(np.array(categories), kind="stable")
    _matlab(
        place / "components.mat",
        {
            "R": rng.random((len(names), 6)),
            "W": rng.standard_normal((6, 40)),
            "component_names": np.array([[name] for name in COMPONENTS], dtype=object),
            "categories": np.array([[name] for name in dict.fromkeys(categories)], dtype=object),
            "stim_names": np.array([[names[row] for row in by_category]], dtype=object),
            "category_labels": np.array([[categories[row] for row in by_category]], dtype=object),
        },
    )
    table = {"comp": np.array(list(COMPONENTS), dtype=object), "comp_idx": range(6)}
    _pickle(pd.DataFrame({**table, "voxel_id": range(6)}), place / "df_roi_meta.pkl")


def _voxel_table(responses: xr.DataArray, subject: np.ndarray, voxel_id) -> pd.DataFrame:
    """Build the columns that both data sets have."""
    repetitions = responses.values
    reliability = np.median(
        [
            _column_correlation(repetitions[..., a], repetitions[..., b])
            for a, b in ((0, 1), (1, 2), (0, 2))
        ],
        axis=0,
    )
    x, y = (responses[axis].values.astype(int) for axis in ("x", "y"))
    hemisphere, general = responses["hemisphere"].values, responses["roi"].values
    coord_id = np.array([f"{a}_{b}" for a, b in zip(x, y, strict=True)], dtype=object)

    def labelled(text) -> np.ndarray:
        labels = [text(g, h) if g else np.nan for g, h in zip(general, hemisphere, strict=True)]
        return np.array(labels, dtype=object)

    return pd.DataFrame(
        {
            "subj_idx": subject,
            "hemi": hemisphere,
            "x_ras": x,
            "y_ras": y,
            "voxel_id": voxel_id,
            "kell_r_reliability": reliability,
            "pearson_r_reliability": reliability,
            "voxel_variability_mean_reps": repetitions.mean(axis=2).std(axis=0),
            "voxel_variability_std": np.median(repetitions.std(axis=0), axis=1),
            "coord_id": coord_id,
            "shared_by": pd.Series(coord_id).groupby(coord_id).transform("size").to_numpy(),
            "roi_label_fname": labelled(lambda g, h: f"HCP_{_PARCELS[g]}_roi.mat"),
            "roi_label_specific": labelled(lambda g, h: _PARCELS[g]),
            "roi_label_general": labelled(lambda g, h: g),
            "roi_anat_hemi": labelled(lambda g, h: f"{g}_{h}"),
        }
    )


def _column_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def _save(array: np.ndarray, path: Path) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _pickle(table: pd.DataFrame, path: Path) -> None:
    # Plain objects, as pandas stored strings when the real files were made.
    text = [column for column in table if not pd.api.types.is_numeric_dtype(table[column])]
    with atomic_path(path) as temporary:
        table.astype(dict.fromkeys(text, object)).to_pickle(temporary, protocol=4)


def _matlab(path: Path, content: Mapping) -> None:
    with atomic_path(path) as temporary:
        scipy.io.savemat(temporary, content, appendmat=False)
