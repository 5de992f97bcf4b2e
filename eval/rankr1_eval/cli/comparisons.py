"""`rankr1-eval comparisons`: how often a model names the right passage of a set, and whether it minds places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from rankr1_eval.cli.embedded import repeatable
from rankr1_eval.cli.stages import Stages
from rankr1_rag.cli.progress import Job
from rankr1_rag.cli.settings import Settings
from rankr1_rag.cli.usage import arguments
from rankr1_rag.explain import clean

if TYPE_CHECKING:
    from rankr1_eval.comparisons import Result
    from rankr1_eval.comparisons.rivals import Choices
    from rankr1_rag.reranker import Reranker
    from rankr1_rag.train.sets import TrainingSet

ALONE = ("k", "algorithm", "votes", "probabilities", "prefix_order", "hops", "fusion", "strict", "on_failure", "seed")
"""Settings that have no say in a single comparison, and the seed, which draws other things here."""
AGAINST = "against"


def comparisons(
    examples: Annotated[list[Path], typer.Argument(help="Examples, as `rankr1-eval examples` and `rankr1 train`.")],
    *,
    out: Annotated[Path, typer.Option(help="The comparisons, JSON lines; a file that is there is gone on with.")],
    settings: Settings,
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
        written = bool(plan.think_tokens) or not plan.format.reasoning
        return score(sets, answered(records, sets), rivals, written=written), records.settings


def _tell(result: Result, reranker: Reranker, against: Path | None) -> None:
    from rankr1_eval.cli.comparison_tables import tell
    from rankr1_eval.comparisons import MODEL

    names = {MODEL: reranker.plan.backend.model, **({AGAINST: against.stem} if against else {})}
    tell(Console(), result, names, reranker.plan.size)


def _drawn(
    examples: list[Path], settings: Settings, hard: int, draws: int, dense: str | None, against: Path | None
) -> tuple[Mapping[str, TrainingSet], Mapping[str, Choices]]:
    """The sets, and what others choose; before any model is asked, so that what is wrong is told at once."""
    from rankr1_eval.comparisons import drawn, elsewhere, rivals
    from rankr1_rag.train.examples import read_examples

    given = read_examples(*examples)
    sets = drawn(given, size=settings.size or 5, hard=hard, seed=settings.seed, draws=draws)
    others = {id: one.chosen for id, one in elsewhere(against, sets).items()} if against else {}
    return sets, {**({AGAINST: others} if against else {}), **rivals(sets, given, dense)}
