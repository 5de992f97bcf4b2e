"""The view on a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from rankr1_rag.explain import cost_table, ranking_table, show
from rankr1_rag.types import Cost, Ranking

pytestmark = pytest.mark.third_party

Made = Callable[[int], Ranking]


def shown(ranking: Ranking, width: int = 80, colour: bool = False, **options: object) -> str:
    file = io.StringIO()
    show(ranking, Console(file=file, width=width, force_terminal=colour), **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_the_whole_tournament_is_told(ordinary: Ranking) -> None:
    text = shown(ordinary)
    for told in ["Which river?", "Round 1 · 2 comparisons", "Round 3 · 1 comparison", "→ Title 9  first-stage rank 10"]:
        assert told in text
    for comparison in ordinary.trace:
        assert comparison.reasoning in text
    assert "2:0" in text
    assert "↑9" in text
    assert "✓ selected; 10 more follow" in text


def test_an_unparsed_a_forced_and_a_clipped_one_are_visible(ordinary: Ranking) -> None:
    text = shown(ordinary)
    assert "unparsed: trusted the retriever, cut off" in text
    assert "forced" in text
    assert "! 1 of 4 comparisons gave no answer that could be parsed" in text
    assert "unparsed 1, forced 1, clipped 1" in text


def test_a_failure_comes_before_the_order_it_left(failed: Ranking) -> None:
    text = shown(failed)
    assert text.index("! The backend failed: 503 from <the server>") < text.index("Title 0")
    assert "✓ " not in text.replace("✓ selected", "")


def test_nothing_from_a_stranger_steers_the_terminal(hostile: Ranking) -> None:
    text = shown(hostile)
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\x00", "\u202e", "\u2066", "\ud800"}
    text.encode("utf-8")


def test_markup_is_printed_as_it_stands(hostile: Ranking) -> None:
    text = shown(hostile, width=2000, colour=True)
    for literal in ("[bold]b[/bold]", "[link=http://evil.example]", ":smile:", "␛[31m"):
        assert literal in text
    assert "\x1b]8" not in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(ordinary: Ranking, hostile: Ranking, long: Made, width: int) -> None:
    for ranking in (ordinary, hostile, long(100)):
        assert max(cell_len(line) for line in shown(ranking, width).splitlines()) <= width


def test_a_long_word_in_a_thought_is_folded_and_not_cut(ordinary: Ranking) -> None:
    thought = "ß" * 500
    ranking = replace(ordinary, trace=(replace(ordinary.trace[0], reasoning=thought),))
    assert shown(ranking).count("ß") == 500


def test_at_80_columns_no_heading_and_no_figure_is_cut(ordinary: Ranking) -> None:
    text = shown(replace(ordinary, seconds=1234.5))
    assert "rank  stage  move  lost" in text
    assert "parisons  rounds      read  tokens   cached     tion  seconds" in text
    assert "1,234.5" in text


def test_thoughts_can_be_left_out_and_ranks_asked_for(ordinary: Ranking) -> None:
    assert "names the river" not in shown(ordinary, reasoning=False)
    assert ranking_table(ordinary).row_count == 2
    assert ranking_table(ordinary, top=5).row_count == 5
    assert ranking_table(ordinary, top=50).row_count == 12


def test_empty_and_single_rankings_are_shown_too(unasked: Made) -> None:
    assert "nothing to rank" in shown(unasked(0))
    assert "Title 0" in shown(unasked(1))


def test_a_cost_table_adds_up_what_it_is_given() -> None:
    file = io.StringIO()
    costs = {"[bold]a": Cost(comparisons=5, seconds=1), "b": Cost(comparisons=1200, unparsed=3)}
    Console(file=file, width=80).print(cost_table(costs))
    assert "[bold]a" in file.getvalue()
    assert "1,205" in file.getvalue()
    assert "unparsed 3, forced 0, clipped 0" in file.getvalue()
