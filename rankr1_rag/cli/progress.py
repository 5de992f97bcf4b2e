"""A progress bar that counts what a job costs while it runs. Draws on standard error, and only on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers.around import Around
from rankr1_rag.types import Completion


def bar(console: Console, field: str) -> Progress:
    """A bar with its count, what `field` of the task tells, and the time; drawn on a terminal only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[{field}]}}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class Job:
    """A bar of queries with the completions and tokens so far."""

    def __init__(self, console: Console, total: int | None, title: str = "queries") -> None:
        self.completions = 0
        self.tokens = 0
        self._progress = bar(console, "cost")
        self._task = self._progress.add_task(title, total=total, cost="")

    def begin(self, title: str, total: int) -> None:
        """Another stage of the job, with a bar of its own length; what it costs goes on."""
        self._progress.reset(self._task, description=title, total=total)
        self._show()

    def counted(self, backend: Backend) -> Backend:
        """The same backend, its completions counted here."""
        return _Counted(backend, self)

    def completed(self, completion: Completion) -> None:
        """One more completion, if it was asked for and not found in the store."""
        if completion.stored:
            return
        self.completions += 1
        self.tokens += completion.prompt_tokens + completion.completion_tokens
        self._show()

    def advance(self, queries: int = 1) -> None:
        """So many more queries are done."""
        self._progress.advance(self._task, queries)
        self._show()

    def _show(self) -> None:
        self._progress.update(self._task, cost=f"{self.completions:,} completions, {self.tokens:,} tokens")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()


class _Counted(Around):
    def __init__(self, backend: Backend, job: Job) -> None:
        super().__init__(backend)
        self._job = job

    async def complete(self, request: Request) -> Completion:
        completion = await self.backend.complete(request)
        self._job.completed(completion)
        return completion
