"""The data of a framework LLM: its identity for the store, and the fields of its replies."""

import json
from enum import Enum
from pathlib import Path
from types import SimpleNamespace as Object
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, Field, SecretStr

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.llm import completion_from_reply, describe
from rankr1_rag.types import Completion

pytestmark = pytest.mark.third_party


class Kind(Enum):
    CHAT = "chat"


def to_prompt(text: str) -> str:
    return text


def to_other_prompt(text: str) -> str:
    return text.upper()


class Model(BaseModel):
    model_config = {"arbitrary_types_allowed": True, "extra": "allow"}
    model: str = "m"
    api_base: str = "http://localhost/v1"
    temperature: float | None = None
    api_key: str = "sk-secret-0"
    secret: SecretStr = SecretStr("sk-secret-1")
    default_headers: dict[str, str] = Field(default_factory=lambda: {"Authorization": "sk-secret-2", "x-team": "a"})
    path: Path = Path("model.gguf")
    kind: Kind = Kind.CHAT
    stop: tuple[str, ...] = ()
    client: Any = Field(default=None, exclude=True)
    to_prompt: Any = Field(default=to_prompt, exclude=True)
    eos_token: str = "<eos>"
    words: frozenset[str] = frozenset({"one", "two", "three"})
    metadata: dict[str, str] = Field(default_factory=dict)
    inner: Any = None


OTHER_MODELS: list[dict[str, Any]] = [
    *[{"model": "n"}, {"api_base": "http://elsewhere/v1"}, {"temperature": 1.0}, {"path": Path("other.gguf")}],
    *[{"stop": ("x",)}, {"default_headers": {"x-team": "b"}}, {"eos_token": "</s>"}, {"not_a_field": 3}],
    *[{"to_prompt": to_other_prompt}, {"inner": Model(model="n")}, {"inner": [Model(), {"deeper": Model(model="n")}]}],
    {"inner": Scripted(lambda messages: "", identity="one")},
]
SAME_MODEL: list[dict[str, Any]] = [
    *[{"api_key": "sk-other"}, {"secret": SecretStr("x")}, {"client": object()}, {"metadata": {"run": "7"}}],
    {"token": "sk-8"},
]


@pytest.mark.parametrize("change", OTHER_MODELS)
def test_models_differ_by_everything_that_a_completion_depends_on(change: dict[str, Any]) -> None:
    assert describe(Model(**change)) != describe(Model())


@pytest.mark.parametrize("change", SAME_MODEL)
def test_models_do_not_differ_by_keys_connections_and_notes(change: dict[str, Any]) -> None:
    assert describe(Model(**change)) == describe(Model())


def test_it_is_plain_data_without_secrets_in_a_fixed_order_and_names_the_class() -> None:
    class Other(Model):
        pass

    assert "sk-secret" not in json.dumps(describe(Model(inner=Model())))
    assert describe(Model())["words"] == sorted(f'"{word}"' for word in ("one", "two", "three"))
    assert describe(Other()) != describe(Model())
    assert describe(Scripted(lambda messages: "", identity="one")) == "one"


@pytest.mark.parametrize("value", [lambda messages: "", object(), print], ids=["lambda", "object", "function"])
def test_a_value_without_settings_is_an_error_that_names_its_field(value: object) -> None:
    with pytest.raises(ValueError, match="cannot identify the model for the store: inner is a"):
        describe(Model(inner=value))
    with pytest.raises(ValueError, match="cannot identify the model for the store: llm is a"):
        describe(value)


# ---- replies


class FinishReason(Enum):
    """As in Google's libraries."""

    STOP = 1
    MAX_TOKENS = 2


def openai(finish_reason: str = "stop", cached: int | None = 8) -> dict[str, Any]:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0}}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": "[1]"}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, **details},
    }


OLLAMA = {"model": "m", "done": True, "message": {"content": "[1]"}, "prompt_eval_count": 12, "eval_count": 3}
GOOGLE = {"prompt_token_count": 12, "candidates_token_count": 3, "cached_content_token_count": 8}
RESPONSES = Object(input_tokens=12, input_tokens_details=Object(cached_tokens=8), output_tokens=3, total_tokens=15)
LANGCHAIN = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15, "input_token_details": {"cache_read": 8}}

