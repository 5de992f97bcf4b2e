"""Plays the selections of a query with a model as the judge: a round at a time, its sets at once, a selection per hop.

One coroutine a query and no barrier between queries: each continues as soon as its own round is complete.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import factorial
from typing import Any, Literal, TypeVar

from rankr1_rag.backends import Request
from rankr1_rag.concurrency.event_loop import raise_backend_error
from rankr1_rag.concurrency.foreign_loop import Retriever
from rankr1_rag.engine.query import Budget, QueryRun, Texts
from rankr1_rag.errors import BackendError, UnparsedError
from rankr1_rag.prompt import Forced, shares, tokens
from rankr1_rag.scoring import probability, winner
from rankr1_rag.selection import ALGORITHMS, LISTWISE, SCORES, Done, Set, among, orders, scores, step, voted, window
from rankr1_rag.settings import Plan
from rankr1_rag.telemetry import chat
from rankr1_rag.types import (
    Comparison,
    Completion,
    Message,
    Ranking,
    Reason,
    TokenLogprob,
    Truncated,
)

T = TypeVar("T")

AUTO_VOTES = 5
"""Votes on a set with `votes="auto"`, if its first answer is unsure."""

AUTO_MARGIN = 0.5
"""An answer is unsure if its probability exceeds that of the best other label by less than this."""

ALTERNATIVES = 20
"""Log-probabilities requested for each token of a label: the most that servers give."""

NEGLIGIBLE = 1e-3
"""A probability below this that several labels share is divided equally, without another request."""

NO_REASONING = Completion("", finish_reason="length", stored=True)
"""In place of the first completion if no reasoning is requested: it cost nothing and holds no answer."""

LARGE_CUT = 0.25
"""Share of the texts of all candidates: if more is cut, a reranker warns, once."""

LARGE = 20_000
"""Characters of candidates from which on they are sanitised and clipped in a thread: it takes 6 ms or more."""


@dataclass(frozen=True, slots=True)
class SelectionLoop:
    """Ranks queries, any number of them at once, on any loop."""

    plan: Plan
    comparer: Comparer
    budget: Budget
    on_failure: Literal["raise", "first_stage"] = "raise"
    done: set[str] = field(default_factory=set)
    """What is done once a reranker."""

    async def run(self, run: QueryRun) -> Ranking:
        """Rank a query: one selection or, with hops, one passage a hop until the last hop selects the rest of the k.

        A hop is shown the passages of the hops before it as known; between two hops more candidates may be retrieved.
        Raises UnparsedError, whatever `retrieve` raises and, unless `on_failure` is "first_stage", BackendError.
        """
        failure, searched, backend = None, 0, self.plan.backend
        run.started = time.perf_counter()
        most = run.wanted if run.retrieve is None or not run.candidates else run.k
        hops = self.plan.hops if most is None else min(self.plan.hops, most)
        budget = self.budget if hops < 2 else replace(self.budget, known=hops - 1)
        try:
            for hop in range(1, hops + 1):
                is_new = hop == 1
                if run.retrieve is not None and len(run.chosen) > searched:
                    last, searched = run.candidates[run.chosen[-1]], len(run.chosen)
                    text = " ".join(part for part in (run.query.text, last.title, last.text) if part)
                    is_new = run.add(await Retriever(run.retrieve).find(text))
                if not is_new:
                    pass
                elif (
                    ("context" in self.done or not hasattr(type(backend), "context"))  # a plain value
                    and backend.context is None
                    and sum([len(passage.text) for passage in run.candidates]) < LARGE
                ):
                    run.texts = budget.fit(run.query.text, run.candidates, backend, run.query.instruction)
                else:  # a file may be read, or a model loaded to count: not on the loop that others wait for
                    fit, query = budget.fit, run.query
                    run.texts = await asyncio.to_thread(fit, query.text, run.candidates, backend, query.instruction)
                    self.done.add("context")
                if run.texts.cut_share > LARGE_CUT and "warning" not in self.done:
                    self.done.add("warning")
                    self.warn(run.texts, run.query.text)
                await self.select(run, run.wanted - len(run.chosen) if hop == hops else 1)
            run.is_complete = True
        except BackendError as error:
            if self.on_failure == "raise":
                raise
            failure = f"{type(error).__name__}: {error}"
        trace = [comparison for _, comparison in sorted(run.trace.comparisons.items())]
        if any(comparison.reasoning_tokens for comparison in trace):
            trace = await self.comparer.count_reasoning(trace, estimate=failure is not None)
        seconds = time.perf_counter() - run.started - (run.turn.waited if run.turn else 0.0)
        return run.ranking(self.plan, trace, seconds, failure)

    async def cut_short(self, run: QueryRun, reason: Reason) -> Ranking:
        """The ranking of a query that ends here and now; nothing is awaited, tokens of reasoning are estimated."""
        trace = [comparison for _, comparison in sorted(run.trace.comparisons.items())]
        if any(comparison.reasoning_tokens for comparison in trace):
            trace = await self.comparer.count_reasoning(trace, estimate=True)
        waited = run.turn.waited if run.turn else 0.0
        seconds = time.perf_counter() - run.started - waited if run.started else 0.0
        limits, truncated = run.limits, None
        if limits is not None and not run.is_complete:
            limit = limits.tokens if reason == "budget_tokens" else limits.seconds
            truncated = Truncated(reason, limit or 0, len(run.selected), run.unanswered)
        return run.ranking(self.plan, trace, seconds, None, truncated)

    def warn(self, texts: Texts, query: str) -> None:
        """Log how much of the passages the model does not see, and the remedy."""
        plan, context = self.plan, self.plan.backend.context
        if texts.limit == plan.passage_tokens:
            why = f"the model reads {texts.limit} tokens of each passage: pass shorter passages, or set passage_tokens="
        else:
            why = (
                f"a context of {context} tokens leaves {texts.limit} for each passage of a set of "
                f"{min(texts.size, len(texts.lines))}: set "
                f"context= if the model's is longer, or a smaller size= or reasoning_tokens= ({plan.reasoning_tokens})"
            )
        logging.getLogger("rankr1_rag").warning(
            "query %.100r: %.0f %% of the words of its passages are not shown, as %s", query, 100 * texts.cut_share, why
        )

    async def select(self, run: QueryRun, k: int) -> None:
        """Select k of the candidates that are not selected yet. BackendError, UnparsedError."""
        left = sorted(set(range(len(run.candidates))).difference(run.chosen))
        if not left:
            return
        plan = self.plan
        run.left, run.places = left, []
        votes = 1 if plan.votes == "auto" else plan.votes
        if plan.algorithm == SCORES:  # the last hop has a score for all that are left
            k = k if k < run.wanted - len(run.chosen) else len(left)
            selection = scores(len(left), k, run.texts.size, run.places, epochs=votes, seed=plan.seed)
        else:
            algorithm = ALGORITHMS[plan.algorithm]
            if plan.algorithm in LISTWISE:  # of smaller sets, where texts are long, the same part overlaps
                part = plan.step and max(1, plan.step * run.texts.size // plan.size)
                algorithm = partial(window, step=part, passes=plan.passes)
            selection = algorithm(len(left), k, run.texts.size, run.places)
            if votes > 1:
                selection = voted(selection, votes, plan.seed)
        if run.chosen:
            selection = among(selection, left)
        try:
            state = step(selection)
            while not isinstance(state, Done):
                run.round, run.open, samples, jobs = state, [1] * len(state), Counter[Set](), []
                for place, shown in enumerate(state):
                    jobs.append(self.answer(run, shown, place, samples[shown]))
                    samples[shown] += 1
                if run.limits is None:
                    answers = await concurrently(jobs)
                else:  # those first that may change the first places of the order so far
                    turns = sorted(range(len(jobs)), key=[min(shown) for shown in state].__getitem__)
                    found = dict(zip(turns, await concurrently([jobs[place] for place in turns]), strict=True))
                    answers = [found[place] for place in range(len(jobs))]
                run.trace.rounds += 1
                state = step(selection, answers)
                if run.limits is not None:
                    run.emit_order(plan, run.limits)
            run.chosen += state.value
            run.places, run.round, run.open = [], [], []
        finally:
            selection.close()

    async def answer(self, run: QueryRun, shown: Set, place: int, sample: int) -> Any:  # noqa: ANN401
        """The answer to the set at this place of its round: the model's or, if unsure, that of votes in new orders.

        For the algorithm "scores" it is the score of each position.
        """
        compare = self.comparer.compare_by_token if self.plan.format.choices else self.comparer.compare
        async with run.turn or nullcontext():
            first = await compare(run, shown, sample)
        run.trace.add(first, place)
        more: list[Set] = []
        if self.plan.votes == "auto" and is_unsure(first):
            most = min(AUTO_VOTES, factorial(len(shown)))
            more = orders(shown, most, f"{self.plan.seed} {run.trace.rounds} {shown}")[1:]
        run.open[place] = len(more)
        if run.limits is not None:
            run.follow(self.plan, run.limits, first)
        if self.plan.algorithm == SCORES:
            return {one: score for one, score in zip(shown, first.scores, strict=True) if score is not None}
        if not more:
            return first.answer

        async def vote(number: int, order: Set) -> Comparison:
            async with run.turn or nullcontext():
                comparison = await self.comparer.compare(run, order)
            run.trace.add(comparison, place, number)
            run.open[place] -= 1
            if run.limits is not None:
                run.follow(self.plan, run.limits, comparison)
            return comparison

        votes = await concurrently([vote(number, order) for number, order in enumerate(more, 1)])
        return (winner([first, *votes]),)


@dataclass(frozen=True, slots=True)
class Comparer:
    """Shows sets to the model and reads its answers."""

    plan: Plan

    async def compare(self, run: QueryRun, shown: Set, sample: int = 0) -> Comparison:
        """Show the texts at these positions and read the answer. BackendError, and with `strict` UnparsedError.

        The positions selected so far are shown as known. `reasoning_tokens` of the result count all tokens of the
        first completion, see `count_reasoning`.
        """
        plan, format, n, known = self.plan, self.plan.format, len(shown), tuple(run.chosen)
        messages = run.texts.messages(format, shown, known)
        first, forced, label = NO_REASONING, None, None
        if (limits := run.limits) is not None:
            limits.opened((run.trace.rounds, shown, sample), known)
        if plan.reasoning_tokens or not format.reasoning:
            budget = plan.reasoning_tokens * format.reasoning + format.answer_tokens(n)
            request = self.complete(messages, budget, sample)
            first = await (request if limits is None else limits.heard((run.trace.rounds, shown, sample), request))
        truncated = first.finish_reason == "length"
        # Reasoning that the budget cut off holds no answer: models quote the example of the prompt. A server whose
        # template writes `<think>` itself returns reasoning without that tag.
        untagged = (
            format.reasoning and f"{format.tag}>" not in first.text and not first.text.rstrip().endswith("</answer>")
        )
        in_reasoning = truncated and (format.is_reasoning(first.text) or (untagged and plan.force != "never"))
        places = None if in_reasoning else format.parse(first.text, n)
        completion, lenient, read = first, None, first.text
        if places is None and not (truncated or plan.strict_format):
            places = lenient = format.lenient(first.text, n)
        if places is None and (plan.force == "unparsed" or (plan.force == "truncated" and truncated)):
            can_continue = plan.backend.can_continue
            forced = format.force(messages, first.text, n, run.texts.special, can_continue=can_continue)
            label = await self.force(forced, sample)
            written = forced.meant(label.text)
            completion = replace(summed(label, [first]), text=forced.text + written, logprobs=None)
            read = forced.opened + written
            places = format.parse(read, n)
            if places is None and label.finish_reason != "length" and not plan.strict_format:
                places = lenient = format.lenient(read, n)
        if places is None and plan.strict:
            raise UnparsedError(
                f"query {run.query.text[:100]!r}: the answer names no passage of 1..{n}: {completion.text[-300:]!r}"
            )
        probabilities = None
        if places is None:  # trust the retriever
            answer = (min(shown),) if format.kind == "setwise" else tuple(sorted(shown))
        else:
            answer = tuple([shown[place] for place in places])
            if plan.probabilities or plan.votes == "auto":
                opened = forced or (
                    format.reopen(messages, first.text, n, run.texts.special)
                    if lenient is None
                    else format.force(messages, first.text, n, run.texts.special, can_continue=True)
                )
                probabilities, requested = await self.probabilities(opened, label, sample)
                completion = summed(completion, requested)
        scores: tuple[float | None, ...] = ()
        if format.kind == "scored":
            scores = (format.scores(read, n) if places else None) or (None,) * n
        return Comparison(
            set=shown,
            answer=answer,
            completion=completion,
            round=run.trace.rounds,
            reasoning=format.reasoning_of(completion.text),
            parsed=places is not None,
            forced=forced is not None,
            sample=sample,
            reasoning_tokens=first.completion_tokens if format.reasoning else 0,
            probabilities=probabilities,
            known=known,
            lenient=lenient is not None,
            scores=scores,
        )

    async def compare_by_token(self, run: QueryRun, shown: Set, sample: int = 0) -> Comparison:
        """Ask for the score of one passage: the probability of the first of the format's choices, after reasoning."""
        plan, format, known = self.plan, self.plan.format, tuple(run.chosen)
        messages = run.texts.messages(format, shown, known)
        first, ask = NO_REASONING, (run.trace.rounds, shown, sample)
        if (limits := run.limits) is not None:
            limits.opened(ask, known)
        if format.reasoning and plan.reasoning_tokens:
            request = self.complete(messages, plan.reasoning_tokens + format.answer_tokens(1), sample)
            first = await (request if limits is None else limits.heard(ask, request))
        opened = format.force(messages, first.text, len(shown), run.texts.special, can_continue=True)
        found, labels = await self.probabilities(opened, None, sample)
        completion = summed(replace(labels[0], text=opened.text + labels[0].text, logprobs=None), [first, *labels[1:]])
        return Comparison(
            set=shown,
            answer=shown,
            completion=completion,
            round=run.trace.rounds,
            reasoning=format.reasoning_of(completion.text) if format.reasoning else "",
            forced=format.reasoning and f"</{format.tag}>" not in first.text,
            sample=sample,
            reasoning_tokens=first.completion_tokens if format.reasoning else 0,
            known=known,
            scores=found[:1],
        )

    async def force(self, forced: Forced, sample: int) -> Completion:
        """The answer of a model that is held to a label, with log-probabilities if they are needed."""
        plan = self.plan
        alternatives = ALTERNATIVES if plan.probabilities or plan.votes == "auto" or plan.format.choices else 0
        return await self.complete(forced.messages, forced.max_tokens, sample, forced.choices, alternatives)

    async def probabilities(
        self, opened: Forced, label: Completion | None, sample: int
    ) -> tuple[tuple[float, ...], list[Completion]]:
        """The probability of each label in shown order, sum 1, and the completions requested for it.

        Where several likely labels begin alike the model is asked for the rest, until each has a probability.
        """
        requested = [] if label else [await self.force(opened, sample)]
        found = shares(opened.choices, (label or requested[0]).logprobs or ())
        if found is None:
            format, votes = self.plan.format, "votes=3, or "
            needs = f"format={format.name!r} needs" if format.choices else "probabilities=True and votes='auto' need"
            raise BackendError(
                f"the model {self.plan.backend.model!r} gives no token alternatives, which {needs}: use "
                f"{'' if format.choices else votes}vLLM, transformers or a server that gives them"
            )
        while found.opened:
            pooled = {begun: (mass, opened.after(begun)) for begun, mass in found.opened.items()}
            found.opened.clear()
            likely = [begun for begun, (mass, _) in pooled.items() if mass >= NEGLIGIBLE]
            completions = await concurrently([self.force(pooled[begun][1], sample) for begun in likely])
            requested += completions
            logprobs = {begun: one.logprobs for begun, one in zip(likely, completions, strict=True)}
            for begun, (mass, after) in pooled.items():
                found.divide(begun, mass, after.choices, logprobs.get(begun) or ())
        # a sum of parts may exceed 1 by the last digit
        return tuple(min(1.0, found.settled.get(choice, 0.0)) for choice in opened.choices), requested

    async def count_reasoning(self, trace: list[Comparison], *, estimate: bool = False) -> list[Comparison]:
        """Take the tokens of the answers off `reasoning_tokens`, once a query; before a forced answer all tokens count.

        Estimated for a text that the backend cannot count (a model may write characters that no tokenizer takes), and
        with `estimate`: after a failure counting might load a lost model again.
        """
        format, backend = self.plan.format, self.plan.backend
        answers = {
            text: format.after_reasoning(text)
            for text in {one.completion.text for one in trace if one.reasoning_tokens and not one.forced}
        }

        def count() -> dict[str, int]:
            counts = {}
            for answer in set(answers.values()):
                try:
                    counts[answer] = tokens(answer, (lambda _: None) if estimate else backend.count)
                except Exception:
                    counts[answer] = tokens(answer, lambda _: None)
            return counts

        waits = not estimate and backend.context is not None  # perhaps for a model that is loaded
        counts = await asyncio.to_thread(count) if waits else count()
        return [
            one
            if one.forced or not one.reasoning_tokens
            else replace(one, reasoning_tokens=max(0, one.reasoning_tokens - counts[answers[one.completion.text]]))
            for one in trace
        ]

    async def complete(
        self,
        messages: Sequence[Message],
        max_tokens: int,
        sample: int,
        choices: tuple[str, ...] = (),
        logprobs: int = 0,
    ) -> Completion:
        """One request. Any error of the backend becomes a BackendError: see `raise_backend_error`.

        What a backend answers although it was cancelled counts for nothing.
        """
        plan, task = self.plan, asyncio.current_task()
        request = Request(
            messages, max_tokens, plan.temperature, choices=choices, logprobs=logprobs, seed=plan.seed, sample=sample
        )
        try:
            traced = chat.get()
            completion = await (traced(plan.backend, request) if traced else plan.backend.complete(request))
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            used = completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens
            if not (isinstance(completion.text, str) and isinstance(completion.finish_reason, str)):
                raise TypeError(f"no text in {completion!r:.200}")
            if completion.logprobs and not all([isinstance(one, TokenLogprob) for one in completion.logprobs]):
                raise TypeError(f"a logprob that is no TokenLogprob in {completion!r:.200}")
            if [*map(type, used)] != [int, int, int] or min(used) < 0 or max(used) >= 2**31:
                raise ValueError(f"an impossible number of tokens in {completion!r:.200}")
            return completion
        except BaseException as error:
            raise_backend_error(error, plan.backend.model, task)


def is_unsure(comparison: Comparison) -> bool:
    """Whether another label is nearly as probable as the answer, or the answer names no passage."""
    if comparison.probabilities is None:
        return True
    answer = comparison.answer[0]
    others = [probability(position, comparison) for position in comparison.set if position != answer]
    return probability(answer, comparison) - max(others) < AUTO_MARGIN


def summed(completion: Completion, others: Sequence[Completion]) -> Completion:
    """The completion with the tokens of the others added."""
    return replace(
        completion,
        prompt_tokens=completion.prompt_tokens + sum(other.prompt_tokens for other in others),
        cached_tokens=completion.cached_tokens + sum(other.cached_tokens for other in others),
        completion_tokens=completion.completion_tokens + sum(other.completion_tokens for other in others),
        stored=completion.stored and all(other.stored for other in others),
    )


async def concurrently(jobs: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. If one fails, the others are cancelled and one plain exception is raised, not a group."""
    if len(jobs) == 1:
        return [await jobs[0]]
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as failures:
        first: BaseException = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__
    return [one.result() for one in running]
