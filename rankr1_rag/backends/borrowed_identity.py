"""Which model a borrowed object is: its settings as plain data, so that a store never mixes two of them.

Knows pydantic's `model_fields`, which every framework's models have; imports none of them. What cannot be told (a
function, an object without fields) is an error: two such would be taken for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

_SECRET = ("key", "token", "secret", "password", "credentials", "authorization")
"""How the names of secrets end."""
_BESIDE = {
    "callbacks",
    "callback_manager",
    "cache",
    "verbose",
    "metadata",
    "tags",
    "name",
    "rate_limiter",
    "output_parser",
}
"""Fields that change no completion."""


def described(llm: object) -> object:
    """The class and the fields of a model, and of the models inside it, without secrets; its `identity` if it has one.

    ValueError names what cannot be told.
    """
    if isinstance(identity := getattr(llm, "identity", None), str):
        return identity
    fields = getattr(type(llm), "model_fields", None)
    if fields is None:
        return _value(llm, "llm")
    settings = {name: _value(getattr(llm, name), name) for name in _telling(fields)}
    return {"class": f"{type(llm).__module__}.{type(llm).__qualname__}", **settings}


def _telling(fields: Mapping[str, Any]) -> Iterator[str]:
    """The names of the fields that a completion depends on; what is left out of every dump is a live thing."""
    for name, field in fields.items():
        if not field.exclude and name not in _BESIDE and not name.lower().endswith(_SECRET):
            yield name


def _value(value: Any, name: str) -> object:  # noqa: ANN401
    if hasattr(type(value), "model_fields") or isinstance(getattr(value, "identity", None), str):
        return described(value)
    if isinstance(value, Mapping):
        return {
            str(key): _value(each, str(key)) for key, each in value.items() if not str(key).lower().endswith(_SECRET)
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_value(each, name) for each in value]
    if isinstance(value, Enum):
        return str(value.value)
    if hasattr(value, "get_secret_value"):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (PurePath, type)):
        return str(value)
    raise ValueError(
        f"a store cannot tell which model this is: {name} is a {type(value).__name__}, which has no settings to tell "
        "it by. Leave out store=, or give reranker= with stored(…) around a backend that has an `identity` of its own"
    )
