"""What a server's refusal means: an error with a remedy, or another way to ask, which is remembered."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from rankr1_rag.redaction import excerpt

RETRYABLE = {408, 409, 425, 429}
"""Besides every 5xx."""

LARGEST = 16 * 2**20
"""Bytes of an answer that are read: a completion of 30,000 tokens takes less than 1 MiB."""


# OpenAI, vLLM: "maximum context length"; llama-server: "exceeds the available context size"; SGLang: "longer than the
# model's context length"; TGI: "`inputs` tokens + `max_new_tokens` must be <= 4096".
TOO_LONG = re.compile(
    r"context.?(length|size|window)|max_(new|total)_tokens.{0,3} must be <=|maximum model length", re.I
)


@dataclass(frozen=True)
class Destination:
    """Where a request goes. `key_name` names the source of the key."""

    base_url: str
    model: str
    key_name: str
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Quirks:
    """What a server has refused for a model, and how it is asked from then on.

    `fields` are the new names of fields of the body, None for one that is left out. `folds_system`: the system text is
    put in front of the user's. `continues`: a begun answer is continued by the route of chat completions; if not, by
    that of plain completions where the server `tokenizes`, or else in the user's turn.
    """

    fields: Mapping[str, str | None] = field(default_factory=dict)
    folds_system: bool = False
    continues: bool = True
    tokenizes: bool = True


BEGINNING = 1_000
"""Characters of an answer that are searched: some servers append the whole prompt."""

LIMITS = ("max_completion_tokens", "max_tokens")

# vLLM's "continue_final_message is set but the final message does not appear" (templates that change what is before
# </think>), llama-server's "Assistant response prefill is incompatible with enable_thinking".
BEGUN = re.compile(r"continue_final_message|prefill", re.I)
PERHAPS_BEGUN = re.compile(r"assistant|(last|final) (message|role|turn)|chat.?template", re.I)

# "System role not supported" (Gemma), "Developer instruction is not enabled", "'messages[0].role' does not support
# 'system'" (o1), "Conversation roles must alternate", "Only user and assistant roles are supported".
SYSTEM = re.compile(
    r"\bsystem.{0,20}\b(role|message|prompt|instruction)|\brole.{0,60}\bsystem\b|developer.{0,20}(role|instruction)"
    r"|first (?:message|role|turn)\b.{0,30}\buser"
    r"|roles must alternate|only user\b.{0,40}\brole|roles other than|messages.{0,6}\b0\b.{0,6}\brole",
    re.I,
)

UNSUPPORTED = re.compile(
    r"unsupported|n[o']t support|(un|not )recogni[sz]ed|\binstead\b|unknown (name|param|field|arg)"
    r"|unexpected (key|param|field|arg)|extra_forbidden|extra (inputs|fields)|not (permitted|allowed|available)"
    r"|deprecated|only the default|temperature.{0,60}\b(only|must|should|allowed)\b"
    r"|\b(only|must|invalid)\b.{0,60}temperature",
    re.I,
)


def learn(quirks: Quirks, body: Mapping[str, Any], own: Collection[str], status: int, text: str) -> tuple[Quirks, str]:
    """The quirks with what this refusal of a body adds, and that in words; the same and "" for any other error.

    Fields in `own` were set by the user and stay.
    """
    text, messages = text[:BEGINNING], body.get("messages") or [{}]
    begins = messages[-1].get("role") == "assistant" and status in (400, 422, 500)
    otherwise = replace(quirks, continues=False), "a begun answer is continued in another way"
    if begins and BEGUN.search(text):
        return otherwise
    is_continued = isinstance(body.get("prompt"), list)  # a text is the whole prompt of a format, without another way
    if TOO_LONG.search(text) or not (status < 300 or status in (400, 422, 500) or (status < 500 and is_continued)):
        return quirks, ""
    if is_continued:
        return replace(quirks, tokenizes=False), "a begun answer is continued in the user's turn"
    if messages[0].get("role") == "system" and SYSTEM.search(text):
        return replace(quirks, folds_system=True), "the system text is put in front of the user's"
    if not UNSUPPORTED.search(text):
        return otherwise if begins and PERHAPS_BEGUN.search(text) else (quirks, "")
    named = (re.search(r'"param": ?"(\w+)"', text) or [None, None])[1]
    sent = body.keys() - {"model", "messages", "prompt", "continue_final_message", "add_generation_prompt", *own}
    refused = {named} if named in sent else {name for name in sent if re.search(rf"\b{name}\b", text)}
    if "logprobs" in refused:
        refused.add("top_logprobs")
    fields: dict[str, str | None] = {}
    for name in sorted(refused):
        original = next((old for old, new in quirks.fields.items() if new == name), name)
        other = next((one for one in LIMITS if one != name and name in LIMITS and original == name), None)
        fields[original] = other
    words = [f"{name} is {f'called {new}' if new else 'left out'}" for name, new in fields.items()]
    return replace(quirks, fields={**quirks.fields, **fields}), " and ".join(words)


def to_error(destination: Destination, status: int, headers: Mapping[str, str], text: str) -> BackendError:
    """The error for this answer. `status` may be 2xx: then the text is an error all the same."""
    data = parse_json(text)
    inner = data.get("error") if isinstance(data, dict) else None
    codes = [one.get("code") for one in (inner, data) if isinstance(one, dict)]
    code = next((code for code in codes if isinstance(code, int) and 400 <= code < 600), 0)
    status = code if status < 300 and code else status
    said = inner or data
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail")
    said = excerpt(said if isinstance(said, str) else text)
    url = destination.base_url
    message = f"{url} answered {status}: {said or 'nothing'}"
    if status in (400, 413, 422) and TOO_LONG.search(text[:BEGINNING]):
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
    elif status < 400 and "location" in headers:
        target = excerpt(headers["location"].partition("?")[0])
        message += f" (it redirects to {target!r}, where prompts and keys are not sent: correct the base_url)"
    return BackendError(message)


def to_text(body: bytes | bytearray, encoding: str) -> tuple[str, str]:
    """The text of an answer as far as it can be read, and why that is not all ("" if it is)."""
    problem = ""
    if encoding in ("gzip", "x-gzip", "deflate"):
        try:
            body = zlib.decompressobj(47).decompress(body, LARGEST + 1)  # both kinds, and no more than we want
        except zlib.error:
            problem = f"an answer that is not {encoding}, as its content-encoding says"
    elif encoding not in ("", "identity"):
        problem = f"an answer in the content-encoding {encoding!r}, which was not asked for"
    if len(body) > LARGEST:
        problem = f"an answer of more than {LARGEST >> 20} MiB"
    return str(body, "utf-8-sig", "replace"), problem


def parse_json(text: str) -> object:
    """The JSON in a text; None if it is none, or has a number or a depth that Python refuses."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_error(data: object) -> bool:
    """Whether a JSON reply is an error, whatever its status is."""
    return isinstance(data, dict) and (bool(data.get("error")) or data.get("object") == "error")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date. The first of several is read."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if found := re.match(r"\s*(\d+(?:\.\d+)?)\s*(?:,|$)", headers.get(name, "")[:100]):
            return float(found[1]) * unit
    try:
        date = parsedate_to_datetime(headers.get("retry-after", "")[:100])
        now = datetime.now(UTC) if date.tzinfo else datetime.now(UTC).replace(tzinfo=None)
        return (date - now).total_seconds()
    except Exception:  # for absurd dates of many kinds
        return None
