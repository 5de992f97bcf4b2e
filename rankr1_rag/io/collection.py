"""Queries and passages in files: tab-separated lines, or JSON objects with one of a few customary names of fields.

    264014	how long is life cycle of flea
    {"docid": "5611210", "text": "5. Cancel. A flea can live up to a year, but …"}
    {"_id": "4983", "title": "Microstructural development …", "text": "Alterations of …"}

Of several names the first with a value counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import FilePath, located, numbered_lines
from rankr1_rag.types import Passage, Query

Json = dict[str, Any]

# The first name with a value that is not null counts.
QUERY_ID = ("query_id", "qid", "id", "_id")
QUERY_TEXT = ("text", "query")
PASSAGE_ID = ("id", "_id", "docid")
PASSAGE_TEXT = ("text", "contents")
TITLE = ("title",)

KINDS: dict[str, tuple[type, ...]] = {
    "a boolean": (bool,),
    "a whole number": (int,),
    "a number": (int, float),
    "a string": (str,),
    "an array": (list, tuple),
    "an object": (dict,),
    "null": (type(None),),
    "a string or an object": (str, dict),
}


def read_queries(path: FilePath) -> dict[str, str]:
    """Query id to text, in file order.

    The first line decides between JSON lines and tab-separated `id<TAB>text`. FileError on a malformed line, or on an
    id that comes again with another text.
    """
    queries: dict[str, str] = {}
    for number, record in _records(path):
        query = located(path, number, as_query, record)
        if queries.setdefault(query.id, query.text) != query.text:
            raise FileError(path, number, f"duplicate query id {query.id!r} with different text")
    return queries


def read_passages(path: FilePath, wanted: Collection[str] | None = None) -> dict[str, Passage]:
    """Id to passage, in file order; with `wanted` only those ids, as far as the file has them.

    Formats and errors as for `read_queries`.
    """
    kept = None if wanted is None else frozenset(wanted)
    passages: dict[str, Passage] = {}
    for number, record in _records(path):
        passage = located(path, number, as_passage, record)
        if (kept is None or passage.id in kept) and passages.setdefault(passage.id, passage) != passage:
            raise FileError(path, number, f"duplicate passage id {passage.id!r} with different content")
    return passages


def as_query(record: object, default_id: str | None = None) -> Query:
    """A query from a JSON value: an object, or its text alone. ValueError where it is neither, or lacks an id."""
    fields = {"text": record} if isinstance(record, str) else of_kind("the query", record, "a string or an object")
    return Query(id_of(fields, QUERY_ID, default_id), text_of(fields, QUERY_TEXT))


def as_passage(record: object, default_id: str | None = None) -> Passage:
    """A passage from a JSON value: an object, or its text alone. ValueError where it is neither, or lacks an id."""
    fields = {"text": record} if isinstance(record, str) else of_kind("the passage", record, "a string or an object")
    return Passage(id_of(fields, PASSAGE_ID, default_id), text_of(fields, PASSAGE_TEXT), text_of(fields, TITLE, ""))


def id_of(record: Mapping[str, Any], names: Sequence[str], default: str | None = None) -> str:
    """The id under the first of the names; a number becomes a string."""
    name, value = _first(record, names, default)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return str(of_kind(f'field "{name}"', value, "a string"))


def text_of(record: Mapping[str, Any], names: Sequence[str], default: str | None = None) -> str:
    """The string under the first of the names."""
    name, value = _first(record, names, default)
    return str(of_kind(f'field "{name}"', value, "a string"))


def member(record: Mapping[str, Any], name: str, kind: str) -> Any:  # noqa: ANN401
    """The field of an object, which must be there and be of the kind: a key of `KINDS`."""
    return of_kind(f'field "{name}"', _first(record, (name,), None)[1], kind)


def of_kind(what: str, value: object, kind: str) -> Any:  # noqa: ANN401
    """The value itself. ValueError that says what was found instead; true and false are not numbers."""
    if isinstance(value, KINDS[kind]) and (kind == "a boolean" or not isinstance(value, bool)):
        return value
    found = next((name for name, types in KINDS.items() if isinstance(value, types)), repr(type(value)))
    raise ValueError(f"{what} is {found} where {kind} is needed")


@contextmanager
def within(where: str) -> Iterator[None]:
    """A ValueError raised inside says where."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def parse_object(line: str) -> Json:
    """The JSON object that the line is. ValueError for anything else, NaN and Infinity included."""
    try:
        value = json.loads(line, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        problem = (
            f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}; each line must be one whole object"
        )
        raise ValueError(problem) from error
    except RecursionError:
        raise ValueError("JSON nested too deeply to be read") from None
    parsed: Json = of_kind("the line", value, "an object")
    return parsed


def _first(record: Mapping[str, Any], names: Sequence[str], default: str | None) -> tuple[str, Any]:
    for name in names:
        if record.get(name) is not None:
            return name, record[name]
    if default is None:
        raise ValueError("field " + " or ".join(f'"{name}"' for name in names) + " is missing or null")
    return names[0], default


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON: write null or leave it out")


def _finite(number: str) -> float:
    if math.isinf(float(number)):
        raise ValueError(f"{number} is too great for a number")
    return float(number)


def _records(path: FilePath) -> Iterator[tuple[int, Json]]:
    parse: Callable[[str], Json] | None = None
    for number, line in numbered_lines(path):
        if parse is None:
            parse = parse_object if line.lstrip().startswith(("{", "[")) else _parse_tabs
        yield number, located(path, number, parse, line)


def _parse_tabs(line: str) -> Json:
    columns = line.split("\t")
    if len(columns) != 2:
        raise ValueError(f"a tab-separated line has 2 columns, `id<TAB>text`, this one has {len(columns)}")
    if not columns[0]:
        raise ValueError("the id before the tab is empty")
    return {"id": columns[0], "text": columns[1]}
