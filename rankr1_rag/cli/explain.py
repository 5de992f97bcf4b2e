"""`rankr1 explain`: one query's tournament, comparison by comparison, on the terminal or as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console

from rankr1_rag.cli.options import CommandSettings, arguments
from rankr1_rag.cli.report import Job
from rankr1_rag.errors import FileError
from rankr1_rag.explain import show, write_page
from rankr1_rag.io.collection import Json, parse_object
from rankr1_rag.io.files import located, numbered_lines
from rankr1_rag.io.jsonl import candidates_from_json, ranking_from_json, ranking_to_json
from rankr1_rag.types import Ranking


def explain(
    input: Annotated[str, typer.Argument(help="What `rankr1 rerank` wrote, or what it reads; - for standard input.")],
    *,
    settings: CommandSettings,
    query_id: Annotated[str | None, typer.Option("--query", "-q", help="The id of the query; else the first.")] = None,
    html: Annotated[str | None, typer.Option(help="Write a self-contained page here instead.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Ranks to show; else those that were selected.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ranking with its trace as JSON.")] = False,
) -> None:
    """Show how one query's ranking came about, with the reasoning.

    A line that was reranked is shown as it is, without a model; one that was not is reranked first, with the options of
    the model, the prompt and the selection.
    """
    with ExitStack() as stack:
        ranking = _ranking(input, query_id, settings, stack)
        if html is not None:
            write_page(ranking, html)
            typer.echo(html)
        elif as_json:
            typer.echo(json.dumps(ranking_to_json(ranking)))
        else:
            show(ranking, Console(), top=top)


def _ranking(path: str, query_id: str | None, settings: CommandSettings, stack: ExitStack) -> Ranking:
    """The ranking in the file or else a new one, whose reranker the stack closes."""
    for number, record in _records(path):
        if "rankr1" in record:
            ranking = located(path, number, ranking_from_json, record)
            if query_id in (None, ranking.query.id):
                if ranking.cost.comparisons and not ranking.trace:
                    raise FileError(path, number, "written with --no-trace: rerank again to see the comparisons")
                return ranking
        else:
            work = located(path, number, candidates_from_json, record, number)
            if query_id in (None, work.query.id):
                job = Job(Console(stderr=True), 1)
                reranker = stack.enter_context(settings.reranker(job))
                with job, arguments():
                    return reranker.rank(work.query, work.passages)
    raise FileError(path, None, f"no query has the id {query_id!r}")


def _records(path: str) -> Iterator[tuple[int, Json]]:
    for number, line in numbered_lines(path):
        yield number, located(path, number, parse_object, line)
