"""Checks of lab 2: build an encoding model and find its ceiling."""

from itertools import combinations

import numpy as np

from .exercise import Choice, Exercise, Mistake

__all__ = [
    "check_alpha",
    "check_ceiling",
    "check_cross_validated",
    "check_inflated",
    "check_ridge",
    "check_score",
    "check_split",
]

N_FOLDS = 4


def _folds(rng: np.random.Generator, n_sounds: int = 16) -> np.ndarray:
    return rng.permutation(np.arange(n_sounds) % N_FOLDS)


check_split = Exercise(
    "split",
    1,
    right=lambda folds, fold: (np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)),
    cases=(lambda rng: (_folds(rng), int(rng.integers(N_FOLDS))),),
    mistakes=(
        Mistake(
            "exchanged",
            "training and test are exchanged: the named fold is the one to test on.",
            lambda folds, fold: (np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)),
        ),
        Mistake(
            "not-held-out",
            "all sounds are in the training set, the test sounds too: nothing is held out.",
            lambda folds, fold: (np.arange(len(folds)), np.flatnonzero(folds == fold)),
        ),
        Mistake(
            "masks",
            "these are masks of True and False. Row numbers are wanted: numpy.flatnonzero.",
            lambda folds, fold: (folds != fold, folds == fold),
        ),
    ),
)


def _regression(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    # As many test as training sounds, units and targets: a slip gives numbers, not an error.
    x, y = rng.normal(2.0, 1.0, (6, 6)), rng.normal(5.0, 1.0, (6, 6))
    return x, y, rng.normal(2.3, 1.0, (6, 6)), float(rng.uniform(0.5, 3))


def _wide(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    x, y = rng.normal(2.0, 1.0, (7, 15)), rng.normal(5.0, 1.0, (7, 3))
    return x, y, rng.normal(2.3, 1.0, (4, 15)), float(rng.uniform(0.5, 3))


def _fit(x: np.ndarray, y: np.ndarray, penalty: float | np.ndarray) -> np.ndarray:
    gram = x @ x.T + penalty * np.eye(len(x))
    return x.T @ np.linalg.lstsq(gram, y, rcond=None)[0]


def _ridge(x_train, y_train, x_test, alpha):
    x_mean, y_mean = x_train.mean(axis=0), y_train.mean(axis=0)
    return (x_test - x_mean) @ _fit(x_train - x_mean, y_train - y_mean, alpha) + y_mean


def _ridge_pooled_mean(x_train, y_train, x_test, alpha):
    x_mean, y_mean = np.concatenate([x_train, x_test]).mean(axis=0), y_train.mean(axis=0)
    return (x_test - x_mean) @ _fit(x_train - x_mean, y_train - y_mean, alpha) + y_mean


def _ridge_own_mean(x_train, y_train, x_test, alpha):
    x_mean, y_mean = x_train.mean(axis=0), y_train.mean(axis=0)
    return (x_test - x_test.mean(axis=0)) @ _fit(x_train - x_mean, y_train - y_mean, alpha) + y_mean


def _ridge_mean_not_added(x_train, y_train, x_test, alpha):
    return _ridge(x_train, y_train, x_test, alpha) - y_train.mean(axis=0)


def _ridge_weights(x_train, y_train, x_test, alpha):
    return _fit(x_train - x_train.mean(axis=0), y_train - y_train.mean(axis=0), alpha)


check_ridge = Exercise(
    "ridge",
    4,
    right=_ridge,
    cases=(_regression, _wide),
    mistakes=(
        Mistake(
            "not-centred",
            "you forgot to centre: the penalty now also pulls the mean response towards 0. "
            "Subtract the training means of x and y, and add that of y to the prediction.",
            lambda x_train, y_train, x_test, alpha: x_test @ _fit(x_train, y_train, alpha),
        ),
        Mistake(
            "mean-not-added",
            "the predictions are around 0: the mean response is missing. Add that of the training "
            "sounds.",
            _ridge_mean_not_added,
        ),
        Mistake(
            "test-sounds-in-the-mean",
            "the mean of the features is taken over training and test sounds. The test sounds "
            "must not enter the model, not even through a mean.",
            _ridge_pooled_mean,
        ),
        Mistake(
            "test-own-mean",
            "the test sounds are centred on their own mean. Use the training mean: the model "
            "must treat one sound alike whatever it is tested with.",
            _ridge_own_mean,
        ),
        Mistake(
            "no-penalty",
            "alpha does nothing here: this is ordinary least squares. Add alpha to the diagonal.",
            lambda x_train, y_train, x_test, alpha: _ridge(x_train, y_train, x_test, 0.0),
        ),
        Mistake(
            "penalty-everywhere",
            "alpha was added to every entry of the matrix. It belongs on the diagonal: "
            "alpha * numpy.eye(n).",
            lambda x_train, y_train, x_test, alpha: _everywhere(x_train, y_train, x_test, alpha),
        ),
        Mistake(
            "penalty-times-n",
            "the penalty is multiplied by the number of sounds. In our formula it is not.",
            lambda x_train, y_train, x_test, alpha: _ridge(
                x_train, y_train, x_test, alpha * len(x_train)
            ),
        ),
        Mistake(
            "weights",
            "these are the weights. Predict the responses to the test sounds with them.",
            _ridge_weights,
        ),
        Mistake(
            "predicts-training",
            "these are predictions for the training sounds. Predict the test sounds.",
            lambda x_train, y_train, x_test, alpha: _ridge(x_train, y_train, x_train, alpha),
        ),
        Mistake(
            "transposed",
            "rows are targets here. We want a row per sound.",
            lambda *inputs: _ridge(*inputs).T,
        ),
    ),
)


def _everywhere(x_train, y_train, x_test, alpha):
    x_mean, y_mean = x_train.mean(axis=0), y_train.mean(axis=0)
    x, y = x_train - x_mean, y_train - y_mean
    weights = np.linalg.lstsq(x.T @ x + alpha, x.T @ y, rcond=None)[0]
    return (x_test - x_mean) @ weights + y_mean


def _correlation(a: np.ndarray, b: np.ndarray, axis: int | None = 0) -> np.ndarray:
    a, b = a - a.mean(axis=axis, keepdims=True), b - b.mean(axis=axis, keepdims=True)
    return (a * b).sum(axis=axis) / np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))


