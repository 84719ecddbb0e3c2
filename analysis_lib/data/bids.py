"""Responses of your own from a BIDS data set: one beta per sound, by nilearn's first-level model.

Needed are preprocessed images (a derivative such as fMRIPrep's), an events table per run that says
which sound was played when, and a mask of the voxels to look at.
"""

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import soundfile
import xarray as xr

from ..errors import AlignmentError, DataError, MissingDataError
from .natural_sounds import Sounds
from .own import own_responses

__all__ = ["bids_responses", "simulated_bids"]

REPETITION_TIME = 2.0  # s, of the simulated images
SOUND_EVERY = 6.0  # s
SPACE = "MNI152NLin2009cAsym"
_SOUND = "sound:"


def bids_responses(
    folder: str | Path,
    task: str,
    mask: str | Path | nibabel.Nifti1Image,
    space: str = SPACE,
    derivatives: str = "derivatives",
    sound_column: str = "stim_file",
    areas: Mapping[int, str] | None = None,
    average: bool = False,
    **options,
) -> xr.DataArray:
    """Estimate the response of every voxel to every sound of a BIDS data set.

    Each run gets a general linear model with one regressor per sound; the regressor's weight is
    the response. Runs are repetitions: the k-th run that plays a sound gives its k-th repetition.

    Parameters
    ----------
    folder : path
        Of the data set, with events tables beside the raw runs.
    task : str
        As in ``task-<task>`` of the files' names.
    mask : path or image
        Voxels to take, in the space of the images: 0 outside, 1 inside, or a number per area.
    space : str
        As in ``space-<space>``, the grid that all subjects' images are on.
    derivatives : str
        Folder of the preprocessed images, below ``folder``, such as ``"derivatives/fmriprep"``.
    sound_column : str
        Column of the events tables that names the sound: ``stim_file``, whose last part without
        its ending is the name, or another such as ``trial_type``. Where it is empty or n/a the
        event is no sound; with a ``trial_type`` it is a regressor without interest.
    areas : mapping of int to str, optional
        Names of the numbers in the mask.
    average : bool
        Average the repetitions. Needed where sounds were played unequally often.
    **options
        Of :func:`nilearn.glm.first_level.first_level_from_bids`, for instance ``sub_labels``,
        ``hrf_model``, ``noise_model``, ``confounds_strategy``.

    Returns
    -------
    DataArray (sound, target[, repetition])
        Sounds in alphabetical order. ``target`` carries ``subject``, ``hemisphere`` (the side of
        the midline), ``roi``, and ``x_mm``, ``y_mm``, ``z_mm`` in the space of the mask.

    Raises
    ------
    MissingDataError
        When there is no such folder, or nilearn finds no images or events in it.
    DataError
        When an events table lacks the column, plays nothing, or a sound begins after the last
        image; the message names run and sound.
    AlignmentError
        When subjects heard different sounds, or sounds were played unequally often.

    Examples
    --------
    >>> import tempfile
    >>> from analysis_lib import data
    >>> sounds = data.simulated_sounds(1)
    >>> truth = data.plant(
    ...     data.planted_features(sounds), sounds.names, n_subjects=1, n_voxels=2, n_repetitions=1
    ... )
    >>> folder = data.simulated_bids(tempfile.mkdtemp(), sounds, truth)
    >>> mask = folder / "derivatives" / "mask.nii.gz"
    >>> dict(data.bids_responses(folder, "listen", mask, noise_model="ols").sizes)
    {'sound': 6, 'target': 18}
    """
    folder, labelled = Path(folder), _image(mask)
    numbers = np.asarray(labelled.dataobj).astype(int)
    places = nibabel.affines.apply_affine(labelled.affine, np.argwhere(numbers > 0))
    binary = nibabel.Nifti1Image((numbers > 0).astype("int8"), labelled.affine)
    found = _first_levels(folder, task, space, derivatives, mask_img=binary, **options)
    betas: dict[str, dict[str, list[np.ndarray]]] = {}
    for model, images, events, confounds in zip(*found, strict=True):
        heard = betas.setdefault(f"sub-{model.subject_label}", defaultdict(list))
        for run, (image, table) in enumerate(zip(images, events, strict=True)):
            where = f"{Path(image).name}, sub-{model.subject_label}"
            design = _trials(table, sound_column, where)
            model.minimize_memory = False
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*Generation of a mask has been requested")
                model.fit(image, design, None if confounds is None else confounds[run])
            _require_in_time(design, len(model.design_matrices_[0]), model.t_r, where)
            for sound, beta in _weights(model).items():
                heard[sound].append(beta)
    values, sounds, subjects = _stacked(betas, average)
    roi = [(areas or {}).get(n, f"area {n}") for n in numbers[numbers > 0]]
    labels = {
        "roi": roi if areas or numbers.max() > 1 else ["all"] * len(roi),
        "hemisphere": np.where(places[:, 0] < 0, "lh", "rh"),
        **{f"{axis}_mm": places[:, i] for i, axis in enumerate("xyz")},
    }
    n_voxels = len(places)
    return own_responses(
        values,
        sounds,
        subject=np.repeat(subjects, n_voxels),
        **{label: np.tile(column, len(subjects)) for label, column in labels.items()},
    )