CHAT = ChatCompletion.model_validate
ANTHROPIC = {"input_tokens": 12, "output_tokens": 3}
CACHE = {"cache_read_input_tokens": 8, "cache_creation_input_tokens": 0}
REPLIES: dict[str, tuple[tuple[object, ...], str]] = {
    "OpenAI's object": ((CHAT(openai()),), "12 8 3 stop"),
    "OpenAI's object, cut off": ((CHAT(openai("length")),), "12 8 3 length"),
    "OpenAI's object without details": ((CHAT(openai(cached=None)),), "12 0 3 stop"),
    "OpenAI's object after a tool": ((CHAT(openai("tool_calls")),), "12 8 3 stop"),
    "OpenAI's dict": ((openai("length"),), "12 8 3 length"),
    "OpenAI's dict of objects": ((dict(CHAT(openai("length"))),), "12 8 3 length"),
    "OpenAI's responses": ((Object(status="completed", usage=RESPONSES),), "12 8 3 stop"),
    "OpenAI's responses, cut off": (({"incomplete_details": {"reason": "max_output_tokens"}},), "0 0 0 length"),
    "Anthropic's object": (
        (Object(stop_reason="end_turn", usage=Object(**ANTHROPIC, cache_read_input_tokens=None)),),
        "12 0 3 stop",
    ),
    "Anthropic's dict with a cache, which its input_tokens do not count": (
        ({"stop_reason": "end_turn", "usage": {**ANTHROPIC, "input_tokens": 4, **CACHE}},),
        "12 8 3 stop",
    ),
    "Anthropic's dict, cut off": (({"stop_reason": "max_tokens", "usage": ANTHROPIC},), "12 0 3 length"),
    "Google's dict": (({"finish_reason": FinishReason.STOP, "usage_metadata": GOOGLE},), "12 8 3 stop"),
    "Google's object": (
        (Object(finish_reason=FinishReason.MAX_TOKENS, usage_metadata=Object(**GOOGLE)),),
        "12 8 3 length",
    ),
    "Google's name": (({"finish_reason": "MAX_TOKENS"},), "0 0 0 length"),
    "Ollama's dict": (({**OLLAMA, "done_reason": "stop"},), "12 0 3 stop"),
    "Ollama's object, cut off": ((Object(**OLLAMA, done_reason="length"),), "12 0 3 length"),
    "Mistral's reason": (({"finish_reason": "model_length"},), "0 0 0 length"),
    "LangChain, OpenAI": ((LANGCHAIN, {"token_usage": openai()["usage"], "finish_reason": "length"}), "12 8 3 length"),
    "LangChain, Anthropic": ((LANGCHAIN, {"stop_reason": "max_tokens", "usage": {}}), "12 8 3 length"),
    "LangChain, Ollama": ((LANGCHAIN, {**OLLAMA, "done_reason": "length"}), "12 8 3 length"),
    "LangChain without usage": ((None, {"token_usage": openai()["usage"], "finish_reason": "stop"}), "12 8 3 stop"),
    "the first source of a value": (
        ({"prompt_tokens": 1}, None, {"prompt_tokens": 2, "completion_tokens": 3, "finish_reason": "length"}),
        "1 0 3 length",
    ),
    "LlamaIndex without raw": ((None, {"prompt_tokens": 12, "completion_tokens": 3}), "12 0 3 stop"),
}


@pytest.mark.parametrize(("sources", "expected"), REPLIES.values(), ids=REPLIES)
def test_tokens_and_finish_reason_are_read_from_every_providers_reply(
    sources: tuple[object, ...], expected: str
) -> None:
    one = completion_from_reply("[1]", "", *sources)
    assert one.text == "[1]"
    assert f"{one.prompt_tokens} {one.cached_tokens} {one.completion_tokens} {one.finish_reason}" == expected


@pytest.mark.parametrize(
    ("text", "reasoning", "reason", "whole"),
    [
        ("[1]", "", "stop", "[1]"),
        ("[1]", "hm", "stop", "<think>hm</think>[1]"),
        ("[1", "hm", "length", "<think>hm</think>[1"),
        ("", "hm", "stop", "<think>hm</think>"),
        ("", "hm, and", "length", "<think>hm, and"),
        (None, "hm, and", "length", "<think>hm, and"),
        (None, "", "length", ""),
        (None, "", "stop", ""),
    ],
)
def test_separate_reasoning_is_put_before_the_text_and_stays_open_if_it_was_cut_off(
    text: str | None, reasoning: str, reason: str, whole: str
) -> None:
    assert completion_from_reply(text, reasoning, {"finish_reason": reason}).text == whole


NO_INFORMATION: list[object] = [
    *[None, "length", "", 5, 2.5, True, [], [{"finish_reason": "length"}], (), {}, set(), {3: 4}],
    *[object(), len, dict, Object(), {"usage": None}, {"usage": 7}, {"usage": "many"}, {"usage": []}],
    *[{"choices": []}, {"choices": [None]}, {"choices": "length"}, {"usage": {"prompt_tokens": "12"}}],
    *[{"prompt_tokens": None}, {"prompt_tokens": [12]}, {"finish_reason": None}, {"finish_reason": 3}],
    *[{"finish_reason": ["length"]}, {"finish_reason": Object(name=5)}],
]


def test_without_information_a_text_has_ended_by_itself() -> None:
    for sources in ([], *([source] for source in NO_INFORMATION)):
        assert completion_from_reply("[1]", "", *sources) == Completion("[1]", finish_reason="stop"), sources
