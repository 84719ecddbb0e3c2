"""Checks of lab 4: what training does to a network, and how to tell."""

from itertools import product

import numpy as np

from .exercise import Choice, Exercise, Mistake

__all__ = [
    "check_control",
    "check_cross_entropy",
    "check_explained_share",
    "check_gradients",
    "check_paired",
    "check_sign_flips",
    "check_softmax",
]


def _softmax(logits: np.ndarray, axis: int | None = 1) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


check_softmax = Exercise(
    "softmax",
    2,
    right=_softmax,
    cases=(
        lambda rng: (rng.normal(0, 1, (5, 5)),),
        lambda rng: (rng.normal(900, 300, (5, 5)),),
    ),
    mistakes=(
        Mistake(
            "wrong-axis",
            "the columns sum to 1. Each row is a sound: its probabilities over classes should.",
            lambda logits: _softmax(logits, axis=0),
        ),
        Mistake(
            "whole-table",
            "everything together sums to 1. Each row should.",
            lambda logits: _softmax(logits, axis=None),
        ),
        Mistake(
            "not-normalised",
            "these do not sum to 1. Divide each row by its sum.",
            lambda logits: np.exp(logits),
        ),
        Mistake(
            "overflow",
            "large inputs give NaN: exp(1000) is more than a float can hold. Subtract each row's "
            "maximum first; the result does not change.",
            lambda logits: np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        ),
        Mistake(
            "no-exponential",
            "each row is divided by its sum, but not exponentiated before.",
            lambda logits: logits / logits.sum(axis=1, keepdims=True),
        ),
    ),
)


