"""Code of users that raises anything, anywhere: it is the error of its query or of its caller, and nothing hangs.

A row is a place where code of others is called, an exception, and a way to rank. Other queries are open meanwhile and
must finish. RANKR1_ATTACKS=10 tries ten times as many rows.
"""

import asyncio
import concurrent.futures
import faulthandler
import logging
import random
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import pytest

from rankr1_rag import LoopError, Passage, Ranking, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, load_balanced, retried, stored
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.concurrency.foreign_loop import Retriever
from rankr1_rag.frameworks.component import Sources
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.types import Completion
from tests.attacks.conftest import SCALE

ROWS = round(160 * SCALE)
LIMIT = 10.0
"""Seconds after which a row hangs."""
FIRST = "<answer>[1]</answer>"
ITEM = ("bad", ["bad a", "b", "c"])
Boom = Callable[[], NoReturn]


class Own(BaseException):
    """Neither an Exception nor one of Python's."""


class Unprintable(Exception):
    """Raises SystemExit when it is printed."""

    def __str__(self) -> str:
        sys.exit("no text")

    __repr__ = __str__


class Falsy(Exception):
    """Futures of Python take it for no exception."""

    def __bool__(self) -> bool:
        return False


ERRORS: list[type[BaseException]] = [
    *(ValueError, MemoryError, StopIteration, StopAsyncIteration, GeneratorExit, KeyboardInterrupt, SystemExit),
    *(asyncio.CancelledError, concurrent.futures.CancelledError, Own, Unprintable, Falsy, BaseExceptionGroup),
]


def raises(kind: type[BaseException]) -> NoReturn:
    if kind is BaseExceptionGroup:
        raise BaseExceptionGroup("both", [SystemExit(1), ValueError()])
    raise kind(3)


def is_of(error: object, kind: type[BaseException]) -> bool:
    """Whether the error is of this kind or was raised for one that is. From a thread, asyncio raises its own kind."""
    kinds = (kind, asyncio.CancelledError) if kind is concurrent.futures.CancelledError else kind
    while isinstance(error, BaseException):
        if isinstance(error, kinds):
            return True
        error = error.__context__ if error.__cause__ is None else error.__cause__
    return False


@dataclass
class Place:
    """A reranker whose code raises for the item; for every item where `whole`."""

    reranker: Reranker
    item: tuple[str, Any] = ITEM
    whole: bool = False
    in_caller: bool = False
    """The caller itself runs that code, and a sync one gets its errors as they are."""
    may_pass: bool = False
    """Nothing of the query depends on that code."""


def scripted(boom: Boom, **settings: Any) -> Scripted:
    return Scripted(lambda messages: boom() if "bad" in messages[1]["content"] else FIRST, **settings)


def awaited(how: Callable[[], Any]) -> Reranker:
    async def model(messages: list[dict[str, str]]) -> str:
        await asyncio.sleep(0)
        if "bad" in messages[1]["content"]:
            await how()
        return FIRST

    return Reranker(Scripted(model), size=2)  # type: ignore[arg-type]


async def call(boom: Boom) -> NoReturn:
    await asyncio.sleep(0)
    boom()


async def call_soon(boom: Boom) -> None:
    asyncio.get_running_loop().call_soon(boom)
    await asyncio.sleep(0.001)


def counting(boom: Boom, word: str = "bad", **settings: Any) -> Scripted:
    def count(text: str) -> int:
        return boom() if word in text else 3

    return Scripted(lambda _: Completion(f"<think>r</think>{FIRST}", completion_tokens=9), count=count, **settings)


def with_property(name: str, boom: Boom, answer: str = FIRST, **settings: Any) -> Place:
    armed = False

    def get(_: object) -> Any:
        if armed:
            boom()
        return {"model": "m", "identity": "i", "can_continue": True}.get(name)

    def model(_: object) -> str:
        if name == "model":
            raise ValueError("its name is needed")
        return answer

    kind = type("Backend", (Scripted,), {name: property(get, lambda *_: None)})
    reranker = Reranker(kind(model), **settings)
    _ = reranker.plan
    armed = True
    return Place(reranker, whole=True)


