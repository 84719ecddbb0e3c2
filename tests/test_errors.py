import pytest

from analysis_lib import errors
from analysis_lib.errors import BrainbookError, UnknownNameError


def test_all_errors_are_of_one_family():
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, UserWarning if name.endswith("Notice") else BrainbookError)


@pytest.mark.parametrize(
    "name, hint",
    [
        ("log-mell", "unknown model 'log-mell'. Did you mean 'log-mel'?"),
        ("LOG-MEL", "unknown model 'LOG-MEL'. Did you mean 'log-mel'?"),
        ("qqq", "unknown model 'qqq'. Known: cochleagram, log-mel, mfcc."),
    ],
)
def test_unknown_names_are_told_with_what_is_near(name, hint):
    assert str(UnknownNameError("model", name, ["mfcc", "log-mel", "cochleagram"])) == hint


def test_many_known_names_are_cut_short_and_none_is_said():
    message = str(UnknownNameError("model", "qqq", [f"m{i:02d}" for i in range(50)]))
    assert message.endswith("m18, m19, ….")
    assert str(UnknownNameError("result", "qqq", [])).endswith("Known: (none).")
