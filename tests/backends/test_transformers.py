"""The backend on Hugging Face transformers with a real model, SmolLM2-135M-Instruct: no part of it is replaced."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Passage, Reranker
from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.transformers import Transformers
from rankr1_rag.errors import BackendError, PromptTooLong
from rankr1_rag.types import Completion, Message

MODEL = Path(os.environ.get("RANKR1_SMOLLM2", Path(__file__).parents[2] / ".venv-vllm" / "smollm2"))

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("torch", "transformers", "peft"))),
        reason="torch, transformers or peft is not installed",
    ),
    pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason=f"no SmolLM2 at {MODEL}: set RANKR1_SMOLLM2"),
]

LABELS = tuple(f"{label}]</answer>" for label in range(1, 13))
FRANCE = "What is the capital of France?"


def ask(text: str, begun: str | None = None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": text}]
    return messages if begun is None else [*messages, {"role": "assistant", "content": begun}]


@pytest.fixture(scope="module")
def backend() -> Iterator[Transformers]:
    backend = Transformers(MODEL, dtype="float32")
    yield backend
    asyncio.run(backend.close())


def complete(backend: Backend, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        return await asyncio.gather(*map(backend.complete, requests))

    return asyncio.run(together())


def fails(backend: Transformers, match: str) -> None:
    with pytest.raises(BackendError, match=match):
        complete(backend, Request(ask(FRANCE), 1))
    asyncio.run(backend.close())


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with `backend`, `run(request)` and `ask(text, n)` at hand."""
    begin = f"""
        import asyncio, os, signal, threading, time
        from rankr1_rag.backends import Request
        from rankr1_rag.backends.transformers import Transformers
        from rankr1_rag.errors import BackendError
        def run(request): return asyncio.run(backend.complete(request))
        def ask(text, n): return Request([{{"role": "user", "content": text}}], n)
        def load(): return Transformers({str(MODEL)!r})
    """
    whole = textwrap.dedent(begin) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=100, check=False)


def test_it_is_a_backend_that_knows_its_model(backend: Transformers) -> None:
    assert isinstance(backend, Backend)
    assert (backend.model, backend.context, backend.can_continue) == (str(MODEL), 8192, True)
    assert Transformers(MODEL, context=500, name="mine").context == 500
    assert Transformers(MODEL, context=50_000, name="mine").context == 8192
    assert backend.count("") == 0
    assert backend.count("The capital of France is Paris.") == 7
    assert backend.count("word " * 20_000) == pytest.approx(20_000, rel=0.01)


def test_a_question_is_answered_and_counted(backend: Transformers) -> None:
    (completion,) = complete(backend, Request(ask(FRANCE), 20))
    assert completion.text == "The capital of France is Paris."
    assert (completion.prompt_tokens, completion.completion_tokens) == (37, 8)
    assert (completion.finish_reason, completion.logprobs) == ("stop", None)


@pytest.mark.smoke
def test_greedy_text_is_what_transformers_itself_writes(backend: Transformers) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    prompt = tokenizer.apply_chat_template(ask("Tell a story."), add_generation_prompt=True, return_tensors="pt")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    written = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    (completion,) = complete(backend, Request(ask("Tell a story."), 24))
    assert completion.text == tokenizer.decode(written, skip_special_tokens=True)
    assert completion.finish_reason == "length"


@pytest.mark.smoke
def test_requests_of_all_kinds_are_the_same_alone_and_together(backend: Transformers) -> None:
    requests = [
        Request(ask(FRANCE), 20),
        Request(ask("Tell a long story. " + "word " * 50), 16, logprobs=3),
        Request(ask("Say a number."), 1, choices=LABELS, logprobs=12),
        Request(ask("Tell a story."), 16, temperature=0.8, seed=3),
        Request(ask("What is the capital of Italy?"), 12, stop=("Rome",)),
        Request(ask("Say [3] [3] [3].", "I say [3] [3] [3] ["), 16, choices=LABELS),
    ]
    alone = [complete(backend, request)[0] for request in requests]
    together = complete(backend, *requests)
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.completion_tokens for one in together] == [one.completion_tokens for one in alone]
    for one, other in zip(alone, together, strict=True):
        pairs = zip(one.logprobs or (), other.logprobs or (), strict=True)
        assert all(a.logprob == pytest.approx(b.logprob, abs=1e-3) for a, b in pairs)


