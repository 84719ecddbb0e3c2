"""The protocol of Pepino et al. (2025), computed exactly but not literally.

With few sounds and many units, ridge regression lives in the space of sounds: all that
matters of a layer is its Gram matrix. The nested folds share their training sets in pairs, one
eigendecomposition serves every penalty and every voxel, and what is left are matrix products.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr

from ..alignment import align, align_rows, target_coords
from ..device import require_memory, resolve_device
from ..errors import AlignmentError, DataError, ParameterError, UnknownNameError

__all__ = ["PAPER_ALPHAS", "aggregate", "explainable", "gram", "nested_cv_ridge"]

log = logging.getLogger("brainbook")

PAPER_ALPHAS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0)
ALPHA_LIMITS = (1e-49, 1e50)  # how far the published search may go beyond its grid
ALGORITHM_VERSION = 1  # raised when results change; part of every stored result's key

# Layers whose best single-precision score comes this close to the best of all are compared again
# in double precision. Single precision was measured to be off by at most 2e-7.
_SCREENING_MARGIN = 1e-5
# Directions of a Gram matrix with less than this share of the largest eigenvalue are rounding.
_NULL = 1e-10
# A penalty beyond the grid must improve the score by more than rounding to be taken.
_IMPROVEMENT = 1e-12


def gram(x: np.ndarray | torch.Tensor, device: str = "cpu", block: int = 65_536) -> torch.Tensor:
    """Inner products of centred rows, in float64.

    Parameters
    ----------
    x : array of shape (n_sounds, n_units)
        Activations.
    device : str
        Where to compute.
    block : int
        Units converted to float64 at a time.

    Returns
    -------
    tensor of shape (n_sounds, n_sounds), float64
    """
    x = torch.as_tensor(x)
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=device)
    for part in x.split(block, dim=1):
        part = part.to(device=device, dtype=torch.float64)
        part = part - part.mean(dim=0)
        total += part @ part.T
    return total


def nested_cv_ridge(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    folds: np.ndarray | xr.DataArray | Sequence[int],
    alphas: Sequence[float] = PAPER_ALPHAS,
    extend: str = "greedy",
    device: str = "auto",
    n_targets_batch: int = 1024,
) -> xr.Dataset:
    """Predict every target by ridge regression, its layer and penalty chosen in nested folds.

    For each target and outer fold, the layer and the penalty are chosen together on the other
    folds by leave-one-fold-out cross-validation, refitted on all of them, and used to predict the
    sounds of the outer fold. Features and responses are centred on the training sounds, not
    scaled. The protocol of Pepino et al. (2025).

    Parameters
    ----------
    features : mapping of str to array of shape (n_sounds, n_units)
        One array per layer, first to last.
    responses : array of shape (n_sounds, n_targets[, n_repetitions])
        Repetitions are averaged. Labelled arrays are aligned by the names of their sounds.
    folds : array of shape (n_sounds,)
        Outer fold of each sound; at least three folds.
    alphas : sequence of float
        Penalties of the grid, in any order.
    extend : {"greedy", "none"}
        ``"greedy"``: while the best penalty lies at an end of the grid, go on by factors of two
        for the chosen layer as long as the score improves (the paper's rule). ``"none"``: only
        the grid, which may then be wide.
    device : str
        See :func:`analysis_lib.device.resolve_device`.
    n_targets_batch : int
        Targets processed together; bounds the memory, does not change the result.

    Returns
    -------
    Dataset
        ``score`` (target,): squared Pearson correlation of measured and predicted responses over
        all sounds, 0 where the correlation is negative or the prediction constant.
        ``prediction`` (sound, target): out-of-fold predictions, in units of the responses.
        ``layer``, ``alpha``, ``inner_score`` (fold, target): what was chosen and its
        cross-validated score. Targets with NaN are NaN throughout (layer ``""``), constant
        targets have score 0.

    Raises
    ------
    AlignmentError
        When sounds do not match by name or by number.
    ParameterError
        For impossible folds, penalties or options.
    MemoryBudgetError
        When the data do not fit.

    References
    ----------
    Pepino, Riera, Kamienkowski & Ferrer (2025), arXiv 2511.16849, voxel-wise regression.
    """
    if extend not in ("greedy", "none"):
        raise UnknownNameError("extension rule", extend, ["greedy", "none"])
    alphas = _checked_alphas(alphas)
    layers, measured, names = align(features, responses)
    fold_of = _checked_folds(align_rows(_as_labelled(folds), names, "folds", len(measured)))
    if measured.ndim == 3:
        measured = measured.mean(axis=2)
    on = resolve_device(device, float64=True)
    n_sounds, n_targets = measured.shape
    n_configs = len(layers) * len(alphas)
    require_memory(
        8.0 * (4 * n_sounds * n_targets + 5 * n_configs * n_targets_batch * len(set(fold_of))),
        on,
        f"encoding {n_targets} targets from {len(layers)} layers",
        "Lower n_targets_batch, or give fewer targets at a time.",
    )
    usable = _usable_targets(measured)
    y = torch.from_numpy(measured[:, usable]).to(on)
    mean, scale = y.mean(dim=0), y.std(dim=0, correction=0)
    y = (y - mean) / scale
    grams = torch.stack([gram(x, on) for x in layers.values()])
    search = _NestedSearch(grams, torch.from_numpy(fold_of).to(on), alphas, extend == "greedy")
    parts = [search.run(block) for block in y.split(n_targets_batch, dim=1)]
    chosen = {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}
    chosen["prediction"] = chosen["prediction"] * scale + mean
    labels = np.array(list(layers), dtype=object)
    return _as_dataset(chosen, measured, usable, labels, names, responses)


def aggregate(result: xr.Dataset, by: str | None = None) -> pd.DataFrame:
    """Summarise scores as the paper does: median over voxels, then mean over subjects.

    Parameters
    ----------
    result : Dataset
        With ``score`` (target,) and, where known, ``subject``.
    by : str, optional
        Coordinate of the targets to group by first, such as ``"roi"``; unlabelled targets
        (``""``) are left out then.

    Returns
    -------
    DataFrame
        A row per group: ``score``, its standard error over subjects ``error`` (population
        standard deviation over the root of n - 1; NaN with fewer than two subjects),
        ``n_subjects`` and ``n_targets``.
    """
    table = result["score"].to_dataframe().reset_index()
    if "subject" not in table:
        table["subject"] = "all"
    if by is None:
        table["group"] = "all"
    elif by not in table:
        raise UnknownNameError("coordinate of the targets", by, result["target"].coords)
    else:
        table = table[table[by] != ""].rename(columns={by: "group"})
    medians = table.groupby(["group", "subject"], sort=False)["score"].median()
    medians = medians.groupby("group", sort=False)
    n_subjects = medians.count()
    return pd.DataFrame(
        {
            "score": medians.mean(),
            "error": medians.std(ddof=0) / np.sqrt(n_subjects.where(n_subjects > 1) - 1),
            "n_subjects": n_subjects,
            "n_targets": table.groupby("group", sort=False)["score"].count(),
        }
    ).rename_axis(by or "group")


def explainable(responses: xr.DataArray) -> xr.DataArray:
    """Estimate the highest score that a perfect model could reach on each target.

    The squared correlation of the true response with the mean of ``n`` noisy repetitions is the
    reliability of that mean: the median correlation of two repetitions over sounds, stepped up to
    ``n`` by Spearman-Brown.

    Parameters
    ----------
    responses : DataArray (sound, target, repetition)
        At least two repetitions.

    Returns
    -------
    DataArray (target,)
        Between 0 and 1; 0 where repetitions are not positively correlated, NaN for targets with
        NaN or without repetitions.
    """
    if responses.sizes.get("repetition", 1) < 2:
        return xr.full_like(responses.isel(sound=0, repetition=0, missing_dims="ignore"), np.nan)
    values = responses.transpose("repetition", "sound", "target")
    z = (values - values.mean("sound")) / values.std("sound")
    n = responses.sizes["repetition"]
    pairs = [
        (z.isel(repetition=i) * z.isel(repetition=j)).mean("sound")
        for i in range(n)
        for j in range(i + 1, n)
    ]
    r = xr.concat(pairs, "pair").median("pair").clip(min=0)
    return n * r / (1 + (n - 1) * r)


class _System:
    """Ridge regression with one training set, for every layer, in the eigenbasis of its Gram.

    A prediction for test sounds is ``p @ ((q.T @ y_train) / (eigenvalues + alpha)) + mean``.
    Shapes: L layers, m training sounds, t test sounds, v targets.
    """

    def __init__(self, train: torch.Tensor, test: torch.Tensor, values, q, p):
        self.train, self.test = train, test
        self.values, self.q, self.p = values, q, p  # (L, m), (L, m, m), (L, t, m)

    @classmethod
    def build(cls, grams: torch.Tensor, train: torch.Tensor, tests) -> "list[_System]":
        """Systems of one training set for several test sets; one eigendecomposition a layer."""
        k_train = grams[:, train[:, None], train]
        row = k_train.mean(dim=2, keepdim=True)
        total = row.mean(dim=1, keepdim=True)
        values, q = torch.linalg.eigh(k_train - row - row.mT + total)
        values = values.clamp_min(0)
        # Null directions carry no signal; an infinite eigenvalue gives them weight 0.
        null = values <= _NULL * values[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
        values = values.masked_fill(null, torch.inf)
        systems = []
        for test in tests:
            k_test = grams[:, test[:, None], train]
            centred = k_test - k_test.mean(dim=2, keepdim=True) - row.mT + total
            systems.append(cls(train, test, values, q, centred @ q))
        return systems

    def predict(self, layer: int, y: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """Predictions of one layer, (t, A, v), for targets (n_sounds, v) and alphas (A, v)."""
        train = y[self.train]
        z = self.q[layer].T @ train
        weighted = z[:, None] / (self.values[layer][:, None, None] + alpha)
        predicted = self.p[layer] @ weighted.flatten(1)
        return predicted.view(-1, *alpha.shape) + train.mean(dim=0)

    def hats(self, alphas: torch.Tensor) -> torch.Tensor:
        """Matrices from training responses to predictions, single precision.

        Returns
        -------
        tensor of shape (L, A * (t + 1), m)
            The predictions under each penalty, and below them the sum over the test sounds of
            each: what a pooled correlation needs besides the predictions themselves.
        """
        weighted = self.p[:, None] / (self.values[:, None, None, :] + alphas[:, None, None])
        hats = weighted @ self.q.mT[:, None] + 1 / len(self.train)
        flat = torch.cat([hats.flatten(1, 2), hats.sum(dim=2)], dim=1)
        return flat.float()


class _NestedSearch:
    """Everything about the features and folds that all targets share.

    Shapes: L layers, A penalties, F folds, v targets.
    """

    def __init__(self, grams: torch.Tensor, fold_of: torch.Tensor, alphas: list, greedy: bool):
        self.n_layers, self.greedy = len(grams), greedy
        self.alphas = torch.tensor(alphas, dtype=torch.float64, device=grams.device)
        self.rows = [torch.nonzero(fold_of == k)[:, 0] for k in range(int(fold_of.max()) + 1)]
        self.n_folds = len(self.rows)
        self.outer = [
            _System.build(grams, torch.nonzero(fold_of != k)[:, 0], [self.rows[k]])[0]
            for k in range(self.n_folds)
        ]
        # Training without folds i and j serves outer fold i (it predicts j) and outer fold j
        # (it predicts i): F(F-1)/2 decompositions instead of F(F-1).
        self.inner: dict[int, list[_System]] = {k: [] for k in range(self.n_folds)}
        for i in range(self.n_folds):
            for j in range(i + 1, self.n_folds):
                train = torch.nonzero((fold_of != i) & (fold_of != j))[:, 0]
                for_i, for_j = _System.build(grams, train, [self.rows[j], self.rows[i]])
                self.inner[i].append(for_i)
                self.inner[j].append(for_j)
        self.hats = {k: [system.hats(self.alphas) for system in self.inner[k]] for k in self.inner}

    def run(self, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """Choose, refit and predict for one block of standardised targets, (n_sounds, v)."""
        prediction = torch.empty_like(y)
        layer = torch.empty(self.n_folds, y.shape[1], dtype=torch.int64, device=y.device)
        alpha = torch.empty(self.n_folds, y.shape[1], dtype=y.dtype, device=y.device)
        score = torch.empty_like(alpha)
        y_single = y.float()
        for k, system in enumerate(self.outer):
            screened = self._screen(k, y_single)
            layer[k], alpha[k], score[k] = self._choose(k, y, screened)
            for index in layer[k].unique().tolist():
                voxels = torch.nonzero(layer[k] == index)[:, 0]
                predicted = system.predict(index, y[:, voxels], alpha[k, voxels][None])
                prediction[self.rows[k][:, None], voxels] = predicted[:, 0]
        return {"prediction": prediction, "layer": layer, "alpha": alpha, "inner_score": score}

    def _screen(self, k: int, y: torch.Tensor) -> torch.Tensor:
        """Best score of each layer within the grid, in single precision, (L, v)."""
        n_alphas, n_targets = len(self.alphas), y.shape[1]
        sums = y.new_zeros(3, self.n_layers, n_alphas, n_targets)
        for system, hats in zip(self.inner[k], self.hats[k], strict=True):
            y_train, y_test = y[system.train], y[system.test]
            n_predicted = n_alphas * len(system.test)
            for layer in range(self.n_layers):
                out = hats[layer] @ y_train
                predicted = out[:n_predicted].view(n_alphas, -1, n_targets)
                sums[0, layer] += out[n_predicted:]
                sums[2, layer] += (predicted * y_test).sum(dim=1)
                sums[1, layer] += predicted.square_().sum(dim=1)
        y_pooled = torch.cat([y[system.test] for system in self.inner[k]])
        return _squared_correlation(*sums, y_pooled).amax(dim=1)

    def _choose(self, k: int, y: torch.Tensor, screened: torch.Tensor):
        """Layer, penalty and score of each target for outer fold ``k``, in double precision."""
        contested = screened >= screened.amax(dim=0) - _SCREENING_MARGIN
        n_targets = y.shape[1]
        scores = y.new_full((len(self.alphas), self.n_layers, n_targets), -1.0)
        for layer in torch.nonzero(contested.any(dim=1))[:, 0].tolist():
            voxels = torch.nonzero(contested[layer])[:, 0]
            scores[:, layer, voxels] = self._score(
                k, layer, y[:, voxels], self.alphas[:, None].expand(-1, len(voxels))
            )
        # The published search runs over penalties first and keeps the first of equals.
        flat = scores.flatten(0, 1)
        score = flat.amax(dim=0)
        order = torch.arange(len(flat), 0, -1, device=y.device)[:, None]
        first = ((flat == score) * order).argmax(dim=0)
        layer, alpha = first % self.n_layers, self.alphas[first // self.n_layers]
        if self.greedy:
            for edge, factor in ((self.alphas.min(), 0.5), (self.alphas.max(), 2.0)):
                at_edge = alpha == edge
                for index in layer[at_edge].unique().tolist():
                    voxels = torch.nonzero(at_edge & (layer == index))[:, 0]
                    alpha[voxels], score[voxels] = self._extend(
                        k, index, y[:, voxels], alpha[voxels], score[voxels], factor
                    )
        return layer, alpha, score

    def _extend(self, k: int, layer: int, y, alpha, score, factor: float):
        """Follow the penalty beyond the grid for as long as each step improves the score."""
        alpha, score = alpha.clone(), score.clone()
        active = torch.arange(y.shape[1], device=y.device)
        n_steps = 2
        while len(active):
            steps = factor ** torch.arange(1, n_steps + 1, device=y.device, dtype=y.dtype)
            tried = alpha[active] * steps[:, None]
            reached = self._score(k, layer, y[:, active], tried)
            before = torch.cat([score[active][None], reached[:-1]])
            better = (reached > before * (1 + _IMPROVEMENT)) & (tried >= ALPHA_LIMITS[0])
            better &= tried <= ALPHA_LIMITS[1]
            n_better = better.long().cumprod(dim=0).sum(dim=0)
            moved = torch.nonzero(n_better)[:, 0]
            last = n_better[moved] - 1
            alpha[active[moved]] = tried[last, moved]
            score[active[moved]] = reached[last, moved]
            active = active[n_better == n_steps]
            n_steps = min(2 * n_steps, 16)
        return alpha, score

    def _score(self, k: int, layer: int, y: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
        """Cross-validated score of one layer for outer fold ``k``, (A, v), in double precision."""
        sums = y.new_zeros(3, *alphas.shape)
        for system in self.inner[k]:
            predicted = system.predict(layer, y, alphas)
            sums[0] += predicted.sum(dim=0)
            sums[2] += (predicted * y[system.test][:, None]).sum(dim=0)
            sums[1] += predicted.square_().sum(dim=0)
        y_pooled = torch.cat([y[system.test] for system in self.inner[k]])
        return _squared_correlation(*sums, y_pooled)


def _squared_correlation(
    s1: torch.Tensor, s2: torch.Tensor, s3: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """Squared Pearson correlation from sums of p, p² and p·y (..., v); 0 where r < 0 or p is flat.

    The published code gives NaN for a flat prediction, and NaN would win its argmax.
    """
    n = len(y)
    covariance = (s3 - s1 * (y.sum(dim=0) / n)).clamp_min(0)
    spread = s2 - s1.square() / n
    flat = spread <= 1e-6 * s2 if y.dtype == torch.float32 else spread <= 1e-13 * s2
    r2 = covariance.square() / (spread * y.var(dim=0, correction=0) * n)
    return r2.masked_fill(flat, 0.0)


def _checked_alphas(alphas: Sequence[float]) -> list[float]:
    alphas = [float(alpha) for alpha in alphas]
    if not alphas or not all(np.isfinite(alpha) and alpha > 0 for alpha in alphas):
        raise ParameterError(f"alphas must be positive numbers, at least one; got {alphas}")
    return alphas


def _as_labelled(folds) -> np.ndarray | xr.DataArray:
    return folds if isinstance(folds, xr.DataArray) else np.asarray(folds)


def _checked_folds(folds: np.ndarray) -> np.ndarray:
    """Folds as integers from 0, in ascending order of their labels."""
    if folds.ndim != 1 or (folds.dtype.kind == "f" and not np.isfinite(folds).all()):
        raise AlignmentError("folds must be one finite number for each sound")
    labels, fold_of, counts = np.unique(folds, return_inverse=True, return_counts=True)
    if len(labels) < 3:
        raise ParameterError(
            f"nested cross-validation needs at least 3 folds, not {len(labels)}: one to test, one "
            "to choose by, one to train on"
        )
    if counts.min() < 2:
        raise ParameterError(f"fold {labels[counts.argmin()]} has a single sound; 2 are needed")
    return fold_of


def _usable_targets(measured: np.ndarray) -> np.ndarray:
    """Targets that can be regressed; the others are kept out of every shared product."""
    finite = np.isfinite(measured).all(axis=0)
    varies = np.zeros_like(finite)
    spread = measured[:, finite].std(axis=0)
    varies[finite] = spread > 1e-12 * (np.abs(measured[:, finite]).max(axis=0) + 1e-300)
    if not finite.all():
        log.warning(
            "%d of %d targets hold NaN: their results are NaN", (~finite).sum(), len(finite)
        )
    if (finite & ~varies).any():
        log.warning("%d targets are constant: their score is 0", (finite & ~varies).sum())
    if not varies.any():
        raise DataError("every target is constant or holds NaN: there is nothing to predict")
    return varies


def _as_dataset(chosen, measured, usable, labels, names, responses) -> xr.Dataset:
    """Put the results of the usable targets among all targets, with their coordinates."""
    n_folds = chosen["layer"].shape[0]
    constant = np.isfinite(measured).all(axis=0) & ~usable
    prediction = np.full(measured.shape, np.nan)
    prediction[:, usable] = chosen["prediction"].cpu().numpy()
    prediction[:, constant] = measured[:, constant]
    layer = np.full((n_folds, len(usable)), "", dtype=object)
    layer[:, usable] = labels[chosen["layer"].cpu().numpy()]
    variables = {"layer": (("fold", "target"), layer)}
    for name in ("alpha", "inner_score"):
        values = np.full((n_folds, len(usable)), np.nan)
        values[:, usable] = chosen[name].cpu().numpy()
        variables[name] = (("fold", "target"), values)
    score = np.full(len(usable), np.nan)
    score[constant] = 0.0
    y, p = measured[:, usable], prediction[:, usable]
    y, p = y - y.mean(axis=0), p - p.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (y * p).sum(axis=0) / np.sqrt((y**2).sum(axis=0) * (p**2).sum(axis=0))
    score[usable] = np.nan_to_num(r).clip(min=0) ** 2
    variables["score"] = ("target", score)
    variables["prediction"] = (("sound", "target"), prediction)
    coords = dict(target_coords(responses))
    coords["fold"] = np.arange(n_folds)
    coords["sound"] = np.arange(len(measured)) if names is None else np.asarray(names, dtype=object)
    return xr.Dataset(variables, coords)
