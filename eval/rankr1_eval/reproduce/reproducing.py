"""One target reproduced: each collection reranked, its orders kept, both orders scored.

    OUT/rerank.jsonl    for each query its order, with the trace; a group has a folder for each collection
    OUT/reranked.trec   the same as a TREC run, once all are there

Knows every part by its values; nothing of the command line. What is asked and finished is never asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankr1_eval import pipeline
from rankr1_eval.asked import asked_with
from rankr1_eval.folder import cost_of
from rankr1_eval.measures import ir
from rankr1_eval.pipeline import Tell, quietly
from rankr1_eval.records import Records
from rankr1_eval.reproduce.figures import rows
from rankr1_eval.reproduce.prepared import Prepared
from rankr1_eval.reproduce.protocol import DEPTH, departures
from rankr1_eval.reproduce.results import Measured, Reproduction
from rankr1_eval.reproduce.targets import Target
from rankr1_rag.reranker import Reranker
from rankr1_rag.trec import Qrels, Run, Scored, write_run
from rankr1_rag.types import Cost

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class Reproducing:
    """What is reproduced, by whom, where it is kept, and to which depth the candidates go."""

    target: Target
    reranker: Reranker
    folder: Path
    depth: int = DEPTH

    def run(self, collections: Iterable[Prepared], tell: Tell = quietly) -> Reproduction:
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
        return {**asked_with(self.reranker), "depth": self.depth}

    def _measured(self, one: Prepared, tell: Tell) -> Measured:
        place = self.folder / one.name.partition("/")[2] if self.target.grouped else self.folder
        place.mkdir(parents=True, exist_ok=True)
        asked = {**asked_with(self.reranker), **one.source}
        with Records(place / "rerank.jsonl", f"rerank {one.name}", asked) as records:
            tell(records.stage, len(one.queries), pipeline.rerank(records, one.queries, one.pool, self.reranker))
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


def _taken(one: Prepared, records: Records) -> tuple[Run, Cost, int]:
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