def test_more_requests_than_a_batch_holds_each_get_their_own_answer() -> None:
    small = Transformers(MODEL, max_batch=3)
    words = [f"{colour} {animal}" for colour in ("red", "blue", "green") for animal in ("fox", "cow", "hen")]
    requests = [Request(ask(f"Say {word}."), 2 + place % 5, logprobs=1) for place, word in enumerate(words)]
    completions = complete(small, *requests, *(Request(ask("Repeat."), 1, choices=(word,)) for word in words))
    assert [completion.completion_tokens for completion in completions[:9]] == [2 + place % 5 for place in range(9)]
    assert [completion.text for completion in completions[9:]] == words
    asyncio.run(small.close())


@pytest.mark.parametrize(
    "choices",
    [
        LABELS,
        ("yes", "no"),
        ("yes", "yes!", "yes!!"),
        ('say "hi"', "a\\b", "two\nlines"),
        ("é 🙂", "“quoted”", "日本"),
        (" leading", "trailing "),
        ("only one",),
        ("", "something"),
    ],
)
def test_the_completion_is_exactly_one_of_the_choices(backend: Transformers, choices: tuple[str, ...]) -> None:
    requests = [
        Request(ask("Choose one at random."), 1, temperature=3.0, choices=choices, sample=sample) for sample in range(6)
    ]
    completions = complete(backend, *requests)
    assert {completion.text for completion in completions} <= set(choices)
    assert {completion.finish_reason for completion in completions} == {"stop"}


@pytest.mark.smoke
def test_every_label_can_be_chosen(backend: Transformers) -> None:
    requests = [
        Request(ask(f"Say [{n}] [{n}] [{n}].", f"I say [{n}] [{n}] [{n}] ["), 16, choices=LABELS) for n in range(1, 13)
    ]
    texts = [completion.text for completion in complete(backend, *requests)]
    assert set(texts) <= set(LABELS)
    assert len(set(texts)) >= 10


@pytest.mark.smoke
def test_logprobs_are_over_what_may_come_and_sum_to_one(backend: Transformers) -> None:
    (completion,) = complete(backend, Request(ask("Say a number.", "I say ["), 16, choices=LABELS, logprobs=12))
    assert completion.logprobs is not None
    assert "".join(entry.token for entry in completion.logprobs) == completion.text
    for entry in completion.logprobs:
        assert math.fsum(math.exp(logprob) for _, logprob in entry.top) == pytest.approx(1, abs=1e-6)
        assert (entry.token, entry.logprob) == entry.top[0]
    assert {token for token, _ in completion.logprobs[0].top} == set("123456789")


def test_free_logprobs_are_the_models_own_at_any_temperature(backend: Transformers) -> None:
    greedy, sampled = complete(
        backend, Request(ask(FRANCE), 4, logprobs=5), Request(ask(FRANCE), 4, logprobs=5, temperature=0.01)
    )
    assert greedy.logprobs is not None
    assert sampled.logprobs is not None
    for entry, other in zip(greedy.logprobs, sampled.logprobs, strict=True):
        assert len(entry.top) == 5
        assert entry.logprob == entry.top[0][1] == pytest.approx(other.logprob, abs=1e-3)


def test_text_ends_before_the_first_stop_string(backend: Transformers) -> None:
    (stopped,) = complete(backend, Request(ask(FRANCE), 20, stop=("never said", "ranc", "Paris")))
    assert (stopped.text, stopped.finish_reason) == ("The capital of F", "stop")


def test_samples_differ_by_seed_and_sample_and_can_be_had_again(backend: Transformers) -> None:
    pairs = ((0, 0), (0, 1), (1, 0))
    requests = [Request(ask("Tell a story."), 16, temperature=0.9, seed=seed, sample=sample) for seed, sample in pairs]
    first = [completion.text for completion in complete(backend, *requests)]
    assert len(set(first)) == 3
    assert [completion.text for completion in complete(backend, *reversed(requests))] == first[::-1]


def test_a_final_assistant_message_is_continued_and_not_computed_again(backend: Transformers) -> None:
    whole, begun = complete(backend, Request(ask(FRANCE), 20), Request(ask(FRANCE), 5))
    assert begun.finish_reason == "length"
    (rest,) = complete(backend, Request(ask(FRANCE, begun.text), 20))
    assert begun.text + rest.text == whole.text
    assert rest.prompt_tokens - 2 <= rest.cached_tokens < rest.prompt_tokens


