"""Dissimilarity matrices of models and brains, ready to be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xarray as xr

from ..alignment import align
from ..device import resolve_device
from ..errors import DataError, ParameterError, UnknownNameError
from .ranks import spearman

__all__ = ["Matrices", "compare", "embedding", "rdm", "upper_triangle"]

METRICS = ("correlation", "cosine", "euclidean")
MIN_SOUNDS = 4  # three sounds have three pairs: any ranking of them is frequent by chance
_TINY = 1e-10  # added to standard deviations by Pepino et al.; below it a unit counts as constant


def rdm(
    x: np.ndarray | xr.DataArray, metric: str = "correlation", standardize: bool = True
) -> np.ndarray:
    """Representational dissimilarity matrix.

    Parameters
    ----------
    x : array of shape (n_sounds, n_units)
        One pattern per sound. Units that hold NaN are left out.
    metric : {"correlation", "cosine", "euclidean"}
        1 - Pearson correlation, 1 - cosine, or mean squared difference between patterns.
    standardize : bool
        Scale each unit to mean 0 and standard deviation 1 over sounds first.

    Returns
    -------
    array of shape (n_sounds, n_sounds)
        Symmetric, 0 on the diagonal. All NaN when no unit is left, and NaN for pairs with a
        sound whose pattern does not vary over units (that of a single unit never does).

    Raises
    ------
    DataError
        With fewer than 4 sounds.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import rsa
    >>> x = np.random.default_rng(0).standard_normal((5, 20))
    >>> matrix = rsa.rdm(x)
    >>> matrix.shape, bool(np.allclose(matrix, matrix.T))
    ((5, 5), True)
    """
    values = torch.from_numpy(np.array(x, dtype=np.float64))
    if values.ndim != 2:
        raise DataError(f"one pattern per sound is needed, (sound, unit); got {np.shape(x)}")
    if metric not in METRICS:
        raise UnknownNameError("dissimilarity", metric, METRICS)
    require_sounds(len(values))
    return _rdm(values[:, values.isfinite().all(dim=0)], metric, standardize).numpy()


def compare(a: np.ndarray, b: np.ndarray, device: str = "auto") -> np.ndarray:
    """Spearman correlation between the upper triangles of dissimilarity matrices.

    Parameters
    ----------
    a, b : arrays of shape (n_a, n_sounds, n_sounds) and (n_b, n_sounds, n_sounds)
        A single matrix ``(n_sounds, n_sounds)`` counts as one.
    device : str
        Where to compute.

    Returns
    -------
    array of shape (n_a, n_b)
        NaN where a matrix holds NaN or does not vary.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import rsa
    >>> x = np.random.default_rng(0).standard_normal((8, 20))
    >>> rsa.compare(rsa.rdm(x), rsa.rdm(2 * x), device="cpu").round(3)
    array([[1.]])
    """
    on = resolve_device(device, float64=True)
    triangles = []
    for matrices in (a, b):
        stack = np.asarray(matrices, dtype=np.float64)
        stack = stack[None] if stack.ndim == 2 else stack
        row, column = upper_triangle(stack.shape[-1])
        triangles.append(torch.from_numpy(stack[:, row, column]).to(on))
    return masked(spearman(*triangles), *triangles).cpu().numpy()


def embedding(matrix: np.ndarray, n_dimensions: int = 2) -> np.ndarray:
    """Place sounds so that near ones are alike: classical multidimensional scaling.

    Parameters
    ----------
    matrix : array of shape (n_sounds, n_sounds)
        From :func:`rdm`. All its dissimilarities are squared Euclidean distances between scaled
        patterns, up to a factor, and are taken as such.
    n_dimensions : int
        At most ``n_sounds - 1``.

    Returns
    -------
    array of shape (n_sounds, n_dimensions)
        Centred, the widest dimension first; the largest coordinate of each is positive, so that
        equal matrices give equal pictures.

    Raises
    ------
    DataError
        When the matrix holds NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import rsa
    >>> x = np.random.default_rng(0).standard_normal((8, 20))
    >>> rsa.embedding(rsa.rdm(x)).shape
    (8, 2)
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise DataError("a dissimilarity matrix with NaN cannot be drawn as points")
    if not 0 < n_dimensions < len(matrix):
        raise ParameterError(f"n_dimensions must lie between 1 and {len(matrix) - 1}")
    centred = matrix - matrix.mean(axis=0)
    centred = centred - centred.mean(axis=1, keepdims=True)
    variances, directions = np.linalg.eigh(-centred / 2)
    widest = np.argsort(variances)[::-1][:n_dimensions]
    points = directions[:, widest] * np.sqrt(variances[widest].clip(min=0))
    largest = np.abs(points).argmax(axis=0)
    return points * np.where(points[largest, np.arange(n_dimensions)] < 0, -1.0, 1.0)


