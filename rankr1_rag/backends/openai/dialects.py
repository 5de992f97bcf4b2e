"""What each server's chat completions look like: a `Request` to a JSON body, a JSON reply to a `Completion`.

One frozen table, looked up by the name that the user gives: nothing is guessed from a model's name or an address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from rankr1_rag.backends import Request
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
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
    completion to choices: None if it cannot. `echoes`: the reply repeats the message that it continued.
    """

    limit: str = "max_tokens"
    seeded: bool = True
    always: Mapping[str, object] = field(default_factory=dict)
    continues: Mapping[str, object] | None = None
    constrain: Callable[[Sequence[str]], Json] | None = None
    echoes: bool = False


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

FINISH_REASONS = {"eos_token": "stop", "stop_sequence": "stop"}
"""TGI's names."""

BROKEN_OFF = {"abort", "error"}
"""vLLM and SGLang when they shut down; OpenRouter."""


def to_body(dialect: Dialect, model: str, request: Request) -> Json:
    """The JSON body for a request."""
    fields: Json = {
        "model": model,
        "messages": [dict(message) for message in request.messages],
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
    if dialect.continues and continued(dialect, request):
        fields |= dialect.continues
    return fields


def to_completion(dialect: Dialect, request: Request, reply: object) -> Completion:
    """The completion in a reply; ValueError if there is none."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError("the reply has no choices")
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise ValueError("the reply's first choice has no message")
    reason = choice.get("finish_reason")
    if reason in BROKEN_OFF:
        raise ValueError(f"the server broke the completion off ({reason})")
    reason = FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else "unknown"
    return Completion(
        text=whole_text(choice["message"], reason, continued(dialect, request), dialect.echoes),
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
    if content is None and not reasoning and ("content" not in message or reason == "unknown"):
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


def to_logprobs(logprobs: object) -> tuple[TokenLogprob, ...] | None:
    """The log-probabilities of a choice, None if it has none; ValueError if they cannot be read."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
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
        raise ValueError(f"the reply's logprobs cannot be read ({error!r})") from None


def number(value: object, *keys: str) -> int:
    """The integer at the end of this path, 0 for anything else."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) else 0


RETRYABLE = {408, 409, 425, 429}
"""Besides every 5xx."""


# OpenAI, vLLM: "maximum context length"; llama-server: "exceeds the available context size"; SGLang: "longer than the
# model's context length"; TGI: "`inputs` tokens + `max_new_tokens` must be <= 4096".
TOO_LONG = re.compile(
    r"context.?(length|size|window)|max_(new|total)_tokens.{0,3} must be <=|maximum model length", re.I
)


KEYS = re.compile(r"\b(?:sk|pk|rk|hf|gsk|xai|key)[-_][\w*.-]{6,}|(?<=bearer )\S+", re.I)


@dataclass(frozen=True)
class Destination:
    """Where a request goes. `key_name` names the source of the key."""

    base_url: str
    model: str
    key_name: str
    key: str = field(repr=False)


def to_error(destination: Destination, status: int, headers: Mapping[str, str], text: str) -> BackendError:
    """The error for this answer. `status` may be 2xx: then the text is an error all the same."""
    data = parse_json(text)
    inner = data.get("error") if isinstance(data, dict) else None
    codes = [one.get("code") for one in (inner, data) if isinstance(one, dict)]
    code = next((code for code in codes if isinstance(code, int) and 400 <= code < 600), 0)
    status = code if status < 300 and code else status
    said: Any = (inner or data) if isinstance(data, dict) else text
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail") or said
    url = destination.base_url
    message = f"{url} answered {status}: {redact(str(said) or 'nothing', destination.key)}"
    if status in (400, 413, 422) and TOO_LONG.search(text):
        return PromptTooLong(f"{message} (set context= to the server's limit, so that passages are clipped to fit)")
    if "insufficient_quota" in text:
        return BackendError(f"{message} (the account has no credit left: waiting does not help)")
    if status < 300 or status in RETRYABLE or status >= 500:
        return BackendUnavailable(message, retry_after(headers))
    if status in (401, 403):
        message += f" (the key sent was {destination.key_name})"
    elif status == 404:
        message += (
            f" (is there a server with the model {destination.model!r} at {url}? It lists its models at {url}/models;"
            " most servers want a base_url that ends in /v1)"
        )
    elif status < 400:
        target = headers.get("location", "nowhere").partition("?")[0]
        message += f" (it redirects to {target!r}, where prompts and keys are not sent: correct the base_url)"
    return BackendError(message)


def parse_json(text: str) -> object:
    """The JSON in a text; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_error(data: object) -> bool:
    """Whether a JSON reply is an error, whatever its status is."""
    return isinstance(data, dict) and (bool(data.get("error")) or data.get("object") == "error")


def redact(text: str, key: str, longest: int = 400) -> str:
    """The beginning of the text on one short line, without the key or anything that looks like one."""
    text = KEYS.sub("<key>", text.replace(key, "<key>") if key else text)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else f"{line[:longest]}…"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value) * unit
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    now = datetime.now(UTC) if date.tzinfo else datetime.now(UTC).replace(tzinfo=None)
    return max(0.0, (date - now).total_seconds())
