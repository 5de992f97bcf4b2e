"""`rankr1 serve` as a process: it listens, says so, answers, and stops when it is asked to."""

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Shell

DOCUMENTS = ["number 2", "number 0", "number 1"]


class Process:
    """The command as a process; `url` is where it listens, `said` what it printed until now."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, list[str]()
        self.reader = threading.Thread(target=lambda: self.lines.extend(process.stderr or ()))
        self.reader.start()
        self.url = self.wait_for(r"listening at (http://\S+)")

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait_for(self, pattern: str) -> str:
        end = time.monotonic() + 60
        while not (found := re.search(pattern, self.said)):
            assert time.monotonic() < end, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)
        return found[1] if found.re.groups else found[0]

    def rerank(self, **fields: Any) -> httpx.Response:
        body = {"query": "least?", "documents": DOCUMENTS, **fields}
        return httpx.post(f"{self.url}/v1/rerank", json=body, timeout=60, trust_env=False)


@pytest.fixture
def serve(shell: Shell) -> Iterator[Callable[..., Process]]:
    """Starts the command with these options, on a free port."""
    started = list[Process]()

    def start(*options: str) -> Process:
        started.append(Process(shell.process("serve", "--port", "0", *options)))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()
        one.reader.join()


def test_it_answers_until_it_is_stopped(serve: Callable[..., Process]) -> None:
    one = serve("-v")
    one.wait_for("judge is ready")
    assert [result["index"] for result in one.rerank().json()["results"]] == [1, 2, 0]
    one.wait_for("POST /v1/rerank 200 in")
    assert "event: done" in one.rerank(stream=True).text
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=20) == -signal.SIGTERM
    assert "Traceback" not in one.said


def test_ctrl_c_ends_it_as_it_ends_other_commands(serve: Callable[..., Process]) -> None:
    one = serve()
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(timeout=20) == 130
    assert "Traceback" not in one.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(serve: Callable[..., Process], shell: Shell, number: signal.Signals) -> None:
    one = serve("--grace", "60")
    one.wait_for("judge is ready")
    shell.server.delay = 10.0

    def ask() -> None:
        with pytest.raises(httpx.TransportError):
            one.rerank()

    client = threading.Thread(target=ask)
    client.start()
    while len(shell.server.prompts) < 2:
        time.sleep(0.01)
    one.process.send_signal(number)
    time.sleep(0.5)
    assert one.process.poll() is None
    one.process.send_signal(number)
    assert one.process.wait(timeout=5) == 128 + number
    client.join()


def test_it_can_be_stopped_while_the_model_loads(serve: Callable[..., Process], shell: Shell) -> None:
    shell.server.delay = 10.0
    one = serve()
    while not shell.server.prompts:
        time.sleep(0.01)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=8) == -signal.SIGTERM


def test_open_queries_are_finished_when_it_is_stopped(serve: Callable[..., Process], shell: Shell) -> None:
    one = serve("--grace", "30")
    one.wait_for("judge is ready")
    shell.server.delay, answers = 1.0, list[httpx.Response]()
    client = threading.Thread(target=lambda: answers.append(one.rerank()))
    client.start()
    while len(shell.server.prompts) < 2:
        time.sleep(0.01)
    one.process.send_signal(signal.SIGTERM)
    client.join()
    assert [result["index"] for result in answers[0].json()["results"]] == [1, 2, 0]
    assert one.process.wait(timeout=20) == -signal.SIGTERM


def test_what_is_open_after_the_time_of_grace_is_answered_with_the_order_so_far(
    serve: Callable[..., Process], shell: Shell
) -> None:
    one = serve("--grace", "1")
    one.wait_for("judge is ready")
    shell.server.delay, answers = 6.0, list[httpx.Response]()
    client = threading.Thread(target=lambda: answers.append(one.rerank()))
    client.start()
    while len(shell.server.prompts) < 2:
        time.sleep(0.01)
    start = time.monotonic()
    one.process.send_signal(signal.SIGTERM)
    client.join()
    assert [result["index"] for result in answers[0].json()["results"]] == [0, 1, 2]
    assert "the best so far" in answers[0].json()["meta"]["warnings"][0]
    assert one.process.wait(timeout=20) == -signal.SIGTERM
    assert time.monotonic() - start < 5


@pytest.mark.slow
def test_no_answer_is_cut_when_it_is_stopped_under_load(serve: Callable[..., Process], shell: Shell) -> None:
    one = serve("--max-queries", "8")
    one.wait_for("judge is ready")
    shell.server.delay, stopped = 0.05, threading.Event()
    statuses, refused = list[int](), list[str]()

    def ask() -> None:
        while not stopped.is_set():
            try:
                statuses.append(one.rerank().status_code)
            except httpx.TransportError as error:
                refused.append(str(error))
                return

    clients = [threading.Thread(target=ask) for _ in range(24)]
    for client in clients:
        client.start()
    time.sleep(2)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(timeout=40) == -signal.SIGTERM
    stopped.set()
    for client in clients:
        client.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 24
    assert not [error for error in refused if "complete message" in error]


def test_what_cannot_be_served_is_an_error_in_one_line(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shell.run("serve", "--port", str(taken.getsockname()[1]), code=1)
        assert "cannot be listened on (Address already in use): use another" in shell.said
    shell.run("serve", "--host", "0.0.0.0", code=2)
    assert "there is no key: add --keys or --key-env, or --insecure if" in shell.said
    shell.run("serve", "--keys", "none.txt", code=2)
    assert "none.txt: No such file" in shell.said
    (shell.folder / "keys.txt").write_text("too short\n")
    shell.run("serve", "--keys", "keys.txt", code=2)
    assert "keys.txt:1: the line holds no key" in shell.said
    shell.run("serve", "--key-env", "sk-abcdef1234567890", code=2)
    assert "is no name of an environment variable" in shell.said
    assert "1234567890" not in shell.said
