"""The view on a terminal."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from rankr1_rag.explain import cost_table, page, ranking_table, show
from rankr1_rag.types import Cost, Ranking

pytestmark = pytest.mark.third_party

Made = Callable[[int], Ranking]


def shown(ranking: Ranking, width: int = 80, colour: bool = False, **options: object) -> str:
    file = io.StringIO()
    show(ranking, Console(file=file, width=width, force_terminal=colour), **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_the_whole_tournament_and_what_is_unusual_is_printed(ordinary: Ranking) -> None:
    text = shown(replace(ordinary, seconds=1234.5))
    parts = ["Which river?", "Round 1 · 2 comparisons", "Round 3 · 1 comparison", "→ Title 9  first-stage rank 10"]
    parts += [*(comparison.reasoning for comparison in ordinary.trace), "2:0", "↑9", "✓ selected; 10 more follow"]
    parts += ["unparsed: trusted the retriever, cut off", "forced", "unparsed 1, forced 1, clipped 1"]
    parts += ["! 1 of 4 comparisons gave no answer that could be parsed"]
    # at 80 columns no heading and no figure is cut
    parts += ["rank  stage  move  lost", "parisons  rounds      read  tokens   cached     tion  seconds", "1,234.5"]
    assert [part for part in parts if part not in text] == []


def test_an_instruction_is_shown_below_the_query_and_none_where_there_is_none(ordinary: Ranking) -> None:
    asked = replace(ordinary, query=replace(ordinary.query, instruction="Prefer \x1b[31m sources."))
    assert "  Instruction: Prefer ␛[31m sources." in shown(asked)
    assert '<p dir="auto">Instruction: Prefer' in page(asked)
    assert "Instruction" not in shown(ordinary) + page(ordinary)


def test_a_failure_comes_before_the_order_it_left(failed: Ranking) -> None:
    text = shown(failed)
    assert text.index("! The backend failed: 503 from <the server>") < text.index("Title 0")
    assert "✓" not in text
    assert "2 more follow" in text
    assert "✓" not in shown(replace(failed, chosen=(0, 1)))


def test_nothing_from_a_stranger_steers_the_terminal_and_markup_is_printed_as_it_is(hostile: Ranking) -> None:
    text = shown(hostile)
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\x00", "\u202e", "\u2066", "\ud800"}
    text.encode("utf-8")
    text = shown(hostile, width=2000, colour=True)
    assert "\x1b]8" not in text
    for literal in ("[bold]b[/bold]", "[link=http://evil.example]", ":smile:", "␛[31m"):
        assert literal in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(ordinary: Ranking, hostile: Ranking, long: Made, width: int) -> None:
    for ranking in (ordinary, hostile, long(100)):
        assert max(cell_len(line) for line in shown(ranking, width).splitlines()) <= width


def test_a_long_word_in_a_thought_is_folded_and_not_cut(ordinary: Ranking) -> None:
    thought = "ß" * 500
    ranking = replace(ordinary, trace=(replace(ordinary.trace[0], reasoning=thought),))
    assert shown(ranking).count("ß") == 500


def test_reasoning_can_be_left_out_and_more_ranks_shown(ordinary: Ranking, unasked: Made) -> None:
    assert "names the river" not in shown(ordinary, reasoning=False)
    assert [ranking_table(ordinary, top).row_count for top in (None, 5, 50)] == [2, 5, 12]
    assert "nothing to rank" in shown(unasked(0))
    assert "Title 0" in shown(unasked(1))


def test_a_cost_table_adds_up() -> None:
    file = io.StringIO()
    costs = {"[bold]a": Cost(comparisons=5, seconds=1), "b": Cost(comparisons=1200, unparsed=3)}
    Console(file=file, width=80).print(cost_table(costs))
    for part in ("[bold]a", "1,205", "unparsed 3, forced 0, clipped 0"):
        assert part in file.getvalue()
