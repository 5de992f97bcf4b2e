"""The progress of a training run: a bar on a terminal, a line a measurement elsewhere. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from rankr1_rag.cli.progress import bar

_SHOWN = ("loss", "reward", "accuracy", "format_rate")


class Course:
    """Called with the step, of how many, and what was logged or measured there."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._progress = bar(console, "told")
        self._task = self._progress.add_task(title, total=None, told="loading")

    def __call__(self, step: int, steps: int, line: Mapping[str, Any]) -> None:
        """One more line of the log."""
        if held := line.get("held_out"):
            self._console.print(
                f"step {step} of {steps}: of {held['sets']} held-out sets {held['accuracy']:.3f} right, "
                f"{held['format_rate']:.3f} in the form"
            )
        told = ", ".join(f"{name.replace('_', ' ')} {line[name]:.3f}" for name in _SHOWN if name in line)
        if told:
            self._progress.update(self._task, completed=step, total=steps, told=told)
            if not self._console.is_terminal:
                self._console.print(f"step {step} of {steps}: {told}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()
