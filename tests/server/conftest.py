"""A server of uvicorn on loopback with the scripted backend, in a thread of its own."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from rankr1_rag import Reranker
from rankr1_rag.backends import Backend
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.server import ServerConfig, create_app
from rankr1_rag.server.app import listening
from rankr1_rag.server.service import Service

DOCUMENTS = ["number 3", "number 0", "number 2", "number 1"]
"""The best ends in 0, see `best_label`."""


class Running(httpx.Client):
    """A server that runs, and a client of it."""

    def __init__(self, url: str, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(base_url=url, timeout=60, trust_env=False)
        self.url, self.service, self.loop = url, service, loop

    def rerank(self, documents: list[Any] = DOCUMENTS, path: str = "/v1/rerank", **fields: Any) -> httpx.Response:
        return self.post(path, json={"query": "which is least?", "documents": documents, **fields})

    def order(self, **fields: Any) -> list[int]:
        answer = self.rerank(**fields)
        assert answer.status_code == 200, answer.text
        return [result["index"] for result in answer.json()["results"]]

    def until(self, is_so: Callable[[Service], object], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not is_so(self.service):
            assert time.monotonic() < end, "it never was so"
            time.sleep(0.005)


@contextmanager
def running(backend: Backend, config: ServerConfig, ready: bool = True, **settings: Any) -> Iterator[Running]:
    app = create_app(Reranker(backend, **settings), config)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=5)
    )
    bound, loop = listening("127.0.0.1", 0), asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(sockets=[bound])))
    thread.start()
    try:
        with Running(f"http://127.0.0.1:{bound.getsockname()[1]}", app.state.service, loop) as client:
            client.until(lambda service: server.started and (service.ready or not ready))
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        loop.close()


@pytest.fixture
def serving(best_label: Callable[[Any], str]) -> Iterator[Callable[..., Running]]:
    """Starts a server: a script or a backend, options of the server by name, those of the reranker as `settings`."""
    with ExitStack() as stack:

        def start(backend: Any = best_label, *, ready: bool = True, settings: Any = None, **config: Any) -> Running:
            backend = backend if hasattr(backend, "complete") else Scripted(backend)
            return stack.enter_context(running(backend, ServerConfig(**config), ready, **(settings or {})))

        yield start


@pytest.fixture
def server(serving: Callable[..., Running]) -> Running:
    return serving()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Held:
    """A script whose comparisons wait until they are released; those that were cancelled are counted."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.open = self.cancelled = 0

    async def __call__(self, messages: Any) -> str:
        if "less?" in messages[-1]["content"]:  # the loading of the model
            return "<answer>[1]</answer>"
        self.open += 1
        try:
            while not self.release.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1
        return "<think>first</think> <answer>[1]</answer>"


@pytest.fixture
def held() -> Iterator[Held]:
    script = Held()
    yield script
    script.release.set()


class Posting(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, server: Running, key: str = "", **fields: Any) -> None:
        super().__init__()
        self.server, self.fields, self.headers = server, fields, bearer(key) if key else {}
        self.answer: Any = None
        self.start()

    def run(self) -> None:
        body = {"query": "q", "documents": ["a", "b"], **self.fields}
        self.answer = self.server.post("/v1/rerank", json=body, headers=self.headers)


def posted(server: Running, body: bytes, *, length: int | None = None) -> socket.socket:
    """A connection on which a request was sent, with a content length of its own."""
    host, port = server.base_url.host, server.base_url.port
    assert port is not None
    connection = socket.create_connection((host, port))
    head = f"POST /v1/rerank HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body)
    return connection


BODY = json.dumps({"query": "q", "documents": ["a", "b"]}).encode()
