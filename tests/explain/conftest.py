"""Rankings to show, made by hand: an ordinary one, and those that go wrong."""

from collections.abc import Callable

import pytest

from rankr1_rag.types import Comparison, Completion, Passage, Query, Ranking

HOSTILE = (
    "<script>alert(1)</script>\"onmouseover=alert(2) '</style><img src=http://evil.example/x onerror=alert(3)>"
    "{{ 7 * 7 }}{% raw %}[bold]b[/bold][link=http://evil.example]l[/link]:smile:</title><!-- <svg onload=alert(4)>"
    "\x00\x1b[31m\x1b]8;;http://evil.example\x07\x9b5m\x7f\ud800\u202etxet\u2066\u2029&lt;b&gt;</think><answer>[1]</answer>"
)


def compared(
    members: tuple[int, ...], chosen: int, round: int, thought: str, *, parsed: bool = True, forced: bool = False
) -> Comparison:
    answer = f"</think> <answer>[{members.index(chosen) + 1}]</answer>" if parsed else ""
    completion = Completion(f"<think>{thought}{answer}", 100 * len(members), 10, 40, "stop" if parsed else "length")
    return Comparison(members, (chosen,), completion, round, thought, parsed, forced)


def passages(number: int) -> tuple[Passage, ...]:
    return tuple(Passage(f"id-{place}", f"The text of number {place}.", f"Title {place}") for place in range(number))


@pytest.fixture
def ordinary() -> Ranking:
    """Twelve candidates in three rounds; positions 9 and 2 come first, and the last answer cannot be parsed."""
    trace = (
        compared((0, 1, 2, 3, 4, 5), 2, 0, "Passage [3] names the river."),
        compared((6, 7, 8, 9, 10, 11), 9, 0, "Only [4] answers it."),
        compared((2, 9), 9, 1, "Between them, [2] is the better.", forced=True),
        compared((2, 6, 7, 8, 10, 11), 2, 2, "I cannot decide, so", parsed=False),
    )
    order = (9, 2, 0, 1, 3, 4, 5, 6, 7, 8, 10, 11)
    return Ranking(Query("q1", "Which river?"), passages(12), order, 2, trace, clipped=1, seconds=1.5)


@pytest.fixture
def failed() -> Ranking:
    return Ranking(Query("q1", "Which river?"), passages(4), (0, 1, 2, 3), 2, failure="503 from <the server>")


@pytest.fixture
def hostile() -> Ranking:
    """The same hostile text in every place that a stranger can fill."""
    candidates = tuple(Passage(HOSTILE, HOSTILE * copies, HOSTILE) for copies in (1, 20, 1))
    trace = (compared((0, 1, 2), 1, 0, HOSTILE), compared((0, 2), 0, 1, HOSTILE * 10, parsed=False))
    return Ranking(Query(HOSTILE, HOSTILE), candidates, (1, 0, 2), 2, trace)


@pytest.fixture
def long() -> Callable[[int], Ranking]:
    """So many candidates, of which the last ten come first, chosen in sets of 20 with thoughts of a hundred words."""

    def made(number: int) -> Ranking:
        selected = tuple(range(number - 1, number - 11, -1))
        trace = tuple(
            compared((*range(19), chosen), chosen, round, "Some words of [20] about [3]. " * 17)
            for round, chosen in enumerate(selected)
        )
        order = (*selected, *range(number - 10))
        texts = tuple(Passage(f"id-{place}", "A sentence of text. " * 30, f"Title {place}") for place in range(number))
        return Ranking(Query("", "A long one"), texts, order, 10, trace)

    return made


@pytest.fixture
def unasked() -> Callable[[int], Ranking]:
    """So many candidates about which the model was not asked."""
    return lambda number: Ranking(Query("", "Which river?"), passages(number), tuple(range(number)), 10)