def _image(mask) -> nibabel.Nifti1Image:
    if isinstance(mask, (str, Path)):
        if not Path(mask).is_file():
            raise MissingDataError(f"no mask {mask}")
        mask = nibabel.load(mask)
    if mask.ndim != 3 or not np.any(np.asarray(mask.dataobj) > 0):
        raise DataError(f"the mask, of shape {mask.shape}, is no volume with voxels above 0")
    return mask


def _first_levels(folder: Path, task: str, space: str, derivatives: str, **options):
    from nilearn.glm.first_level import first_level_from_bids

    if not (folder / derivatives).is_dir():
        raise MissingDataError(
            f"no folder {folder / derivatives}: give the folder of the BIDS data set, and where "
            "its preprocessed images are as derivatives=…"
        )
    options = {"img_filters": [("desc", "preproc")], "confounds_strategy": None, **options}
    try:
        return first_level_from_bids(
            folder, task, space_label=space, derivatives_folder=derivatives, **options
        )
    except (ValueError, FileNotFoundError) as error:
        raise MissingDataError(f"{folder}, task {task}: {error}") from error


def _trials(table: pd.DataFrame, column: str, where: str) -> pd.DataFrame:
    """Events as nilearn takes them, a trial type per sound, with a prefix that says so."""
    if column not in table:
        raise DataError(
            f"the events of {where} have the columns {', '.join(table)}, not {column!r}. "
            "Say which one names the sound with sound_column=…"
        )
    named = table[column].replace("n/a", np.nan)
    if column == "stim_file":
        named = named.map(lambda file: Path(file).stem, na_action="ignore")
    if not named.notna().any():
        raise DataError(f"the events of {where} name no sound in column {column!r}")
    others = table.get("trial_type", pd.Series(np.nan, table.index)).replace("n/a", np.nan)
    kinds = (_SOUND + named.astype(object)).fillna("event:" + others.astype(object))
    return table[["onset", "duration"]].assign(trial_type=kinds)[kinds.notna()]


def _require_in_time(design: pd.DataFrame, n_scans: int, t_r: float, where: str) -> None:
    late = design[(design["onset"] >= n_scans * t_r) & design["trial_type"].str.startswith(_SOUND)]
    if len(late):
        sound, onset = late["trial_type"].iloc[0].removeprefix(_SOUND), late["onset"].iloc[0]
        raise DataError(
            f"sound {sound!r} begins at {onset:.1f} s, after the {n_scans} images of {where} "
            f"({n_scans * t_r:.1f} s). Are onsets in seconds, and is this its table?"
        )


def _weights(model) -> dict[str, np.ndarray]:
    """Weight of each sound's regressor, (n_voxels,), from the fitted model of one run."""
    columns = list(model.design_matrices_[0].columns)
    labels, fits = model.labels_[0], model.results_[0]
    theta = np.empty((len(columns), len(labels)))
    for label, fit in fits.items():
        theta[:, labels == label] = fit.theta
    return {
        column.removeprefix(_SOUND): weights
        for column, weights in zip(columns, theta, strict=True)
        if column.startswith(_SOUND)
    }


def _stacked(betas: Mapping[str, Mapping[str, list]], average: bool):
    """Make one array (sound, target[, repetition]) of all subjects."""
    subjects = list(betas)
    everything = sorted(set().union(*betas.values()))
    for subject, heard in betas.items():
        missing = [sound for sound in everything if sound not in heard]
        if missing:
            raise AlignmentError(
                f"{subject} did not hear {', '.join(missing[:5])}, which others heard. Choose "
                "subjects with sub_labels=…, or load them one by one."
            )
    counts = Counter({(s, h): len(betas[s][h]) for s in subjects for h in everything})
    if average:
        columns = [[np.mean(betas[s][h], axis=0) for h in everything] for s in subjects]
    elif len(set(counts.values())) > 1:
        (subject, sound), fewest = min(counts.items(), key=lambda item: item[1])
        raise AlignmentError(
            f"sounds were played unequally often: {sound!r} in {fewest} runs of {subject}, others "
            f"in up to {max(counts.values())}. Average the repetitions with average=True."
        )
    else:
        columns = [[np.stack(betas[s][h], axis=-1) for h in everything] for s in subjects]
    values = np.concatenate([np.stack(column) for column in columns], axis=1)
    return (values[..., 0] if values.shape[2:] == (1,) else values), everything, subjects


