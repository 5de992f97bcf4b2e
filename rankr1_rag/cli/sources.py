"""The queries of the command line: JSON lines, or a TREC run with its queries and passages."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import Json, read_passages, read_queries
from rankr1_rag.io.files import located
from rankr1_rag.io.jsonl import read_candidates
from rankr1_rag.io.trec import read_run, write_run
from rankr1_rag.types import Passage, Query

_ANY_IDS = " (--to jsonl takes any ids, and resumes the job)"


@dataclass(frozen=True, slots=True)
class Work:
    """One query to rerank with all its candidates; `raw` is the JSON object it came as, on its line, None for TREC."""

    index: int
    query: Query
    candidates: tuple[Passage, ...]
    raw: Json | None = None
    line: int | None = None

    @property
    def id(self) -> str:
        """The index, and a digest of the query, the candidates and all other fields of the line."""
        whole = repr((self.query, self.candidates, json.dumps(self.raw, sort_keys=True)))
        return f"{self.index} {sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def is_stream(path: str) -> bool:
    """Whether this is a pipe or a device, which can be read or written only once."""
    place = Path(path)
    device = place.parent in (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
    return path == "-" or device or place.is_fifo() or place.is_char_device()


def from_json_lines(path: str, *, for_run: bool) -> tuple[Iterator[Work], int | None]:
    """One query a line, read lazily, and their number; None for a stream.

    A file is read twice: a malformed line is a FileError here, before anything is requested. In a stream it is one when
    it is reached. `for_run`: the ids must be valid in a TREC run, too.
    """
    if is_stream(path):
        return _json_lines(path, for_run), None
    total = sum(1 for _ in _json_lines(path, for_run))
    return _json_lines(path, for_run), total


def from_trec(run: str, queries: str, passages: str) -> list[Work]:
    """A run with its texts. FileError for texts that the files lack."""
    ranked, texts = read_run(run), read_queries(queries)
    found = read_passages(passages, {scored.id for best in ranked.values() for scored in best})
    _all_there(queries, "queries", run, {id for id in ranked if not texts.get(id, "").strip()})
    _all_there(passages, "passages", run, {s.id for best in ranked.values() for s in best} - found.keys())
    return [
        Work(index, Query(id, texts[id]), tuple(found[scored.id] for scored in best))
        for index, (id, best) in enumerate(ranked.items())
    ]


def _json_lines(path: str, for_run: bool) -> Iterator[Work]:
    _held = sys.stdin  # a thread may still wait in it when Python ends: closing it then would abort
    seen: set[str] = set()
    for index, line in enumerate(read_candidates(path)):
        work = Work(index, line.query, line.passages, line.raw, line.line)
        if for_run:
            located(path, line.line, _check_ids, work, seen)
        yield work


def _check_ids(work: Work, seen: set[str]) -> None:
    if work.query.id in seen:
        raise ValueError(f"query {work.query.id!r} is a duplicate: a run ranks a query once{_ANY_IDS}")
    seen.add(work.query.id)
    places = [(passage.id, -float(place)) for place, passage in enumerate(work.candidates)]
    try:
        if places:
            write_run(io.StringIO(), [(work.query.id, places)])
    except ValueError as error:
        raise ValueError(f"{error}{_ANY_IDS}") from error


def _all_there(path: str, what: str, run: str, missing: set[str]) -> None:
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise FileError(path, None, f"lacks {len(missing)} {what} that {run} ranks, for example {some}")
