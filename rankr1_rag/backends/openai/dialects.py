"""What each server's chat completions look like: a `Request` to a JSON body, a JSON reply to a `Completion`.

One frozen table, looked up by the name that the user gives: nothing is guessed from a model's name or an address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rankr1_rag.backends import Request, token_count
from rankr1_rag.backends.chat_template import utf8
from rankr1_rag.backends.openai.refusals import Quirks
from rankr1_rag.types import Completion, TokenLogprob

Json = dict[str, Any]


def regex(choices: Sequence[str]) -> str:
    """A regular expression for exactly these texts."""
    return f"({'|'.join(re.escape(choice) for choice in choices)})"


@dataclass(frozen=True)
class Dialect:
    """How one server differs from the common chat completions.

    `limit` is its name for `max_tokens`; `seeded`: it takes a seed. `always` goes into every body. `continues` are the
    fields that make it continue a final assistant message: None if it cannot. `constrain` makes the fields that limit a
    completion to choices: None if it cannot. `echoes`: the reply repeats the message that it continued. `tokenizes`: it
    renders and tokenizes a prompt at /tokenize.
    """

    limit: str = "max_tokens"
    seeded: bool = True
    always: Mapping[str, object] = field(default_factory=dict)
    continues: Mapping[str, object] | None = None
    constrain: Callable[[Sequence[str]], Json] | None = None
    echoes: bool = False
    tokenizes: bool = False


# `always` switches off the samplers that servers take from a model's generation_config.json by default: that of
# Qwen2.5-Instruct has a repetition penalty of 1.05, which changes even greedy completions.
DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        # Any server: the OpenAI API reference as of 2024, without the fields that only some servers know.
        "": Dialect(seeded=False),
        # https://platform.openai.com/docs/api-reference/chat: max_tokens is deprecated, newer models refuse it.
        "openai": Dialect(limit="max_completion_tokens"),
        # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, structured_outputs since 0.12. Seen with
        # 0.32: under --reasoning-parser choices hold only after the end of the reasoning (`</think>` in the message).
        "vllm": Dialect(
            always={"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            continues={"continue_final_message": True, "add_generation_prompt": False},
            constrain=lambda choices: {"structured_outputs": {"choice": list(choices)}},
            tokenizes=True,
        ),
        # sglang/srt/entrypoints/openai/protocol.py, ChatCompletionRequest; continue_final_message since 0.4.4.
        "sglang": Dialect(
            always={"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "separate_reasoning": False},
            continues={"continue_final_message": True},
            constrain=lambda choices: {"regex": regex(choices)},
        ),
        # llama.cpp/tools/server/README.md. A final assistant message is continued unless --no-prefill-assistant, and
        # comes back at the head of the content (seen with xllamacpp 2026.10; older servers return only the new text).
        "llama-server": Dialect(
            always={"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "reasoning_format": "none"},
            continues={},
            constrain=lambda choices: {
                "grammar": "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
            },
            echoes=True,
        ),
        # text-generation-inference/router/src: chat_template.rs continues a final assistant message, since 3.0;
        # GrammarType in lib.rs.
        "tgi": Dialect(
            continues={}, constrain=lambda choices: {"response_format": {"type": "regex", "value": regex(choices)}}
        ),
    }
)

FINISH_REASONS = {
    **{reason: reason for reason in ("stop", "length", "content_filter", "tool_calls", "function_call")},
    **dict.fromkeys(("eos_token", "stop_sequence", "STOP"), "stop"),
    **dict.fromkeys(("max_tokens", "MAX_TOKENS"), "length"),
}
"""The names of OpenAI, and those of TGI and of gateways; every other reason becomes "unknown"."""

BROKEN_OFF = {"abort", "error"}
"""vLLM and SGLang when they shut down; OpenRouter."""


CONTINUE = "Your answer has begun:\n\n{begun}\n\nContinue exactly where it ends. Write only what follows."


def to_messages(request: Request, quirks: Quirks) -> list[dict[str, str]]:
    """The messages of a request, without an empty system text, or with the system text in the user's turn."""
    messages: list[dict[str, str]] = [{**one} for one in request.messages if one["content"] or one["role"] != "system"]
    if quirks.folds_system and len(messages) > 1 and messages[0]["role"] == "system":
        system = messages.pop(0)["content"]
        messages[0]["content"] = f"{system}\n\n{messages[0]['content']}"
    return messages


