"""`rankr1-eval selection`: what the selection algorithms find, and at what cost, under simulated judges."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankr1_rag.cli.options import arguments
from rankr1_rag.io.files import claim_folder, writing, writing_bytes

if TYPE_CHECKING:
    from rankr1_eval.simulation.study import Study


OURS = re.compile(rb'\A\{\s*"settings": \{\s*"run": ')
"""The beginning of selection.json."""


def selection(
    *,
    run: Annotated[str, typer.Option(help="First stage: TREC run (qid Q0 docid rank score tag).")],
    qrels: Annotated[str, typer.Option(help="Judgements of its queries (qid 0 docid rel); none is grade 0.")],
    depth: Annotated[int, typer.Option(help="Candidates a query: the first of the run.")] = 100,
    k: Annotated[int, typer.Option("-k", "--k", help="Passages to select.")] = 10,
    size: Annotated[int, typer.Option(help="Maximum passages in a set, 2 to 20.")] = 20,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(help="Algorithm, may be repeated: NAME, NAME:VOTES or window/STEPxPASSES (default: all)."),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge, may be repeated: perfect, noisy:NOISE, circular:NOISE (pairs drawn once), first:BIAS:NOISE, "
            "last:BIAS:NOISE, ends:BIAS:NOISE (prefers passages there), in grades of the qrels (default: nine)."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Repetitions of each query, with other noise.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for selection.json, .md, .png and .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Result as JSON on standard output.")] = False,
) -> None:
    """Compare the selection algorithms under simulated judges, on a real first-stage order: no model is asked.

    nDCG@k by the qrels, the share of the k best found, and comparisons, rounds and passages read a query, with 95 %
    intervals over the queries. By default every algorithm, some with votes too, meets nine judges, in a minute.

        rankr1-eval selection --run run.bm25.top100.trec --qrels qrels.txt --out study
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rankr1_eval.simulation.judges import JUDGES, judged_queries, judges_named
    from rankr1_eval.simulation.picture import picture
    from rankr1_eval.simulation.study import WAYS, Setting, study, ways_named
    from rankr1_eval.simulation.tables import as_json as plain
    from rankr1_eval.simulation.tables import as_markdown

    with arguments():
        setting = Setting(depth, k, size, repeats, seed)
        judges = judges_named(judge or JUDGES)
        ways = ways_named(algorithm or WAYS)
    if out is not None:
        names = [f"selection.{kind}" for kind in ("json", "md", "png", "svg")]
        claim_folder(out, "selection.json", OURS, names, [run, qrels])
    played, judgements, left_out = judged_queries(run, qrels, depth)
    console = Console(stderr=True)
    columns = (TextColumn("queries"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("queries", total=len(played))
        made = study(played, judgements, setting, judges, ways, lambda: progress.advance(task))
    result = plain(made, {"run": run, "qrels": qrels, "left_out": left_out})
    if out is not None:
        command = ["rankr1-eval", "selection", "--run", run, "--qrels", qrels]
        for name in ("depth", "k", "size", "repeats", "seed"):
            if (value := getattr(setting, name)) != getattr(Setting(), name):
                command += [f"--{name}", str(value)]
        command += [word for name in judge or () for word in ("--judge", name)]
        command += [word for name in algorithm or () for word in ("--algorithm", name)]
        with writing(out / "selection.json") as file:
            file.write(json.dumps(result, indent=1) + "\n")
        with writing(out / "selection.md") as file:
            file.write(as_markdown(made, shlex.join(command)))
        for kind in ("png", "svg"):
            with writing_bytes(out / f"selection.{kind}") as drawn:
                drawn.write(picture(made, kind))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print(made, left_out, out)


def _print(made: Study, left_out: Sequence[str], out: Path | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rankr1_eval.simulation.judges import described
    from rankr1_eval.simulation.tables import cells, heads, judge_lines
    from rankr1_rag.explain import clean

    console = Console()
    for judge in made.judges:
        table = Table(box=box.SIMPLE_HEAD, title=f"{judge}: {described(judge)}", title_justify="left", padding=0)
        for place, head in enumerate(heads(made)):
            head = head.replace("recall", "recall\n").replace("comparisons", "compa-\nrisons").replace("passages ", "")
            table.add_column(head, justify="right" if place else "left", no_wrap=True)
        for line in judge_lines(made, judge):
            table.add_row(*cells(line), style="dim" if line.way in made.bounds else "")
        console.print(table)
    if left_out:
        note = f"{len(left_out)} judged queries are not in the run and were left out: {left_out[0]}, …"
        console.print(Text(clean(note)))
    if out is not None:
        console.print(Text(clean(f"Wrote selection.json, .md, .png and .svg into {out}")))
