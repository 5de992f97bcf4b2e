"""`rankr1 rerank`: a file of queries with candidates is reranked; an interrupted job resumes."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from rankr1_rag.backends.wrappers.cache import APPLICATION_ID
from rankr1_rag.cli.options import CommandSettings, UsageError, arguments, with_hyphens
from rankr1_rag.cli.report import Job, Report, queries_of
from rankr1_rag.errors import FileError, StoreError
from rankr1_rag.explain.story import counted
from rankr1_rag.io.collection import Json, member, read_passages, read_queries
from rankr1_rag.io.files import NOTHING, check_output, is_stream, located, writing
from rankr1_rag.io.journal import Journal
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, read_candidates, to_line
from rankr1_rag.io.trec import RUN, read_run, run_entry, write_run
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Query, Ranking

log = logging.getLogger("rankr1_rag")


@dataclass(frozen=True, slots=True)
class Asking:
    """The queries of a job, its depth, its report and its bar. `live`: the queries come from a stream."""

    reranker: Reranker
    work: Iterable[Work]
    depth: int
    report: Report
    job: Job
    live: bool
    finished: dict[int, str] = field(default_factory=dict)
    """By index the ids in the journal of this run's queries."""

    def ranked(self, journal: Journal | None = None) -> Iterator[tuple[Work, Ranking]]:
        """Each query with its ranking when it is done. Failures go to the report; the journal's queries are skipped."""
        opened: dict[int, Work] = {}
        numbers = count()

        def items() -> Iterator[tuple[Query, tuple[Passage, ...]]]:
            for one in self.work if journal is None else self._rest(journal):
                opened[next(numbers)] = one
                self.job.expect(self.reranker, len(candidates := one.candidates[: self.depth]))
                yield one.query, candidates

        results = self.reranker.rank_many(items(), live=self.live)
        with self.job, closing(results):  # type: ignore[type-var]
            for number, outcome in results:
                one = opened.pop(number)
                if not isinstance(outcome, Exception):
                    self.job.advance(outcome.cost.comparisons)
                    self.report.take(outcome)
                    beyond = tuple(range(len(outcome), len(one.candidates)))  # the depth
                    yield one, replace(outcome, candidates=one.candidates, order=outcome.order + beyond)
                    continue
                self.job.advance()
                self.report.fail(one.query, outcome)
                if self.report.give_up.is_due:
                    if journal is not None:
                        journal.note(gave_up_at=one.index)
                    return

    def _rest(self, journal: Journal) -> Iterator[Work]:
        """The queries that are not done: first those behind the place where the last run gave up, then the others."""
        before = []
        for one in self.work:
            if one.id in journal:
                self.finished[one.index] = one.id
                self.report.before += 1
                self.job.skip()
            elif one.index <= (at if isinstance(at := journal.notes.get("gave_up_at"), int) else -1):
                before.append(one)
            else:
                yield one
        yield from before


Form = StrEnum("Form", ["jsonl", "trec"])
RESULT = re.compile(rb"\A\{.*\"rankr1\": \{|" + RUN.pattern)
"""The beginning of a result."""


@dataclass(frozen=True, slots=True)
class Result:
    """The format of the results. UsageError for a tag that no run can have."""

    form: Form
    tag: str
    trace: bool

    def __post_init__(self) -> None:
        if self.form is Form.trec:
            with arguments():
                write_run(io.StringIO(), [("any", [("any", 1.0)])], self.tag)

    def write(self, file: TextIO, record: dict[str, Any]) -> None:
        """The lines of one query. A query without candidates has none in a run."""
        if self.form is Form.trec:
            if (ranking := ranking_from_json(record)).passages:
                write_run(file, [run_entry(ranking)], self.tag)
            return
        if not self.trace:
            member(record, "rankr1", "an object").pop("trace", None)
        file.write(to_line(record))


_KEPT = (
    "; the finished ones are kept, and the same command tries the others again; with --on-failure first_stage those "
    "that fail again keep their first-stage order"
)
_INPUT = (
    'JSON lines, or - for standard input: {"query": "…", "passages": ["…", {"id": "…", "title": "…", "text": "…"}]}, '
    "or those of RankLLM, Anserini, DPR or Cohere."
)