@pytest.mark.smoke
def test_cancelled_requests_make_room_for_the_others(backend: Transformers) -> None:
    async def main() -> Completion:
        stories = [asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 1_500))) for _ in range(40)]
        other = asyncio.create_task(backend.complete(Request(ask(FRANCE), 20)))
        await asyncio.sleep(1)
        for story in stories:
            story.cancel()
        completion = await asyncio.wait_for(other, 60)
        assert all(story.cancelled() for story in stories)
        return completion

    assert "Paris" in asyncio.run(main()).text


@pytest.mark.smoke
def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers(backend: Transformers) -> None:
    with pytest.raises(PromptTooLong, match=r"prompt of \d+ tokens .* up to 6000 are longer than the context of 8192"):
        complete(backend, Request(ask("word " * 3_000), 6_000))


@pytest.mark.parametrize("text", ["a\ud800b\udfff", "nul \0 nul", "👩‍👩‍👧 é ﷽", "", "<|im_end|>", "{{ 7 * 7 }} {% for"])
def test_no_text_brings_it_down(backend: Transformers, text: str) -> None:
    (completion,) = complete(backend, Request(ask(text, text), 2, stop=("\ud800",)))
    assert completion.completion_tokens >= 1
    assert backend.count(text) >= 0


def test_a_request_without_messages_fails_alone(backend: Transformers) -> None:
    with pytest.raises(BackendError):
        complete(backend, Request([], 1))
    assert complete(backend, Request(ask(FRANCE), 20))[0].text


def test_one_backend_serves_several_loops_and_threads(backend: Transformers) -> None:
    async def threads() -> list[list[Completion]]:
        request = Request(ask(FRANCE), 20)
        return await asyncio.gather(*(asyncio.to_thread(complete, backend, request, request) for _ in range(3)))

    assert all("Paris" in completion.text for pair in asyncio.run(threads()) for completion in pair)


@pytest.mark.smoke
def test_a_small_model_ranks_with_forced_labels(backend: Transformers) -> None:
    kinds = ("cats", "dogs", "rain", "tea", "France and its capital Paris", "cars", "fish", "snow")
    passages = [Passage(kind, f"A text about {kind}.") for kind in kinds]
    ranking = Reranker(backend, k=3, size=5, reasoning_tokens=8, force="unparsed").rank(FRANCE, passages)
    assert sorted(ranking.order) == list(range(8))
    assert ranking.cost.unparsed == 0
    assert ranking.cost.cached_tokens > ranking.cost.prompt_tokens / 3


def adapter_in(folder: Path, **changes: Any) -> Path:
    """A LoRA adapter with weights that do something, made for SmolLM2 or for a model with another configuration."""
    import peft
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(MODEL, **changes)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_config(config), lora)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.15)
    model.peft_config["default"].base_model_name_or_path = "its/base"
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.smoke
def test_an_adapter_changes_the_text_as_if_it_were_merged(tmp_path: Path, backend: Transformers) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    adapter = adapter_in(tmp_path / "lora")
    adapted = Transformers(MODEL, adapter=adapter, dtype="float32")
    request = Request(ask("Tell a story."), 16)
    (completion,) = complete(adapted, request)
    asyncio.run(adapted.close())
    merged = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32), adapter
    ).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, tmp_path / "merged")
    whole = Transformers(tmp_path / "merged", dtype="float32")
    assert completion.text == complete(whole, request)[0].text
    assert completion.text != complete(backend, request)[0].text
    assert adapted.identity != backend.identity
    asyncio.run(whole.close())


@pytest.mark.parametrize(
    "changes", [{"head_dim": 32}, {"num_hidden_layers": 2}, {"num_hidden_layers": 31}], ids=["shape", "less", "more"]
)
def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path: Path, changes: dict[str, int]) -> None:
    adapter = adapter_in(tmp_path / "lora", vocab_size=8, **changes)
    fails(Transformers(MODEL, adapter=adapter), rf"lora \(made for 'its/base'\) does not fit the model {MODEL}")


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"holds no adapter_config\.json: .*save_pretrained"):
        Transformers(MODEL, adapter=tmp_path)


def test_an_adapter_given_as_the_model_is_told_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "its/base"}')
    with pytest.raises(BackendError, match=r"holds no config\.json: it is an adapter; give its base .*its/base"):
        Transformers(tmp_path)


@pytest.mark.smoke
def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    for file in MODEL.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    config = json.loads((MODEL / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 31}))
    fails(Transformers(tmp_path), "not whole")


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    for file in MODEL.iterdir():
        (tmp_path / file.name.replace("model.safetensors", "pytorch_model.bin")).symlink_to(file)
    fails(Transformers(tmp_path), "cannot load .*safetensors")


