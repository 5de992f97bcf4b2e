"""How long the attacks last: `RANKR1_ATTACKS=10` in the environment means ten times the examples. And a server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
from hypothesis import settings

SCALE = float(os.environ.get("RANKR1_ATTACKS", "1"))

settings.register_profile("attacks", settings.get_profile("untimed"), max_examples=max(1, round(100 * SCALE)))


def examples(n: int) -> settings:
    """Decorates a property with `n` examples, times the scale: `@examples(200)` above `@given(…)`."""
    return settings(settings.get_profile("attacks"), max_examples=max(1, round(n * SCALE)))


Send = Callable[[Callable[[bytes], object]], None]
"""Sends an answer with the function that it gets."""


class RawServer(ThreadingTCPServer):
    """A server on loopback that answers with the bytes, or the `Send`, that `script` makes of a path and a body."""

    daemon_threads = allow_reuse_address = True
    script: Callable[[str, bytes], bytes | Send]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.bodies: list[bytes] = []


class Connection(StreamRequestHandler):
    """Requests of one client, until an answer has no length."""

    server: RawServer

    def handle(self) -> None:
        with suppress(OSError):
            while line := self.rfile.readline().split():
                head = b"".join(iter(self.rfile.readline, b"\r\n"))
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                self.server.bodies.append(self.rfile.read(int(length[1]) if length else 0))
                answer = self.server.script(line[1].decode(), self.server.bodies[-1])
                if not isinstance(answer, bytes):
                    return answer(self.wfile.write)
                self.wfile.write(answer)
                if b"Content-Length" not in answer or b"close" in answer:
                    return None


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    """It runs for all tests of a module."""
    with RawServer() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def http(body: bytes | str = b"", status: str = "200 OK", **headers: object) -> bytes:
    """A whole answer, byte for byte."""
    body = body.encode() if isinstance(body, str) else body
    lines = {"Content-Type": "application/json", "Content-Length": len(body)}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body
