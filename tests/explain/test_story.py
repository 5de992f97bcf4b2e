"""The sentences and numbers of every view of a ranking, and the characters that they may hold."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.explain import story
from rankr1_rag.explain.html import chart, page
from rankr1_rag.explain.slopes import count_moves
from rankr1_rag.explain.story import lede, places, verdict, warnings
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
    assert "The model failed, so there is no reranking" in lede(failed)
    assert verdict(failed, failed.explain(1)) == "Keeps its first-stage rank, because the model failed."
    assert str(failed.explain(2)) == (
        "2. Title 1: in first-stage order, because the model failed: 503 from <the server>"
    )


def test_a_fused_order_is_told_and_what_the_model_had_first(ordinary: Ranking) -> None:
    assert "fused" not in lede(ordinary)
    assert lede(replace(ordinary, chosen=ordinary.order)).endswith(" The model's order is fused with the retriever's.")
    other = replace(ordinary, chosen=(ordinary.order[1],))
    assert lede(other).endswith(
        f"fused with the retriever's: by itself the model has {story.name(other, other.chosen[0])} first."
    )
    assert "by itself the model has" in page(other)
    assert "The 10 others</summary>" in page(other).replace("\n", "")


def test_after_fusion_the_final_order_comes_first_and_the_chosen_are_marked(ordinary: Ranking) -> None:
    fused = replace(ordinary, chosen=(2, 11))  # the order is 9, 2, 0, 1, …, 11
    cards, _, rest = page(fused).partition('<details class="rest"')
    assert re.findall('data-position="(\\d+)"', cards) == ["9", "2"]
    assert re.findall("<b>(.*?)</b>", cards.partition('class="cards"')[2])[:1] == ["not chosen by the model"]
    assert "<b>the model&#39;s choice 1 of 2</b>" in cards
    assert "<b>the model&#39;s choice 2 of 2</b>" in rest
    assert "not chosen" not in rest
    assert "choice 1" not in page(ordinary)


def test_warnings_begin_with_the_gravest(ordinary: Ranking, failed: Ranking) -> None:
    assert warnings(failed) == ["The backend failed: 503 from <the server>"]
    unparsed, cut, clipped = warnings(ordinary)
    assert unparsed.startswith("1 of 4 comparisons gave no answer that could be parsed")
    assert cut == "1 of 4 comparisons ended at the token limit."
    assert clipped == "1 text had to be clipped to fit the context."
    trace = tuple(replace(comparison, parsed=True, forced=True) for comparison in ordinary.trace)
    assert any("needed a forced answer" in warning for warning in warnings(replace(ordinary, trace=trace)))


def test_the_costs_of_the_rounds_add_up_to_the_cost(ordinary: Ranking) -> None:
    costs = story.round_costs(ordinary)
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
    assert story.name(replace(unasked(1), candidates=(passage,)), 0) == expected


def test_a_listwise_answer_is_shown_as_labels_and_split_reasoning_as_part_of_the_transcript() -> None:
    def numbered(
        shown: tuple[int, ...], answer: tuple[int, ...], text: str, reasoning: str = ""
    ) -> story.NumberedComparison:
        return story.NumberedComparison(1, Comparison(shown, answer, Completion(text), 0, reasoning))

    assert numbered((7, 3, 5), (5, 7, 3), "[3] > [1] > [2]").listing == "[3] > [1] > [2]"
    assert numbered((7, 3, 5), (5,), "[3]").listing == ""
    split = numbered((0, 1), (1,), "<answer>[2]</answer>", "Some reasoning.")
    assert split.transcript == "Some reasoning.\n\n<answer>[2]</answer>"


def test_a_short_chart_draws_every_candidate(ordinary: Ranking) -> None:
    drawn = chart(ordinary)
    for column, order in ((drawn.left, range(12)), (drawn.right, ordinary.order)):
        assert [label.name for label in column] == [f"Title {position}" for position in order]
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


ANY = st.text(st.characters())  # surrogates included


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ünïcødé, 日本語, العربية 🙂", "plain ünïcødé, 日本語, العربية 🙂"),
        ("two\r\nlines\n\tand a tab", "two\nlines\n\tand a tab"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\x00b\x07c\x08d\re\x7f", "a␀b␇c␈d␍e␡"),
        ("\x9b31m\x85", "\ufffd31m\ufffd"),
        ("\u202eevil\u202c \u2066x\u2069", "\ufffdevil\ufffd \ufffdx\ufffd"),
        ("\ud800 alone", "\ufffd alone"),
        ("a\u2028b\u2029c", "a\nb\nc"),
    ],
)
def test_what_could_steer_a_terminal_becomes_visible(text: str, expected: str) -> None:
    assert story.clean(text) == expected


@given(ANY)
def test_a_cleaned_text_is_utf_8_and_cleaning_it_again_changes_nothing(text: str) -> None:
    once = story.clean(text)
    once.encode("utf-8")
    assert story.clean(once) == once
    assert not any(ord(character) < 32 and character not in "\n\t" for character in once)


@given(ANY, st.integers(1, 50))
def test_a_start_is_one_line_and_no_longer_than_asked(text: str, length: int) -> None:
    shown = story.start(text, length)
    assert len(shown) <= length
    assert "\n" not in shown
    assert shown == story.line(text) or shown.endswith("…")
