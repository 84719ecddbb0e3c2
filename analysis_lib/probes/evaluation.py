"""Probes: how well a representation solves a task.

Three protocols:

``"paper"``
    Pepino et al. (2025): embeddings cut to float16, learned layer weights, PCA per layer where
    widths differ, 16 configurations. With folds, the grid is searched on the first fold only,
    and its winner is used on folds whose test clips it was chosen on or trained on. One seed.
``"robust"``
    The same probe without these: single precision throughout, the grid searched within each
    fold, three seeds.
``"linear"``
    Ridge regression onto the labels, layer and penalty chosen on the validation clips. Seconds
    instead of minutes, nothing random: for teaching, and as a check.
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from .. import extraction, models
from ..data.task_format import Partition, Task
from ..device import resolve_device
from ..errors import AlignmentError, AudioNotice, DataError, ParameterError, UnknownNameError
from ..models import AudioModel
from .metrics import scene_score
from .recipe import PAPER_GRID, Configuration
from .training import ProbeData, TrainedProbes, train_probes

__all__ = ["LINEAR_PENALTIES", "PROTOCOLS", "evaluate", "require_disjoint", "ridge_path"]

log = logging.getLogger("brainbook")
PROTOCOLS = ("paper", "robust", "linear")
# In units of the mean squared norm of the training features.
LINEAR_PENALTIES = tuple(10.0**e for e in np.arange(-4, 2.01, 0.5))

Representation = str | AudioModel | Mapping[str, xr.DataArray | np.ndarray]


def evaluate(
    model: Representation,
    task: Task,
    protocol: str = "robust",
    layers: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    grid: Sequence[Configuration] = PAPER_GRID,
    max_epochs: int = 200,
    patience: int = 20,
    n_configurations_batch: int | str = "auto",
) -> xr.Dataset:
    """Solve a scene task with a representation.

    Parameters
    ----------
    model : str or AudioModel, or mapping of layer to array of shape (n_clips, n_units)
        A name is loaded; a model is run over the clips, and its features kept in the cache.
        DataArrays are aligned to the clips by their coordinate ``sound``; plain arrays must be
        in the order of ``task.clips``.
    task : Task
        A scene task.
    protocol : {"paper", "robust", "linear"}
        See the head of this module.
    layers : sequence of str, optional
        By default all.
    seeds : sequence of int, optional
        By default one for ``"paper"``, three for ``"robust"``.
    device : str
        As in :func:`analysis_lib.device.resolve_device`.
    grid : sequence of Configuration
        For the first two protocols.
    max_epochs, patience : int
        Longest training, and checks without improvement before it stops.
    n_configurations_batch : int or "auto"
        How many configurations are trained at once.

    Returns
    -------
    Dataset
        ``score`` (metric, seed, fold) on the test clips and ``mean_score`` (metric,);
        ``valid_score`` (seed, fold, configuration), NaN where not tried; ``chosen``
        (seed, fold), the configuration used; ``layer_weight`` (seed, fold, layer). The linear
        protocol adds ``layer_score`` (fold, layer): the primary metric of each layer alone.

    Raises
    ------
    ParameterError
        When the task asks for events, or the protocol does not exist.
    AlignmentError
        When clips have no features, or arrays do not fit.
    DataError
        When features are not finite, or the network was trained on clips of the task.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import data, probes
    >>> task = data.task("demo-scene")
    >>> noise = np.random.default_rng(0).standard_normal((len(task.clips), 8))
    >>> features = {"labels": task.targets + 0.1 * noise[:, :1], "noise": noise}
    >>> result = probes.evaluate(features, task, protocol="linear", device="cpu")
    >>> result["mean_score"].values.round(2)
    array([1.])
    """
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", protocol, PROTOCOLS)
    if task.embedding_type != "scene":
        raise ParameterError(
            f"task {task.name} asks for events; evaluate() answers scene tasks. "
            "Use probes.evaluate_events()."
        )
    device = resolve_device(device, float64=True)
    if isinstance(model, str):
        model = models.load(model, device=str(device))
    require_disjoint(model, task)
    features = _aligned_features(model, task, layers, device)
    targets = torch.from_numpy(task.targets).to(device)
    seeds = _seeds(protocol, seeds)
    if protocol == "linear":
        outcomes = [[_linear(features, targets, p, task, device) for p in task.partitions]]
        configurations = [
            f"{layer} penalty {a:.2g}" for layer in features for a in LINEAR_PENALTIES
        ]
    else:
        settings = {
            "max_epochs": max_epochs,
            "patience": patience,
            "n_configurations_batch": n_configurations_batch,
        }
        prober = _Prober(features, targets, task, device, tuple(grid), settings)
        outcomes = [prober.outcomes(protocol, seed) for seed in seeds]
        configurations = [str(configuration) for configuration in grid]
    return _as_dataset(outcomes, task, features, configurations, seeds, model, protocol)


def require_disjoint(model: Representation, task: Task) -> None:
    """Refuse to probe a network on clips that it was trained on.

    Raises
    ------
    DataError

    Examples
    --------
    >>> from analysis_lib import data, probes
    >>> probes.require_disjoint("small-cnn", data.task("demo-scene"))
    """
    name = _name(model)
    n_heard = task.metadata.get("light_zoo_clips", 0)
    if n_heard and name in models.list_models(kind="trained-here"):
        raise DataError(
            f"{name} belongs to the light zoo, which was trained on {n_heard} clips of "
            f"{task.name}. Use a task that holds them out, such as {task.name}-heldout."
        )


def _name(model: Representation) -> str:
    """Name of the model behind a representation, as far as it is known."""
    if isinstance(model, AudioModel):
        return model.card.name
    return getattr(model, "provenance", {}).get("model", "features")


@dataclass(frozen=True)
class _Outcome:
    """What one seed gives on one fold."""

    scores: np.ndarray  # per metric
    valid_scores: np.ndarray  # per configuration, NaN where not tried
    chosen: int
    layer_weights: np.ndarray
    layer_scores: np.ndarray | None = None


class _Prober:
    """The network probe of one representation on one task."""

    def __init__(self, features, targets, task, device, grid, settings):
        self.features, self.targets, self.task = features, targets, task
        self.device, self.grid, self.settings = device, grid, settings
        if not grid:
            raise ParameterError("the grid is empty: give at least one configuration")

    def outcomes(self, protocol: str, seed: int) -> list[_Outcome]:
        """One outcome per fold."""
        outcomes, tried = [], range(len(self.grid))
        progress = tqdm(self.task.partitions, desc=f"{self.task.name}, seed {seed}", leave=False)
        for partition in progress:
            trained = self._train(partition, [self.grid[i] for i in tried], seed, protocol)
            outcomes.append(self._chosen(trained, partition, tried))
            if protocol == "paper":
                tried = [outcomes[0].chosen]
        return outcomes

    def _train(self, partition: Partition, configurations, seed, protocol) -> TrainedProbes:
        train, valid, test = _common_width(self.features, partition, half=protocol == "paper")
        valid_targets = self.targets[partition.valid]
        metric, vocabulary = self.task.metrics[0], self.task.vocabulary
        data = ProbeData(
            train=train,
            valid=valid,
            test=test,
            train_targets=self.targets[partition.train],
            multilabel=self.task.prediction_type == "multilabel",
            valid_score=lambda logits: scene_score(metric, logits, valid_targets, vocabulary),
        )
        return train_probes(data, configurations, seed, **self.settings)

    def _chosen(self, trained: TrainedProbes, partition: Partition, tried) -> _Outcome:
        best = int(trained.valid_score.argmax())
        valid_scores = np.full(len(self.grid), np.nan)
        valid_scores[list(tried)] = trained.valid_score
        return _Outcome(
            scores=_scores(trained.test_logits[best], self.targets[partition.test], self.task),
            valid_scores=valid_scores,
            chosen=list(tried)[best],
            layer_weights=trained.layer_weights[best].numpy(),
        )


def _common_width(
    features: Mapping[str, torch.Tensor], partition: Partition, half: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stack layers of one width; PCA, fitted on the training clips, where widths differ."""
    parts = [partition.train, partition.valid, partition.test]
    layers = list(features.values())
    if half:
        layers = [layer.half().float() for layer in layers]
        if not all(torch.isfinite(layer).all() for layer in layers):
            raise DataError(
                "features overflow float16, which the paper's protocol cuts them to. "
                "Use protocol='robust'."
            )
    widths = {layer.shape[1] for layer in layers}
    if len(widths) == 1:
        return tuple(torch.stack([layer[rows] for layer in layers]) for rows in parts)
    width = min(*widths, len(partition.train))
    layers = [_principal_components(layer, partition.train, width) for layer in layers]
    return tuple(torch.stack([layer[rows] for layer in layers]) for rows in parts)


