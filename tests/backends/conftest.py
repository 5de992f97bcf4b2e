"""A real HTTP server on loopback: a test sets its answers, and it keeps the requests."""

import json
import os
import pickle
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from rankr1_rag.backends.openai import OpenAI


def chat(
    content: str | None = "<answer>[1]</answer>", finish_reason: str = "stop", **message: object
) -> dict[str, Any]:
    """The JSON of a chat completion."""
    said = {"role": "assistant", "content": content, **message}
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    return {"id": "c", "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet: a second one waits 40 ms for the acknowledgement of the first

    def do_POST(self) -> None:
        http: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = SimpleNamespace(path=self.path, headers=self.headers, body=body, port=self.client_address[1])
        http.seen.append(seen)
        self._send(**(http.answers.popleft() if http.answers else http.script(seen)))

    def _send(
        self,
        body: Any = None,
        status: int = 200,
        headers: dict[str, str] | None = None,
        hang: float = 0,
        trickle: float = 0,
        sent: float = 1,
    ) -> None:
        if hang and select.select([self.connection], [], [], hang)[0]:
            self.server.hung_up.set()  # nobody sends a second request here: the client closed
            sent = 0
        self.close_connection = sent < 1
        if not sent:
            return
        data = (body if isinstance(body, str) else json.dumps(chat() if body is None else body)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            for byte in data if trickle else ():
                time.sleep(trickle)
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
        except OSError:
            self.close_connection = True  # as the client did
        if not trickle:
            self.wfile.write(data[: int(sent * len(data))])

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """`seen` are the requests; answers that a test added are sent one a request, then those of the `script`."""

    daemon_threads = True
    request_queue_size = 64
    chat = staticmethod(chat)

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: deque[dict[str, Any]] = deque()
        self.seen: list[Any] = []
        self.script: Callable[[Any], dict[str, Any]] = lambda seen: {}
        self.hung_up = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, body: Any = None, **settings: Any) -> None:
        """Add an answer: a text, JSON or (None) a completion. `sent` is the part of it that is sent.

        `hang` is a wait in seconds before it, `trickle` before each of its bytes.
        """
        self.answers.append({"body": body, **settings})

    def backend(self, **options: Any) -> OpenAI:
        return OpenAI("m", **{"base_url": self.url, **options})


@pytest.fixture
def server() -> Iterator[Server]:
    """The server, until the test ends."""
    with Server() as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield http
        http.shutdown()
        thread.join()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without keys, addresses and proxies of the machine's own."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "RANKR1_API")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(params=[deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def copied(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Two ways to copy a backend."""
    return request.param
