"""The description of a data set of questions, and readers for the fields of one record in official or hub shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rankr1_eval.types import Question
from rankr1_rag.io.collection import id_of, of_kind, text_of
from rankr1_rag.io.trec import as_word
from rankr1_rag.types import Query

T = TypeVar("T")
Json = Mapping[str, Any]
Columns = Sequence[Sequence[str]]
"""For each column of a table the names it may have; the first that is there counts."""


@dataclass(frozen=True)
class Hub:
    """A place on the hub: a repository and its config, or `files`, split to the address of a parquet file.

    `files` are for a repository with a loading script, which `datasets` no longer runs.
    """

    id: str
    config: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A data set of questions.

    `read(record, supports)` makes a question of one record, in the official file's shape or the hub's, and raises
    ValueError where it cannot; with `supports` a question without a support is an error. `marks` are fields that no
    other data set has.
    """

    name: str
    hub: Hub
    marks: frozenset[str]
    read: Callable[[Json, bool], Question]


def by_word(pairs: Iterable[tuple[object, T]]) -> dict[str, T]:
    """Values by their ids as words; of several with one id the first."""
    found: dict[str, T] = {}
    for id, value in pairs:
        found.setdefault(as_word(str(id)), value)
    return found


def query_of(record: Json) -> Query:
    """The question with its id, `_id` in official files and `id` on the hub; a number becomes a string."""
    query = Query(id_of(record, ("_id", "id")), text_of(record, ("question",)))
    if not query.id.strip() or not query.text.strip():
        raise ValueError(f"the {'question' if query.id.strip() else 'id'} is empty")
    if not query.id.isprintable():
        raise ValueError(f"the id {query.id!r:.60} contains characters that cannot be printed")
    return query


def official(record: Json) -> Json:
    """A record of FlashRAG with its metadata as fields and the first of its answers as the answer; any other as it is.

    {"id": "dev_0", "question": "Which …?", "golden_answers": ["Seat", "Seat City"], "metadata": {"context": …, …}}
    """
    if "golden_answers" not in record:
        return record
    golden = of_kind('field "golden_answers"', record["golden_answers"] or [], "an array")
    metadata = of_kind('field "metadata"', record.get("metadata") or {}, "an object")
    return {**metadata, **record, "answer": next(iter(golden), None)}


def answers_of(record: Json, aliases: str | None = None) -> tuple[str, ...]:
    """The answer string and the aliases after it, each once, as they are written; empty aliases are left out.

    A whole number becomes a string; another number is a ValueError, since its spelling counts.
    """

    def spelled(what: str, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, float):
            raise ValueError(f"{what} is the number {value!r}: write it as a string, since its spelling counts")
        return str(of_kind(what, value, "a string"))

    if record.get("answer") is None:
        raise ValueError("no answer: a test split, whose answers are not public? Take the dev or the train file")
    answer = spelled('field "answer"', record["answer"])
    if not answer.strip():
        raise ValueError("the answer is empty: no answer string could be right")
    field = "golden_answers" if "golden_answers" in record else aliases
    others = of_kind(f'"{field}"', (field and record.get(field)) or [], "an array")
    found = [spelled(f'an entry of field "{field}"', alias) for alias in others]
    return tuple(dict.fromkeys([answer, *(alias for alias in found if alias.strip())]))


def table(record: Json, name: str, columns: Columns) -> list[tuple[Any, ...]]:
    """The rows of a field in any of its shapes. A column that is missing is None.

    [["Title", …], …] in official files, {"title": […], …} or [{"title": …}, …] on the hub, or a string that is one of
    these as JSON.
    """

    def first(row: Json, names: Sequence[str]) -> object:
        return next((row[name] for name in names if row.get(name) is not None), None)

    value = record.get(name)
    if value is None:
        raise ValueError(f'field "{name}" is missing or null')
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'field "{name}" is a string that is not JSON: {error}') from None
    if isinstance(value, Mapping):
        lists = [of_kind(f'"{names[0]}" of field "{name}"', first(value, names), "an array") for names in columns]
        if len({len(column) for column in lists}) > 1:
            raise ValueError(f'the lists in field "{name}" have different lengths: {[len(column) for column in lists]}')
        return list(zip(*lists, strict=True))
    rows = []
    for number, row in enumerate(of_kind(f'field "{name}"', value, "an array"), start=1):
        what = f'entry {number} of field "{name}"'
        if isinstance(row, Mapping):
            row = tuple(first(row, names) for names in columns)
        elif len(of_kind(what, row, "an array")) != len(columns):
            raise ValueError(f"{what} has {len(row)} values where {len(columns)} are needed")
        rows.append(tuple(row))
    return rows
