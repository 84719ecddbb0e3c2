"""Comparing every checkpoint of a training run with a brain, one at a time."""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .. import extraction, probes, results, rsa
from ..data import Sounds, Task
from ..encoding import nested_cv_ridge, subject_medians
from ..errors import DataError, UnknownNameError, WeightsError
from ..features import Features
from ..models import AudioModel
from ..paths import content_key
from .series import CheckpointSeries

__all__ = ["encode_layers", "over_steps", "similarity"]

log = logging.getLogger("brainbook")

# Raised when results change, those of the kernels underneath included; part of every result's key.
ALGORITHM_VERSION = 1
_AT_ONCE = 4096  # targets that are resampled together; bounds the memory


def over_steps(
    series: CheckpointSeries,
    sounds: Sounds,
    responses: Mapping[str, xr.DataArray],
    folds: Mapping[str, xr.DataArray] = MappingProxyType({}),
    task: Task | None = None,
    steps: Collection[int] | None = None,
    layers: Sequence[str] | None = None,
    n_boot: int = 200,
    seed: int = 0,
    about: Mapping[str, object] | None = None,
    skip_corrupt: bool = False,
    keep_features: bool = False,
    device: str = "auto",
) -> dict[str, xr.Dataset]:
    """Compare every checkpoint of a series with brains.

    Checkpoints are fetched, loaded, compared and dropped one after the other. What was compared
    is kept in the result store, so that a run that was killed goes on where it was, and a
    finished one loads no network at all.

    Parameters
    ----------
    series : CheckpointSeries
        The training run.
    sounds : Sounds
        The sounds that the brains heard.
    responses : mapping of str to DataArray (sound, target[, repetition])
        Voxels or components, by the name of the brain. All in one call need a checkpoint once.
    folds : mapping of str to DataArray (sound,), optional
        For the brains that are named here encoding models are fitted (:func:`encode_layers`);
        similarity is computed for all (:func:`similarity`).
    task : Task, optional
        With it a linear probe is trained on each layer. The network must not have learned from
        its labels.
    steps : collection of int, optional
        By default all of the series.
    layers : sequence of str, optional
        By default all of the model's.
    n_boot : int
        Draws of the sounds, the same at every step and in every run with the same sounds and
        seed: differences between steps or runs are differences between pairs. 0 for none.
    seed : int
        Of the draws.
    about : mapping, optional
        What to find the stored results by, besides ``series``, ``step`` and ``dataset``.
    skip_corrupt : bool
        Go on without checkpoints that cannot be read, naming them in the log and in
        ``attrs["skipped"]``. By default the first of them is an error.
    keep_features : bool
        Keep every step's features in the cache.
    device : str
        Where to compute.

    Returns
    -------
    dict of str to Dataset
        By brain; per step (``step``) what :func:`similarity` and :func:`encode_layers` give, and
        with ``task`` ``probe`` (step, layer), the task's primary metric. :func:`curves` takes it
        from there.

    Raises
    ------
    MissingDataError
        When a step is not in the series.
    WeightsError
        When a checkpoint cannot be read; it names file and step.
    UnknownNameError
        When there are folds for a brain that is not there.
    DataError
        When no checkpoint can be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from safetensors.torch import save_file
    >>> from analysis_lib import data, dynamics, models
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for step in (0, 100):
    ...     network = models.load("small-cnn", untrained=True, seed=step, device="cpu").network
    ...     save_file(network.state_dict(), folder / f"step={step}.safetensors")
    ...
    >>> series = dynamics.CheckpointSeries.of_folder(folder, load="small-cnn")
    >>> sounds = data.simulated_sounds(2)
    >>> brain = data.responses("simulated", sounds=sounds, n_subjects=1, n_voxels=3)
    >>> compared = dynamics.over_steps(series, sounds, {"demo": brain}, n_boot=10, device="cpu")
    >>> compared["demo"]["step"].values.tolist()
    [0, 100]
    """
    steps = series.steps if steps is None else tuple(sorted(steps))
    for step in steps:
        if step not in series.steps:
            series.path(step)  # says which steps there are
    for brain in folds:
        if brain not in responses:
            raise UnknownNameError("brain to fit encoding models to", brain, responses)
    shared = {"n_boot": n_boot, "seed": seed, "device": device}
    label = {"series": series.name, **(about or {})}
    found: dict[str, dict[int, xr.Dataset]] = {brain: {} for brain in responses}
    skipped = []
    for step in tqdm(steps, desc=series.name, disable=len(steps) < 3, leave=False):
        at = _AtStep(series, step, layers, keep_features, device)
        try:
            compared = _compared(at, sounds, responses, folds, task, label, shared)
        except WeightsError as error:
            if not skip_corrupt:
                raise
            log.warning("left out: %s", error)
            skipped.append(int(step))
            continue
        finally:
            at.close()
        for brain, parts in compared.items():
            # Regions come in an order of their own from either analysis.
            parts = [part.reindex_like(parts[0]).drop_attrs() for part in parts]
            found[brain][step] = xr.merge(parts, join="exact", compat="equals")
    if len(skipped) == len(steps):
        raise DataError(f"{series.name}: none of {len(steps)} checkpoints could be read")
    history = {"series": series.name, "skipped": json.dumps(skipped), "n_boot": n_boot}
    gathered = {}
    for brain, by_step in found.items():
        whole = xr.concat(by_step.values(), dim="step", join="exact")
        heard = sorted(map(str, responses[brain]["sound"].values))
        gathered[brain] = whole.assign_coords(step=np.array(list(by_step), dtype=int)).assign_attrs(
            **history, dataset=brain, seed=seed, draws_of=content_key(heard, n_boot, seed)
        )
    return gathered


