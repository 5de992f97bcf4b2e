"""Prompts by the chat templates of other models: reasoning that they open or drop, and no system role."""

from __future__ import annotations

import asyncio
import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rankr1_rag import Passage, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.chat_template import render_with
from rankr1_rag.backends.openvino.worker import PromptEncoder
from rankr1_rag.backends.transformers import Transformers
from rankr1_rag.backends.vllm.engine import RequestBuilder
from rankr1_rag.errors import BackendError
from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.train.model import Trained
from rankr1_rag.types import Message
from tests.backends.chat_templates import DEAF, GEMMA, QWEN3, R1, with_template
from tests.backends.small_model import CHATML, ask, make_checkpoint, once

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.skipif(not all(map(find_spec, ("torch", "transformers"))), reason="no torch or transformers"),
]

SYSTEM: Message = {"role": "system", "content": "Be brief."}
USER = "<|im_start|>user\n"
END = "<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
BEGUN = {
    "<think> It is the first. </think> <answer>[": " It is the first. </think> <answer>[",
    "It is the first. </think> <answer>[": "It is the first. </think> <answer>[",
    "<answer>[": "\n</think>\n\n<answer>[",
}
"""The begun answers of formats, and each behind a `<think>` of the template."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("model") / "random")


def make(model: Path, template: str, folder: Path) -> Transformers:
    return Transformers(with_template(model, template, folder), dtype="float32", device="cpu")


def rendered(backend: Transformers, messages: list[Message]) -> str:
    """The prompt as text."""
    prompt = backend._tokenizer.prepare(Request(messages, 1), 2_048).prompt
    return str(backend._tokenizer.load().decode(prompt))


@pytest.mark.parametrize(
    ("template", "system", "opened"),
    [
        (CHATML, f"<|im_start|>system\nBe brief.{END}{USER}", ASSISTANT),
        (R1, f"Be brief.{USER}", f"{ASSISTANT}<think>\n"),
        (QWEN3, f"<|im_start|>system\nBe brief.{END}{USER}", ASSISTANT),
        (GEMMA, f"{USER}Be brief.\n\n", "<|im_start|>model\n"),
        (DEAF, f"{USER}Be brief.\n\n", ASSISTANT),
    ],
    ids=["chatml", "r1", "qwen3", "gemma", "deaf"],
)
def test_system_text_is_kept_and_begun_reasoning_is_continued(
    model: Path, tmp_path: Path, template: str, system: str, opened: str
) -> None:
    backend = make(model, template, tmp_path / "model")
    assert rendered(backend, [SYSTEM, *ask("Which?")]) == f"{system}Which?{END}{opened}"
    assert rendered(backend, [{**SYSTEM, "content": " "}, *ask("Which?")]) == f"{USER}Which?{END}{opened}"
    for begun, behind in {**BEGUN, "": ""}.items():
        expected = behind if "<think>" in opened else begun
        assert rendered(backend, [SYSTEM, *ask("Which?", begun)]) == f"{system}Which?{END}{opened}{expected}"
    asyncio.run(backend.close())


def test_messages_that_a_template_refuses_for_another_reason_are_an_error(model: Path, tmp_path: Path) -> None:
    backend = make(model, GEMMA, tmp_path / "model")
    with pytest.raises(BackendError, match="refuses these messages: Conversation roles must alternate"):
        once(backend, Request([SYSTEM, *ask("Which?"), *ask("Which?")], 1))


def test_reasoning_that_the_template_opens_belongs_to_the_completion(model: Path, tmp_path: Path) -> None:
    """Else an answer that is quoted in reasoning that was cut off would count."""
    free, chosen = Request(ask("Which?"), 4), Request(ask("Which?"), 1, choices=("[1]",))
    assert once(make(model, R1, tmp_path / "r1"), free).text.startswith("<think>")
    assert once(make(model, R1, tmp_path / "chosen"), chosen).text == "[1]"
    assert not once(make(model, QWEN3, tmp_path / "qwen3"), free).text.startswith("<think>")


def test_in_training_the_model_opens_its_reasoning_itself(model: Path, tmp_path: Path) -> None:
    """The reward is for the whole form."""
    tokenizer = make(model, R1, tmp_path / "r1")._tokenizer.load()
    ids = Trained(model=None, tokenizer=tokenizer, device="cpu", context=99).ids(ask("Which?"))
    assert tokenizer.decode(ids) == f"{USER}Which?{END}{ASSISTANT}"


@pytest.mark.parametrize("template", [R1, QWEN3, GEMMA], ids=["r1", "qwen3", "gemma"])
@pytest.mark.parametrize(
    "options",
    [{"reasoning_tokens": 0}, {"votes": "auto", "reasoning_tokens": 8}, {"probabilities": True, "reasoning_tokens": 8}],
    ids=["no reasoning", "votes", "probabilities"],
)
def test_every_comparison_has_an_answer(model: Path, tmp_path: Path, template: str, options: dict[str, Any]) -> None:
    passages = [Passage(str(n), f"Text {n}.") for n in range(6)]
    with Reranker(make(model, template, tmp_path / "model"), k=2, size=4, force="unparsed", **options) as reranker:
        ranking = reranker.rank("which?", passages)
    assert sorted(ranking.order) == list(range(6))
    assert ranking.cost.unparsed == 0
    for comparison in ranking.trace:
        assert comparison.completion.text.count("<think>") == 1
        if not options["reasoning_tokens"]:
            assert comparison.reasoning == ""


def test_a_raw_turn_is_the_prompt_without_the_template() -> None:
    raw = {"role": "raw", "content": "Passage: x\n<think>"}
    assert render_with(str, [raw]) == ("Passage: x\n<think>", "<think>")
    assert render_with(str, [raw, {"role": "assistant", "content": "<think> so"}]).text == "Passage: x\n<think> so"


class Spaces:
    """A tokenizer of OpenVINO's interface: a token for each word, and one that begins a whole text."""

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=np.array([[0] * add_special_tokens + [1] * len(text.split())]))


