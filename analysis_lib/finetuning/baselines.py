"""What a network predicts as it is: ridge regression on its features, in closed form."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from ..data import friends
from ..device import resolve_device
from ..encoding.fir import FIR_ALPHAS, fir_predict, fir_ridge
from ..models.soundnet import SoundNet8
from ..probes import ridge_path
from ..time_series.scores import r_squared
from .checkpoints import start_network
from .head import frame_positions, resample_frames
from .network import FRAME, RATE, EncodingModel
from .scores import scored
from .segments import Recordings, precompute, record
from .settings import Settings

__all__ = ["ridge", "ridge_head", "volume_features"]

ALGORITHM_VERSION = 1


def ridge(
    source: str | Path,
    subject: str,
    settings: Settings | Mapping[str, object] | None = None,
    checkpoint: str | Path | None = None,
    alphas: Sequence[float] = FIR_ALPHAS,
    device: str = "auto",
) -> xr.Dataset:
    """Predict a brain by ridge regression on conv7, with the delays that the head has.

    The head of the frozen baseline in closed form: the same features, the same runs, and a
    penalty for each target.

    Parameters
    ----------
    source, subject : str or path, str
        As for :func:`analysis_lib.data.friends.open`.
    settings : Settings or mapping, optional
        ``n_taps``, ``split``, ``untrained`` and ``input_scale`` count.
    checkpoint : path, optional
        Of the network; by default the published one.
    alphas : sequence of float
        Penalties to choose from.
    device : str
        See :func:`analysis_lib.device.resolve_device`.

    Returns
    -------
    Dataset
        ``r2`` and ``r`` (subject, run, target), ``prediction`` (head, run, time, target), as
        :func:`analysis_lib.finetuning.finetune` gives them, without the first ``n_taps - 1``
        volumes of each run, whose history is not known; ``alpha`` (target).

    Examples
    --------
    >>> from analysis_lib import finetuning
    >>> finetuning.ridge("friends-twin", "sub-01", {"taps": 5})
    Traceback (most recent call last):
        ...
    analysis_lib.errors.UnknownNameError: unknown setting 'taps'. Did you mean 'n_taps'?
    >>> start = finetuning.twin_checkpoint("friends-twin")  # doctest: +SKIP
    >>> finetuning.ridge("friends-twin", "sub-01", {"n_taps": 5}, start)["r2"]  # doctest: +SKIP
    """
    settings = replace(Settings.of(settings), protocol="robust")
    data = friends.open(source, subject)
    parts = friends.split(data.runs, settings.split)
    runs = [run for names in parts.values() for run in names]
    recordings = record([data], runs, settings, progress=False)
    features = volume_features(recordings, start_network(settings, checkpoint), settings, device)
    responses = {
        run: np.where(recordings.known[0], recordings.responses[run][0], np.nan) for run in runs
    }
    model = _fitted(features, responses, parts, settings.n_taps, alphas, device)
    predictions = {
        run: fir_predict(model, features[run])[None].astype(np.float32) for run in parts["test"]
    }
    result = scored(predictions, recordings, {subject: 0}, data.targets)
    return result.assign(alpha=("target", model["alpha"].values))


def ridge_head(
    recordings: Recordings,
    parts: Mapping[str, Sequence[str]],
    network: SoundNet8,
    settings: Settings,
    device: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the head that suits a network as it is.

    Parameters
    ----------
    recordings : Recordings
        With sound. A shared head is fitted to the mean of the subjects that have a run.
    parts : mapping of {"train", "validation"} to sequence of str
        Runs to fit on, and to choose penalties on.
    network : SoundNet8
        Stays as it is.
    settings : Settings
        ``n_taps`` and ``heads`` count.
    device : str
        See :func:`analysis_lib.device.resolve_device`.

    Returns
    -------
    weight : tensor of shape (n_outputs, n_features, n_taps)
        As the convolution of :class:`~analysis_lib.finetuning.TemporalHead` has it.
    bias : tensor of shape (n_outputs,)

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import finetuning
    >>> from analysis_lib.models.soundnet import SoundNet8
    >>> rng, runs, tr = np.random.default_rng(0), ("s01e01a", "s01e02a"), 1.49
    >>> noise = {run: rng.standard_normal((1, 17 * 32_768)).astype("float32") for run in runs}
    >>> brain = {run: rng.standard_normal((1, 10, 3)) for run in runs}
    >>> there = dict.fromkeys(runs, np.ones((1, 10), dtype=bool))
    >>> known, lead = np.ones((1, 3), dtype=bool), 4 * 32_768
    >>> recordings = finetuning.Recordings(
    ...     noise, lead, dict.fromkeys(runs, 10), brain, there, known, tr
    ... )
    >>> parts = {"train": [runs[0]], "validation": [runs[1]]}
    >>> settings = finetuning.Settings(n_taps=2, segment_trs=5)
    >>> network = SoundNet8(widths=(2, 2, 2, 2, 2, 2, 4)).eval()
    >>> weight, bias = finetuning.ridge_head(recordings, parts, network, settings, "cpu")
    >>> weight.shape, bias.shape
    (torch.Size([3, 4, 2]), torch.Size([3]))
    """
    features = volume_features(recordings, network, settings, device)
    n_subjects = len(recordings.known)
    if settings.heads == "per-subject":
        groups = [[subject] for subject in range(n_subjects)]
    else:
        groups = [list(range(n_subjects))]
    weights, biases = [], []
    for group in groups:
        heard = {
            part: [run for run in parts[part] if recordings.present[run][group].any()]
            for part in ("train", "validation")
        }
        means = {}
        for run in heard["train"] + heard["validation"]:
            present = recordings.present[run][group]
            means[run] = recordings.responses[run][group].sum(axis=0)
            means[run] /= np.maximum(present.sum(axis=0), 1)[:, None]
        model = _fitted(features, means, heard, settings.n_taps, FIR_ALPHAS, device)
        weights.append(model["weights"].transpose("target", "unit", "lag").values[..., ::-1])
        biases.append(model["intercept"].values)
    weight, bias = np.concatenate(weights), np.concatenate(biases)
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32))