def rerank(
    input: Annotated[str | None, typer.Argument(help=_INPUT)] = None,
    *,
    settings: CommandSettings,
    run: Annotated[str | None, typer.Option(help="TREC run to rerank, instead of JSON lines.")] = None,
    queries: Annotated[str | None, typer.Option(help="Queries of the run: id<TAB>text, or JSON lines.")] = None,
    passages: Annotated[str | None, typer.Option(help="Passages of the run: id<TAB>text, or JSON lines.")] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="File of the result; - is standard output.")] = "-",
    to: Annotated[Form | None, typer.Option(help="Format of the result (default: that of the input).")] = None,
    depth: Annotated[
        int, typer.Option(min=1, help="Number of candidates to rerank; the others follow unchanged.")
    ] = 100,
    tag: Annotated[str, typer.Option(help="Tag of a TREC run.")] = "rankr1",
    trace: Annotated[bool, typer.Option(help="Comparisons in JSON lines, for `rankr1 explain`.")] = True,
    restart: Annotated[
        bool, typer.Option(help="New start, without the results of an interrupted job (OUT.partial).")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replacement of the file at --out, at the end of the job.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON.")] = False,
) -> None:
    """Rerank JSON lines, or a TREC run with its queries and passages.

    An interrupted job resumes with the same command and requests no completion twice. A query that fails does not stop
    the others. The candidates beyond --k and --depth follow in first-stage order. Python and `rankr1-eval qa` can also
    retrieve more between two hops.
    """
    result = Result(to or (Form.trec if run else Form.jsonl), tag, trace)
    if as_json and out in ("-", "/dev/stdout"):
        raise UsageError("--json prints a summary on standard output, like the result: use --out")
    path = Path(out)
    own = [] if is_stream(out) else [Path(f"{path}.partial"), Path(f"{path}.partial.sqlite")]
    settings.check_files([out, *own], [input, run, queries, passages])
    if own and path.is_file() and not overwrite:
        raise UsageError(f"{out} exists: use another --out, or --overwrite")
    ours: re.Pattern[bytes] | None = NOTHING
    if overwrite:  # through a link, or among the files of a model, only what is a result
        folders = [os.path.realpath(one) for one in settings.inputs]
        ours = RESULT if path.is_symlink() or os.path.realpath(path.parent) in folders else None
    check_output(out, ours)
    work, total = _work(input, run, queries, passages, result.form, settings.distances)
    report = Report(with_hyphens)
    job = Job(report.console, total)
    if is_stream(out):
        try:
            with settings.reranker(job) as reranker, writing(out) as file:
                for one, ranking in Asking(reranker, work, depth, report, job, live=total is None).ranked():
                    result.write(file, ranking_to_json(ranking, one.raw))
                    file.flush()
        except OSError as error:
            if settings.store is None and not isinstance(error, BrokenPipeError):
                report.say("stopped: only what was written is kept; --out with a file, or --store, keeps every answer")
            raise
        report.end(as_json=as_json)
        return
    with (
        Journal(
            own[0],
            "rankr1 rerank",
            {**settings.fingerprint(), "depth": depth},
            {"record": "an object"},
            remedy="begin again with --restart",
            restart=restart,
            temporary=True,
        ) as journal,
        _reranker(settings, job, journal, restart) as reranker,
    ):
        _keep(out, ours, result, Asking(reranker, work, depth, report, job, live=total is None), journal)
        report.end(as_json=as_json, kept=_KEPT)


def remove_store(path: Path) -> None:
    """Remove a store with its journals; any other file is left unchanged."""
    with suppress(OSError), path.open("rb") as file:
        if not path.is_symlink() and file.read(72)[68:] == APPLICATION_ID.to_bytes(4):
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)


