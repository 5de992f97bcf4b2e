"""A real vLLM server with a real model, used as a library and from the command line, and each of its faults."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Ranking, Reranker
from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.wrappers import limited, retried
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from rankr1_rag.types import Completion, Message
from tests.backends.vllm_server import NAME, SMOLLM2, Server, make_adapter, needs_vllm, on_two_cores, serving

pytestmark = [*needs_vllm, pytest.mark.slow, pytest.mark.usefixtures("environment", "reranked_in_process")]

KEY = "sk-of-the-vllm-server-0123456789"
WRONG = "sk-another-key-that-must-not-be-seen"
RANKING = {"k": 3, "size": 6, "reasoning_tokens": 24, "force": "unparsed"}
CONTEXT = 1_536


def queries(n: int) -> list[dict[str, Any]]:
    """Small queries with ten passages each."""
    things = ("river", "engine", "garden", "mountain", "letter", "window", "market", "bridge", "planet", "violin")
    return [
        {
            "query": {"id": f"q{number}", "text": f"what is known of the {things[number % 10]} in the year {number}?"},
            "passages": [
                {"id": f"p{place}", "text": f"In {number + place % 3} the {thing} was described in chapter {place}."}
                for place, thing in enumerate(things)
            ],
        }
        for number in range(n)
    ]


def ranked(backend: Backend, items: list[dict[str, Any]]) -> list[Ranking]:
    """The queries reranked one after the other."""
    reranker = Reranker(backend, **RANKING)  # type: ignore[arg-type]
    try:
        return [
            reranker.rank(item["query"]["text"], [passage["text"] for passage in item["passages"]]) for item in items
        ]
    finally:
        reranker.close()


@pytest.fixture(scope="module")
def reranked_in_process() -> Iterator[list[Ranking]]:
    """The rankings of an engine in this process, one request at a time. It ends before any server starts."""
    from rankr1_rag.backends.vllm import VLLM

    with on_two_cores():
        alone = VLLM(SMOLLM2, name=NAME, context=CONTEXT, engine={"enforce_eager": True})
        yield ranked(limited(alone, 1), queries(3))
    gc.collect()


@pytest.fixture(scope="module")
def server(reranked_in_process: list[Ranking], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key and knows an adapter."""
    folder = tmp_path_factory.mktemp("served")
    adapter = make_adapter(folder / "adapter", 16)
    lora = ("--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"my-adapter={adapter}")
    with serving(folder / "server.log", "--max-model-len", str(CONTEXT), "--api-key", KEY, *lora) as server:
        yield server


@pytest.fixture
def key(environment: pytest.MonkeyPatch) -> str:
    """The right key, where it is looked for."""
    environment.setenv("RANKR1_API_KEY", KEY)
    return KEY


def ask(backend: Backend, *requests: Request) -> list[Completion]:
    """Complete them at once, and close."""

    async def whole() -> list[Completion]:
        try:
            return await asyncio.wait_for(asyncio.gather(*map(backend.complete, requests)), 120)
        finally:
            await backend.close()

    return asyncio.run(whole())


def user(text: str, begun: str | None = None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": text}]
    return messages if begun is None else [*messages, {"role": "assistant", "content": begun}]


def failing(backend: Backend, request: Request | None = None) -> BackendError:
    with pytest.raises(BackendError) as caught:
        ask(backend, request or Request(user("Which?"), 4))
    return caught.value


COMMAND = [sys.executable, "-m", "rankr1_rag", "rerank"]
MODEL = ("--backend", "openai", "--server", "vllm")
HOW = ("--k", "3", "--size", "6", "--reasoning-tokens", "24", "--force", "unparsed")


def written(folder: Path, n: int) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(query) + "\n" for query in queries(n)), encoding="utf-8")
    return path


def rows(store: Path) -> int:
    """How many completions a store holds."""
    if not store.exists():
        return 0
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM completions").fetchone()[0])
    finally:
        connection.close()


# ---- the same as in process


@pytest.mark.smoke
def test_a_server_gives_the_ranking_of_the_engine_in_process(
    server: Server, key: str, reranked_in_process: list[Ranking]
) -> None:
    backend = limited(OpenAI(NAME, base_url=server.url, server="vllm", context=CONTEXT), 1)
    for here, there in zip(reranked_in_process, ranked(backend, queries(3)), strict=True):
        assert there.order == here.order
        assert [one.completion.text for one in there.trace] == [one.completion.text for one in here.trace]
        assert there.cost.prompt_tokens == here.cost.prompt_tokens
        assert there.cost.unparsed == 0


@pytest.mark.smoke
def test_an_adapter_is_a_model_of_the_server(server: Server, key: str) -> None:
    story = Request(user("Tell a story."), 24)
    (plain,) = ask(OpenAI(NAME, base_url=server.url, server="vllm"), story)
    (adapted,) = ask(OpenAI("my-adapter", base_url=server.url, server="vllm"), story)
    assert adapted.text != plain.text


