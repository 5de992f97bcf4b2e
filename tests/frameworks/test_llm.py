"""A framework LLM is asked in a thread for a caller that waits, on the caller's event loop for one that awaits."""

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from rankr1_rag import BackendError, Ranking, Reranker
from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, retried, stored
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.types import Completion
from tests.backends.scripts import python

REQUEST = Request([{"role": "user", "content": "which?"}], max_tokens=8)
ITEM = ("which?", list("abcd"))
user: ContextVar[str] = ContextVar("user", default="nobody")


class Recording(FrameworkLLM):
    """Names the second passage; keeps how it was asked, in which thread, on which event loop, for which user."""

    def __init__(self, *can: str, llm: object = None) -> None:
        super().__init__(llm, "recording")
        self.can = can or ("chat", "achat")
        self.asked: list[tuple[str, threading.Thread, asyncio.AbstractEventLoop | None, str]] = []

    def chat(self, request: Request) -> Completion:
        return self.answer("chat")

    async def achat(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        return self.answer("achat")

    def answer(self, how: str) -> Completion:
        if how not in self.can:
            raise NotImplementedError
        self.asked.append((how, threading.current_thread(), asyncio._get_running_loop(), user.get()))
        if isinstance(self.llm, BaseException):
            raise self.llm
        return Completion("<answer>[2]</answer>")


class Loaded(BaseModel):
    num_ctx: int | None = None


class Bound(BaseModel):
    bound: Loaded


@pytest.mark.parametrize(
    ("llm", "metadata", "context"),
    [
        (Loaded(num_ctx=8_192), 131_072, 8_192),
        (Bound(bound=Loaded(num_ctx=8_192)), None, 8_192),
        (Loaded(num_ctx=16_384), 3_900, 16_384),
        (Loaded(), 3_900, 3_900),
        (Loaded(), -1, None),
        (object(), None, None),
    ],
)
def test_the_context_is_that_with_which_the_model_was_loaded(
    llm: object, metadata: int | None, context: int | None
) -> None:
    class Framework(Recording):
        def __init__(self) -> None:
            FrameworkLLM.__init__(self, llm, "m", metadata)

    assert Framework().context == context


class Endless(Recording):
    """Never answers a caller that awaits."""

    begun = ended = 0

    async def achat(self, request: Request) -> Completion:
        self.begun += 1
        try:
            await asyncio.sleep(60)
        finally:
            self.ended += 1
        return Completion("<answer>[2]</answer>")


async def inside_a_loop(reranker: Reranker) -> Ranking:
    return reranker.rank(*ITEM)


async def many(reranker: Reranker) -> list[Any]:
    return [result async for result in reranker.arank_many([ITEM] * 3)]


WAITING = {
    "rank": lambda reranker: reranker.rank(*ITEM),
    "rank_many": lambda reranker: list(reranker.rank_many([ITEM] * 3)),
    "rank inside a running loop": lambda reranker: asyncio.run(inside_a_loop(reranker)),
}
AWAITING = {"arank": lambda reranker: reranker.arank(*ITEM), "arank_many": many}
awaiting = pytest.mark.parametrize("wait", AWAITING.values(), ids=AWAITING)
waiting = pytest.mark.parametrize("wait", WAITING.values(), ids=WAITING)


wrapping = pytest.mark.parametrize(
    "wrap", [lambda backend, _: backend, lambda backend, path: stored(limited(retried(backend), 2), path / "store")]
)


@waiting
@wrapping
def test_a_waiting_caller_is_answered_in_a_thread_without_an_event_loop(wait: Any, wrap: Any, tmp_path: Path) -> None:
    backend = Recording()
    with Reranker(wrap(backend, tmp_path), size=2) as reranker:
        wait(reranker)
    assert {(how, loop) for how, _, loop, _ in backend.asked} == {("chat", None)}
    assert threading.current_thread() not in {thread for _, thread, _, _ in backend.asked}


@awaiting
@wrapping
def test_an_awaiting_caller_is_answered_on_its_own_event_loop(wait: Any, wrap: Any, tmp_path: Path) -> None:
    backend = Recording()

    async def whole() -> asyncio.AbstractEventLoop:
        async with Reranker(wrap(backend, tmp_path), size=2) as reranker:
            await wait(reranker)
        return asyncio.get_running_loop()

    mine = asyncio.run(whole())
    assert {(how, loop) for how, _, loop, _ in backend.asked} == {("achat", mine)}


@pytest.mark.parametrize("can", ["chat", "achat"])
@pytest.mark.parametrize("wait", [*WAITING.values(), *AWAITING.values()], ids=[*WAITING, *AWAITING])
def test_a_model_with_one_of_the_two_methods_serves_everyone_and_sees_the_callers_context(wait: Any, can: str) -> None:
    backend = Recording(can)
    token = user.set("me")
    try:
        asked = wait(Reranker(backend))
        _ = asyncio.run(asked) if asyncio.iscoroutine(asked) else None
    finally:
        user.reset(token)
    assert {(how, seen) for how, *_, seen in backend.asked} == {(can, "me")}
    assert can == "achat" or not any(loop for *_, loop, _ in backend.asked)


def test_threads_and_event_loops_at_once_are_answered_each_on_its_own() -> None:
    backend = Recording()
    reranker = Reranker(backend, k=1)

    async def awaits() -> tuple[tuple[int, ...], asyncio.AbstractEventLoop]:
        return (await reranker.arank(*ITEM)).order, asyncio.get_running_loop()

    with ThreadPoolExecutor(16) as pool:
        threads = [pool.submit(reranker.rank, *ITEM) for _ in range(20)]
        ends = list(pool.map(lambda _: asyncio.run(awaits()), range(20)))
        orders = [future.result(10).order for future in threads] + [order for order, _ in ends]
    assert set(orders) == {(1, 0, 2, 3)}
    assert sorted(how for how, *_ in backend.asked) == ["achat"] * 20 + ["chat"] * 20
    assert {loop for how, _, loop, _ in backend.asked if how == "achat"} == {loop for _, loop in ends}


@awaiting
def test_cancelling_a_caller_cancels_the_model_on_its_event_loop(wait: Any) -> None:
    backend = Endless()

    async def whole() -> None:
        task = asyncio.create_task(wait(Reranker(backend, size=2)))
        while not backend.begun:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while backend.ended < backend.begun:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(whole(), 10))


