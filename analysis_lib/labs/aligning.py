"""Checks of lab 5: align a network with a brain."""

import numpy as np

from .exercise import Choice, Exercise, Mistake

__all__ = [
    "check_best_step",
    "check_blocks",
    "check_delayed",
    "check_layer_gradient",
    "check_shifted",
    "check_transfer",
]


def _delayed(x: np.ndarray, n_taps: int) -> np.ndarray:
    copies = np.zeros((n_taps, *x.shape))
    for lag in range(n_taps):
        copies[lag, lag:] = x[: len(x) - lag]
    return copies


def _ahead(x: np.ndarray, n_taps: int) -> np.ndarray:
    return _delayed(x[::-1], n_taps)[:, ::-1]


check_delayed = Exercise(
    "delayed",
    3,
    right=_delayed,
    cases=(lambda rng: (rng.standard_normal((12, 3)), 4),),
    mistakes=(
        Mistake(
            "future",
            "the copies run ahead: volume t would be predicted from what is heard after it. A "
            "delay of j puts row t - j into row t.",
            _ahead,
        ),
        Mistake(
            "wrapped",
            "numpy.roll moves the end of the run to its beginning: the first volumes would know "
            "the last ones. Put zeros there.",
            lambda x, n_taps: np.array([np.roll(x, lag, axis=0) for lag in range(n_taps)]),
        ),
        Mistake(
            "starts-at-one",
            "the delays are 1 to n_taps. Begin with 0: the present is the first copy.",
            lambda x, n_taps: _delayed(x, n_taps + 1)[1:],
        ),
        Mistake(
            "reversed",
            "the order of the delays is turned round: the first copy is the one without delay.",
            lambda x, n_taps: _delayed(x, n_taps)[::-1],
        ),
        Mistake(
            "over-features",
            "the features are moved, not the time. Time is the first axis of x.",
            lambda x, n_taps: np.array([np.roll(x, lag, axis=1) for lag in range(n_taps)]),
        ),
        Mistake(
            "side-by-side",
            "the copies stand side by side as columns. Here each delay is a table of its own: "
            "shape (n_taps, n_volumes, n_features).",
            lambda x, n_taps: np.concatenate(list(_delayed(x, n_taps)), axis=1),
        ),
    ),
)


def _blocks(n: int, start: int, length: int, gap: int) -> tuple[np.ndarray, np.ndarray]:
    volumes = np.arange(n)
    test = volumes[start : start + length]
    return volumes[(volumes < start - gap) | (volumes >= start + length + gap)], test


def _no_gap(n: int, start: int, length: int, gap: int) -> tuple[np.ndarray, np.ndarray]:
    return _blocks(n, start, length, 0)


def _gap_before_only(n: int, start: int, length: int, gap: int) -> tuple[np.ndarray, np.ndarray]:
    volumes = np.arange(n)
    return volumes[(volumes < start - gap) | (volumes >= start + length)], volumes[
        start : start + length
    ]


def _gap_after_only(n: int, start: int, length: int, gap: int) -> tuple[np.ndarray, np.ndarray]:
    volumes = np.arange(n)
    return volumes[(volumes < start) | (volumes >= start + length + gap)], volumes[
        start : start + length
    ]


check_blocks = Exercise(
    "blocks",
    2,
    right=_blocks,
    cases=(lambda rng: (40, int(rng.integers(10, 16)), 9, 3),),
    mistakes=(
        Mistake(
            "no-gap",
            "training begins right beside the test block. The haemodynamic response and slow "
            "noise last several volumes, so neighbours share them: leave the gap out.",
            _no_gap,
        ),
        Mistake(
            "gap-before-only",
            "there is a gap before the test block, but none after it.",
            _gap_before_only,
        ),
        Mistake(
            "gap-after-only",
            "there is a gap after the test block, but none before it.",
            _gap_after_only,
        ),
        Mistake(
            "not-held-out",
            "the test volumes are in the training set too.",
            lambda n, start, length, gap: (np.arange(n), _blocks(n, start, length, gap)[1]),
        ),
        Mistake(
            "exchanged",
            "training and test are exchanged: first the volumes to train on.",
            lambda *inputs: _blocks(*inputs)[::-1],
        ),
        Mistake(
            "gap-tested",
            "the gap is part of the test block. It belongs to neither.",
            lambda n, start, length, gap: (
                _blocks(n, start, length, gap)[0],
                np.arange(start - gap, start + length + gap),
            ),
        ),
    ),
)


def _small_model(rng: np.random.Generator) -> tuple:
    layer, head = rng.standard_normal((5, 5)), rng.standard_normal((3, 5, 5))
    x, y = rng.standard_normal((14, 5)), rng.standard_normal((14, 5))
    return layer, head, _delayed(x, 3), y


def _error(layer, head, delayed, y) -> np.ndarray:
    return np.einsum("jtf,fu,juv->tv", delayed, layer, head) - y


