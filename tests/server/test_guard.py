"""Keys, the limits of a request, clients that leave, and nothing in the log that a client sent."""

import asyncio
import gc
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.server import ServerConfig, create_app
from rankr1_rag.server import guard as guard_module
from rankr1_rag.server.config import is_loopback
from rankr1_rag.server.keys import Keys
from rankr1_rag.server.metrics import Metrics
from tests.server.conftest import BODY, Held, Posting, Running, bearer, posted

Serving = Callable[..., Running]
pytestmark = pytest.mark.third_party
KEYS = ["first-key-1234567890", "second-key-0987654321"]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# two keys\n\n{KEYS[0]}\n  {KEYS[1]}  \n")
    return path


def changed(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1_000))


def test_without_a_valid_key_there_is_no_answer(serving: Serving, key_file: Path) -> None:
    server = serving(keys=key_file)
    for headers in (
        {},
        bearer("wrong-key-1234567890"),
        {"Authorization": KEYS[0]},
        {"Authorization": "Basic x"},
    ):
        refused = server.post("/v1/rerank", json={}, headers=headers)
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "authentication_error"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert all(server.get(path, headers=headers).status_code == 401 for path in ("/metrics", "/info", "/v1/models"))
    for key in KEYS:
        server.headers.update(bearer(key))
        assert server.order() == [1, 3, 2, 0]
    server.headers.pop("Authorization")
    assert [server.get(path).status_code for path in ("/health", "/ready", "/docs")] == [200] * 3


def test_the_file_of_keys_is_read_again(key_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("rankr1_rag.server.keys.PATIENCE", -1)
    keys = Keys(ServerConfig(keys=key_file))
    assert keys.find(f"Bearer {KEYS[0]}")
    changed(key_file, f"{KEYS[1]}\nshort\nnew-key-abcdefgh-1\n")
    assert keys.find(f"Bearer {KEYS[0]}") is None
    assert keys.find(f"bearer {KEYS[1]}")
    assert keys.find("Bearer new-key-abcdefgh-1")
    assert "keys:2: the line holds no key" in caplog.text
    key_file.unlink()
    assert keys.find(f"Bearer {KEYS[1]}") is None
    assert keys.find("") is None
    changed(key_file, KEYS[0])
    assert keys.find(f"Bearer {KEYS[0]}")
    assert not any(key in caplog.text for key in KEYS)


def test_keys_may_come_from_variables(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    monkeypatch.setenv("ONE_KEY", "key-of-a-variable-1")
    keys = Keys(ServerConfig(key_env=["ONE_KEY"], keys=key_file))
    found = {keys.find(f"Bearer {key}") for key in [*KEYS, "key-of-a-variable-1"]}
    assert len(found) == 3
    assert None not in found
    for wrong in ("", "short", "with a blank", "schl\u00fcssel-123456"):
        monkeypatch.setenv("ONE_KEY", wrong)
        with pytest.raises(ValueError, match="the variable ONE_KEY holds no key: at least 8 ASCII characters"):
            Keys(ServerConfig(key_env=["ONE_KEY"]))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "rerank.example", ""])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(ValueError, match="there is no key"):
        ServerConfig(host=host)
    ServerConfig(host=host, insecure=True)
    ServerConfig(host=host, key_env=["ANY_KEY"])


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        *[(host, True) for host in ("localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:8000", "::1", "[::1]:8000")],
        *[
            (host, False)
            for host in ("127.0.0.1.evil.example", "evil.example:8000", "localhost.evil.example", "0.0.0.0")
        ],
    ],
)
def test_the_names_of_the_machine_itself(host: str, is_own: bool) -> None:
    assert is_loopback(host) == is_own