def _guesses(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _softmax(rng.normal(0, 1, (7, 7))), rng.permutation(7)


def _true_class(probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return probabilities[np.arange(len(classes)), classes]


check_cross_entropy = Exercise(
    "cross_entropy",
    2,
    right=lambda p, classes: float(-np.log(_true_class(p, classes)).mean()),
    cases=(_guesses,),
    mistakes=(
        Mistake(
            "sign",
            "the sign is missing: a logarithm of a probability is negative, a loss is not.",
            lambda p, classes: float(np.log(_true_class(p, classes)).mean()),
        ),
        Mistake(
            "sum",
            "this is the sum over sounds. Take the mean, or the step size would have to change "
            "with the number of sounds.",
            lambda p, classes: float(-np.log(_true_class(p, classes)).sum()),
        ),
        Mistake(
            "all-classes",
            "the logarithms of all probabilities are averaged. Only that of the true class "
            "counts: p[numpy.arange(n), classes].",
            lambda p, classes: float(-np.log(p).mean()),
        ),
        Mistake(
            "columns",
            "p[:, classes] takes whole columns. One entry per row: p[numpy.arange(n), classes].",
            lambda p, classes: float(-np.log(p[:, classes]).mean(axis=0)[0]),
        ),
        Mistake(
            "no-logarithm",
            "the logarithm is missing.",
            lambda p, classes: float(-_true_class(p, classes).mean()),
        ),
        Mistake(
            "not-averaged",
            "this is one loss per sound. Take the mean.",
            lambda p, classes: -np.log(_true_class(p, classes)),
        ),
    ),
)


def _network(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, classes = rng.standard_normal((12, 6)), rng.integers(0, 6, 12)
    return rng.standard_normal((6, 6)), rng.standard_normal((6, 6)), x, classes


def _gradients(w1, w2, x, classes, gated=True, target=1.0, divided=True):
    hidden = np.maximum(x @ w1, 0)
    error = _softmax(hidden @ w2)
    error[np.arange(len(x)), classes] -= target
    error /= len(x) if divided else 1
    back = error @ w2.T
    if gated:
        back = back * (hidden > 0)
    return x.T @ back, hidden.T @ error


check_gradients = Exercise(
    "gradients",
    4,
    right=_gradients,
    cases=(_network,),
    mistakes=(
        Mistake(
            "no-gate",
            "the error goes back through units that were silent. Where hidden is 0, a small "
            "change of the weights changes nothing: multiply by (hidden > 0).",
            lambda *inputs: _gradients(*inputs, gated=False),
        ),
        Mistake(
            "target-missing",
            "the error is the probability minus 1 for the true class; the minus 1 is missing.",
            lambda *inputs: _gradients(*inputs, target=0.0),
        ),
        Mistake(
            "sum",
            "these are the gradients of the sum over sounds. The loss is a mean: divide by n.",
            lambda *inputs: _gradients(*inputs, divided=False),
        ),
        Mistake(
            "sign",
            "the signs are turned round. The gradient points uphill; the step goes against it.",
            lambda *inputs: tuple(-gradient for gradient in _gradients(*inputs)),
        ),
        Mistake(
            "exchanged",
            "the two gradients are exchanged: first that of w1, then that of w2.",
            lambda *inputs: _gradients(*inputs)[::-1],
        ),
        Mistake(
            "transposed",
            "the gradients are transposed: each has the shape of its weights, inputs in rows.",
            lambda *inputs: tuple(gradient.T for gradient in _gradients(*inputs)),
        ),
    ),
)


def _runs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    subject = rng.normal(0.4, 0.2, 6)
    untrained = subject[None] + rng.normal(0, 0.05, (3, 6))
    return untrained + rng.normal(0.05, 0.05, (3, 6)), untrained


check_paired = Exercise(
    "paired",
    2,
    right=lambda trained, untrained: (trained - untrained).mean(axis=0),
    cases=(_runs,),
    mistakes=(
        Mistake(
            "per-seed",
            "this is one difference per network. The question is whether it holds for people: "
            "one difference per listener, averaged over networks.",
            lambda trained, untrained: (trained - untrained).mean(axis=1),
        ),
        Mistake(
            "one-number",
            "this is the mean difference. Keep one per listener, or there is no telling how "
            "certain it is.",
            lambda trained, untrained: float((trained - untrained).mean()),
        ),
        Mistake(
            "sign",
            "the sign is turned round: trained minus untrained.",
            lambda trained, untrained: (untrained - trained).mean(axis=0),
        ),
        Mistake(
            "best-network",
            "this takes the best of the trained networks against the mean of the others. The "
            "best of several is higher by chance alone; take the mean of both.",
            lambda trained, untrained: trained.max(axis=0) - untrained.mean(axis=0),
        ),
        Mistake(
            "ratio",
            "these are ratios. They blow up where the untrained score is near 0; use differences.",
            lambda trained, untrained: (trained / untrained).mean(axis=0),
        ),
        Mistake(
            "not-averaged",
            "this still has a row per network. Average over them.",
            lambda trained, untrained: trained - untrained,
        ),
    ),
)


def _flipped_means(differences: np.ndarray) -> np.ndarray:
    signs = np.array(list(product([1, -1], repeat=len(differences))))
    return signs @ differences / len(differences)


def _sign_flips(differences: np.ndarray) -> float:
    return float((_flipped_means(differences) >= differences.mean() - 1e-12).mean())


def _gains(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (np.r_[rng.uniform(-0.8, -0.2, 2), rng.uniform(0.1, 2.0, 5)],)


def _all_gain(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.uniform(0.5, 1.0, 6),)


check_sign_flips = Exercise(
    "sign_flips",
    3,
    right=_sign_flips,
    cases=(_gains, _all_gain),
    mistakes=(
        Mistake(
            "strictly-greater",
            "the observed signs are one of the possible assignments and count too: use >=. "
            "(Allow for rounding: >= observed - 1e-12.)",
            lambda d: float((_flipped_means(d) > d.mean() + 1e-12).mean()),
        ),
        Mistake(
            "two-sided",
            "this counts assignments that are as far from 0 on either side. We ask for a gain: "
            "one side.",
            lambda d: float((np.abs(_flipped_means(d)) >= abs(d.mean()) - 1e-12).mean()),
        ),
        Mistake(
            "other-side",
            "this counts assignments that are as low. Count those that are as high.",
            lambda d: float((_flipped_means(d) <= d.mean() + 1e-12).mean()),
        ),
        Mistake(
            "all-means",
            "these are the means under all assignments. Which share of them is at least the "
            "observed one?",
            _flipped_means,
        ),
        Mistake(
            "count",
            "this is a number of assignments. Divide by how many there are.",
            lambda d: int((_flipped_means(d) >= d.mean() - 1e-12).sum()),
        ),
    ),
)


def _scored(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    ceiling = rng.uniform(0.3, 0.9, 8)
    ceiling[[1, 4]] = 0.0, 0.05
    return ceiling * rng.uniform(0.2, 0.9, 8), ceiling, 0.1


def _share(score: np.ndarray, ceiling: np.ndarray, least: float) -> float:
    kept = ceiling >= least
    return float(np.median(score[kept] / ceiling[kept]))


check_explained_share = Exercise(
    "explained_share",
    2,
    right=_share,
    cases=(_scored,),
    mistakes=(
        Mistake(
            "all-voxels",
            "voxels without a reliable response are in it. Divided by a ceiling near 0, noise "
            "becomes a large number: keep those whose ceiling is at least `least`.",
            lambda score, ceiling, least: float(np.median(score / ceiling)),
        ),
        Mistake(
            "not-divided",
            "this is the median score. Divide each voxel's by its ceiling.",
            lambda score, ceiling, least: float(np.median(score[ceiling >= least])),
        ),
        Mistake(
            "ratio-of-medians",
            "this is the ratio of two medians. Divide voxel by voxel, then take the median.",
            lambda score, ceiling, least: float(
                np.median(score[ceiling >= least]) / np.median(ceiling[ceiling >= least])
            ),
        ),
        Mistake(
            "mean",
            "this is the mean over voxels. Take the median, as the book does.",
            lambda score, ceiling, least: float(
                np.mean(score[ceiling >= least] / ceiling[ceiling >= least])
            ),
        ),
        Mistake(
            "difference",
            "this is the distance from the ceiling. We want the share of it that is reached.",
            lambda score, ceiling, least: float(np.median((ceiling - score)[ceiling >= least])),
        ),
    ),
)

check_control = Choice(
    "control",
    1,
    right="d",
    wrong={
        "a": "a spectrogram has no layers and no non-linearity: it differs in more than training.",
        "b": "another architecture differs in more than training, too.",
        "c": "shuffled responses show that a score is above chance. An untrained network can be "
        "above chance as well.",
    },
)
