"""The progress bar of a job on a terminal, and its summary: cost and failures."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers.base import BackendWrapper
from rankr1_rag.explain import clean, cost_table
from rankr1_rag.io.journal import GiveUp
from rankr1_rag.reranker import Reranker
from rankr1_rag.selection import ALGORITHMS, SCORES, Set, play
from rankr1_rag.types import Completion, Cost, Query, Ranking


def bar(console: Console, field: str) -> Progress:
    """A bar with its count, the text in `field` of the task, and the time; drawn on a terminal only."""
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
    """A bar of comparisons, out of the number that the queries done so far let expect; or of the units of a stage."""

    def __init__(self, console: Console, queries: int | None, title: str = "comparisons") -> None:
        self.completions = 0
        self.tokens = 0
        self._queries, self._done, self._cost, self._guess = queries, 0, 0, 0
        self._compared: set[int] = set()
        self._stage = False
        self._progress = bar(console, "cost")
        self._task = self._progress.add_task(title, total=None, cost="")

    def begin(self, title: str, total: int) -> None:
        """A stage of the job, with a bar of its own units; its cost is added."""
        self._stage = True
        self._progress.reset(self._task, description=title, total=total)
        self._show()

    def counted(self, backend: Backend) -> Backend:
        """The same backend, its completions and comparisons counted here."""
        return CountedBackend(backend, self)

    def completed(self, request: Request, completion: Completion) -> None:
        """One more completion; those found in the store cost nothing. Further turns belong to the same comparison."""
        turn = next((i for i, message in enumerate(request.messages) if message["role"] == "user"), 0)
        self._compared.add(hash((request.sample, *(message["content"] for message in request.messages[: turn + 1]))))
        if not completion.stored:
            self.completions += 1
            self.tokens += completion.prompt_tokens + completion.completion_tokens
        self._show()

    def advance(self, comparisons: int | None = None) -> None:
        """Count one more query, done with this number of comparisons, or unit of a stage as done."""
        self._done += 1
        self._cost += comparisons or 0
        if self._stage:
            self._progress.advance(self._task)
        self._show()

    def expect(self, reranker: Reranker, n: int) -> None:
        """A query of n candidates is opened: until one is done, as many comparisons as if every answer is the first."""
        if self._guess or n < 2:
            return
        plan, shown = reranker.plan, list[Set]()

        def first(one: Set) -> Set:
            shown.append(one)
            return one

        if plan.algorithm == SCORES:
            shown += [()] * -(-n // plan.size)
        else:
            play(ALGORITHMS[plan.algorithm](n, min(reranker.k or n, n), plan.size), first)
        self._guess = len(shown) * (1 if plan.votes == "auto" else plan.votes)
        self._show()

    def skip(self) -> None:
        """Count a query less: it was done before."""
        self._queries = self._queries and self._queries - 1

    def _show(self) -> None:
        tokens = f"{self.tokens:,} tokens"
        if self._stage:
            self._progress.update(self._task, cost=f"{self.completions:,} completions, {tokens}")
            return
        done, each = len(self._compared), self._cost / self._done if self._cost else self._guess
        total = None if self._queries is None else max(done, round(each * self._queries)) or None
        queries = f"{self._done:,} of {'?' if self._queries is None else f'{self._queries:,}'} queries"
        self._progress.update(self._task, completed=done, total=total, cost=f"{queries}, {tokens}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()


class PrintingHandler(logging.Handler):
    """Prints log records above the bar, without escape sequences of texts."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record on what is standard error now."""
        sys.stderr.write(clean(self.format(record)) + "\n")


@contextmanager
def printing_logs(verbose: bool) -> Iterator[None]:
    """Print the warnings of this package and of its evaluation, with `verbose` also what they do."""
    handler = PrintingHandler(logging.INFO if verbose else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s" if verbose else "%(message)s", "%H:%M:%S"))
    loggers = [logging.getLogger(name) for name in ("rankr1_rag", "rankr1_eval")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        if verbose:
            logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class CountedBackend(BackendWrapper):
    """A backend whose completions a job counts."""

    def __init__(self, backend: Backend, job: Job) -> None:
        super().__init__(backend)
        self._job = job

    async def complete(self, request: Request) -> Completion:
        """The backend's completion."""
        completion = await self.backend.complete(request)
        self._job.completed(request, completion)
        return completion


SHOWN = 5
"""Number of failures that are printed in full."""


def queries_of(number: int) -> str:
    """`queries_of(1)` is "1 query", `queries_of(2000)` is "2,000 queries"."""
    return "1 query" if number == 1 else f"{number:,} queries"


@dataclass(slots=True)
class Report:
    """The sum of a job. `before` counts the queries that an earlier run had finished; `spell` words the errors."""

    spell: Callable[[str], str] = str
    console: Console = field(default_factory=lambda: Console(stderr=True))
    started: float = field(default_factory=time.monotonic)
    cost: Cost = field(default_factory=Cost)
    queries: int = 0
    before: int = 0
    failed: int = 0
    first_stage: int = 0
    truncated: int = 0
    give_up: GiveUp = field(default_factory=GiveUp)

    def take(self, ranking: Ranking) -> None:
        """One more query is done."""
        self.queries += 1
        self.cost += ranking.cost
        self.first_stage += ranking.failure is not None
        self.truncated += ranking.truncated is not None
        self.give_up.succeed()

    def fail(self, query: Query, error: Exception) -> None:
        """One more query has failed."""
        self.failed += 1
        self.give_up.fail(error)
        if self.failed <= SHOWN:
            name = f"query {query.id or query.text[:60]!r}"
            self.say(f"{name} failed: {type(error).__name__}: {self.spell(str(error))}", "red")

    def say(self, text: str, style: str = "") -> None:
        """Print a line, whatever it holds."""
        self.console.print(Text(clean(text), style=style), soft_wrap=True)

    def end(self, *, as_json: bool, kept: str = "") -> None:
        """Print the sum. Exit code 1 if anything failed; `kept` then says where the finished queries are."""
        seconds = time.monotonic() - self.started
        if as_json:
            counts = {"queries": self.queries, "before": self.before, "failed": self.failed}
            counts |= {"first_stage": self.first_stage, "truncated": self.truncated}
            typer.echo(json.dumps({**counts, "wall_seconds": seconds, "cost": asdict(self.cost)}))
        else:
            before = f" ({self.before:,} more done before)" if self.before else ""
            self.say(f"{queries_of(self.queries)} in {seconds:.1f} s{before}")
            if self.queries:
                self.console.print(cost_table({queries_of(self.queries): replace(self.cost, seconds=seconds)}))
            if self.first_stage:
                self.say(
                    f"{queries_of(self.first_stage)} with the first-stage order only: the model failed", "bold red"
                )
            if self.truncated:
                self.say(f"{queries_of(self.truncated)} ended early, with the best order so far", "yellow")
            if self.cost.unparsed:
                share = self.cost.unparsed / self.cost.comparisons
                remedy = "" if self.cost.forced else "; --force unparsed requests such a label once more"
                self.say(
                    f"{share:.0%} of the answers named no passage: there the retriever was trusted{remedy}", "yellow"
                )
        if self.failed:
            more = f", {self.failed - SHOWN} of them not shown" if self.failed > SHOWN else ""
            gone = f"; stopped after {self.give_up.in_a_row} in a row" if self.give_up.is_due else ""
            self.say(f"{queries_of(self.failed)} failed{more}{gone}{kept if self.queries else ''}", "bold red")
            raise typer.Exit(1)
