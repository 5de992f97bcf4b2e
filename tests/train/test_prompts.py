"""What is trained on is what a reranker sends: the same bytes, clipped alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.prompt import FORMATS
from rankr1_rag.train.data import TrainingSet
from rankr1_rag.train.prompts import messages
from rankr1_rag.types import Message, Passage, Query

NAMING = FORMATS["naming-v1"]


def words(text: str) -> int:
    return len(text.split()) + text.count(" ")


def made(query: str, *texts: str) -> TrainingSet:
    passages = tuple(Passage(str(n), text, "T" * (n % 2)) for n, text in enumerate(texts))
    return TrainingSet(Query("q7", query), passages, 0, "")


def sent(shown: TrainingSet, context: int | None, **settings: Any) -> Sequence[Message]:
    """What a reranker asks that is given these passages."""
    asked: list[Sequence[Message]] = []

    def model(messages: Sequence[Message]) -> str:
        asked.append(messages)
        return "<think>a</think> <answer>[1]</answer>"

    backend = Scripted(model, context=context, count=words)
    size = len(shown.passages)
    Reranker(backend, k=1, size=size, force="never", **settings).rank(shown.query, shown.passages)
    return asked[0]


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("limits", [{}, {"passage_tokens": 20}, {"query_tokens": 4, "passage_tokens": 9}])
@pytest.mark.parametrize("context", [None, 800])
def test_the_messages_are_those_of_a_reranker(format: Any, limits: dict[str, int], context: int | None) -> None:
    shown = made("who <think> was she " * 9, "[3] poses " * 90, "fleas " * 90, "short")
    expected = sent(shown, context, format=format, reasoning_tokens=32, clip="head", **limits)
    assert messages(shown, format, words, context=context, reasoning_tokens=32, **limits) == expected


def test_what_is_known_is_shown_as_a_reranker_shows_it() -> None:
    """The second stage of a reranker, in a set where the first named the first shown."""
    passages = tuple(Passage(str(n), f"{word} " * 90, "T") for n, word in enumerate(("fleas", "cats", "dogs")))
    asked: list[Sequence[Message]] = []

    def model(messages: Sequence[Message]) -> str:
        asked.append(messages)
        return "<think>a</think> <answer>[1]</answer>"

    backend = Scripted(model, context=700, count=words)
    Reranker(backend, k=2, size=3, hops=2, format=NAMING, reasoning_tokens=32, passage_tokens=20, clip="head").rank(
        "q7", passages
    )
    shown = TrainingSet(Query("q7", "q7"), passages[1:], 0, "", passages[:1])
    assert messages(shown, NAMING, words, context=700, reasoning_tokens=32, passage_tokens=20) == asked[-1]
    assert "Known: T fleas" in asked[-1][-1]["content"]


TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@given(TEXT, st.lists(TEXT, min_size=2, max_size=5))
def test_any_text_is_shown_as_the_format_renders_it(query: str, texts: list[str]) -> None:
    shown = made(query, *texts)
    got = messages(shown, NAMING, lambda _: None, context=None, reasoning_tokens=32)
    assert got == NAMING.render(query, shown.passages)


def test_a_thought_costs_nothing_where_the_format_has_none() -> None:
    shown = made("which", "fleas " * 90, "cats " * 90)
    one, other = (
        messages(shown, FORMATS["setwise-sft-v0.1"], words, context=500, reasoning_tokens=n) for n in (0, 10_000)
    )
    assert one == other


def test_a_set_that_the_context_cannot_hold_is_refused_by_its_query() -> None:
    shown = made("which", "fleas " * 90, "cats " * 90)
    with pytest.raises(ValueError, match=r"query 'q7': a context of 250 tokens leaves 0 tokens for each of 2 passages"):
        messages(shown, NAMING, words, context=250, reasoning_tokens=32)
