"""Reproduces a target: each collection is reranked, its orders are kept, and both orders are scored.

    OUT/rerank.jsonl    for each query its order, with the trace; a group has a folder for each collection
    OUT/reranked.trec   the same as a TREC run, once all are there

A finished query is never asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from itertools import islice
from pathlib import Path

from rankr1_eval import pipeline
from rankr1_eval.data.fields import by_word
from rankr1_eval.data.loading import drawn
from rankr1_eval.pipeline import Progress, quietly, result_settings
from rankr1_eval.reproduce.results import MEASURE, MeasuredCollection, Reproduction, table_rows
from rankr1_eval.reproduce.targets import DEPTH, Target, departures
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.run_folder import JOURNAL, RANKING, cost_of, stage_records
from rankr1_eval.types import JudgedCollection
from rankr1_rag.errors import FileError
from rankr1_rag.io.files import claim_folder, writing
from rankr1_rag.io.journal import Journal
from rankr1_rag.io.trec import Qrels, Run, Scored, as_word, read_run, write_run
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Cost, Passage, Query

log = logging.getLogger("rankr1_rag")
MOST = 1_000_000
"""The most passages that are indexed in memory; a larger collection needs a run."""


@dataclass(frozen=True)
class PreparedCollection:
    """One collection, ready to be reranked.

    `run` holds the candidates of the queries asked, `qrels` their judgements and, unless this is a sample, those of the
    judged queries that the first stage does not rank. `judged` counts the collection's judged queries; `source` is
    whatever the candidates depend on; `own`: the first stage is bm25s, not a run.
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


def prepare(
    collection: JudgedCollection,
    path: Path | None,
    depth: int = DEPTH,
    sample: int | None = None,
    seed: int = 0,
    files: Iterable[Path] = (),
    distances: bool = False,
) -> PreparedCollection:
    """Candidates to this depth, from the run at the path or from BM25 over the collection; all queries or a sample.

    A query's excluded passages leave its candidates before they are counted, as in the paper's runs. `files` are those
    that the collection was read from; `distances`: those are the scores of the run. FileError if the run does not fit
    the collection, ValueError if a collection cannot be indexed here.
    """
    if depth < 2:
        raise ValueError(f"depth={depth}: at least 2, or there is nothing to rerank")
    judged = {id: judgements for id, judgements in collection.qrels.items() if judgements}
    ranked = read_run(path, distances=distances) if path else retrieve(collection, judged, depth)
    run: Run = {}
    for id in judged:
        excluded = collection.excluded.get(id, ())
        if kept := list(islice((one for one in ranked.get(id, ()) if one.id not in excluded), depth)):
            run[id] = kept
    if not run:
        there, wanted = (", ".join(map(repr, islice(ids, 3))) for ids in (ranked, judged))
        problem = f"it ranks no judged query of {collection.name}: it has {there}, judged are {wanted}. Are the two of"
        raise FileError(path or collection.name, None, f"{problem} one collection, and not all passages excluded?")
    if sample is not None:
        chosen = drawn(run, sample, seed)
        run = {id: scored for id, scored in run.items() if id in chosen}
    passages = collection.passages({scored.id for scored_list in run.values() for scored in scored_list})
    for id, scored_list in run.items():
        if broken := [one for one in (id, *(scored.id for scored in scored_list)) if one != as_word(one)]:
            problem = f"the id {broken[0]!r} is not one word, as the run to be written needs: change it in the files"
            raise FileError(path or collection.name, None, problem)
        if missing := [scored.id for scored in scored_list if scored.id not in passages]:
            problem = f"query {id!r}: passage {missing[0]!r} is not in {collection.name}"
            raise FileError(path or collection.name, None, f"{problem}, with {len(missing) - 1} more of its passages")
    return PreparedCollection(
        name=collection.name,
        queries=tuple(Query(id, collection.queries[id]) for id in run),
        run=run,
        passages=passages,
        qrels={id: judged[id] for id in (judged if sample is None else run)},
        judged=len(judged),
        source={
            "collection": collection.name,
            "files": [digest(file) for file in files],
            "run": digest(path) if path else "bm25s",
            "depth": depth,
        },
        own=path is None,
    )