@pytest.mark.parametrize("can", ["chat", "achat"])
@pytest.mark.parametrize("error", [KeyError("weights"), StopIteration(), asyncio.CancelledError()], ids=repr)
def test_an_error_of_the_model_is_a_backend_error(can: str, error: BaseException) -> None:
    with pytest.raises(BackendError, match="'recording' failed"):
        asyncio.run(asyncio.wait_for(Reranker(Recording(can, llm=error)).arank(*ITEM), 5))


MODEL = """
    import contextlib
    from rankr1_rag import Completion, Reranker
    from rankr1_rag.frameworks.llm import FrameworkLLM
    class Model(FrameworkLLM):
        def chat(self, request):
            asked.set()
            time.sleep(60)
        async def achat(self, request):
            return Completion("<answer>[1]</answer>")
    asked, reranker = threading.Event(), Reranker(Model(None, "m"), size=2)
"""


def test_an_abandoned_request_does_not_keep_python_from_ending() -> None:
    more = """
    def rank():
        with contextlib.suppress(BaseException):
            reranker.rank("q", ["a", "b"])
    threading.Thread(target=rank, daemon=True).start()
    print(asked.wait(30))
    """
    assert python(MODEL + more) == "True\n"


def test_a_caller_that_stops_early_and_ends_its_event_loop_sees_no_error() -> None:
    more = """
    async def early():
        async for _ in reranker.arank_many([("q", list("abcdefgh"))] * 20):
            break
    for _ in range(100):
        asyncio.run(early())
    """
    assert python(MODEL + more) == ""


def test_a_loop_that_is_closed_under_an_open_request_blocks_nobody() -> None:
    backend = Endless()
    reranker = Reranker(backend, in_flight=1)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(reranker.arank(*ITEM), loop)
    while not backend.begun:
        time.sleep(0.01)
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what is tested
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert reranker.rank(*ITEM).order[0] == 1  # the place in flight is free again


class Model(BaseModel):
    temperature: float | None = 0.7
    name: str = "mine"


@pytest.mark.parametrize("limit", ["max_tokens", "max_new_tokens", "max_output_tokens", "num_predict"])
def test_a_pydantic_model_is_copied_with_the_limit_and_the_temperature(limit: str) -> None:
    llm = type("Limited", (Model,), {"__annotations__": {limit: int | None}, limit: None})()
    asked = Recording(llm=llm).with_limits(Request([], 9, temperature=0.25))
    assert asked.model_dump() == {"temperature": 0.25, "name": "mine", limit: 9}
    assert llm.model_dump() == {"temperature": 0.7, "name": "mine", limit: None}


