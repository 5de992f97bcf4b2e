"""Whatever is sent to the server: an answer or an error of the contract, never a 500, and nothing stays behind."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.server import ServerConfig
from tests.attacks.conftest import examples
from tests.server.conftest import BODY, Held, Running, posted, running


def first(_: Any) -> str:
    return "<think>it is first</think> <answer>[1]</answer>"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(Scripted(first), ServerConfig(max_documents=2_000), k=3) as one:
        yield one


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
)
DOCUMENT = (
    st.text(max_size=30) | st.fixed_dictionaries({}, optional={"text": st.text(max_size=30), "title": JSON}) | JSON
)
FIELDS: dict[str, Any] = {
    **dict.fromkeys(["documents", "texts"], st.lists(DOCUMENT, max_size=6) | JSON),
    **dict.fromkeys(["top_n", "top_k", "max_tokens_per_doc", "max_tokens_per_query"], st.integers(-2, 9) | JSON),
    **dict.fromkeys(["return_documents", "return_text", "truncation", "truncate", "raw_scores"], SCALARS),
    **dict.fromkeys(["model", "rank_fields", "instruction", "request_id", "unheard_of"], JSON),
    "rankr1": st.fixed_dictionaries(
        {}, optional={"include": st.lists(st.sampled_from(["reasoning", "trace", "cost", "page"])) | JSON, "k": SCALARS}
    )
    | JSON,
}


def check(answer: Any, body: Any) -> None:
    """The answer is one of the contract."""
    assert answer.status_code in (200, 400, 404, 413, 422), answer.text
    found = answer.json()
    if answer.status_code != 200:
        assert isinstance(found.get("error"), (str, dict))
        return
    results = found if isinstance(found, list) else found["results"]
    n = len(body["documents"] if body.get("documents") is not None else body["texts"])
    indexes = [one["index"] for one in results]
    scores = [one["score" if isinstance(found, list) else "relevance_score"] for one in results]
    assert len({*indexes}) == len(indexes)
    assert all(0 <= index < n for index in indexes)
    assert all(0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, reverse=True)


@examples(60)
@given(st.fixed_dictionaries({"query": st.text(max_size=30) | JSON}, optional=FIELDS))
def test_any_object_is_answered(server: Running, body: dict[str, Any]) -> None:
    text = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    check(server.post("/v1/rerank", content=text, headers=headers), json.loads(text))


@examples(40)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_answered(server: Running, body: bytes) -> None:
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", "application/json; ;"):
        answer = server.post("/rerank", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["message"]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/rerank HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_its_connection_only(server: Running, head: bytes) -> None:
    assert server.base_url.port is not None
    with socket.create_connection((server.base_url.host, server.base_url.port), timeout=5) as connection:
        connection.sendall(head)
        answer = connection.recv(1_000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert server.get("/health").status_code == 200


def test_large_requests(server: Running) -> None:
    assert server.rerank(documents=["a"] * 10_000).status_code == 413
    assert server.rerank(documents=[""] * 1_000_000).status_code == 413
    assert server.rerank(documents=["word " * 2_000] * 1_000).status_code == 200
    assert server.rerank(documents=["a" * (17 << 20)]).status_code == 413
    assert server.rerank(query="word " * 40_000, documents=["a", "b"]).status_code == 200
    assert server.rerank(query="word " * 100_000, documents=["a", "b"]).status_code == 422
    for brackets in ("[]", "{}", '{"a":[]}'):
        wide = f'{{"query": "q", "documents": ["a"], "more": [{", ".join([brackets] * 1_000_001)}]}}'
        headers = {"Content-Type": "application/json"}
        assert server.post("/v1/rerank", content=wide, headers=headers).status_code == 413
    assert (
        len(server.rerank(documents=[{"text": "a", "more": {"deep": [1] * 1_000}}] * 1_000).json()["results"]) == 1_000
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_all_before_it_reads_sees_that_it_was_too_much(server: Running, chunked: bool) -> None:
    assert server.base_url.port is not None
    n = 40 << 20
    with socket.create_connection((server.base_url.host, server.base_url.port), timeout=20) as connection:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {n}"
        head = f"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(n >> 20):
            connection.sendall((b"100000\r\n" if chunked else b"") + b" " * (1 << 20) + (b"\r\n" if chunked else b""))
        connection.sendall(b"0\r\n\r\n" if chunked else b"")
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert server.get("/health").status_code == 200


def test_clients_that_leave_leave_nothing_behind() -> None:
    held = Held()
    with running(Scripted(held), ServerConfig(max_queries=4, max_queue=1_000)) as server:
        connections = [posted(server, BODY if n % 3 else BODY[:20], length=len(BODY)) for n in range(60)]
        server.until(lambda service: service.queue.waiting == 36)
        for connection in connections:
            connection.close()
        start = time.monotonic()
        server.until(lambda service: not (service.queue.open or service.queue.waiting or held.open))
        assert time.monotonic() - start < 5
        tasks = threading.active_count()
        held.release.set()
        assert server.order(documents=["a", "b"]) == [0, 1]
        assert threading.active_count() <= tasks + 1


def test_small_packets_are_sent_at_once(server: Running) -> None:
    """Nagle's algorithm would add 40 ms to each answer."""
    from rankr1_rag.server.app import listening

    with listening("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP
