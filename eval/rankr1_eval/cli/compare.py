"""`rankr1-eval compare`: two runs side by side, on the questions that both asked."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_rag.cli.usage import UsageError, arguments
from rankr1_rag.explain import clean

if TYPE_CHECKING:
    from rankr1_eval.paired import Pair, Paired


def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder, or its scores.json.")],
    second: Annotated[Path, typer.Argument(help="Another one; differences are this one's minus the first one's.")],
    *,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained page here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare two finished runs: both means of every row and measure that both have, and the paired difference.

    Only questions that both runs asked count; differences come with a 95 % bootstrap interval and the p of a
    randomisation test.

        rankr1-eval compare runs/hotpotqa-3b runs/hotpotqa-7b --html compare.html
    """
    from rankr1_eval.paired import paired, read

    for path in (first, second):
        if not path.exists():
            raise UsageError(f"{path} does not exist: give a run's folder, or its scores.json")
    scored = read(first), read(second)
    with arguments():
        found = paired(*scored)
    if html is not None:
        from rankr1_eval.report.versus import write_versus

        write_versus(found, html)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        _tell(found, Console())


def _tell(found: Paired, console: Console) -> None:
    for note in found.notes:
        console.print(Text(clean(f"Note: {note}"), style="yellow"))
    for _, members in groupby(found.pairs, key=lambda pair: pair.row):
        console.print(_table(found, list(members)))


def _table(found: Paired, pairs: list[Pair]) -> Table:
    from rankr1_eval.report.wording import interval, p_value, percent, points, row_name, sure

    n = pairs[0].n
    title = Text(f"{row_name(clean(pairs[0].row))}, {n:,} {'question' if n == 1 else 'questions'}, percent")
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("measure")
    for head in (found.first.name, found.second.name, "difference", "95 % interval", "p"):
        table.add_column(Text(clean(head)), justify="right")
    for pair in pairs:
        change = pair.difference
        style = {1: "green", -1: "red", 0: ""}[sure(change)]
        told = Text(points(change.mean), style=style), interval(change), p_value(change.p).removeprefix("p = ")
        table.add_row(Text(clean(pair.measure)), percent(pair.first), percent(pair.second), *told)
    return table
