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

from rankr1_rag.backends import Request
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

FINISH_REASONS = {"eos_token": "stop", "stop_sequence": "stop", "max_tokens": "length", "MAX_TOKENS": "length"}
"""Names of TGI and of gateways."""

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
    dialect: Dialect, model: str, request: Request, quirks: Quirks, prompt: Sequence[int] = (), room: int = 0
) -> Json:
    """The JSON body for a request, with what the server has refused sent another way, and `room` more tokens.

    With the tokens of a `prompt` it is for the route of plain completions.
    """
    messages, begun = to_messages(request, quirks), continued(dialect, request)
    if begun and not quirks.continues and len(messages) > 1:  # asked in the user's turn
        messages.pop()
        messages[-1]["content"] += "\n\n" + CONTINUE.format(begun=begun)
    fields: Json = {
        "model": model,
        **({"prompt": list(prompt)} if prompt else {"messages": messages}),
        dialect.limit: request.max_tokens + room,
        "temperature": request.temperature,
        **dialect.always,
    }
    if dialect.seeded and request.temperature:
        fields["seed"] = (request.seed * 1_000 + request.sample) % 2**31  # each `sample` is another one
    if request.stop:
        fields["stop"] = list(request.stop)
    if request.logprobs:
        fields |= {"logprobs": request.logprobs} if prompt else {"logprobs": True, "top_logprobs": request.logprobs}
    if request.choices and dialect.constrain:
        fields |= dialect.constrain(request.choices)
    if dialect.continues and begun and quirks.continues:
        fields |= dialect.continues
    for name, new in quirks.fields.items():
        if (value := fields.pop(name, None)) is not None and new:
            fields[new] = value
    return fields


def to_completion(dialect: Dialect, request: Request, body: Json, reply: object) -> Completion:
    """The completion in the reply to this body; ValueError if there is none."""
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
    if reason in BROKEN_OFF:
        raise ValueError(f"the server broke the completion off ({reason})")
    reason = FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else "unknown"
    begun = continued(dialect, request)
    is_new_turn = begun and "prompt" not in body and body["messages"][-1]["role"] == "user"
    text = whole_text(message, reason, "" if is_new_turn else begun, dialect.echoes)
    if is_new_turn:  # a model may reason again, or repeat what it is to continue
        text = next((one for one in request.choices if text.rstrip().endswith(one)), text.removeprefix(begun))
    return Completion(
        text=text,
        prompt_tokens=number(reply, "usage", "prompt_tokens"),
        cached_tokens=number(reply, "usage", "prompt_tokens_details", "cached_tokens"),
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
    reasoning = message.get("reasoning") or message.get("reasoning_content") or ""  # vLLM >= 0.32; the others
    content = message.get("content") or message.get("refusal")
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        # Mistral: parts, of which some are reasoning, in parts too
        thinking = [one for part in content for one in part.get("thinking") or ()]
        reasoning = reasoning or parts_text(thinking)
        content = parts_text(content)
    is_left_out = "content" not in message and reason != "length"  # Gemini's after reasoning that it does not show
    if content is None and not reasoning and (is_left_out or reason == "unknown"):
        raise ValueError("the reply's message has no content")
    content = content or ""  # null, but finished: SGLang's empty text
    if not isinstance(reasoning, str) or not isinstance(content, str):
        raise ValueError("the reply's content is not a text")
    if echoes:
        content = content.removeprefix(prefix)
    if not reasoning:
        return content
    if "</think>" in prefix:
        return reasoning + content  # the server took a part of the answer for reasoning
    opening = "" if "<think>" in prefix else "<think>"
    closing = "" if reason == "length" and not content else "</think>"
    return f"{opening}{reasoning}{closing}{content}"


def parts_text(parts: Sequence[Any]) -> str:
    """The text of the parts of a content."""
    return "".join([str(part.get("text") or "") for part in parts if isinstance(part, dict)])


def to_logprobs(logprobs: object) -> tuple[TokenLogprob, ...] | None:
    """The log-probabilities of a choice, None if it has none; ValueError if they cannot be read."""
    if not isinstance(logprobs, dict):
        return None
    try:
        if isinstance(logprobs.get("tokens"), list):  # plain completions
            pairs = [sorted((top or {}).items(), key=lambda pair: -pair[1]) for top in logprobs["top_logprobs"]]
            return tuple(map(TokenLogprob, logprobs["tokens"], logprobs["token_logprobs"], map(tuple, pairs)))
        if not isinstance(logprobs.get("content"), list):
            return None
        return tuple(
            TokenLogprob(
                token=entry["token"],
                logprob=float(entry["logprob"]),
                top=tuple((top["token"], float(top["logprob"])) for top in entry.get("top_logprobs") or ()),
            )
            for entry in logprobs["content"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the reply's logprobs cannot be read ({error!r})") from None


def number(value: object, *keys: str) -> int:
    """The integer at the end of this path, 0 for anything else."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) else 0
