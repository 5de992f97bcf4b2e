"""A framework LLM is asked in a thread for a caller that waits, on the caller's event loop for one that awaits."""

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
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

    def __init__(self, *can: str, llm: object = None, context: int | None = None) -> None:
        super().__init__(llm, "recording", context)
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
    additional_kwargs: dict[str, int] = {}


class Bound(BaseModel):
    bound: Loaded
    kwargs: dict[str, int] = {}


@pytest.mark.parametrize(
    ("llm", "metadata", "context"),
    [
        (Loaded(num_ctx=8_192), 131_072, 8_192),
        (Loaded(additional_kwargs={"num_ctx": 8_192}), 3_900, 8_192),
        (Bound(bound=Loaded(num_ctx=8_192)), None, 8_192),
        (Bound(bound=Loaded(), kwargs={"num_ctx": 8_192}), None, 8_192),
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
WRAPS: dict[str, Callable[[Backend, Path], Backend]] = {
    "plain": lambda backend, _: backend,
    "wrapped": lambda backend, path: stored(limited(retried(backend), 2), path / "store"),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("can", [("chat", "achat"), ("chat",), ("achat",)], ids=" and ".join)
@pytest.mark.parametrize("wait", WAITING | AWAITING)
def test_who_waits_is_answered_in_a_thread_and_who_awaits_on_its_own_loop_both_in_their_context(
    wait: str, can: tuple[str, ...], wrap: Callable[[Backend, Path], Backend], tmp_path: Path
) -> None:
    backend, loops = Recording(*can), list[Any]()
    token = user.set("me")

    async def awaits(reranker: Reranker) -> None:
        loops.append(asyncio.get_running_loop())
        await AWAITING[wait](reranker)

    try:
        with Reranker(wrap(backend, tmp_path), size=2) as reranker:
            asyncio.run(awaits(reranker)) if wait in AWAITING else WAITING[wait](reranker)
    finally:
        user.reset(token)
    how = can[0] if len(can) == 1 else ("achat" if loops else "chat")
    assert {(asked, seen) for asked, *_, seen in backend.asked} == {(how, "me")}
    if how == "chat":
        assert {loop for *_, loop, _ in backend.asked} == {None}
        assert threading.current_thread() not in {thread for _, thread, *_ in backend.asked}
    elif loops:
        assert {loop for *_, loop, _ in backend.asked} == set(loops)


@pytest.mark.parametrize("can", ["chat", "achat"])
@pytest.mark.parametrize("error", [KeyError("weights"), StopIteration(), asyncio.CancelledError()], ids=repr)
def test_an_error_of_the_model_is_a_backend_error(can: str, error: BaseException) -> None:
    with pytest.raises(BackendError, match="'recording' failed"):
        asyncio.run(asyncio.wait_for(Reranker(Recording(can, llm=error)).arank(*ITEM), 60))


def test_a_process_ends_with_an_abandoned_request_and_a_caller_that_stops_early_sees_no_error() -> None:
    script = """
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
    async def early():
        async for _ in reranker.arank_many([("q", list("abcdefgh"))] * 20):
            break
    for _ in range(100):
        asyncio.run(early())
    def rank():
        with contextlib.suppress(BaseException):
            reranker.rank("q", ["a", "b"])
    threading.Thread(target=rank, daemon=True).start()
    print(asked.wait(30))
    """
    assert python(script) == "True\n"


def test_an_abandoned_request_that_waits_for_a_slot_is_not_sent() -> None:
    class OneAtATime(Recording):
        max_concurrent_calls = 1

        def chat(self, request: Request) -> Completion:
            completion = self.answer("chat")
            released.wait(60)
            return completion

    released, backend = threading.Event(), OneAtATime("chat")
    reranker = Reranker(backend)
    for _ in range(3):
        assert reranker.rank(*ITEM, deadline=0.05).truncated
    threading.Timer(0.1, released.set).start()
    assert reranker.rank(*ITEM, k=1).truncated is None
    assert len(backend.asked) == 2


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
def test_a_pydantic_model_is_copied_once_with_the_limit_and_the_temperature(limit: str) -> None:
    llm = type("Limited", (Model,), {"__annotations__": {limit: int | None}, limit: None})()
    backend = Recording(llm=llm)
    asked = backend.with_limits(Request([], 9, temperature=0.25))
    assert asked.model_dump() == {"temperature": 0.25, "name": "mine", limit: 9}
    assert llm.model_dump() == {"temperature": 0.7, "name": "mine", limit: None}
    assert asked is backend.with_limits(Request([], 9, temperature=0.25)) is not backend.with_limits(Request([], 9))
    assert Recording(llm=Model(temperature=None)).with_limits(REQUEST).temperature is None


@pytest.mark.parametrize("llm", [None, "text", len, object(), type("Bare", (BaseModel,), {})()])
def test_a_model_without_such_fields_is_asked_as_it_is(llm: object) -> None:
    assert Recording(llm=llm).with_limits(REQUEST) is llm


def test_it_is_a_backend_identified_by_its_class_and_its_name_and_its_pickle_leaves_the_copies_out() -> None:
    backend = Recording(llm=Model())
    before = pickle.dumps(backend)
    backend.with_limits(REQUEST)
    assert isinstance(backend, Backend)
    assert backend.identity == "Recording:recording:" + backend.identity[-16:]
    assert repr(backend) == "Recording(Model 'recording')"
    assert not backend.can_continue
    assert backend.context is backend.max_concurrent_calls is backend.count("four") is None
    assert pickle.dumps(backend) == before
    Reranker(backend).close()
    for one in (backend, pickle.loads(before)):
        assert Reranker(one, k=1).rank(*ITEM).order == (1, 0, 2, 3)
    for argument, context in [(None, None), (0, None), (-1, None), (4_096, 4_096)]:
        assert Recording(context=argument).context == context


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
