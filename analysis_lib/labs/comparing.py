"""Checks of lab 3: RSA, and what cross-validation is for."""

import numpy as np
from scipy.stats import kendalltau, rankdata

from .exercise import Choice, Exercise, Mistake

__all__ = [
    "check_held_out",
    "check_lower_ceiling",
    "check_optimism",
    "check_p_value",
    "check_pairs",
    "check_rdm",
    "check_shuffled",
    "check_spearman",
]


def _patterns(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.normal(1.0, 1.0, (9, 9)),)


def _few_sounds(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.normal(1.0, 1.0, (6, 20)),)


def _cosine(x: np.ndarray) -> np.ndarray:
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


check_rdm = Exercise(
    "rdm",
    3,
    right=lambda x: 1 - np.corrcoef(x),
    cases=(_patterns, _few_sounds),
    mistakes=(
        Mistake(
            "similarity",
            "these are correlations: high where sounds are alike. A dissimilarity is 1 minus the "
            "correlation.",
            lambda x: np.corrcoef(x),
        ),
        Mistake(
            "transposed",
            "this compares units (columns). Compare sounds: the matrix has a row and a column for "
            "every row of x.",
            lambda x: 1 - np.corrcoef(x.T),
        ),
        Mistake(
            "not-centred",
            "you forgot to centre: this is 1 minus the cosine. Subtract from each pattern (row) "
            "its own mean first.",
            lambda x: 1 - _cosine(x),
        ),
        Mistake(
            "centred-over-sounds",
            "the means were taken over sounds. For a correlation of two patterns take the mean "
            "of each row.",
            lambda x: 1 - _cosine(x - x.mean(axis=0)),
        ),
        Mistake(
            "covariance",
            "these are covariances subtracted from 1. Divide by both standard deviations.",
            lambda x: 1 - np.cov(x, bias=True),
        ),
        Mistake(
            "absolute",
            "the sign of the correlation is lost: opposite patterns are as far apart as can be "
            "(2), not the same.",
            lambda x: 1 - np.abs(np.corrcoef(x)),
        ),
        Mistake(
            "euclidean",
            "these are Euclidean distances. Here a dissimilarity is 1 minus the correlation.",
            lambda x: np.linalg.norm(x[:, None] - x, axis=2),
        ),
    ),
)


def _upper(matrix: np.ndarray, k: int = 1) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix), k)]


def _matrix(rng: np.random.Generator, n: int = 7) -> np.ndarray:
    half = np.triu(rng.random((n, n)), 1)
    return half + half.T


check_pairs = Exercise(
    "pairs",
    1,
    right=_upper,
    cases=(lambda rng: (_matrix(rng),),),
    mistakes=(
        Mistake(
            "diagonal",
            "the diagonal is in it. It is 0 in every such matrix, so it would make all of them "
            "look alike.",
            lambda matrix: _upper(matrix, 0),
        ),
        Mistake(
            "everything",
            "every pair is in it twice, and the diagonal too. Take what is above the diagonal.",
            lambda matrix: matrix.ravel(),
        ),
        Mistake(
            "lower",
            "these are the entries below the diagonal, in another order than the book's. Use "
            "numpy.triu_indices.",
            lambda matrix: matrix[np.tril_indices(len(matrix), -1)],
        ),
        Mistake(
            "zeros",
            "the lower half is set to 0 and still there. Pick the entries above the diagonal: "
            "one vector.",
            lambda matrix: np.triu(matrix, 1),
        ),
    ),
)