@pytest.mark.smoke
def test_labels_have_probabilities_that_sum_to_one(server: Server, key: str) -> None:
    backend = OpenAI(NAME, base_url=server.url, server="vllm", context=CONTEXT)
    reranker = Reranker(backend, k=1, size=12, reasoning_tokens=8, force="unparsed", probabilities=True)
    ranking = reranker.rank("which thing?", [f"the thing of {place}" for place in range(12)])
    reranker.close()
    assert ranking.score_meaning == "probability"
    assert all(sum(one.probabilities or ()) == pytest.approx(1, abs=1e-6) for one in ranking.trace)


@pytest.fixture
def vllm(server: Server, key: str, environment: pytest.MonkeyPatch) -> OpenAI:
    """A server that runs already, where RANKR1_VLLM is its base_url and the model's name; else the one of the tests."""
    if "RANKR1_VLLM" in os.environ:
        base_url, model = os.environ["RANKR1_VLLM"].split()
        environment.delenv("RANKR1_API_KEY")
        return OpenAI(model, base_url=base_url, server="vllm")
    return OpenAI(NAME, base_url=server.url, server="vllm")


@pytest.mark.smoke
def test_a_real_vllm_continues_is_held_to_choices_and_samples_by_seed(vllm: OpenAI) -> None:
    count = user("Count to nine.")
    (begun,) = ask(vllm, Request(user("Count to nine.", "one, two, three, four,"), 4))
    assert begun.text.lstrip().startswith("five")
    choices = ("1]</answer>", "12]</answer>")
    (forced,) = ask(vllm, Request(user("Which passage?", "<think>The second.</think> <answer>["), 20, choices=choices))
    assert (forced.text in choices, forced.finish_reason) == (True, "stop")
    first, same, other = (ask(vllm, Request(count, 16, temperature=1.0, sample=sample))[0].text for sample in (0, 0, 1))
    assert first == same != other
    with pytest.raises(PromptTooLong):
        ask(vllm, Request(user("word " * 200_000), 4))


# ---- faults


@pytest.mark.smoke
def test_a_prompt_beyond_the_servers_context_says_what_to_do(server: Server, key: str) -> None:
    error = failing(OpenAI(NAME, base_url=server.url, server="vllm"), Request(user("word " * 2_000), 4))
    assert isinstance(error, PromptTooLong)
    assert str(CONTEXT) in str(error)
    assert "set context= to the server's limit" in str(error)


@pytest.mark.smoke
def test_an_unknown_model_is_named_with_the_list_of_models(server: Server, key: str) -> None:
    error = failing(OpenAI("no-such-adapter", base_url=server.url, server="vllm"))
    assert type(error) is BackendError
    assert "404" in str(error)
    assert "'no-such-adapter'" in str(error)
    assert f"lists its models at {server.url}/models" in str(error)


@pytest.mark.parametrize("source", ["in the environment", "as an argument", "not at all"])
def test_a_wrong_key_is_named_by_its_source(server: Server, environment: pytest.MonkeyPatch, source: str) -> None:
    if source == "in the environment":
        environment.setenv("RANKR1_API_KEY", WRONG)
    backend = OpenAI(NAME, base_url=server.url, server="vllm", api_key=WRONG if source == "as an argument" else None)
    error = failing(retried(backend, first_wait=30))  # it is not tried again
    assert type(error) is BackendError
    assert "401" in str(error)
    said = {"in the environment": "that in RANKR1_API_KEY", "as an argument": "api_key=", "not at all": "a dummy"}
    assert said[source] in str(error)
    assert WRONG not in str(error) + repr(error.__cause__) + repr(error.__context__)


def test_a_server_that_hangs_times_out_and_is_used_again(server: Server, key: str) -> None:
    backend = OpenAI(NAME, base_url=server.url, server="vllm", timeout=1.5)
    server.signal(signal.SIGSTOP)
    try:
        error = failing(backend)
    finally:
        server.signal(signal.SIGCONT)
    assert isinstance(error, BackendUnavailable)
    assert "no answer within timeout=1.5 s" in str(error)
    (completion,) = ask(OpenAI(NAME, base_url=server.url, server="vllm", timeout=60), Request(user("Hello."), 4))
    assert completion.completion_tokens == 4


def test_a_job_survives_the_death_of_its_server_and_repeats_nothing(server: Server, key: str, tmp_path: Path) -> None:
    store, out, n = tmp_path / "store.sqlite", tmp_path / "out.jsonl", 12
    command = [*COMMAND, written(tmp_path, n), "-o", out, *MODEL, "--base-url", server.url, *HOW, "--json"]
    command += ["--model", NAME, "--requests", "8", "--context", str(CONTEXT), "--store", store, "--attempts", "12"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 90
        while rows(store) < 20:
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)
        server.kill()
        time.sleep(1)
        assert job.poll() is None, job.communicate()
        finished = rows(store)
        server.start()
        said, errors = job.communicate(timeout=180)
    finally:
        job.kill()
        job.wait(10)
    assert job.returncode == 0, errors
    results = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [record["query"]["id"] for record in results] == [f"q{number}" for number in range(n)]
    assert all(len(record["passages"]) == 10 for record in results)
    assert json.loads(said)["queries"] == n
    assert 20 <= finished < rows(store)
    assert server.completed == rows(store) - finished
    before = server.completed
    again = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert server.completed == before
