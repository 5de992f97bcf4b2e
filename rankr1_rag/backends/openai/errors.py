"""What an HTTP answer that is no completion means: whose fault it is, and whether asking again may help.

Knows status codes and the servers' words; knows no network. No message holds a key, even where a server echoes one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong

_AGAIN = {408, 409, 425, 429}  # beside every 5xx
# OpenAI, vLLM: "maximum context length"; llama-server: "exceeds the available context size"; SGLang: "longer than the
# model's context length"; TGI: "`inputs` tokens + `max_new_tokens` must be <= 4096".
_TOO_LONG = re.compile(
    r"context.?(length|size|window)|max_(new|total)_tokens.{0,3} must be <=|maximum model length", re.I
)
_KEYS = re.compile(r"\b(?:sk|pk|rk|hf|gsk|xai|key)[-_][\w*.-]{6,}|(?<=bearer )\S+", re.I)


@dataclass(frozen=True)
class Asked:
    """What was asked of whom: all that a message needs to say. `key_name` says where the key came from."""

    base_url: str
    model: str
    key_name: str
    key: str = field(repr=False)


def failure(asked: Asked, status: int, headers: Mapping[str, str], text: str) -> BackendError:
    """The error that this answer is. `status` may be 2xx: then the text is an error all the same."""
    data = parsed(text)
    code = _code(data)
    status = code if status < 300 and code else status
    said = f"{asked.base_url} answered {status}: {redacted(_detail(data, text), asked.key)}"
    if status in (400, 413, 422) and _TOO_LONG.search(text):
        return PromptTooLong(f"{said} (give context= the server's limit, so that passages are clipped to fit)")
    if "insufficient_quota" in text:
        return BackendError(f"{said} (the account has no credit left: waiting does not help)")
    if status < 300 or status in _AGAIN or status >= 500:
        return BackendUnavailable(said, retry_after(headers))
    return BackendError(said + _remedy(asked, status, headers))


def _remedy(asked: Asked, status: int, headers: Mapping[str, str]) -> str:
    if status in (401, 403):
        return f" (the key sent was {asked.key_name})"
    if status == 404:
        return (
            f" (is there a server with the model {asked.model!r} at {asked.base_url}? It lists its models at"
            f" {asked.base_url}/models; most servers want a base_url that ends in /v1)"
        )
    if status < 400:
        target = headers.get("location", "nowhere").partition("?")[0]
        return f" (it redirects to {target!r}: prompts and keys are not sent on, give the right base_url)"
    return ""


def parsed(text: str) -> object:
    """The JSON in a text; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_error(data: object) -> bool:
    """Whether a JSON reply is an error, whatever its status says."""
    return isinstance(data, dict) and (bool(data.get("error")) or data.get("object") == "error")


def redacted(text: str, key: str, longest: int = 400) -> str:
    """The beginning of the text on one short line, without the key or anything that looks like one."""
    text = _KEYS.sub("<key>", text.replace(key, "<key>") if key else text)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else f"{line[:longest]}…"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date."""
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


def _detail(data: object, text: str) -> str:
    """The server's own words."""
    inner: Any = data.get("error") or data if isinstance(data, dict) else text
    if isinstance(inner, dict):
        inner = inner.get("message") or inner.get("detail") or inner
    return str(inner) or "nothing"


def _code(data: object) -> int:
    """The HTTP status that an error's body speaks of, or 0."""
    inner = data.get("error") if isinstance(data, dict) else None
    for place in (inner, data):
        code = place.get("code") if isinstance(place, dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            return code
    return 0
