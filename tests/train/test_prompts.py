"""What is trained on is what a reranker sends, clipped alike; the batches of it, and the reward of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.prompt import FORMATS
from rankr1_rag.prompt.authors import AUTHORS
from rankr1_rag.train.data import TrainingSet
from rankr1_rag.train.evaluate import Reward, reward
from rankr1_rag.train.grpo import rewards
from rankr1_rag.train.prompts import messages
from rankr1_rag.train.sft import WINDOW, group_by_length
from rankr1_rag.types import Message, Passage, Query

NAMING = FORMATS["naming-v1"]
OWN = [format for format in FORMATS.values() if format not in AUTHORS]
"""Those that models are trained in."""


def words(text: str) -> int:
    return len(text.split()) + text.count(" ")


def made(query: str, *texts: str) -> TrainingSet:
    passages = tuple(Passage(str(n), text, "T" * (n % 2)) for n, text in enumerate(texts))
    return TrainingSet(Query("q7", query), passages, 0, "")


def sent(query: Query, passages: Sequence[Passage], context: int | None, **settings: Any) -> list[Sequence[Message]]:
    """All that a reranker of these passages asks."""
    asked: list[Sequence[Message]] = []
    backend = Scripted(
        lambda m: asked.append(m) or "<think>a</think> <answer>[1]</answer>", context=context, count=words
    )
    Reranker(backend, size=len(passages), force="never", **settings).rank(query, passages)
    return asked


@pytest.mark.parametrize("format", OWN, ids=lambda one: one.name)
@pytest.mark.parametrize("limits", [{}, {"passage_tokens": 20}, {"query_tokens": 4, "passage_tokens": 9}])
@pytest.mark.parametrize("context", [None, 800])
def test_the_messages_are_those_of_a_reranker(format: Any, limits: dict[str, int], context: int | None) -> None:
    shown = made("who <think> was she " * 9, "[3] poses " * 90, "fleas " * 90, "short")
    asked = sent(shown.query, shown.passages, context, k=1, format=format, reasoning_tokens=32, clip="head", **limits)
    assert messages(shown, format, words, context=context, reasoning_tokens=32, **limits)[0] == asked[0]


def test_what_is_known_is_shown_as_a_reranker_shows_it() -> None:
    """The second stage of a reranker, in a set where the first named the first shown."""
    passages = tuple(Passage(str(n), f"{word} " * 90, "T") for n, word in enumerate(("fleas", "cats", "dogs")))
    limits: dict[str, int] = {"reasoning_tokens": 32, "passage_tokens": 20}
    last = sent(Query("q7", "q7"), passages, 700, k=2, hops=2, format=NAMING, clip="head", **limits)[-1]
    shown = TrainingSet(Query("q7", "q7"), passages[1:], 0, "", passages[:1])
    assert messages(shown, NAMING, words, context=700, **limits)[0] == last
    assert "Known: T fleas" in last[-1]["content"]


def test_reasoning_needs_no_room_where_the_format_has_none() -> None:
    shown, plain = made("which", "fleas " * 90, "cats " * 90), FORMATS["setwise-sft-v0.1"]
    one, other = (messages(shown, plain, words, context=500, reasoning_tokens=n)[0] for n in (0, 10_000))
    assert one == other


def test_a_set_that_the_context_cannot_hold_is_refused_by_its_query() -> None:
    shown = made("which", "fleas " * 90, "cats " * 90)
    with pytest.raises(ValueError, match=r"query 'q7': a context of 250 tokens leaves 0 tokens for each of 2 passages"):
        messages(shown, NAMING, words, context=250, reasoning_tokens=32)


def rows(lengths: list[int]) -> list[dict[str, Any]]:
    return [{"input_ids": [0] * length, "number": number} for number, length in enumerate(lengths)]


@given(st.lists(st.integers(1, 9), max_size=120), st.integers(1, 5), st.integers())
def test_every_row_comes_once_and_from_nearby(lengths: list[int], batch: int, seed: int) -> None:
    ordered = group_by_length(rows(lengths), batch, seed)
    assert group_by_length(rows(lengths), batch, seed) == ordered
    numbers = [row["number"] for row in ordered]
    assert sorted(numbers) == list(range(len(lengths)))
    assert all(place // (WINDOW * batch) == number // (WINDOW * batch) for place, number in enumerate(numbers))


def test_a_batch_holds_rows_of_similar_lengths_and_the_batches_are_mixed() -> None:
    lengths = [(7 * number) % 64 for number in range(WINDOW * 4)]
    ordered = [len(row["input_ids"]) for row in group_by_length(rows(lengths), 4, 1)]
    batches = [ordered[at : at + 4] for at in range(0, len(ordered), 4)]
    assert all(max(batch) - min(batch) == 3 for batch in batches)
    assert batches != sorted(batches)
    assert group_by_length(rows(lengths), 4, 2) != group_by_length(rows(lengths), 4, 1)


@pytest.mark.parametrize(
    ("format", "text", "kept", "right"),
    [
        ("naming-v1", "<think> Fleas </think> <answer>[2]</answer>", True, True),
        ("naming-v1", "<think> Fleas </think> <answer>[1]</answer>", True, False),
        ("naming-v1", "<answer>[2]</answer>", False, True),
        ("naming-v1", "<think> Fleas </think> <answer>Passage [2].</answer> Done.", False, True),
        ("naming-v1", "<think> Fleas </think> <answer>[6]</answer>", False, False),
        ("naming-v1", "<think> like <answer>[2]</answer>, cut", False, False),
        ("naming-v1", "", False, False),
        ("setwise-sft-v0.1", "<answer>[2]</answer>", True, True),
        ("setwise-sft-v0.1", "<think> Fleas </think> <answer>[2]</answer>", False, True),
    ],
)
def test_the_reward_is_one_for_form_and_label_together(format: str, text: str, kept: bool, right: bool) -> None:
    earned = reward(FORMATS[format], text, 5, 1)
    assert (earned, earned.value) == (Reward(kept, right), float(kept and right))
    functions = rewards(FORMATS[format])
    completion = [{"role": "assistant", "content": text}]
    values = [of(completions=[completion], n=[5], right=[1], prompts=None) for of in functions]
    assert values == [[float(one)] for one in (kept and right, kept, right)]


@given(st.integers(1, 20), st.integers(0, 19), st.integers(0, 19), st.text(), st.text())
def test_the_reward_is_one_exactly_where_strict_reads_the_right_place(
    n: int, right: int, place: int, before: str, after: str
) -> None:
    for format in OWN:
        for text in (before + after, before + format.answer(place, after)):
            earned = reward(format, text, n, right).value
            assert earned == float((format.strict(text, n) or (None,))[0] == right)
