"""Where the command line's queries come from: JSON lines, or a TREC run with its queries and passages.

Knows files; knows nothing of models or rankings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from rankr1_rag.collection import Json, read_passages, read_queries
from rankr1_rag.errors import FileError
from rankr1_rag.files import numbered_lines
from rankr1_rag.jsonlines import read_candidates
from rankr1_rag.trec import read_run
from rankr1_rag.types import Passage, Query


@dataclass(frozen=True, slots=True)
class Work:
    """One query to rerank with all its candidates; `raw` is the JSON object it came as, None for TREC."""

    index: int
    query: Query
    candidates: tuple[Passage, ...]
    raw: Json | None

    @property
    def key(self) -> str:
        """A digest of what is to be reranked."""
        return sha256(repr((self.query, self.candidates)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def from_json_lines(path: str) -> Iterator[Work]:
    """A line a query, read as it is reached."""
    for index, line in enumerate(read_candidates(path)):
        yield Work(index, line.query, line.passages, line.raw)


def from_trec(run: str, queries: str, passages: str) -> list[Work]:
    """A run with its texts. FileError naming what the run wants and the files do not hold."""
    ranked, texts = read_run(run), read_queries(queries)
    found = read_passages(passages, {scored.id for best in ranked.values() for scored in best})
    _all_there(queries, "queries", run, ranked.keys() - texts.keys())
    _all_there(passages, "passages", run, {s.id for best in ranked.values() for s in best} - found.keys())
    return [
        Work(index, Query(id, texts[id]), tuple(found[scored.id] for scored in best), None)
        for index, (id, best) in enumerate(ranked.items())
    ]


def count_lines(path: str) -> int | None:
    """How many queries a JSON-lines file holds; None for a stream."""
    return None if path == "-" else sum(1 for _ in numbered_lines(path))


def _all_there(path: str, what: str, run: str, missing: set[str]) -> None:
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise FileError(path, None, f"lacks {len(missing)} {what} that {run} ranks, {some} among them")
