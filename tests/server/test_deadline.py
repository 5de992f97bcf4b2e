"""A deadline is an answer of 200 with a warning, in time; a stream has every event of a query; a stop ends queries."""

import asyncio
import gc
import json
import random
import re
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.server import ServerConfig
from tests.server.conftest import BODY, DOCUMENTS, Held, Posting, Running, posted, running

Serving = Callable[..., Running]
pytestmark = pytest.mark.third_party


@pytest.fixture
def slow(best_label: Callable[[Any], str]) -> Callable[..., Any]:
    """A script that judges well after a random time of up to so many seconds."""

    def make(seconds: float) -> Callable[[Any], Any]:
        async def judge(messages: Any) -> str:
            if "less?" not in messages[-1]["content"]:
                await asyncio.sleep(random.uniform(0, seconds))
            return best_label(messages)

        return judge

    return make


def test_a_deadline_is_200_with_a_warning_and_every_document(serving: Serving, held: Held) -> None:
    server = serving(held)
    start = time.monotonic()
    answer = server.rerank(rankr1={"deadline": 0.1, "include": ["cost"]})
    assert time.monotonic() - start < 2
    assert answer.status_code == 200
    assert [one["index"] for one in answer.json()["results"]] == [0, 1, 2, 3]
    assert "the best so far: ended after 0.0" in answer.json()["meta"]["warnings"][0]
    assert 'rankr1_degraded_total{reason="deadline"} 1.0' in server.get("/metrics").text
    tei = server.post("/rerank", json={"query": "q", "texts": DOCUMENTS, "rankr1": {"deadline": 0.05}})
    assert [one["index"] for one in tei.json()] == [0, 1, 2, 3]


def test_the_server_may_set_deadlines_of_its_own(serving: Serving, held: Held) -> None:
    by_default = serving(held, settings={"deadline": 0.05})
    assert by_default.rerank().json()["meta"]["warnings"]
    capped = serving(held, max_deadline=0.05)
    assert capped.rerank(rankr1={"deadline": 60}).json()["meta"]["warnings"]
    assert capped.rerank().json()["meta"]["warnings"]


def test_a_query_that_waits_until_its_deadline_gets_the_order_of_the_request(serving: Serving, held: Held) -> None:
    server = serving(held, max_queries=1)
    first = Posting(server)
    server.until(lambda _: held.open)
    answer = server.rerank(rankr1={"deadline": 0.05})
    assert [one["index"] for one in answer.json()["results"]] == [0, 1, 2, 3]
    assert answer.json()["meta"]["warnings"]
    assert server.service.queue.waiting == 0
    held.release.set()
    first.join()
    assert first.answer.status_code == 200


def test_random_deadlines_over_random_delays(serving: Serving, slow: Callable[[float], Any]) -> None:
    server, is_over = serving(slow(0.1), settings={"k": 3}, max_queries=8), threading.Event()

    async def oversleep() -> float:
        """The most seconds by which the loop of the server was late meanwhile: others may have the processor."""
        most = 0.0
        while not is_over.is_set():
            start = time.monotonic()
            await asyncio.sleep(0.01)
            most = max(most, time.monotonic() - start - 0.01)
        return most

    noise = asyncio.run_coroutine_threadsafe(oversleep(), server.loop)
    documents = [f"number {(7 * i) % 30}" for i in range(30)]
    rng = random.Random(1)
    answers = [Posting(server, documents=documents, rankr1={"deadline": rng.uniform(0.01, 0.6)}) for _ in range(30)]
    late = []
    for one in answers:
        one.join()
        body = one.answer.json()
        assert one.answer.status_code == 200
        assert sorted(result["index"] for result in body["results"]) == [*range(30)]
        if "warnings" in body["meta"]:  # the seconds in the queue and in the engine
            spent = sum(map(float, re.findall(r"dur=([\d.]+)", one.answer.headers["server-timing"]))) / 1000
            late.append(spent - one.fields["rankr1"]["deadline"])
    is_over.set()
    assert len(late) >= 10
    assert statistics.median(late) < 0.05 + noise.result(timeout=10)


def test_counting_tokens_ends_at_the_deadline_and_two_count_at_once(serving: Serving, caplog: Any) -> None:
    counting, most, counted = [0], [0], [0]

    def count(text: str) -> int:
        counting[0] += 1
        most[0] = max(most[0], counting[0])
        time.sleep(0.02)
        counting[0] -= 1
        counted[0] += 1
        return len(text) // 4

    server = serving(Scripted(lambda _: "<answer>[1]</answer>", count=count))
    fields: dict[str, Any] = {"documents": ["word " * 100] * 500, "max_tokens_per_doc": 50, "top_n": 1}
    answers = [Posting(server, **fields, rankr1={"deadline": 0.3}) for _ in range(6)]
    for one in answers:
        one.join()
        assert one.answer.json()["results"][0]["index"] == 0
        assert "the best so far" in one.answer.json()["meta"]["warnings"][0]
    server.until(lambda service: not service.counting.open)
    before = counted[0]
    time.sleep(0.2)
    assert counted[0] == before < 1_000
    assert 0 < most[0] <= 2
    assert server.order(documents=["a", "b"], max_tokens_per_doc=50) == [0, 1]
    gc.collect()
    assert "never retrieved" not in caplog.text


