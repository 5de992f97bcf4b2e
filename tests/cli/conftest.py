"""A real OpenAI-compatible server that judges perfectly, and the command line run against it."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class Judge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet: a second one waits 40 ms for the acknowledgement of the first

    def do_POST(self) -> None:
        server: JudgeServer = self.server  # type: ignore[assignment]
        messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        prompt = messages[1]["content"]
        server.prompts.append(prompt)
        time.sleep(server.delay)
        failing = any(word in prompt for word in server.failing)
        answer = {"error": {"message": server.complaint}} if failing else _chat(server.judge(messages))
        body = json.dumps(answer).encode()
        try:
            self.send_response(400 if failing else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except BrokenPipeError:
            pass  # whoever asked was interrupted

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _chat(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


class JudgeServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, judge: Callable[[Any], str]) -> None:
        super().__init__(("127.0.0.1", 0), Judge)
        self.judge = judge
        self.prompts: list[str] = []
        self.failing: list[str] = []
        self.complaint = "broken"
        self.delay = 0.0

    @property
    def options(self) -> list[str]:
        url = f"http://127.0.0.1:{self.server_port}/v1"
        return ["--backend", "openai", "--base-url", url, "--model", "judge", "--attempts", "1"]


@pytest.fixture
def server(best_label: Callable[[Any], str]) -> Iterator[JudgeServer]:
    judge = JudgeServer(best_label)
    thread = threading.Thread(target=judge.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield judge
    judge.shutdown()
    thread.join()
    judge.server_close()


@dataclass
class Shell:
    """`rankr1` with the server's options, in a folder of its own."""

    folder: Path
    server: JudgeServer
    result: subprocess.CompletedProcess[str] = field(init=False)

    def command(self, *arguments: str, model: bool = True) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "rankr1_rag", *arguments, *(self.server.options if model else [])]

    def run(
        self, *arguments: str, code: int = 0, model: bool = True, input: str | None = None, before: str = ""
    ) -> str:
        """Standard output; checks the exit code. `before` is a line of shell."""
        command = self.command(*arguments, model=model)
        done = subprocess.run(
            ["bash", "-c", f'{before}; exec "$@"', "bash", *command] if before else command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            input=input,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        self.result = done
        return done.stdout

    @property
    def said(self) -> str:
        """Standard error on one line."""
        return " ".join(self.result.stderr.split())

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def write(self, name: str, records: list[Any]) -> None:
        (self.folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def shell(tmp_path: Path, server: JudgeServer) -> Shell:
    return Shell(tmp_path, server)
