"""Qrels as they lie in files: TREC's four columns, or BEIR's three tab-separated ones under a header.

    query-id	corpus-id	score
    13	1606628	1

Knows ids; nothing of texts.

The fields of one record, in the shapes of official files and of the hub, checked. Knows no data set by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankr1_eval.types import Question
from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import id_of, of_kind, text_of
from rankr1_rag.io.files import FilePath, located, numbered_lines
from rankr1_rag.io.trec import Qrels, read_qrels
from rankr1_rag.types import Query

Columns = Sequence[Sequence[str]]
"""For each column of a table the names it may have, the first that is there counts."""


def query_of(record: Json) -> Query:
    """The question with its id, `_id` in official files and `id` on the hub; a number becomes a string."""
    query = Query(id_of(record, ("_id", "id")), text_of(record, ("question",)))
    if not query.id.strip() or not query.text.strip():
        raise ValueError(f"the {'question' if query.id.strip() else 'id'} is empty")
    if not query.id.isprintable():
        raise ValueError(f"the id {query.id!r:.60} holds what cannot be printed")
    return query


def answers_of(record: Json, aliases: str | None = None) -> tuple[str, ...]:
    """The answer string and the aliases after it, each once, as they are written; empty aliases are left out.

    A whole number becomes a string; another number does not: only a string says how it is spelled.
    """
    answer = record.get("answer")
    if answer is None:
        raise ValueError("no answer: a test split, whose answers are not public? Take the dev or the train file")
    spelled = _spelled('field "answer"', answer)
    if not spelled.strip():
        raise ValueError("the answer is empty: no answer string could be right")
    others = (aliases and record.get(aliases)) or []
    found = [_spelled(f'an entry of field "{aliases}"', alias) for alias in of_kind(f'"{aliases}"', others, "an array")]
    return tuple(dict.fromkeys([spelled, *(alias for alias in found if alias.strip())]))


def type_of(record: Json) -> str:
    """The data set's word for the kind of question, "" where it has none."""
    return text_of(record, ("type",), "")


def table(record: Json, name: str, columns: Columns) -> list[tuple[Any, ...]]:
    """The rows of a field in any of its shapes.

    [["Title", …], …] in official files, {"title": […], …} or [{"title": …}, …] on the hub, or a string that is one of
    these as JSON. A column that is missing is None.
    """
    value = record.get(name)
    if value is None:
        raise ValueError(f'field "{name}" is missing or null')
    if isinstance(value, str):
        value = _parsed(name, value)
    if isinstance(value, Mapping):
        return _transposed(name, value, columns)
    rows = of_kind(f'field "{name}"', value, "an array")
    return [_row(f'entry {number} of field "{name}"', row, columns) for number, row in enumerate(rows, start=1)]


def _spelled(what: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        raise ValueError(f"{what} is the number {value!r}: write it as a string, since its spelling counts")
    return str(of_kind(what, value, "a string"))


def _parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'field "{name}" is a string that is not JSON: {error}') from None


def _transposed(name: str, value: Json, columns: Columns) -> list[tuple[Any, ...]]:
    lists = [of_kind(f'"{names[0]}" of field "{name}"', _first(value, names), "an array") for names in columns]
    if len({len(column) for column in lists}) > 1:
        raise ValueError(f'the lists in field "{name}" have different lengths: {[len(column) for column in lists]}')
    return list(zip(*lists, strict=True))


def _row(what: str, row: object, columns: Columns) -> tuple[Any, ...]:
    if isinstance(row, Mapping):
        return tuple(_first(row, names) for names in columns)
    values = of_kind(what, row, "an array")
    if len(values) != len(columns):
        raise ValueError(f"{what} has {len(values)} values where {len(columns)} are needed")
    return tuple(values)


def _first(row: Json, names: Sequence[str]) -> object:
    return next((row[name] for name in names if row.get(name) is not None), None)


BEIR = ("query-id", "corpus-id", "score")


def read_judgements(path: FilePath) -> Qrels:
    """The judgements, in file order. FileError on a malformed line or on a passage that is judged twice for a query."""
    lines = numbered_lines(path)
    if tuple(next(lines)[1].split()) != BEIR:
        return read_qrels(path)
    qrels: Qrels = {}
    for number, line in lines:
        query, passage, relevance = located(path, number, _parsed_judgement, line)
        judged = qrels.setdefault(query, {})
        if passage in judged:
            raise FileError(path, number, f"passage {passage!r} is judged a second time for query {query!r}")
        judged[passage] = relevance
    if not qrels:
        raise FileError(path, None, "it holds no judgement below its header")
    return qrels


def _parsed_judgement(line: str) -> tuple[str, str, int]:
    fields = line.split()
    if len(fields) != len(BEIR):
        raise ValueError(f"a line of BEIR qrels has 3 fields, `{' '.join(BEIR)}`, this one has {len(fields)}")
    if not re.fullmatch(r"[-+]?[0-9]{1,9}", fields[2]):
        raise ValueError(f"score {fields[2]!r:.80} is not a whole number")
    return fields[0], fields[1], int(fields[2])


Json = Mapping[str, Any]


@dataclass(frozen=True)
class Hub:
    """Where the rows lie on the hub: a repository and its config, or `files`, split to the address of a parquet file.

    `files` are for a repository with a loading script, which `datasets` no longer runs.
    """

    id: str
    config: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A data set of questions.

    `read(record, supports)` makes a question of one record, in the official file's shape or the hub's, and raises
    ValueError where it cannot; `supports` says that a question without a support is an error. `marks` are fields that
    no other data set has.
    """

    name: str
    hub: Hub
    marks: frozenset[str]
    read: Callable[[Json, bool], Question]
