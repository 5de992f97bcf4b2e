"""Training examples as JSON lines, and the sets drawn from them: one positive among negatives, in a shown order.

    {"id": "q1", "query": "…", "positives": [{"id": "…", "title": "…", "text": "…"}], "negatives": ["…"], "source": "…"}
    {"query_id": "1", "query": "…", "positive_passages": [{"docid": "…", "text": "…"}], "negative_passages": […]}
    {"query": "…", "pos": ["…"], "neg": ["…", "…"]}

The first format is the project's own and may have `"known": […]`, passages that are known already, and `"answer"`, a
short text; the second is Tevatron's, the third FlagEmbedding's. A set depends only on the seed, the epoch and its own
example: data may grow and training may resume without changing another set.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from operator import itemgetter
from typing import Any, Literal

from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import (
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
from rankr1_rag.io.files import FilePath, located, numbered_lines, writing
from rankr1_rag.io.jsonl import to_line
from rankr1_rag.prompt import Format, clip_to_window, sanitise
from rankr1_rag.settings import check_within
from rankr1_rag.types import Passage, Query

EXAMPLES = re.compile(rb'\A\{"id": .*"positives": \[')
"""The beginning of a file as it is written here."""
POSITIVES = ("positives", "positive_passages", "pos")
NEGATIVES = ("negatives", "negative_passages", "neg")


@dataclass(frozen=True, slots=True)
class Example:
    """A query with at least one positive and one negative, the negatives hardest first; `source` names its data set.

    `known` are passages that are known already: the positives are right next to these. `answer` is the short answer
    that the positives hold together, "" if there is none. ValueError for an example that teaches nothing: an empty
    query or positive, none of either kind, or a passage (by its id) that is both.
    """

    query: Query
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    source: str = ""
    known: tuple[Passage, ...] = ()
    answer: str = ""

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
                raise ValueError(f"passage {passage.id!r:.100} is both positive and negative: remove it from one list")
        shown = right | {negative.id for negative in self.negatives}
        for passage in self.known:
            if passage.id in shown:
                raise ValueError(f"passage {passage.id!r:.100} is both known and a candidate: remove it from one list")
        for passage in self.positives:
            if not (passage.text.strip() or passage.title.strip()):
                raise ValueError(f"the positive {passage.id!r:.100} is empty: there is nothing to recognise it by")


def read_examples(*paths: FilePath) -> list[Example]:
    """The examples of all the files, in order. FileError for a malformed line, and for an id twice in a file.

    What has no id gets one made of its content: a passage of its title and text, an example of its query and positives.
    Passages that come again are read once; a negative with the text of a positive under another id is left out.
    """
    if not paths:
        raise ValueError("no file of examples: name at least one")
    examples = []
    for path in paths:
        lines: dict[str, int] = {}
        for number, line in numbered_lines(path):
            example = located(path, number, example_from_json, located(path, number, parse_object, line))
            if (first := lines.setdefault(example.query.id, number)) != number:
                raise FileError(path, number, f"the example {example.query.id!r} appears twice, first in line {first}")
            examples.append(example)
    return examples


def write_examples(path: FilePath, examples: Iterable[Example]) -> None:
    """The project's own shape, one line an example. The file appears whole or not at all; it replaces only examples."""
    with writing(path, EXAMPLES) as file:
        for example in examples:
            record: dict[str, Any] = {"id": example.query.id, "query": example.query.text}
            parts = {"known": example.known, "positives": example.positives, "negatives": example.negatives}
            for name, passages in parts.items():
                titled = [({"title": one.title} if one.title else {}) for one in passages]
                lines = [{"id": p.id, **title, "text": p.text} for p, title in zip(passages, titled, strict=True)]
                record |= {name: lines} if lines else {}
            named = {"answer": example.answer, "source": example.source}
            file.write(to_line(record | {name: text for name, text in named.items() if text}))


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
    known = _passages(record, ("known",)) if record.get("known") is not None else ()
    source, answer = (text_of(record, (name,), "") for name in ("source", "answer"))
    return Example(query, positives, tuple(apart), source, known, answer)


def _passages(record: Json, names: Sequence[str]) -> tuple[Passage, ...]:
    name = next((name for name in names if record.get(name) is not None), None)
    if name is None:
        raise ValueError("field " + " or ".join(f'"{name}"' for name in names) + " is missing or null")
    passages: dict[Passage, None] = {}
    for place, passage in enumerate(of_kind(f'field "{name}"', record[name], "an array")):
        with within(f"{name}[{place}]"):
            one = as_passage(passage, "")
            passages[one if one.id else replace(one, id=_id(one.title, one.text))] = None
    return tuple(passages)


