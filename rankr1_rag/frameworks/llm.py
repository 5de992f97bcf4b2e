"""A language model that belongs to somebody else's pipeline: an LLM object of a framework, say.

It is used as its owner would use it: by its sync method, in a thread, for a caller who waits in a thread, and by its
async method, on the caller's own event loop, for a caller who awaits. Such objects keep open connections, which belong
to the loop they were made on: used on two, they fail ("bound to a different event loop"). Knows `loop.caller` and how
such objects are made alike; knows no framework. They are called as `borrowed_calls` does, what they are is told by
`borrowed_identity`, their replies are read by `borrowed_reply`.

Which model a borrowed object is: its settings as plain data, so that a store never mixes two of them.

Knows pydantic's `model_fields`, which every framework's models have; imports none of them. What cannot be told (a
function, an object without fields) is an error: two such would be taken for one.

What the replies of other libraries' models tell, in the words of all of them: the tokens, and why the text ended.

Knows mappings and objects with fields, and how OpenAI, Anthropic, Google, Ollama and the frameworks around them call
things; imports none of them. What is not told is 0, and "stop".
"""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from types import FunctionType
from typing import Any

from rankr1_rag.backends import Request
from rankr1_rag.concurrency.event_loop import caller
from rankr1_rag.concurrency.foreign_loop import in_thread, on_loop
from rankr1_rag.types import Completion

_SECRET = (
    *("api_key", "apikey", "access_key", "private_key", "secret", "password", "credentials", "authorization"),
    *("api_token", "access_token", "auth_token", "bearer_token"),
)
"""How the names of secrets end."""