@dataclass(frozen=True)
class Matrices:
    """The matrices of all layers, and of all subjects and regions, over the same sounds.

    Made by :meth:`of`. ``n_groups`` is subjects times regions, subjects changing slowest.
    """

    features: Mapping[str, np.ndarray]
    responses: np.ndarray
    names: np.ndarray | None
    subjects: np.ndarray
    rois: np.ndarray | None
    members: tuple[np.ndarray, ...]
    device: torch.device

    @classmethod
    def of(
        cls,
        features: Mapping[str, np.ndarray | xr.DataArray] | None,
        responses: np.ndarray | xr.DataArray,
        groupby: str | Sequence[str] = "subject",
        device: str = "auto",
    ) -> "Matrices":
        """Align features with responses and sort voxels into subjects and regions."""
        groupby = (groupby,) if isinstance(groupby, str) else tuple(groupby)
        if groupby not in (("subject",), ("subject", "roi")):
            raise ParameterError(f"groupby must be 'subject' or ('subject', 'roi'), not {groupby}")
        labelled = isinstance(responses, xr.DataArray)
        n_sounds = responses.sizes.get("sound", 0) if labelled else len(responses)
        aligned, values, names = align(features or {"": np.zeros((n_sounds, 1))}, responses)
        require_sounds(len(values))
        n_targets = values.shape[1]
        values = values if values.ndim == 3 else values[..., None]
        subject = _labels(responses, "subject", n_targets)
        roi = _labels(responses, "roi", n_targets) if "roi" in groupby else None
        subjects = np.unique(subject)
        rois = None
        usable = np.isfinite(values).all(axis=(0, 2))
        members = [np.flatnonzero((subject == s) & usable) for s in subjects]
        if roi is not None:
            rois = np.array([label for label in dict.fromkeys(roi.tolist()) if label])
            if rois.size == 0:
                raise ParameterError("groupby names 'roi', but no voxel carries one")
            members = [m[roi[m] == label] for m in members for label in rois]
        on = resolve_device(device, float64=True)
        aligned = aligned if features else {}
        return cls(aligned, values, names, subjects, rois, tuple(members), on)

    @property
    def n_sounds(self) -> int:
        """Number of sounds."""
        return len(self.responses)

    @property
    def n_repetitions(self) -> int:
        """Number of repetitions of each sound."""
        return self.responses.shape[2]

    @property
    def layers(self) -> list[str]:
        """Names of the layers."""
        return list(self.features)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of subjects and of regions (1 without regions)."""
        return len(self.subjects), 1 if self.rois is None else len(self.rois)

    @cached_property
    def models(self) -> torch.Tensor:
        """Upper triangles of the layers' matrices, (n_layers, n_pairs)."""
        return self.model_triangles()

    @cached_property
    def brains(self) -> torch.Tensor:
        """Upper triangles of the groups' matrices, (n_groups, n_pairs)."""
        return self.brain_triangles(self.responses.mean(axis=2))

    def model_triangles(self, scaled_on: torch.Tensor | None = None) -> torch.Tensor:
        """As :attr:`models`, units scaled by the mean and spread over some sounds only."""
        return self._triangles(self.features.values(), scaled_on)

    def brain_triangles(
        self, values: np.ndarray, scaled_on: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As :attr:`brains`, of any responses (n_sounds, n_targets)."""
        return self._triangles((values[:, m] for m in self.members), scaled_on)

    def _triangles(self, arrays, scaled_on: torch.Tensor | None) -> torch.Tensor:
        upper = upper_triangle(self.n_sounds)
        rows = [
            _rdm(torch.from_numpy(x).to(self.device).double(), scaled_on=scaled_on)[upper]
            for x in arrays
        ]
        empty = torch.empty((0, len(upper[0])), dtype=torch.float64, device=self.device)
        return torch.stack(rows) if rows else empty

    @cached_property
    def models_unusable(self) -> torch.Tensor:
        """Whether each layer lacks (part of) its matrix, (n_layers,)."""
        return self.models.isnan().any(dim=1)

    @cached_property
    def brains_unusable(self) -> torch.Tensor:
        """Whether each group lacks a matrix, having fewer than two usable voxels, (n_groups,)."""
        return self.brains.isnan().any(dim=1)

    def usable_only(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores (n_layers, n_groups), NaN where the layer or the group lacks its matrix."""
        return scores.masked_fill(self.models_unusable[:, None] | self.brains_unusable, torch.nan)

    def dataset(self, **variables: tuple[tuple[str, ...], torch.Tensor | np.ndarray]) -> xr.Dataset:
        """Label results.

        Parameters
        ----------
        **variables
            Leading dimensions and array; the array's last axis runs over groups.
        """
        group_dims = ("subject",) if self.rois is None else ("subject", "roi")
        group_shape = self.shape[: len(group_dims)]
        counts = np.array([len(m) for m in self.members])
        data = {}
        for name, (dims, values) in {**variables, "n_targets": ((), counts)}.items():
            array = values.cpu().numpy() if isinstance(values, torch.Tensor) else values
            data[name] = (*dims, *group_dims), array.reshape(*array.shape[:-1], *group_shape)
        coords = {"subject": self.subjects}
        if self.rois is not None:
            coords["roi"] = self.rois
        if any("layer" in dims for dims, _ in variables.values()):
            coords["layer"] = self.layers
        attrs = {"dissimilarity": "correlation", "comparison": "spearman"}
        return xr.Dataset(data, coords=coords, attrs=attrs)


def upper_triangle(n_sounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pair of sounds, row by row."""
    return np.triu_indices(n_sounds, k=1)


def require_sounds(n_sounds: int, what: str = "given") -> None:
    """Refuse to compare matrices over fewer than 4 sounds."""
    if n_sounds < MIN_SOUNDS:
        raise DataError(
            f"representational similarity needs at least {MIN_SOUNDS} sounds; {n_sounds} {what}"
        )


def masked(scores: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Scores (n_a, n_b), NaN wherever a row of ``a`` or of ``b`` holds NaN."""
    bad = a.isnan().any(dim=1)[:, None] | b.isnan().any(dim=1)[None]
    return scores.masked_fill(bad, torch.nan)


def _rdm(
    x: torch.Tensor,
    metric: str = "correlation",
    standardize: bool = True,
    scaled_on: torch.Tensor | None = None,
) -> torch.Tensor:
    """Dissimilarity matrix of finite patterns; ``scaled_on`` (n_sounds,) bool scales the units."""
    if x.shape[1] == 0:
        return x.new_full((len(x), len(x)), torch.nan)
    if standardize:
        basis = x if scaled_on is None else x[scaled_on]
        spread = basis.std(dim=0, correction=0)
        # Dividing by almost nothing would blow up a unit that varies over the other sounds only.
        x = (x - basis.mean(dim=0)) / torch.where(spread > _TINY, spread + _TINY, 1.0)
    if metric == "correlation":
        x = x - x.mean(dim=1, keepdim=True)
    if metric == "euclidean":
        gram = x @ x.T
        square = gram.diagonal()
        distance = (square[:, None] + square - 2 * gram) / x.shape[1]
    else:
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        x = x / torch.where(norm > _TINY, norm, torch.nan)
        distance = 1 - x @ x.T
    # A matrix product need not be symmetric to the last bit.
    distance = ((distance + distance.T) / 2).clamp(min=0)
    return distance.fill_diagonal_(0)


def _labels(responses: object, coordinate: str, n_targets: int) -> np.ndarray:
    if isinstance(responses, xr.DataArray) and coordinate in responses.coords:
        return np.asarray(responses[coordinate].values).astype(str)
    return np.full(n_targets, "all" if coordinate == "subject" else "", dtype=object).astype(str)
