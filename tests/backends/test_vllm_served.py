"""A real vLLM server with a real model, used as a library and from the command line, and each of its faults."""

from __future__ import annotations

import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Ranking, Reranker
from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.wrappers import limited, retried
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from tests.backends.chat_templates import GEMMA, QWEN3, R1
from tests.backends.small_model import ask, make_peft_adapter, once
from tests.backends.vllm_server import NAME, SMOLLM2, Server, needs_vllm, on_two_cores, serving

pytestmark = [*needs_vllm, pytest.mark.slow, pytest.mark.usefixtures("environment", "reranked_in_process")]

KEY = "sk-of-the-vllm-server-0123456789"
WRONG = "sk-another-key-that-must-not-be-seen"
CONTEXT = 1_536


THINGS = ("river", "engine", "garden", "mountain", "letter", "window", "market", "bridge", "planet", "violin")


def queries(n: int) -> list[tuple[str, list[str]]]:
    """Small queries with ten passages each."""
    return [
        (
            f"what is known of the {THINGS[number % 10]} in the year {number}?",
            [f"In {number + at % 3} the {thing} was described in chapter {at}." for at, thing in enumerate(THINGS)],
        )
        for number in range(n)
    ]


def ranked(backend: Backend, items: list[tuple[str, list[str]]]) -> list[Ranking]:
    """The queries reranked one after the other."""
    with closing(Reranker(backend, k=3, size=6, reasoning_tokens=24, force="unparsed")) as reranker:
        return [reranker.rank(query, passages) for query, passages in items]


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
    adapter = make_peft_adapter(folder / "adapter", SMOLLM2, 16)
    lora = ("--enable-lora", "--max-lora-rank", "16", "--lora-modules", f"my-adapter={adapter}")
    more = ("--max-model-len", str(CONTEXT), "--api-key", KEY, "--trust-request-chat-template")
    with serving(folder / "server.log", *more, *lora) as server:
        yield server


@pytest.fixture
def key(environment: pytest.MonkeyPatch) -> str:
    """The right key, where it is looked for."""
    environment.setenv("RANKR1_API_KEY", KEY)
    return KEY


def failing(backend: Backend, text: str = "Which?") -> BackendError:
    with pytest.raises(BackendError) as caught:
        once(backend, Request(ask(text), 4))
    return caught.value


def served(server: Server, model: str = NAME, **options: Any) -> OpenAI:
    return OpenAI(model, base_url=server.url, server="vllm", **options)


def rows(store: Path) -> int:
    """How many completions a store holds."""
    if not store.exists():
        return 0
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM completions").fetchone()[0])


# ---- the same as in process


@pytest.mark.smoke
def test_a_server_gives_the_ranking_of_the_engine_in_process(
    server: Server, key: str, reranked_in_process: list[Ranking]
) -> None:
    backend = limited(served(server, context=CONTEXT), 1)
    for here, there in zip(reranked_in_process, ranked(backend, queries(3)), strict=True):
        assert there.order == here.order
        assert [one.completion.text for one in there.trace] == [one.completion.text for one in here.trace]
        assert there.cost.prompt_tokens == here.cost.prompt_tokens
        assert there.cost.unparsed == 0


@pytest.mark.smoke
def test_an_adapter_is_a_model_of_the_server(server: Server, key: str) -> None:
    story = Request(ask("Tell a story."), 24)
    assert once(served(server, "my-adapter"), story).text != once(served(server), story).text


@pytest.mark.smoke
@pytest.mark.parametrize("template", [None, R1, QWEN3, GEMMA], ids=["chatml", "r1", "qwen3", "gemma"])
@pytest.mark.parametrize(
    "options",
    [{"reasoning_tokens": 0}, {"votes": "auto"}, {"probabilities": True}],
    ids=["no reasoning", "votes", "probabilities"],
)
def test_no_answer_is_lost_whatever_the_template_does_to_it(
    server: Server, key: str, template: str | None, options: dict[str, Any]
) -> None:
    backend = served(server, context=CONTEXT, extra_body={"chat_template": template})
    options = {"k": 1, "size": 12, "force": "unparsed", "reasoning_tokens": 8, **options}
    with closing(Reranker(backend, **options)) as reranker:
        ranking = reranker.rank("which thing?", [f"the thing of {place}" for place in range(12)])
    assert ranking.cost.unparsed == 0
    assert "votes" not in options or all(one.probabilities for one in ranking.trace)
    if options.get("probabilities"):
        assert ranking.score_meaning == "probability"
        assert all(sum(one.probabilities or ()) == pytest.approx(1, abs=1e-6) for one in ranking.trace)


