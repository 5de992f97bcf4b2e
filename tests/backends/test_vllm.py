"""The in-process vLLM backend on a real engine with a real model: no part of it is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from struct import pack, unpack
from typing import TYPE_CHECKING, Any

import pytest

from rankr1_rag import Passage, Ranking, Reranker
from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers import retried
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
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
    """LoRA adapters: of rank 16 and 64, and one for a model of another shape."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "16": make_adapter(folder / "of-rank-16", 16),
        "64": make_adapter(folder / "of-rank-64", 64),
        "other": make_adapter(folder / "of-another-shape", 16, num_hidden_layers=2, **SMALL),
        "deeper": make_adapter(folder / "of-a-deeper-model", 16, num_hidden_layers=31),
    }


def ask(text: str, begun: str | None = None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": text}]
    return messages if begun is None else [*messages, {"role": "assistant", "content": begun}]


def complete(backend: Backend, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        return await asyncio.wait_for(asyncio.gather(*map(backend.complete, requests)), 180)

    return asyncio.run(together())


def unfinished(backend: VLLM) -> int:
    """How many requests the engine is busy with."""
    assert backend._start is not None
    return int(backend._start.result().output_processor.get_num_unfinished_requests())


def engines(backend: VLLM) -> list[int]:
    """The process ids of its engine."""
    assert backend._start is not None
    return [process.pid for process in backend._start.result().engine_core.resources.engine_manager.processes]


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
    """Whether these processes have ended, within so many seconds."""
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


# ---- told when it is made


@pytest.mark.smoke
def test_a_path_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(FileNotFoundError, match=r"no model folder at '/no/such/folder'.*config\.json"):
        make("/no/such/folder")


def test_an_adapter_path_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        make(adapter="/no/such/adapter")


def test_a_folder_that_is_no_adapter_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"holds no adapter_config\.json: an adapter is"):
        make(adapter=tmp_path)


def test_an_adapter_given_as_the_model_is_told_at_once(adapters: dict[str, Path]) -> None:
    with pytest.raises(
        BackendError, match=r"of-rank-16 holds no config\.json: it is an adapter; give its base as the model"
    ):
        make(adapters["16"])


def test_an_adapter_of_another_kind_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}', encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(BackendError, match="of the kind 'IA3': only LORA"):
        make(adapter=tmp_path)


def test_an_unknown_dtype_is_told_at_once() -> None:
    with pytest.raises((ValueError, BackendError), match="float17"):
        make(dtype="float17")


def test_an_unknown_argument_of_the_engine_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"vLLM knows no such argument.*no_such_argument"):
        make(engine={"no_such_argument": 1})


def test_what_is_no_sampling_parameter_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"sampling: vLLM takes no such parameters: .*topp"):
        make(sampling={"topp": 1})


def test_arguments_that_are_no_mapping_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="sampling='x': a mapping of arguments is needed"):
        make(sampling="x")


def test_a_context_longer_than_the_models_is_told_at_once() -> None:
    with pytest.raises(BackendError, match="999999"):
        make(context=999_999)


def test_code_that_comes_with_a_model_is_not_run() -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        make(engine={"trust_remote_code": True})


def test_an_adapter_of_a_rank_above_the_one_asked_for_is_told_at_once(adapters: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match=r"of-rank-16 has rank 16.*max_lora_rank=8"):
        make(adapter=adapters["16"], engine={"max_lora_rank": 8})


@pytest.mark.smoke
def test_an_adapter_for_another_model_is_told_at_once_and_both_are_named(adapters: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match=f"of-another-shape does not fit .*{SMOLLM2.name}.* width 64, not 576"):
        make(adapter=adapters["other"])


def test_an_adapter_for_a_deeper_model_is_told_at_once(adapters: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match=r"of-a-deeper-model does not fit .* layers, not 30"):
        make(adapter=adapters["deeper"])


