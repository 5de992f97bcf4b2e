"""The in-process vLLM backend on a real engine with a real model: no part of it is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rankr1_rag import Passage, Ranking, Reranker, demo
from rankr1_rag.backends import Request
from rankr1_rag.backends.wrappers import retried
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.types import Completion
from tests.backends.small_model import ask, complete, make_peft_adapter, python
from tests.backends.vllm_server import CPU, NAME, SMOLLM2, needs_vllm, on_two_cores

if TYPE_CHECKING:
    from rankr1_rag.backends.vllm import VLLM

psutil: Any = pytest.importorskip("psutil")
pytestmark = [*needs_vllm, pytest.mark.slow, pytest.mark.usefixtures("cores")]

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 99}
FRANCE = "What is the capital of France?"
TWO_DIGITS = tuple(f"{label}]</answer>" for label in range(10, 30))
LONG = "Tell a very long story. " + "Once upon a time there was a river. " * 30


@pytest.fixture(scope="module")
def cores() -> Iterator[None]:
    with on_two_cores():
        yield
    gc.collect()  # vLLM leaves unclosed contexts behind: here, where the warning is expected


def make(model: str | Path = SMOLLM2, **arguments: Any) -> VLLM:
    """A backend, not started yet."""
    from rankr1_rag.backends.vllm import VLLM

    own = {"enforce_eager": True, "block_size": 32, **arguments.pop("engine", {})}
    return VLLM(model, **{"context": 2_048, "name": NAME, **arguments, "engine": own})


@pytest.fixture(scope="module")
def backend(cores: None) -> Iterator[VLLM]:
    """The engine that most tests share."""
    backend = make()
    yield backend
    asyncio.run(backend.close())


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """LoRA adapters: of rank 16 and 64, for models of other shapes, and damaged ones."""
    folder = tmp_path_factory.mktemp("adapters")
    rank_16 = make_peft_adapter(folder / "of-rank-16", SMOLLM2, 16)
    made = {
        "16": rank_16,
        "64": make_peft_adapter(folder / "of-rank-64", SMOLLM2, 64),
        "other": make_peft_adapter(folder / "of-another-shape", SMOLLM2, 16, num_hidden_layers=2, **SMALL),
        "deeper": make_peft_adapter(folder / "of-a-deeper-model", SMOLLM2, 16, num_hidden_layers=31),
        "of-another-kind": shutil.copytree(rank_16, folder / "of-another-kind"),
        "damaged": shutil.copytree(rank_16, folder / "damaged"),
    }
    (made["of-another-kind"] / "adapter_config.json").write_text('{"peft_type": "IA3"}', encoding="utf-8")
    (made["damaged"] / "adapter_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    return made


def unfinished(backend: VLLM) -> int:
    """How many requests the engine is busy with."""
    engine = backend.worker().engine
    return 0 if engine is None else int(engine.output_processor.get_num_unfinished_requests())


def engine_process(backend: VLLM) -> int:
    engine: Any = backend.worker().engine
    (process,) = engine.engine_core.resources.engine_manager.processes
    return int(process.pid)


def descendants() -> set[int]:
    """The processes that this one started, and those that these started."""
    running = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended: a zombie too is none
            if "resource_tracker" not in " ".join(child.cmdline()):
                running.add(child.pid)
    return running


def gone(pids: set[int]) -> bool:
    """Whether these processes have ended, within 10 seconds."""
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    return not alive


SCRIPT = """
import asyncio, contextlib, os, psutil, sys, threading, time
from rankr1_rag.backends import Request
from rankr1_rag.backends.vllm import VLLM

def complete(backend, text, n):
    with contextlib.suppress(asyncio.CancelledError):
        return asyncio.run(backend.complete(Request([{"role": "user", "content": text}], n))).text

def report(name):
    print(name, *sorted(child.pid for child in psutil.Process().children(recursive=True)), flush=True)

