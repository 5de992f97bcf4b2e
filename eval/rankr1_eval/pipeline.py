"""The stages between the questions and the scores, each a function that streams one JSON-lines file keyed by id.

    load → retrieve → rerank → read → score

A stage asks only for what its file lacks and yields the ids as they are done, so a killed run goes on where it was.
Knows values, records and how to ask; nothing of the command line.

What the orders of a reranker depend on, for the first line of their records. Knows settings; asks nothing.

What a finished run leaves in its folder: scores, report, and the forms for other programs.

Knows what each is called; nothing of how it is made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from rankr1_eval.predictions import export
from rankr1_eval.reader import Reader
from rankr1_eval.report import write_report
from rankr1_eval.run_folder import Records, question_record, reranked_record
from rankr1_eval.scoring import EvaluatedRun, Read, score, to_json
from rankr1_eval.systems import Order
from rankr1_eval.types import Question, Scores, StageError
from rankr1_rag.concurrency import streams
from rankr1_rag.errors import BackendError, BackendUnavailable, UnparsedError
from rankr1_rag.io.files import writing
from rankr1_rag.io.trec import Run
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Query

BESIDE = frozenset({"backend", "in_flight", "on_failure", "retrieve"})
LATER: Mapping[str, object] = {"hops": 1}
"""Settings that came later, as it was before: told where they are otherwise, so that runs of that time go on."""


def asked_with(reranker: Reranker) -> dict[str, object]:
    """Its settings, the open ones decided, and the identity of its model; without what is speed and patience.

    Of `retrieve` it is told that there is one.
    """
    plan = reranker.plan
    told = {field.name: getattr(reranker, field.name) for field in fields(reranker) if field.name not in BESIDE}
    decided = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name in told}
    again = {"retrieve": True} if reranker.retrieve is not None else {}
    asked = {"model": plan.backend.identity, **told, **decided, **again, "format": plan.format.name}
    return {name: value for name, value in asked.items() if (name, value) not in LATER.items()}


def finish(run: EvaluatedRun, folder: Path) -> tuple[Scores, str]:
    """Score a run and write it all, each file whole or not at all. The scores; and what could not be written, or ""."""
    scores = score(run)
    with writing(folder / "scores.json") as out:
        json.dump(to_json(scores), out)
    write_report(run, scores, folder)
    return scores, export(run, folder)


T = TypeVar("T")

GONE, WRONG = 8, 32
"""A stage gives up after so many failures in a row: the model is not there, or refuses whatever it is asked."""


Tell = Callable[[str, int, Iterator[str]], None]
"""Goes through a stage: its name, how many questions it has, their ids as they are done."""


def quietly(name: str, total: int, ids: Iterator[str]) -> None:
    """Go through a stage and tell nobody."""
    for _ in ids:
        pass


class Watch:
    """Wall time since it was last asked: the sum over the records is what the stage took."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last one."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def load(records: Records, questions: Sequence[Question]) -> Iterator[str]:
    """Keep the questions."""
    for question in questions:
        if question.query.id not in records:
            records.add(question.query.id, question_record(question))
        yield question.query.id


def retrieve(
    records: Records, questions: Sequence[Question], first_stage: Callable[[list[Query]], Run]
) -> Iterator[str]:
    """Keep the candidates of each question: `first_stage` is asked once, for all that are missing."""
    missing = [question.query for question in questions if question.query.id not in records]
    found = first_stage(missing) if missing else {}
    for question in questions:
        if question.query.id not in records:
            records.add(question.query.id, {"candidates": [list(scored) for scored in found[question.query.id]]})
        yield question.query.id


def candidates(record: Mapping[str, Any], passages: Mapping[str, Passage]) -> tuple[Passage, ...]:
    """The candidates that `retrieve` kept."""
    return tuple(passages[id] for id, _ in record["candidates"])


Pool = Callable[[Query], tuple[Passage, ...]]
"""The candidates of a query, first-stage best first."""


