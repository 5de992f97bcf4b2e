"""A job stops early only where nothing works any more."""

import pytest

from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong, UnparsedError
from rankr1_rag.io.journal import GiveUp

GONE, WRONG, LONG, UNPARSED, BUG = (
    BackendUnavailable("503"),
    BackendError("401"),
    PromptTooLong("400"),
    UnparsedError("no label"),
    ValueError("a bug"),
)


@pytest.mark.parametrize(
    ("outcomes", "due"),
    [
        ([GONE] * 3, True),
        ([GONE] * 2, False),
        ([GONE, GONE, None, GONE], False),
        ([None, GONE, GONE, GONE], True),
        ([WRONG] * 3, True),
        ([WRONG, GONE, WRONG], True),
        ([None, WRONG, WRONG, WRONG, WRONG], False),
        ([None, GONE, WRONG, GONE, GONE], True),
        ([LONG, WRONG, WRONG, WRONG], False),
        ([GONE, GONE, LONG, GONE], False),
        ([UNPARSED] * 4, False),
        ([GONE, GONE, BUG, GONE], True),
    ],
)
def test_the_limit_is_reached_by_failures_in_a_row_that_mean_the_model_is_gone(
    outcomes: list[Exception | None], due: bool
) -> None:
    give_up = GiveUp(limit=3)
    for outcome in outcomes:
        give_up.succeed() if outcome is None else give_up.fail(outcome)
    assert give_up.is_due == due


def test_after_an_answer_of_an_earlier_run_only_an_unavailable_model_counts() -> None:
    give_up = GiveUp(limit=1, answered=True)
    give_up.fail(WRONG)
    assert not give_up.is_due
    give_up.fail(GONE)
    assert give_up.is_due
