"""A real OpenAI-compatible server that judges perfectly, and the command line run against it."""

import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag.cli import main

NO_BYTECODE = "import sys; sys.dont_write_bytecode = True"
"""For a process whose files may not grow: Python would leave a module's bytecode cut short, for all that come later."""

JOB = ["rerank", "in.jsonl", "-o", "out.jsonl"]


def query(number: int, n: int = 2, word: str = "fine", **more: object) -> dict[str, Any]:
    """A line of input; the best passage ends in 0. Any `word` but "fine" makes its query fail, see `failing`."""
    ranks = random.Random(number).sample(range(n), n)
    return {
        "query": {"id": f"{word}{number}", "text": f"{word} {number}?", "hops": 2},
        "passages": [{"id": f"d{rank}", "text": f"number {rank}", "url": f"u{rank}"} for rank in ranks],
    } | more


def best(record: dict[str, Any], k: int = 3) -> list[str]:
    return [passage["id"] for passage in record["passages"][:k]]


class Judge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet: a second one waits 40 ms for the acknowledgement of the first

    def do_POST(self) -> None:
        server: JudgeServer = self.server  # type: ignore[assignment]
        messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        prompt = messages[1]["content"]
        server.prompts.append(prompt)
        time.sleep(server.delay)
        failing = bool(server.failing) and server.failing in prompt
        body: dict[str, Any] = {"error": {"message": server.complaint}}
        if not failing:
            message = {"role": "assistant", "content": server.judge(messages)}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            body = {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        data = json.dumps(body).encode()
        try:
            self.send_response(400 if failing else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
        except BrokenPipeError:
            pass  # whoever asked was interrupted

    def log_message(self, *_: object) -> None:
        """Quiet."""


class JudgeServer(ThreadingHTTPServer):
    """Keeps the prompts it was sent; refuses those that hold the word in `failing` with a `complaint`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, judge: Callable[[Any], str]) -> None:
        super().__init__(("127.0.0.1", 0), Judge)
        self.judge = judge
        self.prompts: list[str] = []
        self.failing, self.complaint = "", "broken"
        self.delay = 0.0

    @property
    def options(self) -> list[str]:
        """The options of a command that asks this server."""
        url = f"http://127.0.0.1:{self.server_port}/v1"
        return ["--backend", "openai", "--base-url", url, "--model", "judge", "--attempts", "1"]


@dataclass
class Shell:
    """`rankr1` with the server's options, in a folder of its own; `said` is standard error on one line."""

    folder: Path
    server: JudgeServer
    said: str = ""

    def command(self, *arguments: str, model: bool = True) -> list[str]:
        return [*arguments, *(self.server.options if model else [])]

    def run(
        self,
        *arguments: str,
        code: int = 0,
        model: bool = True,
        input: str = "",
        main: Callable[[], None] = main,
    ) -> str:
        """Standard output of the command, run in this process; checks the exit code."""
        out, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, chdir(self.folder), redirect_stdout(out), redirect_stderr(errors):
            patch.setattr(sys, "argv", ["rankr1", *self.command(*arguments, model=model)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode())))
            try:
                with pytest.raises(SystemExit) as end:
                    main()
            finally:
                self.said = " ".join(errors.getvalue().split())
        assert (end.value.code or 0) == code, self.said
        return out.getvalue()

    def process(self, *arguments: str, before: str = "", model: bool = True, **options: Any) -> subprocess.Popen[str]:
        """The same command in a process of its own, after some code of Python."""
        code = f"{before}\nfrom rankr1_rag.cli import main; main()"
        program = [sys.executable, "-W", "error", *(["-c", code] if before else ["-m", "rankr1_rag"])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([*program, *self.command(*arguments, model=model)], cwd=self.folder, text=True, **pipes)

    def lines(self, name: str = "out.jsonl") -> list[Any]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def write(self, *records: object, name: str = "in.jsonl") -> None:
        (self.folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def server(best_label: Callable[[Any], str]) -> Iterator[JudgeServer]:
    with JudgeServer(best_label) as judge:
        thread = threading.Thread(target=judge.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield judge
        judge.shutdown()
        thread.join()


@pytest.fixture
def shell(tmp_path: Path, server: JudgeServer) -> Shell:
    return Shell(tmp_path, server)
