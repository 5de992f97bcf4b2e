"""A real HTTP server on loopback: a test sets its answers, and it keeps the requests."""

import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Answer:
    """One answer. `hang` is a wait in seconds before it, `trickle` before each of its bytes.

    `cut` sends half of it; `drop` closes without a word.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    trickle: float = 0.0
    cut: bool = False
    drop: bool = False


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: Any
    port: int


def chat(content: object = "<answer>[1]</answer>", finish_reason: object = "stop", **message: object) -> dict[str, Any]:
    """The JSON of a chat completion."""
    said = {"role": "assistant", "content": content, **message}
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    return {"id": "c", "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        http: Any = self.server
        text = self.rfile.read(int(self.headers["Content-Length"]))
        http.seen.append(Seen(self.path, dict(self.headers), json.loads(text), self.client_address[1]))
        answer = http.answers.popleft() if http.answers else Answer(chat())
        if answer.hang and select.select([self.connection], [], [], answer.hang)[0]:
            http.hung_up.set()  # nobody sends a second request here: the client closed
            answer.drop = True
        if answer.drop:
            self.close_connection = True
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        data = body.encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        data = data[: len(data) // 2] if answer.cut else data
        try:
            for byte in data if answer.trickle else ():
                time.sleep(answer.trickle)
                self.wfile.write(bytes([byte]))
        except OSError:  # the client closed
            answer.cut = True
        if not answer.trickle:
            self.wfile.write(data)
        self.close_connection = answer.cut

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """`answers` are sent one a request, then good ones; `seen` are the requests; `url` is a base_url."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: deque[Answer] = deque()
        self.seen: list[Seen] = []
        self.hung_up = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    Answer = Answer
    chat = staticmethod(chat)


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