def simulated_bids(
    folder: str | Path, sounds: Sounds, responses: xr.DataArray, noise: float = 0.5, seed: int = 0
) -> Path:
    """Write a small BIDS data set in which the response of every voxel to every sound is known.

    Parameters
    ----------
    folder : path
        Where to write it.
    sounds : Sounds
        Written as ``stimuli/<category>/<name>.wav``, and played in a new order in every run.
    responses : DataArray (sound, target, repetition)
        The truth, as :func:`plant` makes it: a run per repetition; voxels of each subject lie in
        a small box, areas numbered from 1 in the mask in the order of their names.
    noise : float
        Standard deviation of the noise of one image, in units of the responses.
    seed : int
        Same seed, same images.

    Returns
    -------
    Path
        The folder; the mask is ``derivatives/mask.nii.gz``, the task is ``listen``.

    Examples
    --------
    >>> import tempfile
    >>> from analysis_lib import data
    >>> sounds = data.simulated_sounds(1)
    >>> truth = data.plant(data.planted_features(sounds), sounds.names, n_subjects=1, n_voxels=2)
    >>> folder = data.simulated_bids(tempfile.mkdtemp(), sounds, truth)
    >>> sorted(path.name for path in folder.glob("*"))
    ['dataset_description.json', 'derivatives', 'stimuli', 'sub-01']
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "dataset_description.json", {"Name": "Simulated", "BIDSVersion": "1.9.0"})
    files = {}
    for name, category in zip(sounds.names, sounds.categories, strict=True):
        files[name] = str(Path(category) / f"{name}.wav")
        path = folder / "stimuli" / files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sounds.waveform(name), sounds.sample_rate)
    areas = sorted(set(responses["roi"].values))
    first = responses[:, (responses["subject"] == responses["subject"][0]).values]
    mask = np.zeros((4, 4, -(-first.sizes["target"] // 16)), dtype="int16")
    inside = np.unravel_index(np.arange(first.sizes["target"]), mask.shape)
    mask[inside] = [areas.index(roi) + 1 for roi in first["roi"].values]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-3.0, -20.0, 0.0]  # the box crosses the midline
    (folder / "derivatives").mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "derivatives" / "mask.nii.gz")
    for subject, part in responses.groupby("subject"):
        for run in range(part.sizes["repetition"]):
            order = rng.permutation(len(sounds))
            events = _events([sounds.names[i] for i in order], files, rng)
            signal = _signal(events, part.isel(repetition=run))
            signal += noise * rng.standard_normal(signal.shape)
            volume = np.full((*mask.shape, len(signal)), 100.0, dtype="f4")
            volume[inside] += signal.T
            _write_run(folder, subject, run + 1, nibabel.Nifti1Image(volume, affine), events)
    return folder


def _events(names: Sequence[str], files: Mapping[str, str], rng) -> pd.DataFrame:
    onset = 4.0 + SOUND_EVERY * np.arange(len(names)) + rng.uniform(0, 2, len(names))
    table = {"onset": onset.round(2), "duration": 2.0, "trial_type": "sound"}
    return pd.DataFrame({**table, "stim_file": [files[name] for name in names]})


def _signal(events: pd.DataFrame, responses: xr.DataArray) -> np.ndarray:
    """Responses to the sounds as they would be in the images, (n_scans, n_voxels)."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    n_scans = int((events["onset"].max() + 20) / REPETITION_TIME)
    names = [Path(file).stem for file in events["stim_file"]]
    trials = events[["onset", "duration"]].assign(trial_type=names)
    times = np.arange(n_scans) * REPETITION_TIME
    design = make_first_level_design_matrix(times, trials, drift_model=None)
    return design[names].to_numpy() @ responses.sel(sound=names).values


def _write_run(folder: Path, subject: str, run: int, image, events: pd.DataFrame) -> None:
    stem = f"{subject}_task-listen_run-{run}"
    raw = folder / subject / "func"
    derived = folder / "derivatives" / subject / "func"
    for place in (raw, derived):
        place.mkdir(parents=True, exist_ok=True)
    events.to_csv(raw / f"{stem}_events.tsv", sep="\t", index=False)
    _write_json(raw / f"{stem}_bold.json", {"RepetitionTime": REPETITION_TIME})
    about = {"RepetitionTime": REPETITION_TIME, "StartTime": 0.0}
    _write_json(derived / f"{stem}_space-{SPACE}_desc-preproc_bold.json", about)
    image.header.set_zooms((2.0, 2.0, 2.0, REPETITION_TIME))
    nibabel.save(image, derived / f"{stem}_space-{SPACE}_desc-preproc_bold.nii.gz")


def _write_json(path: Path, content: Mapping) -> None:
    path.write_text(json.dumps(content, indent=1))
