"""Where positions, text and tokens meet: steps a selection, puts its sets to the backend, reads the answers.

One coroutine a query, no barrier between queries: each moves on as soon as its own round is back. Knows what a
format, a selection and a backend promise, and none of them by name; nothing of files, frameworks or retries.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rankr1_rag.backends import Backend, Request
from rankr1_rag.errors import BackendError, RankR1Error, UnparsedError
from rankr1_rag.prompt import Format
from rankr1_rag.selection import Done, Round, Selection, Set, step
from rankr1_rag.types import Comparison, Completion

Force = Literal["truncated", "unparsed", "never"]
"""When a label is forced: where the budget cut the text off, after every text without an answer, or never."""

_NOTHING_YET = Completion("", finish_reason="length", stored=True)
"""Stands for the thought where none is asked for: it cost nothing and holds no answer."""


@dataclass(slots=True, eq=False)
class Task:
    """One query being ranked: its selection, its texts (clean and clipped), and the comparisons made so far.

    `lines` are the candidates as shown, by position. `trace` grows by whole rounds, in the order asked; when a
    backend fails it keeps what the last round had finished.
    """

    selection: Selection
    query: str
    lines: Sequence[str]
    trace: list[Comparison] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs tasks on a backend. Stateless: any number of tasks at once, on any loop."""

    backend: Backend
    format: Format
    think_tokens: int
    force: Force = "truncated"
    strict: bool = False
    temperature: float = 0.0
    seed: int = 0

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

    async def _round(self, task: Task, sets: Round) -> list[tuple[int, ...]]:
        number = task.trace[-1].round + 1 if task.trace else 0
        if len(sets) == 1:
            task.trace.append(await self._compare(task, sets[0], number, 0))
            return [task.trace[-1].answer]
        running: list[asyncio.Task[Comparison]] = []
        try:
            async with asyncio.TaskGroup() as group:
                seen: Counter[Set] = Counter()
                for shown in sets:
                    running.append(group.create_task(self._compare(task, shown, number, seen[shown])))
                    seen[shown] += 1
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        finally:
            done = [one.result() for one in running if one.done() and not one.cancelled() and not one.exception()]
            task.trace.extend(done)
        return [comparison.answer for comparison in done]

    async def _compare(self, task: Task, shown: Set, number: int, sample: int) -> Comparison:
        n = len(shown)
        messages = self.format.messages(task.query, [task.lines[position] for position in shown])
        completion, forced = _NOTHING_YET, False
        if self.think_tokens or not self.format.reasoning:
            budget = self.think_tokens * self.format.reasoning + self.format.answer_tokens(n)
            request = Request(messages, budget, self.temperature, seed=self.seed, sample=sample)
            completion = await self._complete(request)
        places = self._read(completion, n)
        if places is None and self._must_force(completion):
            completion, answer = await self._forced(messages, completion, n, sample)
            places, forced = self.format.parse(answer, n), True
        if places is None and self.strict:
            end = completion.text[-300:]
            raise UnparsedError(f"query {task.query[:100]!r}: the answer names no passage of 1..{n}: {end!r}")
        return Comparison(
            set=shown,
            answer=self._trust_the_retriever(shown) if places is None else tuple([shown[place] for place in places]),
            completion=completion,
            round=number,
            thought=self.format.thought(completion.text),
            parsed=places is not None,
            forced=forced,
            sample=sample,
        )

    def _read(self, completion: Completion, n: int) -> tuple[int, ...] | None:
        """The answer. What a thought says that the budget cut off is none: models quote the example they are given."""
        if completion.finish_reason == "length" and self.format.thinking(completion.text):
            return None
        return self.format.parse(completion.text, n)

    def _must_force(self, completion: Completion) -> bool:
        return self.force == "unparsed" or (self.force == "truncated" and completion.finish_reason == "length")

    async def _forced(
        self, messages: Sequence[Any], thought: Completion, n: int, sample: int
    ) -> tuple[Completion, str]:
        """The whole transcript, and what of it is the answer: the thought may quote others."""
        forced = self.format.force(messages, thought.text, n, can_continue=self.backend.can_continue)
        label = await self._complete(
            Request(
                forced.messages,
                forced.max_tokens,
                self.temperature,
                choices=forced.choices,
                seed=self.seed,
                sample=sample,
            )
        )
        said = forced.meant(label.text)
        whole = Completion(
            text=forced.text + said,
            prompt_tokens=thought.prompt_tokens + label.prompt_tokens,
            cached_tokens=thought.cached_tokens + label.cached_tokens,
            completion_tokens=thought.completion_tokens + label.completion_tokens,
            finish_reason=label.finish_reason,
            logprobs=label.logprobs,
            stored=label.stored and thought.stored,
        )
        return whole, forced.opened + said

    async def _complete(self, request: Request) -> Completion:
        try:
            return await self.backend.complete(request)
        except RankR1Error:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # ours: the caller went away
                raise
            raise self._failed(error) from error
        except GeneratorExit:
            raise
        except BaseException as error:  # SystemExit and the like would end the loop for everyone
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> BackendError:
        return BackendError(f"the backend {self.backend.model!r} failed: {type(error).__name__}: {error}")

    def _trust_the_retriever(self, shown: Set) -> tuple[int, ...]:
        """The first-stage best of a set; for a listwise format the whole set in first-stage order."""
        return (min(shown),) if self.format.kind == "setwise" else tuple(sorted(shown))


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """One plain exception out of a group: callers should not have to know that comparisons ran side by side."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
