"""`rankr1-eval reproduce`: a table of the paper, measured again by one command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_eval.cli.options import WARNING, Material, Stages, is_embedded, repeatable
from rankr1_eval.reproduce.results import CAPTION, HEADS, Reproduction, cells, markdown, remarks, verdict
from rankr1_eval.reproduce.targets import KNOWN, REASONING_TOKENS, Target
from rankr1_eval.run_folder import made
from rankr1_rag.checkpoints import BASE, CHECKPOINTS
from rankr1_rag.cli.options import CommandSettings, arguments
from rankr1_rag.cli.report import Job
from rankr1_rag.explain import clean
from rankr1_rag.io.files import writing

STYLES = {"within": "bold green", "outside": "bold red", "none": "bold yellow"}


def reproduce(
    target: Annotated[str, typer.Argument(help=f"One of {KNOWN}.")],
    *,
    material: Material,
    settings: CommandSettings,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the run; one that is there goes on. [default: runs/reproduce/TARGET]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a table of the Rank-R1 paper again: its nDCG@10 beside what is found, within its tolerance or not.

    Asked as the paper did where no option says otherwise: see docs/reproduction.md. Killed at any moment, the same
    command goes on where it was. In OUT: reranked.trec, reproduction.md and reproduction.json.
    """
    with arguments():
        wanted = material.target(target)
    folder = out or Path("runs") / "reproduce" / target.replace("/", "-")
    made(folder)
    job = Job(Console(stderr=True), None)
    with _settled(settings, wanted, folder).reranker(job) as reranker, arguments():
        from rankr1_eval.reproduce import reproducing

        collections = material.prepared(wanted, settings.seed)
        with job:
            stages = Stages(job, Console(stderr=True), "queries")
            found = reproducing.reproduce(wanted, reranker, folder, collections, material.depth, stages)
    _keep(found, folder)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        _tell(Console(), found, folder)


def _settled(settings: CommandSettings, target: Target, folder: Path) -> CommandSettings:
    """The paper's settings where none are given, the embedded model's own where it is asked, a store in the folder."""
    embedded = is_embedded(settings)
    known = embedded or settings.model in CHECKPOINTS
    thinks, force, store = settings.reasoning_tokens, settings.force, settings.store
    query, passage = settings.query_tokens, settings.passage_tokens
    return replace(
        repeatable(settings),
        reasoning_tokens=REASONING_TOKENS if thinks is None and not known else thinks,
        force="never" if force is None and not embedded else force,
        query_tokens=target.query_tokens if query is None and not embedded else query,
        passage_tokens=target.passage_tokens if passage is None and not embedded else passage,
        store=str(folder / "completions.sqlite") if store is None else store,
    )


def _keep(found: Reproduction, folder: Path) -> None:
    with writing(folder / "reproduction.json") as out:
        json.dump(found.to_json(), out, indent=1)
    with writing(folder / "reproduction.md") as out:
        out.write(markdown(found))


def _tell(console: Console, found: Reproduction, folder: Path) -> None:
    table = Table(HEADS[0], box=box.SIMPLE_HEAD, caption=CAPTION)
    for head in HEADS[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(*(Text(clean(cell)) for cell in cells(row)))
    console.print(table)
    for remark in remarks(found):
        console.print(Text(clean(remark), style="dim"))
    console.print(Text(clean(verdict(found)), style=STYLES[found.rows[-1].verdict]))
    if found.model == BASE:
        console.print(Text(WARNING, style="yellow"))
    console.print(Text(f"The same, the run and every comparison: {clean(str(folder))}"))
