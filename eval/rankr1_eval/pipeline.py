"""The stages of an evaluation: load → retrieve → rerank → read → score.

Each streams one file of records keyed by question id. It asks only for what the file lacks and yields the ids as they
are done, so that a killed run resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TypeVar

from rankr1_eval.predictions import export
from rankr1_eval.report import write_report
from rankr1_eval.run_folder import question_record
from rankr1_eval.scoring import EvaluatedRun, score, to_json
from rankr1_eval.systems import Order
from rankr1_eval.types import Question, Scores, StageError
from rankr1_rag.concurrency import streams
from rankr1_rag.errors import BackendError, UnparsedError
from rankr1_rag.io.checksum import with_checksum
from rankr1_rag.io.files import writing
from rankr1_rag.io.journal import GiveUp, Journal
from rankr1_rag.io.jsonl import ranking_to_json
from rankr1_rag.io.trec import Run
from rankr1_rag.reader import Read, Reader
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Query

T = TypeVar("T")
REFUSED = 32
"""Failures before the first success that end a stage: the model refuses whatever it is asked."""

IRRELEVANT = frozenset({"backend", "in_flight", "on_failure", "retrieve"})
"""Settings of a reranker that no order depends on, and those that `result_settings` writes in its own way."""
LATER: Mapping[str, object] = {
    "hops": 1,
    "clip": "head",
    "strict_format": True,
    "ordered": True,
    "deadline": None,
    "budget_tokens": None,
    "step": None,
    "passes": None,
}
"""Settings that came later, with the value that runs of before had: written only where they differ."""

Progress = Callable[[str, int, Iterator[str]], None]
"""Goes through a stage: its name, its number of questions, their ids as they are done."""

Pool = Callable[[Query], tuple[Passage, ...]]
"""The candidates of a query, first-stage best first."""


def quietly(name: str, total: int, ids: Iterator[str]) -> None:
    """Go through a stage and print nothing."""
    for _ in ids:
        pass


def result_settings(reranker: Reranker) -> dict[str, object]:
    """The settings that a reranker's orders depend on, the open ones decided, with the identity of its model.

    Of `retrieve` only that there is one.
    """
    plan = reranker.plan
    own = {field.name: getattr(reranker, field.name) for field in fields(reranker) if field.name not in IRRELEVANT}
    decided = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name in own}
    retrieve = {"retrieve": True} if reranker.retrieve is not None else {}
    found = {"model": plan.backend.identity, **own, **decided, **retrieve, "format": plan.format.name}
    return {name: value for name, value in found.items() if (name, value) not in LATER.items()}


def finish(run: EvaluatedRun, folder: Path) -> tuple[Scores, str]:
    """Score a run and write scores, report and exports, each file whole or not at all.

    The scores, and what could not be written, or "".
    """
    scores = score(run)
    with writing(folder / "scores.json") as out:
        out.write(with_checksum(json.dumps(to_json(scores))) + "\n")
    write_report(run, scores, folder)
    return scores, export(run, folder)


def laps() -> Callable[[], float]:
    """A function: seconds since its last call. The sum over the records is the time of the stage."""
    times = [time.perf_counter()]

    def lap() -> float:
        times.append(time.perf_counter())
        return times[-1] - times.pop(0)

    return lap


def load(records: Journal, questions: Sequence[Question]) -> Iterator[str]:
    """Keep the questions."""
    for question in questions:
        if question.query.id not in records:
            records.add(question.query.id, question_record(question))
        yield question.query.id


def retrieve(
    records: Journal, questions: Sequence[Question], first_stage: Callable[[list[Query]], Run]
) -> Iterator[str]:
    """Keep the candidates of each question: `first_stage` is called once, for all that are missing."""
    missing = [question.query for question in questions if question.query.id not in records]
    found = first_stage(missing) if missing else {}
    for question in questions:
        if question.query.id not in records:
            records.add(question.query.id, {"candidates": [list(scored) for scored in found[question.query.id]]})
        yield question.query.id


def reorder(
    records: Journal, questions: Sequence[Question], pool: Pool, order: Callable[[Question, Sequence[Passage]], Order]
) -> Iterator[str]:
    """Keep the order of a function, for systems without a reasoning model."""
    lap = laps()
    for question in questions:
        if question.query.id not in records:
            found = pool(question.query)
            ids = [found[position].id for position in order(question, found)]
            records.add(question.query.id, {"order": ids, "seconds": lap()})
        yield question.query.id


def rerank(records: Journal, queries: Sequence[Query], pool: Pool, reranker: Reranker) -> Iterator[str]:
    """Keep the ranking of each query, with its trace. StageError at the end where some failed.

    A query for which an earlier run kept the first-stage order, because the model failed, is asked again.
    """
    missing = [query for query in queries if query.id not in records or records[query.id]["rankr1"].get("failure")]
    asked = {query.id for query in missing}
    yield from (query.id for query in queries if query.id not in asked)
    lap = laps()
    results = reranker.rank_many((query, pool(query)) for query in missing)
    for index, ranking in successes(results, records, len(missing)):
        ids = [passage.id for passage in ranking.passages]
        record = {"order": ids, "scores": list(ranking.scores), "rankr1": ranking_to_json(ranking)["rankr1"]}
        records.add(missing[index].id, {**record, "seconds": lap()})
        yield missing[index].id


def read(
    records: Journal,
    questions: Sequence[Question],
    context: Callable[[Question], Iterable[Passage]],
    reader: Reader,
    in_flight: int,
) -> Iterator[str]:
    """Keep the reader's answer to each question with the passages of `context`. StageError where some failed.

    An answer to another order, of a ranking that has failed since or was asked again, is replaced.
    """
    shown = {question.query.id: tuple(context(question)) for question in questions}
    ids = {id: [passage.id for passage in passages] for id, passages in shown.items()}
    done = {id for id in ids if id in records and records[id]["shown"] == ids[id]}
    missing = [question for question in questions if question.query.id not in done]
    yield from (question.query.id for question in questions if question.query.id in done)
    lap = laps()

    async def work(question: Question) -> Read | Exception:
        try:
            return await reader.read(question.query.text, shown[question.query.id])
        except BackendError as error:
            return error

    for index, found in successes(streams.each(work, missing, in_flight), records, len(missing)):
        id = missing[index].query.id
        records.add(id, {"shown": ids[id], **asdict(replace(found, seconds=lap()))})
        yield id


def successes(results: Iterator[tuple[int, T | Exception]], records: Journal, total: int) -> Iterator[tuple[int, T]]:
    """The results of `total` questions that succeeded, as they come.

    StageError at the end where some failed, or as soon as none succeeds any more. An error that is not the model's is
    raised.
    """
    failed, first = 0, None
    give_up, succeeded = GiveUp(answered=True), bool(len(records))
    with closing(results):  # type: ignore[type-var]
        for index, outcome in results:
            if not isinstance(outcome, Exception):
                give_up.succeed()
                succeeded = True
                yield index, outcome
                continue
            if not isinstance(outcome, BackendError | UnparsedError):
                raise outcome
            failed, first = failed + 1, first or outcome
            give_up.fail(outcome)
            if give_up.is_due or (failed >= REFUSED and not succeeded):
                why = f"gave up after {give_up.in_a_row or failed} in a row; "
                raise StageError(records.kind, failed, total, first, why) from first
    if first is not None:
        raise StageError(records.kind, failed, total, first) from first