_NOT_IDENTITY = {
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
    return name not in _NOT_IDENTITY and not name.lower().replace("-", "_").endswith(_SECRET)


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


_CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
_REASON = ("finish_reason", "stop_reason", "done_reason", "stopReason", "reason")
_INSIDE = (
    *("choices", "candidates", "incomplete_details", "usage", "usage_metadata", "token_usage"),
    *("prompt_tokens_details", "input_tokens_details", "input_token_details"),
)
_PROMPT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_CACHED = ("cached_tokens", "cache_read", "cache_read_input_tokens", "cached_content_token_count")
_CACHE_TOKENS = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Parts of the prompt that Anthropic counts beside its `input_tokens`, as nobody else does."""
_COMPLETION = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
_DEPTH = 4


def completion(text: str | None, thought: str, *told: object) -> Completion:
    """The completion of a reply: its text, its thought where that is had apart, and whatever objects tell of it.

    The first that tells a thing counts. A thought that was cut off before any text stays open.
    """
    places = [place for one in told for place in _places(one)]
    reason = _first(places, _REASON)
    reason = getattr(reason, "name", reason)
    cut = isinstance(reason, str) and reason.lower() in _CUT_OFF
    text = text or ""
    if thought:
        text = f"<think>{thought}" if cut and not text else f"<think>{thought}</think>{text}"
    return Completion(
        text=text,
        prompt_tokens=_number(places, _PROMPT, _CACHE_TOKENS),
        cached_tokens=_number(places, _CACHED),
        completion_tokens=_number(places, _COMPLETION),
        finish_reason="length" if cut else "stop",
    )


def _places(one: object, depth: int = _DEPTH) -> Iterator[Mapping[str, Any]]:
    """An object's fields, and those of the objects in it where replies keep such things."""
    fields = one if isinstance(one, Mapping) else getattr(one, "__dict__", {})
    yield fields
    for inner in (fields.get(name) for name in _INSIDE if depth):
        yield from _places(inner[0] if isinstance(inner, list) and inner else inner, depth - 1)


def _first(places: list[Mapping[str, Any]], names: tuple[str, ...]) -> object:
    return next((place[name] for place in places for name in names if place.get(name) is not None), None)


def _number(places: list[Mapping[str, Any]], names: tuple[str, ...], beside: tuple[str, ...] = ()) -> int:
    """The first of these that is told, with what stands beside it."""
    for place in places:
        for name in names:
            if isinstance(number := place.get(name), int):
                others = (place.get(other) for other in beside if name == "input_tokens")
                return number + sum(other for other in others if isinstance(other, int))
    return 0


_WRAPPED = ("bound", "runnable", "default")
"""Where wrappers keep the model: LangChain's `bind` and `with_retry`; `with_fallbacks`; `configurable_fields`."""

_LIMITS = ("max_tokens", "max_new_tokens", "max_output_tokens", "num_predict")


class Borrowed(ABC):
    """A backend around `llm`; a subclass says how it is asked, `chat` and `achat`.

    No message is continued, and choices, seeds and log-probabilities are not passed on: no framework has a common word
    for them. `close` leaves the model to its owner.
    """

    can_continue = False
    at_once: int | None = None
    """How many calls of `chat` the model stands at once; None is any number."""
    sync_only = False
    """Whether its async method is its sync one in disguise, which would hold up the caller's event loop, or need it."""
    sets_limit = sets_temperature = True
    """Whether the request's limit and temperature are set, or the model's own stay."""

    def __init__(self, llm: Any, model: str, context: int | None = None) -> None:  # noqa: ANN401
        self.llm = llm
        self.model = model
        self.context = context if context and context > 0 else None
        self._copies: dict[tuple[int, float], Any] = {}

    @abstractmethod
    def chat(self, request: Request) -> Completion:
        """Complete; called in a thread of its own. NotImplementedError where the model is async only."""

    @abstractmethod
    async def achat(self, request: Request) -> Completion:
        """Complete; called on the event loop of the caller. NotImplementedError where the model is sync only."""

    @property
    def identity(self) -> str:
        """The name of the model and a digest of all its settings but keys. ValueError where they cannot be told.

        Where copies are asked it is that of the model when it was first told, as the copies are.
        """
        return self._first_identity if self.sets_limit or self.sets_temperature else self._identity()

    @cached_property
    def _first_identity(self) -> str:
        return self._identity()

    def _identity(self) -> str:
        settings = json.dumps([described(self.llm), self.sets_limit, self.sets_temperature], sort_keys=True)
        return f"{type(self).__name__}:{self.model}:{hashlib.sha256(settings.encode()).hexdigest()[:16]}"

    def count(self, text: str) -> int | None:
        """None: its tokenizer is not at hand."""
        return None

    async def complete(self, request: Request) -> Completion:
        """Complete where the caller is; cancelling abandons the request."""
        who = caller.get()
        if who is None or self.sync_only:
            try:
                return await self._in_thread(request)
            except NotImplementedError:
                return await self.achat(request)
        try:
            return await on_loop(who, partial(self.achat, request))
        except NotImplementedError:
            return await self._in_thread(request)

    async def close(self) -> None:
        """Let go of the copies. The model is not ours."""
        self._copies.clear()

    def limited(self, request: Request) -> Any:  # noqa: ANN401
        """The model with the request's limit and temperature, if it is a pydantic model with such fields; else as is.

        The fields of a copy, because what the methods take differs from model to model. A temperature of None stays:
        there are models that take none. Copies are kept, as each may open connections of its own: a model is taken as
        it was when it was first asked.
        """
        key = (request.max_tokens, request.temperature)
        if key not in self._copies:
            self._copies[key] = self._limited(self.llm, request)
        return self._copies[key]

    def _limited(self, llm: Any, request: Request) -> Any:  # noqa: ANN401
        """A copy of the model, or of what is wrapped around it, with the request's limits."""
        known = getattr(type(llm), "model_fields", {})
        fields: dict[str, Any] = {n: self._limited(getattr(llm, n), request) for n in _WRAPPED if n in known}
        if "fallbacks" in known:
            fields["fallbacks"] = [self._limited(one, request) for one in llm.fallbacks]
        if not fields and self.sets_limit:
            fields = {name: request.max_tokens for name in _LIMITS if name in known}
        if self.sets_temperature and "temperature" in known and llm.temperature is not None:
            fields["temperature"] = request.temperature
        try:
            return llm.model_copy(update=fields) if fields else llm
        except Exception:
            return llm  # one that refuses is asked as it is

    async def _in_thread(self, request: Request) -> Completion:
        return await in_thread(partial(self._in_turn, request))

    def _in_turn(self, request: Request) -> Completion:
        with self._turns:
            return self.chat(request)

    @cached_property
    def _turns(self) -> AbstractContextManager[Any]:
        return threading.Semaphore(self.at_once) if self.at_once else nullcontext()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_turns", "_first_identity")}
        return {**kept, "_copies": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.llm).__name__} {self.model!r})"


def innermost(llm: Any) -> Any:  # noqa: ANN401
    """The model inside whatever is wrapped around it."""
    while (inner := next((getattr(llm, name) for name in _WRAPPED if hasattr(llm, name)), None)) is not None:
        llm = inner
    return llm