def _principal_components(layer: torch.Tensor, train: np.ndarray, width: int) -> torch.Tensor:
    """Scores of all clips on the first components of the training clips, not whitened."""
    x = layer.double() - layer[train].double().mean(dim=0)
    _, variances, components = torch.linalg.svd(x[train], full_matrices=False)
    # A direction without variance in training is noise in the other clips.
    components = components[:width] * (variances[:width] > 1e-9 * variances[0])[:, None]
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return (x @ (components * torch.where(largest < 0, -1.0, 1.0)).T).float()


def _linear(features, targets, partition: Partition, task: Task, device) -> _Outcome:
    """Ridge on every layer; the best on the validation clips is tested."""
    penalties = torch.tensor(LINEAR_PENALTIES, dtype=torch.float64, device=device)
    train_targets = targets[partition.train].double()
    centre = train_targets.mean(dim=0)
    valid_scores, test_logits = [], []
    for layer in features.values():
        x = layer.double()
        mean, std = x[partition.train].mean(dim=0), x[partition.train].std(dim=0)
        x = (x - mean) / torch.where(std > 1e-12, std, torch.inf)
        predict = ridge_path(x[partition.train], train_targets - centre, penalties)
        logits = predict(x[partition.valid]) + centre
        valid_targets = targets[partition.valid]
        valid_scores.append(scene_score(task.metrics[0], logits, valid_targets, task.vocabulary))
        test_logits.append(predict(x[partition.test]) + centre)
    valid_scores = torch.stack(valid_scores).nan_to_num(nan=-torch.inf)
    best_penalty = valid_scores.argmax(dim=1)
    best_layer = int(valid_scores.max(dim=1).values.argmax())
    by_layer = [
        _scores(logits[penalty], targets[partition.test], task)
        for logits, penalty in zip(test_logits, best_penalty, strict=True)
    ]
    return _Outcome(
        scores=by_layer[best_layer],
        valid_scores=valid_scores.flatten().cpu().numpy(),
        chosen=best_layer * len(penalties) + int(best_penalty[best_layer]),
        layer_weights=np.eye(len(features))[best_layer],
        layer_scores=np.array([scores[0] for scores in by_layer]),
    )


