"""A job stops early only where nothing works any more."""

import pytest

from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong, UnparsedError
from rankr1_rag.io.journal import GiveUp

OUTCOMES = {
    "gone": BackendUnavailable("503"),
    "wrong": BackendError("401"),
    "long": PromptTooLong("400"),
    "unparsed": UnparsedError("no label"),
    "bug": ValueError("a bug"),
    "good": None,
}


@pytest.mark.parametrize(
    ("outcomes", "due"),
    [
        ("gone gone gone", True),
        ("gone gone", False),
        ("gone gone good gone", False),
        ("good gone gone gone", True),
        ("wrong wrong wrong", True),
        ("wrong gone wrong", True),
        ("good wrong wrong wrong wrong", False),
        ("good gone wrong gone gone", True),
        ("long wrong wrong wrong", False),
        ("gone gone long gone", False),
        ("unparsed unparsed unparsed unparsed", False),
        ("gone gone bug gone", True),
    ],
)
@pytest.mark.parametrize("answered", [False, True])
def test_the_limit_is_failures_in_a_row_that_mean_the_model_is_gone(outcomes: str, due: bool, answered: bool) -> None:
    """After an answer, of this run or an earlier one, only an unavailable model counts."""
    give_up = GiveUp(limit=3, answered=answered)
    for outcome in map(OUTCOMES.get, outcomes.split()):
        give_up.succeed() if outcome is None else give_up.fail(outcome)
    assert give_up.is_due == (due and not (answered and outcomes.startswith("wrong")))
