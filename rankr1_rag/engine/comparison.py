"""One comparison: a set shown to the model, its thought, its answer, and if wanted the probability of every label.

Knows what a format and a backend promise; knows nothing of selections, rounds and other comparisons.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from rankr1_rag.backends import Backend, Request
from rankr1_rag.errors import BackendError, RankR1Error, UnparsedError
from rankr1_rag.prompt import Forced, Format, Shares, continued, shares, tokens
from rankr1_rag.selection import Set
from rankr1_rag.types import Comparison, Completion, Force, Message

T = TypeVar("T")


ALTERNATIVES = 20
"""Log-probabilities asked for at each token of a label: the most that servers give."""

NEGLIGIBLE = 1e-3
"""What several labels share is not asked for any further below this: it is divided equally."""

_NOTHING_YET = Completion("", finish_reason="length", stored=True)
"""Stands for the thought where none is asked for: it cost nothing and holds no answer."""

_MEMORY, _SHORT = 4_096, 100


@dataclass(frozen=True, slots=True)
class Comparing:
    """How a set is shown and answered. Its only state is a memory of how many tokens an answer has."""

    backend: Backend
    format: Format
    reasoning_tokens: int
    force: Force = "truncated"
    strict: bool = False
    temperature: float = 0.0
    seed: int = 0
    probabilities: bool = False
    _answers: dict[str, int] = field(default_factory=dict)

    async def compare(
        self, query: str, lines: Sequence[str], shown: Set, round: int, sample: int, known: Set = ()
    ) -> Comparison:
        """Show the lines at these positions, read the answer. BackendError, and with `strict` UnparsedError.

        Those at the positions `known` are shown as known already.
        """
        n = len(shown)
        texts, context = ([lines[position] for position in some] for some in (shown, known))
        messages = self.format.messages(query, texts, context)
        first, forced, label = _NOTHING_YET, None, None
        if self.reasoning_tokens or not self.format.reasoning:
            budget = self.reasoning_tokens * self.format.reasoning + self.format.answer_tokens(n)
            first = await self._complete(messages, budget, sample)
        completion, places = first, self._read(first, n)
        if places is None and self._must_force(first):
            forced = self.format.force(messages, first.text, n, can_continue=self.backend.can_continue)
            label = await self._label(forced, sample)
            completion, places = _joined(first, forced, label), self.format.parse(_answer(forced, label), n)
        if places is None and self.strict:
            end = completion.text[-300:]
            raise UnparsedError(f"query {query[:100]!r}: the answer names no passage of 1..{n}: {end!r}")
        probabilities = None
        if self.probabilities and places is not None:
            opened = forced or self.format.reopen(messages, completion.text, n)
            probabilities, asked = await self._probabilities(opened, label, sample)
            completion = _plus(completion, asked)
        return Comparison(
            set=shown,
            answer=self._trust_the_retriever(shown) if places is None else tuple([shown[place] for place in places]),
            completion=completion,
            round=round,
            reasoning=self.format.reasoning_of(completion.text),
            parsed=places is not None,
            forced=forced is not None,
            sample=sample,
            reasoning_tokens=await self._thought_tokens(first, cut=forced is not None),
            probabilities=probabilities,
            known=known,
        )

    def _read(self, completion: Completion, n: int) -> tuple[int, ...] | None:
        """The answer. What a thought says that the budget cut off is none: models quote the example they are given."""
        if completion.finish_reason == "length" and self.format.is_reasoning(completion.text):
            return None
        return self.format.parse(completion.text, n)

    def _must_force(self, completion: Completion) -> bool:
        return self.force == "unparsed" or (self.force == "truncated" and completion.finish_reason == "length")

    def _trust_the_retriever(self, shown: Set) -> tuple[int, ...]:
        """The first-stage best of a set; for a listwise format the whole set in first-stage order."""
        return (min(shown),) if self.format.kind == "setwise" else tuple(sorted(shown))

    async def _label(self, forced: Forced, sample: int) -> Completion:
        alternatives = ALTERNATIVES if self.probabilities else 0
        return await self._complete(forced.messages, forced.max_tokens, sample, forced.choices, alternatives)

    async def _probabilities(
        self, opened: Forced, label: Completion | None, sample: int
    ) -> tuple[tuple[float, ...], list[Completion]]:
        """Of each label, in shown order, sum 1; and the completions that had to be asked for."""
        asked = [] if label else [await self._label(opened, sample)]
        said = label or asked[0]
        found = shares(opened.choices, said.logprobs or ())
        if found is None:
            raise BackendError(
                f"the backend {self.backend.model!r} gives no alternatives of a token that begin a label, from which "
                "probabilities of labels could be read: votes='auto' and probabilities=True are not for it"
            )
        asked += await self._settle(opened, found, sample)
        return tuple(found.settled.get(choice, 0.0) for choice in opened.choices), asked

    async def _settle(self, opened: Forced, found: Shares, sample: int) -> list[Completion]:
        """Ask what comes next wherever several labels begin alike, until each has its own probability."""
        asked: list[Completion] = []
        while found.opened:
            pooled = dict(found.opened)
            found.opened.clear()
            likely = [begun for begun, mass in pooled.items() if mass >= NEGLIGIBLE]
            said = dict(
                zip(likely, await side_by_side([self._after(opened, one, sample) for one in likely]), strict=True)
            )
            asked += said.values()
            for begun, mass in pooled.items():
                rest = continued(opened.choices, begun)
                inner = shares(rest, said[begun].logprobs or ()) if begun in said else None
                inner = inner or Shares(dict.fromkeys(rest, 1 / len(rest)))
                for choice, share in inner.settled.items():
                    found.settled[begun + choice] = found.settled.get(begun + choice, 0.0) + mass * share
                found.opened.update({begun + more: mass * share for more, share in inner.opened.items()})
        return asked

    async def _after(self, opened: Forced, begun: str, sample: int) -> Completion:
        """How a label goes on that begins so."""
        last = {**opened.messages[-1], "content": opened.messages[-1]["content"] + begun}
        rest = continued(opened.choices, begun)
        return await self._label(replace(opened, messages=[*opened.messages[:-1], last], choices=rest), sample)

    async def _thought_tokens(self, first: Completion, *, cut: bool) -> int:
        """How many tokens of the first completion are thought: all, where it came to no answer; else all but that."""
        if not self.format.reasoning:
            return 0
        if cut:
            return first.completion_tokens
        rest = self.format.after_reasoning(first.text)
        if (count := self._answers.get(rest)) is None:
            count = await self._count(rest)
            if len(rest) <= _SHORT and len(self._answers) < _MEMORY:
                self._answers[rest] = count
        return max(0, first.completion_tokens - count)

    async def _count(self, text: str) -> int:
        """Tokens, by the backend where it can. What a model wrote may be no text at all, and costs no comparison."""
        try:
            if self.backend.context is None:
                return tokens(text, self.backend.count)
            return await asyncio.to_thread(tokens, text, self.backend.count)  # may mean waiting for a model
        except Exception:
            return tokens(text, lambda _: None)

    async def _complete(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        sample: int,
        choices: tuple[str, ...] = (),
        logprobs: int = 0,
    ) -> Completion:
        request = Request(
            messages,
            max_tokens,
            self.temperature,
            choices=choices,
            logprobs=logprobs,
            seed=self.seed,
            sample=sample,
        )
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


def _answer(forced: Forced, label: Completion) -> str:
    """What of the transcript is the answer: the thought may quote others."""
    return forced.opened + forced.meant(label.text)


def _joined(first: Completion, forced: Forced, label: Completion) -> Completion:
    """The whole transcript: the thought, what was added to it, and the label."""
    whole = replace(label, text=forced.text + forced.meant(label.text))
    return replace(_plus(whole, [first]), logprobs=None)  # of the label alone, and in `probabilities` if wanted


def _plus(completion: Completion, others: Sequence[Completion]) -> Completion:
    """The completion with what the others cost."""
    return replace(
        completion,
        prompt_tokens=completion.prompt_tokens + sum(other.prompt_tokens for other in others),
        cached_tokens=completion.cached_tokens + sum(other.cached_tokens for other in others),
        completion_tokens=completion.completion_tokens + sum(other.completion_tokens for other in others),
        stored=completion.stored and all(other.stored for other in others),
    )


async def side_by_side(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results in order. One plain exception if any fails, the others cancelled: callers know of no groups."""
    if len(jobs) == 1:
        return [await jobs[0]]
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as failures:
        raise _first(failures) from None
    return [one.result() for one in running]


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