def _predictions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    measured = rng.normal(1.0, 1.0, (8, 8))
    predicted = measured + rng.normal(0, 1.5, (8, 8))
    predicted[:, 2] = -predicted[:, 2]  # worse than none
    return measured, predicted


def _determination(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    residual = ((measured - predicted) ** 2).sum(axis=0)
    return 1 - residual / ((measured - measured.mean(axis=0)) ** 2).sum(axis=0)


check_score = Exercise(
    "score",
    2,
    right=lambda measured, predicted: _correlation(measured, predicted).clip(min=0) ** 2,
    cases=(_predictions,),
    mistakes=(
        Mistake(
            "negative-counted",
            "a prediction that is wrong way round gets a high score, because the square forgets "
            "the sign. Set negative correlations to 0 before squaring.",
            lambda measured, predicted: _correlation(measured, predicted) ** 2,
        ),
        Mistake(
            "not-squared",
            "these are correlations. Square them (negative ones count as 0).",
            lambda measured, predicted: _correlation(measured, predicted),
        ),
        Mistake(
            "clipped-not-squared",
            "these are correlations, negative ones set to 0. The square is missing.",
            lambda measured, predicted: _correlation(measured, predicted).clip(min=0),
        ),
        Mistake(
            "wrong-axis",
            "this is one score per sound. We want one per target: correlate over sounds, axis 0.",
            lambda measured, predicted: _correlation(measured, predicted, axis=1).clip(min=0) ** 2,
        ),
        Mistake(
            "pooled",
            "this is one correlation over everything. Each target has its own.",
            lambda measured, predicted: float(
                _correlation(measured, predicted, axis=None).clip(min=0) ** 2
            ),
        ),
        Mistake(
            "determination",
            "this is the coefficient of determination, 1 - residual / variance. It also punishes "
            "a wrong scale; the book's score is the squared correlation.",
            _determination,
        ),
    ),
)


def _study(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    x = rng.normal(2.0, 1.0, (16, 5))
    y = x @ rng.standard_normal((5, 3)) + rng.normal(4.0, 1.0, (16, 3))
    return x, y, _folds(rng), float(rng.uniform(0.5, 3))


def _out_of_fold(x, y, folds, alpha, fit=_ridge) -> np.ndarray:
    predicted = np.empty_like(y)
    for fold in np.unique(folds):
        test = folds == fold
        predicted[test] = fit(x[~test], y[~test], x[test], alpha)
    return predicted


def _trained_on_the_test_fold(x, y, folds, alpha) -> np.ndarray:
    predicted = np.empty_like(y)
    for fold in np.unique(folds):
        test = folds == fold
        predicted[test] = _ridge(x[test], y[test], x[test], alpha)
    return predicted


def _in_fold_order(x, y, folds, alpha) -> np.ndarray:
    return _out_of_fold(x, y, folds, alpha)[np.argsort(folds, kind="stable")]


def _last_fold_only(x, y, folds, alpha) -> np.ndarray:
    predicted = np.zeros_like(y)
    test = folds == np.unique(folds)[-1]
    predicted[test] = _ridge(x[~test], y[~test], x[test], alpha)
    return predicted


check_cross_validated = Exercise(
    "cross_validated",
    3,
    right=_out_of_fold,
    cases=(_study,),
    mistakes=(
        Mistake(
            "not-held-out",
            "the model was fitted on all sounds and then predicts the same ones. Nothing is held "
            "out: with enough units this score is perfect for any responses, noise included.",
            lambda x, y, folds, alpha: _ridge(x, y, x, alpha),
        ),
        Mistake(
            "trained-on-test",
            "each fold is predicted by a model that was trained on that fold. Train on the others.",
            _trained_on_the_test_fold,
        ),
        Mistake(
            "centred-on-all",
            "the features were centred with all sounds before the folds were made, so the test "
            "sounds take part in training. Let your function ridge do the centring, inside the "
            "loop.",
            lambda x, y, folds, alpha: _out_of_fold(x, y, folds, alpha, _shifted(x, y)),
        ),
        Mistake(
            "in-fold-order",
            "the predictions of the folds follow one another, so row k is not sound k any more. "
            "Write each fold's predictions to its own rows.",
            _in_fold_order,
        ),
        Mistake(
            "one-fold",
            "only one fold is predicted. Go through all of them.",
            _last_fold_only,
        ),
    ),
)


def _shifted(x: np.ndarray, y: np.ndarray):
    """Ridge that takes its means from the whole data set."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)

    def fit(x_train, y_train, x_test, alpha):
        return (x_test - x_mean) @ _fit(x_train - x_mean, y_train - y_mean, alpha) + y_mean

    return fit


def _mean_scores(x, y, folds, alphas) -> np.ndarray:
    return np.array(
        [
            np.mean(_correlation(y, _out_of_fold(x, y, folds, alpha)).clip(min=0) ** 2)
            for alpha in alphas
        ]
    )


def _alpha(x, y, folds, fold, alphas) -> float:
    train = folds != fold
    scores = _mean_scores(x[train], y[train], folds[train], alphas)
    return alphas[int(scores.argmax())]


def _alpha_on_all(x, y, folds, fold, alphas) -> float:
    return alphas[int(_mean_scores(x, y, folds, alphas).argmax())]


def _alpha_on_test(x, y, folds, fold, alphas) -> float:
    test = folds == fold
    predictions = [_ridge(x[~test], y[~test], x[test], alpha) for alpha in alphas]
    scores = [np.mean(_correlation(y[test], p).clip(min=0) ** 2) for p in predictions]
    return alphas[int(np.argmax(scores))]


def _alpha_in_sample(x, y, folds, fold, alphas) -> float:
    train = folds != fold
    x, y = x[train], y[train]
    scores = [np.mean(_correlation(y, _ridge(x, y, x, alpha)).clip(min=0) ** 2) for alpha in alphas]
    return alphas[int(np.argmax(scores))]


def _tuned(rng: np.random.Generator) -> tuple:
    """Draw data on which every way to choose the penalty chooses another one."""
    alphas = [0.01, 0.3, 3.5, 30.5, 300.5, 3000.5]
    while True:
        x = rng.standard_normal((24, 10))
        y = x @ rng.standard_normal((10, 2)) + rng.normal(0, 3, (24, 2))
        inputs = x, y, _folds(rng, 24), int(rng.integers(N_FOLDS)), alphas
        ways = (_alpha, _alpha_on_all, _alpha_on_test, _alpha_in_sample)
        chosen = [way(*inputs) for way in ways]
        worst = alphas[int(_mean_scores(*_training(*inputs[:4]), alphas).argmin())]
        if len({*chosen, worst}) == len(ways) + 1:
            return inputs


def _training(x, y, folds, fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    train = folds != fold
    return x[train], y[train], folds[train]


check_alpha = Exercise(
    "alpha",
    3,
    right=_alpha,
    cases=(_tuned,),
    mistakes=(
        Mistake(
            "chosen-on-test",
            "alpha is chosen by its score on the test fold. That fold is then no longer held "
            "out: choose by cross-validation inside the training sounds.",
            _alpha_on_test,
        ),
        Mistake(
            "test-sounds-included",
            "the cross-validation that chooses alpha runs over all sounds, those of the test "
            "fold included. Leave them out before it starts.",
            _alpha_on_all,
        ),
        Mistake(
            "in-sample",
            "alpha is chosen by how well the training sounds are fitted. The smallest penalty "
            "always wins that; use predictions for sounds left out.",
            _alpha_in_sample,
        ),
        Mistake(
            "worst",
            "this is the penalty with the lowest score: argmin instead of argmax.",
            lambda x, y, folds, fold, alphas: alphas[
                int(_mean_scores(*_training(x, y, folds, fold), alphas).argmin())
            ],
        ),
        Mistake(
            "position",
            "this is the position in the list. Return the penalty itself.",
            lambda *inputs: inputs[-1].index(_alpha(*inputs)),
        ),
    ),
)


def _repeated(rng: np.random.Generator) -> tuple[np.ndarray]:
    signal = rng.standard_normal((40, 5, 1))
    return (signal + rng.standard_normal((40, 5, 4)),)


def _unreliable(rng: np.random.Generator) -> tuple[np.ndarray]:
    (values,) = _repeated(rng)
    values[:, 0] = rng.standard_normal((40, 1)) * np.array([1.0, -1.0, 1.0, -1.0])
    values[:, 0] += 0.5 * rng.standard_normal((40, 4))
    return (values,)


def _between_repetitions(values: np.ndarray) -> np.ndarray:
    pairs = combinations(range(values.shape[2]), 2)
    return np.array([_correlation(values[..., i], values[..., j]) for i, j in pairs])


def _spearman_brown(r: np.ndarray, n: int) -> np.ndarray:
    return n * r / (1 + (n - 1) * r)


def _median_reliability(values: np.ndarray) -> np.ndarray:
    return np.median(_between_repetitions(values), axis=0)


def _with_itself(values: np.ndarray) -> np.ndarray:
    n = values.shape[2]
    pairs = [_correlation(values[..., i], values[..., j]) for i in range(n) for j in range(n)]
    return _spearman_brown(np.median(pairs, axis=0).clip(min=0), n)


check_ceiling = Exercise(
    "ceiling",
    3,
    right=lambda values: _spearman_brown(_median_reliability(values).clip(min=0), values.shape[2]),
    cases=(_repeated, _unreliable),
    mistakes=(
        Mistake(
            "single-repetition",
            "this is the reliability of one repetition. The scores use the mean of all, which is "
            "more reliable: step it up by the formula of Spearman and Brown.",
            lambda values: _median_reliability(values).clip(min=0),
        ),
        Mistake(
            "stepped-up-by-two",
            "the formula is used with n = 2. There are as many repetitions as the last axis is "
            "long.",
            lambda values: _spearman_brown(_median_reliability(values).clip(min=0), 2),
        ),
        Mistake(
            "root",
            "this is the root: the highest correlation. The score is a squared correlation, and "
            "so is its ceiling.",
            lambda values: np.sqrt(
                _spearman_brown(_median_reliability(values).clip(min=0), values.shape[2])
            ),
        ),
        Mistake(
            "squared",
            "this is squared once too often. A reliability is already a proportion of variance.",
            lambda values: (
                _spearman_brown(_median_reliability(values).clip(min=0), values.shape[2]) ** 2
            ),
        ),
        Mistake(
            "with-itself",
            "repetitions are also correlated with themselves, which is always 1. Use pairs of "
            "different repetitions.",
            _with_itself,
        ),
        Mistake(
            "mean-over-pairs",
            "this is the mean over pairs of repetitions. The book takes the median.",
            lambda values: _spearman_brown(
                _between_repetitions(values).mean(axis=0).clip(min=0), values.shape[2]
            ),
        ),
        Mistake(
            "negative",
            "where repetitions disagree the ceiling is negative. No model can explain less than "
            "nothing: set negative reliabilities to 0 first.",
            lambda values: _spearman_brown(_median_reliability(values), values.shape[2]),
        ),
    ),
)

check_inflated = Choice(
    "inflated",
    1,
    right="b",
    wrong={
        "a": "a penalty makes the fit to the training sounds worse, not better.",
        "c": "noise lowers what can be predicted; it does not raise a score above its ceiling.",
        "d": "the same sounds are correlated either way.",
    },
)
