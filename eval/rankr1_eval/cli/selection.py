"""`rankr1-eval selection`: what the selection algorithms find, and at what cost, under simulated judges."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankr1_rag.cli.options import UsageError, arguments
from rankr1_rag.io.files import writing

if TYPE_CHECKING:
    from rich.console import Console

    from rankr1_eval.simulation import Judge, JudgedQuery, Setting, Study, Way
    from rankr1_rag.io.trec import Qrels


Algorithms = Annotated[
    list[str] | None,
    typer.Option(help="Compare these only (give it again for more): NAME, NAME:VOTES or ballot:BALLOTS."),
]
Judges = Annotated[
    list[str] | None,
    typer.Option(
        help="Ask these only (give it again for more): perfect, noisy:NOISE, circular:NOISE (pairs drawn once), "
        "first:BIAS:NOISE, last:BIAS:NOISE, ends:BIAS:NOISE (likes passages there), in grades of the qrels."
    ),
]


def selection(
    *,
    run: Annotated[str, typer.Option(help="The first stage: a TREC run (qid Q0 docid rank score tag).")],
    qrels: Annotated[str, typer.Option(help="The judgements of its queries (qid 0 docid rel); none is grade 0.")],
    depth: Annotated[int, typer.Option(help="Candidates a query: the first of the run.")] = 100,
    k: Annotated[int, typer.Option("-k", "--k", help="How many are selected.")] = 10,
    size: Annotated[int, typer.Option(help="The most passages in a set, 2 to 20.")] = 20,
    algorithm: Algorithms = None,
    judge: Judges = None,
    repeats: Annotated[int, typer.Option(help="How often each query is played, with other noise.")] = 20,
    seed: Annotated[int, typer.Option(help="Another one draws other noise.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write selection.json, .md, .png and .svg into this folder, made if need be.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare the selection algorithms under simulated judges, on a real first-stage order: no model is asked.

    Tells nDCG@k by the qrels, the share of the k best found, and comparisons, rounds and passages read a query, with
    95 % intervals over the queries. By default every algorithm, some with votes too, meets nine judges, in a minute.

        rankr1-eval selection --run run.bm25.top100.trec --qrels qrels.txt --out study
    """
    from rich.console import Console

    from rankr1_eval.simulation import JUDGES, Setting, judged_queries, judges_named, ways_for, ways_named
    from rankr1_eval.simulation.tables import as_json as plain

    with arguments():
        setting = Setting(depth, k, size, repeats, seed)
        judges = judges_named(judge or JUDGES)
        ways = ways_named(algorithm or ways_for(depth, size), depth, size)
    _check_folder(out)
    played, judgements, left_out = judged_queries(run, qrels, depth)
    made = _study(played, judgements, setting, judges, ways)
    result = plain(made, {"run": run, "qrels": qrels, "left_out": left_out})
    if out is not None:
        _write(made, result, out, _command(run, qrels, setting, judge or (), algorithm or ()))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _tell(Console(), made, left_out, out)


def _check_folder(out: Path | None) -> None:
    """At once, and not after a minute of work."""
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder")


def _study(
    played: list[JudgedQuery], judgements: Qrels, setting: Setting, judges: Mapping[str, Judge], ways: Sequence[Way]
) -> Study:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rankr1_eval.simulation import study

    console = Console(stderr=True)
    columns = (TextColumn("queries"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("queries", total=len(played))
        return study(played, judgements, setting, judges, ways, lambda: progress.advance(task))


def _command(run: str, qrels: str, setting: Setting, judges: Sequence[str], ways: Sequence[str]) -> str:
    """The command that makes the same result again."""
    given = ["rankr1-eval", "selection", "--run", run, "--qrels", qrels]
    default = type(setting)()
    for name in ("depth", "k", "size", "repeats", "seed"):
        if (value := getattr(setting, name)) != getattr(default, name):
            given += [f"--{name}", str(value)]
    given += [word for name in judges for word in ("--judge", name)]
    given += [word for name in ways for word in ("--algorithm", name)]
    return shlex.join(given)


def _write(made: Study, result: dict[str, object], out: Path, command: str) -> None:
    from rankr1_eval.simulation.picture import picture
    from rankr1_eval.simulation.tables import as_markdown

    out.mkdir(parents=True, exist_ok=True)
    with writing(out / "selection.json") as file:
        file.write(json.dumps(result, indent=1) + "\n")
    with writing(out / "selection.md") as file:
        file.write(as_markdown(made, command))
    (out / "selection.png").write_bytes(picture(made, "png"))
    (out / "selection.svg").write_bytes(picture(made, "svg"))


def _tell(console: Console, made: Study, left_out: Sequence[str], out: Path | None) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from rankr1_eval.simulation.judges import described
    from rankr1_eval.simulation.tables import cells, heads, judge_lines
    from rankr1_rag.explain import clean

    for judge in made.judges:
        table = Table(box=box.SIMPLE_HEAD, title=f"{judge}: {described(judge)}", title_justify="left", padding=0)
        for place, head in enumerate(heads(made)):
            head = head.replace("recall", "recall\n").replace("comparisons", "compa-\nrisons").replace("passages ", "")
            table.add_column(head, justify="right" if place else "left", no_wrap=True)
        for line in judge_lines(made, judge):
            table.add_row(*cells(line), style="dim" if line.way in made.bounds else "")
        console.print(table)
    if left_out:
        told = f"{len(left_out)} judged queries are not in the run and were left out: {left_out[0]}, …"
        console.print(Text(clean(told)))
    if out is not None:
        console.print(Text(clean(f"Wrote selection.json, .md, .png and .svg into {out}")))
