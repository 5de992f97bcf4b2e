"""The errors for HTTP answers that are no completions. No message holds a key, even if a server echoes one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong

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