def _layer_gradient(layer, head, delayed, y) -> np.ndarray:
    error = _error(layer, head, delayed, y)
    return 2 * np.einsum("jtf,tv,juv->fu", delayed, error, head) / error.size


check_layer_gradient = Exercise(
    "layer_gradient",
    4,
    right=_layer_gradient,
    cases=(_small_model,),
    mistakes=(
        Mistake(
            "sign",
            "the sign is turned round. The error is prediction minus measurement.",
            lambda *inputs: -_layer_gradient(*inputs),
        ),
        Mistake(
            "no-two",
            "a factor of 2 is missing: the derivative of a square.",
            lambda *inputs: _layer_gradient(*inputs) / 2,
        ),
        Mistake(
            "sum",
            "this is the gradient of the sum of squares. The loss is their mean: divide by the "
            "number of entries of y.",
            lambda *inputs: _layer_gradient(*inputs) * inputs[3].size,
        ),
        Mistake(
            "divided-by-time",
            "you divide by the number of volumes. The mean runs over volumes and targets.",
            lambda *inputs: _layer_gradient(*inputs) * inputs[3].shape[1],
        ),
        Mistake(
            "no-delay",
            "only the copy without delay is used. Every delay contributes: sum over them.",
            lambda layer, head, delayed, y: (
                2 * delayed[0].T @ _error(layer, head, delayed, y) @ head[0].T / y.size
            ),
        ),
        Mistake(
            "transposed",
            "the gradient is transposed: it has the shape of the layer, inputs in rows.",
            lambda *inputs: _layer_gradient(*inputs).T,
        ),
    ),
)


def _losses(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Draw a validation loss that wavers, sinks, rises for long, and dips lower near the end."""
    training = np.sort(rng.uniform(0.1, 1, 24))[::-1].copy()
    validation = np.r_[
        np.linspace(1.0, 0.6, 6), 0.65, 0.55, 0.5, np.linspace(0.52, 0.9, 12), 0.45, 0.44, 0.46
    ]
    return training, validation + rng.uniform(0, 0.005, 24), 5


def _best_step(training: np.ndarray, validation: np.ndarray, patience: int) -> int:
    best = 0
    for step, loss in enumerate(validation):
        if loss < validation[best]:
            best = step
        if step - best >= patience:
            break
    return best


def _stopping_step(training: np.ndarray, validation: np.ndarray, patience: int) -> int:
    return _best_step(training, validation, patience) + patience


def _first_rise(training: np.ndarray, validation: np.ndarray, patience: int) -> int:
    return int(np.flatnonzero(np.diff(validation) > 0)[0])


check_best_step = Exercise(
    "best_step",
    2,
    right=_best_step,
    cases=(_losses,),
    mistakes=(
        Mistake(
            "training-loss",
            "this is the lowest training loss, which falls until the model knows the training "
            "data by heart. Decide by the validation loss.",
            lambda training, validation, patience: int(training.argmin()),
        ),
        Mistake(
            "no-patience",
            "this is the lowest loss of all, beyond the point where training would have "
            "stopped. After `patience` steps without a new best nobody looks any further.",
            lambda training, validation, patience: int(validation.argmin()),
        ),
        Mistake(
            "first-rise",
            "training stops at the first rise here. Losses are noisy: wait for `patience` steps.",
            _first_rise,
        ),
        Mistake(
            "stopping-step",
            "this is the step at which training stops. Go back to the best one before it.",
            _stopping_step,
        ),
        Mistake(
            "loss",
            "this is the loss. Return the number of the step.",
            lambda *inputs: float(inputs[1][_best_step(*inputs)]),
        ),
    ),
)


check_shifted = Exercise(
    "shifted",
    2,
    right=lambda y, by: np.roll(y, by, axis=0),
    cases=(lambda rng: (rng.standard_normal((11, 11)), int(rng.integers(2, 5))),),
    mistakes=(
        Mistake(
            "over-targets",
            "targets are moved, not time. Time is the first axis.",
            lambda y, by: np.roll(y, by, axis=1),
        ),
        Mistake(
            "backwards",
            "this moves the responses the other way: row t should go to row t + by.",
            lambda y, by: np.roll(y, -by, axis=0),
        ),
        Mistake(
            "zeros",
            "what leaves at the end is lost and zeros come in. Let it enter at the beginning, so "
            "that the numbers stay the same ones.",
            lambda y, by: _delayed(y, by + 1)[by],
        ),
        Mistake(
            "flattened",
            "without axis=0 numpy.roll treats the table as one long row.",
            lambda y, by: np.roll(y, by),
        ),
    ),
)

check_transfer = Choice(
    "transfer",
    1,
    right="b",
    wrong={
        "a": "the aligned network has also seen more data and more steps. Something must have "
        "had the same, but not this brain.",
        "c": "the score on the brain says that alignment worked, not what it did for the task.",
        "d": "a network from elsewhere differs in everything.",
    },
)
