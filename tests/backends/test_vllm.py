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
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rankr1_rag import Passage, Ranking, Reranker, demo
from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers import retried
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.prompt import FORMATS
from rankr1_rag.types import Completion, Message
from tests.backends.vllm_server import CPU, NAME, SMOLLM2, make_adapter, needs_vllm, on_two_cores

if TYPE_CHECKING:
    from rankr1_rag.backends.vllm import VLLM

pytestmark = [*needs_vllm, pytest.mark.slow, pytest.mark.usefixtures("cores")]

SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 99}
FRANCE = "What is the capital of France?"
# Unbegun, the first word is a near tie, which the rounding of the processor decides.
BEGUN = "The capital of France is the city of"
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
    rank_16 = make_adapter(folder / "of-rank-16", 16)
    made = {
        "16": rank_16,
        "64": make_adapter(folder / "of-rank-64", 64),
        "other": make_adapter(folder / "of-another-shape", 16, num_hidden_layers=2, **SMALL),
        "deeper": make_adapter(folder / "of-a-deeper-model", 16, num_hidden_layers=31),
        "empty": folder / "empty",
        "of-another-kind": shutil.copytree(rank_16, folder / "of-another-kind"),
        "damaged": shutil.copytree(rank_16, folder / "damaged"),
    }
    made["empty"].mkdir()
    (made["of-another-kind"] / "adapter_config.json").write_text('{"peft_type": "IA3"}', encoding="utf-8")
    (made["damaged"] / "adapter_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    return made


def ask(text: str, begun: str | None = None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": text}]
    return messages if begun is None else [*messages, {"role": "assistant", "content": begun}]


def complete(backend: Backend, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        return await asyncio.wait_for(asyncio.gather(*map(backend.complete, requests)), 400)

    return asyncio.run(together())


def unfinished(backend: VLLM) -> int:
    """How many requests the engine is busy with."""
    engine = backend.worker().engine
    return 0 if engine is None else int(engine.output_processor.get_num_unfinished_requests())


def engines(backend: VLLM) -> list[int]:
    """The process ids of its engine."""
    engine: Any = backend.worker().engine
    return [process.pid for process in engine.engine_core.resources.engine_manager.processes]


def descendants(pid: int) -> set[int]:
    """The processes that this one started, and those that these started."""
    import psutil

    running = set()
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended: a zombie too is none
            if "resource_tracker" not in " ".join(child.cmdline()):
                running.add(child.pid)
    return running


def gone(pids: set[int], seconds: float = 10.0) -> bool:
    """Whether these processes have ended, within this time."""
    import psutil

    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=seconds)
    return not alive


def python(code: str, folder: Path, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run code as a script of its own."""
    script = folder / "script.py"
    begin = """
        import asyncio, contextlib, os, sys, threading, time
        from rankr1_rag.backends import Request
        from rankr1_rag.backends.vllm import VLLM
        def ask(text, n): return Request([{"role": "user", "content": text}], n)
        def make(): return VLLM(sys.argv[1], context=1024, engine={"enforce_eager": True, "block_size": 32})
        FRANCE = "What is the capital of France?"
        LONG = "Tell a very long story about a river."
    """
    script.write_text(textwrap.dedent(begin) + textwrap.dedent(code), encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script), str(SMOLLM2)],
        capture_output=True,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        env={**CPU, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )


# ---- before the engine is started


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "kind", "problem"),
    [
        ({"model": "/no/such/folder"}, FileNotFoundError, r"no model folder at '/no/such/folder'.*config\.json"),
        ({"adapter": "/no/such/adapter"}, FileNotFoundError, r"adapter_config\.json"),
        ({"adapter": "empty"}, BackendError, r"holds no adapter_config\.json: an adapter is"),
        (
            {"model": "16"},
            BackendError,
            r"of-rank-16 holds no config\.json: it is an adapter; give its base",
        ),
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


def test_it_knows_its_model_before_it_is_started() -> None:
    made = make()
    assert (made.model, made.context, made._worker) == (NAME, 2_048, None)


# ---- completions


@pytest.mark.smoke
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
def test_what_was_read_before_is_read_from_the_cache(backend: VLLM) -> None:
    request = Request(ask(f"again {LONG}"), 1)
    (first,), (again,) = complete(backend, request), complete(backend, request)
    assert first.cached_tokens < first.prompt_tokens // 2 < again.cached_tokens < again.prompt_tokens
    assert first.text == again.text


def test_prompts_that_come_together_share_what_they_have_in_common(backend: VLLM) -> None:
    completions = complete(backend, *[Request(ask(f"together {LONG}"), 1)] * 6)
    shared = sum(completion.cached_tokens > completion.prompt_tokens // 2 for completion in completions)
    assert shared >= 5


def test_a_cache_that_was_reset_remembers_nothing(backend: VLLM) -> None:
    request = Request(ask(f"reset {LONG}"), 1)
    complete(backend, request)
    asyncio.run(backend.reset_prefix_cache())
    (afresh,) = complete(backend, request)
    assert afresh.cached_tokens == 0


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
        assert all(story.cancelled() for story in stories)
        await asyncio.sleep(0.3)
        assert unfinished(backend) <= 1
        completion = await going
        assert unfinished(backend) == 0
        return completion

    complete(backend, Request(ask(FRANCE), 1))
    assert asyncio.run(asyncio.wait_for(main(), 60)).completion_tokens == 40


def test_one_engine_serves_several_loops_and_threads(backend: VLLM) -> None:
    async def threads() -> list[list[Completion]]:
        request = Request(ask(FRANCE, BEGUN), 20)
        return await asyncio.gather(*(asyncio.to_thread(complete, backend, request, request) for _ in range(3)))

    before = descendants(os.getpid())
    assert all("Paris" in completion.text for pair in asyncio.run(threads()) for completion in pair)
    assert all("Paris" in completion.text for pair in asyncio.run(threads()) for completion in pair)
    assert descendants(os.getpid()) == before


def test_identity_is_the_content_and_the_settings_and_no_path(backend: VLLM) -> None:
    assert str(SMOLLM2) not in backend.identity
    assert make(name="another name").identity == backend.identity
    assert make(context=1_000).identity == backend.identity
    assert make(dtype="float32").identity != backend.identity
    assert make(sampling={"repetition_penalty": 1.1}).identity != backend.identity


# ---- rankings


def test_not_one_of_many_comparisons_is_unparsed(backend: VLLM) -> None:
    corpus = demo.passages()
    chunks = [(one.query, corpus[at : at + 10]) for one in demo.questions() for at in range(0, 60, 10)]
    reranker = Reranker(
        backend, k=1, size=3, reasoning_tokens=16, passage_tokens=12, query_tokens=12, force="unparsed", in_flight=64
    )
    rankings = [ranking for _, ranking in reranker.rank_many(chunks)]
    comparisons = [one for ranking in rankings if isinstance(ranking, Ranking) for one in ranking.trace]
    assert len(comparisons) >= 300
    assert [comparison for comparison in comparisons if not comparison.parsed] == []
    assert max(comparison.reasoning_tokens for comparison in comparisons) <= 16 + 16
    assert all(comparison.answer[0] in comparison.set for comparison in comparisons)


def exact(messages: list[Message], choices: tuple[str, ...]) -> dict[str, float]:
    """The probability of each choice as the model itself has it, by transformers: token by token, renormalised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    model = AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.bfloat16).eval()
    pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    prompt = tokenizer.apply_chat_template(messages, continue_final_message=True, tokenize=True, return_dict=False)

    def walk(begun: str, tokens: list[int]) -> dict[str, float]:
        left = [choice for choice in choices if choice.startswith(begun)]
        if len(left) == 1:
            return {left[0]: 1.0}
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens])).logits[0, -1].float()
        allowed = [
            token
            for token, piece in enumerate(pieces)
            if piece and any(choice.startswith(begun + piece) for choice in left)
        ]
        shares = torch.softmax(logits[allowed], 0).tolist()
        found = dict.fromkeys(left, 0.0)
        for token, share in zip(allowed, shares, strict=True):
            for choice, inner in walk(begun + pieces[token], [*tokens, token]).items():
                found[choice] += share * inner
        return found

    return walk("", [])


