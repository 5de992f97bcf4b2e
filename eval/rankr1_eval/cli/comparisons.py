"""`rankr1-eval comparisons`: how often a model names the right passage of a set, and whether it minds places.

What single comparisons came to, as tables for the terminal. Knows results and how they are spelled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_eval.cli.options import Stages, repeatable
from rankr1_eval.comparisons import MODEL, RIGHT, Group, Result
from rankr1_eval.report.wording import amount, interval, p_value, percent, points, sure
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.cli.options import CommandSettings, arguments
from rankr1_rag.cli.report import Job
from rankr1_rag.explain import clean

NAMES = {"first": "shown first", "bm25": "BM25", "dense": "dense", RIGHT: "the right ones"}
CAPTION = (
    "Right answers in percent, with 95 % bootstrap intervals over questions. Δ: the model less the system, points."
)
PLACES = "How often each place is named, as a multiple of its fair share, with 95 % intervals: 1 is fair."


def tell(console: Console, result: Result, names: Mapping[str, str], size: int) -> None:
    """Both tables and a line; `names` of systems beside those that are always called the same."""
    called = {**NAMES, **{system: clean(name) for system, name in names.items()}}
    console.print(_accuracy(result, called, size))
    console.print(Text(CAPTION, style="dim"))
    console.print(_places(result, called))
    console.print(Text(PLACES, style="dim"))
    console.print(Text(_line(result)))


def _accuracy(result: Result, names: Mapping[str, str], size: int) -> Table:
    groups = {"all": result.all, **(result.sources if len(result.sources) > 1 else {})}
    number = f"{result.all.comparisons:,} comparisons of {size} passages, {result.all.questions:,} questions"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=number, title_justify="left")
    table.add_column("system", overflow="fold", min_width=8)
    for name, group in groups.items():
        table.add_column(Text.assemble(clean(name), (f"\n{group.comparisons:,}", "dim")), justify="right")
    table.add_column("Δ", justify="right", no_wrap=True)
    for system in result.all.accuracy:
        cells = [_share(group, system) for group in groups.values()]
        table.add_row(Text(names[system]), *cells, _change(result.all.differences.get(system)))
    return table


def _places(result: Result, names: Mapping[str, str]) -> Table:
    systems = {system: places for system, places in result.places.items() if system != "first"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("place", justify="right")
    for system in systems:
        table.add_column(Text(names[system], overflow="fold"), justify="right")
    for place in range(max(map(len, systems.values()))):
        table.add_row(str(place + 1), *(_multiple(found[place : place + 1]) for found in systems.values()))
    return table


def _line(result: Result) -> str:
    kept = f"format kept in {percent(result.format.mean)} % ({interval(result.format)}), " if result.format else ""
    return (
        f"{kept}{result.unparsed:,} unparsed, {result.forced:,} labels forced, "
        f"{amount(result.completion_tokens)} tokens a completion"
    )


def _share(group: Group, system: str) -> Text:
    found = group.accuracy[system]
    style = "bold" if system == MODEL else ""
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


if TYPE_CHECKING:
    from rankr1_eval.comparisons import Choices, Result
    from rankr1_rag.reranker import Reranker
    from rankr1_rag.train.data import TrainingSet

ALONE = ("k", "algorithm", "votes", "probabilities", "hops", "fusion", "strict", "on_failure", "seed")
"""CommandSettings that have no say in a single comparison, and the seed, which draws other things here."""
AGAINST = "against"


def comparisons(
    examples: Annotated[list[Path], typer.Argument(help="Examples, as `rankr1-eval examples` and `rankr1 train`.")],
    *,
    out: Annotated[Path, typer.Option(help="The comparisons, JSON lines; a file that is there is gone on with.")],
    settings: CommandSettings,
    hard: Annotated[int, typer.Option(help="Negatives are drawn from the first so many of an example.", min=1)] = 20,
    draws: Annotated[int, typer.Option(help="Ask about each positive so often, among others.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Draws the sets, and samples.", min=0)] = 1,
    dense: Annotated[
        str | None, typer.Option(help="An embedding model to stand beside: a name of the hub or a folder.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another model's OUT of the same sets: the paired difference from it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Ask single comparisons, one positive among negatives in a drawn order, and tell how often it is named.

    rankr1-eval comparisons held.jsonl --out runs/comparisons.jsonl

    Beside whoever names the first shown, and BM25. Intervals are 95 % bootstrap intervals over questions, which keep
    their comparisons together. Killed at any moment, the same command goes on where it was.
    """
    settings = replace(repeatable(settings), k=1, seed=seed)
    with arguments():
        sets, rivals = _drawn(examples, settings, hard, draws, dense, against)
    job, console = Job(Console(stderr=True), None, "comparisons"), Console(stderr=True)
    with settings.reranker(job) as reranker:
        result, told = _asked(sets, rivals, reranker, Stages(job, console, "comparisons"), out, hard)
        if as_json:
            typer.echo(json.dumps({"settings": {**told, "draws": draws}, **result.to_json()}))
        else:
            _tell(result, reranker, against)


def _asked(
    sets: Mapping[str, TrainingSet],
    rivals: Mapping[str, Choices],
    reranker: Reranker,
    stages: Stages,
    out: Path,
    hard: int,
) -> tuple[Result, dict[str, object]]:
    """What came of them, and what it depends on."""
    from rankr1_eval.comparisons import answered, ask, opened, score

    plan = reranker.plan
    with opened(out, reranker, hard) as records:
        with stages.job, arguments():
            stages("asked", len(sets), ask(records, sets, reranker))
        if more := len(records) - len(sets):
            told = f"{out} holds {more:,} more comparisons; the figures are of the {len(sets):,} asked for now"
            stages.console.print(Text(clean(told), style="yellow"))
        written = bool(plan.reasoning_tokens) or not plan.format.reasoning
        return score(sets, answered(records, sets), rivals, written=written), records.settings


def _tell(result: Result, reranker: Reranker, against: Path | None) -> None:
    pass  # MOVED
    from rankr1_eval.comparisons import MODEL

    names = {MODEL: reranker.plan.backend.model, **({AGAINST: against.stem} if against else {})}
    tell(Console(), result, names, reranker.plan.size)


def _drawn(
    examples: list[Path], settings: CommandSettings, hard: int, draws: int, dense: str | None, against: Path | None
) -> tuple[Mapping[str, TrainingSet], Mapping[str, Choices]]:
    """The sets, and what others choose; before any model is asked, so that what is wrong is told at once."""
    from rankr1_eval.comparisons import drawn, elsewhere, rivals
    from rankr1_rag.train.data import read_examples

    given = read_examples(*examples)
    sets = drawn(given, size=settings.size or 5, hard=hard, seed=settings.seed, draws=draws)
    others = {id: one.chosen for id, one in elsewhere(against, sets).items()} if against else {}
    return sets, {**({AGAINST: others} if against else {}), **rivals(sets, given, dense)}