def ridge_path(
    x: torch.Tensor, y: torch.Tensor, penalties: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Ridge regression for all penalties from one eigendecomposition, on the smaller side.

    Parameters
    ----------
    x : tensor of shape (n_samples, n_units), float64
        Centred.
    y : tensor of shape (n_samples, n_targets), float64
        Centred.
    penalties : tensor of shape (n_penalties,)
        In units of the mean squared norm of a row of ``x``, so that one grid serves all sizes.

    Returns
    -------
    callable
        From (n_new, n_units) to predictions of shape (n_penalties, n_new, n_targets).

    Examples
    --------
    >>> import torch
    >>> from analysis_lib import probes
    >>> x = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    >>> predict = probes.ridge_path(x, 2 * x, torch.tensor([0.0, 1.0], dtype=torch.float64))
    >>> predict(x)[:, :, 0]
    tensor([[-2.0000,  0.0000,  2.0000],
            [-1.5000,  0.0000,  1.5000]], dtype=torch.float64)
    """
    dual = x.shape[0] <= x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
    scaled = penalties[:, None, None] * (values.sum() / x.shape[0]).clamp_min(1e-30)
    rotated = vectors.T @ (y if dual else x.T @ y)
    weights = vectors @ (rotated / (values.clamp_min(0)[:, None] + scaled))
    return lambda new: ((new @ x.T) if dual else new) @ weights


def _scores(logits: torch.Tensor, targets: torch.Tensor, task: Task) -> np.ndarray:
    logits = logits.to(targets.device)
    return np.array(
        [float(scene_score(name, logits, targets, task.vocabulary)) for name in task.metrics]
    )


def _aligned_features(model, task: Task, layers, device) -> dict[str, torch.Tensor]:
    """Features as float32 tensors in the order of the task's clips, checked."""
    if isinstance(model, AudioModel):
        model = _extracted(model, task, layers, device)
    names = list(model) if layers is None else list(layers)
    if not names:
        raise ParameterError("no layers to probe")
    features = {}
    for name in names:
        if name not in model:
            raise UnknownNameError("layer", name, model)
        values = model[name]
        if isinstance(values, xr.DataArray):
            missing = set(task.clips) - set(values["sound"].values.tolist())
            if missing:
                raise AlignmentError(
                    f"layer {name!r} has no features for {len(missing)} clips of {task.name}, "
                    f"for instance {sorted(missing)[0]}"
                )
            values = values.sel(sound=list(task.clips)).values
        values = np.asarray(values, dtype=np.float32)
        if values.ndim != 2 or len(values) != len(task.clips):
            raise AlignmentError(
                f"layer {name!r} has shape {values.shape}; {task.name} needs "
                f"({len(task.clips)}, n_units)"
            )
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise DataError(
                f"layer {name!r} is not finite for {bad.size} clips of {task.name}, for "
                f"instance {task.clips[bad[0]]}"
            )
        features[name] = torch.from_numpy(values).to(device)
    return features


def _extracted(model: AudioModel, task: Task, layers, device) -> extraction.Features:
    """Features of the clips; what was converted is said once, not for every clip."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AudioNotice)
        features = extraction.extract(model, task.sounds(), layers=layers, device=str(device))
    notices = [str(notice.message) for notice in caught if notice.category is AudioNotice]
    for notice in caught:
        if notice.category is not AudioNotice:
            warnings.warn_explicit(notice.message, notice.category, notice.filename, notice.lineno)
    if notices:
        log.info("%s: %d clips were converted, such as: %s", task.name, len(notices), notices[0])
    return features


def _seeds(protocol: str, seeds: Sequence[int] | None) -> tuple[int, ...]:
    if protocol == "linear":
        return (0,)
    seeds = tuple(seeds) if seeds is not None else ((0,) if protocol == "paper" else (0, 1, 2))
    if not seeds:
        raise ParameterError("give at least one seed")
    return seeds


def _as_dataset(outcomes, task, features, configurations, seeds, model, protocol) -> xr.Dataset:
    folds = [partition.name for partition in task.partitions]

    def gathered(attribute):
        return np.array([[getattr(o, attribute) for o in by_fold] for by_fold in outcomes])

    scores = np.moveaxis(gathered("scores"), -1, 0)
    variables = {
        "score": (("metric", "seed", "fold"), scores),
        "mean_score": (("metric",), scores.mean(axis=(1, 2))),
        "valid_score": (("seed", "fold", "configuration"), gathered("valid_scores")),
        "chosen": (("seed", "fold"), np.array(configurations)[gathered("chosen")]),
        "layer_weight": (("seed", "fold", "layer"), gathered("layer_weights")),
    }
    if protocol == "linear":
        variables["layer_score"] = (("fold", "layer"), gathered("layer_scores")[0])
    return xr.Dataset(
        variables,
        coords={
            "metric": list(task.metrics),
            "seed": list(seeds),
            "fold": folds,
            "configuration": configurations,
            "layer": list(features),
        },
        attrs={
            "analysis": "probes",
            "model": _name(model),
            "task": task.name,
            "task_content": task.content_key,
            "protocol": protocol,
            "n_clips": len(task.clips),
            "chance": float(task.targets.mean(axis=0).max()) if task.metrics[0].endswith("_acc")
            else float("nan"),
        },
    )  # fmt: skip