class Model(FrameworkLLM):
    """An LLM of a framework."""

    def __init__(self, boom: Boom, sync_only: bool) -> None:
        super().__init__(None, "model")
        self.boom, self.sync_only = boom, sync_only

    def chat(self, request: Request) -> Completion:
        if "bad" in request.messages[1]["content"]:
            self.boom()
        return Completion(FIRST)

    async def achat(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        return self.chat(request)


class Document:
    """An object of a framework, with metadata."""

    def __init__(self, text: str, score: object = None) -> None:
        self.text, self.metadata = text, {"score": score}


def retrieving(retrieve: Callable[[], Any]) -> Place:
    def find(text: str) -> Any:
        return retrieve() if "bad" in text else []

    return Place(Reranker(Scripted(lambda _: FIRST), size=2, k=2, hops=2, retrieve=find))


def found_by_framework(boom: Boom) -> Place:
    def passage(document: Document) -> Passage:
        return boom() if document.text == "found" else Passage(document.text, document.text)

    sources = Sources(Document, [Document("bad a"), Document("b")], passage, Retriever(lambda _: [Document("found")]))

    def find(text: str) -> Any:
        return sources.retrieve(text) if "bad" in text else []  # type: ignore[misc]

    return Place(Reranker(Scripted(lambda _: FIRST), size=2, k=2, hops=2, retrieve=find), ("bad", sources.scored))


def generator(boom: Boom) -> Iterator[str]:
    yield "bad a"
    boom()


def raising(kind: type[Any], method: str, boom: Boom, value: Any) -> Any:
    """A value of a subclass whose method raises."""
    return type(kind.__name__, (kind,), {method: lambda _: boom()})(value)


def with_score(boom: Boom) -> Place:
    items = [("a", raising(float, "__float__", boom, 1)), ("b", 0.5)]
    return Place(Reranker(Scripted(lambda _: FIRST)), ("bad", items), in_caller=True)


def with_handler(boom: Boom) -> Place:
    """With a handler that raises for the bad query, instead of handling its errors."""
    handler = logging.Handler()
    handler.emit = lambda record: boom() if "'bad'" in record.getMessage() else None  # type: ignore[method-assign]
    logging.getLogger("rankr1_rag").addHandler(handler)
    return Place(Reranker(Scripted(lambda _: FIRST)))


def in_taskgroup(boom: Boom) -> Callable[[], Any]:
    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(call(boom))
            group.create_task(asyncio.sleep(0.01))

    return both


def balanced(boom: Boom) -> Any:
    return limited(retried(load_balanced([scripted(boom), scripted(boom)])), 2)


PLACES: dict[str, Callable[[Boom, Path], Place]] = {
    "complete": lambda boom, _: Place(Reranker(scripted(boom))),
    "complete, first stage on failure": lambda boom, _: Place(Reranker(scripted(boom), on_failure="first_stage")),
    "complete, one of a round": lambda boom, _: Place(Reranker(scripted(boom), size=2, votes=3)),
    "complete behind wrappers": lambda boom, _: Place(Reranker(balanced(boom), size=2)),
    "complete behind a store": lambda boom, path: Place(Reranker(stored(scripted(boom), path / "store"), size=2)),
    "complete, awaited": lambda boom, _: Place(awaited(lambda: call(boom))),
    "complete, in a thread": lambda boom, _: Place(awaited(lambda: asyncio.to_thread(boom))),
    "complete, in a task": lambda boom, _: Place(awaited(lambda: asyncio.create_task(call(boom)))),
    "complete, in a group": lambda boom, _: Place(awaited(in_taskgroup(boom)), may_pass=True),
    "complete, in a callback": lambda boom, _: Place(awaited(lambda: call_soon(boom)), may_pass=True),
    "count": lambda boom, _: Place(Reranker(counting(boom), passage_tokens=2)),
    "count, in a thread": lambda boom, _: Place(Reranker(counting(boom, context=9_000))),
    "count of the reasoning": lambda boom, _: Place(Reranker(counting(boom, "answer")), whole=True, may_pass=True),
    "count of the reasoning, in a thread": lambda boom, _: Place(
        Reranker(counting(boom, "[1]</answer>", context=9_000)), whole=True, may_pass=True
    ),
    "context": lambda boom, _: with_property("context", boom),
    "capacity": lambda boom, _: with_property("capacity", boom),
    "special tokens": lambda boom, _: with_property("special_tokens", boom),
    "can_continue": lambda boom, _: with_property("can_continue", boom, "dunno", force="unparsed"),
    "model": lambda boom, _: with_property("model", boom),
    "retrieve": lambda boom, _: retrieving(boom),
    "retrieve, a generator": lambda boom, _: retrieving(lambda: generator(boom)),
    "retrieve, awaited": lambda boom, _: retrieving(lambda: call(boom)),
    "retrieve, its list": lambda boom, _: retrieving(lambda: raising(list, "__iter__", boom, "ab")),
    "retrieve of a framework": lambda boom, _: found_by_framework(boom),
    "llm of a framework": lambda boom, _: Place(Reranker(Model(boom, False))),
    "sync llm of a framework": lambda boom, _: Place(Reranker(Model(boom, True))),
    "passages": lambda boom, _: Place(Reranker(Scripted(lambda _: FIRST)), ("bad", generator(boom)), in_caller=True),
    "score": lambda boom, _: with_score(boom),
    "log handler": lambda boom, _: with_handler(boom),
}


async def slowly(_: object) -> str:
    started.set()
    await asyncio.sleep(0.002)
    return FIRST


started = threading.Event()
others = Reranker(Scripted(slowly), size=2, k=2)
OTHERS = [(f"other {n}", list("abcd")) for n in range(3)]


async def all_awaited(results: AsyncIterator[tuple[int, Any]]) -> dict[int, Any]:
    return {index: result async for index, result in results}


def run_sync(do: Callable[[], Any]) -> tuple[Any, dict[int, Any]]:
    """What a call returns or raises, and the results of other queries that are open meanwhile."""
    started.clear()
    with ThreadPoolExecutor(1) as pool:
        meanwhile = pool.submit(lambda: dict(others.rank_many(OTHERS)))
        started.wait(LIMIT)
        try:
            outcome = do()
        except BaseException as error:
            outcome = error
        return outcome, meanwhile.result(LIMIT)


def run_async(do: Callable[[], Any]) -> tuple[Any, dict[int, Any]]:
    """`run_sync`, all on one event loop."""

    async def main() -> tuple[Any, dict[int, Any]]:
        async with asyncio.TaskGroup() as group:
            meanwhile = group.create_task(all_awaited(others.arank_many(OTHERS)))
            await asyncio.sleep(0.001)
            try:
                outcome = await do()
            except BaseException as error:
                outcome = error
        return outcome, meanwhile.result()

    return asyncio.run(main())


WAYS: dict[str, Callable[[Reranker, list[Any]], tuple[Any, dict[int, Any]]]] = {
    "rank": lambda reranker, items: run_sync(lambda: reranker.rank(*items[1])),
    "arank": lambda reranker, items: run_async(lambda: reranker.arank(*items[1])),
    "rank_many": lambda reranker, items: run_sync(lambda: dict(reranker.rank_many(items))),
    "live": lambda reranker, items: run_sync(lambda: dict(reranker.rank_many(items, live=True))),
    "arank_many": lambda reranker, items: run_async(lambda: all_awaited(reranker.arank_many(items))),
}
ALL = [(place, error, way) for place in PLACES for error in ERRORS for way in WAYS]


def within_limit(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test in a thread: a hang fails it alone, and prints where every thread is."""

    @wraps(test)
    def run(**arguments: object) -> None:
        result: concurrent.futures.Future[None] = concurrent.futures.Future()

        def call() -> None:
            try:
                result.set_result(test(**arguments))
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        try:
            error = result.exception(LIMIT)
        except TimeoutError:
            faulthandler.dump_traceback(all_threads=True)
            pytest.fail(f"hangs for {LIMIT} seconds")
        if error is not None:
            raise AssertionError(f"{type(error).__name__} in the thread of the test") from error

    return run


def check_others(results: dict[int, Any]) -> None:
    assert {index: type(result) for index, result in results.items()} == dict.fromkeys(range(len(OTHERS)), Ranking)
    assert others.rank("after", ["a", "b"]).order == (0, 1)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    log = logging.getLogger("rankr1_rag")
    before, level = list(log.handlers), log.level
    log.setLevel(logging.INFO)
    yield
    log.handlers[:] = before
    log.setLevel(level)


@pytest.mark.parametrize(("place", "error", "way"), random.Random(0).sample(ALL, min(ROWS, len(ALL))))
@within_limit
def test_what_code_of_users_raises_is_the_error_of_its_query_alone(
    place: str, error: type[BaseException], way: str, tmp_path: Path
) -> None:
    at = PLACES[place](lambda: raises(error), tmp_path)
    outcome, meanwhile = WAYS[way](at.reranker, [("good", ["a", "b"]), at.item, ("good", ["a", "b"])])
    check_others(meanwhile)
    if isinstance(outcome, dict):
        assert sorted(outcome) == [0, 1, 2]
        assert all(isinstance(one, Ranking | Exception) for one in outcome.values())
        assert at.whole or [type(outcome[n]) for n in (0, 2)] == [Ranking, Ranking]
        outcome = outcome[1]
    elif isinstance(outcome, BaseException):
        raw = at.in_caller and way == "rank"
        assert raw or isinstance(outcome, Exception)
        assert raw or not isinstance(outcome, concurrent.futures.CancelledError)
    if isinstance(outcome, Ranking):
        assert at.may_pass or outcome.failure
    else:
        assert is_of(outcome, error) or at.may_pass
    with suppress(*[BaseException] * at.whole):
        at.reranker.close()


class Backend(Scripted):
    """A backend whose close raises."""

    def __init__(self, boom: Boom) -> None:
        super().__init__(lambda _: FIRST)
        self.boom = boom

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.boom()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("error", ERRORS)
@within_limit
def test_what_close_raises_is_raised_by_close_alone(error: type[BaseException], wrapped: bool, tmp_path: Path) -> None:
    backend: Any = Backend(lambda: raises(error))
    if wrapped:
        backend = stored(load_balanced([backend, Backend(lambda: raises(error))]), tmp_path / "store")
    for run, name in ((run_sync, "close"), (run_async, "aclose")):
        outcome, meanwhile = run(getattr(Reranker(backend), name))
        assert isinstance(outcome, Exception)
        assert is_of(outcome, error)
        check_others(meanwhile)


class Source:
    """Three items and then an error; or, if it is closed before, another one."""

    def __init__(self, error: type[BaseException] | None, in_close: type[BaseException] | None = None) -> None:
        self.error, self.in_close, self.closed, self.given = error, in_close, threading.Event(), 0

    def step(self) -> Any:
        if self.given == 3 and self.error is not None:
            raises(self.error)
        self.given += 1
        return f"query {self.given}", ["a", "b"]

    def end(self) -> None:
        self.closed.set()
        if self.in_close is not None:
            raises(self.in_close)


class Generating(Source):
    def __iter__(self) -> Iterator[Any]:
        try:
            while True:
                yield self.step()
        finally:
            self.end()


class AsyncGenerating(Source):
    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while True:
                await asyncio.sleep(0)
                yield self.step()
        finally:
            self.end()


class Steps(Source):
    """A class with methods of its own, and no generator."""

    __iter__ = lambda self: self  # noqa: E731
    __next__, close = Source.step, Source.end


class AsyncSteps(Source):
    __aiter__ = lambda self: self  # noqa: E731

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        return self.step()

    async def aclose(self) -> None:
        self.end()


async def from_async(results: AsyncIterator[Any], done: list[Any], stop: int | None) -> None:
    async for result in results:
        done.append(result)
        if len(done) == stop:
            await results.aclose()  # type: ignore[attr-defined]
            return


def from_sync(results: Iterator[Any], done: list[Any], stop: int | None) -> None:
    for result in results:
        done.append(result)
        if len(done) == stop:
            results.close()  # type: ignore[attr-defined]
            return


def streamed(source: Source, way: str, bar: bool, done: list[Any], stop: int | None = None) -> BaseException | None:
    """What the stream raises to its consumer; its results are in `done`."""
    reranker = Reranker(Scripted(slowly), in_flight=2)
    items: Any = source if hasattr(source, "__aiter__") else iter(source)  # type: ignore[call-overload]
    try:
        if way == "arank_many":
            asyncio.run(from_async(reranker.arank_many(items, progress=bar), done, stop))
        else:
            from_sync(reranker.rank_many(items, live=way == "live", progress=bar), done, stop)
    except BaseException as error:
        return error
    return None


STREAMS = [
    (way, source)
    for way in ("rank_many", "live", "arank_many")
    for source in (Generating, Steps, AsyncGenerating, AsyncSteps)
    if way == "arank_many" or not hasattr(source, "__aiter__")
]
ENDINGS = [
    (way, source, error, bar)
    for way, source in STREAMS
    for error in ERRORS
    for bar in (False, True)
    if not (source is Steps and error is StopIteration)
    if not (source is AsyncSteps and error is StopAsyncIteration)  # that is how it ends
]


@pytest.mark.parametrize(
    ("way", "source", "error", "bar"), random.Random(1).sample(ENDINGS, min(ROWS // 3, len(ENDINGS)))
)
@within_limit
def test_what_ends_a_stream_early_is_raised_after_what_was_open(
    way: str, source: type[Source], error: type[BaseException], bar: bool
) -> None:
    done: list[Any] = []
    raised = streamed(source(error), way, bar, done)
    assert is_of(raised, error)
    assert isinstance(raised, Exception) or way != "arank_many"
    assert sorted(index for index, result in done if isinstance(result, Ranking)) == [0, 1, 2]


@pytest.mark.parametrize("in_close", [None, ValueError, SystemExit, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("bar", [False, True])
@pytest.mark.parametrize(("way", "source"), STREAMS)
@within_limit
def test_a_consumer_that_stops_early_closes_the_source(
    way: str, source: type[Source], bar: bool, in_close: type[BaseException] | None
) -> None:
    read, done = source(None, in_close), list[Any]()
    raised = streamed(read, way, bar, done, stop=2)
    assert read.closed.is_set()
    assert len(done) == 2
    if in_close in (ValueError, SystemExit):
        assert is_of(raised, in_close)


@within_limit
def test_a_source_that_does_not_answer_holds_no_consumer_that_stops() -> None:
    def waits() -> Iterator[Any]:
        yield "query", ["a", "b"]
        threading.Event().wait()

    async def sleeps() -> AsyncIterator[Any]:
        yield "query", ["a", "b"]
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    from_sync(Reranker(Scripted(slowly)).rank_many(waits(), live=True), [], 1)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(from_async(Reranker(Scripted(slowly)).arank_many(sleeps()), [], 1))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what is tested
    loop.close()


async def forever(_: object) -> str:
    started.set()
    await asyncio.sleep(60)
    return FIRST


def end_of_loop() -> None:
    started.wait(LIMIT)
    loop = private_loop()._loop
    loop.call_soon_threadsafe(loop.stop)


@pytest.mark.parametrize("way", ["rank", "arank", "rank_many", "live", "arank_many"])
@within_limit
def test_if_the_private_loop_ends_all_that_is_open_fails_and_the_next_call_starts_another(way: str) -> None:
    started.clear()
    slow = Reranker(Scripted(forever))
    threading.Thread(target=end_of_loop).start()
    with pytest.raises(LoopError, match="has ended"):  # noqa: PT012
        if way == "rank":
            slow.rank("q", ["a", "b"])
        elif way == "arank":
            asyncio.run(slow.arank("q", ["a", "b"]))
        elif way == "arank_many":
            asyncio.run(all_awaited(slow.arank_many([ITEM] * 3)))
        else:
            dict(slow.rank_many([ITEM] * 3, live=way == "live"))
    assert others.rank("after", ["a", "b"]).order == (0, 1)


def test_a_keyboard_interrupt_of_a_model_is_its_query_s_in_asyncio_run_of_the_main_thread() -> None:
    reranker = Reranker(Model(lambda: raises(KeyboardInterrupt), False))

    async def both() -> tuple[Any, Any]:
        return await asyncio.gather(reranker.arank(*ITEM), reranker.arank("good", ["a", "b"]), return_exceptions=True)

    bad, good = asyncio.run(both())
    assert is_of(bad, KeyboardInterrupt)
    assert isinstance(good, Ranking)