@pytest.fixture
def vllm(server: Server, key: str, environment: pytest.MonkeyPatch) -> OpenAI:
    """A server that runs already, where RANKR1_VLLM is its base_url and the model's name; else the one of the tests."""
    if "RANKR1_VLLM" in os.environ:
        base_url, model = os.environ["RANKR1_VLLM"].split()
        environment.delenv("RANKR1_API_KEY")
        return OpenAI(model, base_url=base_url, server="vllm")
    return served(server)


@pytest.mark.smoke
def test_a_real_vllm_continues_is_held_to_choices_and_samples_by_seed(vllm: OpenAI) -> None:
    assert once(vllm, Request(ask("Count to nine.", "one, two, three, four,"), 4)).text.lstrip().startswith("five")
    choices = ("1]</answer>", "12]</answer>")
    forced = once(vllm, Request(ask("Which passage?", "<think>The second.</think> <answer>["), 20, choices=choices))
    assert (forced.text in choices, forced.finish_reason) == (True, "stop")
    count = [Request(ask("Count to nine."), 16, temperature=1.0, sample=sample) for sample in (0, 0, 1)]
    first, same, other = (once(vllm, request).text for request in count)
    assert first == same != other
    with pytest.raises(PromptTooLong):
        once(vllm, Request(ask("word " * 200_000), 4))


# ---- faults


@pytest.mark.smoke
def test_a_prompt_beyond_the_servers_context_and_an_unknown_model_name_the_remedy(server: Server, key: str) -> None:
    error = failing(served(server), "word " * 2_000)
    assert isinstance(error, PromptTooLong)
    assert str(CONTEXT) in str(error)
    assert "set context= to the server's limit" in str(error)
    error = failing(served(server, "no-such-adapter"))
    assert type(error) is BackendError
    assert all(
        words in str(error) for words in ("404", "'no-such-adapter'", f"lists its models at {server.url}/models")
    )


@pytest.mark.parametrize(
    ("environment_key", "argument", "named"),
    [(WRONG, None, "that in RANKR1_API_KEY"), (None, WRONG, "api_key="), (None, None, "a dummy")],
    ids=["environment", "argument", "none"],
)
def test_a_wrong_key_is_named_by_its_source(
    server: Server, environment: pytest.MonkeyPatch, environment_key: str | None, argument: str | None, named: str
) -> None:
    if environment_key:
        environment.setenv("RANKR1_API_KEY", environment_key)
    error = failing(retried(served(server, api_key=argument), first_wait=30))  # it is not tried again
    assert type(error) is BackendError
    assert all(words in str(error) for words in ("401", named))
    assert WRONG not in str(error) + repr(error.__cause__) + repr(error.__context__)


def test_a_server_that_hangs_times_out_and_is_used_again(server: Server, key: str) -> None:
    server.signal(signal.SIGSTOP)
    try:
        error = failing(served(server, timeout=1.5))
    finally:
        server.signal(signal.SIGCONT)
    assert isinstance(error, BackendUnavailable)
    assert "no answer within timeout=1.5 s" in str(error)
    assert once(served(server, timeout=60), Request(ask("Hello."), 4)).completion_tokens == 4


def test_a_job_survives_the_death_of_its_server_and_repeats_nothing(server: Server, key: str, tmp_path: Path) -> None:
    store, out, n = tmp_path / "store.sqlite", tmp_path / "out.jsonl", 12
    lines = [json.dumps({"query": query, "passages": passages}) for query, passages in queries(n)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "rankr1_rag", "rerank", tmp_path / "in.jsonl", "-o", out, "--store", store]
    command += ["--backend", "openai", "--server", "vllm", "--base-url", server.url, "--model", NAME, "--requests", "8"]
    command += ["--k", "3", "--size", "6", "--reasoning-tokens", "24", "--force", "unparsed"]
    command += ["--context", str(CONTEXT), "--attempts", "12", "--json"]
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
    assert [record["query"]["text"] for record in results] == [query for query, _ in queries(n)]
    assert all(len(record["passages"]) == 10 for record in results)
    assert json.loads(said)["queries"] == n
    assert 20 <= finished < rows(store)
    assert server.completed == rows(store) - finished
    before = server.completed
    again = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert server.completed == before