def test_the_probabilities_are_the_models_own(backend: VLLM) -> None:
    query = demo.questions()[1].query.text
    lines = [Passage(passage.id, " ".join(passage.text.split()[:12])) for passage in demo.passages()[:20]]
    reranker = Reranker(backend, k=1, size=20, reasoning_tokens=0, probabilities=True, force="truncated")
    (comparison,) = reranker.rank(query, lines).trace
    assert comparison.probabilities is not None
    shown = [lines[position] for position in comparison.set]
    rank_r1 = FORMATS["rank-r1-v0.1"]
    forced = rank_r1.force(rank_r1.render(query, shown), "", 20, can_continue=True)
    wanted = exact(forced.messages, forced.choices)
    assert sum(wanted.values()) == pytest.approx(1, abs=1e-4)
    assert len({round(probability, 2) for probability in wanted.values()}) > 2
    pairs = zip(forced.choices, comparison.probabilities, strict=True)
    assert sum(abs(wanted[choice] - found) for choice, found in pairs) / 2 < 0.1  # total variation; bfloat16


# ---- ends, expected and not; last, as they take the engine away


@pytest.mark.smoke
def test_an_engine_that_is_killed_loses_nothing(backend: VLLM) -> None:
    async def main() -> list[Completion]:
        patient = retried(backend, first_wait=0.05)
        jobs = [
            asyncio.create_task(patient.complete(Request(ask(f"{place}. Tell a story."), 60))) for place in range(24)
        ]
        while unfinished(backend) < 20:
            await asyncio.sleep(0.05)
        (pid,) = engines(backend)
        os.kill(pid, signal.SIGKILL)
        completions = await asyncio.wait_for(asyncio.gather(*jobs), 400)
        assert engines(backend) != [pid]
        return completions

    complete(backend, Request(ask(FRANCE), 1))
    completions = asyncio.run(main())
    assert [completion.completion_tokens > 10 for completion in completions] == [True] * 24