class WithoutParams(RequestBuilder):
    """The tokens of vLLM's requests, without vLLM."""

    def params(self, request: Request) -> Any:
        return SimpleNamespace(max_tokens=request.max_tokens)


def test_a_raw_prompt_begins_as_the_model_was_trained_and_needs_no_template(model: Path, tmp_path: Path) -> None:
    """Llama's tokenizer puts a BOS before a whole text; a template writes its own. Base models have no template."""
    folder = with_template(model, "", tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    first = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    backend = Transformers(folder, dtype="float32", device="cpu")
    raw: list[Message] = [{"role": "raw", "content": "Passage: x\n<think>"}]
    begun: list[Message] = [*raw, {"role": "assistant", "content": "<think> so\n</think>"}]
    assert rendered(backend, raw) == "<|im_start|>Passage: x\n<think>"
    assert rendered(backend, begun) == "<|im_start|>Passage: x\n<think> so\n</think>"
    with pytest.raises(BackendError, match="has no chat template"):
        rendered(backend, [{"role": "user", "content": "x"}])
    templated = Transformers(with_template(folder, CHATML, tmp_path / "chat"), dtype="float32", device="cpu")
    chat: list[Message] = [{"role": "user", "content": "x"}]
    assert rendered(templated, chat) == f"{USER}x{END}{ASSISTANT}"

    builder = WithoutParams(SimpleNamespace(model_config=SimpleNamespace(model="m", max_model_len=99)), {})
    vars(builder)["tokenizer"] = templated._tokenizer.load()
    for messages in (raw, begun, chat):
        prompt, *_ = builder.build(Request(messages, 1))
        assert prompt == templated._tokenizer.prepare(Request(messages, 1), 2_048).prompt

    encoder: Any = PromptEncoder.__new__(PromptEncoder)
    encoder._tokenizer, encoder._context = Spaces(), 99
    assert encoder.encode(0, Request(raw, 1)).prompt.tolist() == [[0, 1, 1, 1]]


def test_a_format_without_a_system_text_sends_no_system_turn() -> None:
    plain = Format("plain", "setwise", "", "{query} {docs}", "[{num}] ", "\n", reasoning=False, bridge="")
    assert [message["role"] for message in plain.render("which?", [Passage("a", "text")])] == ["user"]
    roles = {name: format.messages("which?", ["text"])[0]["role"] for name, format in FORMATS.items()}
    without = {"rank-k": "user", "rank1": "raw"}
    assert {name: role for name, role in roles.items() if role != "system"} == without