def volume_features(
    recordings: Recordings, network: SoundNet8, settings: Settings, device: str = "auto"
) -> dict[str, np.ndarray]:
    """Compute conv7 at the time of each volume.

    Parameters
    ----------
    recordings : Recordings
        With sound, under the robust protocol.
    network : SoundNet8
        Moved to the device.
    settings : Settings
        Those that the recordings were made with.
    device : str
        See :func:`analysis_lib.device.resolve_device`.

    Returns
    -------
    dict of str to array of shape (n_trs, n_features), float32
        By run.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import finetuning
    >>> from analysis_lib.models.soundnet import SoundNet8
    >>> noise = np.random.default_rng(0).standard_normal((1, 17 * 32_768)).astype("float32")
    >>> recordings = finetuning.Recordings(
    ...     inputs={"s01e01a": noise}, lead=4 * 32_768, n_trs={"s01e01a": 10},
    ...     responses={}, present={}, known=np.ones((1, 3), dtype=bool), tr=1.49,
    ... )
    >>> settings = finetuning.Settings(n_taps=2, segment_trs=5)
    >>> network = SoundNet8(widths=(2, 2, 2, 2, 2, 2, 4)).eval()
    >>> finetuning.volume_features(recordings, network, settings, "cpu")["s01e01a"].shape
    (10, 4)
    """
    device = resolve_device(device)
    still = replace(settings, start="none", statistics="frozen")
    model = EncodingModel(network, 1, settings=still).to(device)
    frames = precompute(recordings, model, device, progress=False).inputs
    features = {}
    for run, values in frames.items():
        positions = frame_positions(0, recordings.n_trs[run], recordings.tr, FRAME / RATE)
        positions = positions + recordings.lead / FRAME
        at_volumes = resample_frames(torch.from_numpy(np.array(values))[None], positions[None])
        features[run] = at_volumes[0].T.numpy()
    return features


def _fitted(
    features: Mapping[str, np.ndarray],
    responses: Mapping[str, np.ndarray],
    parts: Mapping[str, Sequence[str]],
    n_taps: int,
    alphas: Sequence[float],
    device: str,
) -> xr.Dataset:
    """Fit as :func:`fir_ridge` does, on the smaller side where volumes are few."""
    n_columns = n_taps * next(iter(features.values())).shape[1]
    if sum(len(features[run]) for run in parts["train"]) >= n_columns:
        return fir_ridge(features, responses, parts, n_taps, alphas, device=device)
    x, y = {}, {}
    for part in ("train", "validation"):
        delayed = [_delayed(features[run], n_taps) for run in parts[part]]
        x[part] = torch.from_numpy(np.concatenate(delayed)).double()
        measured = [np.asarray(responses[run])[n_taps - 1 :] for run in parts[part]]
        y[part] = torch.from_numpy(np.concatenate(measured)).double()
    known = torch.isfinite(y["train"]).all(dim=0) & torch.isfinite(y["validation"]).all(dim=0)
    x_mean, y_mean = x["train"].mean(dim=0), y["train"].mean(dim=0)
    # As the streamed ridge regression: a unit has one scale, whatever its delay.
    n_units = n_columns // n_taps
    scale = x["train"][:, :n_units].std(dim=0, correction=0).repeat(n_taps)
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)
    z = {part: (values - x_mean) / scale for part, values in x.items()}
    # ridge_path takes penalties in units of the mean squared norm of a row.
    unit = z["train"].square().sum(dim=1).mean()
    centred = torch.where(known, y["train"] - y_mean, 0.0)
    predict = ridge_path(z["train"], centred, torch.tensor(list(alphas)).double() / unit)
    held = predict(z["validation"]) + y_mean
    r2 = np.stack([r_squared(one.numpy(), y["validation"].numpy()) for one in held])
    chosen = np.nan_to_num(r2, nan=-np.inf).argmax(axis=0)
    # The map is linear: its rows are what it makes of unit vectors.
    columns = torch.arange(len(chosen))
    weights = torch.cat(
        [
            predict(rows)[torch.from_numpy(chosen), :, columns].T
            for rows in torch.eye(n_columns, dtype=torch.float64).split(1024)
        ]
    )
    weights = weights / scale[:, None]
    weights[:, ~known] = torch.nan
    intercept = y_mean - x_mean @ weights
    return xr.Dataset(
        {
            "weights": (("lag", "unit", "target"), weights.view(n_taps, -1, len(chosen)).numpy()),
            "intercept": ("target", intercept.numpy()),
            "alpha": ("target", np.where(known.numpy(), np.asarray(alphas)[chosen], np.nan)),
        },
        attrs={"edges": "drop"},
    )


def _delayed(features: np.ndarray, n_taps: int) -> np.ndarray:
    """Delayed copies side by side, delay 0 first, of the volumes that have a full history."""
    n_trs = len(features)
    return np.concatenate(
        [features[n_taps - 1 - lag : n_trs - lag] for lag in range(n_taps)], axis=1
    )