def retrieve(collection: JudgedCollection, judged: Qrels, depth: int) -> Run:
    """The BM25 order of the judged queries, deep enough for the excluded passages too."""
    if collection.everything is None:
        raise ValueError(f"{collection.name} cannot be retrieved from here: give a run")
    found = list(islice(collection.everything(), MOST + 1))
    corpus = list(by_word((passage.id, passage) for passage in found).values())
    if len(corpus) < len(found):
        log.warning(
            "%s: %d passages repeat an id: the first of each is kept", collection.name, len(found) - len(corpus)
        )
    if len(found) > MOST:
        raise ValueError(f"{collection.name} has more than {MOST:,} passages, too many to index in memory: give a run")
    queries = [Query(id, collection.queries[id]) for id in judged]
    return bm25(corpus, queries, depth + max(map(len, collection.excluded.values()), default=0))


def digest(path: Path) -> str:
    """The start of the file's SHA-256."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()[:16]


def reproduce(
    target: Target,
    reranker: Reranker,
    folder: Path,
    collections: Iterable[PreparedCollection],
    depth: int = DEPTH,
    tell: Progress = quietly,
) -> Reproduction:
    """Rerank and score, one collection at a time. StageError if a model failed for some queries.

    FileError, before anything is asked, where a folder holds the orders of other settings.
    """
    found: list[MeasuredCollection] = []
    notes: list[str] = []
    collections = list(collections)
    places = [folder / one.name.partition("/")[2] if target.grouped else folder for one in collections]
    for one, place in zip(collections, places, strict=True):  # whatever is wrong with one is known before a model works
        claim_folder(place, "rerank.jsonl", JOURNAL, ["reranked.trec"])
        records_of(one, reranker, place).close()
    for one, place in zip(collections, places, strict=True):
        found.append(measure(one, reranker, place, tell))
        if missing := one.not_ranked:
            of = f"{len(missing):,} of {one.judged:,}: {missing[0]}, …"
            notes.append(f"{one.name}: judged queries that are not in the first stage count as 0, {of}")
        if one.own:
            notes.append(f"{one.name}: the first stage is bm25s, not the paper's BM25: give its run for its figures")
    model, departed = reranker.plan.backend.model, departures(reranker, target, depth)
    rows = table_rows(target, model, found, departed)
    return Reproduction(target.name, model, rows, {**result_settings(reranker), "depth": depth}, departed, tuple(notes))


def records_of(one: PreparedCollection, reranker: Reranker, folder: Path) -> Journal:
    """The orders of a collection, begun or resumed. FileError where they were made with other settings."""
    settings = {**result_settings(reranker), **one.source}
    return stage_records(folder / "rerank.jsonl", f"rerank {one.name}", settings, RANKING)


def measure(one: PreparedCollection, reranker: Reranker, folder: Path, tell: Progress) -> MeasuredCollection:
    """Rerank a collection, or the rest of it, and score both orders."""
    from rankr1_eval.measures import ir

    order: Run = {}
    cost, failed = Cost(), 0
    with records_of(one, reranker, folder) as records:
        tell(records.kind, len(one.queries), pipeline.rerank(records, one.queries, one.pool, reranker))
        for query in one.queries:
            record = records[query.id]
            order[query.id] = [Scored(*pair) for pair in zip(record["order"], record["scores"], strict=True)]
            cost += cost_of(records, query.id)
            failed += record["rankr1"].get("failure") is not None
    with writing(folder / "reranked.trec") as out:
        write_run(out, order.items())
    first, reranked = (ir.score_run(run, one.qrels, [MEASURE]).each[MEASURE] for run in (one.run, order))
    return MeasuredCollection(one.name, first, reranked, cost, failed, len(one.not_ranked), one.judged, one.own)