def _two(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    a = rng.standard_normal(30)
    return a, np.exp(a + 0.5 * rng.standard_normal(30))


def _tied(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    a, b = _two(rng)
    return np.round(a), np.round(b)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return _pearson(rankdata(a), rankdata(b))


check_spearman = Exercise(
    "spearman",
    2,
    right=_spearman,
    cases=(_two, _tied),
    mistakes=(
        Mistake(
            "pearson",
            "this is the Pearson correlation of the values. Replace the values by their ranks "
            "first.",
            _pearson,
        ),
        Mistake(
            "argsort-once",
            "argsort gives the order, not the ranks: entry k of it says which value comes k-th. "
            "Ranks are the argsort of the argsort, or scipy.stats.rankdata.",
            lambda a, b: _pearson(np.argsort(a, kind="stable"), np.argsort(b, kind="stable")),
        ),
        Mistake(
            "ties",
            "equal values got different ranks. They should share the mean of their ranks: "
            "scipy.stats.rankdata does that.",
            lambda a, b: _pearson(rankdata(a, "ordinal"), rankdata(b, "ordinal")),
        ),
        Mistake(
            "one-side",
            "only one of the two is ranked.",
            lambda a, b: _pearson(rankdata(a), b),
        ),
        Mistake(
            "kendall",
            "this is Kendall's tau, which counts pairs. Spearman's is the correlation of ranks.",
            lambda a, b: float(kendalltau(a, b).statistic),
        ),
        Mistake(
            "matrix",
            "numpy.corrcoef gives a 2 × 2 matrix. We want the number off its diagonal.",
            lambda a, b: np.corrcoef(rankdata(a), rankdata(b)),
        ),
    ),
)


def _ordered(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    while True:  # an order whose inverse is another one
        order = rng.permutation(6)
        if (order != np.argsort(order)).any():
            return _matrix(rng, 6), order


def _pair_shuffle(matrix: np.ndarray, order: np.ndarray) -> np.ndarray:
    return matrix.ravel()[np.r_[order, np.arange(len(order), matrix.size)]].reshape(matrix.shape)


check_shuffled = Exercise(
    "shuffled",
    2,
    right=lambda matrix, order: matrix[order][:, order],
    cases=(_ordered,),
    mistakes=(
        Mistake(
            "rows-only",
            "only the rows are exchanged. A sound has a row and a column: exchange both alike, or "
            "the matrix is not symmetric any more.",
            lambda matrix, order: matrix[order],
        ),
        Mistake(
            "columns-only",
            "only the columns are exchanged. A sound has a row and a column: exchange both alike.",
            lambda matrix, order: matrix[:, order],
        ),
        Mistake(
            "diagonal-picked",
            "matrix[order, order] picks the entries (order[k], order[k]): the diagonal. Index one "
            "axis after the other, or use numpy.ix_.",
            lambda matrix, order: matrix[order, order],
        ),
        Mistake(
            "inverse",
            "this is the inverse order. Row k of the result is row order[k] of the matrix.",
            lambda matrix, order: matrix[np.argsort(order)][:, np.argsort(order)],
        ),
        Mistake(
            "pairs",
            "single entries were exchanged, not sounds. Then distances need not fit together any "
            "more, and chance looks smaller than it is.",
            _pair_shuffle,
        ),
    ),
)


def _null(rng: np.random.Generator) -> tuple[float, np.ndarray]:
    low, middle, high = rng.uniform(-3, -1.1, 2), rng.uniform(-0.9, 0.9, 12), rng.uniform(1.1, 3, 4)
    return 1.0, rng.permutation(np.r_[low, middle, 1.0, high])  # one is just as high


check_p_value = Exercise(
    "p_value",
    2,
    right=lambda observed, null: (1 + (null >= observed).sum()) / (1 + len(null)),
    cases=(_null, lambda rng: (9.0, rng.standard_normal(19))),
    mistakes=(
        Mistake(
            "without-the-observed",
            "with this formula p can be 0, and no number of shuffles can show that. The "
            "observed order is one of the possible ones: add 1 to both counts.",
            lambda observed, null: (null >= observed).mean(),
        ),
        Mistake(
            "one-only-above",
            "the 1 is added to the count, not to the number of shuffles. Add it to both.",
            lambda observed, null: (1 + (null >= observed).sum()) / len(null),
        ),
        Mistake(
            "strictly-greater",
            "a shuffle that is just as high counts against you: use >=, not >.",
            lambda observed, null: (1 + (null > observed).sum()) / (1 + len(null)),
        ),
        Mistake(
            "other-side",
            "this counts the shuffles that are lower. We ask how often chance is as high.",
            lambda observed, null: (1 + (null <= observed).sum()) / (1 + len(null)),
        ),
        Mistake(
            "complement",
            "this is 1 - p: close to 1 where it should be close to 0.",
            lambda observed, null: 1 - (1 + (null >= observed).sum()) / (1 + len(null)),
        ),
        Mistake(
            "two-sided",
            "this also counts shuffles that are as low. The question has one side: is the model "
            "more like the brain than chance?",
            lambda observed, null: (1 + (np.abs(null) >= abs(observed)).sum()) / (1 + len(null)),
        ),
    ),
)


def _subjects(rng: np.random.Generator) -> tuple[np.ndarray]:
    shared = rng.standard_normal(15)
    return ((shared + rng.standard_normal((4, 15))) * rng.uniform(1, 9, (4, 1)),)


def _against(rdms: np.ndarray, ranked: bool = True, own: bool = False, same=_spearman):
    rows = np.apply_along_axis(rankdata, 1, rdms) if ranked else rdms
    total = rows.sum(axis=0)
    return [same(rdm, total if own else total - row) for rdm, row in zip(rdms, rows, strict=True)]


def _between_subjects(rdms: np.ndarray) -> float:
    n = len(rdms)
    return float(np.mean([_spearman(rdms[i], rdms[j]) for i in range(n) for j in range(i)]))


check_lower_ceiling = Exercise(
    "lower_ceiling",
    3,
    right=lambda rdms: float(np.mean(_against(rdms))),
    cases=(_subjects,),
    mistakes=(
        Mistake(
            "own-included",
            "the subject's own matrix is part of the average that it is compared with. That is "
            "the upper edge; for the lower one leave the subject out.",
            lambda rdms: float(np.mean(_against(rdms, own=True))),
        ),
        Mistake(
            "values-averaged",
            "the dissimilarities were averaged, so subjects with large values count more. "
            "Average the ranks of the others.",
            lambda rdms: float(np.mean(_against(rdms, ranked=False))),
        ),
        Mistake(
            "pairs-of-subjects",
            "this is the mean similarity of two subjects. A model could do better: compare each "
            "subject with the average of the others, which holds less noise.",
            _between_subjects,
        ),
        Mistake(
            "not-averaged",
            "this is one number per subject. Take their mean.",
            _against,
        ),
        Mistake(
            "pearson",
            "the last step uses Pearson's correlation. Use yours, Spearman's.",
            lambda rdms: float(np.mean(_against(rdms, same=_pearson))),
        ),
    ),
)


def _fits(layers: list[np.ndarray], brain: np.ndarray, rows: np.ndarray) -> np.ndarray:
    target = _upper(1 - np.corrcoef(brain[rows]))
    return np.array([_spearman(_upper(1 - np.corrcoef(x[rows])), target) for x in layers])


def _held_out(layers, brain, chooses) -> float:
    chosen = int(_fits(layers, brain, chooses).argmax())
    return float(_fits(layers, brain, ~chooses)[chosen])


def _composed(rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Draw layers of noise for which the halves choose differently."""
    while True:
        layers = [rng.standard_normal((14, 8)) for _ in range(6)]
        brain = rng.standard_normal((14, 10))
        chooses = rng.permutation(np.arange(14) < 7)
        halves = [_fits(layers, brain, rows) for rows in (chooses, ~chooses, chooses | True)]
        if len({int(fits.argmax()) for fits in halves}) == 3:
            return layers, brain, chooses


def _over_all(layers, brain, chooses) -> np.ndarray:
    return _fits(layers, brain, np.ones_like(chooses))


check_held_out = Exercise(
    "held_out",
    3,
    right=_held_out,
    cases=(_composed,),
    mistakes=(
        Mistake(
            "same-sounds",
            "the best layer is chosen and scored on the same sounds: nothing is held out.",
            lambda layers, brain, chooses: float(_fits(layers, brain, chooses).max()),
        ),
        Mistake(
            "chosen-on-test",
            "the best layer is chosen on the sounds that it is then scored on. Choose on the "
            "others.",
            lambda layers, brain, chooses: float(_fits(layers, brain, ~chooses).max()),
        ),
        Mistake(
            "all-sounds",
            "all sounds are used to choose and to score. Use chooses to divide them.",
            lambda layers, brain, chooses: float(_over_all(layers, brain, chooses).max()),
        ),
        Mistake(
            "chosen-on-all",
            "the layer is chosen on all sounds, the test sounds included. Choose on the half "
            "where chooses is True.",
            lambda layers, brain, chooses: float(
                _fits(layers, brain, ~chooses)[int(_over_all(layers, brain, chooses).argmax())]
            ),
        ),
        Mistake(
            "exchanged",
            "the halves are exchanged: choose where chooses is True, score where it is False.",
            lambda layers, brain, chooses: _held_out(layers, brain, ~chooses),
        ),
        Mistake(
            "layer",
            "this is the number of the chosen layer. Return its score on the other half.",
            lambda layers, brain, chooses: int(_fits(layers, brain, chooses).argmax()),
        ),
        Mistake(
            "not-chosen",
            "this is the mean over layers. Choose the best one on the one half.",
            lambda layers, brain, chooses: float(_fits(layers, brain, ~chooses).mean()),
        ),
    ),
)

check_optimism = Choice(
    "optimism",
    1,
    right="a",
    wrong={
        "b": "the layers are noise; there is no best one to find, with any number of sounds.",
        "c": "ranks are only compared; their scale cannot make one of many layers look good.",
        "d": "every layer alone is near 0. What is above 0 is the highest of them.",
    },
)