def main(end):
    backend = VLLM(sys.argv[1], context=1024, engine={"enforce_eager": True, "block_size": 32})
    first = complete(backend, "What is the capital of France?", 20)
    report("started")
    pid = os.fork()
    if pid == 0:
        sys.exit(0 if backend.model else 1)
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    print("same", complete(backend, "What is the capital of France?", 20) == first)
    report("still")
    threading.Thread(target=complete, args=(backend, "Tell a very long story.", 900), daemon=True).start()
    time.sleep(1)
    if end == "kill":
        os.kill(os.getpid(), 9)
"""
GUARDED = 'if __name__ == "__main__":\n    main(sys.argv[2])\n'


# ---- before the engine is started


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        ({"model": "/no/such/folder"}, FileNotFoundError, r"no model folder at '/no/such/folder'.*config\.json"),
        ({"adapter": "of-another-kind"}, BackendError, "of the kind 'IA3': only LORA"),
        ({"adapter": "16", "engine": {"max_lora_rank": 8}}, BackendError, r"of-rank-16 has rank 16.*max_lora_rank=8"),
        ({"adapter": "other"}, BackendError, f"of-another-shape does not fit .*{SMOLLM2.name}.* width 64, not 576"),
        ({"adapter": "deeper"}, BackendError, r"of-a-deeper-model does not fit .* layers, not 30"),
        ({"adapter": "damaged"}, BackendError, r"adapter_model\.safetensors is no safetensors file"),
        ({"dtype": "float17"}, (ValueError, BackendError), "float17"),
        ({"context": 999_999}, BackendError, "999999"),
        ({"engine": {"no_such_argument": 1}}, ValueError, r"vLLM knows no such argument.*no_such_argument"),
        ({"engine": {"trust_remote_code": True}}, ValueError, "trust_remote_code"),
        ({"engine": {"revision": "x"}}, ValueError, "revision cannot be set here"),
        ({"sampling": {"topp": 1}}, ValueError, r"sampling: vLLM takes no such parameters: .*topp"),
        ({"sampling": "x"}, ValueError, "sampling='x': a mapping of arguments is needed"),
    ],
    ids=lambda value: "" if isinstance(value, tuple | type) else str(value)[:40],
)
def test_wrong_arguments_are_refused_at_once(
    adapters: dict[str, Path], arguments: dict[str, Any], kind: type[Exception], problem: str
) -> None:
    named = {name: adapters.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
    with pytest.raises(kind, match=problem):
        make(named.pop("model", SMOLLM2), **named)


# ---- completions


@pytest.mark.smoke
def test_its_special_tokens_are_those_of_the_tokenizer(backend: VLLM) -> None:
    assert {"<|im_start|>", "<|im_end|>"} <= backend.special_tokens


def test_the_alternatives_are_those_that_the_choices_leave_and_sum_to_one(backend: VLLM) -> None:
    (completion,) = complete(backend, Request(ask("Choose.", "["), 16, choices=TWO_DIGITS, logprobs=20))
    assert completion.logprobs
    begun = ""
    for token in completion.logprobs:
        assert sum(math.exp(logprob) for _, logprob in token.top) == pytest.approx(1, abs=0.01)
        if begun != completion.text:  # else the turn ends
            said = {begun + text for text, _ in token.top}
            assert [text for text in said if not any(choice.startswith(text) for choice in TWO_DIGITS)] == []
            begun += token.token
    assert begun == completion.text


@pytest.mark.smoke
def test_what_was_read_before_is_read_from_the_cache_until_it_is_reset(backend: VLLM) -> None:
    def cached(*requests: Request) -> list[bool]:
        return [one.cached_tokens > one.prompt_tokens // 2 for one in complete(backend, *requests)]

    request = Request(ask(f"again {LONG}"), 1)
    assert (cached(request), cached(request)) == ([False], [True])
    started = descendants()
    together = [Request(ask(f"together {LONG}"), 1)] * 6
    assert sum(cached(*together)) >= 5
    asyncio.run(backend.reset_prefix_cache())
    assert cached(request) == [False]
    assert descendants() == started  # one engine serves every loop


@pytest.mark.smoke
def test_a_cancelled_request_is_aborted_and_the_others_go_on(backend: VLLM) -> None:
    async def main() -> Completion:
        going = asyncio.create_task(backend.complete(Request(ask("Tell a story."), 40)))
        stories = [asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 1_500))) for _ in range(9)]
        while unfinished(backend) < 10:
            await asyncio.sleep(0.05)
        for story in stories:
            story.cancel()
        await asyncio.gather(*stories, return_exceptions=True)
        await asyncio.sleep(0.3)
        assert unfinished(backend) <= 1
        return await going

    complete(backend, Request(ask(FRANCE), 1))
    assert asyncio.run(asyncio.wait_for(main(), 60)).completion_tokens == 40
    assert unfinished(backend) == 0


def test_identity_is_the_content_and_the_settings_and_no_path(backend: VLLM) -> None:
    assert (backend.model, backend.context) == (NAME, 2_048)
    assert make(name="another name").identity == backend.identity
    assert make(context=1_000).identity == backend.identity
    assert make(dtype="float32").identity != backend.identity
    assert make(sampling={"repetition_penalty": 1.1}).identity != backend.identity


# ---- rankings


def test_not_one_of_many_comparisons_is_unparsed(backend: VLLM) -> None:
    corpus = demo.passages()
    chunks = [(one.query, corpus[at : at + 10]) for one in demo.questions()[:15] for at in range(0, 60, 20)]
    reranker = Reranker(
        backend, k=1, size=3, reasoning_tokens=16, passage_tokens=12, query_tokens=12, force="unparsed", in_flight=64
    )
    rankings = [ranking for _, ranking in reranker.rank_many(chunks)]
    comparisons = [one for ranking in rankings if isinstance(ranking, Ranking) for one in ranking.trace]
    assert len(comparisons) >= 150
    assert all(one.parsed and one.answer[0] in one.set and one.reasoning_tokens <= 16 + 16 for one in comparisons)


def test_the_probabilities_are_those_of_transformers(backend: VLLM) -> None:
    from rankr1_rag.backends.transformers import Transformers

    query = demo.questions()[1].query.text
    lines = [Passage(passage.id, " ".join(passage.text.split()[:12])) for passage in demo.passages()[:20]]
    exact = Transformers(SMOLLM2, dtype="bfloat16", device="cpu")
    found = []
    for model in (backend, exact):
        reranker = Reranker(model, k=1, size=20, reasoning_tokens=0, probabilities=True, force="truncated")
        (comparison,) = reranker.rank(query, lines).trace
        assert sum(comparison.probabilities or ()) == pytest.approx(1, abs=1e-6)
        found.append(comparison.probabilities or ())
    assert len({round(probability, 2) for probability in found[1]}) > 2
    assert sum(abs(one - other) for one, other in zip(*found, strict=True)) / 2 < 0.1  # total variation; bfloat16


# ---- ends, expected and not; last, as they take the engine away


@pytest.mark.smoke
def test_an_engine_that_is_killed_loses_nothing_and_is_an_error_to_who_does_not_ask_again(backend: VLLM) -> None:
    async def main() -> list[Completion]:
        patient = retried(backend, first_wait=0.05)
        stories = [Request(ask(f"{place}. Tell a story."), 60) for place in range(24)]
        jobs = [asyncio.create_task(patient.complete(story)) for story in stories]
        only_once = asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 1_500)))
        while unfinished(backend) < 21:
            await asyncio.sleep(0.05)
        pid = engine_process(backend)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(BackendUnavailable, match=f"the vLLM engine of {NAME} died.*ask again"):
            await asyncio.wait_for(only_once, 30)
        completions = await asyncio.wait_for(asyncio.gather(*jobs), 400)
        assert engine_process(backend) != pid
        return completions

    complete(backend, Request(ask(FRANCE), 1))
    assert [completion.completion_tokens > 10 for completion in asyncio.run(main())] == [True] * 24


@pytest.mark.smoke
def test_an_adapter_of_rank_64_changes_what_is_said_and_closing_leaves_no_process(
    backend: VLLM, adapters: dict[str, Path]
) -> None:
    plain = complete(backend, Request(ask("Tell a story."), 24), close=True)[0].text
    with pytest.raises(BackendError, match="closed"):
        complete(backend, Request(ask(FRANCE), 1))
    before = descendants()
    adapted = make(adapter=adapters["64"])
    smaller = make(adapter=adapters["16"])
    assert len({adapted.identity, smaller.identity, backend.identity}) == 3

    async def main() -> str:
        text = (await adapted.complete(Request(ask("Tell a story."), 24))).text
        stories = [asyncio.create_task(adapted.complete(Request(ask("Tell a long story."), 1_500))) for _ in range(4)]
        while unfinished(adapted) < 4:
            await asyncio.sleep(0.05)
        running = descendants() - before
        assert running
        await asyncio.gather(adapted.close(), adapted.close())
        for story in stories:
            with pytest.raises(BackendError, match="closed"):
                await asyncio.wait_for(story, 10)
        assert gone(running)
        return text

    assert asyncio.run(asyncio.wait_for(main(), 400)) != plain


def test_the_example_runs() -> None:
    example = Path(__file__).parents[2] / "examples" / "vllm_in_process.py"
    command = [sys.executable, str(example), str(SMOLLM2)]
    environment = {**CPU, **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    *rankings, cost = done.stdout.splitlines()
    assert len(rankings) == 3
    assert "unparsed=0" in cost


def test_a_script_without_a_guard_is_refused_at_once(tmp_path: Path) -> None:
    done = python(tmp_path / "script.py", f"{SCRIPT}\nmain('leave')\n", str(SMOLLM2), **CPU)
    assert done.returncode == 1
    assert 'call that under `if __name__ == "__main__":`' in done.stderr
    assert "script.py" in done.stderr


@pytest.mark.parametrize(("end", "code"), [("leave", 0), ("kill", -9)])
def test_a_script_may_fork_and_however_it_ends_it_leaves_no_process_behind(tmp_path: Path, end: str, code: int) -> None:
    done = python(tmp_path / "script.py", f"{SCRIPT}\n{GUARDED}", str(SMOLLM2), end, **CPU)
    assert done.returncode == code, done.stderr
    said = {name: values for name, *values in map(str.split, done.stdout.splitlines())}
    assert (said["child"], said["same"]) == (["0"], ["True"]), done.stdout
    assert said["started"] == said["still"]  # the child took no process of its parent's away
    assert len(said["started"]) >= 2
    assert gone({int(pid) for pid in said["started"]})
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.smoke
def test_ctrl_c_stops_a_job_with_one_line_and_keeps_what_is_done(tmp_path: Path) -> None:
    passages = [f"passage {number}" for number in range(20)]
    lines = [json.dumps({"query": f"which {number}?", "passages": passages}) for number in range(200)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "rankr1_rag", "rerank", "in.jsonl", "--out", "out.jsonl", "--backend", "vllm"]
    command += ["--model", str(SMOLLM2), "--option", f"name={NAME}", "--option", 'engine={"enforce_eager": true}']
    command += ["--context", "2048", "--in-flight", "4", "--reasoning-tokens", "16"]
    environment = {**CPU, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (tmp_path / "err").open("wb") as err:
        job = subprocess.Popen(command, cwd=tmp_path, stderr=err, env=environment, start_new_session=True)
    try:
        partial, end = tmp_path / "out.jsonl.partial", time.monotonic() + 300
        while not partial.exists() or len(partial.read_text(encoding="utf-8").splitlines()) < 3:
            assert job.poll() is None, (tmp_path / "err").read_text(errors="replace")
            assert time.monotonic() < end
            time.sleep(0.2)
        os.killpg(job.pid, signal.SIGINT)  # as a terminal does: vLLM's processes are in the group too
        assert job.wait(60) == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    said = (tmp_path / "err").read_text(errors="replace")
    assert "Traceback" not in said
    assert "done and kept, the same command resumes" in said
