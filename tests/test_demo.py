"""The corpus of the demo: its passages and questions."""

import re
from collections import Counter

import pytest

from rankr1_rag import demo
from rankr1_rag.demo import DemoQuestion

PASSAGES = {passage.id: passage for passage in demo.passages()}
SUPPORTS = {"bridge": 2, "comparison": 2, "three-hop": 3, "single-hop": 1}


def test_there_are_enough_passages_and_questions_of_every_type() -> None:
    types = Counter(question.type for question in demo.questions())
    assert len(PASSAGES) == len(demo.passages()) >= 128
    assert len({question.query.id for question in demo.questions()}) == types.total() >= 44
    assert set(types) == set(SUPPORTS)
    assert 2 * types["bridge"] > types.total()
    assert min(types.values()) >= 4


def test_passages_have_unique_titles_and_two_to_four_sentences() -> None:
    assert len({passage.title for passage in PASSAGES.values()}) == len(PASSAGES)
    for passage in PASSAGES.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", passage.id)
        assert 45 <= len(passage.text.split()) <= 85, passage.id
        assert 2 <= len(re.findall(r"(?<!\b[A-Z])[.!?](?= |$)", passage.text)) <= 4, passage.id  # but initials


@pytest.mark.parametrize("question", demo.questions(), ids=lambda question: question.query.id)
def test_only_the_last_support_names_the_answer(question: DemoQuestion) -> None:
    supports = [f"{PASSAGES[id].title}. {PASSAGES[id].text}" for id in question.supports]
    assert len(set(supports)) == SUPPORTS[question.type]
    if question.answer not in {"yes", "no"}:
        assert question.answer in supports[-1]
    if question.type != "comparison":
        assert not any(question.answer.lower() in text.lower() for text in [question.query.text, *supports[:-1]])
