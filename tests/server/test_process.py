"""A server in a process of its own is killed: its clients see it at once, and the next one has what was finished."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.third_party

SERVER = """
import asyncio, sys
from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.server import ServerConfig, serve

async def judge(messages):
    text = messages[-1]["content"]
    await asyncio.sleep(60 if "slow" in text else 0)
    if "quick" in text and sys.argv[3] == "forgot":
        raise OSError("asked again")
    return "<think>the second</think> <answer>[2]</answer>"

engine = Reranker(stored(Scripted(judge), sys.argv[1]), k=1)
serve(engine, ServerConfig(port=int(sys.argv[2])), lambda line: print(line, flush=True))
"""


@contextmanager
def process(store: Path, port: int, memory: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that is ready, and its port."""
    command = [sys.executable, "-c", SERVER, str(store), str(port), memory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            listens = re.search(r":(\d+)$", server.stdout.readline().strip())
            assert listens
            assert "is ready" in server.stdout.readline()
            yield server, int(listens[1])
        finally:
            server.kill()


def test_a_killed_server_leaves_no_client_waiting_and_its_answers_to_the_next(tmp_path: Path) -> None:
    body = {"query": "which?", "documents": ["quick a", "quick b"]}

    async def load(server: subprocess.Popen[str], port: int) -> list[object]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=50, trust_env=False) as client:
            assert (await client.post("/rerank", json=body)).json()["results"][0]["index"] == 1
            slow = {"query": "which?", "documents": ["slow a", "slow b"]}
            asked = [asyncio.ensure_future(client.post("/rerank", json=slow)) for _ in range(20)]
            while "rankr1_queries_in_flight 20.0" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.01)
            server.kill()
            start = time.monotonic()
            found: list[object] = await asyncio.gather(*asked, return_exceptions=True)
            assert time.monotonic() - start < 10
            return found

    with process(tmp_path / "store", 0, "knows") as (server, port):
        found = asyncio.run(load(server, port))
    assert all(isinstance(one, httpx.TransportError) for one in found), found
    with process(tmp_path / "store", port, "forgot") as (server, again):
        assert again == port
        answer = httpx.post(f"http://127.0.0.1:{port}/rerank", json=body, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"][0]["index"] == 1
    assert "warnings" not in answer.json()["meta"]