def _compared(
    at: "_AtStep", sounds, responses, folds, task, label, shared
) -> dict[str, list[xr.Dataset]]:
    """Everything that is asked about one checkpoint, by brain."""
    features = at.features(sounds)
    named = {**label, "step": int(at.step)}
    probed = []
    if task is not None:
        asked = {"model": at.features(task.sounds()), "task": task, "device": shared["device"]}
        result = results.cached(
            "dynamics-probe", probes.evaluate, named, **asked, protocol="linear"
        )
        probed.append(xr.Dataset({"probe": result["layer_score"].mean("fold")}))
    compared = {}
    for brain, measured in responses.items():
        asked = {"features": features, "responses": measured, **shared}
        called = {**named, "dataset": brain}
        compared[brain] = [results.cached("dynamics-rsa", similarity, called, **asked), *probed]
        if brain in folds:
            asked["folds"] = folds[brain]
            compared[brain].append(
                results.cached("dynamics-encoding", encode_layers, called, **asked)
            )
    return compared


def similarity(
    features: Mapping[str, xr.DataArray],
    responses: xr.DataArray,
    n_boot: int = 0,
    seed: int = 0,
    device: str = "auto",
) -> xr.Dataset:
    """Compare the distances between sounds, layer by layer.

    Parameters
    ----------
    features, responses, device
        As in :func:`analysis_lib.rsa.layerwise`.
    n_boot, seed : int
        Draws of the sounds (:func:`analysis_lib.rsa.bootstrap`).

    Returns
    -------
    Dataset
        ``rsa`` (layer, subject), over all voxels of a subject; where voxels carry regions,
        ``rsa_roi`` (layer, subject, roi); with ``n_boot``, ``rsa_draws`` and ``rsa_roi_draws``
        (draw, layer[, roi]), means over subjects under each draw.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import dynamics
    >>> rng, names = np.random.default_rng(0), [f"sound {k}" for k in range(20)]
    >>> def labelled(dim, n):
    ...     coords = {"sound": names}
    ...     return xr.DataArray(rng.standard_normal((20, n)), dims=("sound", dim), coords=coords)
    ...
    >>> features, responses = {"layer": labelled("unit", 8)}, labelled("target", 12)
    >>> dict(dynamics.similarity(features, responses, n_boot=10, device="cpu")["rsa_draws"].sizes)
    {'draw': 10, 'layer': 1}
    """
    found = {}
    for name, groupby in _groupings(responses).items():
        found[f"rsa{name}"] = rsa.layerwise(features, responses, groupby, device)["score"]
        if n_boot:
            drawn = rsa.bootstrap(
                features, responses, "sounds", n_boot, groupby, seed=seed, device=device
            )
            found[f"rsa{name}_draws"] = drawn["draws"]
    return xr.Dataset(found)


def encode_layers(
    features: Mapping[str, xr.DataArray],
    responses: xr.DataArray,
    folds: xr.DataArray,
    n_boot: int = 0,
    seed: int = 0,
    device: str = "auto",
) -> xr.Dataset:
    """Fit encoding models to each layer alone, and to all with a joint choice per target.

    The protocol of :func:`analysis_lib.encoding.nested_cv_ridge`.

    Parameters
    ----------
    features, responses, folds, device
        As in :func:`analysis_lib.encoding.nested_cv_ridge`; responses with names of sounds.
    n_boot, seed : int
        Draws of the sounds over which predicted and measured responses are correlated again. The
        models are not fitted again: what another sample would change in them is not in the
        draws.

    Returns
    -------
    Dataset
        R² of each layer alone, ``encoding`` (layer, target), and of the layer chosen for each
        target, ``encoding_joint`` (target,). Of voxels the median in each subject stands in the
        place of the target, and where they carry regions ``encoding_roi`` and
        ``encoding_joint_roi`` have those of each region. And all of them with ``_draws``
        (draw, ...), of voxels the mean over subjects.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import dynamics
    >>> rng, names = np.random.default_rng(0), [f"sound {k}" for k in range(20)]
    >>> def labelled(dim, n):
    ...     coords = {"sound": names}
    ...     return xr.DataArray(rng.standard_normal((20, n)), dims=("sound", dim), coords=coords)
    ...
    >>> features, responses = {"layer": labelled("unit", 8)}, labelled("target", 12)
    >>> folds = xr.DataArray(np.arange(20) % 4, dims="sound", coords={"sound": names})
    >>> result = dynamics.encode_layers(features, responses, folds, device="cpu")
    >>> sorted(result.data_vars)
    ['encoding', 'encoding_joint']
    """
    if "repetition" in responses.dims:
        responses = responses.mean("repetition")
    counts = _draws_of_sounds(responses.sizes["sound"], n_boot, seed)
    options = (responses, folds, counts, device)
    by_layer = [_encoded({layer: features[layer]}, "encoding", *options) for layer in features]
    found = xr.concat(by_layer, dim="layer", join="exact").assign_coords(layer=list(features))
    joint = _encoded({layer: features[layer] for layer in features}, "encoding_joint", *options)
    return found.transpose(*(dim for dim in ("draw", "layer") if dim in found.dims), ...).merge(
        joint
    )


