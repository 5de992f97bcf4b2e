"""`rankr1 explain`: prints one query's tournament, comparison by comparison, or writes it as a page."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console

from rankr1_rag.cli.options import CommandSettings, arguments, with_hyphens
from rankr1_rag.cli.report import Job
from rankr1_rag.errors import FileError
from rankr1_rag.explain import PAGE, show, write_page
from rankr1_rag.io.collection import parse_object
from rankr1_rag.io.files import check_output, is_stream, located, numbered_lines
from rankr1_rag.io.jsonl import candidates_from_json, ranking_from_json, ranking_to_json
from rankr1_rag.types import Ranking


def explain(
    input: Annotated[str, typer.Argument(help="Output or input of `rankr1 rerank`; - for standard input.")],
    *,
    settings: CommandSettings,
    query_id: Annotated[str | None, typer.Option("--query", "-q", help="Query id (default: the first query).")] = None,
    html: Annotated[str | None, typer.Option(help="Path for a self-contained page, instead of the terminal.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Number of ranks to show (default: those selected).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The ranking with its trace as JSON.")] = False,
) -> None:
    """Show how one query's ranking came about, with the reasoning.

    A reranked line is shown as it is, without a model. Any other line is reranked first, with the options of the model,
    the prompt and the selection.
    """
    settings.check_files([html], [input])
    check_output(html, PAGE)
    with ExitStack() as stack:
        ranking = _ranking(input, query_id, settings, stack)
        if html is not None:
            try:
                write_page(ranking, html)
            except OSError:
                show(ranking, Console(), top=top)  # the answers may have cost something
                raise
            if not is_stream(html):
                typer.echo(html)
        elif as_json:
            typer.echo(json.dumps(ranking_to_json(ranking)))
        else:
            show(ranking, Console(), top=top)


def _ranking(path: str, query_id: str | None, settings: CommandSettings, stack: ExitStack) -> Ranking:
    """The ranking in the file, or a new one, whose reranker the stack closes."""
    ids = []
    for number, line in numbered_lines(path):
        record = located(path, number, parse_object, line)
        if "rankr1" in record:
            ranking = located(path, number, ranking_from_json, record)
            ids.append(ranking.query.id)
            if query_id in (None, ranking.query.id):
                if ranking.cost.comparisons and not ranking.trace:
                    raise FileError(path, number, "no comparisons, because of --no-trace: rerank without it")
                return ranking
        else:
            work = located(path, number, candidates_from_json, record, number, distances=settings.distances)
            ids.append(work.query.id)
            if query_id in (None, work.query.id):
                job = Job(Console(stderr=True), 1)
                reranker = stack.enter_context(settings.reranker(job))
                job.expect(reranker, len(work.passages))
                model = reranker.plan.backend.model
                typer.echo(f"{path} is not reranked yet: reranking query {work.query.id!r} with {model}", err=True)
                with job, arguments(with_hyphens):
                    return reranker.rank(work.query, work.passages)
    raise FileError(path, None, f"no query has the id {query_id!r}: the first ids are {', '.join(map(repr, ids[:3]))}")
