"""The async path is async to the bottom: no executor, a loop that goes on, the model on its caller's loop."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.outputs import ChatResult
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_langchain.parts import Chat, documents, ids


class Counting(ThreadPoolExecutor):
    """A real executor that counts what it is given."""

    given = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given += 1
        return super().submit(*args, **kwargs)


class Where(Chat):
    """A chat model that keeps on which thread and loop it was asked, and by which method."""

    seen: set[Any]

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.seen.add(("sync", threading.current_thread() is threading.main_thread(), None))
        return super()._generate(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.seen.add(("async", threading.current_thread() is threading.main_thread(), asyncio.get_running_loop()))
        return await super()._agenerate(*args, **kwargs)


def test_nothing_runs_in_an_executor(compressor: RankR1Rerank) -> None:
    executor = Counting()

    async def ask() -> list[str | None]:
        asyncio.get_running_loop().set_default_executor(executor)
        direct = ids(await compressor.acompress_documents(documents(), QUERY))
        assert direct == ids(await compressor.as_runnable().ainvoke({"query": QUERY, "documents": documents()}))
        return direct

    assert asyncio.run(ask()) == WANTED
    assert executor.given == 0


def test_a_chat_model_is_asked_on_the_loop_of_whoever_awaits(judge: Scripted) -> None:
    model = Where(backend=judge, seen=set())
    compressor = RankR1Rerank(llm=model, top_n=3)
    loops = []

    async def ask() -> None:
        loops.append(asyncio.get_running_loop())
        assert ids(await compressor.acompress_documents(documents(), QUERY)) == WANTED

    for _ in range(2):
        asyncio.run(ask())
    assert model.seen == {("async", True, loop) for loop in loops}


@pytest.mark.parametrize("inside_a_loop", [False, True])
def test_a_sync_caller_has_its_chat_model_asked_by_the_sync_method_in_a_thread(
    inside_a_loop: bool, judge: Scripted
) -> None:
    model = Where(backend=judge, seen=set())
    compressor = RankR1Rerank(llm=model, top_n=3)

    async def cell() -> Any:
        return compressor.compress_documents(documents(), QUERY)

    found = asyncio.run(cell()) if inside_a_loop else compressor.compress_documents(documents(), QUERY)
    assert ids(found) == WANTED
    assert model.seen == {("sync", False, None)}


@pytest.mark.parametrize("bring", ["reranker", "llm"])
def test_the_loop_goes_on_meanwhile(bring: str) -> None:
    went_on = threading.Event()

    async def waits_for_the_loop(messages: Any) -> str:
        for _ in range(5_000):
            if went_on.is_set():
                return knows_best(messages)
            await asyncio.sleep(0.001)
        raise AssertionError("the loop of the caller stood still")

    backend = Scripted(waits_for_the_loop)
    compressor = RankR1Rerank(
        **({"llm": Chat(backend=backend)} if bring == "llm" else {"reranker": Reranker(backend)}), top_n=3
    )

    async def ask() -> Any:
        task = asyncio.create_task(compressor.acompress_documents(documents(), QUERY))
        await asyncio.sleep(0.01)
        went_on.set()
        return await task

    assert ids(asyncio.run(ask())) == WANTED


@pytest.mark.parametrize("bring", ["reranker", "llm"])
def test_whoever_gives_up_asks_no_more(bring: str) -> None:
    cancelled = []

    async def slow(messages: Any) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return knows_best(messages)

    backend = Scripted(slow)
    compressor = RankR1Rerank(
        **({"llm": Chat(backend=backend)} if bring == "llm" else {"reranker": Reranker(backend)}), top_n=3
    )

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(compressor.acompress_documents(documents(), QUERY), 0.2)
        await asyncio.sleep(0.1)

    asyncio.run(ask())
    assert cancelled == [True]


@pytest.mark.parametrize("only", ["sync", "async"])
def test_a_model_with_one_of_the_two_methods_serves_both_callers(only: str, judge: Scripted) -> None:
    class Sync(Chat):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            raise NotImplementedError

    class Async(Chat):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            raise NotImplementedError

    compressor = RankR1Rerank(llm={"sync": Sync, "async": Async}[only](backend=judge), top_n=3)
    found: list[list[Document]] = [
        list(compressor.compress_documents(documents(), QUERY)),
        list(asyncio.run(compressor.acompress_documents(documents(), QUERY))),
    ]
    assert [ids(each) for each in found] == [WANTED] * 2
