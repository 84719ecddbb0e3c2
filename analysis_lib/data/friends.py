"""Friends: hours of one person's fMRI, and the audio that was heard, run by run.

A run is half an episode: ``s01e02a`` is the first half of the second episode of season 1. Data
sets open by name or by folder, and give the same objects whatever their layout
(:mod:`analysis_lib.data.friends_files`).

==========================  ====================================================================
``friends-twin``            generated audio, generated brain with planted truth
``friends-real-audio-twin`` the same brain over real audio: the clips of ESC-10 in a row
a folder or file            Algonauts 2025 h5, friends.timeseries h5, ``.npz`` runs, NIfTI runs
==========================  ====================================================================

References
----------
Boyle et al. (2023), the Courtois project on neuronal modelling; Gifford et al. (2025), the
Algonauts Project 2025 challenge; Freteault et al. (2025) for the protocol.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import DataError, DataNotice, MissingDataError, ParameterError, UnknownNameError
from . import friends_files
from .friends_audio import audio_files
from .friends_splits import parse_run, shared_runs, split

if TYPE_CHECKING:
    from .friends_twin import Truth

__all__ = [
    "TR",
    "FriendsData",
    "Run",
    "open",
    "parse_run",
    "shared_runs",
    "split",
    "subjects",
    "truth",
]

TR = 1.49  # s


@dataclass(frozen=True)
class Run:
    """Half an episode, heard and scanned once. Nothing is read before it is asked for.

    Attributes
    ----------
    name : str
        For instance ``"s01e02a"``.
    session : str
        Scanning session, ``"ses-001"``.
    n_trs : int
        Volumes that audio goes with.
    tr : float
        Seconds from one volume to the next.
    """

    name: str
    session: str
    n_trs: int
    tr: float
    targets: pd.Index = field(repr=False)
    _read_bold: Callable[[], np.ndarray] = field(repr=False, compare=False)
    _read_audio: Callable[[int], np.ndarray] = field(repr=False, compare=False)

    @property
    def season(self) -> int:
        """Its season: 1 for ``s01e02a``."""
        return parse_run(self.name)[0]

    @property
    def episode(self) -> int:
        """Its episode within the season: 2 for ``s01e02a``."""
        return parse_run(self.name)[1]

    @property
    def half(self) -> str:
        """Which half of the episode: ``"a"`` for ``s01e02a``; long episodes go beyond b."""
        return parse_run(self.name)[2]

    def bold(self) -> xr.DataArray:
        """Read the brain's responses.

        Returns
        -------
        DataArray (time, target), float32
            ``time`` is the onset of each volume in seconds; the first volume starts with the
            audio. A target with NaN anywhere is NaN throughout, with a notice that names it.
        """
        values = np.asarray(self._read_bold()[: self.n_trs], dtype=np.float32)
        broken = ~np.isfinite(values).all(axis=0)
        if broken.any():
            names = ", ".join(map(str, self.targets[broken][:5]))
            warnings.warn(
                DataNotice(
                    f"run {self.name}: {broken.sum()} of {broken.size} targets hold NaN or "
                    f"infinite values and are NaN in every result: {names}"
                    f"{', …' if broken.sum() > 5 else ''}"
                ),
                stacklevel=2,
            )
            values = np.where(broken, np.float32(np.nan), values)
        time = self.tr * np.arange(len(values))
        coords = {"time": time, "target": self.targets.to_numpy(dtype=object)}
        return xr.DataArray(values, coords, ("time", "target"), name="bold")

    def audio(self, sample_rate: int) -> np.ndarray:
        """Read what was heard, from the first volume to the end of the last.

        Parameters
        ----------
        sample_rate : int
            Rate in Hz to resample the whole run to, once.

        Returns
        -------
        array of shape (round(n_trs * tr * sample_rate),), float32, mono, in [-1, 1]
        """
        n_samples = round(self.n_trs * self.tr * sample_rate)
        waveform = self._read_audio(sample_rate)[:n_samples]
        # Resampling may round the length down by a sample.
        return np.pad(waveform, (0, n_samples - len(waveform)))


@dataclass(frozen=True)
class FriendsData:
    """One subject's runs.

    Attributes
    ----------
    name : str
        Of the data set, or its folder.
    subject : str
        ``"sub-01"``.
    tr : float
        Seconds from one volume to the next.
    targets : DataFrame
        One row per parcel or voxel, by name; ``x``, ``y``, ``z`` in mm (MNI) and ``hemisphere``
        where a parcellation is known.
    runs : dict of str to Run
        By name, in order of season, episode and half.
    parcellation : path or None
        NIfTI image whose label ``i + 1`` is row ``i`` of ``targets``.
    """

    name: str
    subject: str
    tr: float
    targets: pd.DataFrame
    runs: Mapping[str, Run]
    parcellation: Path | None = None

    def __repr__(self) -> str:
        seasons = sorted({run.season for run in self.runs.values()})
        return (
            f"FriendsData({self.name}, {self.subject}: {len(self.runs)} runs of seasons "
            f"{', '.join(map(str, seasons))}; {len(self.targets)} targets)"
        )


def open(  # noqa: A001 - data.friends.open is the name that reads best
    source: str | Path,
    subject: str = "sub-01",
    *,
    runs: Iterable[str] | None = None,
    stimuli: str | Path | None = None,
    parcellation: str | Path | None = None,
    tr: float = TR,
    tolerance: int = 10,
    session: str = "last",
    missing: str = "raise",
    standardize: bool = True,
    detrend: bool = False,
    smoothing_fwhm: float | None = 8.0,
) -> FriendsData:
    """Open one subject's data. Only names, lengths and headers are read.

    Parameters
    ----------
    source : str or path
        ``"friends-twin"``, ``"friends-real-audio-twin"`` (written into the cache on first use),
        or a file or folder in one of the layouts of :mod:`analysis_lib.data.friends_files`.
    subject : str
        ``"sub-01"`` and so on.
    runs : iterable of str, optional
        Only these, for instance ``["s01e02a", "s01e02b"]``.
    stimuli : path, optional
        Folder of the audio, ``friends_s01e02a.wav`` or ``.mkv`` in any subfolder; by default
        searched beside the data.
    parcellation : path, optional
        NIfTI image of labelled parcels; needed for NIfTI runs, and names places for the others.
        ``"mist"`` fetches the 210 parcels of the paper.
    tr : float
        Repetition time in seconds.
    tolerance : int
        A scan may outlast its audio, or the audio the scan, by so many volumes; the surplus is
        cropped with a notice. More is an error: the two do not belong together.
    session : {"last", "first"}
        Which session to keep of a run that was scanned twice. A scan is repeated because the
        first went wrong, so the last is our reading.
    missing : {"raise", "drop"}
        What happens when runs have no audio: an error, or they are left out with a notice.
    standardize, detrend, smoothing_fwhm
        For NIfTI runs, passed to nilearn's maskers: z scores per run, no detrending and 8 mm,
        as in Freteault et al. (2025). The other layouts hold finished time series.

    Raises
    ------
    UnknownNameError, MissingDataError
        For a subject, run or file that is not there.
    DataError
        When a run and its audio differ in length beyond the tolerance (a wrong repetition time
        shows here), or keys and files are not of the layout.
    """
    for value, name, known in (
        (session, "session", ("last", "first")),
        (missing, "missing", ("raise", "drop")),
    ):
        if value not in known:
            raise ParameterError(f"{name} must be one of {known}, not {value!r}")
    if not tr > 0 or tolerance < 0:
        raise ParameterError(f"tr must be positive and tolerance at least 0: {tr}, {tolerance}")
    name, source = str(source), _folder(source)
    masker = {
        "standardize": standardize,
        "detrend": detrend,
        "smoothing_fwhm": smoothing_fwhm,
    }
    scans = friends_files.scans(source, subject, tr, parcellation, masker)
    chosen = _one_per_run(scans.scans, session, subject)
    if runs is not None:
        wanted = [str(run) for run in runs]
        for run in wanted:
            if run not in chosen:
                raise UnknownNameError(f"run of {subject}", run, chosen)
        chosen = {run: chosen[run] for run in wanted}
    audio = audio_files(Path(stimuli) if stimuli else scans.folder, bool(stimuli))
    chosen = _with_audio(chosen, audio, missing, subject)
    opened, cropped = {}, []
    for run in sorted(chosen, key=parse_run):
        scan, sound = chosen[run], audio[run]
        n_heard = int(sound.seconds() / tr + 1e-6)
        _check_length(run, scan.n_trs, n_heard, sound.seconds(), tr, tolerance)
        if scan.n_trs != n_heard:
            cropped.append(f"{run} {scan.n_trs - n_heard:+d}")
        opened[run] = Run(
            run, scan.session, min(scan.n_trs, n_heard), tr, scans.targets.index,
            scan.read, sound.read,
        )  # fmt: skip
    if cropped:
        shown = ", ".join(cropped[:6]) + (", …" if len(cropped) > 6 else "")
        warnings.warn(
            DataNotice(
                f"{subject}: in {len(cropped)} of {len(opened)} runs the scan and the audio differ "
                f"by up to {tolerance} volumes; the surplus is cropped ({shown})"
            ),
            stacklevel=2,
        )
    return FriendsData(name, subject, tr, scans.targets, opened, scans.parcellation)


def subjects(source: str | Path) -> list[str]:
    """Subjects of a data set, given as for :func:`open`."""
    return friends_files.subjects(_folder(source))


def truth(name: str, subject: str = "sub-01") -> "Truth":
    """Read what was planted in a twin: see :class:`~analysis_lib.data.friends_twin.Truth`."""
    from . import friends_twin

    if name not in friends_twin.TWINS:
        raise UnknownNameError("twin", name, friends_twin.TWINS)
    return friends_twin.read_truth(friends_twin.write(name), subject)


def _folder(source: str | Path) -> Path:
    """Folder or file of a data set; a twin is written first."""
    from . import friends_twin  # only twins need the networks

    return friends_twin.write(source) if source in friends_twin.TWINS else Path(source)


def _one_per_run(
    scans: Sequence["friends_files.Scan"], session: str, subject: str
) -> dict[str, "friends_files.Scan"]:
    """Keep one scan of each run, by session number."""
    of_run: dict[str, list[friends_files.Scan]] = {}
    for scan in scans:
        parse_run(scan.run)
        of_run.setdefault(scan.run, []).append(scan)
    kept, repeated = {}, []
    for run, several in of_run.items():
        several.sort(key=lambda scan: scan.session)
        kept[run] = several[-1 if session == "last" else 0]
        if len(several) > 1:
            tried = ", ".join(scan.session for scan in several)
            repeated.append(f"{run} ({tried}: kept {kept[run].session})")
    if repeated:
        warnings.warn(
            DataNotice(
                f"{subject}: {len(repeated)} runs were scanned more than once; the {session} "
                f"session is kept: {', '.join(repeated)}"
            ),
            stacklevel=3,
        )
    return kept


def _with_audio(chosen: dict, audio: Mapping, missing: str, subject: str) -> dict:
    silent = sorted(set(chosen) - set(audio), key=parse_run)
    if not silent:
        return chosen
    shown = ", ".join(silent[:6]) + (", …" if len(silent) > 6 else "")
    message = f"{subject}: {len(silent)} of {len(chosen)} runs have no audio ({shown})"
    if missing == "raise" or len(silent) == len(chosen):
        raise MissingDataError(
            f"{message}. Files are named friends_{silent[0]}.wav or .mkv; give their folder as "
            "stimuli, or leave these runs out with missing='drop'."
        )
    warnings.warn(DataNotice(f"{message}; they are left out"), stacklevel=3)
    return {run: scan for run, scan in chosen.items() if run in audio}


def _check_length(
    run: str, n_scanned: int, n_heard: int, seconds: float, tr: float, tolerance: int
) -> None:
    if min(n_scanned, n_heard) < 1:
        raise DataError(f"run {run} is empty: {n_scanned} volumes, {seconds:.1f} s of audio")
    if abs(n_scanned - n_heard) > tolerance:
        raise DataError(
            f"run {run} has {n_scanned} volumes, {n_scanned * tr:.0f} s at a repetition time of "
            f"{tr} s, but its audio lasts {seconds:.0f} s ({n_heard} volumes); more than "
            f"{tolerance} volumes cannot be cropped. Check that the audio is this run's, and the "
            f"repetition time: {seconds / n_scanned:.2f} s would fit."
        )