@contextmanager
def _reranker(settings: CommandSettings, job: Job, journal: Journal, restart: bool) -> Iterator[Reranker]:
    """The reranker of a job; without --store it keeps completions in a store next to the journal until the job is done.

    A file of the user at that place is left unchanged, and the job does without a store. The journal's lock keeps other
    processes away. A store that cannot be saved withholds no result: the reranker is closed after it was written.
    """
    if settings.store is not None:
        with settings.reranker(job) as reranker:
            yield reranker
        return
    store = journal.path.with_name(journal.path.name + ".sqlite")
    if restart:
        remove_store(store)
    is_new, done = not store.exists(), False
    try:
        try:
            reranker = replace(settings, store=store).reranker(job)
        except StoreError as error:
            log.warning("completions are not kept, a killed job would request them again: %s", error)
            reranker = settings.reranker(job)
        with reranker:
            yield reranker
            done = True
    except StoreError:
        if not done:
            raise
    finally:
        if done or (is_new and not job.completions):
            remove_store(store)


def _work(
    input: str | None, run: str | None, queries: str | None, passages: str | None, form: Form, distances: bool
) -> tuple[Iterable[Work], int | None]:
    """The queries, and their number, None for a stream."""
    if (input is None) == (run is None):
        raise UsageError("one input is needed: a file of JSON lines, or --run with --queries and --passages")
    if input is not None:
        if queries or passages:
            raise UsageError("--queries and --passages belong to --run: JSON lines hold their own")
        lines, again = (_json_lines(input, form is Form.trec, distances) for _ in range(2))
        # A file is read twice: a malformed line is an error before anything is requested.
        return lines, None if is_stream(input) else sum(1 for _ in again)
    if run is None or queries is None or passages is None:
        raise UsageError("--run needs --queries and --passages: a run holds only ids")
    ranked, texts = read_run(run, distances=distances), read_queries(queries)
    found = read_passages(passages, {scored.id for best in ranked.values() for scored in best})
    no_query = {id for id in ranked if not texts.get(id, "").strip()}
    no_passage = {scored.id for best in ranked.values() for scored in best} - found.keys()
    for path, what, missing in ((queries, "queries", no_query), (passages, "passages", no_passage)):
        if missing:
            some = f"lacks {len(missing)} of the {what} in {run}, for example {', '.join(sorted(missing)[:3])}"
            raise FileError(path, None, f"{some}: add them, or remove them from the run")
    work = [
        Work(index, Query(id, texts[id]), tuple(found[scored.id] for scored in best))
        for index, (id, best) in enumerate(ranked.items())
    ]
    return work, len(work)


def _keep(out: str, ours: re.Pattern[bytes] | None, result: Result, asking: Asking, journal: Journal) -> None:
    """Keep each result in the journal, then write all of them in the order of the input, whole or not at all."""
    report = asking.report
    try:
        for one, ranking in asking.ranked(journal):
            journal.add(one.id, {"record": ranking_to_json(ranking, one.raw)})
            asking.finished[one.index] = one.id
        if report.failed:
            return
        with writing(out, ours) as file:
            for _, id in sorted(asking.finished.items()):
                try:
                    result.write(file, journal[id]["record"])
                except ValueError as error:
                    raise journal.damaged(id, error) from error
    except BaseException:
        done = f"{queries_of(len(journal))} done and kept" if len(journal) else "no query is done yet"
        report.say(f"stopped: {done}, the same command resumes" + (f" ({journal.path})" if journal else ""))
        raise
    if left_out := len(journal) - len(asking.finished):
        report.say(f"{counted(left_out, 'record')} of another input left out")
    journal.clear()


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


def _json_lines(path: str, for_run: bool, distances: bool) -> Iterator[Work]:
    _held = sys.stdin  # a thread may still wait in it when Python ends: closing it then would abort
    seen: set[str] = set()
    for index, line in enumerate(read_candidates(path, distances=distances)):
        work = Work(index, line.query, line.passages, line.raw, line.line)
        if for_run:
            located(path, line.line, _check_ids, work, seen)
        yield work


def _check_ids(work: Work, seen: set[str]) -> None:
    places = [(passage.id, -float(place)) for place, passage in enumerate(work.candidates)]
    try:
        if work.query.id in seen:
            raise ValueError(f"query {work.query.id!r} is a duplicate: a run ranks a query once")
        if places:
            write_run(io.StringIO(), [(work.query.id, places)])
    except ValueError as error:
        raise ValueError(f"{error} (--to jsonl takes any ids, and resumes the job)") from error
    seen.add(work.query.id)
