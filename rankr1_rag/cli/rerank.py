"""`rankr1 rerank`: a file of queries with candidates in, the same reranked out; goes on where it was interrupted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from rankr1_rag.cli.journal import Journal
from rankr1_rag.cli.progress import Job
from rankr1_rag.cli.report import Report
from rankr1_rag.cli.settings import Settings
from rankr1_rag.cli.sources import Work, count_lines, from_json_lines, from_trec
from rankr1_rag.files import writing
from rankr1_rag.jsonlines import ranking_from_json, ranking_to_json, to_line
from rankr1_rag.trec import run_entry, write_run
from rankr1_rag.types import Query, Ranking

Form = StrEnum("Form", ["jsonl", "trec"])

_INPUT = (
    'JSON lines, or - for standard input: {"query": "…", "passages": ["…", {"id": "…", "title": "…", "text": "…"}]}'
)


def rerank(
    input: Annotated[str | None, typer.Argument(help=_INPUT)] = None,
    *,
    settings: Settings,
    run: Annotated[str | None, typer.Option(help="A TREC run to rerank, instead of JSON lines.")] = None,
    queries: Annotated[str | None, typer.Option(help="Its queries: id<TAB>text, or JSON lines.")] = None,
    passages: Annotated[str | None, typer.Option(help="Its passages: id<TAB>text, or JSON lines.")] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Where the result goes; - is standard output.")] = "-",
    to: Annotated[Form | None, typer.Option(help="Its form; the default is that of the input.")] = None,
    depth: Annotated[int, typer.Option(min=1, help="Rerank so many candidates; the others follow as they were.")] = 100,
    tag: Annotated[str, typer.Option(help="The tag of a TREC run.")] = "rankr1",
    trace: Annotated[bool, typer.Option(help="Keep every comparison in JSON lines, for `rankr1 explain`.")] = True,
    restart: Annotated[bool, typer.Option(help="Forget what an interrupted job had finished.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Rerank JSON lines, or a TREC run with its queries and passages.

    Nothing that was finished is lost: an interrupted job goes on with the same command, a query that fails does not
    stop the others, and the candidates beyond --k and --depth follow in first-stage order.
    """
    work, total = _work(input, run, queries, passages)
    form = to or (Form.trec if run else Form.jsonl)
    report = Report()
    job = Job(report.console, total)
    if out == "-":
        if as_json:
            raise ValueError("--json prints a summary on standard output, where the result goes: give it an --out")
        for one, ranking in _ranked(work, settings, depth, report, job):
            _print(form, ranking_to_json(ranking, one.raw, trace=trace), tag)
        report.end(as_json=False)
        return
    if Path(out).exists() and not overwrite:
        raise ValueError(f"{out} exists: give another --out, or --overwrite")
    with Journal(Path(out), {**settings.telling(), "depth": depth}, restart=restart) as journal:
        try:
            for one, ranking in _ranked(work, settings, depth, report, job, journal):
                journal.add(one.index, one.key, ranking_to_json(ranking, one.raw))
        except BaseException:
            report.say(f"stopped: {len(journal)} queries are done and kept, the same command goes on with the rest")
            raise
        if not report.failed:
            _write(out, form, journal.records(), tag, trace)
            journal.finish()
        report.end(as_json=as_json, kept="; the finished ones are kept, the same command asks for the rest again")


def _work(
    input: str | None, run: str | None, queries: str | None, passages: str | None
) -> tuple[Iterable[Work], int | None]:
    """What there is to do, and how much of it, where that can be known."""
    if (input is None) == (run is None):
        raise ValueError("one input is needed: a file of JSON lines, or --run with --queries and --passages")
    if input is not None:
        if queries or passages:
            raise ValueError("--queries and --passages belong to --run: JSON lines hold their own")
        return from_json_lines(input), count_lines(input)
    if run is None or queries is None or passages is None:
        raise ValueError("--run needs --queries and --passages: a run holds only ids")
    work = from_trec(run, queries, passages)
    return work, len(work)


def _ranked(
    work: Iterable[Work], settings: Settings, depth: int, report: Report, job: Job, journal: Journal | None = None
) -> Iterator[tuple[Work, Ranking]]:
    """Each query with its ranking as it is done; failures go to the report, what the journal has is passed over."""
    opened: dict[int, Work] = {}
    numbers = count()

    def items() -> Iterator[tuple[Query, tuple[Any, ...]]]:
        for one in work:
            if journal is not None and journal.done(one.index, one.key):
                report.before += 1
                job.advance()
                continue
            opened[next(numbers)] = one
            yield one.query, one.candidates[:depth]

    with settings.reranker(job.counted(settings.connect())) as reranker, job:
        results = reranker.rank_many(items())
        with closing(results):  # type: ignore[type-var]
            for number, outcome in results:
                one = opened.pop(number)
                job.advance()
                if isinstance(outcome, Exception):
                    report.fail(one.query, outcome)
                    if report.hopeless:
                        return
                else:
                    report.take(outcome)
                    yield one, _whole(outcome, one)


def _whole(ranking: Ranking, one: Work) -> Ranking:
    """The ranking with the candidates beyond the depth behind it, as they were."""
    rest = tuple(range(len(ranking), len(one.candidates)))
    return replace(ranking, candidates=one.candidates, order=ranking.order + rest) if rest else ranking


def _print(form: Form, record: dict[str, Any], tag: str) -> None:
    if form is Form.trec:
        write_run(sys.stdout, [run_entry(ranking_from_json(record))], tag)
    else:
        sys.stdout.write(to_line(record))
    sys.stdout.flush()


def _write(out: str, form: Form, records: Iterator[dict[str, Any]], tag: str, trace: bool) -> None:
    """The result, in the order of the input, whole or not at all."""
    if form is Form.trec:
        write_run(out, (run_entry(ranking_from_json(record)) for record in records), tag)
        return
    with writing(out) as file:
        for record in records:
            if not trace:
                record["rankr1"].pop("trace")
            file.write(to_line(record))
