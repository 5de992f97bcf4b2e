"""Options and terminal output that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from rankr1_eval.data import DATASETS
from rankr1_eval.run_folder import STALE, are_stale
from rankr1_rag.checkpoints import BASE
from rankr1_rag.cli.options import CommandSettings
from rankr1_rag.cli.report import Job
from rankr1_rag.explain import clean

WARNING = f"{BASE} has 135 million parameters and was never trained for this: it only shows that the command works."


def option(help: str, panel: str, *names: str, **more: Any) -> Any:  # noqa: ANN401
    """An option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True, kw_only=True)
class QuestionOptions:
    """The questions, and the corpus."""

    dataset: Annotated[str, option(f"Data set: one of {', '.join(DATASETS)}.", "Questions")]
    data: Annotated[
        Path | None, option("File of the data set: official, FlashRAG's or parquet (default: the hub's).", "Questions")
    ] = None
    split: Annotated[str, option("Split of the hub's data.", "Questions")] = "validation"
    questions: Annotated[
        int | None, option("Size of a seeded sample of the questions (default: all).", "Questions", min=1)
    ] = None
    pool: Annotated[
        int | None,
        option("Number of questions whose paragraphs are the corpus (default: all).", "Questions", min=1),
    ] = None


def repeatable(settings: CommandSettings) -> CommandSettings:
    """The settings with which the embedded model computes one request at a time.

    In batches near ties fall either way (bench/openvino.md), so that a resumed run could come to another result.
    """
    if not settings.embedded:
        return settings
    return replace(settings, options={"max_batch": 1, **(settings.options or {})})


def print_if_stale(folder: Path) -> None:
    """Print a line on standard error if the results of a run in this folder are marked as stale."""
    if are_stale(folder):
        Console(stderr=True).print(Text(clean(f"{folder}: {STALE}"), style="yellow"), soft_wrap=True)


class StageProgress:
    """Goes through stages with a bar on a terminal, elsewhere a line for each; `what` is the unit counted."""

    def __init__(self, job: Job, console: Console, what: str = "questions") -> None:
        self.job, self.console, self._what = job, console, what

    def __call__(self, name: str, total: int, ids: Iterator[str]) -> None:
        """One stage, to its end."""
        started = monotonic()
        self.job.begin(name, total)
        try:
            for _ in ids:
                self.job.advance()
        except KeyboardInterrupt:
            self.console.print("Interrupted. Everything finished is kept: the same command continues.", soft_wrap=True)
            raise
        if not self.console.is_terminal:
            self.console.print(Text(clean(f"{name}: {total:,} {self._what}, {monotonic() - started:.0f} s")))
