"""`rankr1-eval score`: a file of answer strings, scored as the official scripts do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankr1_rag.cli.options import arguments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from rankr1_eval.predictions import AnswerScores
    from rankr1_eval.types import Estimate

SHOWN = 10
"""Questions in the table; all of them are in the JSON."""


def score(
    *,
    dataset: Annotated[str, typer.Option(help="Data set: hotpotqa, hotpotqa-fullwiki, 2wikimultihopqa or musique.")],
    data: Annotated[Path, typer.Option(help="File of the data set with its answers: official, FlashRAG's or parquet.")],
    predictions: Annotated[
        Path,
        typer.Option(
            help='JSON object {id: answer string}, the official {"answer": {id: …}}, or lines {"id": …, '
            '"predicted_answer": …}.'
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Scores as JSON on standard output, each question's too.")
    ] = False,
) -> None:
    """Score answer strings by exact match and F1, exactly as the data set's official script does.

    Means with 95 % bootstrap intervals, also by type and by hops, and each question's scores. A question without a
    prediction counts as 0, as it officially does, and is reported.

        rankr1-eval score --dataset hotpotqa --data hotpot_dev_distractor_v1.json --predictions answers.json
    """
    from rich.console import Console

    from rankr1_eval.cli.options import print_if_stale
    from rankr1_eval.data import load
    from rankr1_eval.predictions import read_predictions, score_predictions

    print_if_stale(predictions.parent.parent)
    with arguments():
        questions = load(dataset, data, supports=False)
        scores = score_predictions(dataset, questions, read_predictions(predictions))
    if not as_json:
        _print(Console(), dataset, scores, {question.query.id: question.query.text for question in questions})
        return

    def means(found: Mapping[str, Estimate]) -> dict[str, object]:
        em, f1 = found["EM"], found["F1"]
        intervals = {"em_interval": [em.low, em.high], "f1_interval": [f1.low, f1.high]}
        return {"questions": em.n, "em": em.mean, "f1": f1.mean, **intervals}

    em, f1 = scores.each["EM"], scores.each["F1"]
    figures = {
        "dataset": dataset,
        **means(scores.estimates),
        "each": {id: {"em": em[id], "f1": f1[id]} for id in em},
        "missing": scores.missing,
        "unknown": scores.unknown,
        "types": {value: means(found) for value, found in scores.types.items()},
        "hops": {value: means(found) for value, found in scores.hops.items()},
    }
    typer.echo(json.dumps(figures))


def _print(console: Console, dataset: str, scores: AnswerScores, texts: Mapping[str, str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from rankr1_rag.explain import clean

    for what, ids in (("without a prediction, scored 0", scores.missing), ("not in the data, ignored", scores.unknown)):
        if ids:
            shown = clean(", ".join(ids[:3])) + (", …" if len(ids) > 3 else "")
            console.print(Text(f"{len(ids):,} {what}: {shown}", style="yellow"))
    table = Table(box=box.SIMPLE_HEAD, title=f"{dataset}: answer strings", caption="Means, 95 % bootstrap intervals.")
    table.add_column("questions")
    for name in ("n", "EM", "", "F1", ""):
        table.add_column(name, justify="right", no_wrap=True)
    hops = {f"{value} hops": found for value, found in scores.hops.items()}
    for value, found in {"all": scores.estimates, **scores.types, **hops}.items():
        cells = [f"{found['EM'].n:,}"]
        for one in (found["EM"], found["F1"]):
            cells += [f"{one.mean:.4f}", f"{one.low:.3f}-{one.high:.3f}"]
        table.add_row(Text(clean(value)), *cells, style="bold" if found is scores.estimates else "")
    console.print(table)
    em, f1 = scores.each["EM"], scores.each["F1"]
    lowest = Table(box=box.SIMPLE_HEAD, title=f"The {min(SHOWN, len(f1))} lowest of {len(f1):,} in F1; --json has all")
    lowest.add_column("id", overflow="fold")
    lowest.add_column("question", ratio=1)
    for name in ("EM", "F1"):
        lowest.add_column(name, justify="right", no_wrap=True)
    for id in sorted(f1, key=lambda id: f1[id])[:SHOWN]:
        lowest.add_row(Text(clean(id)), Text(clean(texts[id])), f"{em[id]:.0f}", f"{f1[id]:.3f}")
    console.print(lowest)
