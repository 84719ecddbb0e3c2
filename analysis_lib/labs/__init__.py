"""Labs: exercises for a class, the checks of the answers, and what a teacher needs.

Each ``check_...`` takes a student's answer, and either says that it is right or raises
:class:`WrongAnswer` with a message about what was done. Functions are called with fresh random
inputs. :mod:`analysis_lib.labs.release` writes the notebooks to hand out,
:mod:`analysis_lib.labs.grading` collects the points.

>>> from analysis_lib import labs
>>> labs.check_pooling("c")
Exercise pooling: right (1 point)
"""

from . import aligning, comparing, hearing, predicting, training
from .aligning import *  # noqa: F403
from .comparing import *  # noqa: F403
from .exercise import Choice, Exercise, Mistake, Passed, WrongAnswer
from .hearing import *  # noqa: F403
from .predicting import *  # noqa: F403
from .training import *  # noqa: F403

__all__ = [
    "Choice",
    "Exercise",
    "Mistake",
    "Passed",
    "WrongAnswer",
    *aligning.__all__,
    *comparing.__all__,
    *hearing.__all__,
    *predicting.__all__,
    *training.__all__,
]
