"""What single comparisons came to, as tables for the terminal. Knows results and how they are spelled."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_eval.comparisons import MODEL, RIGHT, Group, Result
from rankr1_eval.report.wording import amount, interval, p_value, percent, points, sure
from rankr1_eval.scores import Difference, Estimate
from rankr1_rag.explain import clean

NAMES = {"first": "shown first", "bm25": "BM25", "dense": "dense", RIGHT: "the right ones"}
CAPTION = "Right answers in percent, with 95 % bootstrap intervals over questions. Δ: the model less the row, points."
PLACES = "How often each place is named, as a multiple of its fair share, with 95 % intervals: 1 is fair."


def tell(console: Console, result: Result, names: Mapping[str, str], size: int) -> None:
    """Both tables and a line; `names` of rows beside those that are always called the same."""
    called = {**NAMES, **{row: clean(name) for row, name in names.items()}}
    console.print(_accuracy(result, called, size))
    console.print(Text(CAPTION, style="dim"))
    console.print(_places(result, called))
    console.print(Text(PLACES, style="dim"))
    console.print(Text(_line(result)))


def _accuracy(result: Result, names: Mapping[str, str], size: int) -> Table:
    groups = {"all": result.all, **(result.sources if len(result.sources) > 1 else {})}
    number = f"{result.all.comparisons:,} comparisons of {size} passages, {result.all.questions:,} questions"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=number, title_justify="left")
    table.add_column("row", overflow="fold", min_width=8)
    for name, group in groups.items():
        table.add_column(Text.assemble(clean(name), (f"\n{group.comparisons:,}", "dim")), justify="right")
    table.add_column("Δ", justify="right", no_wrap=True)
    for row in result.all.accuracy:
        cells = [_share(group, row) for group in groups.values()]
        table.add_row(Text(names[row]), *cells, _change(result.all.differences.get(row)))
    return table


def _places(result: Result, names: Mapping[str, str]) -> Table:
    rows = {row: places for row, places in result.places.items() if row != "first"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("place", justify="right")
    for row in rows:
        table.add_column(Text(names[row], overflow="fold"), justify="right")
    for place in range(max(map(len, rows.values()))):
        table.add_row(str(place + 1), *(_multiple(found[place : place + 1]) for found in rows.values()))
    return table


def _line(result: Result) -> str:
    kept = f"format kept in {percent(result.format.mean)} % ({interval(result.format)}), " if result.format else ""
    return (
        f"{kept}{result.unparsed:,} unparsed, {result.forced:,} labels forced, "
        f"{amount(result.completion_tokens)} tokens a completion"
    )


def _share(group: Group, row: str) -> Text:
    found = group.accuracy[row]
    style = "bold" if row == MODEL else ""
    return Text.assemble((percent(found.mean), style), (f"\n{interval(found)}", "dim"))


def _change(found: Difference | None) -> Text:
    if found is None:
        return Text("")
    style = {1: "green", -1: "red", 0: ""}[sure(found)]
    return Text.assemble((points(found.mean), style), (f"\n{interval(found)}\n{p_value(found.p)}", "dim"))


def _multiple(found: tuple[Estimate, ...]) -> Text:
    """One place; empty where no set that was answered has it."""
    told = [(f"{one.mean:.2f}", f" {one.low:.2f}-{one.high:.2f}") for one in found]
    return Text.assemble(*(part for mean, ends in told for part in (mean, (ends, "dim"))))
