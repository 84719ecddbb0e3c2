"""What ridge regression with FIR delays needs of long recordings, collected run by run.

The design of n_lags delayed copies of the features is never built. Its normal equations consist of
the lagged autocovariances of the features, one matrix product per lag; the other blocks follow by
sliding the window of rows by one, which only the first and last rows of each run change. Sums of
folds add up, so one pass over the data serves every fold, every penalty and, through the same
sums, the scores on the held-out fold. Memory does not depend on the number of runs.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from ..device import require_memory, resolve_device
from ..errors import DataError, ParameterError, UnknownNameError

__all__ = ["FirAccumulator", "FirRows", "FirSums", "delayed"]

_EDGE_RUNS = 64  # runs whose edges wait for one matrix product; bounds the memory


@dataclass
class FirSums:
    """Sufficient statistics of a delayed design, all float64. They add up over sets of rows.

    Attributes
    ----------
    n_rows : float
    xtx : tensor of shape (n_lags * n_features, n_lags * n_features)
    xty : tensor of shape (n_lags * n_features, n_targets)
    x, y : tensor of shape (n_lags * n_features,) and (n_targets,)
        Column sums.
    yy : tensor of shape (n_targets,)
        Sums of squares.
    """

    n_rows: float
    xtx: torch.Tensor
    xty: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    yy: torch.Tensor

    def __add__(self, other: "FirSums") -> "FirSums":
        return FirSums(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))

    def variance(self) -> torch.Tensor:
        """Variance of each column of the design."""
        return (self.xtx.diagonal() / self.n_rows - (self.x / self.n_rows) ** 2).clamp_min(0)

    def fit(self, alpha: float, scale: torch.Tensor) -> torch.Tensor:
        """Weights (n_lags * n_features, n_targets) that minimise squared error plus a penalty.

        Parameters
        ----------
        alpha : float
            Penalty, as scikit-learn's ``Ridge`` means it: ``alpha * sum(weights ** 2)``.
        scale : tensor of shape (n_lags * n_features,)
            The penalty applies to the weights of columns divided by it.

        Raises
        ------
        ParameterError
            When ``alpha`` is too small for the rounding of the sums.
        """
        gram = (self.xtx - torch.outer(self.x, self.x) / self.n_rows) / scale[:, None] / scale
        gram.diagonal().add_(alpha)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise ParameterError(
                f"a penalty of {alpha:g} is lost in the rounding of the sums (their largest "
                f"diagonal is {gram.diagonal().max():.1e}): use larger ones, or precision='float64'"
            )
        wanted = (self.xty - torch.outer(self.x, self.y) / self.n_rows) / scale[:, None]
        return torch.cholesky_solve(wanted, factor) / scale[:, None]

    def score(self, weights: torch.Tensor, train: "FirSums") -> tuple[torch.Tensor, torch.Tensor]:
        """R² and r per target of weights fitted on ``train``, on these rows, from sums alone.

        The cost does not depend on the number of rows: ``sum(p²)`` is a quadratic form.
        """
        x_mean, y_mean = train.x / train.n_rows, train.y / train.n_rows
        offset = x_mean @ weights
        p = self.x @ weights - self.n_rows * offset
        pp = (weights * (self.xtx @ weights)).sum(dim=0) - 2 * offset * (self.x @ weights)
        pp = pp + self.n_rows * offset**2
        py = (weights * self.xty).sum(dim=0) - offset * self.y - y_mean * p
        yy = self.yy - 2 * y_mean * self.y + self.n_rows * y_mean**2
        y = self.y - self.n_rows * y_mean
        variance_y, variance_p = yy - y**2 / self.n_rows, pp - p**2 / self.n_rows
        covariance = py - p * y / self.n_rows
        varies = variance_y > 1e-10 * self.yy.clamp_min(1e-300)
        r2 = torch.where(varies, 1 - (yy - 2 * py + pp) / variance_y, torch.nan)
        product = variance_y * variance_p.clamp_min(0)
        r = torch.where(product > 0, covariance / product.clamp_min(1e-300).sqrt(), 0.0)
        return r2, torch.where(varies, r, torch.nan)


@dataclass
class FirRows:
    """The delayed design itself, for fewer rows than columns: the dual is then the smaller problem.

    Fits and scores as :class:`FirSums` does.

    Attributes
    ----------
    design : tensor of shape (n_rows, n_lags * n_features)
    responses : tensor of shape (n_rows, n_targets)
    """

    design: torch.Tensor
    responses: torch.Tensor
    _solved: tuple | None = field(default=None, repr=False)

    def __add__(self, other: "FirRows") -> "FirRows":
        return FirRows(
            torch.cat([self.design, other.design]), torch.cat([self.responses, other.responses])
        )

    @property
    def n_rows(self) -> int:
        """How many."""
        return len(self.design)

    @property
    def x(self) -> torch.Tensor:
        """Column sums of the design."""
        return self.design.sum(dim=0)

    @property
    def y(self) -> torch.Tensor:
        """Column sums of the responses."""
        return self.responses.sum(dim=0)

    def variance(self) -> torch.Tensor:
        """Variance of each column of the design."""
        return self.design.var(dim=0, correction=0)

    def fit(self, alpha: float, scale: torch.Tensor) -> torch.Tensor:
        """Weights as :meth:`FirSums.fit`; the decomposition is kept for the next penalty."""
        if self._solved is None or self._solved[0] is not scale:
            x = (self.design - self.design.mean(dim=0)) / scale
            values, vectors = torch.linalg.eigh(x @ x.T)
            z = vectors.T @ (self.responses - self.responses.mean(dim=0))
            self._solved = (scale, x, values.clamp_min(0), vectors, z)
        _, x, values, vectors, z = self._solved
        dual = vectors @ (z / (values + alpha)[:, None])
        return x.T @ dual / scale[:, None]

    def score(self, weights: torch.Tensor, train: "FirRows") -> tuple[torch.Tensor, torch.Tensor]:
        """R² and r per target of weights fitted on ``train``, on these rows."""
        p = (self.design - train.design.mean(dim=0)) @ weights + train.responses.mean(dim=0)
        y = self.responses - self.responses.mean(dim=0)
        total, p_centred = (y**2).sum(dim=0), p - p.mean(dim=0)
        varies = total > 1e-10 * (self.responses**2).sum(dim=0).clamp_min(1e-300)
        r2 = 1 - ((self.responses - p) ** 2).sum(dim=0) / total
        product = total * (p_centred**2).sum(dim=0)
        r = torch.where(product > 0, (p_centred * y).sum(dim=0) / product.sqrt(), 0.0)
        return r2.masked_fill(~varies, torch.nan), r.masked_fill(~varies, torch.nan)


def delayed(features: np.ndarray, n_lags: int, edges: str = "drop") -> np.ndarray:
    """Build the delayed design of one run.

    Parameters
    ----------
    features : array of shape (n_trs, n_features)
        One row per volume.
    n_lags : int
        Copies; the first is not delayed.
    edges : {"drop", "zero"}
        Leave out the first ``n_lags - 1`` rows, whose history is not known, or put zeros there.

    Returns
    -------
    array of shape (n_trs or n_trs - n_lags + 1, n_lags * n_features)
        Column ``lag * n_features + feature``.
    """
    x = np.asarray(features)
    padded = np.concatenate([np.zeros((n_lags - 1, x.shape[1]), x.dtype), x])
    last = n_lags - 1
    design = np.concatenate([padded[last - j : last - j + len(x)] for j in range(n_lags)], axis=1)
    return design[last:] if edges == "drop" else design


class FirAccumulator:
    """Collects :class:`FirSums` per fold, one run at a time.

    Parameters
    ----------
    n_features, n_targets, n_lags : int
        Column ``lag * n_features + feature`` of the design holds the feature ``lag`` volumes ago.
    edges : {"drop", "zero"}
        What the first ``n_lags - 1`` volumes of a run have for a history: they are left out, or
        zeros stand for it.
    offset : array of shape (n_features,), optional
        Taken from the features first. With ``"drop"`` it changes nothing but rounding; with
        ``"zero"`` it is the history.
    precision : {"float32", "float64"}
        Of the matrix products over ``n_rows_batch`` rows; they add up in float64.
    n_rows_batch : int
        Rows that are multiplied at a time.
    device : str
        Where to compute.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import encoding
    >>> collected = encoding.FirAccumulator(n_features=2, n_targets=1, n_lags=3, device="cpu")
    >>> collected.add(np.ones((10, 2)), np.ones((10, 1)), "train")
    >>> collected.sums().n_rows
    8.0
    """

    def __init__(
        self,
        n_features: int,
        n_targets: int,
        n_lags: int,
        edges: str = "drop",
        offset: np.ndarray | None = None,
        precision: str = "float32",
        n_rows_batch: int = 4096,
        device: str = "auto",
    ):
        if edges not in ("drop", "zero"):
            raise ParameterError(f"edges must be 'drop' or 'zero', not {edges!r}")
        if precision not in ("float32", "float64"):
            raise ParameterError(f"precision must be 'float32' or 'float64', not {precision!r}")
        if min(n_features, n_targets, n_lags) < 1 or n_rows_batch < n_lags:
            raise ParameterError("features, targets and lags must be positive; batches hold n_lags")
        self.n_features, self.n_targets, self.n_lags = n_features, n_targets, n_lags
        self.edges, self.n_rows_batch = edges, n_rows_batch
        self.device = resolve_device(device, float64=True)
        self.dtype = getattr(torch, precision)
        self.offset = None if offset is None else self._tensor(offset)
        self.folds: dict[str, _Fold] = {}
        self.broken = torch.zeros(n_targets, dtype=torch.bool, device=self.device)

    def add(self, features: np.ndarray, responses: np.ndarray, fold: str = "train") -> None:
        """Add one run.

        Parameters
        ----------
        features : array of shape (n_trs, n_features)
            What the responses follow, one row per volume.
        responses : array of shape (n_trs, n_targets)
            A target that is NaN anywhere becomes NaN in every result.
        fold : str
            Where the run belongs.

        Raises
        ------
        DataError
            When shapes do not fit, features are not finite, or nothing is left of a short run.
        """
        x, y = self._tensor(features), self._tensor(responses)
        if x.shape != (len(y), self.n_features) or y.shape != (len(x), self.n_targets):
            raise DataError(
                f"features {tuple(x.shape)} and responses {tuple(y.shape)} of one run must be "
                f"(n_trs, {self.n_features}) and (n_trs, {self.n_targets})"
            )
        if not torch.isfinite(x).all():
            raise DataError("the features of a run hold NaN or infinite values")
        if self.edges == "drop" and len(x) < self.n_lags:
            raise DataError(f"a run of {len(x)} volumes has no full history of {self.n_lags} lags")
        broken = ~torch.isfinite(y).all(dim=0)
        if broken.any():
            self.broken |= broken
            y = y.masked_fill(broken, 0)
        if self.offset is not None:
            x = x - self.offset
        if fold not in self.folds:
            blocks = self.n_lags * (self.n_lags + 1) // 2
            size = 8 * (blocks * self.n_features**2 + self.n_lags * self.n_features * y.shape[1])
            require_memory(
                size, self.device, "another fold of FIR sums", "Use fewer folds or lags."
            )
            self.folds[fold] = _Fold(self)
        self.folds[fold].add(x, y)

    def sums(self, *folds: str) -> FirSums:
        """Add up the sums of some folds; by default of all."""
        for fold in folds:
            if fold not in self.folds:
                raise UnknownNameError("fold", fold, self.folds)
        if not self.folds:
            raise DataError("no run was added")
        parts = [self.folds[fold].sums() for fold in folds or self.folds]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        values = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.asarray(values))
        return values.to(self.device, self.dtype)


class _Fold:
    """Sums of one fold, and the rows that wait to be multiplied."""

    def __init__(self, owner: FirAccumulator):
        d, v, k = owner.n_features, owner.n_targets, owner.n_lags
        self.owner, self.gap = owner, k - 1
        wide = {"dtype": torch.float64, "device": owner.device}
        self.lagged = torch.zeros(k, d, d, **wide)  # sum of x(t) x(t - lag)' over rows t
        # What changes from block (i-1, j-1) to block (i, j), by pairs 1 <= i <= j.
        self.slides = torch.zeros(k * (k - 1) // 2, d, d, **wide)
        self.xty = torch.zeros(k, d, v + 1, **wide)  # the last target is 1: column sums
        self.yy = torch.zeros(v, **wide)
        self.y = torch.zeros(v, **wide)
        self.n_rows = 0
        rows = owner.n_rows_batch + 2 * self.gap
        self.x = torch.zeros(rows, d, dtype=owner.dtype, device=owner.device)
        self.used = torch.zeros_like(self.x)  # the same, zero in rows that are history only
        self.targets = torch.zeros(rows, v + 1, dtype=owner.dtype, device=owner.device)
        self.filled = 0
        self.heads, self.tails = torch.zeros(2, _EDGE_RUNS, self.gap, d, **wide)
        self.n_edges = 0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        n, gap = len(x), self.gap
        first = gap if self.owner.edges == "drop" else 0
        wide = y[first:].double()
        self.n_rows += n - first
        self.y += wide.sum(dim=0)
        self.yy += (wide**2).sum(dim=0)
        start = first
        while start < n:
            room = self.owner.n_rows_batch - self.filled
            if room <= gap:
                self._multiply()
                continue
            history = min(gap, start)
            stop = min(n, start + room - history)
            self._place(x[start - history : stop], y[start:stop], history)
            start = stop
        if gap:
            self.tails[self.n_edges] = _last_rows(x, gap)
            if self.owner.edges == "drop":
                self.heads[self.n_edges] = x[:gap]
            self.n_edges += 1
            if self.n_edges == len(self.tails):
                self._slide()

    def flush(self) -> None:
        """Multiply what waits."""
        self._multiply()
        self._slide()

    def sums(self) -> FirSums:
        self.flush()
        k, d = self.owner.n_lags, self.owner.n_features
        xtx = torch.empty(k * d, k * d, dtype=torch.float64, device=self.owner.device)
        for lag in range(k):
            block = self.lagged[lag].clone()
            for i in range(k - lag):
                if i:
                    block += self.slides[self._pair(i, i + lag)]
                rows, columns = slice(i * d, (i + 1) * d), slice((i + lag) * d, (i + lag + 1) * d)
                xtx[rows, columns] = block
                xtx[columns, rows] = block.T
        flat = self.xty.flatten(0, 1)
        return FirSums(
            float(self.n_rows), xtx, flat[:, :-1].clone(), flat[:, -1].clone(),
            self.y.clone(), self.yy.clone(),
        )  # fmt: skip

    def _pair(self, i: int, j: int) -> int:
        """Place of the pair 1 <= i <= j among all of them."""
        return (i - 1) * self.owner.n_lags - i * (i - 1) // 2 + j - i

    def _place(self, x: torch.Tensor, y: torch.Tensor, history: int) -> None:
        """Put rows into the batch, and as many empty rows as there are lags behind them."""
        begin, end = self.filled, self.filled + len(x)
        self.x[begin:end] = x
        self.used[begin : begin + history] = 0
        self.used[begin + history : end] = x[history:]
        self.targets[begin : begin + history] = 0
        self.targets[begin + history : end, :-1] = y
        self.targets[begin + history : end, -1] = 1
        for buffer in (self.x, self.used, self.targets):
            buffer[end : end + self.gap] = 0
        self.filled = end + self.gap

    def _multiply(self) -> None:
        """Multiply the rows of the batch, once per lag, and empty it."""
        n = self.filled
        for lag in range(self.owner.n_lags if n else 0):
            before = self.x[: n - lag]
            self.lagged[lag] += (self.used[lag:n].T @ before).double()
            self.xty[lag] += (before.T @ self.targets[lag:n]).double()
        self.filled = 0

    def _slide(self) -> None:
        """Account for the rows that enter and leave as the window moves back by one."""
        k = self.owner.n_lags
        heads, tails = self.heads[: self.n_edges], self.tails[: self.n_edges]
        for i in range(1, k if self.n_edges else 0):
            for j in range(i, k):
                change = heads[:, k - 1 - i].T @ heads[:, k - 1 - j]  # 0 unless edges are dropped
                change -= tails[:, k - 1 - i].T @ tails[:, k - 1 - j]
                self.slides[self._pair(i, j)] += change
        self.n_edges = 0


def _last_rows(x: torch.Tensor, n: int) -> torch.Tensor:
    """Last n rows; zeros stand in front of a run that is shorter."""
    rows = x[-n:]
    return torch.cat([x.new_zeros(n - len(rows), x.shape[1]), rows])