def events_of(server: Running, **fields: Any) -> list[tuple[str, Any]]:
    with server.stream(
        "POST", "/v1/rerank", json={"query": "q", "documents": DOCUMENTS, "stream": True, **fields}
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.read()
        lines = [*answer.iter_lines()]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return [*zip(names, data, strict=True)]


def test_a_stream_has_the_comparisons_the_orders_and_the_answer(serving: Serving) -> None:
    server = serving(settings={"size": 2, "k": 2})
    events = events_of(server)
    names = [name for name, _ in events]
    assert names[-1] == "done"
    assert names.count("comparison") == names.count("answer") == names.count("order") >= 3
    opened = {data["comparison"]: data for name, data in events if name == "comparison"}
    for name, data in events:
        if name == "answer":
            assert set(data["answer"]) <= set(opened[data["comparison"]]["set"])
            assert data["reasoning"].endswith("is the lowest")
        if name == "order":
            assert sorted(data["order"]) == [0, 1, 2, 3]
    plain = server.rerank(stream=False).json()
    assert events[-1][1]["results"] == plain["results"]


def test_a_stream_has_the_reasoning_as_it_comes(serving: Serving) -> None:
    async def reasons(_: Any) -> Any:
        for piece in ("<think>the ", "second", "</think> <answer>[2]</answer>"):
            yield piece

    events = events_of(serving(reasons, settings={"k": 1}), documents=["a", "b"])
    assert [name for name, _ in events] == ["comparison", *["reasoning"] * 3, "answer", "order", "done"]
    written = ""
    for _, data in events[1:4]:
        written = written[: data["start"]] + data["text"]
    assert written == "<think>the second</think> <answer>[2]</answer>"


def test_a_stream_ends_with_an_error_if_the_model_fails(serving: Serving) -> None:
    def fails(messages: Any) -> str:
        if "less?" in str(messages):
            return "<answer>[1]</answer>"
        raise OSError("broken")

    name, data = events_of(serving(fails))[-1]
    assert name == "error"
    assert (data["status"], data["error"]["code"]) == (424, 424)


def test_a_stream_ends_with_an_error_if_the_server_fails(serving: Serving) -> None:
    server = serving()
    server.service.metrics.count = None  # type: ignore[assignment,method-assign]
    name, data = events_of(server)[-1]
    assert (name, data["status"]) == ("error", 500)
    assert "the server failed: TypeError" in data["message"]


def test_a_stream_beyond_the_queue_is_429(serving: Serving, held: Held) -> None:
    server = serving(held, max_queries=1, max_queue=0)
    first = Posting(server)
    server.until(lambda _: held.open)
    refused = server.rerank(stream=True)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, 429)
    held.release.set()
    first.join()


def test_a_stream_that_is_left_cancels_its_comparisons(serving: Serving, held: Held) -> None:
    server = serving(held)
    connection = posted(server, BODY[:-1] + b', "stream": true}')
    server.until(lambda _: held.open)
    received = b""
    while b"event: comparison" not in received:
        received += connection.recv(10_000)
    connection.close()
    server.until(lambda service: held.cancelled == 1 and not service.queue.open, seconds=5)


def test_a_silent_stream_says_that_it_lives(serving: Serving, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankr1_rag.server.events.SILENCE", 0.05)
    server = serving(held)
    threading.Timer(0.3, held.release.set).start()
    with server.stream("POST", "/v1/rerank", json={"query": "q", "documents": DOCUMENTS, "stream": True}) as answer:
        lines = [*answer.iter_lines()]
    assert any(line.startswith(":") for line in lines)


def test_a_stop_ends_open_and_waiting_queries_with_their_order_so_far(serving: Serving, held: Held) -> None:
    server = serving(held, max_queries=2, grace=0.6)
    open = [Posting(server) for _ in range(4)]
    server.until(lambda service: service.queue.waiting == 2)
    stopping = asyncio.run_coroutine_threadsafe(server.service.stop(), server.loop)
    server.until(lambda service: service.stopping)
    assert server.rerank().status_code == 503
    assert server.get("/ready").status_code == 503
    assert server.get("/health").status_code == 200
    for one in open:
        one.join(timeout=10)
        assert one.answer.status_code == 200
        assert [result["index"] for result in one.answer.json()["results"]] == [0, 1]
        assert one.answer.json()["meta"]["warnings"]
    stopping.result(timeout=5)


def test_a_backend_that_does_not_close_does_not_keep_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Scripted):
        async def close(self) -> None:
            await asyncio.sleep(3_600)

    monkeypatch.setattr("rankr1_rag.server.app.LAST", 0.2)
    with running(Endless(lambda _: "<answer>[1]</answer>"), ServerConfig()):
        start = time.monotonic()
    assert time.monotonic() - start < 5
