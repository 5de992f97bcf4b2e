"""What real replies look like, and what is read out of them."""

from enum import Enum
from types import SimpleNamespace as Object
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from rankr1_rag.frameworks.llm import completion_from_reply
from rankr1_rag.types import Completion

pytestmark = pytest.mark.third_party


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

REPLIES: dict[str, tuple[tuple[object, ...], tuple[int, int, int, str]]] = {
    "OpenAI's object": ((ChatCompletion.model_validate(openai()),), (12, 8, 3, "stop")),
    "OpenAI's object, cut off": ((ChatCompletion.model_validate(openai("length")),), (12, 8, 3, "length")),
    "OpenAI's object without details": ((ChatCompletion.model_validate(openai(cached=None)),), (12, 0, 3, "stop")),
    "OpenAI's object after a tool": ((ChatCompletion.model_validate(openai("tool_calls")),), (12, 8, 3, "stop")),
    "OpenAI's dict": ((openai("length"),), (12, 8, 3, "length")),
    "OpenAI's dict of objects": ((dict(ChatCompletion.model_validate(openai("length"))),), (12, 8, 3, "length")),
    "OpenAI's responses": (
        (Object(status="completed", usage=RESPONSES),),
        (12, 8, 3, "stop"),
    ),
    "OpenAI's responses, cut off": (
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},),
        (0, 0, 0, "length"),
    ),
    "Anthropic's object": (
        (Object(stop_reason="end_turn", usage=Object(input_tokens=12, output_tokens=3, cache_read_input_tokens=None)),),
        (12, 0, 3, "stop"),
    ),
    "Anthropic's dict, cut off": (
        ({"stop_reason": "max_tokens", "usage": {"input_tokens": 12, "output_tokens": 3}},),
        (12, 0, 3, "length"),
    ),
    "Google's dict": (({"finish_reason": FinishReason.STOP, "usage_metadata": GOOGLE},), (12, 8, 3, "stop")),
    "Google's object, cut off": (
        (Object(finish_reason=FinishReason.MAX_TOKENS, usage_metadata=Object(**GOOGLE)),),
        (12, 8, 3, "length"),
    ),
    "Google's name": (({"finish_reason": "MAX_TOKENS"},), (0, 0, 0, "length")),
    "Ollama's dict": (({**OLLAMA, "done_reason": "stop"},), (12, 0, 3, "stop")),
    "Ollama's object, cut off": ((Object(**OLLAMA, done_reason="length"),), (12, 0, 3, "length")),
    "Mistral's reason": (({"finish_reason": "model_length"},), (0, 0, 0, "length")),
    "LangChain with OpenAI": (
        (LANGCHAIN, {"token_usage": openai()["usage"], "finish_reason": "length", "logprobs": None}),
        (12, 8, 3, "length"),
    ),
    "LangChain with Anthropic": ((LANGCHAIN, {"stop_reason": "max_tokens", "usage": {}}), (12, 8, 3, "length")),
    "LangChain with Ollama": ((LANGCHAIN, {**OLLAMA, "done_reason": "length"}), (12, 8, 3, "length")),
    "LangChain without usage": (
        (None, {"token_usage": openai()["usage"], "finish_reason": "stop"}),
        (12, 8, 3, "stop"),
    ),
    "LlamaIndex without raw": ((None, {"prompt_tokens": 12, "completion_tokens": 3}), (12, 0, 3, "stop")),
}


@pytest.mark.parametrize(("told", "read"), REPLIES.values(), ids=REPLIES)
def test_the_tokens_and_the_end_are_read_whoever_made_the_reply(
    told: tuple[object, ...], read: tuple[int, int, int, str]
) -> None:
    one = completion_from_reply("[1]", "", *told)
    assert one.text == "[1]"
    assert (one.prompt_tokens, one.cached_tokens, one.completion_tokens, one.finish_reason) == read


def test_cached_tokens_are_part_of_the_prompt() -> None:
    # Anthropic's input_tokens are those after the cached ones.
    usage = {"input_tokens": 4, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 0, "output_tokens": 3}
    one = completion_from_reply("[1]", "", {"stop_reason": "end_turn", "usage": usage})
    assert (one.prompt_tokens, one.cached_tokens) == (12, 8)


def test_the_first_that_tells_a_thing_counts() -> None:
    told = ({"prompt_tokens": 1}, None, {"prompt_tokens": 2, "completion_tokens": 3, "finish_reason": "length"})
    assert completion_from_reply("", "", *told) == Completion(
        "", prompt_tokens=1, completion_tokens=3, finish_reason="length"
    )


@pytest.mark.parametrize(
    ("text", "thought", "reason", "whole"),
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
def test_a_thought_that_is_had_apart_stands_before_the_text_and_stays_open_where_it_was_cut_off(
    text: str | None, thought: str, reason: str, whole: str
) -> None:
    assert completion_from_reply(text, thought, {"finish_reason": reason}).text == whole


JUNK: list[object] = [
    *[
        None,
        "length",
        "",
        5,
        2.5,
        True,
        [],
        [{"finish_reason": "length"}],
        (),
        {},
        set(),
        object(),
        len,
        dict,
        Object(),
    ],
    *[{"usage": None}, {"usage": 7}, {"usage": "many"}, {"usage": []}, {"choices": []}, {"choices": [None]}],
    *[{"choices": "length"}, {"usage": {"prompt_tokens": "12"}}, {"prompt_tokens": None}, {"prompt_tokens": [12]}],
    *[{"finish_reason": None}, {"finish_reason": 3}, {"finish_reason": ["length"]}, {"finish_reason": Object(name=5)}],
    {3: 4},
]


@pytest.mark.parametrize("told", JUNK)
def test_what_tells_nothing_is_no_error(told: object) -> None:
    assert completion_from_reply("[1]", "", told) == Completion("[1]")


def test_nothing_told_is_a_text_that_ended_by_itself() -> None:
    assert completion_from_reply("[1]", "") == Completion("[1]", finish_reason="stop")
