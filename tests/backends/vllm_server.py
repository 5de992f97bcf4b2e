"""What the tests of vLLM share: where it and its model are, adapters made for them, and a server that can be killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

MADE = sorted(Path(__file__).parents[2].glob(".venv-*/smollm2"))  # by the Makefile
SMOLLM2 = Path(os.environ.get("RANKR1_SMOLLM2") or (MADE[-1] if MADE else "no-smollm2"))
NAME = "SmolLM2-135M-Instruct"

needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(
        not (SMOLLM2 / "config.json").is_file(),
        reason=f"no checkpoint at {SMOLLM2}: set RANKR1_SMOLLM2 to a folder with {NAME}",
    ),
    # What vLLM and torch warn of about themselves.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.distributed.reduce_op` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed context <zmq.Context:ResourceWarning"),
]

CPU = {"VLLM_CPU_OMP_THREADS_BIND": "0-1", "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"}
"""Of the environment: two cores, 2 GiB of cache, no hub. On a GPU the first two mean nothing."""


@contextmanager
def on_two_cores() -> Iterator[None]:
    """The environment of `CPU` while it lasts, where it says nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CPU.items():
            if name not in os.environ:
                patch.setenv(name, value)
        yield


class Server:
    """vLLM's own OpenAI server, at one address for life: it can be killed, stopped and started again."""

    def __init__(self, output: Path, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        self._output = output
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 120.0) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--model", str(SMOLLM2), "--served-model-name", NAME, "--port", str(self.port), "--enforce-eager"]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**CPU, **os.environ},
                start_new_session=True,  # its engine is a process of its own: both die together
            )
        end = time.monotonic() + seconds
        while not self.healthy():
            assert self._process.poll() is None, f"the server ended: {self.said()}"
            assert time.monotonic() < end, f"the server did not come up: {self.said()}"
            time.sleep(0.2)

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            with urlopen(f"{self.root}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def said(self) -> str:
        """The end of its output."""
        return self._output.read_text(errors="replace")[-3_000:]

    @property
    def completed(self) -> int:
        """How many completions it has finished since it was started."""
        with urlopen(f"{self.root}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        counts = [line for line in lines if line.startswith("vllm:request_success_total")]
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in counts))

    def signal(self, number: int) -> None:
        """Send a signal to it and to its engine."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL: its connections break off. Safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait(30)


@contextmanager
def serving(output: Path, *arguments: str) -> Iterator[Server]:
    """A server that runs, until the block ends."""
    server = Server(output, *arguments)
    try:
        server.start()
        yield server
    finally:
        server.kill()
