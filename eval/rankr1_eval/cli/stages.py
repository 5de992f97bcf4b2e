"""The stages of a run on the terminal: a bar there, elsewhere a line for each. Knows names and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from rich.console import Console
from rich.text import Text

from rankr1_rag.cli.progress import Job
from rankr1_rag.explain import clean


class Stages:
    """Goes through stages and tells of them; `what` is what they count."""

    def __init__(self, job: Job, console: Console, what: str = "questions") -> None:
        self.job, self.console, self._what = job, console, what

    def __call__(self, name: str, total: int, ids: Iterator[str]) -> None:
        """One stage, to its end."""
        started = monotonic()
        self.job.begin(name, total)
        for _ in ids:
            self.job.advance()
        if not self.console.is_terminal:
            self.console.print(Text(clean(f"{name}: {total:,} {self._what}, {monotonic() - started:.0f} s")))
