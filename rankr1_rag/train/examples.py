"""Training examples as JSON lines: a query with passages that are right and passages that are not.

    {"id": "q1", "query": "…", "positives": [{"id": "…", "title": "…", "text": "…"}], "negatives": ["…"], "source": "…"}
    {"query_id": "1", "query": "…", "positive_passages": [{"docid": "…", "text": "…"}], "negative_passages": […]}
    {"query": "…", "pos": ["…"], "neg": ["…", "…"]}

The first is the project's own, and may have `"given": […]`, the passages that are known already; the second is
Tevatron's, the third FlagEmbedding's. Knows nothing of sets and models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from rankr1_rag.collection import (
    QUERY_ID,
    Json,
    as_passage,
    as_query,
    id_of,
    member,
    of_kind,
    parse_object,
    text_of,
    within,
)
from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath, located, numbered_lines, writing
from rankr1_rag.jsonlines import to_line
from rankr1_rag.types import Passage, Query

POSITIVES = ("positives", "positive_passages", "pos")
NEGATIVES = ("negatives", "negative_passages", "neg")
GIVEN = ("given",)


@dataclass(frozen=True, slots=True)
class Example:
    """A query with at least one positive and one negative, the negatives hardest first; `source` names its data set.

    `given` are passages that are known already: the positives are right beside these. ValueError where there is nothing
    to be learned from it: an empty query or positive, none of either kind, or a passage (by its id) that is both.
    """

    query: Query
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    source: str = ""
    given: tuple[Passage, ...] = ()

    def __post_init__(self) -> None:
        if not self.query.text.strip():
            raise ValueError(f"the query {self.query.id!r} is empty: there is nothing to choose by")
        if not self.positives:
            raise ValueError(f"query {self.query.id!r} has no positives: one passage at least must be the right one")
        if not self.negatives:
            raise ValueError(f"query {self.query.id!r} has no negatives that say something else than its positives")
        right = {positive.id for positive in self.positives}
        for passage in self.negatives:
            if passage.id in right:
                raise ValueError(f"passage {passage.id!r:.100} is both positive and negative: take it out of one")
        shown = right | {negative.id for negative in self.negatives}
        for passage in self.given:
            if passage.id in shown:
                raise ValueError(f"passage {passage.id!r:.100} is given and to choose from too: take it out of one")
        for passage in self.positives:
            if not (passage.text.strip() or passage.title.strip()):
                raise ValueError(f"the positive {passage.id!r:.100} is empty: there is nothing to recognise it by")


def read_examples(*paths: FilePath) -> list[Example]:
    """The examples of all the files, in order. FileError for a malformed line, and for an id twice in a file.

    What has no id gets one made of its content: a passage of its title and text, an example of its query and positives.
    Passages that come again are read once; a negative with the text of a positive under another id is left out.
    """
    if not paths:
        raise ValueError("no file of examples is given: name at least one")
    return [example for path in paths for example in _of_file(path)]


def write_examples(path: FilePath, examples: Iterable[Example]) -> None:
    """The project's own shape, one line an example. The file appears whole or not at all."""
    with writing(path) as file:
        for example in examples:
            file.write(to_line(_to_json(example)))


def share(examples: Sequence[Example], part: float, seed: int) -> list[Example]:
    """A part in (0, 1] of the examples, rounded, one at least, in their order. ValueError for another part.

    Those with the smallest hashes of seed and query id: a greater part of the same examples holds a smaller one.
    """
    if not 0 < part <= 1:
        raise ValueError(f"part={part!r}: a share above 0 and at most 1 is needed")
    drawn = sorted(range(len(examples)), key=lambda place: digest(f"{seed}\n{examples[place].query.id}"))
    return [examples[place] for place in sorted(drawn[: max(1, round(part * len(examples)))])]


def digest(text: str) -> str:
    """64 hexadecimal digits that depend on every byte of any text: the same in every process and Python."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def example_from_json(record: Json) -> Example:
    """The example that a line holds, in any of the shapes. ValueError where it has none of them."""
    positives, negatives = _passages(record, POSITIVES), _passages(record, NEGATIVES)
    query = as_query(member(record, "query", "a string or an object"), id_of(record, QUERY_ID, ""))
    if not query.id:
        query = replace(query, id=_id(query.text, *(passage.text for passage in positives)))
    right = {(passage.title, passage.text): passage.id for passage in positives}
    apart = [passage for passage in negatives if right.get((passage.title, passage.text), passage.id) == passage.id]
    given = _passages(record, GIVEN) if record.get("given") is not None else ()
    return Example(query, positives, tuple(apart), text_of(record, ("source",), ""), given)


def _of_file(path: FilePath) -> list[Example]:
    lines: dict[str, int] = {}
    examples = []
    for number, line in numbered_lines(path):
        example = located(path, number, example_from_json, located(path, number, parse_object, line))
        if (first := lines.setdefault(example.query.id, number)) != number:
            raise FileError(path, number, f"the example {example.query.id!r} stands here again, after line {first}")
        examples.append(example)
    return examples


def _passages(record: Json, names: Sequence[str]) -> tuple[Passage, ...]:
    name = next((name for name in names if record.get(name) is not None), None)
    if name is None:
        raise ValueError("field " + " or ".join(f'"{name}"' for name in names) + " is missing or null")
    passages: dict[Passage, None] = {}
    for place, given in enumerate(of_kind(f'field "{name}"', record[name], "an array")):
        with within(f"{name}[{place}]"):
            passages[_passage(given)] = None
    return tuple(passages)


def _passage(given: object) -> Passage:
    passage = as_passage(given, "")
    return passage if passage.id else replace(passage, id=_id(passage.title, passage.text))


def _id(*texts: str) -> str:
    return digest("\n".join(texts))[:16]


def _to_json(example: Example) -> dict[str, Any]:
    record: dict[str, Any] = {"id": example.query.id, "query": example.query.text}
    parts = {"given": example.given, "positives": example.positives, "negatives": example.negatives}
    record |= {name: [_passage_to_json(passage) for passage in some] for name, some in parts.items() if some}
    return record | ({"source": example.source} if example.source else {})


def _passage_to_json(passage: Passage) -> dict[str, str]:
    title = {"title": passage.title} if passage.title else {}
    return {"id": passage.id, **title, "text": passage.text}
