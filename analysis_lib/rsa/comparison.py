"""Comparing the matrices of a model's layers with those of subjects, and choosing a layer.

References
----------
Kriegeskorte, Mur & Bandettini (2008); Nili et al. (2014) for the noise ceiling;
Pepino et al. (2025) and Tuckute et al. (2023) for the protocols.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from ..alignment import align_rows
from ..errors import ParameterError, UnknownNameError
from .dissimilarity import Matrices, masked, require_sounds, upper_triangle
from .ranks import Ranker, correlate_rowwise, correlate_weighted, spearman

__all__ = ["cross_validated", "layerwise", "noise_ceiling"]

SCHEMES = ("paper", "strict", "halves")


def layerwise(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    groupby: str | Sequence[str] = "subject",
    device: str = "auto",
) -> xr.Dataset:
    """Compare every layer with every subject, without choosing among layers.

    Parameters
    ----------
    features : mapping of str to array of shape (n_sounds, n_units)
        One array per layer, see :func:`analysis_lib.alignment.align`.
    responses : array of shape (n_sounds, n_targets[, n_repetitions])
        Repetitions are averaged. Voxels with NaN are left out.
    groupby : "subject" or ("subject", "roi")
        Which voxels make one matrix. Responses without a ``subject`` are one subject, ``"all"``;
        voxels without a region belong to none.
    device : str
        Where to compute.

    Returns
    -------
    Dataset
        ``score`` (layer, subject[, roi]), NaN where a subject has fewer than two usable voxels,
        and ``n_targets`` (subject[, roi]). The max-layer score of Pepino et al. is
        ``score.mean("subject").max("layer")``: chosen and scored on the same data.

    Raises
    ------
    AlignmentError, DataError
        When sounds do not match by name, or there are fewer than 4.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import rsa
    >>> rng = np.random.default_rng(0)
    >>> features = {"near": rng.standard_normal((12, 10)), "far": rng.standard_normal((12, 10))}
    >>> responses = features["near"] @ rng.standard_normal((10, 30))
    >>> similarity = rsa.layerwise(features, responses, device="cpu")["score"]
    >>> str(similarity["layer"].values[similarity.argmax("layer").item()])
    'near'
    """
    both = Matrices.of(features, responses, groupby, device)
    score = both.usable_only(spearman(both.models, both.brains))
    return both.dataset(score=(("layer",), score))


def cross_validated(
    features: Mapping[str, np.ndarray | xr.DataArray],
    responses: np.ndarray | xr.DataArray,
    folds: np.ndarray | xr.DataArray,
    scheme: str = "paper",
    groupby: str | Sequence[str] = "subject",
    device: str = "auto",
) -> xr.Dataset:
    """Compare with the layer that suits each subject best, chosen on other pairs of sounds.

    Parameters
    ----------
    features, responses, groupby, device
        As in :func:`layerwise`.
    folds : array of shape (n_sounds,), or for ``"halves"`` (n_splits, n_sounds) of bool
        Fold of each sound; or, for each split, True where a sound is used to choose.
    scheme : {"paper", "strict", "halves"}
        ``"paper"`` (Pepino et al. 2025): for each pair of folds i ≤ j, in order, the layer is
        chosen on the entries of the upper triangle whose row is not in i and whose column is not
        in j; all other entries of a composite matrix are then overwritten with that layer's. The
        composite is scored once. A tested pair's sounds take part in its choice through their
        other pairs, and the result depends on the order of folds.
        ``"strict"``: for each pair of folds, the layer is chosen on the sounds outside both and
        scored on the pairs between them. No sound, not even through the scaling of units, is on
        both sides. The score is the mean over blocks, weighted by their number of pairs.
        ``"halves"`` (Tuckute et al. 2023): chosen on one half of the sounds, scored on the
        other; the median over splits.

    Returns
    -------
    Dataset
        ``score`` (subject[, roi]); ``choice`` (block, subject[, roi]), the chosen layer's name,
        empty where there was none; except for ``"paper"``, ``block_score`` (block, subject[,
        roi]); and ``n_targets`` (subject[, roi]).

    Raises
    ------
    AlignmentError, DataError, ParameterError
        When sounds do not match by name, are fewer than 4, or too few for the folds.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import rsa
    >>> rng = np.random.default_rng(0)
    >>> features = {"near": rng.standard_normal((30, 10)), "far": rng.standard_normal((30, 10))}
    >>> responses = features["near"] @ rng.standard_normal((10, 30))
    >>> result = rsa.cross_validated(features, responses, np.arange(30) % 3, "strict", device="cpu")
    >>> np.unique(result["choice"].values.astype(str)).tolist()
    ['near']
    """
    if scheme not in SCHEMES:
        raise UnknownNameError("scheme", scheme, SCHEMES)
    both = Matrices.of(features, responses, groupby, device)
    folds = _aligned_folds(folds, both, scheme)
    if scheme == "paper":
        score, choice = _composite(both, folds)
        return both.dataset(score=((), score), choice=(("block",), choice))
    blocks = list(_halves(folds) if scheme == "halves" else _strict_blocks(folds))
    scored = [_choose_and_score(both, *block) for block in blocks]
    scores = torch.stack([score for score, _ in scored])
    if scheme == "halves":
        score = scores.nanquantile(0.5, dim=0)
    else:
        pairs = scores.new_tensor([float(np.triu(tested, k=1).sum()) for _, tested in blocks])
        weights = pairs[:, None] * ~scores.isnan()
        score = (scores.nan_to_num() * weights).sum(dim=0) / weights.sum(dim=0)
    return both.dataset(
        score=((), score),
        block_score=(("block",), scores),
        choice=(("block",), np.stack([choice for _, choice in scored])),
    )


def noise_ceiling(
    responses: np.ndarray | xr.DataArray,
    groupby: str | Sequence[str] = "subject",
    device: str = "auto",
) -> xr.Dataset:
    """Estimate how well the best possible model could do, in the metric of the scores.

    Parameters
    ----------
    responses, groupby, device
        As in :func:`layerwise`.

    Returns
    -------
    Dataset
        Per subject and region:

        ``lower``
            Spearman correlation with the average of the other subjects' ranks.
        ``upper``
            With the average of all subjects' ranks, the own included; its mean over subjects is
            the highest that any one matrix can reach (Nili et al. 2014).
        ``topline``
            As ``lower``, but matrices rather than ranks averaged (Pepino et al. 2025).
        ``reliability``
            With repetitions: mean correlation between the matrices of single repetitions.
        ``within_subject``
            With repetitions: square root of that reliability, stepped up to the average of all
            by Spearman-Brown. Approximate: responses, not matrices, are averaged.

        NaN where fewer than two subjects, or repetitions, can be used.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from analysis_lib import rsa
    >>> rng = np.random.default_rng(0)
    >>> signal = np.tile(rng.standard_normal((20, 15)), 3)
    >>> subject = ("target", np.repeat(["s1", "s2", "s3"], 15))
    >>> noisy = signal + 0.5 * rng.standard_normal(signal.shape)
    >>> responses = xr.DataArray(noisy, dims=("sound", "target"), coords={"subject": subject})
    >>> ceiling = rsa.noise_ceiling(responses, device="cpu")
    >>> bool((ceiling["lower"] < ceiling["upper"]).all())
    True
    """
    brain = Matrices.of(None, responses, groupby, device)
    usable = ~brain.brains_unusable.reshape(brain.shape)
    ranks = Ranker(brain.brains).ranks()
    result = {}
    for name, values, with_own in (
        ("lower", ranks, False),
        ("upper", ranks, True),
        ("topline", brain.brains, False),
    ):
        per_roi = torch.where(usable.reshape(-1, 1), values, 0.0).reshape(*brain.shape, -1)
        total = per_roi.sum(dim=0, keepdim=True)
        pooled = total.expand_as(per_roi) if with_own else total - per_roi
        score = correlate_rowwise(ranks, Ranker(pooled.reshape(ranks.shape)).ranks())
        enough = usable & (usable.sum(dim=0, keepdim=True) > 1)
        result[name] = (), torch.where(enough.reshape(-1), score, torch.nan)
    n = brain.n_repetitions
    if n > 1:
        single = [Ranker(brain.brain_triangles(brain.responses[..., k])).ranks() for k in range(n)]
        pairs = [correlate_rowwise(single[a], single[b]) for a in range(n) for b in range(a)]
        r = torch.stack(pairs).mean(dim=0).masked_fill(brain.brains_unusable, torch.nan)
        result["reliability"] = (), r
        # Below zero the formula has a pole; an unreliable matrix has no ceiling to speak of.
        result["within_subject"] = (), (n * r / (1 + (n - 1) * r)).where(r > 0, 0 * r).sqrt()
    return brain.dataset(**result)


def _aligned_folds(folds: np.ndarray | xr.DataArray, both: Matrices, scheme: str) -> np.ndarray:
    """Folds (n_sounds,) or splits (n_splits, n_sounds) in the order of the matrices."""
    by_sound = (
        folds.transpose("sound", ...) if isinstance(folds, xr.DataArray) else np.transpose(folds)
    )
    folds = align_rows(by_sound, both.names, "folds", both.n_sounds).T
    wanted = 2 if scheme == "halves" else 1
    if folds.ndim != wanted:
        needs = "splits (split, sound)" if wanted == 2 else "one fold per sound"
        raise ParameterError(f"scheme {scheme!r} needs {needs}, got shape {folds.shape}")
    if wanted == 1 and len(np.unique(folds)) < 2:
        raise ParameterError("cross-validation needs at least two folds")
    return folds


def _composite(both: Matrices, folds: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Score (n_groups,) of the composite matrix of Pepino et al., and the layers it is made of."""
    row, column = (
        torch.from_numpy(folds[index]).to(both.device) for index in upper_triangle(both.n_sounds)
    )
    models, brains = Ranker(both.models), Ranker(both.brains)
    composite = torch.zeros_like(both.brains)
    choices = []
    for first, second in _fold_pairs(folds):
        choosing = (row != first) & (column != second)
        weights = choosing.double()
        fit = correlate_weighted(models.ranks(weights), brains.ranks(weights), weights)
        best, names = _best_layer(both.usable_only(fit), both.layers)
        composite = torch.where(choosing, composite, both.models[best])
        choices.append(names)
    score = correlate_rowwise(Ranker(composite).ranks(), brains.ranks())
    bad = composite.isnan().any(dim=1) | both.brains_unusable
    return score.masked_fill(bad, torch.nan), np.stack(choices)


