"""Questions whose supports are named by the titles of paragraphs: HotpotQA, and 2WikiMultihopQA in the same shape.

Knows the shape; nothing of either data set's words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rankr1_eval.data.dataset import Json
from rankr1_eval.data.fields import answers_of, query_of, table, type_of
from rankr1_eval.types import Question, passage_of
from rankr1_rag.collection import of_kind
from rankr1_rag.types import Passage

TITLE = ("title",)


class Paragraph(NamedTuple):
    """A paragraph of a question, with the number of its sentences."""

    passage: Passage
    sentences: int


def titled(
    record: Json, joint: str, hops: Callable[[str], int | None], *, supports: bool, elsewhere: bool = False
) -> Question:
    """The question; a text is its sentences with `joint` between them, stripped; `hops` of a type.

    With `elsewhere` a support may be none of its own paragraphs: then its id stands for a title without a text, and
    is never found. Otherwise that is a ValueError, as is, with `supports`, to have no support.
    """
    query, answers, type = query_of(record), answers_of(record), type_of(record)
    if "context" not in record and "paragraphs" in record:
        passages, found = _flagged(record)
    else:
        paragraphs = _paragraphs(record, joint)
        passages = [paragraph.passage for paragraph in paragraphs]
        facts = _facts(record, supports)
        found = [id for title, last in facts.items() if (id := _named(paragraphs, title, last, elsewhere, supports))]
    if supports and not found:
        raise ValueError("no support: a test split, whose supports are not public? Take the dev or the train file")
    return Question(query, answers, tuple(dict.fromkeys(found)), tuple(dict.fromkeys(passages)), type, hops(type))


def _flagged(record: Json) -> tuple[list[Passage], list[str]]:
    """Paragraphs with whole texts that say themselves whether they are supports."""
    rows = table(record, "paragraphs", (TITLE, ("text",), ("is_gold",)))
    passages = []
    supports = []
    for number, (title, text, gold) in enumerate(rows, start=1):
        what = f"of paragraph {number}"
        passages.append(passage_of(of_kind(f"title {what}", title, "a string"), _text(what, text, "").strip()))
        if of_kind(f'"is_gold" {what}', gold, "a boolean"):
            supports.append(passages[-1].id)
    return passages, supports


def _paragraphs(record: Json, joint: str) -> list[Paragraph]:
    paragraphs = []
    for number, (title, sentences) in enumerate(table(record, "context", (TITLE, ("sentences", "content"))), start=1):
        what = f"of paragraph {number}"
        text = _text(what, sentences, joint).strip()
        count = len(sentences) if not isinstance(sentences, str) else 0
        paragraphs.append(Paragraph(passage_of(of_kind(f"title {what}", title, "a string"), text), count))
    return paragraphs


def _text(what: str, sentences: object, joint: str) -> str:
    if isinstance(sentences, str):
        return sentences
    found = of_kind(f"the sentences {what}", sentences, "an array")
    return joint.join(of_kind(f"a sentence {what}", sentence, "a string") for sentence in found)


def _facts(record: Json, supports: bool) -> dict[str, int]:
    """Title of each support to the last of its sentences that is named, in file order."""
    if not supports and record.get("supporting_facts") is None:
        return {}
    last: dict[str, int] = {}
    for title, sentence in table(record, "supporting_facts", (TITLE, ("sent_id",))):
        of_kind("the title of a supporting fact", title, "a string")
        number = of_kind(f"the sentence of supporting fact {title!r}", sentence, "a whole number")
        last[title] = max(number, last.get(title, 0))
    return last


def _named(paragraphs: Sequence[Paragraph], title: str, last: int, elsewhere: bool, supports: bool) -> str | None:
    """The paragraph of that title; of several the first that has the named sentences, or else the first."""
    same = [paragraph for paragraph in paragraphs if paragraph.passage.title == title]
    if same:
        return next((found for found in same if found.sentences > last), same[0]).passage.id
    if elsewhere:
        return passage_of(title, "").id
    if supports:
        raise ValueError(f"support {title!r} is none of its own paragraphs: damaged, or a file of the fullwiki setting")
    return None
