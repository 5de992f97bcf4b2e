"""What a caller may hand over as a query and as candidates, and what is refused. Knows the words and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from rankr1_rag.types import Passage, Query


def read_query(query: str | Query) -> Query:
    """A `Query` of a query or a text. ValueError where it is empty, TypeError where it is neither."""
    read = Query("", query) if isinstance(query, str) else query
    if not isinstance(read, Query) or not isinstance(read.text, str):
        raise TypeError(f"a query is a str or a Query with a text, not {query!r}")
    if not read.text.strip():
        raise ValueError(f"the query {read.id!r} is empty: there is nothing to rank by")
    return read


def read_candidates(passages: Iterable[Passage | str]) -> tuple[Passage, ...]:
    """Passages of passages and texts; a text gets its position as id. TypeError names the position that is neither."""
    if isinstance(passages, (str, Passage, Mapping, Set)):
        raise TypeError(
            f"passages are a sequence of passages, first-stage best first, not one {type(passages).__name__}"
        )
    return tuple(_passage(position, passage) for position, passage in enumerate(passages))


def _passage(position: int, passage: Passage | str) -> Passage:
    if isinstance(passage, str):
        return Passage(str(position), passage)
    if not isinstance(passage, Passage) or not isinstance(passage.text, str) or not isinstance(passage.title, str):
        raise TypeError(f"passage {position} is neither a str nor a Passage with a text: {passage!r:.200}")
    return passage