def _groupings(responses: xr.DataArray) -> dict[str, tuple[str, ...]]:
    """How voxels are put together: into subjects, and where known into regions."""
    known = "roi" in responses.coords and (responses["roi"] != "").any()
    return {"": ("subject",), **({"_roi": ("subject", "roi")} if known else {})}


def _encoded(space, name: str, responses, folds, counts, device) -> xr.Dataset:
    """Summarised score of one choice of layers, and its draws."""
    result = nested_cv_ridge(space, responses, folds, device=device)
    scores = {name: result["score"]}
    if len(counts):
        predicted = result["prediction"].transpose("sound", "target").values
        measured = responses.transpose("sound", "target").values
        draws = np.concatenate(
            [
                _resampled_scores(measured[:, part], predicted[:, part], counts)
                for part in _parts(measured.shape[1])
            ],
            axis=1,
        )
        scores[f"{name}_draws"] = result["score"].expand_dims(draw=len(counts)).copy(data=draws)
    if "voxel" not in (responses["kind"].values if "kind" in responses.coords else ()):
        return xr.Dataset({key: _bare(each) for key, each in scores.items()})
    found = {}
    for grouping, groupby in _groupings(responses).items():
        for key, each in scores.items():
            if "subject" not in each.coords:
                each = each.assign_coords(subject=("target", ["all"] * each.sizes["target"]))
            medians = subject_medians(each, groupby)
            is_drawn = "draw" in medians.dims
            key = f"{name}{grouping}_draws" if is_drawn else f"{name}{grouping}"
            found[key] = medians.mean("subject") if is_drawn else medians
    return xr.Dataset(found)


def _bare(scores: xr.DataArray) -> xr.DataArray:
    """Scores (..., target) with no coordinate but the targets' names."""
    return scores.drop_vars([name for name in scores.coords if name not in scores.dims])


def _draws_of_sounds(n_sounds: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each sound comes in each draw, (n_boot, n_sounds): the draws of ``rsa``."""
    rng = np.random.default_rng(seed)
    draws = [
        np.bincount(rng.integers(0, n_sounds, n_sounds), minlength=n_sounds) for _ in range(n_boot)
    ]
    return np.array(draws, dtype=float)


def _resampled_scores(y: np.ndarray, p: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Squared correlation of columns of y and p (n_sounds, n) in each draw, (n_boot, n)."""
    y, p = (values - values.mean(axis=0) for values in (y, p))
    total = counts.sum(axis=1, keepdims=True)
    mean_y, mean_p = counts @ y / total, counts @ p / total
    covariance = counts @ (y * p) / total - mean_y * mean_p
    spread = (counts @ y**2 / total - mean_y**2) * (counts @ p**2 / total - mean_p**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(spread > 0, covariance / np.sqrt(spread), 0.0)
    return np.where(np.isnan(y * p).any(axis=0), np.nan, r.clip(min=0) ** 2)


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + _AT_ONCE) for start in range(0, n, _AT_ONCE))


class _AtStep:
    """A checkpoint that is loaded when one of its features is first needed."""

    def __init__(self, series: CheckpointSeries, step: int, layers, keep: bool, device: str):
        self.series, self.step = series, step
        self.layers, self.keep, self.device = layers, keep, device

    @cached_property
    def model(self) -> AudioModel:
        return self.series.load(self.step, self.device)

    def features(self, sounds: Sounds) -> Features:
        """Features with a key that is known before they are."""
        key = content_key(
            "features of a checkpoint",
            self.series.identity(self.step),
            self.layers,
            sounds.names,
            [sounds.content_hash(name) for name in sounds],
        )
        history = {"model": f"{self.series.name}, step {self.step}"}
        return Features(_Later(self, sounds), sounds.names, sounds.categories, key, history)

    def close(self) -> None:
        """Drop the network, and the file if it was fetched for this."""
        self.__dict__.pop("model", None)
        self.series.release(self.step)


class _Later(Mapping):
    """Arrays of a model's layers that are extracted when first asked for."""

    def __init__(self, at: _AtStep, sounds: Sounds):
        self._at, self._sounds = at, sounds

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        found = extraction.extract(
            self._at.model, self._sounds, self._at.layers, cache=self._at.keep
        )
        return {layer: found[layer].values for layer in found}

    def __getitem__(self, layer: str) -> np.ndarray:
        return self._arrays[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