def _id(*texts: str) -> str:
    return digest("\n".join(texts))[:16]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Passages in shown order, of which only the one at position `right`, counted from 0, is a positive.

    Passages in `known` are shown as known already and cannot be chosen. `answer` is the short answer or "".
    """

    query: Query
    passages: tuple[Passage, ...]
    right: int
    source: str
    known: tuple[Passage, ...] = ()
    answer: str = ""


def sets(
    examples: Iterable[Example],
    *,
    size: int,
    seed: int,
    hard: int | None = None,
    epoch: int = 0,
    smallest: int | None = None,
) -> list[TrainingSet]:
    """A set of `size` passages, 2..20, for every positive of every example, in an order drawn from seed and epoch.

    With `smallest` the size of each set is drawn from `smallest`..`size`, as a selection near its end asks.

    The negatives are drawn without replacement from the first `hard` ≥ 1 of the example, None takes all; fewer than
    `size` - 1 are all shown. Other positives never are. Where examples are added, the others keep their sets and their
    order. ValueError for another size or `hard`.
    """
    check_within("size", size, 2, 20)
    if smallest is not None:
        check_within("smallest", smallest, 2, size)
    if hard is not None:
        check_within("hard", hard, 1)
    drawn: dict[tuple[str, int], TrainingSet] = {}
    for example in examples:
        for positive in example.positives:
            key = digest(f"{seed}\n{epoch}\n{example.query.id}\n{positive.id}")
            generator = random.Random(key)
            pool = example.negatives[:hard]
            drawn_size = size if smallest is None else generator.randint(smallest, size)
            shown = generator.sample(pool, min(drawn_size - 1, len(pool)))
            right = generator.randint(0, len(shown))
            shown.insert(right, positive)
            one = TrainingSet(example.query, tuple(shown), right, example.source, example.known, example.answer)
            drawn[key, len(drawn)] = one
    return [drawn[key] for key in sorted(drawn)]


@dataclass(frozen=True, slots=True)
class Reading:
    """A question with passages as a reranker orders them, and its answer: "" where they do not hold it."""

    query: Query
    passages: tuple[Passage, ...]
    answer: str
    source: str


def readings(
    examples: Iterable[Example],
    *,
    size: int,
    seed: int,
    hard: int | None = None,
    epoch: int = 0,
    missing: float = 0.0,
) -> list[Reading]:
    """A reading of every example with an answer: all its positives among negatives, `size` passages, 1..20.

    In the share `missing` of them, 0..1, one positive is left out, and the answer. Positives are shown first more often
    than not, as after reranking. Examples with more than `size` positives or with known passages are left out. Each
    depends on seed, epoch and its own example alone. ValueError for another size, or where no example has an answer.
    """
    check_within("size", size, 1, 20)
    drawn: dict[tuple[str, int], Reading] = {}
    for example in examples:
        if not example.answer or example.known or len(example.positives) > size:
            continue
        generator = random.Random(key := digest(f"{seed}\n{epoch}\n{example.query.id}\nread"))
        right = list(example.positives)
        if is_missing := generator.random() < missing:
            right.remove(generator.choice(right))
        pool = example.negatives[:hard]
        wrong = generator.sample(pool, min(size - len(right), len(pool)))
        ranked = [(generator.gauss(0, 1) - 1.5, one) for one in right] + [(generator.gauss(0, 1), one) for one in wrong]
        shown = tuple(one for _, one in sorted(ranked, key=itemgetter(0)))
        answer = "" if is_missing else example.answer
        drawn[key, len(drawn)] = Reading(example.query, shown, answer, example.source)
    if not drawn:
        raise ValueError('no example has an "answer" and at most `size` positives: a reader learns from answers')
    return [drawn[key] for key in sorted(drawn)]


Kind = Literal["label", "naming"]

_WORDS, _TITLE = 6, 12
"""Most words of a quote that names a passage, and of its title."""

_ROUND = str.maketrans("[]", "()")
"""A name in the reasoning must not look like a label."""


def target(kind: Kind, label: int, format: Format, name: str = "") -> str:
    """The completion that picks the passage under this label ≥ 1: "label" the answer alone, "naming" a name before it.

    ValueError for a listwise format, and for "naming" in a format without reasoning.
    """
    if format.kind != "setwise":
        raise ValueError(
            f"format {format.name!r} needs whole orders, but a target names one passage: use a setwise format"
        )
    if label < 1:
        raise ValueError(f"label={label}: labels count from 1")
    if kind == "label":
        return format.answer(label - 1)
    if not format.reasoning:
        raise ValueError(f"format {format.name!r} has no reasoning that could name the passage: use target 'label'")
    return format.answer(label - 1, f"[{label}] {name}" if format.suffix else name)


def name(drawn: TrainingSet, shown: Sequence[str], format: Format) -> str:
    """What names the right passage of a set, of which the lines in `shown` are shown, in the same order.

    The first twelve words of its title; where it has none, or another passage has the same, at most six words of the
    text that is shown: those around the answer, else those that share most with the query. On one line, no label or tag
    in it.
    """
    passage = drawn.passages[drawn.right]
    title = format.line(Passage("", "", passage.title))
    named = title
    if not title or passage.title in {one.title for one in drawn.passages if one is not passage}:
        text = " ".join(shown[drawn.right].removeprefix(title).split())
        answer = "" if drawn.answer.casefold() in ("yes", "no") else drawn.answer  # which no text quotes
        is_held = answer and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE)
        about = answer if is_held else drawn.query.text
        named = clip_to_window(text, _WORDS, about, lambda part: len(part.replace("…", " ").split())) or title
    words = named.replace("…", " ").split()[:_TITLE]
    return sanitise(" ".join(words)).translate(_ROUND)
