"""`llm=`: the contract of the framework's own LLM in both frameworks: who calls it where, its limits, its store."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Completion, Ranking
from rankr1_rag.backends import Request
from tests.integrations.both import Framework
from tests.integrations.conftest import WANTED, knows_best

PATIENCE = 100
"""Seconds after which a deadlocked test fails; a passing test never waits for them."""

both_ways = pytest.mark.parametrize("way", ["sync", "async"])
each_model = pytest.mark.parametrize("bring", ["reranker", "llm"])


@pytest.mark.parametrize("kind", ["native", "only sync", "only async"])
@pytest.mark.parametrize("way", ["sync", "async", "sync in a running loop"])
def test_any_llm_reranks_and_each_caller_gets_the_method_of_its_kind(both: Framework, way: str, kind: str) -> None:
    llm = both.llm(kind=kind)
    component = both.kind(llm=llm, top_n=3)
    assert component.ranker.plan.backend.model == "scripted"
    how = kind.removeprefix("only ") if kind.startswith("only") else way.split()[0]
    for _ in range(2):
        llm.calls.clear()
        assert both.ids(both.rerank(way, component, both.items)) == WANTED
        assert {call.how for call in llm.calls} == {how}
        where = {(call.thread, call.loop) for call in llm.calls}
        if how == "sync":
            assert where == {("rankr1-call", None)}
        elif way == "async":
            assert where == {(threading.current_thread().name, both.loop)}


class Counting(ThreadPoolExecutor):
    """A real executor that counts its calls."""

    number = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.number += 1
        return super().submit(*args, **kwargs)


@each_model
def test_an_awaiting_caller_needs_no_executor_and_its_loop_continues(both: Framework, bring: str) -> None:
    executor, running, continued = Counting(), threading.Event(), threading.Event()

    async def wait(messages: Any) -> str:
        running.set()
        while not continued.is_set():
            await asyncio.sleep(0.001)
        return knows_best(messages)

    async def ask() -> list[Any]:
        asyncio.get_running_loop().set_default_executor(executor)
        task = asyncio.create_task(both.awaited(both.component(wait, bring, top_n=3), both.items))
        while not running.is_set():
            await asyncio.sleep(0.001)
        continued.set()
        return await task

    assert both.ids(asyncio.run(asyncio.wait_for(ask(), PATIENCE))) == WANTED
    assert executor.number == 0


@pytest.mark.parametrize("bring", ["reranker", "llm", "retrieve"])
def test_cancelling_a_caller_cancels_the_call(both: Framework, bring: str) -> None:
    running, cancelled = threading.Event(), threading.Event()

    async def endless(messages: Any) -> Any:
        running.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def ask() -> None:
        component = both.component(retrieve=endless) if bring == "retrieve" else both.component(endless, bring)
        task = asyncio.create_task(both.awaited(component, both.first))
        while not running.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(ask(), PATIENCE))
    assert cancelled.wait(PATIENCE)


@pytest.mark.parametrize("settings", [{}, {"requests": 1}, {"in_flight": 1}, {"store": "store.sqlite"}], ids=str)
@pytest.mark.parametrize("kind", ["native", "only sync"])
def test_a_sync_call_never_waits_for_a_call_that_waits_for_its_own_loop(
    both: Framework, kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {name: tmp_path / value if name == "store" else value for name, value in settings.items()}
    running = threading.Event()

    async def slow(messages: Any) -> str:
        running.set()
        await asyncio.sleep(0.01)
        return knows_best(messages)

    component = both.kind(llm=both.llm(slow, kind), top_n=3, **settings)

    async def notebook() -> list[list[Any]]:
        task = asyncio.create_task(both.awaited(component, both.items))
        while not running.is_set():
            await asyncio.sleep(0.001)
        return [both.sync(component, both.items), await task]

    results: list[list[Any]] = []
    thread = threading.Thread(target=lambda: results.extend(asyncio.run(notebook())), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "both wait for ever"
    assert [both.ids(chosen) for chosen in results] == [WANTED] * 2
    component.close()


# ---- limits


@pytest.mark.parametrize(
    ("own", "settings", "limits"),
    [
        (0.7, {"reasoning_tokens": 100, "temperature": 0.0}, (116, 0.0)),
        (0.7, {"reasoning_tokens": 100}, (116, 0.7)),
        (0.7, {"temperature": 0.5}, (17, 0.5)),
        (None, {"temperature": 0.5}, (17, None)),
        (0.7, {}, (17, 0.7)),
    ],
)
def test_limits_are_set_in_one_copy_and_only_if_they_are_options_of_both(
    both: Framework, own: float | None, settings: dict[str, Any], limits: tuple[int, float | None]
) -> None:
    llm = both.llm(max_tokens=17, temperature=own)
    component = both.kind(llm=llm, top_n=3, **settings)
    for way in ("sync", "async"):
        assert both.ids(both.rerank(way, component, both.items)) == WANTED
    assert {(call.llm.max_tokens, call.llm.temperature) for call in llm.calls} == {limits}
    assert len({id(call.llm) for call in llm.calls}) == 1
    assert (llm.max_tokens, llm.temperature) == (17, own)


@pytest.mark.parametrize("name", ["o1", "o3-mini", "gpt-4o"])
def test_a_hosted_model_keeps_its_own_temperature(both: Framework, name: str) -> None:
    llm, payload = both.hosted(name)
    backend = both.kind(llm=llm).ranker.plan.backend
    assert payload(backend.with_limits(Request([], 1_040))) == payload(llm)


@both_ways
def test_reasoning_over_its_budget_is_ended_and_the_answer_forced(both: Framework, way: str) -> None:
    def cut_off(messages: Any) -> Completion:
        if len(messages) > 2:
            return Completion("<answer>[2]</answer>", 80, completion_tokens=3)
        return Completion("<think>it may be that", 70, completion_tokens=9, finish_reason="length")

    rankings: list[Ranking] = []
    component = both.component(cut_off, "llm", top_n=1, on_ranking=rankings.append)
    assert both.ids(both.rerank(way, component, both.items)) == ["dracula"]
    cost = rankings[0].cost
    assert (cost.comparisons, cost.forced, cost.unparsed, cost.prompt_tokens, cost.completion_tokens) == (
        1,
        1,
        0,
        150,
        12,
    )


# ---- store, life


def test_a_store_serves_the_same_model_and_no_other(both: Framework, tmp_path: Path) -> None:
    rankings: list[Ranking] = []
    settings: dict[str, Any] = {"store": tmp_path / "store.sqlite", "top_n": 1, "on_ranking": rankings.append}
    for model, script, best in (("one", lambda _: "<answer>[1]</answer>", "stoker"), ("best", knows_best, "dracula")):
        component = both.kind(llm=both.llm(script, model=model), **settings)
        for _ in range(2):
            assert both.ids(both.sync(component, both.items)) == [best]
        component.close()
    assert [ranking.cost.stored > 0 for ranking in rankings] == [False, True] * 2


def test_closing_a_component_leaves_its_llm_open(both: Framework) -> None:
    llm = both.llm()
    component = both.kind(llm=llm, top_n=3)
    component.close()
    with pytest.raises(RuntimeError, match="closed"):
        both.sync(component, both.items)
    assert both.ids(both.sync(both.kind(llm=llm, top_n=3), both.items)) == WANTED
