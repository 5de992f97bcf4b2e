"""`rankr1-eval comparisons`: how often a model names the right passage of a set, and whether it prefers places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_eval.cli.options import StageProgress, repeatable
from rankr1_eval.cli.table import difference_style
from rankr1_eval.comparisons import MODEL, RIGHT
from rankr1_eval.report.wording import amount, interval, p_value, percent, points
from rankr1_rag.cli.options import CommandSettings, arguments
from rankr1_rag.cli.report import Job
from rankr1_rag.explain import clean
from rankr1_rag.io.files import ANYTHING, check_output

if TYPE_CHECKING:
    from rankr1_eval.comparisons import Choices, ComparisonScores

WITHOUT = (
    *("k", "algorithm", "votes", "probabilities", "hops", "fusion", "strict", "on_failure", "seed"),
    *("deadline", "budget_tokens", "step", "passes"),
)
"""Settings without effect on a single comparison, and the seed, which has another meaning here."""
AGAINST = "against"
NAMES = {"first": "shown first", "bm25": "BM25", "dense": "dense", RIGHT: "the right ones"}
CAPTION = "Right answers in percent, with 95 % bootstrap intervals over questions. Δ: the model less the rival, points."
PLACES = "How often each place is named, as a multiple of its fair share, with 95 % intervals: 1 is fair."


def comparisons(
    examples: Annotated[
        list[Path], typer.Argument(help="Examples in the format of `rankr1-eval examples` and `rankr1 train`.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="File for the comparisons, JSON lines; an existing one is resumed.")],
    settings: CommandSettings,
    hard: Annotated[int, typer.Option(help="Number of hardest negatives to draw from.", min=1)] = 20,
    draws: Annotated[int, typer.Option(help="Comparisons of each positive, each among others.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the sets, and of sampling.", min=0)] = 1,
    dense: Annotated[
        str | None, typer.Option(help="Embedding model to compare with: name on the hub or folder.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="OUT of another model on the same sets, for the paired difference.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on standard output.")] = False,
) -> None:
    """Ask single comparisons, one positive among negatives in a drawn order, and count how often it is named.

    rankr1-eval comparisons held.jsonl --out runs/comparisons.jsonl

    Rivals are the passage shown first, and BM25. Intervals are 95 % bootstrap intervals over questions, which keep
    their comparisons together. An interrupted command is resumed by the same command.
    """
    from rankr1_eval.comparisons import answers, ask, drawn, elsewhere, opened, rivals, score
    from rankr1_rag.train.data import read_examples

    settings.check_files([out], [*examples, against])
    check_output(out, ANYTHING)  # `Journal` looks into it
    settings = replace(repeatable(settings), k=1, seed=seed)
    with arguments():  # all that can be wrong, before any model is asked
        known, size = read_examples(*examples), settings.size or 5
        sets = drawn(known, size=size, hard=hard, seed=seed, draws=draws)
        others: dict[str, Choices] = {}
        if against:
            others[AGAINST] = {id: one.chosen for id, one in elsewhere(against, sets).items()}
        others |= rivals(sets, known, dense)
    console = Console(stderr=True)
    job = Job(console, None, "comparisons")
    with settings.reranker(job) as reranker:
        plan = reranker.plan
        with opened(out, reranker, hard) as records:
            with job, arguments():
                StageProgress(job, console, "comparisons")("asked", len(sets), ask(records, sets, reranker))
            if more := len(records) - len(sets):
                note = f"{out} holds {more:,} more comparisons; the figures are of the {len(sets):,} asked for now"
                console.print(Text(clean(note), style="yellow"))
            has_form = plan.format.kind != "scored" and plan.format.read_labels is None  # others: no exact one is known
            written = has_form and (bool(plan.reasoning_tokens) or not plan.format.reasoning)
            result = score(sets, answers(records, sets), others, written=written)
        if as_json:
            typer.echo(json.dumps({"settings": {**records.settings, "draws": draws}, **asdict(result)}))
        else:
            names = {MODEL: plan.backend.model, **({AGAINST: against.stem} if against else {})}
            print_scores(Console(), result, names, size)


def print_scores(console: Console, result: ComparisonScores, names: Mapping[str, str], size: int) -> None:
    """Accuracy, places and a line of figures; `names` of the model and of rivals without a fixed name."""
    names = {**NAMES, **{key: clean(name) for key, name in names.items()}}
    groups = {"all": result.all, **(result.sources if len(result.sources) > 1 else {})}
    title = f"{result.all.comparisons:,} comparisons of {size} passages, {result.all.questions:,} questions"
    accuracy = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    accuracy.add_column("system", overflow="fold", min_width=8)
    for name, group in groups.items():
        accuracy.add_column(Text.assemble(clean(name), (f"\n{group.comparisons:,}", "dim")), justify="right")
    accuracy.add_column("Δ", justify="right", no_wrap=True)
    for key in result.all.accuracy:
        cells = []
        for group in groups.values():
            share = (percent(group.accuracy[key].mean), "bold" if key == MODEL else "")
            cells.append(Text.assemble(share, (f"\n{interval(group.accuracy[key])}", "dim")))
        change = Text("")
        if apart := result.all.differences.get(key):
            ends = (f"\n{interval(apart)}\n{p_value(apart.p)}", "dim")
            change = Text.assemble((points(apart.mean), difference_style(apart)), ends)
        accuracy.add_row(Text(names[key]), *cells, change)
    console.print(accuracy)
    console.print(Text(CAPTION, style="dim"))
    columns = {key: found for key, found in result.places.items() if key != "first"}
    places = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    places.add_column("place", justify="right")
    for key in columns:
        places.add_column(Text(names[key], overflow="fold"), justify="right")
    for place in range(max(map(len, columns.values()))):
        cells = [Text("") for _ in columns]  # empty where no set that was answered has the place
        for cell, own in zip(cells, columns.values(), strict=True):
            for one in own[place : place + 1]:
                cell.append(f"{one.mean:.2f}").append(f" {one.low:.2f}-{one.high:.2f}", "dim")
        places.add_row(str(place + 1), *cells)
    console.print(places)
    console.print(Text(PLACES, style="dim"))
    kept = f"format kept in {percent(result.format.mean)} % ({interval(result.format)}), " if result.format else ""
    console.print(
        Text(
            f"{kept}{result.unparsed:,} unparsed, {result.forced:,} answers forced, "
            f"{amount(result.completion_tokens)} tokens a completion"
        )
    )
