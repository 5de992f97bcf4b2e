"""Queries and passages in files: tab-separated lines, or JSON objects with one of a few customary names of fields.

    264014	how long is life cycle of flea
    {"_id": "4983", "title": "Microstructural development …", "text": "Alterations of …"}     BEIR
    {"docid": "msmarco_v2.1_doc_00_0#0_0", "title": "…", "segment": "A flea …", "url": "…"}   MS MARCO v2
    {"docid": "5611210", "score": 15.78, "doc": {"id": "5611210", "contents": "A flea …"}}    Anserini, RankLLM

Of several names the first with a value counts, one that is not empty before one that is.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, NoReturn

from rankr1_rag.io.checksum import without_checksum
from rankr1_rag.io.files import FilePath, located, numbered_lines
from rankr1_rag.io.trec import as_word, warn_repeated
from rankr1_rag.types import Passage, Query

Json = dict[str, Any]

# The first name with a value counts.
QUERY_ID = ("query_id", "qid", "id", "_id")
QUERY_TEXT = ("text", "query", "question")
PASSAGE_ID = ("id", "_id", "pid", "docid", "doc_id", "docno", "passage_id")
PASSAGE_TEXT = ("text", "contents", "content", "segment", "passage", "body", "snippet")
TITLE = ("title",)
NESTED = ("doc", "document", "data", "raw")
"""The object inside a passage that has the text if the passage has none."""

DEEPEST = 100
"""Levels of arrays and objects in a line of JSON."""
TOO_DEEP = f"JSON of more than {DEEPEST} levels is nested too deeply to be read: leave out the field that is nested so"

KINDS: dict[str, tuple[type, ...]] = {
    "a boolean": (bool,),
    "a whole number": (int,),
    "a number": (int, float),
    "a string": (str,),
    "an array": (list, tuple),
    "an object": (dict,),
    "null": (type(None),),
    "a string or an object": (str, dict),
    "a whole number or null": (int, type(None)),
}


def read_queries(path: FilePath) -> dict[str, str]:
    """Query id to text, in file order.

    The first line decides between JSON lines and tab-separated `id<TAB>text`. Ids become words, as TREC files need
    them; of several texts with one id the first is kept, with a warning. FileError on a malformed line.
    """
    queries: dict[str, str] = {}
    repeated = []
    for number, record in _records(path):
        query = located(path, number, as_query, record)
        if queries.setdefault(as_word(query.id), query.text) != query.text:
            repeated.append((number, f"query id {query.id!r}"))
    warn_repeated(path, repeated)
    return queries


def read_passages(path: FilePath, wanted: Collection[str] | None = None) -> dict[str, Passage]:
    """Id to passage, in file order; with `wanted` only those ids, as far as the file has them.

    Formats, ids and errors as for `read_queries`.
    """
    kept = None if wanted is None else frozenset(map(as_word, wanted))
    passages: dict[str, Passage] = {}
    repeated = []
    for number, record in _records(path):
        passage = located(path, number, as_passage, record)
        passage = replace(passage, id=as_word(passage.id))
        if (kept is None or passage.id in kept) and passages.setdefault(passage.id, passage) != passage:
            repeated.append((number, f"passage id {passage.id!r}"))
    warn_repeated(path, repeated)
    return passages


def as_query(record: object, default_id: str | None = None) -> Query:
    """A query from a JSON value: an object, or its text alone. ValueError where it is neither, or lacks an id."""
    fields = {"text": record} if isinstance(record, str) else of_kind("the query", record, "a string or an object")
    return Query(
        id_of(fields, QUERY_ID, default_id), text_of(fields, QUERY_TEXT), text_of(fields, ("instruction",), "")
    )


def as_passage(record: object, default_id: str | None = None) -> Passage:
    """A passage from a JSON value: an object, or its text alone. ValueError where it is neither, or lacks an id."""
    fields = {"text": record} if isinstance(record, str) else of_kind("the passage", record, "a string or an object")
    within = first_of(fields, NESTED)
    if within is not None and not fields.get(first_of(fields, PASSAGE_TEXT) or ""):
        nested = of_kind(f'field "{within}"', fields[within], "a string or an object")
        if isinstance(nested, str):  # the document as it is in the index: JSON, or its text
            with suppress(ValueError):
                nested = parse_object(nested)
            nested = {"text": nested} if isinstance(nested, str) else nested
        named = any(fields.get(name) is not None for name in PASSAGE_ID)
        inner = {name: value for name, value in nested.items() if not (named and name in PASSAGE_ID)}
        fields = inner | {name: value for name, value in fields.items() if value not in (None, "")}
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


def field_of(record: Mapping[str, Any], names: Sequence[str], kind: str) -> Any:  # noqa: ANN401
    """The field under the first of the names, which must be there and be of the kind: a key of `KINDS`."""
    name, value = _first(record, names, None)
    return of_kind(f'field "{name}"', value, kind)


def member(record: Mapping[str, Any], name: str, kind: str) -> Any:  # noqa: ANN401
    """The field of an object, which must be there and be of the kind: a key of `KINDS`."""
    return field_of(record, (name,), kind)


def of_kind(what: str, value: object, kind: str) -> Any:  # noqa: ANN401
    """The value itself. ValueError that says what was found instead; true and false are not numbers."""
    if kind == "an array of strings":
        return [of_kind(f"of {what}, {one!r:.20}", one, "a string") for one in of_kind(what, value, "an array")]
    if isinstance(value, KINDS[kind]) and (kind == "a boolean" or not isinstance(value, bool)):
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise ValueError(f"{what} is too great for a number")
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
    """The JSON object that the line is. ValueError for anything else: NaN and Infinity, a wrong checksum behind it."""
    try:
        value = json.loads(without_checksum(line), parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        filter = "'.[]'" if line.lstrip().startswith("[") else "."
        raise ValueError(f"not JSON: {place}; each line must be one whole object (jq -c {filter} FILE)") from error
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if isinstance(value, list):
        raise ValueError("the line is an array where an object is needed: put one on a line (jq -c '.[]' FILE)")
    parsed: Json = of_kind("the line", value, "an object")
    level: list[Any] = [parsed]
    for _ in range(DEEPEST):  # what is kept of it is written again, at the end of a job, in a deeper call
        values = [one.values() if isinstance(one, dict) else one for one in level]
        if not (level := [one for some in values for one in some if isinstance(one, dict | list)]):
            return parsed
    raise ValueError(TOO_DEEP)


def first_of(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of the names with a value that is not empty, else with one that is not null."""
    there = [name for name in names if record.get(name) is not None]
    return next((name for name in there if record[name] not in ("", [])), there[0] if there else None)


def _first(record: Mapping[str, Any], names: Sequence[str], default: str | None) -> tuple[str, Any]:
    if (name := first_of(record, names)) is not None:
        return name, record[name]
    if default is None:
        wanted, found = " or ".join(f'"{name}"' for name in names), ", ".join(f'"{name}"' for name in record)
        raise ValueError(f"field {wanted} is missing or null; the fields are {found or 'none':.200}")
    return names[0], default


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON: write null or leave it out")


def _finite(number: str) -> float:
    if math.isinf(float(number)):
        raise ValueError(f"{number:.80} is too great for a number")
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