def test_pages_of_other_origins_may_not_ask_without_a_key(serving: Serving) -> None:
    server = serving(cors=["https://app.example"])
    own = server.url
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example:8000"}):
        refused = server.post("/v1/rerank", json={"query": "q", "documents": ["a"]}, headers=headers)
        assert refused.status_code == 403, headers
        assert "access-control-allow-origin" not in refused.headers
    for origin in (own, "https://app.example"):
        assert server.post("/v1/rerank", json={"query": "q", "documents": ["a"]}, headers={"Origin": origin}).is_success
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert server.options("/v1/rerank", headers=asked).headers["access-control-allow-origin"] == "https://app.example"
    plain = serving()
    asked = {"Origin": plain.url, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in plain.options("/v1/rerank", headers=asked).headers


def test_request_ids_are_those_of_the_client_if_they_are_harmless(server: Running) -> None:
    assert server.get("/health", headers={"X-Request-Id": "abc-1.2:3"}).headers["x-request-id"] == "abc-1.2:3"
    for wrong in ("a" * 101, "a b", "<b>", "ä"):
        given = server.get("/health", headers={"X-Request-Id": wrong.encode()}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_a_client_that_leaves_cancels_its_comparisons(serving: Serving, held: Held) -> None:
    server = serving(held)
    connection = posted(server, BODY)
    server.until(lambda _: held.open)
    connection.close()
    start = time.monotonic()
    server.until(lambda service: held.cancelled == 1 and not service.queue.open)
    assert time.monotonic() - start < 2
    server.until(lambda service: 'status="499"' in service.metrics.text().decode())


def test_a_client_that_leaves_the_queue_gives_its_place_away(serving: Serving, held: Held) -> None:
    server = serving(held, max_queries=1)
    first = Posting(server)
    server.until(lambda _: held.open)
    gone = posted(server, BODY)
    server.until(lambda service: service.queue.waiting == 1)
    gone.close()
    server.until(lambda service: service.queue.waiting == 0)
    last = Posting(server)
    server.until(lambda service: service.queue.waiting == 1)
    held.release.set()
    for one in (first, last):
        one.join()
        assert one.answer.status_code == 200
    assert held.cancelled == 0


def test_beyond_the_queue_the_answer_is_429(serving: Serving, held: Held) -> None:
    server = serving(held, max_queries=1, max_queue=1)
    both = [Posting(server)]
    server.until(lambda _: held.open)
    both.append(Posting(server))
    server.until(lambda service: service.queue.waiting == 1)
    refused = server.rerank()
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["type"] == "rate_limit_error"
    tei = server.post("/rerank", json={"query": "q", "texts": ["a", "b"]})
    assert tei.json()["error_type"] == "Overloaded"
    held.release.set()
    for one in both:
        one.join()
        assert one.answer.status_code == 200


def test_half_a_request_is_408_and_a_lost_one_holds_nothing(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "SLOW", 0.2)
    server = serving()
    slow = posted(server, BODY[:10], length=len(BODY))
    assert b"HTTP/1.1 408" in slow.recv(1_000)
    slow.close()
    posted(server, BODY[:10], length=len(BODY)).close()
    server.until(lambda service: 'status="499"' in service.metrics.text().decode())
    assert server.order() == [1, 3, 2, 0]


def test_many_large_requests_at_once_are_429(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "HELD", 5_000)
    server = serving()
    half = posted(server, b"{" + b" " * 4_000, length=8_000)
    time.sleep(0.1)
    assert server.rerank(documents=["a" * 2_000, "b"]).status_code == 429
    half.close()
    server.until(lambda service: server.rerank(documents=["number 1" + " " * 2_000, "number 0"]).is_success)


def test_many_brackets_are_413_and_hold_nothing(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "HELD", 5_000)
    monkeypatch.setattr(guard_module, "BRACKETS", 25)
    server = serving()
    for _ in range(3):
        assert server.rerank(more=[{}] * 30).status_code == 413
        assert server.rerank(more=[{}] * 20).status_code == 429  # 4 kB of objects, and what is around them
        assert server.rerank(more=[1] * 200).status_code == 429
    assert server.rerank(more=[{}] * 10).status_code == 200


def test_a_client_that_does_not_read_is_left(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "SLOW", 0.5)
    server = serving()
    body = {"query": "q", "documents": ["number 1" + " " * 7_000_000, "number 0"], "return_documents": True}
    connection = posted(server, json.dumps(body).encode())  # the answer has the text twice
    server.until(lambda service: 'status="499"' in service.metrics.text().decode())
    connection.close()
    assert len(server.post("/v1/rerank", json=body).json()["results"]) == 2


async def test_another_asgi_server_need_not_have_a_state() -> None:
    app = create_app(Reranker(Scripted(vague)), ServerConfig())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.post("/v1/rerank", json={"query": "q", "documents": []})).status_code == 503


async def test_an_error_after_the_client_left_is_not_logged_with_its_text(caplog: Any) -> None:
    async def app(*_: Any) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise RuntimeError("TOP-SECRET-PASSAGE") from None

    async def receive() -> Any:
        return messages.pop()

    async def send(_: Any) -> None:
        raise AssertionError("nobody is there")

    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"{}"}]
    guard = guard_module.Guard(app, config := ServerConfig(), Keys(config), Metrics(), set(), lambda _: None)
    await guard({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
    gc.collect()
    assert "SECRET" not in caplog.text


def vague(messages: Any) -> str:
    return "<answer>[1]</answer>" if "less?" in str(messages) else "TOP-SECRET-PASSAGE"


def test_nothing_that_a_client_sends_is_logged(serving: Serving, caplog: Any) -> None:
    def fails(messages: Any) -> str:
        if "less?" in str(messages):
            return "<answer>[1]</answer>"
        raise RuntimeError("cannot read TOP-SECRET-PASSAGE of CONFIDENTIAL-QUERY")

    with caplog.at_level(logging.DEBUG):
        server = serving(fails, settings={"on_failure": "first_stage"})
        body = {"query": "CONFIDENTIAL-QUERY", "documents": ["TOP-SECRET-PASSAGE", "TOP-SECRET-PASSAGE 2"]}
        assert server.post("/v1/rerank", json=body).status_code == 200
        server.post("/v1/rerank", json={**body, "top_n": "TOP-SECRET-PASSAGE"})
        server.post("/v1/rerank?q=TOP-SECRET-PASSAGE", content=json.dumps(body))
        server.post("/TOP-SECRET-PASSAGE", json=body)
        unclear = serving(vague, settings={"strict": True, "force": "never"})
        assert unclear.post("/v1/rerank", json=body).status_code == 424
        strict = serving(fails)
        assert strict.post("/v1/rerank", json=body).status_code == 424
        strict.service.queue.enter = None  # type: ignore[assignment,method-assign]
        assert strict.post("/v1/rerank", json=body).status_code == 500
    own = [record for record in caplog.records if record.name.startswith(("rankr1_rag", "uvicorn", "fastapi"))]
    assert any("200 in" in record.getMessage() for record in own)
    assert any("failed with TypeError" in record.getMessage() for record in own)
    text = "".join(logging.Formatter().format(record) for record in own)
    assert "SECRET" not in text
    assert "CONFIDENTIAL" not in text


def test_before_the_model_is_loaded_the_answer_is_503(serving: Serving) -> None:
    loaded = threading.Event()

    async def loading(_: Any) -> str:
        while not loaded.is_set():
            await asyncio.sleep(0.01)
        return "<answer>[1]</answer>"

    server = serving(loading, ready=False)
    assert server.get("/health").status_code == 200
    assert server.get("/ready").status_code == 503
    refused = server.rerank()
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    tei = server.post("/rerank", json={"query": "q", "texts": ["a"]})
    assert (tei.status_code, tei.json()["error_type"]) == (503, "Unhealthy")
    loaded.set()
    server.until(lambda service: service.ready)
    assert server.get("/ready").status_code == 200
    assert server.rerank().status_code == 200


def test_a_model_that_cannot_be_loaded_is_tried_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("rankr1_rag.server.service.AGAIN", 0.02)
    attempts = []

    def third(_: Any) -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("no such model in /a/secret/folder")
        return "<answer>[1]</answer>"

    server = serving(third, ready=False)
    server.until(lambda service: attempts)
    server.until(lambda service: service.ready or "loading" not in service.problem)
    assert server.service.problem == "the model is not loaded: BackendError"
    assert "/a/secret/folder" in caplog.text
    server.until(lambda service: service.ready)
    assert server.rerank().status_code == 200


def test_the_figures_are_those_of_the_contract(server: Running) -> None:
    server.rerank()
    server.rerank(documents="wrong")
    server.get("/nothing")
    text = server.get("/metrics").text
    for line in (
        'rankr1_requests_total{route="/v1/rerank",status="200"} 1.0',
        'rankr1_requests_total{route="/v1/rerank",status="422"} 1.0',
        'rankr1_requests_total{route="other",status="404"} 1.0',
        'rankr1_request_duration_seconds_count{route="/v1/rerank"} 2.0',
        "rankr1_queries_in_flight 0.0",
        "rankr1_rounds_count 1.0",
        'rankr1_tokens_total{type="prompt"} 0.0',
    ):
        assert line in text, text
    assert re.search(r'rankr1_comparisons_total\{outcome="parsed"\} [1-9]', text)