def test_a_damaged_adapter_is_told_at_once(adapters: dict[str, Path], tmp_path: Path) -> None:
    damaged = shutil.copytree(adapters["16"], tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(BackendError, match=r"adapter_model\.safetensors is no safetensors file"):
        make(adapter=damaged)


# ---- completions


def test_it_is_a_backend_that_knows_its_model_before_it_is_started() -> None:
    made = make()
    assert isinstance(made, Backend)
    assert (made.model, made.context, made.can_continue) == (NAME, 2_048, True)
    assert made._start is None


@pytest.mark.smoke
def test_it_completes_and_counts_what_it_read_and_wrote(backend: VLLM) -> None:
    (completion,) = complete(backend, Request(ask(FRANCE, BEGUN), 20))
    assert "Paris" in completion.text
    assert completion.finish_reason == "stop"
    assert completion.logprobs is None
    words = backend.count(f"{FRANCE} {BEGUN}")
    assert words < completion.prompt_tokens < words + 40
    assert completion.completion_tokens == backend.count(completion.text) + 1  # and the token that ends the turn


@pytest.mark.smoke
def test_it_continues_an_assistant_message(backend: VLLM) -> None:
    begun, afresh = complete(backend, Request(ask(FRANCE, BEGUN), 8), Request(ask(FRANCE), 8))
    assert begun.text.startswith(" Paris")
    assert begun.prompt_tokens == afresh.prompt_tokens + backend.count(BEGUN)


def test_a_completion_that_is_cut_off_says_so(backend: VLLM) -> None:
    (completion,) = complete(backend, Request(ask("Tell a long story."), 7))
    assert (completion.completion_tokens, completion.finish_reason) == (7, "length")


def test_text_ends_before_the_first_stop_string(backend: VLLM) -> None:
    (stopped,) = complete(backend, Request(ask(FRANCE, BEGUN), 20, stop=("never said", "aris")))
    assert stopped.text == " P"
    assert stopped.finish_reason == "stop"


@pytest.mark.smoke
def test_the_completion_is_exactly_one_of_the_choices(backend: VLLM) -> None:
    requests = [
        Request(ask("Choose."), 1, temperature=1.0, choices=TWO_DIGITS, seed=seed, sample=sample)
        for seed in range(5)
        for sample in range(8)
    ]
    completions = complete(backend, *requests)
    assert {completion.text for completion in completions} <= set(TWO_DIGITS)
    assert len({completion.text for completion in completions}) > 3


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
def test_samples_differ_by_seed_and_sample_and_can_be_had_again(backend: VLLM) -> None:
    def texts() -> list[str]:
        pairs = ((0, 0), (0, 1), (1, 0))
        requests = [Request(ask("Tell a story."), 24, temperature=0.9, seed=a, sample=b) for a, b in pairs]
        return [complete(backend, request)[0].text for request in requests]

    first = texts()
    assert first == texts()
    assert len(set(first)) == 3


@pytest.mark.smoke
def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers(backend: VLLM) -> None:
    with pytest.raises(PromptTooLong, match=r"\d+ tokens and 1500 .* context of 2048"):
        complete(backend, Request(ask("word " * 800), 1_500))
    with pytest.raises(PromptTooLong):
        complete(backend, Request(ask("word " * 20_000), 1))


@pytest.mark.parametrize("text", ["nul \0 nul", "👩‍👩‍👧 é ﷽", "", "\x1b[31m", "{{ 7 * 7 }} {% for", "a\ud800b"])
def test_no_text_brings_it_down(backend: VLLM, text: str) -> None:
    (completion,) = complete(backend, Request(ask(text, text), 4))
    assert completion.completion_tokens >= 1
    assert backend.count(text) >= 0


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


@pytest.mark.smoke
def test_pickled_it_is_its_configuration(backend: VLLM) -> None:
    again = pickle.loads(pickle.dumps(backend))
    assert (again.model, again.context, again.identity) == (NAME, 2_048, backend.identity)
    assert again._start is None


def test_identity_is_the_content_and_the_settings_and_no_path(backend: VLLM) -> None:
    assert str(SMOLLM2) not in backend.identity
    assert make(name="another name").identity == backend.identity
    assert make(context=1_000).identity == backend.identity
    assert make(dtype="float32").identity != backend.identity
    assert make(sampling={"repetition_penalty": 1.1}).identity != backend.identity


# ---- rankings


@pytest.fixture(scope="module")
def trec(pytestconfig: pytest.Config) -> list[tuple[str, list[Passage]]]:
    """The queries of TREC DL 2019 with their 100 first-stage candidates."""
    data = Path(os.environ.get("RANKR1_SHARED_DATA", pytestconfig.rootpath.parent / "shared" / "data"))
    folder = data / "trec-dl-2019"
    if not folder.is_dir():
        pytest.skip(f"no TREC data at {folder}: set RANKR1_SHARED_DATA")
    with gzip.open(folder / "passages.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = {record["docid"]: record["text"] for record in map(json.loads, lines)}
    queries = dict(
        line.split("\t") for line in (folder / "queries.tsv").read_text(encoding="utf-8").splitlines() if line
    )
    run: dict[str, list[Passage]] = {}
    for line in (folder / "run.bm25.top100.trec").read_text(encoding="utf-8").splitlines():
        query, _, passage, *_ = line.split()
        if passage in texts:
            run.setdefault(query, []).append(Passage(passage, texts[passage]))
    return [(queries[query], passages) for query, passages in run.items()]


def test_not_one_of_a_thousand_comparisons_is_unparsed(backend: VLLM, trec: list[tuple[str, list[Passage]]]) -> None:
    cheap = {"size": 3, "reasoning_tokens": 16, "passage_tokens": 12, "query_tokens": 12}
    reranker = Reranker(backend, k=1, force="unparsed", in_flight=128, **cheap)  # type: ignore[arg-type]
    chunks = [(query, passages[start : start + 10]) for query, passages in trec for start in range(0, 90, 10)]
    comparisons = []
    for _, ranking in reranker.rank_many(item for item in chunks if len(item[1]) > 1):
        assert isinstance(ranking, Ranking)
        comparisons += ranking.trace
        if len(comparisons) >= 1_000:
            break
    assert len(comparisons) >= 1_000
    assert [comparison for comparison in comparisons if not comparison.parsed] == []
    assert max(comparison.reasoning_tokens for comparison in comparisons) <= 16 + 16
    assert all(comparison.answer[0] in comparison.set for comparison in comparisons)


def float32(score: float) -> float:
    value: float = unpack("f", pack("f", score))[0]
    return value


def test_labels_have_probabilities_and_rankings_scores_of_them(
    backend: VLLM, trec: list[tuple[str, list[Passage]]]
) -> None:
    query, passages = trec[0]
    reranker = Reranker(
        backend, k=3, size=6, reasoning_tokens=16, force="unparsed", probabilities=True, passage_tokens=24
    )
    ranking = reranker.rank(query, passages[:14])
    assert ranking.score_meaning == "probability"
    for comparison in ranking.trace:
        assert comparison.probabilities is not None
        assert len(comparison.probabilities) == len(comparison.set)
        assert sum(comparison.probabilities) == pytest.approx(1, abs=1e-6)
    single = [float32(score) for score in ranking.scores]
    assert all(a > b for a, b in pairwise(single))
    assert 0 < single[-1] < single[0] <= 1


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


def test_the_probabilities_are_the_models_own(backend: VLLM, trec: list[tuple[str, list[Passage]]]) -> None:
    query, passages = trec[1]
    lines = [Passage(passage.id, " ".join(passage.text.split()[:12])) for passage in passages[:20]]
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


def test_auto_votes_ask_again_only_in_unsure_sets(backend: VLLM, trec: list[tuple[str, list[Passage]]]) -> None:
    query, passages = trec[2]
    reranker = Reranker(backend, k=2, size=5, reasoning_tokens=8, force="unparsed", votes="auto", passage_tokens=24)
    trace = reranker.rank(query, passages[:15]).trace
    first: dict[tuple[int, frozenset[int]], list[Any]] = {}
    for comparison in trace:
        first.setdefault((comparison.round, frozenset(comparison.set)), []).append(comparison)
    asked = {}
    for key, comparisons in first.items():
        best, second = sorted(comparisons[0].probabilities, reverse=True)[:2]
        assert (len(comparisons) > 1) == (best - second < 0.5)
        asked[key] = len(comparisons)
    assert set(asked.values()) <= {1, 2, 5}  # two orders are all that a set of two has


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
        completions = await asyncio.wait_for(asyncio.gather(*jobs), 120)
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
    plain = complete(backend, Request(ask("Tell a story."), 24))[0].text if backend._start else ""
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

    assert asyncio.run(asyncio.wait_for(main(), 120)) != plain


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
    assert "done and kept, the same command asks for the rest" in said