def test_a_wrong_path_is_told_at_once(tmp_path: Path) -> None:
    for wrong in ("./no-such-folder", tmp_path / "none", __file__):
        with pytest.raises(FileNotFoundError, match="Hugging Face hub"):
            Transformers(wrong)


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"context": 0}, {"dtype": "float8"}])
def test_wrong_arguments_are_told_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Transformers(MODEL, **wrong)


def test_a_known_checkpoint_is_its_base_with_its_adapter(tmp_path: Path) -> None:
    known = Transformers("ielabgroup/Rank-R1-3B-v0.1")
    assert known.model == "ielabgroup/Rank-R1-3B-v0.1"
    assert known._settings.base.name == "Qwen/Qwen2.5-3B-Instruct"
    assert known._settings.adapter is not None
    assert known._settings.adapter.name == "ielabgroup/Rank-R1-3B-v0.1"


def test_pickled_it_is_its_configuration(backend: Transformers) -> None:
    named = Transformers(MODEL, name="mine", context=500, max_batch=3)
    again = pickle.loads(pickle.dumps(named))
    assert (again.model, again.context, again.identity) == ("mine", 500, named.identity)
    assert pickle.loads(pickle.dumps(backend)).identity == backend.identity


def test_identity_is_the_content_and_no_path(tmp_path: Path, backend: Transformers) -> None:
    moved = shutil.copytree(MODEL, tmp_path / MODEL.name)
    assert Transformers(moved, dtype="float32").identity == backend.identity
    assert Transformers(moved).identity != backend.identity
    assert str(tmp_path) not in Transformers(moved).identity
    (moved / "tokenizer_config.json").write_text("{}")
    assert Transformers(moved, dtype="float32").identity != backend.identity


def test_closing_answers_who_waits_and_can_be_done_twice() -> None:
    async def main() -> None:
        backend = Transformers(MODEL)
        story = asyncio.create_task(backend.complete(Request(ask("Tell a long story."), 4_000)))
        await backend.complete(Request(ask(FRANCE), 1))
        await backend.close()
        with pytest.raises(BackendError, match="closed"):
            await story
        with pytest.raises(BackendError, match="closed"):
            await backend.complete(Request(ask(FRANCE), 1))
        await backend.close()

    asyncio.run(main())


def test_the_loop_goes_on_while_a_model_loads_and_computes() -> None:
    async def freeze() -> float:
        backend = Transformers(MODEL)
        task = asyncio.create_task(backend.complete(Request(ask("word " * 900), 4)))
        longest, last = 0.0, asyncio.get_running_loop().time()
        while not task.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, asyncio.get_running_loop().time() - last), asyncio.get_running_loop().time()
        await backend.close()
        return longest

    assert asyncio.run(freeze()) < 1


@pytest.mark.parametrize("absent", ["torch", "transformers", "peft"])
def test_what_is_not_installed_is_named_with_the_command(absent: str) -> None:
    done = python(f"""
        import importlib.machinery
        find = importlib.machinery.PathFinder.find_spec
        importlib.machinery.PathFinder.find_spec = lambda name, *rest: None if name == {absent!r} else find(name, *rest)
        try:
            Transformers("ielabgroup/Rank-R1-3B-v0.1")
        except ImportError as error:
            print(error)
    """)
    assert done.stdout.startswith(f"{absent} is not installed")
    assert 'pip install "rankr1-rag[transformers]"' in done.stdout


def test_the_child_of_a_fork_loads_a_model_of_its_own() -> None:
    done = python("""
        backend = load()
        print("parent", run(ask("What is the capital of France?", 20)).text, flush=True)
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print("child" if pid == 0 else "parent again", run(ask("What is the capital of France?", 20)).text, flush=True)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == ["parent", "child", "parent"]
    assert done.stdout.count("Paris") == 3


@pytest.mark.parametrize("seconds", [0.5, 6])
def test_leaving_python_in_the_middle_neither_hangs_nor_complains(seconds: float) -> None:
    done = python(f"""
        backend = load()
        def background():
            try:
                run(ask("Tell a long story. " + "word " * 900, 4_000))
            except BackendError as error:
                os.write(1, str(error).encode())
        threading.Thread(target=background, daemon=True).start()
        time.sleep({seconds})
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("", "Python is leaving")
