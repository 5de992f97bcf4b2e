"""Deadlines, token budgets and events: the order so far in time, whatever is slow; nothing is lost, nothing leaks."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankr1_rag import BackendError, Comparison, Completion, Ranking, Reranker
from rankr1_rag.backends import Request, on_text
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.engine.query import MANY, QueryRun, decided
from rankr1_rag.explain import story
from rankr1_rag.explain.html import page
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json
from rankr1_rag.selection import ALGORITHMS, step
from rankr1_rag.types import (
    ComparisonAnswered,
    ComparisonOpened,
    ComparisonText,
    Event,
    Message,
    OrderSoFar,
    RankingDone,
    Truncated,
)
from tests.engine.test_label_probabilities import Spelling

LATE = 0.25
"""Seconds after its deadline in which a ranking is there, in one of several attempts as others may have the cores.

`python -m bench.deadlines` measures how late it really is.
"""

PATIENCE = 10.0
"""Seconds in which anything happens that happens at all."""

TEXTS = [f"number {n}" for n in range(30)]


def highest(messages: Sequence[Message]) -> str:
    """The label of the passage with the greatest number."""
    lines = re.findall(r"^\[(\d+)\] number (\d+)", messages[-1]["content"], re.MULTILINE)
    label = max(lines, key=lambda one: int(one[1]))[0]
    return f"<think>the greatest</think> <answer>[{label}]</answer>"


def after(seconds: float, *, stubborn: float = 0.0, tokens: int = 0) -> Callable[[Sequence[Message]], Any]:
    """A script that answers after these seconds, and needs `stubborn` seconds to be cancelled."""

    async def script(messages: Sequence[Message]) -> Completion:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(stubborn)
            raise
        return Completion(highest(messages), prompt_tokens=tokens, completion_tokens=tokens // 10)

    return script


def check(ranking: Ranking, n: int = len(TEXTS)) -> None:
    """Every candidate once, what is selected first, and scores that fall."""
    assert sorted(ranking.order) == list(range(n))
    early = ranking.truncated
    if early is not None:
        assert len(ranking.selected) == early.selected <= ranking.k
        assert pickle.loads(pickle.dumps(ranking)).truncated == early
        if ranking.chosen is None:
            assert ranking.order[: early.selected] == ranking.selected
    assert all(one > other for one, other in zip(ranking.scores, ranking.scores[1:], strict=False))


async def never(messages: Sequence[Message]) -> str:
    await asyncio.sleep(3600)
    return highest(messages)


def swallowing(answer: str, finish_reason: str = "stop") -> Callable[[Sequence[Message]], Any]:
    """A script that answers nevertheless when it is cancelled."""

    async def script(messages: Sequence[Message]) -> Completion:
        requested.append(time.perf_counter())
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return Completion(answer, finish_reason=finish_reason)

    return script


requested: list[float] = []
"""When."""


released = threading.Event()
"""Ends the threads of a test."""


class Loading(Scripted):
    """A model that is loaded when its tokenizer is used, on whatever thread that is."""

    def count(self, text: str) -> int | None:
        released.wait(60)
        return len(text)


def searching(_: str) -> list[str]:
    released.wait(60)
    return ["number 99"]


SLOW: dict[str, Callable[[], tuple[Reranker, dict[str, Any]]]] = {
    "a model that never answers": lambda: (Reranker(Scripted(never)), {}),
    "one that is slow to be cancelled": lambda: (Reranker(Scripted(after(3600, stubborn=60))), {}),
    "one that answers when it is cancelled": lambda: (Reranker(Scripted(swallowing("<answer>[1]</answer>"))), {}),
    "one that is cut off when it is cancelled": lambda: (Reranker(Scripted(swallowing("<think>I", "length"))), {}),
    "one that says nothing when it is cancelled": lambda: (
        Reranker(Scripted(swallowing("No.")), force="unparsed", votes=2),
        {},
    ),
    "a model that is being loaded": lambda: (Reranker(Loading(highest, context=100_000)), {}),
    "one with a single slot": lambda: (Reranker(Scripted(never, capacity=1), in_flight=2), {}),
    "votes": lambda: (Reranker(Scripted(never), votes=3), {}),
    "hops": lambda: (Reranker(Scripted(never), hops=2), {}),
    "a retriever": lambda: (Reranker(Scripted(highest), hops=2), {"retrieve": searching}),
    "fusion": lambda: (Reranker(Scripted(never), fusion=60.0), {}),
    "many passages": lambda: (Reranker(Scripted(never)), {}),
}


@pytest.mark.parametrize("case", SLOW)
def test_the_ranking_is_there_at_the_deadline_whatever_is_slow(case: str) -> None:
    texts = [*TEXTS, *["word " * 4_000] * 20] if case == "many passages" else TEXTS
    late = list[float]()
    while not late or (min(late) >= LATE and len(late) < 5):
        reranker, arguments = SLOW[case]()
        reranker.rank("q", ["one"])  # the private loop is there
        released.clear()
        requested.clear()
        begun = time.perf_counter()
        ranking = reranker.rank("q", texts, deadline=0.2, **arguments)
        late.append(time.perf_counter() - begun - 0.2)
        released.set()
        check(ranking, len(texts))
        assert ranking.truncated is not None
        assert (ranking.truncated.reason, ranking.truncated.limit) == ("deadline", 0.2)
        time.sleep(0.05 if requested else 0.0)
        assert all(at < begun + 0.2 for at in requested), "it was asked again after the deadline"
        reranker.close()
    assert 0 <= min(late) < LATE


def test_a_caller_with_a_loop_does_not_wait_for_tasks_that_are_slow_to_be_cancelled() -> None:
    from rankr1_rag.concurrency.event_loop import caller
    from rankr1_rag.concurrency.foreign_loop import on_loop

    class OnTheCallersLoop(Scripted):
        async def complete(self, request: Any) -> Completion:
            who = caller.get()
            assert who is not None
            return await on_loop(who, lambda: after(3600, stubborn=60)(request.messages))

    async def main() -> None:
        ranking = asyncio.create_task(Reranker(OnTheCallersLoop(highest)).arank("q", TEXTS, deadline=0.1))
        await asyncio.wait([ranking], timeout=PATIENCE)
        check(ranking.result())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # they are still being cancelled

    asyncio.run(main())


def test_a_query_waiting_for_its_turn_has_a_deadline_too_and_slots_come_free_when_they_really_end() -> None:
    reranker = Reranker(Scripted(after(0.3, stubborn=0.3), capacity=1), in_flight=1, size=20)

    async def main() -> list[Ranking]:
        queries = [reranker.arank("q", TEXTS[:5], k=1, deadline=seconds) for seconds in (0.1, 0.15)]
        return [*await asyncio.gather(*queries), await reranker.arank("q", TEXTS[:5], k=1)]

    first, second, third = asyncio.run(main())
    assert first.truncated == Truncated("deadline", 0.1, 0, ((0, 1, 2, 3, 4),))
    assert second.truncated == Truncated("deadline", 0.15)
    assert second.seconds == 0.0
    assert third.truncated is None
    assert third.order[0] == 4
    session = reranker._session

    async def state() -> tuple[int, set[Any], set[Any]]:
        await asyncio.sleep(0.05)
        assert session.slots is not None
        return session.slots.get().free, session.tasks, session.limits

    assert private_loop().call(state()) == (1, set(), set())


def test_a_deadline_that_is_long_enough_changes_nothing() -> None:
    plain = Reranker(Scripted(highest), k=5, size=4)
    limited = Reranker(Scripted(highest), k=5, size=4, deadline=60, budget_tokens=10**6)
    one, other = plain.rank("q", TEXTS), limited.rank("q", TEXTS)
    assert other.truncated is None
    assert (one.order, one.trace, one.scores, one.chosen) == (other.order, other.trace, other.scores, other.chosen)
    assert repr(Ranking(one.query, one.candidates, one.order, one.k, one.trace)).endswith("clipped_tokens=0))")


def test_in_many_queries_the_deadline_counts_from_the_start_of_each() -> None:
    reranker = Reranker(Scripted(after(0.2)), k=1, size=20, in_flight=1, deadline=2.0)
    results = list(reranker.rank_many([("q", TEXTS[:5])] * 11))
    assert all(isinstance(one, Ranking) and one.truncated is None for _, one in results)


def test_what_is_selected_comes_first_then_the_winners_of_the_open_round() -> None:
    asked = 0

    async def eight_answers(messages: Sequence[Message]) -> str:
        nonlocal asked
        asked += 1
        if asked > 11:
            await asyncio.sleep(3600)
        return highest(messages)

    ranking = Reranker(Scripted(eight_answers), k=5, size=4).rank("q", TEXTS, deadline=1.0)
    check(ranking)
    assert ranking.order[0] == 29
    assert ranking.truncated is not None
    assert ranking.truncated.selected == 1
    assert 29 not in ranking.truncated.unanswered[0]
    assert ranking.explain(1).selected
    assert not ranking.explain(2).selected
    assert ranking.score_meaning == "ordinal"
    assert "1 of them for good" in story.lede(ranking)
    assert "ended after 1 s: 1 selected" in page(ranking)


def test_two_of_three_votes_count_as_the_answer_to_their_set() -> None:
    asked = 0

    async def two_of_three(messages: Sequence[Message]) -> str:
        nonlocal asked
        asked += 1
        if asked > 2:
            await asyncio.sleep(3600)
        return highest(messages)

    ranking = Reranker(Scripted(two_of_three), k=3, votes=3).rank("q", TEXTS[:20], deadline=1.0)
    check(ranking, 20)
    assert len(ranking.trace) == 2
    assert ranking.truncated
    assert [sorted(shown) for shown in ranking.truncated.unanswered] == [list(range(20))]
    assert ranking.order == (19, *range(19))


@pytest.mark.parametrize("arguments", [{}, {"votes": 2}, {"format": "listwise-v1", "algorithm": "tournament"}])
def test_answers_that_name_no_passage_leave_the_order_of_the_first_stage(arguments: dict[str, Any]) -> None:
    script = after(0, tokens=100)

    async def unparsed(messages: Sequence[Message]) -> Completion:
        completion: Completion = await script(messages)
        return replace(completion, text="I cannot say.")

    ranking = Reranker(Scripted(unparsed), size=5, budget_tokens=500, **arguments).rank("q", TEXTS)
    assert ranking.truncated
    assert ranking.order == tuple(range(30))


def vote(*answer: int, parsed: bool = True, probabilities: tuple[float, ...] | None = None) -> Comparison:
    return Comparison((1, 2, 3), answer, Completion(""), 0, parsed=parsed, probabilities=probabilities)


@pytest.mark.parametrize(
    ("arguments", "votes", "answer"),
    [
        ({"probabilities": True}, [vote(2, probabilities=(0.6, 0.4, 0.0))], (2,)),
        ({"votes": 3, "probabilities": True}, [vote(2, probabilities=(0.6, 0.4, 0.0))] * 2, (2,)),
        ({"votes": "auto"}, [vote(2, probabilities=(0.6, 0.4, 0.0)), vote(3, parsed=False)], (1,)),
        ({"votes": 3}, [vote(1), vote(2), vote(2)], (2,)),
        ({"votes": 3}, [vote(3), vote(2)], (2,)),
        ({"votes": 2}, [vote(1, parsed=False), vote(3)], (3,)),
        ({"votes": 2}, [vote(1, parsed=False)] * 2, None),
        ({"format": "listwise-v1"}, [vote(3, 1, 2)], (3, 1, 2)),
        ({"format": "listwise-v1", "votes": 2}, [vote(3, 1, 2), vote(1, 2, 3)], (1, 3, 2)),
        ({"format": "listwise-v1", "algorithm": "heapsort"}, [vote(3, 1, 2)], (3,)),
    ],
)
def test_the_order_so_far_takes_the_answers_that_the_selection_takes(
    arguments: dict[str, Any], votes: list[Comparison], answer: tuple[int, ...] | None
) -> None:
    found = decided(votes, Reranker(Scripted(highest), **arguments).plan)
    assert found == ([] if answer is None else [((1, 2, 3), answer)])


def test_hops_and_retrieval_keep_what_was_selected_and_found() -> None:
    async def without_what_is_found(messages: Sequence[Message]) -> str:
        if "number 99" in messages[-1]["content"]:
            await asyncio.sleep(3600)
        return highest(messages)

    reranker = Reranker(Scripted(without_what_is_found), k=3, size=15, hops=2, retrieve=lambda _: ["number 99"])
    ranking = reranker.rank("q", TEXTS, deadline=1.0)
    check(ranking, 31)
    assert ranking.order[0] == 29
    assert ranking.retrieved == 1
    assert ranking.truncated
    assert ranking.truncated.selected == 1


@pytest.mark.parametrize("arguments", [{}, {"fusion": 2.0}, {"votes": 2}, {"hops": 2, "fusion": 0.0}])
@pytest.mark.parametrize("budget", [300, 800, 1_200, 10**6])
def test_the_last_order_so_far_is_that_of_the_ranking(budget: int, arguments: dict[str, Any]) -> None:
    backend = Scripted(after(0, tokens=100), capacity=1)
    events, ranking = events_of(Reranker(backend, k=4, size=6, budget_tokens=budget, **arguments))
    last = [one for one in events if isinstance(one, OrderSoFar)][-1]
    assert last.order == ranking.order
    assert last.selected == (0 if "fusion" in arguments else len(ranking.selected))
    assert (ranking.truncated is None) == (budget == 10**6)


def test_with_fusion_the_order_so_far_is_fused() -> None:
    ranking = Reranker(Scripted(never), k=3, fusion=60.0).rank("q", TEXTS, deadline=0.1)
    check(ranking)
    assert ranking.order == tuple(range(30))
    assert ranking.chosen == (0, 1, 2)
    assert ranking.selected == ()


@pytest.mark.parametrize("budget", [1, 500, 1_000, 1_500, 10**6])
@pytest.mark.parametrize("capacity", [1, None])
def test_a_token_budget_ends_a_query_after_the_answer_that_uses_it_up(budget: int, capacity: int | None) -> None:
    reranker = Reranker(Scripted(after(0, tokens=100), capacity=capacity), k=5, size=4, budget_tokens=budget)
    ranking = reranker.rank("q", TEXTS)
    check(ranking)
    used = ranking.cost.prompt_tokens + ranking.cost.completion_tokens
    whole = Reranker(Scripted(after(0, tokens=100)), k=5, size=4).rank("q", TEXTS)
    if budget == 10**6:
        assert (ranking.truncated, ranking.trace) == (None, whole.trace)
        return
    assert ranking.truncated
    assert (ranking.truncated.reason, ranking.truncated.limit) == ("budget_tokens", budget)
    assert used >= budget
    if capacity == 1:
        assert used < budget + 110


def test_a_budget_that_is_used_up_by_the_last_answer_truncates_nothing() -> None:
    whole = Reranker(Scripted(after(0, tokens=100)), k=5, size=4).rank("q", TEXTS)
    used = whole.cost.prompt_tokens + whole.cost.completion_tokens
    same = Reranker(Scripted(after(0, tokens=100)), k=5, size=4, budget_tokens=used).rank("q", TEXTS)
    assert (same.truncated, same.order) == (None, whole.order)
    less = Reranker(Scripted(after(0, tokens=100)), k=5, size=4, budget_tokens=used - 110).rank("q", TEXTS)
    assert less.truncated


def test_an_open_vote_on_an_unsure_answer_is_not_awaited_without_tokens() -> None:
    class Unsure(Spelling):
        async def complete(self, request: Request) -> Completion:
            if len([one for one in self.requests if not one.choices]) >= 2 and not request.choices:
                await asyncio.sleep(3600)
            return await super().complete(request)

    weights = {"a": 1.0, "b": 1.0, "c": 1.0}
    reranker = Reranker(Unsure(weights), votes="auto", budget_tokens=250, deadline=PATIENCE)
    ranking = reranker.rank("which?", list(weights))
    assert ranking.truncated
    assert (ranking.truncated.reason, ranking.truncated.unanswered) == ("budget_tokens", ((0, 1, 2),))


def test_a_budget_of_tokens_that_nobody_counts_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    reranker = Reranker(Scripted(highest), k=1, budget_tokens=1)
    for _ in range(2):
        assert reranker.rank("q", TEXTS[:5]).truncated is None
    assert [one.getMessage() for one in caplog.records] == [
        "budget_tokens= has no effect: the backend reports no tokens of prompts and completions"
    ]


@settings(max_examples=10)
@given(
    algorithm=st.sampled_from(sorted(set(ALGORITHMS) - {"window"})),
    deadline=st.floats(0.001, 0.15),
    seed=st.integers(0, 9),
    arguments=st.sampled_from([{}, {"votes": 2}, {"hops": 2}, {"fusion": 60.0}, {"k": None}]),
)
def test_at_random_deadlines_nothing_is_lost(
    algorithm: str, deadline: float, seed: int, arguments: dict[str, Any]
) -> None:
    dice = random.Random(seed)

    async def script(messages: Sequence[Message]) -> str:
        await asyncio.sleep(dice.expovariate(1 / 0.01))
        return highest(messages)

    reranker = Reranker(Scripted(script, capacity=4), algorithm=algorithm, size=5, **({"k": 5} | arguments))
    items = [(f"q{n}", TEXTS) for n in range(4)]

    async def main() -> list[tuple[float, Ranking]]:
        async def one(query: str, texts: list[str]) -> tuple[float, Ranking]:
            begun = time.perf_counter()
            ranking = await reranker.arank(query, texts, deadline=deadline)
            return time.perf_counter() - begun, ranking

        return await asyncio.gather(*[one(*item) for item in items])

    for seconds, ranking in asyncio.run(main()):
        check(ranking)
        assert seconds < deadline + PATIENCE
        again = ranking_from_json(ranking_to_json(ranking))
        assert again.truncated == ranking.truncated
        assert ranking_from_json(ranking_to_json(ranking, trace=False)).truncated == ranking.truncated
    reranker.close()


# Errors


def test_an_error_before_the_deadline_is_raised_and_one_after_it_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(messages: Sequence[Message]) -> str:
        try:
            await asyncio.sleep(0.05 if "fast" in messages[-1]["content"] else 3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
        raise BackendError("it is out of order")

    reranker = Reranker(Scripted(failing))
    with pytest.raises(BackendError, match="out of order"):
        reranker.rank("fast", TEXTS, deadline=1.0)
    kept = Reranker(Scripted(failing), on_failure="first_stage").rank("fast", TEXTS, deadline=1.0)
    assert kept.failure
    assert kept.truncated is None
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        assert reranker.rank("slow", TEXTS, deadline=0.05).truncated
        time.sleep(0.15)
        gc.collect()
    assert not caplog.records


@pytest.mark.parametrize("value", [0, -1, True, "1", float("inf")])
def test_a_wrong_deadline_is_refused_at_once(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^deadline=.*: a number above 0 is needed"):
        Reranker(Scripted(highest)).rank("q", TEXTS, deadline=value)


def test_a_closed_reranker_ends_a_query_with_a_deadline_by_its_error() -> None:
    reranker = Reranker(Scripted(never))
    threading.Timer(0.2, reranker.close).start()
    with pytest.raises(RuntimeError, match="closed"):
        reranker.rank("q", TEXTS, deadline=30)


def test_a_cancelled_caller_cancels_a_query_with_a_deadline() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def script(_: Sequence[Message]) -> str:
        begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ""

    async def main() -> None:
        query = asyncio.create_task(Reranker(Scripted(script)).arank("q", TEXTS[:5], deadline=60))
        await asyncio.to_thread(begun.wait, PATIENCE)
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query

    asyncio.run(main())
    assert cancelled.wait(PATIENCE)


# Events


def events_of(reranker: Reranker, **arguments: Any) -> tuple[list[Event], Ranking]:
    events: list[Event] = []
    ranking = reranker.rank("q", TEXTS, on_event=events.append, **arguments)
    return events, ranking


def test_the_events_of_a_query_say_all_that_its_ranking_says() -> None:
    async def streaming(messages: Sequence[Message]) -> str:
        text, listener = highest(messages), on_text.get()
        assert listener is not None
        for start in range(0, len(text), 10):
            listener(start, text[start : start + 10])
            await asyncio.sleep(0)
        return text

    events, ranking = events_of(Reranker(Scripted(streaming), k=5, size=4))
    answered = [one for one in events if isinstance(one, ComparisonAnswered)]
    opened = [one for one in events if isinstance(one, ComparisonOpened)]
    assert [one.number for one in opened] == list(range(len(ranking.trace)))
    assert {one.number: (one.round, one.set) for one in opened} == {
        one.number: (one.comparison.round, one.comparison.set) for one in answered
    }
    for one in answered:
        pieces = [piece for piece in events if isinstance(piece, ComparisonText) and piece.number == one.number]
        assert "".join(piece.text for piece in pieces) == one.comparison.completion.text
    rounds = [[min(one.set) for one in opened if one.round == number] for number in range(ranking.cost.rounds)]
    assert all(foremost == sorted(foremost) for foremost in rounds)
    orders = [one for one in events if isinstance(one, OrderSoFar)]
    assert len(orders) == len(answered)
    assert all(sorted(one.order) == list(range(30)) for one in orders)
    assert events[-1] == RankingDone(ranking)
    assert ranking.truncated is None


def test_after_the_deadline_there_is_no_event_but_the_last() -> None:
    events, ranking = events_of(Reranker(Scripted(after(0.04, stubborn=0.1)), k=5, size=4), deadline=0.1)
    assert events[-1] == RankingDone(ranking)
    number = len(events)
    time.sleep(0.2)
    assert len(events) == number
    assert [type(one) for one in events].count(RankingDone) == 1


@pytest.mark.parametrize("kind", [ComparisonOpened, ComparisonText, ComparisonAnswered, OrderSoFar, RankingDone])
@pytest.mark.parametrize("error", [KeyError("mine"), SystemExit(3), asyncio.CancelledError()])
def test_an_error_of_the_callback_is_the_error_of_its_query_and_of_no_other(kind: type, error: BaseException) -> None:
    async def streaming(messages: Sequence[Message]) -> str:
        await asyncio.sleep(0.01)
        if (listener := on_text.get()) is not None:
            listener(0, "<think>")
        return highest(messages)

    def callback(event: Event) -> None:
        if isinstance(event, kind):
            raise error

    reranker = Reranker(Scripted(streaming), k=2, size=4, on_failure="first_stage")

    async def main() -> list[Any]:
        queries = [reranker.arank("q", TEXTS, on_event=callback), reranker.arank("q", TEXTS)]
        return await asyncio.gather(*queries, return_exceptions=True)

    mine, other = asyncio.run(main())
    assert isinstance(mine, KeyError) if isinstance(error, KeyError) else isinstance(mine.__cause__, type(error))
    assert other.order[:2] == (29, 28)


def test_a_callback_that_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="on_event=3 is no function"):
        Reranker(Scripted(highest)).rank("q", TEXTS, on_event=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"deadline": 30.0}, {"on_event": print}, {"deadline": 0.15}])
def test_open_queries_can_be_ended(arguments: dict[str, Any]) -> None:
    reranker = Reranker(Scripted(never))

    async def main() -> Ranking:
        query = asyncio.create_task(reranker.arank("q", TEXTS, **arguments))
        await asyncio.sleep(0.1)
        await reranker.end_within(0.1)
        return await query

    ranking = asyncio.run(main())
    assert ranking.truncated
    assert ranking.truncated.reason == ("deadline" if arguments == {"deadline": 0.15} else "ended")
    assert 0.15 <= ranking.truncated.limit < PATIENCE
    assert str(ranking.truncated).startswith(f"ended after {ranking.truncated.limit:g} s: ")
    assert ranking_from_json(ranking_to_json(ranking)).truncated == ranking.truncated


def test_a_ranking_that_was_complete_at_its_deadline_is_whole_and_not_logged_as_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class SlowCount(Scripted):
        def count(self, text: str) -> int | None:
            if text.endswith("</answer>") and len(text) < 40:  # that of an answer, not of the prompt
                released.wait(60)
            return len(text)

    async def thinking(messages: Sequence[Message]) -> Completion:
        return Completion(highest(messages), completion_tokens=9)

    released.clear()
    with caplog.at_level(logging.INFO):
        ranking = Reranker(SlowCount(thinking, context=100_000), k=1).rank("q", TEXTS[:5], deadline=1.0)
    released.set()
    assert (ranking.truncated, ranking.order[0]) == (None, 4)
    assert not [one for one in caplog.records if "None" in one.getMessage()]


def test_the_order_so_far_of_many_candidates_is_there_in_time_and_comes_once_a_round() -> None:
    plan, texts = Reranker(Scripted(highest), k=3, size=20).plan, [f"number {n}" for n in range(10_000)]
    run, sets = QueryRun("q", texts), step(ALGORITHMS["tournament"](len(texts), 3, 20))
    assert isinstance(sets, list)
    for place, shown in enumerate(sets):
        run.trace.add(Comparison(shown, (max(shown),), Completion(""), 0), place)
    seconds = []
    for _ in range(5):
        begun = time.thread_time()
        assert len(run.order_so_far(plan)) == 10_000
        seconds.append(time.thread_time() - begun)
    assert min(seconds) < 0.04
    events = list[Event]()
    ranking = Reranker(Scripted(highest), k=2).rank("q", texts[:MANY], on_event=events.append)
    assert [type(one) for one in events].count(OrderSoFar) == ranking.cost.rounds < ranking.cost.comparisons


@pytest.mark.parametrize("context", [None, 100_000])
def test_a_context_is_read_and_long_texts_are_clipped_away_from_the_event_loop(context: int | None) -> None:
    threads = list[str]()

    class Header(Scripted):
        @property
        def context(self) -> int | None:
            threads.append(threading.current_thread().name)
            return context

        @context.setter
        def context(self, _: int | None) -> None:
            """It is in the file."""

    def count(text: str) -> int:
        threads.append(threading.current_thread().name)
        return len(text)

    Reranker(Header(highest), k=1).rank("q", TEXTS[:3])
    assert threads[0] != "rankr1-loop"
    threads.clear()
    long = Reranker(Scripted(highest, count=count), k=1, passage_tokens=10_000, fusion=None)
    long.rank("q", [f"{text} word" + " word" * 2_000 for text in TEXTS[:3]])
    assert set(threads) != set()
    assert "rankr1-loop" not in threads
