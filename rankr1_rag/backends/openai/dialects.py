"""What each server's chat completions look like: a `Request` to a JSON body, a JSON reply to a `Completion`.

One frozen table, looked up by the name the user gives: nothing is guessed from a model's name or an address. Knows no
network, no keys, and no errors but `ReplyError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rankr1_rag.backends import Request
from rankr1_rag.types import Completion, TokenLogprob

Json = dict[str, Any]


class ReplyError(ValueError):
    """A reply that is no completion; the message says why."""


def _vllm_choice(choices: Sequence[str]) -> Json:
    return {"structured_outputs": {"choice": list(choices)}}


def _gbnf(choices: Sequence[str]) -> Json:
    return {"grammar": "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)}


def _regex(choices: Sequence[str]) -> str:
    return f"({'|'.join(re.escape(choice) for choice in choices)})"


@dataclass(frozen=True)
class Dialect:
    """What one server understands beside the common chat completions.

    `limit` is its name for `max_tokens`; `seeded`: it takes a seed. `always` goes into every body. `continues` is what
    makes it go on writing a final assistant message: None where it cannot. `constrain` is what holds a completion to
    choices: None where nothing does. `echoes`: the reply repeats the message it continued.
    """

    limit: str = "max_tokens"
    seeded: bool = True
    always: Mapping[str, object] = field(default_factory=dict)
    continues: Mapping[str, object] | None = None
    constrain: Callable[[Sequence[str]], Json] | None = None
    echoes: bool = False


# `always` switches off the samplers that a server takes from a model's generation_config.json when it is told nothing:
# Qwen2.5-Instruct's has a repetition penalty of 1.05, which changes even greedy completions.
DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        # Any server: the OpenAI API reference as of 2024, without the fields that only some know.
        "": Dialect(seeded=False),
        # https://platform.openai.com/docs/api-reference/chat: max_tokens is deprecated, newer models refuse it.
        "openai": Dialect(limit="max_completion_tokens"),
        # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, structured_outputs since 0.12. Seen with
        # 0.32: under --reasoning-parser choices hold only once the thought has ended (`</think>` in the message begun).
        "vllm": Dialect(
            always={"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            continues={"continue_final_message": True, "add_generation_prompt": False},
            constrain=_vllm_choice,
        ),
        # sglang/srt/entrypoints/openai/protocol.py, ChatCompletionRequest; continue_final_message since 0.4.4.
        "sglang": Dialect(
            always={"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "separate_reasoning": False},
            continues={"continue_final_message": True},
            constrain=lambda choices: {"regex": _regex(choices)},
        ),
        # llama.cpp/tools/server/README.md. A final assistant message is continued unless --no-prefill-assistant, and
        # comes back at the head of the content (seen with xllamacpp 2026.10; older servers give what is new only).
        "llama-server": Dialect(
            always={"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "reasoning_format": "none"},
            continues={},
            constrain=_gbnf,
            echoes=True,
        ),
        # text-generation-inference/router/src: chat_template.rs continues a final assistant message, since 3.0;
        # GrammarType in lib.rs.
        "tgi": Dialect(
            continues={},
            constrain=lambda choices: {"response_format": {"type": "regex", "value": _regex(choices)}},
        ),
    }
)

_FINISHED = {"eos_token": "stop", "stop_sequence": "stop"}  # TGI's words for it
_BROKEN_OFF = {"abort", "error"}  # vLLM and SGLang when they shut down; OpenRouter


def body(dialect: Dialect, model: str, request: Request) -> Json:
    """The JSON body that asks for this completion."""
    fields: Json = {
        "model": model,
        "messages": [{key: _sendable(value) for key, value in message.items()} for message in request.messages],
        dialect.limit: request.max_tokens,
        "temperature": request.temperature,
        **dialect.always,
    }
    if dialect.seeded and request.temperature:
        fields["seed"] = (request.seed * 1_000 + request.sample) % 2**31  # each `sample` is another one
    if request.stop:
        fields["stop"] = list(request.stop)
    if request.logprobs:
        fields |= {"logprobs": True, "top_logprobs": request.logprobs}
    if request.choices and dialect.constrain:
        fields |= dialect.constrain(request.choices)
    if dialect.continues and _prefix(dialect, request):
        fields |= dialect.continues
    return fields


def completion(dialect: Dialect, request: Request, reply: object) -> Completion:
    """The completion in a reply, whole; ReplyError where there is none in it."""
    choice = _choice(reply)
    reason = choice.get("finish_reason")
    if reason in _BROKEN_OFF:
        raise ReplyError(f"the server broke the completion off ({reason})")
    reason = _FINISHED.get(reason, reason) if isinstance(reason, str) else "unknown"
    usage = _object(reply, "usage")
    return Completion(
        text=_text(choice["message"], reason, _prefix(dialect, request), dialect.echoes),
        prompt_tokens=_number(usage, "prompt_tokens"),
        cached_tokens=_number(_object(usage, "prompt_tokens_details"), "cached_tokens"),
        completion_tokens=_number(usage, "completion_tokens"),
        finish_reason=reason,
        logprobs=_logprobs(choice) if request.logprobs else None,
    )


def _choice(reply: object) -> Json:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ReplyError("the reply has no choices")
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise ReplyError("the reply's first choice has no message")
    return choice


def _text(message: Json, reason: str, prefix: str, echoes: bool) -> str:
    """The whole text: a server that splits the thought off is put right."""
    thought = message.get("reasoning") or message.get("reasoning_content") or ""  # vLLM >= 0.32; the others
    content = message.get("content") or message.get("refusal")
    if content is None and not thought and ("content" not in message or reason == "unknown"):
        raise ReplyError("the reply's message has no content")
    content = content or ""  # null, but finished: SGLang's empty text
    if not isinstance(thought, str) or not isinstance(content, str):
        raise ReplyError("the reply's content is not a text")
    if echoes:
        content = content.removeprefix(prefix)
    return _joined(prefix, thought, content, cut=reason == "length") if thought else content


def _joined(prefix: str, thought: str, content: str, cut: bool) -> str:
    """Thought and content with the tags between, as the model wrote them after `prefix`."""
    if "</think>" in prefix:
        return thought + content  # the thought is over: the server took a part of the answer for it
    opened = "" if "<think>" in prefix else "<think>"
    closed = "" if cut and not content else "</think>"
    return f"{opened}{thought}{closed}{content}"


def _prefix(dialect: Dialect, request: Request) -> str:
    """The final assistant message, if it will be continued, or ""."""
    last = request.messages[-1] if request.messages else {}
    return last["content"] if last.get("role") == "assistant" and dialect.continues is not None else ""


def _logprobs(choice: Json) -> tuple[TokenLogprob, ...] | None:
    tokens = _object(choice, "logprobs").get("content")
    if not isinstance(tokens, list):
        return None
    try:
        return tuple(
            TokenLogprob(
                token=entry["token"],
                logprob=float(entry["logprob"]),
                top=tuple((top["token"], float(top["logprob"])) for top in entry.get("top_logprobs") or ()),
            )
            for entry in tokens
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ReplyError(f"the reply's logprobs cannot be read ({error!r})") from None


def _object(parent: object, key: str) -> Json:
    value = parent.get(key) if isinstance(parent, dict) else None
    return value if isinstance(value, dict) else {}


def _number(parent: Json, key: str) -> int:
    value = parent.get(key)
    return value if isinstance(value, int) else 0


def _sendable(text: str) -> str:
    """The text without lone surrogates, which no JSON body can carry: "?" instead."""
    return text.encode("utf-8", "replace").decode("utf-8")