def _choose_and_score(
    both: Matrices, chosen_on: np.ndarray, tested: np.ndarray
) -> tuple[torch.Tensor, np.ndarray]:
    """Choose each group's layer on some sounds (n,), score it on pairs (n, n) of others."""
    require_sounds(int(chosen_on.sum()), "are left to choose the layer on")
    upper = upper_triangle(both.n_sounds)
    choosing, testing = (
        torch.from_numpy(pairs[upper]).to(both.device)
        for pairs in (np.outer(chosen_on, chosen_on), tested)
    )
    rows = torch.from_numpy(chosen_on).to(both.device)
    models = both.model_triangles(rows)
    brains = both.brain_triangles(both.responses.mean(axis=2), rows)
    fit = masked(spearman(models[:, choosing], brains[:, choosing]), models, brains)
    best, names = _best_layer(fit, both.layers)
    score = correlate_rowwise(
        Ranker(models[:, testing]).ranks()[best], Ranker(brains[:, testing]).ranks()
    )
    return score.masked_fill(fit.isnan().all(dim=0), torch.nan), names


def _best_layer(fit: torch.Tensor, layers: Sequence[str]) -> tuple[torch.Tensor, np.ndarray]:
    """First layer of the highest fit (n_layers, n_groups), and its name, empty if all are NaN."""
    comparable = fit.nan_to_num(nan=-torch.inf)
    index = torch.arange(len(fit), device=fit.device)[:, None]
    # argmax promises no order among ties on CUDA.
    best = torch.where(comparable == comparable.amax(dim=0), index, len(fit)).amin(dim=0)
    names = np.array(layers, dtype=object)[best.cpu().numpy()]
    names[fit.isnan().all(dim=0).cpu().numpy()] = ""
    return best, names.astype(str)


def _fold_pairs(folds: np.ndarray) -> Iterator[tuple[float, float]]:
    kinds = np.unique(folds).tolist()
    for k, first in enumerate(kinds):
        for second in kinds[k:]:
            yield first, second


def _strict_blocks(folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for first, second in _fold_pairs(folds):
        row, column = folds == first, folds == second
        yield ~(row | column), np.outer(row, column) | np.outer(column, row)


def _halves(splits: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for chosen_on in splits.astype(bool):
        yield chosen_on, np.outer(~chosen_on, ~chosen_on)
