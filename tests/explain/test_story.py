"""The sentences and numbers that every view of a ranking tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from rankr1_rag.explain.html import chart, page
from rankr1_rag.explain.slopes import count_moves
from rankr1_rag.explain.story import NumberedComparison, lede, name, places, round_costs, verdict, warnings
from rankr1_rag.types import Comparison, Completion, Passage, Ranking

Made = Callable[[int], Ranking]


def test_moves_count_ranks_from_the_first_stage(ordinary: Ranking) -> None:
    moves = {place.why.position: place.moved for place in places(ordinary)}
    assert (moves[9], moves[2], moves[0], moves[11]) == ("↑9", "↑1", "↓2", "=")


def test_a_verdict_owns_up_that_the_retriever_decided(ordinary: Ranking) -> None:
    assert verdict(ordinary, ordinary.explain(1)) == "Chosen from 2 passages in round 2."
    assert "could not be parsed, so the retriever was trusted" in verdict(ordinary, ordinary.explain(2))
    assert verdict(ordinary, ordinary.explain(3)) == "Last seen in round 1, where Title 2 was chosen."
    assert "won because the retriever was trusted" in verdict(ordinary, ordinary.explain(12))


def test_a_ranking_without_comparisons_says_so(unasked: Made, failed: Ranking) -> None:
    assert "nothing to rank" in lede(unasked(0))
    assert "No comparison was needed: 1 candidate" in lede(unasked(1))
    assert "no reranking" in lede(failed)
    assert "never saw it" in verdict(failed, failed.explain(1))


def test_a_fused_order_is_told_and_what_the_model_had_first(ordinary: Ranking) -> None:
    assert "fused" not in lede(ordinary)
    assert lede(replace(ordinary, chosen=ordinary.order)).endswith(" The model's order is fused with the retriever's.")
    other = replace(ordinary, chosen=(ordinary.order[1],))
    assert lede(other).endswith(
        f"fused with the retriever's: by itself the model has {name(other, other.chosen[0])} first."
    )
    assert "by itself the model has" in page(other)
    assert "others</summary>" in page(other).replace("\n", "")


def test_warnings_begin_with_the_gravest(ordinary: Ranking, failed: Ranking) -> None:
    assert warnings(failed) == ["The backend failed: 503 from <the server>"]
    unparsed, cut, clipped = warnings(ordinary)
    assert unparsed.startswith("1 of 4 comparisons gave no answer that could be parsed")
    assert cut == "1 of 4 comparisons ended at the token limit."
    assert clipped == "1 text had to be clipped to fit the context."


def test_nearly_all_answers_forced_is_worth_a_warning(ordinary: Ranking) -> None:
    trace = tuple(replace(comparison, parsed=True, forced=True) for comparison in ordinary.trace)
    assert any("needed a forced answer" in warning for warning in warnings(replace(ordinary, trace=trace)))


def test_the_costs_of_the_rounds_add_up_to_the_cost(ordinary: Ranking) -> None:
    costs = round_costs(ordinary)
    assert list(costs) == ["round 1", "round 2", "round 3"]
    assert sum(cost.prompt_tokens for cost in costs.values()) == ordinary.cost.prompt_tokens
    assert sum(cost.rounds for cost in costs.values()) == ordinary.cost.rounds == 3


@pytest.mark.parametrize(
    ("passage", "expected"),
    [
        (Passage("id", "text", "A\ntitle"), "A title"),
        (Passage("id", "only text"), "only text"),
        (Passage("id", " "), "id"),
        (Passage("", ""), "(empty passage, 1)"),
    ],
)
def test_a_passage_is_called_by_what_it_has(unasked: Made, passage: Passage, expected: str) -> None:
    assert name(replace(unasked(1), candidates=(passage,)), 0) == expected


def test_a_listwise_answer_is_told_as_labels() -> None:
    assert (
        NumberedComparison(1, Comparison((7, 3, 5), (5, 7, 3), Completion("[3] > [1] > [2]"), 0)).listing
        == "[3] > [1] > [2]"
    )
    assert NumberedComparison(1, Comparison((7, 3, 5), (5,), Completion("[3]"), 0)).listing == ""


def test_a_thought_that_the_server_split_off_is_part_of_the_transcript() -> None:
    split = Comparison((0, 1), (1,), Completion("<answer>[2]</answer>"), 0, "A thought.")
    assert NumberedComparison(1, split).transcript == "A thought.\n\n<answer>[2]</answer>"


def test_a_short_chart_draws_every_candidate(ordinary: Ranking) -> None:
    drawn = chart(ordinary)
    assert [label.name for label in drawn.left] == [f"Title {position}" for position in range(12)]
    assert [label.name for label in drawn.right] == [f"Title {position}" for position in ordinary.order]
    assert (len(drawn.slopes), drawn.height) == (12, 12 * 26)
    assert (drawn.slopes[-1].title, drawn.slopes[-1].style) == ("Title 9: 10 → 1", "selected")


def test_a_long_chart_leaves_out_candidates_that_only_made_room(long: Made) -> None:
    drawn = chart(long(500))
    assert [label.name for label in drawn.left if not label.rank] == ["480 more"]
    assert len(drawn.slopes) == 20
    assert sum(label.style == "gap" for label in drawn.right) == 1


def test_a_curve_of_many_moves_is_wider_than_one_of_few() -> None:
    drawn = count_moves(["1", "2", "3"], {(2, 0): 30, (0, 2): 1, (1, 1): 12}, "support", cut=2)
    assert [(slope.title, slope.style) for slope in drawn.slopes] == [
        ("1 support: 1 → 3", "down"),
        ("12 supports: 2 → 2", "same"),
        ("30 supports: 3 → 1", "up"),
    ]
    assert [slope.width for slope in drawn.slopes] == [1.25, 4.46, 9.71]
    assert [label.style for label in drawn.left] == ["read", "read", ""]
