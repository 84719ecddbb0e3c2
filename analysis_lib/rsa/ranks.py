"""Rank correlations of many vectors under many weightings, from one sort.

Resampling sounds changes how often each entry of a dissimilarity matrix counts, never their
order. So every vector is sorted once, and its midranks under any multiplicities are a cumulative
sum along that order.
"""

import torch

__all__ = ["Ranker", "correlate_rowwise", "correlate_weighted", "spearman", "standardised"]


class Ranker:
    """Midranks of the rows of a matrix, under any weights.

    Parameters
    ----------
    values : tensor of shape (n_vectors, n_entries), float64
        Rows with NaN get ranks without meaning; mask their results.
    """

    def __init__(self, values: torch.Tensor):
        ordered, self._order = values.sort(dim=1)
        self._inverse = self._order.argsort(dim=1)
        starts = torch.ones_like(ordered, dtype=torch.bool)
        starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        self._ties = None
        if not bool(starts.all()):
            place = torch.arange(values.shape[1], device=values.device).expand_as(ordered)
            first = torch.where(starts, place, 0).cummax(dim=1).values
            ends = starts.roll(-1, dims=1)
            ends[:, -1] = True
            far = values.shape[1]
            last = torch.where(ends, place, far).flip(1).cummin(dim=1).values.flip(1)
            self._ties = first, last

    def ranks(self, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Midranks when entry k counts ``weights[k]`` times, up to a constant.

        Parameters
        ----------
        weights : tensor of shape (n_entries,), optional
            Not negative; 0 leaves an entry out (its own rank is then without meaning).

        Returns
        -------
        tensor of shape (n_vectors, n_entries)

        Notes
        -----
        With whole weights these are the midranks of the list in which every entry is repeated
        that often.
        """
        if weights is None:
            weights = torch.ones(self._order.shape[1], dtype=torch.float64).to(self._order.device)
        counts = weights[self._order]
        until = counts.cumsum(dim=1)
        middle = until - counts / 2
        if self._ties is not None:
            first, last = self._ties
            before = until.gather(1, first) - counts.gather(1, first)
            middle = (before + until.gather(1, last)) / 2
        return middle.gather(1, self._inverse)


def correlate_weighted(
    a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted Pearson correlation between the rows of two matrices.

    Parameters
    ----------
    a, b : tensors of shape (n_a, n_entries) and (n_b, n_entries)
        Finite.
    weights : tensor of shape (n_entries,), optional
        Not negative, not all 0.

    Returns
    -------
    tensor of shape (n_a, n_b)
        NaN where a row does not vary.
    """
    a, b = standardised(a, weights), standardised(b, weights)
    return (a @ b.T).clamp(-1, 1)


def correlate_rowwise(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson correlation between row k of one matrix and row k of another, (n_rows,)."""
    return (standardised(a) * standardised(b)).sum(dim=1).clamp(-1, 1)


def spearman(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Spearman correlation between the rows of two matrices, (n_a, n_b)."""
    return correlate_weighted(Ranker(a).ranks(), Ranker(b).ranks())


def standardised(rows: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Rows with weighted mean 0 and unit norm, times the root of the weights."""
    if weights is None:
        rows = rows - rows.mean(dim=1, keepdim=True)
    else:
        rows = rows - ((rows @ weights) / weights.sum())[:, None]
        rows = rows * weights.sqrt()
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # Ranks are sums of up to n weights, exact in float64: what does not vary is exactly 0.
    return rows / torch.where(norm > 0, norm, torch.nan)
