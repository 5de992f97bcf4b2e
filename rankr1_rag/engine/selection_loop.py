"""Steps a selection: puts its sets to the model, a round at a time, and sends the answers in.

One coroutine a query, no barrier between queries: each moves on as soon as its own round is back. Knows selections and
comparisons; nothing of prompts, tokens, files or retries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import factorial

from rankr1_rag.engine.comparison import Comparing, side_by_side
from rankr1_rag.scoring import probability, winner
from rankr1_rag.selection import Answer, Done, Round, Selection, Set, orders, step
from rankr1_rag.types import Comparison

AUTO_VOTES = 5
"""How often a set is asked in all where `votes="auto"` finds its first answer unsure."""

AUTO_MARGIN = 0.5
"""The probability of the label given less that of the best other, below which an answer is unsure."""


@dataclass(slots=True, eq=False)
class Task:
    """One query being ranked: its selection, its texts (clean and clipped), and the comparisons made so far.

    `lines` are the candidates as shown, by position. `trace` grows by whole rounds, in the order asked; when a
    backend fails it keeps what the last round had finished. `known` are positions that are known already: they are
    shown beside every set.
    """

    selection: Selection
    query: str
    lines: Sequence[str]
    trace: list[Comparison] = field(default_factory=list)
    known: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs tasks, any number of them at once, on any loop. With `auto`, unsure answers are voted on."""

    comparing: Comparing
    auto: bool = False

    async def run(self, task: Task) -> list[int]:
        """The selected positions, best first. BackendError or UnparsedError; `task.trace` holds what was done."""
        try:
            state = step(task.selection)
            while not isinstance(state, Done):
                answers = await self._round(task, state)
                state = step(task.selection, answers)
            return state.value
        finally:
            task.selection.close()

    async def _round(self, task: Task, sets: Round) -> list[Answer]:
        number = task.trace[-1].round + 1 if task.trace else 0
        seen: Counter[Set] = Counter()
        asked: list[list[Comparison]] = []
        jobs = []
        for shown in sets:
            asked.append([])
            jobs.append(self._decide(task, shown, number, seen[shown], asked[-1]))
            seen[shown] += 1
        try:
            return await side_by_side(jobs)
        finally:
            task.trace.extend(chain.from_iterable(asked))

    async def _decide(self, task: Task, shown: Set, number: int, sample: int, asked: list[Comparison]) -> Answer:
        """The answer to one set: the model's, or where that is unsure that of several votes, in fresh orders."""
        asked.append(await self._compare(task, shown, number, sample))
        if not self.auto or not _unsure(asked[0]):
            return asked[0].answer
        most = min(AUTO_VOTES, factorial(len(shown)))
        more = orders(shown, most, f"{self.comparing.seed} {number} {shown}")[1:]
        votes: list[list[Comparison]] = [[] for _ in more]
        try:
            await side_by_side([self._vote(task, order, number, one) for order, one in zip(more, votes, strict=True)])
        finally:
            asked += chain.from_iterable(votes)
        return (winner(asked),)

    async def _vote(self, task: Task, shown: Set, number: int, asked: list[Comparison]) -> None:
        asked.append(await self._compare(task, shown, number, 0))

    async def _compare(self, task: Task, shown: Set, number: int, sample: int) -> Comparison:
        return await self.comparing.compare(task.query, task.lines, shown, number, sample, task.known)


def _unsure(comparison: Comparison) -> bool:
    """Whether another label is near the one that was given, or none was given at all."""
    if comparison.probabilities is None:
        return True
    given = probability(comparison.answer[0], comparison)
    others = [probability(position, comparison) for position in comparison.set if position != comparison.answer[0]]
    return given - max(others) < AUTO_MARGIN
