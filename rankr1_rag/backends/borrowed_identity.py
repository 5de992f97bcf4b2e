"""Which model a borrowed object is: its settings as plain data, so that a store never mixes two of them.

Knows pydantic's `model_fields`, which every framework's models have; imports none of them. What cannot be told (a
function, an object without fields) is an error: two such would be taken for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from types import FunctionType
from typing import Any

_SECRET = (
    *("api_key", "apikey", "access_key", "private_key", "secret", "password", "credentials", "authorization"),
    *("api_token", "access_token", "auth_token", "bearer_token"),
)
"""How the names of secrets end."""

_BESIDE = {
    *("callbacks", "callback_manager", "cache", "verbose", "metadata", "tags", "run_name", "rate_limiter"),
    *("timeout", "request_timeout", "max_retries", "max_attempt_number", "wait_exponential_jitter"),
    *("retry_exception_types", "exponential_jitter_params", "token", "key"),
}
"""Fields that change no completion, or are secrets by these very names."""


def described(llm: object) -> object:
    """The class and the fields of a model, and of the models inside it, without secrets; its `identity` if it has one.

    ValueError names what cannot be told.
    """
    if isinstance(identity := getattr(llm, "identity", None), str):
        return identity
    fields = getattr(type(llm), "model_fields", None)
    if fields is None:
        return _value(llm, "llm")
    if hasattr(llm, "prepare") and "default" in fields:  # LangChain's configurable ones
        raise _untold(llm, "llm")
    settings = {name: _value(getattr(llm, name), name) for name in _telling(fields)}
    more = getattr(llm, "model_extra", None) or {}
    settings |= {name: _value(value, name) for name, value in more.items() if _tells(name)}
    left_out = {name: getattr(llm, name, None) for name, field in fields.items() if field.exclude}
    functions = {name: value.__qualname__ for name, value in left_out.items() if isinstance(value, FunctionType)}
    return {"class": f"{type(llm).__module__}.{type(llm).__qualname__}", **settings, **functions}


def _telling(fields: Mapping[str, Any]) -> Iterator[str]:
    """The names of the fields that a completion depends on; what is left out of every dump is a live thing."""
    return (name for name, field in fields.items() if not field.exclude and _tells(name))


def _tells(name: str) -> bool:
    return name not in _BESIDE and not name.lower().replace("-", "_").endswith(_SECRET)


def _value(value: Any, name: str) -> object:  # noqa: ANN401
    if hasattr(type(value), "model_fields") or isinstance(getattr(value, "identity", None), str):
        return described(value)
    if isinstance(value, Mapping):
        return {str(key): _value(each, str(key)) for key, each in value.items() if _tells(str(key))}
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_value(each, name), sort_keys=True) for each in value)
    if isinstance(value, (list, tuple)):
        return [_value(each, name) for each in value]
    if isinstance(value, Enum):
        return str(value.value)
    if hasattr(value, "get_secret_value"):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (PurePath, type)):
        return str(value)
    raise _untold(value, name)


def _untold(value: object, name: str) -> ValueError:
    return ValueError(
        f"a store cannot tell which model this is: {name} is a {type(value).__name__}, which has no settings to tell "
        "it by. Leave out store=, or give reranker= with stored(…) around a backend that has an `identity` of its own"
    )
