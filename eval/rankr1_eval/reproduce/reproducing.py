"""One target reproduced: each collection reranked, its orders kept, both orders scored.

    OUT/rerank.jsonl    for each query its order, with the trace; a group has a folder for each collection
    OUT/reranked.trec   the same as a TREC run, once all are there

Knows every part by its values; nothing of the command line. What is asked and finished is never asked again.

A reproduction in words: the cells of its table, its verdict, and the page `reproduction.md`.

Knows values; nothing of terminals.

What is reranked: the queries of one collection with their candidates, from a TREC run or from BM25 of our own.

What a query excludes leaves its candidates before they are counted, as the paper's runs have it. Knows collections and
runs; nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from itertools import islice
from pathlib import Path
from typing import Any

from rankr1_eval import pipeline
from rankr1_eval.data.loading import drawn
from rankr1_eval.measures import ir
from rankr1_eval.pipeline import Progress, quietly, result_settings
from rankr1_eval.reproduce.results import Measured, Reproduction, Row, rows
from rankr1_eval.reproduce.targets import DEPTH, Target, departures
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.run_folder import cost_of, stage_records
from rankr1_eval.types import JudgedCollection
from rankr1_rag.errors import FileError
from rankr1_rag.io.journal import Journal
from rankr1_rag.io.trec import Qrels, Run, Scored, read_run, write_run
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Cost, Passage, Query

HEADS = ("row", "nDCG@10", "paper", "Δ first stage", "comp.", "tokens", "s")
CAPTION = (
    "nDCG@10 with its 95 % bootstrap interval; the paper's, the difference from it and whether that is within the "
    "tolerance; the difference from the first stage with the p of a paired randomisation test; comparisons, with the "
    "share of unparsed answers; tokens of prompts + completions; seconds. Costs are means a query."
)


def cells(row: Row) -> tuple[str, ...]:
    """The cells under `HEADS`, of several lines each."""
    said = {"within": f"within {row.tolerance}", "outside": f"OUTSIDE {row.tolerance}", "none": ""}[row.verdict]
    return (
        f"{row.system.rpartition('/')[2]}\n{row.collection}, n {row.ndcg.n:,}",
        f"{row.ndcg.mean:.4f}\n{row.ndcg.low:.3f}-{row.ndcg.high:.3f}",
        "-" if row.difference is None else f"{row.expected:.3f}\n{row.difference:+.4f}\n{said}".rstrip(),
        f"{row.change.mean:+.4f}\np {row.change.p:.4f}" if row.change else "",
        *_costs(row),
    )


def _costs(row: Row) -> tuple[str, ...]:
    if not row.cost:
        return ("",) * 3
    return (
        f"{row.cost['comparisons']:.1f}\n{row.cost['unparsed']:.1%}",
        f"{row.cost['prompt_tokens']:,.0f}\n+ {row.cost['completion_tokens']:,.0f}",
        f"{row.cost['seconds']:.1f}",
    )


def verdict(found: Reproduction) -> str:
    """One sentence: within, outside, or why there is no verdict."""
    row = found.rows[-1]
    measured = f"{found.model} on {found.target}: nDCG@10 {row.ndcg.mean:.4f}"
    if row.verdict == "none":
        return f"NO VERDICT: {measured}; {row.reason}."
    beside = (
        f"the paper has {row.expected:.3f}, a difference of {row.difference:+.4f} where ±{row.tolerance} is allowed"
    )
    return f"{row.verdict.upper()} the tolerance: {measured}, {beside}."


def remarks(found: Reproduction) -> list[str]:
    """A sentence each: how this was asked otherwise than the paper did, labels that were forced, and the notes."""
    said = [f"Asked otherwise than the paper: {'; '.join(found.departures)}."] if found.departures else []
    if forced := found.rows[-1].cost.get("forced"):
        said.append(f"{forced:.1%} of the labels had to be forced: there the model came to no answer by itself.")
    return [*said, *found.notes]


def markdown(found: Reproduction) -> str:
    """The page."""
    said = [_escaped(text) for text in [f"**{verdict(found)}**", *remarks(found)]]
    parts = [f"# {found.target}, {found.model}", *said, "\n".join(_table(found))]
    settings = "\n".join(f"* {name}: {value}" for name, value in found.settings.items())
    return "\n\n".join([*parts, CAPTION, "## Settings", settings]) + "\n"


def _table(found: Reproduction) -> Iterator[str]:
    yield f"| {' | '.join(HEADS)} |"
    yield f"|{'---|' * len(HEADS)}"
    for row in found.rows:
        yield f"| {' | '.join(_escaped(cell).replace(chr(10), '<br>') for cell in cells(row))} |"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("`", "'")


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
    collection: JudgedCollection,
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


def _given(collection: JudgedCollection, judged: Qrels, path: Path) -> Run:
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


def _retrieved(collection: JudgedCollection, judged: Qrels, depth: int) -> Run:
    if collection.everything is None:
        raise ValueError(f"{collection.name} cannot be retrieved from here: give a run")
    corpus = list(islice(collection.everything(), MOST + 1))
    if len(corpus) > MOST:
        raise ValueError(f"{collection.name} has more than {MOST:,} passages, too many to index in memory: give a run")
    queries = [Query(id, collection.queries[id]) for id in judged]
    return bm25(corpus, queries, depth + max((len(ids) for ids in collection.excluded.values()), default=0))


def _kept(scored: Iterable[Scored], excluded: Collection[str], depth: int) -> list[Scored]:
    return list(islice((one for one in scored if one.id not in excluded), depth))


def _passages(collection: JudgedCollection, run: Run, path: Path | None) -> Mapping[str, Passage]:
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


MEASURE = "nDCG@10"


@dataclass(frozen=True)
class Reproducing:
    """What is reproduced, by whom, where it is kept, and to which depth the candidates go."""

    target: Target
    reranker: Reranker
    folder: Path
    depth: int = DEPTH

    def run(self, collections: Iterable[Prepared], tell: Progress = quietly) -> Reproduction:
        """Rerank and score, one collection at a time. StageError where a model failed for some queries."""
        found: list[Measured] = []
        notes: list[str] = []
        for one in collections:
            found.append(self._measured(one, tell))
            notes += _notes(one)
        departed = departures(self.reranker, self.target, self.depth)
        return Reproduction(
            target=self.target.name,
            model=self.reranker.plan.backend.model,
            rows=rows(self.target, self.reranker.plan.backend.model, found, departed),
            settings=self._settings,
            departures=departed,
            notes=tuple(notes),
        )

    @property
    def _settings(self) -> dict[str, Any]:
        return {**result_settings(self.reranker), "depth": self.depth}

    def _measured(self, one: Prepared, tell: Progress) -> Measured:
        place = self.folder / one.name.partition("/")[2] if self.target.grouped else self.folder
        place.mkdir(parents=True, exist_ok=True)
        asked = {**result_settings(self.reranker), **one.source}
        with stage_records(place / "rerank.jsonl", f"rerank {one.name}", asked) as records:
            tell(records.kind, len(one.queries), pipeline.rerank(records, one.queries, one.pool, self.reranker))
            order, costs, failed = _taken(one, records)
        write_run(place / "reranked.trec", order.items())
        return Measured(
            name=one.name,
            first=_scored(one.run, one.qrels),
            reranked=_scored(order, one.qrels),
            cost=costs,
            failed=failed,
            not_ranked=len(one.not_ranked),
            judged=one.judged,
            own=one.own,
        )


def _taken(one: Prepared, records: Journal) -> tuple[Run, Cost, int]:
    """The orders of the queries asked, what they cost together, and how many are no more than the first stage's."""
    order: Run = {}
    costs, failed = Cost(), 0
    for query in one.queries:
        record = records[query.id]
        order[query.id] = [Scored(*pair) for pair in zip(record["order"], record["scores"], strict=True)]
        costs += cost_of(record)
        failed += record["rankr1"].get("failure") is not None
    return order, costs, failed


def _scored(run: Run, qrels: Qrels) -> Mapping[str, float]:
    return ir.score_run(run, qrels, [MEASURE]).each[MEASURE]


def _notes(one: Prepared) -> Iterator[str]:
    if missing := one.not_ranked:
        of = f"{len(missing):,} of {one.judged:,}: {missing[0]}, …"
        yield f"{one.name}: judged queries that are not in the first stage count as 0, {of}"
    if one.own:
        yield f"{one.name}: the first stage is bm25s, not the paper's BM25: give its run for the paper's figures"