def test_copies_are_kept_and_a_temperature_of_none_stays() -> None:
    assert Recording(llm=Model(temperature=None)).with_limits(REQUEST).temperature is None
    backend, warm = Recording(llm=Model()), Request([], 8, temperature=1.0)
    assert backend.with_limits(REQUEST) is backend.with_limits(Request([], 8))
    assert (backend.with_limits(REQUEST).temperature, backend.with_limits(warm).temperature) == (0.0, 1.0)


@pytest.mark.parametrize("llm", [None, "text", len, object(), type("Bare", (BaseModel,), {})()])
def test_a_model_without_such_fields_is_asked_as_it_is(llm: object) -> None:
    assert Recording(llm=llm).with_limits(REQUEST) is llm


def test_a_pickle_leaves_the_copies_out() -> None:
    backend = Recording(llm=Model())
    before = pickle.dumps(backend)
    backend.with_limits(REQUEST)
    assert pickle.dumps(backend) == before
    assert Reranker(pickle.loads(before), k=1).rank(*ITEM).order == (1, 0, 2, 3)


def test_it_is_a_backend_identified_by_its_class_and_its_name() -> None:
    backend = Recording(llm=Model())
    assert isinstance(backend, Backend)
    assert backend.identity == "Recording:recording:" + backend.identity[-16:]
    assert repr(backend) == "Recording(Model 'recording')"
    assert not backend.can_continue
    assert backend.context is backend.max_concurrent_calls is backend.count("four") is None
    Reranker(backend).close()
    assert Reranker(backend, k=1).rank(*ITEM).order == (1, 0, 2, 3)


@pytest.mark.parametrize(("argument", "context"), [(None, None), (0, None), (-1, None), (4_096, 4_096)])
def test_an_unknown_context_limits_nothing(argument: int | None, context: int | None) -> None:
    class Sized(Recording):
        def __init__(self) -> None:
            FrameworkLLM.__init__(self, None, "sized", argument)

    assert Sized().context == context


def in_time(whole: Callable[[], object]) -> None:
    """Run it in a thread, as it may wait for ever."""
    thread = threading.Thread(target=whole, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for ever"


class Slow(Recording):
    async def achat(self, request: Request) -> Completion:
        await asyncio.sleep(0.2)
        return self.answer("achat")


@pytest.mark.parametrize("way", ["rank", "rank_many", "live", "nested"])
def test_no_sync_call_waits_for_what_waits_for_its_own_loop(way: str) -> None:
    inner = Reranker(Slow(), in_flight=1)

    async def ask(messages: object) -> str:
        await inner.arank(*ITEM)
        return "<answer>[1]</answer>"

    ways: dict[str, Callable[[], object]] = {
        "rank": lambda: inner.rank(*ITEM),
        "rank_many": lambda: list(inner.rank_many([ITEM])),
        "live": lambda: list(inner.rank_many([ITEM], live=True)),
        "nested": lambda: Reranker(Scripted(ask)).rank(*ITEM),
    }

    async def both() -> None:
        task = asyncio.create_task(inner.arank(*ITEM))
        await asyncio.sleep(0.05)
        ways[way]()
        await task

    in_time(lambda: asyncio.run(both()))


@pytest.mark.parametrize("way", ["arank", "arank_many"])
def test_a_reranking_inside_a_backend_is_awaited_by_the_caller_outside(way: str) -> None:
    model = Recording()
    inner = Reranker(model, in_flight=2)

    async def ask(messages: object) -> str:
        if way == "arank":
            await inner.arank(*ITEM)
        else:
            assert [index async for index, _ in inner.arank_many([ITEM])] == [0]
        return "<answer>[1]</answer>"

    async def outside() -> asyncio.AbstractEventLoop:
        await Reranker(Scripted(ask), k=1).arank(*ITEM)
        return asyncio.get_running_loop()

    loop = asyncio.run(outside())
    assert {(how, where) for how, _, where, _ in model.asked} == {("achat", loop)}


def test_an_achat_that_is_no_coroutine_function_blocks_nobody() -> None:
    class Plain(Recording):
        def achat(self, request: Request) -> Completion:  # type: ignore[override]
            raise NotImplementedError

    in_time(lambda: asyncio.run(Reranker(Plain()).arank(*ITEM)))
