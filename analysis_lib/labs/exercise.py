"""What an exercise is: a right answer, the wrong ones that are worth a word, and how to tell.

A function that a student wrote is called with fresh random inputs and its results are compared
with those of the right answer. Where they differ they are compared with what each known mistake
would have given, so that the message says what was done rather than that it was wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import BrainbookError

__all__ = ["Choice", "Exercise", "Mistake", "Passed", "WrongAnswer"]

N_DRAWS = 2  # of every kind of input; one wrong result is enough to fail
RELATIVE, ABSOLUTE = 1e-5, 1e-7  # differences that the order of summation may make


class WrongAnswer(BrainbookError):
    """An answer that does not pass its check.

    Parameters
    ----------
    exercise : str
        Name of the exercise.
    mistake : str
        Name of the mistake, such as ``"transposed"`` or ``"not-done"``.
    message : str
        For the student: what was done, and what to think about.
    """

    def __init__(self, exercise: str, mistake: str, message: str):
        self.exercise, self.mistake = exercise, mistake
        super().__init__(message)

    def _render_traceback_(self) -> list[str]:
        """Let a notebook show the message alone, without the way through this module."""
        return [f"Exercise {self.exercise}, not yet: {self}"]


@dataclass(frozen=True)
class Passed:
    """What a check gives back when there is nothing to say against the answer.

    Examples
    --------
    >>> from analysis_lib import labs
    >>> labs.Passed("rdm", 3)
    Exercise rdm: right (3 points)
    """

    exercise: str
    points: int

    def __repr__(self) -> str:
        unit = "point" if self.points == 1 else "points"
        return f"Exercise {self.exercise}: right ({self.points} {unit})"

    def _ipython_display_(self) -> None:
        """Show the words; nbgrader takes a cell's *result* for a number of points."""
        from IPython.display import display

        display({"text/plain": repr(self)}, raw=True)


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that can be recognised.

    Attributes
    ----------
    name : str
        Unique within the exercise.
    message : str
        For the student who made it.
    gives : callable
        What a function with this mistake computes from the exercise's inputs.

    Examples
    --------
    >>> from analysis_lib import labs
    >>> labs.check_rdm.mistakes[0].name
    'similarity'
    """

    name: str
    message: str
    gives: Callable


@dataclass(frozen=True)
class Exercise:
    """A function to write, and the check of it.

    Attributes
    ----------
    name : str
        Of the exercise.
    points : int
        What it is worth.
    right : callable
        The right answer.
    cases : tuple of callable
        Each draws one set of arguments from a ``numpy.random.Generator``: ordinary inputs, and
        the corners where answers part.
    mistakes : tuple of Mistake
        Looked for in this order.

    Examples
    --------
    >>> import numpy as np
    >>> from analysis_lib import labs
    >>> labs.check_rdm(lambda x: 1 - np.corrcoef(x))
    Exercise rdm: right (3 points)
    >>> labs.check_rdm(lambda x: np.corrcoef(x))
    Traceback (most recent call last):
        ...
    analysis_lib.labs.exercise.WrongAnswer: these are correlations: high where sounds are alike. ...
    """

    name: str
    points: int
    right: Callable
    cases: tuple[Callable[[np.random.Generator], tuple], ...]
    mistakes: tuple[Mistake, ...] = ()

    def __call__(self, answer: Callable, seed: int | None = None) -> Passed:
        """Check an answer with fresh inputs.

        Parameters
        ----------
        answer : callable
            The student's function.
        seed : int, optional
            Of the inputs; by default other ones every time.

        Returns
        -------
        Passed

        Raises
        ------
        WrongAnswer
            With a message for the student.
        """
        if answer is None or answer is ...:
            raise self._wrong("not-done", "there is no answer yet.")
        if not callable(answer):
            raise self._wrong(
                "not-a-function",
                f"give the check your function, not what it returns ({type(answer).__name__}): "
                "its name without brackets.",
            )
        rng = np.random.default_rng(seed)
        for case in self.cases:
            for _ in range(N_DRAWS):
                self._compare(answer, case(rng))
        return Passed(self.name, self.points)

    def _compare(self, answer: Callable, inputs: tuple) -> None:
        given = _copied(inputs)
        try:
            result = answer(*given)
        except NotImplementedError:
            raise self._wrong("not-done", "the function is not written yet.") from None
        except Exception as error:
            raise self._wrong(
                "raises",
                f"your function stopped with {type(error).__name__}: {error}. "
                f"It was called with {_shapes(inputs)}.",
            ) from error
        if result is None:
            raise self._wrong(
                "nothing-returned", "the function returns nothing. Is there a return?"
            )
        expected = self.right(*_copied(inputs))
        if _same(result, expected):
            if not all(_same(now, before) for now, before in zip(given, inputs, strict=True)):
                raise self._wrong(
                    "changed-input",
                    "the result is right, but the function changes the array that it was given, "
                    "so everybody after you works with other numbers. Work on a copy.",
                )
            return
        for mistake in self.mistakes:
            with np.errstate(all="ignore"):
                wrong = mistake.gives(*_copied(inputs))
            if _same(result, wrong):
                raise self._wrong(mistake.name, mistake.message)
        raise self._wrong(*_difference(result, expected, inputs))

    def _wrong(self, mistake: str, message: str) -> WrongAnswer:
        return WrongAnswer(self.name, mistake, message)


@dataclass(frozen=True)
class Choice:
    """A question with lettered answers.

    Attributes
    ----------
    name : str
        Of the exercise.
    points : int
        What it is worth.
    right : str
        The letter of the right answer.
    wrong : mapping of str to str
        What to say to each of the other letters.

    Examples
    --------
    >>> from analysis_lib import labs
    >>> labs.check_optimism("A")
    Exercise optimism: right (1 point)
    """

    name: str
    points: int
    right: str
    wrong: Mapping[str, str]

    def __call__(self, answer: str) -> Passed:
        """Check a letter.

        Parameters
        ----------
        answer : str
            Small or capital.

        Returns
        -------
        Passed

        Raises
        ------
        WrongAnswer
            With a message for the student.
        """
        letters = sorted({self.right, *self.wrong})
        if answer is None or answer is ...:
            raise WrongAnswer(self.name, "not-done", f"choose a letter: {', '.join(letters)}.")
        letter = str(answer).strip().lower()
        if letter not in letters:
            raise WrongAnswer(
                self.name, "not-a-letter", f"{answer!r} is not one of {', '.join(letters)}."
            )
        if letter != self.right:
            raise WrongAnswer(self.name, letter, self.wrong[letter])
        return Passed(self.name, self.points)


def _difference(result: object, expected: object, inputs: tuple) -> tuple[str, str]:
    """Name and message for a result that no known mistake explains."""
    called = f"The function was called with {_shapes(inputs)}."
    if isinstance(expected, tuple):
        if not isinstance(result, tuple | list) or len(result) != len(expected):
            return "number-of-results", f"{len(expected)} results are asked for. {called}"
        part = next(
            k for k, (a, b) in enumerate(zip(result, expected, strict=True)) if not _same(a, b)
        )
        name, message = _difference(result[part], expected[part], inputs)
        return name, f"result {part + 1} of {len(expected)}: {message}"
    result, expected = np.asarray(result), np.asarray(expected)
    if result.shape != expected.shape:
        message = f"the result has shape {result.shape}, {expected.shape} is wanted. {called}"
        if result.ndim == 2 and result.shape == expected.shape[::-1]:
            return "transposed", f"rows and columns are exchanged: {message}"
        return "shape", message
    if expected.dtype.kind not in "biuf" or result.dtype.kind not in "biuf":
        return "values", f"the result is {result.tolist()}, {expected.tolist()} is wanted. {called}"
    result, expected = result.astype(float), expected.astype(float)
    if (np.isnan(result) & ~np.isnan(expected)).any():
        return "not-a-number", f"the result holds NaN. Is something divided by zero? {called}"
    off = np.where(np.isnan(expected), 0.0, np.abs(np.nan_to_num(result) - np.nan_to_num(expected)))
    place = np.unravel_index(int(off.argmax()), off.shape)
    where = f" at index {', '.join(map(str, place))}" if place else ""
    return "values", (
        f"the shape is right, the numbers are not. The largest difference is{where}: "
        f"{result[place]:.4g} instead of {expected[place]:.4g}. {called}"
    )


def _same(a: object, b: object) -> bool:
    if isinstance(b, tuple):
        alike = isinstance(a, tuple | list) and len(a) == len(b)
        return alike and all(_same(x, y) for x, y in zip(a, b, strict=True))
    try:
        a, b = np.asarray(a), np.asarray(b)
    except ValueError:  # ragged
        return False
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "biufc" and b.dtype.kind in "biufc":
        return np.allclose(a, b, RELATIVE, ABSOLUTE, equal_nan=True)
    return np.array_equal(a, b)


def _copied(inputs: tuple) -> tuple:
    return tuple(value.copy() if isinstance(value, np.ndarray) else value for value in inputs)


def _shapes(inputs: tuple) -> str:
    return ", ".join(
        f"an array {value.shape}" if isinstance(value, np.ndarray) else repr(value)
        for value in inputs
    )
