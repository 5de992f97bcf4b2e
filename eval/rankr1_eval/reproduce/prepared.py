"""What is reranked: the queries of one collection with their candidates, from a TREC run or from BM25 of our own.

What a query excludes leaves its candidates before they are counted, as the paper's runs have it. Knows collections and
runs; nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from itertools import islice
from pathlib import Path

from rankr1_eval.data.sample import drawn
from rankr1_eval.retrieve.bm25 import bm25
from rankr1_eval.types import Judged
from rankr1_rag.errors import FileError
from rankr1_rag.trec import Qrels, Run, Scored, read_run
from rankr1_rag.types import Passage, Query

MOST = 1_000_000
"""So many passages are indexed in memory; a larger collection wants a run."""


@dataclass(frozen=True)
class Prepared:
    """One collection, ready. `run` holds the candidates of the queries asked, `qrels` their judgements and those of the
    judged queries that the first stage does not rank, unless this is a sample. `judged` counts the collection's judged
    queries; `source` is what the candidates depend on; `own`: the first stage is bm25s, not a run that was given.
    """

    name: str
    queries: tuple[Query, ...]
    run: Run
    passages: Mapping[str, Passage]
    qrels: Qrels
    judged: int
    source: Mapping[str, object]
    own: bool

    @property
    def not_ranked(self) -> tuple[str, ...]:
        """Judged queries that the first stage does not rank: they count as 0."""
        return tuple(id for id in self.qrels if id not in self.run)

    def pool(self, query: Query) -> tuple[Passage, ...]:
        """Its candidates, best first."""
        return tuple(self.passages[scored.id] for scored in self.run[query.id])


def prepared(
    collection: Judged,
    path: Path | None,
    depth: int = 100,
    sample: int | None = None,
    seed: int = 0,
    files: Iterable[Path] = (),
) -> Prepared:
    """Candidates to this depth, from the run at the path or from BM25 over the collection; all queries or a sample.

    `files` are those that the collection was read from. FileError where the run does not fit the collection, ValueError
    where a collection cannot be indexed here.
    """
    if depth < 2:
        raise ValueError(f"depth={depth}: at least 2, or there is nothing to rerank")
    judged = {id: judgements for id, judgements in collection.qrels.items() if judgements}
    ranked = _given(collection, judged, path) if path else _retrieved(collection, judged, depth)
    kept = {id: _kept(ranked[id], collection.excluded.get(id, ()), depth) for id in judged if id in ranked}
    run = {id: scored for id, scored in kept.items() if scored}
    if sample is not None:
        chosen = drawn(run, sample, seed)
        run = {id: scored for id, scored in run.items() if id in chosen}
    return Prepared(
        name=collection.name,
        queries=tuple(Query(id, collection.queries[id]) for id in run),
        run=run,
        passages=_passages(collection, run, path),
        qrels={id: judged[id] for id in (judged if sample is None else run)},
        judged=len(judged),
        source={
            "collection": collection.name,
            "files": [_digest(file) for file in files],
            "run": _digest(path) if path else "bm25s",
            "depth": depth,
        },
        own=path is None,
    )


def _given(collection: Judged, judged: Qrels, path: Path) -> Run:
    run = read_run(path)
    if not judged.keys() & run.keys():
        there, wanted = (", ".join(map(repr, islice(ids, 3))) for ids in (run, judged))
        raise FileError(
            path,
            None,
            f"it ranks no judged query of {collection.name}: it has {there}, judged are {wanted}. "
            "Are the two of one collection?",
        )
    return run


def _retrieved(collection: Judged, judged: Qrels, depth: int) -> Run:
    if collection.everything is None:
        raise ValueError(f"{collection.name} cannot be retrieved from here: give a run")
    corpus = list(islice(collection.everything(), MOST + 1))
    if len(corpus) > MOST:
        raise ValueError(f"{collection.name} has more than {MOST:,} passages, too many to index in memory: give a run")
    queries = [Query(id, collection.queries[id]) for id in judged]
    return bm25(corpus, queries, depth + max((len(ids) for ids in collection.excluded.values()), default=0))


def _kept(scored: Iterable[Scored], excluded: Collection[str], depth: int) -> list[Scored]:
    return list(islice((one for one in scored if one.id not in excluded), depth))


def _passages(collection: Judged, run: Run, path: Path | None) -> Mapping[str, Passage]:
    """The texts of all candidates, looked up at once."""
    found = collection.passages({scored.id for ranked in run.values() for scored in ranked})
    for query, ranked in run.items():
        if missing := [scored.id for scored in ranked if scored.id not in found]:
            problem = f"query {query!r}: passage {missing[0]!r} is not in {collection.name}"
            raise FileError(path or collection.name, None, f"{problem}, with {len(missing) - 1} more of its passages")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]
