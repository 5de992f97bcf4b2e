"""`rankr1-eval compare`: two runs, or the systems of one, side by side."""

from __future__ import annotations

import json
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_rag.cli.options import UsageError, arguments
from rankr1_rag.explain import clean
from rankr1_rag.io.files import check_apart, check_output, writing

if TYPE_CHECKING:
    from rankr1_eval.compare import Pair, Paired

By = StrEnum("By", ["type", "hops"])


def compare(
    first: Annotated[Path, typer.Argument(help="A run's folder, or its scores.json.")],
    second: Annotated[
        Path | None, typer.Argument(help="Another one; differences are this one's minus the first one's.")
    ] = None,
    *,
    against: Annotated[
        str | None, typer.Option(help="System of the first run that all are compared with (default: its namesake).")
    ] = None,
    measures: Annotated[
        str | None, typer.Option(help="Measures, comma-separated, as R@2,R@5,All@5 (default: all).")
    ] = None,
    by: Annotated[By | None, typer.Option(help="Property of questions whose groups are compared apart, too.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for a self-contained page of the comparison.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Comparison as JSON on standard output.")] = False,
) -> None:
    """Compare two finished runs: both means of every system and measure that both have, and the paired difference.

    Or, with --against, the systems of one run. Only questions of both sides count; differences come with a 95 %
    bootstrap interval and the p of a randomisation test.

        rankr1-eval compare runs/hotpotqa-3b runs/hotpotqa-7b --html compare.html

        rankr1-eval compare runs/hotpotqa --against rank-r1 --measures R@5,All@5 --by type
    """
    from rankr1_eval.compare import groups, paired, read
    from rankr1_eval.report.page import PAGE, versus

    if second is None and not against:
        raise UsageError("one run needs --against with one of its systems: add it, or another run")
    for path in (first, second):
        if path is not None and not path.exists():
            raise UsageError(f"{path} does not exist: give a run's folder, or its scores.json")
    named = [name.strip() for name in (measures or "").split(",") if name.strip()]
    check_apart([html, "-" if as_json else None], [first, second])
    check_output(html, PAGE)
    with arguments():
        one = read(first)
        other = read(second) if second is not None else one
        found = paired(one, other, against or "", named, groups(one, by.value) if by else None)
    if html is not None:
        page = versus(found)
        with writing(html, PAGE) as out:
            out.write(page)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    console = Console()
    for note in found.notes:
        console.print(Text(clean(f"Note: {note}"), style="yellow"))
    for _, members in groupby(found.pairs, key=lambda pair: (pair.system, pair.group)):
        console.print(_table(found, list(members)))


def _table(found: Paired, pairs: list[Pair]) -> Table:
    from rankr1_eval.cli.table import difference_style
    from rankr1_eval.report.wording import interval, p_value, percent, points, sides, system_name

    n, group = pairs[0].n, f": {clean(pairs[0].group)}" if pairs[0].group else ""
    title = Text(
        f"{system_name(clean(pairs[0].system))}{group}, {n:,} {'question' if n == 1 else 'questions'}, percent"
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("measure", no_wrap=True)
    for head in sides(pairs[0].system, pairs[0].against, found.first.name, found.second.name):
        table.add_column(Text(clean(head)), justify="right")
    for head in ("difference", "95 % interval", "p"):
        table.add_column(head, justify="right", no_wrap=True)
    for pair in pairs:
        change = pair.difference
        mean = Text(points(change.mean), style=difference_style(change))
        cells = mean, interval(change), p_value(change.p).removeprefix("p ").removeprefix("= ")
        table.add_row(Text(clean(pair.measure)), percent(pair.first), percent(pair.second), *cells)
    return table