def reorder(
    records: Records, questions: Sequence[Question], pool: Pool, order: Callable[[Question, Sequence[Passage]], Order]
) -> Iterator[str]:
    """Keep the order that a function gives, for systems without a reasoning model."""
    watch = Watch()
    for question in questions:
        if question.query.id not in records:
            found = pool(question.query)
            ids = [found[position].id for position in order(question, found)]
            records.add(question.query.id, {"order": ids, "seconds": watch.lap()})
        yield question.query.id


def rerank(records: Records, queries: Sequence[Query], pool: Pool, reranker: Reranker) -> Iterator[str]:
    """Keep the ranking of each query, with its trace. StageError at the end where some failed.

    A query for which an earlier run kept the first-stage order, because the model failed, is asked again.
    """
    missing = [query for query in queries if query.id not in records or records[query.id]["rankr1"].get("failure")]
    asked = {query.id for query in missing}
    yield from (query.id for query in queries if query.id not in asked)
    watch, failures = Watch(), Failures(records, len(missing))
    for index, ranking in failures.apart(reranker.rank_many((query, pool(query)) for query in missing)):
        records.add(missing[index].id, reranked_record(ranking, watch.lap()))
        yield missing[index].id


def read(
    records: Records,
    questions: Sequence[Question],
    context: Callable[[Question], Iterable[Passage]],
    reader: Reader,
    in_flight: int,
) -> Iterator[str]:
    """Keep what the reader says of each question with the passages of `context`. StageError where some failed.

    What was read in another order, of a ranking that has failed since or was asked again, is read anew.
    """
    shown = {question.query.id: tuple(context(question)) for question in questions}
    ids = {id: [passage.id for passage in passages] for id, passages in shown.items()}
    done = {id for id in ids if id in records and records[id]["shown"] == ids[id]}
    missing = [question for question in questions if question.query.id not in done]
    yield from (question.query.id for question in questions if question.query.id in done)
    watch, failures = Watch(), Failures(records, len(missing))

    def work(question: Question) -> Coroutine[Any, Any, Read | Exception]:
        return _caught(reader.read(question.query.text, shown[question.query.id]))

    for index, found in failures.apart(streams.each(work, missing, in_flight)):
        id = missing[index].query.id
        records.add(id, {"shown": ids[id], **asdict(replace(found, seconds=watch.lap()))})
        yield id


async def _caught(reading: Coroutine[Any, Any, Read]) -> Read | Exception:
    try:
        return await reading
    except BackendError as error:
        return error


class Failures:
    """What failed in a stage: told at the end, or at once where nothing comes back any more."""

    def __init__(self, records: Records, asked: int) -> None:
        self._stage, self._asked, self._answered = records.stage, asked, bool(len(records))
        self._failed = self._in_a_row = 0
        self._unavailable = True
        self._first: Exception | None = None

    def apart(self, results: Iterator[tuple[int, T | Exception]]) -> Iterator[tuple[int, T]]:
        """What succeeded, as it comes; StageError at the end where something did not, or where nothing does."""
        with closing(results):  # type: ignore[type-var]
            for index, outcome in results:
                if isinstance(outcome, Exception):
                    self._take(outcome)
                    continue
                self._in_a_row, self._unavailable, self._answered = 0, True, True
                yield index, outcome
        self._tell()

    def _take(self, error: Exception) -> None:
        if not isinstance(error, BackendError | UnparsedError):
            raise error  # not the model's fault: an argument that only a question shows, or ours
        self._first = self._first or error
        self._failed += 1
        self._in_a_row += 1
        self._unavailable &= isinstance(error, BackendUnavailable)
        gone, wrong = self._unavailable and self._in_a_row >= GONE, not self._answered and self._in_a_row >= WRONG
        if gone or wrong:
            self._tell(f"gave up after {self._in_a_row} in a row; ")

    def _tell(self, why: str = "") -> None:
        if self._first is not None:
            raise StageError(self._stage, self._failed, self._asked, self._first, why) from self._first
