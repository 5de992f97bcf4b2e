"""`rankr1 train sft` and `rankr1 train grpo`: train a LoRA adapter from relevance labels.

The options are the fields of `train.config`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from rankr1_rag.cli.options import arguments, with_settings
from rankr1_rag.cli.report import bar
from rankr1_rag.explain import clean
from rankr1_rag.train.config import GRPO, SFT, ReaderTraining, Training
from rankr1_rag.train.run_dir import RunDir, is_main

Progress = Callable[[int, int, Mapping[str, Any]], None]
_SHOWN = ("loss", "reward", "accuracy", "format_rate")
S = TypeVar("S", bound=Training)


@contextmanager
def training_progress(console: Console, title: str) -> Iterator[Progress]:
    """A bar on a terminal, else a line per evaluation: called with the step, the number of steps, and a log line."""
    progress = bar(console, "figures")
    task = progress.add_task(title, total=None, figures="loading")

    def show(step: int, steps: int, line: Mapping[str, Any]) -> None:
        if held := line.get("held_out"):
            console.print(
                f"step {step} of {steps}: {held['sets']} held-out sets, {held['accuracy']:.3f} right, "
                + (f"F1 {held['f1']:.3f}" if "f1" in held else f"{held['format_rate']:.3f} in the right format")
            )
        figures = ", ".join(f"{name.replace('_', ' ')} {line[name]:.3f}" for name in _SHOWN if name in line)
        if figures:
            progress.update(task, completed=step, total=steps, figures=figures)
            if not console.is_terminal:
                console.print(f"step {step} of {steps}: {figures}")

    with progress:
        yield show


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Train a LoRA adapter: for reranking, from relevance labels, or for reading.",
)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def sft(*, settings: SFT, as_json: AsJson = False) -> None:
    """Supervised training: the label, or with --target naming the passage first (the start for GRPO)."""
    from rankr1_rag.train.sft import sft

    _run(settings, sft, as_json)


def grpo(*, settings: GRPO, as_json: AsJson = False) -> None:
    """Reinforcement learning: an answer earns 1 if its format and its label are right, else 0."""
    from rankr1_rag.train.grpo import grpo

    _run(settings, grpo, as_json)


def reader(*, settings: ReaderTraining, as_json: AsJson = False) -> None:
    """Supervised training of a reader: short answers from passages, or that they do not hold the answer."""
    from rankr1_rag.train.sft import sft

    _run(settings, sft, as_json)


for command in (sft, grpo, reader):
    app.command(no_args_is_help=True)(with_settings(command))


def _run(settings: S, train: Callable[[S, Progress], RunDir], as_json: bool) -> None:
    """Train, and print where the adapter is, and the first and last scores on held-out sets."""
    with training_progress(Console(stderr=True, quiet=not is_main()), settings.kind) as progress, arguments():
        folder = train(settings, progress)
    if not is_main():
        return
    measured = [one["held_out"] for one in folder.records() if "held_out" in one]
    if as_json:
        typer.echo(json.dumps({"adapter": str(folder.path), "held_out": measured[-1] if measured else None}))
        return
    console = Console()
    console.print(Text(f"The adapter, its card and its plots are in {clean(str(folder.path))}"), soft_wrap=True)
    if measured:
        before, after = measured[0], measured[-1]
        other, name = ("f1", "F1") if "f1" in after else ("format_rate", "right format")
        console.print(
            f"{after['sets']} held-out sets: right {before['accuracy']:.3f} before, {after['accuracy']:.3f} after; "
            f"{name} {before[other]:.3f} before, {after[other]:.3f} after.",
            soft_wrap=True,
        )
