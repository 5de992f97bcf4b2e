"""The backend on Hugging Face transformers, beyond the contract of all backends, on a small model of random weights."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Passage, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.transformers import Transformers
from rankr1_rag.errors import BackendError, BackendUnavailable
from tests.backends.small_model import ask, complete, errors_without, make_checkpoint, make_peft_adapter, once

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of peft, about transformers
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("torch", "transformers", "peft"))),
        reason="torch, transformers or peft is not installed",
    ),
]

STORY = ask("Tell a story.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "random")


@pytest.fixture(scope="module")
def backend(model: Path) -> Iterator[Transformers]:
    backend = make(model, max_batch=3)
    yield backend
    asyncio.run(backend.close())


def make(model: str | Path, **options: Any) -> Transformers:
    return Transformers(model, **{"dtype": "float32", "device": "cpu", **options})


def test_it_knows_its_model_before_it_is_loaded(model: Path) -> None:
    assert (make(model).model, make(model).context) == (str(model), 2_048)
    assert [make(model, context=context).context for context in (500, 50_000)] == [500, 2_048]
    assert make(model, name="mine").model == "mine"


def test_greedy_text_is_that_of_transformers_itself(model: Path, backend: Transformers) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    prompt = tokenizer.apply_chat_template(STORY, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    written = AutoModelForCausalLM.from_pretrained(model).generate(**prompt, max_new_tokens=24, do_sample=False)
    (completion,) = complete(backend, Request(STORY, 24))
    assert completion.text == tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


def test_loading_is_logged(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rankr1_rag"):
        once(make(model), Request(STORY, 1))
    loading, loaded = (record.getMessage() for record in caplog.records)
    assert loading == f"loading {model}"
    assert loaded.startswith(f"{loading} took ")


def test_requests_that_outnumber_the_batch_wait(backend: Transformers) -> None:
    requests = [Request(ask(f"Say {n}."), 2 + n % 5, logprobs=n % 2) for n in range(9)]
    assert [one.completion_tokens for one in complete(backend, *requests)] == [2 + n % 5 for n in range(9)]


def test_free_logprobs_are_the_models_own_at_any_temperature(backend: Transformers) -> None:
    hot_request = Request(STORY, 1, logprobs=5, temperature=2.0, sample=1)
    first, hot = complete(backend, Request(STORY, 1, logprobs=5), hot_request)
    assert first.logprobs is not None
    assert hot.logprobs is not None
    for (token, logprob), (other, again) in zip(first.logprobs[0].top, hot.logprobs[0].top, strict=True):
        assert (token, logprob) == (other, pytest.approx(again, abs=1e-3))


def test_a_continued_prompt_is_not_computed_again(backend: Transformers) -> None:
    request = Request(ask("Tell a story. " * 9), 12)
    (whole,) = complete(backend, request)
    (begun,) = complete(backend, Request(request.messages, 5))
    (rest,) = complete(backend, Request(ask("Tell a story. " * 9, "The capital"), 4))
    assert begun.cached_tokens == whole.prompt_tokens - 1
    assert whole.prompt_tokens - 1 <= rest.cached_tokens < rest.prompt_tokens


def test_a_small_model_ranks_with_forced_labels(backend: Transformers) -> None:
    passages = [Passage(str(n), f"Text {n}.") for n in range(8)]
    ranking = Reranker(backend, k=3, size=5, reasoning_tokens=8, force="unparsed").rank("which?", passages)
    assert sorted(ranking.order) == list(range(8))
    assert ranking.cost.unparsed == 0
    assert ranking.cost.cached_tokens > ranking.cost.prompt_tokens / 3


def test_a_thread_that_is_lost_is_started_again(model: Path) -> None:
    backend = make(model)
    first = backend.worker()
    first.end(BackendUnavailable("gone"))
    first.join(30)
    with pytest.raises(BackendUnavailable, match="gone"):
        first.ask("complete", Request(STORY, 1))
    assert once(backend, Request(STORY, 2)).completion_tokens == 2


# ---- adapters


def test_an_adapter_changes_the_text_as_if_it_were_merged(tmp_path: Path, model: Path, backend: Transformers) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    adapter = make_peft_adapter(tmp_path / "lora", model, 4)
    adapted = make(model, adapter=adapter)
    assert adapted.identity != backend.identity
    request = Request(STORY, 16)
    completion = once(adapted, request)
    shutil.copytree(model, tmp_path / "merged")
    merged = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert completion.text == once(make(tmp_path / "merged"), request).text
    assert completion.text != complete(backend, request)[0].text


@pytest.mark.parametrize("size", [("head_dim", 32), ("num_hidden_layers", 1), ("num_hidden_layers", 3)], ids=str)
def test_an_adapter_of_another_base_is_refused_with_both_names(
    tmp_path: Path, model: Path, size: tuple[str, int]
) -> None:
    adapter = make_peft_adapter(tmp_path / "lora", model, 4, **dict([size]))
    with pytest.raises(BackendError, match=rf"lora \(made for 'its/base'\) does not fit the model {model}"):
        once(make(model, adapter=adapter), Request(STORY, 1))


def test_a_known_checkpoint_is_its_base_with_its_adapter() -> None:
    known = Transformers("ielabgroup/Rank-R1-3B-v0.1")
    assert known.model == "ielabgroup/Rank-R1-3B-v0.1"
    adapter = known._settings.adapter
    assert (known._settings.base.name, adapter and adapter.name) == ("Qwen/Qwen2.5-3B-Instruct", known.model)


# ---- refusals


def test_a_folder_that_is_not_what_it_should_be_is_refused_at_once(tmp_path: Path, model: Path) -> None:
    with pytest.raises(BackendError, match=r"holds no adapter_config\.json: .*save_pretrained"):
        make(model, adapter=tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "its/base"}')
    with pytest.raises(BackendError, match=r"holds no config\.json: it is an adapter; give its base .*its/base"):
        make(tmp_path)
    for wrong in ("./no-such-folder", tmp_path / "none", __file__):
        with pytest.raises(FileNotFoundError, match="Hugging Face hub"):
            make(wrong)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path, model: Path) -> None:
    damaged = shutil.copytree(model, tmp_path / "damaged")
    config = json.loads((model / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(BackendError, match="not whole"):
        once(make(damaged), Request(STORY, 1))


def test_only_safetensors_are_read(tmp_path: Path, model: Path) -> None:
    pickled = shutil.copytree(model, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(BackendError, match=r"cannot load .*safetensors"):
        once(make(pickled), Request(STORY, 1))


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"context": 0}, {"dtype": "float8"}], ids=str)
def test_wrong_arguments_are_refused_at_once(model: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        make(model, **wrong)


def test_identity_is_the_content(tmp_path: Path, model: Path, backend: Transformers) -> None:
    moved = shutil.copytree(model, tmp_path / model.name)
    assert make(moved).identity == backend.identity
    assert make(moved, dtype="auto").identity != backend.identity
    (moved / "tokenizer_config.json").write_text("{}")
    assert make(moved).identity != backend.identity


def test_its_special_tokens_are_those_that_its_tokenizer_makes_control_tokens_of(tmp_path: Path, model: Path) -> None:
    from transformers import AutoTokenizer

    assert make(model).special_tokens == {"<|im_start|>", "<|im_end|>"}
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<|fim_hole|>", "<td>", "</h1>", "\n\n", "word"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["STOP", "<b>"]})
    folder = shutil.copytree(model, tmp_path / "more")
    tokenizer.save_pretrained(folder)
    assert make(folder).special_tokens == {"<|im_start|>", "<|im_end|>", "<|fim_hole|>", "STOP", "<b>"}


def test_a_library_that_is_not_installed_is_named_with_the_command(tmp_path: Path) -> None:
    needed = ["torch", "transformers", "peft"]
    call = 'Transformers("ielabgroup/Rank-R1-3B-v0.1")'
    imported, *errors = errors_without(tmp_path / "script.py", "rankr1_rag.backends.transformers", call, *needed)
    assert imported == ""
    command = 'is not installed: pip install "rankr1-rag[transformers]"'
    assert errors == [repr(f"{name} {command}") for name in needed]