def to_body(
    dialect: Dialect,
    model: str,
    request: Request,
    quirks: Quirks,
    prompt: Sequence[int] | str = (),
    room: int = 0,
    further: Mapping[str, object] = MappingProxyType({}),
) -> Json:
    """The JSON body for a request, with what the server has refused sent another way, and `room` more tokens.

    With a `prompt`, its tokens or a text, it is for the route of plain completions. `further` fields may be refused,
    too.
    """
    messages, begun = to_messages(request, quirks), continued(dialect, request)
    if begun and not quirks.continues and len(messages) > 1:  # asked in the user's turn
        messages.pop()
        messages[-1]["content"] += "\n\n" + CONTINUE.format(begun=begun)
    fields: Json = {
        "model": model,
        **({"prompt": prompt if isinstance(prompt, str) else list(prompt)} if prompt else {"messages": messages}),
        dialect.limit: request.max_tokens + room,
        "temperature": request.temperature,
        **dialect.always,
        **further,
    }
    if dialect.seeded and request.temperature:
        fields["seed"] = (request.seed * 1_000 + request.sample) % 2**31  # each `sample` is another one
    if request.stop:
        fields["stop"] = list(request.stop)
    if request.logprobs:
        fields |= {"logprobs": request.logprobs} if prompt else {"logprobs": True, "top_logprobs": request.logprobs}
    if request.choices and dialect.constrain:
        fields |= dialect.constrain(request.choices)
    if dialect.continues and begun and quirks.continues and not prompt:
        fields |= dialect.continues
    for name, new in quirks.fields.items():
        if (value := fields.pop(name, None)) is not None and new:
            fields[new] = value
    return fields