def test_an_engine_that_is_killed_is_told_to_who_does_not_ask_again(backend: VLLM) -> None:
    async def main() -> None:
        story = asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 1_500)))
        while not unfinished(backend):
            await asyncio.sleep(0.05)
        (pid,) = engines(backend)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(BackendUnavailable, match=f"the vLLM engine of {NAME} died.*ask again"):
            await asyncio.wait_for(story, 30)

    complete(backend, Request(ask(FRANCE), 1))
    asyncio.run(main())


@pytest.mark.smoke
def test_an_adapter_of_rank_64_changes_what_is_said_and_closing_leaves_no_process(
    backend: VLLM, adapters: dict[str, Path]
) -> None:
    plain = complete(backend, Request(ask("Tell a story."), 24))[0].text
    asyncio.run(backend.close())
    with pytest.raises(BackendError, match="closed"):
        complete(backend, Request(ask(FRANCE), 1))
    before = descendants(os.getpid())
    adapted = make(adapter=adapters["64"])
    smaller = make(adapter=adapters["16"])
    assert len({adapted.identity, smaller.identity, backend.identity}) == 3

    async def main() -> str:
        text = (await adapted.complete(Request(ask("Tell a story."), 24))).text
        stories = [asyncio.create_task(adapted.complete(Request(ask("Tell a long story."), 1_500))) for _ in range(4)]
        while unfinished(adapted) < 4:
            await asyncio.sleep(0.05)
        running = descendants(os.getpid()) - before
        assert running
        await asyncio.gather(adapted.close(), adapted.close())
        for ended in await asyncio.wait_for(asyncio.gather(*stories, return_exceptions=True), 10):
            assert isinstance(ended, BackendError)
            assert "closed" in str(ended)
        assert gone(running)
        await adapted.close()
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


def test_a_script_without_a_guard_is_told_at_once(tmp_path: Path) -> None:
    done = python("make()", tmp_path)
    assert done.returncode == 1
    assert 'call that under `if __name__ == "__main__":`' in done.stderr
    assert "script.py" in done.stderr


def test_a_script_may_fork_and_leave_without_closing(tmp_path: Path) -> None:
    done = python(
        """
        def processes():
            import psutil
            return sorted(child.pid for child in psutil.Process().children(recursive=True))

        def tell(backend):
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run(backend.complete(ask(LONG, 500)))

        def main():
            backend = make()
            print(asyncio.run(backend.complete(ask(FRANCE, 20))).text, flush=True)
            print("started", *processes(), flush=True)
            pid = os.fork()
            if pid == 0:
                print("child", backend.model, flush=True)
                sys.exit(0)
            print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            print(asyncio.run(backend.complete(ask(FRANCE, 20))).text, flush=True)
            print("still", *processes(), flush=True)
            threading.Thread(target=tell, args=(backend,), daemon=True).start()
            time.sleep(0.5)
            print("left", flush=True)

        if __name__ == "__main__":
            main()
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in said if line != said[0]] == ["started", "child", "ended", "still", "left"], done.stdout
    assert said[0] == said[4] != []
    assert said[3] == ["ended", "0"]
    assert said[1][1:] == said[5][1:] != []  # the child took no process of its parent's away
    assert gone({int(pid) for pid in said[1][1:]})
    assert "Traceback" not in done.stderr, done.stderr


def test_a_script_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    done = python(
        """
        def main():
            import psutil
            backend = make()
            asyncio.run(backend.complete(ask(FRANCE, 2)))
            print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
            threading.Thread(target=lambda: asyncio.run(backend.complete(ask(LONG, 900))), daemon=True).start()
            time.sleep(1)
            os.kill(os.getpid(), 9)

        if __name__ == "__main__":
            main()
        """,
        tmp_path,
    )
    assert done.returncode == -9
    pids = {int(pid) for pid in done.stdout.split()}
    assert len(pids) >= 2
    assert gone(pids)


@pytest.mark.smoke
def test_ctrl_c_stops_a_job_with_one_line_and_keeps_what_is_done(tmp_path: Path) -> None:
    passages = [f"passage {number}" for number in range(20)]
    lines = [json.dumps({"query": f"which {number}?", "passages": passages}) for number in range(200)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "rankr1_rag", "rerank", "in.jsonl", "--out", "out.jsonl", "--backend", "vllm"]
    command += ["--model", str(SMOLLM2), "--option", f"name={NAME}", "--option", 'engine={"enforce_eager": true}']
    command += ["--context", "2048", "--in-flight", "4"]
    environment = {**CPU, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (tmp_path / "err").open("wb") as err:
        job = subprocess.Popen(command, cwd=tmp_path, stderr=err, env=environment, start_new_session=True)
    try:
        partial, end = tmp_path / "out.jsonl.partial", time.monotonic() + 120
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