def to_completion(dialect: Dialect, request: Request, body: Json, reply: object) -> Completion:
    """The completion in the reply to this body, every field of the right type; ValueError if there is none."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError("the reply has no choices")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if "prompt" in body and isinstance(choice, dict):
        message = {"content": choice.get("text")}
    if not isinstance(message, dict):
        raise ValueError("the reply's first choice has no message")
    reason = choice.get("finish_reason")
    reason = reason if isinstance(reason, str) else ""
    if reason in BROKEN_OFF:
        raise ValueError(f"the server broke the completion off ({reason})")
    reason = FINISH_REASONS.get(reason, "unknown")
    begun = continued(dialect, request)
    is_new_turn = begun and "prompt" not in body and body["messages"][-1]["role"] == "user"
    text = whole_text(message, reason, "" if is_new_turn else begun, dialect.echoes)
    if is_new_turn:  # a model may reason again, or repeat what it is to continue
        text = next((one for one in request.choices if text.rstrip().endswith(one)), text.removeprefix(begun))
    prompt_tokens = number(reply, "usage", "prompt_tokens")
    return Completion(
        text=text,
        prompt_tokens=prompt_tokens,
        cached_tokens=min(number(reply, "usage", "prompt_tokens_details", "cached_tokens"), prompt_tokens),
        completion_tokens=number(reply, "usage", "completion_tokens"),
        finish_reason=reason,
        logprobs=to_logprobs(choice.get("logprobs")) if request.logprobs else None,
    )


def continued(dialect: Dialect, request: Request) -> str:
    """The final assistant message, if it will be continued, or ""."""
    last = request.messages[-1] if request.messages else {}
    return last["content"] if last.get("role") == "assistant" and dialect.continues is not None else ""


def whole_text(message: Json, reason: str, prefix: str, echoes: bool) -> str:
    """The text as the model wrote it after `prefix`: reasoning that the server split off is put back with its tags."""
    reasoning, content = reasoning_and_content(message)
    is_left_out = "content" not in message and reason != "length"  # Gemini's after reasoning that it does not show
    if content is None and not reasoning and (is_left_out or reason == "unknown"):
        raise ValueError("the reply's message has no content")
    reasoning, content = as_text(reasoning), as_text(content)  # null, but finished: SGLang's empty text
    if echoes:
        content = content.removeprefix(prefix)
    if not reasoning:
        return content
    if "</think>" in prefix:
        return reasoning + content  # the server took a part of the answer for reasoning
    opening = "" if "<think>" in prefix else "<think>"
    closing = "" if reason == "length" and not content else "</think>"
    return f"{opening}{reasoning}{closing}{content}"


def reasoning_and_content(message: Json) -> tuple[Any, Any]:
    """The two parts of a message, or of a piece of one: texts, lists of texts, or null."""
    reasoning = message.get("reasoning") or message.get("reasoning_content")  # vLLM >= 0.32; the others
    content = message.get("content")
    if content is None or content == "":
        content = message.get("refusal") or content
    if isinstance(content, list) and not reasoning:  # Mistral: parts, of which some are reasoning, in parts too
        reasoning = "".join([as_text(part.get("thinking")) for part in content if isinstance(part, dict)])
    return reasoning, content


def as_text(value: object) -> str:
    """A text, that of all parts of a content, or "" for null. ValueError for anything else."""
    parts = value if isinstance(value, list) else [value]
    texts: list[Any] = [part.get("text") if isinstance(part, dict) and parts is value else part for part in parts]
    if not all(isinstance(text, str | None) for text in texts):
        raise ValueError("the reply's content is not a text")
    return utf8("".join(filter(None, texts)))


def to_logprobs(logprobs: object) -> tuple[TokenLogprob, ...] | None:
    """The log-probabilities of a choice, None if it has none; ValueError if they cannot be read."""
    if not isinstance(logprobs, dict):
        return None
    content: Any = logprobs.get("content")
    try:
        if isinstance(tokens := logprobs.get("tokens"), list):  # plain completions
            tops = [sorted((top or {}).items(), key=lambda pair: -pair[1]) for top in logprobs["top_logprobs"]]
            entries = [[{"token": token, "logprob": value} for token, value in top] for top in tops]
            content = [
                {"token": token, "logprob": value, "top_logprobs": top}
                for token, value, top in zip(tokens, logprobs["token_logprobs"], entries, strict=True)
            ]
        if not isinstance(content, list):
            return None
        return tuple(
            TokenLogprob(*to_logprob(one), tuple([to_logprob(top) for top in one.get("top_logprobs") or ()]))
            for one in content
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError("the reply's logprobs cannot be read") from None


def to_logprob(entry: Json) -> tuple[str, float]:
    """A token and its log-probability, from -9999 (what cannot be) to 0. An error of many kinds if it has none."""
    token, value = entry["token"], entry["logprob"]
    if type(value) is not float or not -9999.0 <= value <= 0.0:
        if type(value) not in (int, float) or not value < 0.01:  # above 0 by a rounding
            raise ValueError(value)
        value = float(min(max(value, -9999), 0))
    return token if token.isascii() else utf8(token), value


def number(value: object, *keys: str) -> int:
    """The number of tokens at the end of this path, 0 for anything that is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return token_count(value)


def to_tokens(reply: object) -> list[int]:
    """The tokens in a reply of /tokenize; ValueError if there are none."""
    tokens = reply.get("tokens") if isinstance(reply, dict) else None
    if not isinstance(tokens, list) or not all(one == 0 or token_count(one) for one in tokens):
        raise ValueError("the reply has no tokens")
    return tokens
