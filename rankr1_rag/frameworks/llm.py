"""A language model of a framework as a backend: how it is called, identified and read; no framework is imported."""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cached_property, partial
from pathlib import PurePath
from types import FunctionType
from typing import Any

from rankr1_rag.backends import Request, token_count
from rankr1_rag.concurrency.event_loop import caller
from rankr1_rag.concurrency.foreign_loop import in_thread, on_loop
from rankr1_rag.redaction import remember_all
from rankr1_rag.types import Completion

WRAPPED = ("bound", "runnable", "default")
"""Where wrappers keep the model: LangChain's `bind` and `with_retry`; `with_fallbacks`; `configurable_fields`."""

CONTEXT = ("num_ctx", "n_ctx", "max_model_len")
"""Settings with the context length that a model is loaded with: it holds whatever the framework's metadata say."""

ARGUMENTS = ("kwargs", "additional_kwargs", "model_kwargs", "options")
"""Where models keep settings that have no field of their own."""

LIMITS = ("max_tokens", "max_new_tokens", "max_output_tokens", "num_predict")


class FrameworkLLM(ABC):
    """A backend around `llm`; a subclass defines how it is called, `chat` and `achat`.

    A caller that waits is answered by `chat`, in a thread; one that awaits by `achat`, on its own event loop: such
    objects keep open connections, which work only on the loop where they were opened. Choices, seeds and
    log-probabilities are not passed on: frameworks have no common names for them.
    """

    can_continue = False
    max_concurrent_calls: int | None = None
    """Most concurrent calls of `chat` (default: no limit)."""
    sync_only = False
    """Whether the model's async method only calls its sync method, which would block the caller's event loop."""
    sets_limit = sets_temperature = True
    """Whether the request's limit and temperature replace those of the model."""

    def __init__(self, llm: Any, model: str, context: int | None = None) -> None:  # noqa: ANN401
        self.llm = llm
        self.model = model
        inner = llm
        while inner is not None:
            remember_all(getattr(inner, "__dict__", {}))
            inner = next((getattr(inner, name) for name in WRAPPED if hasattr(inner, name)), None)
        context = loaded_context(llm) or context
        self.context = context if context and context > 0 else None
        self._copies: dict[tuple[int, float], Any] = {}
        self._identity: str | None = None

    @property
    def capacity(self) -> int | None:
        """`max_concurrent_calls`."""
        return self.max_concurrent_calls

    @abstractmethod
    def chat(self, request: Request) -> Completion:
        """Complete; called in a thread of its own. NotImplementedError if the model is async only."""

    @abstractmethod
    async def achat(self, request: Request) -> Completion:
        """Complete; called on the event loop of the caller. NotImplementedError if the model is sync only."""

    @property
    def identity(self) -> str:
        """The model's name and a digest of all its settings but keys. ValueError if they cannot be described.

        That of the first use if copies of the model are asked: they are made of that state.
        """
        if self._identity is None or not (self.sets_limit or self.sets_temperature):
            settings = json.dumps([describe(self.llm), self.sets_limit, self.sets_temperature], sort_keys=True)
            digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
            self._identity = f"{type(self).__name__}:{self.model}:{digest}"
        return self._identity

    def count(self, text: str) -> int | None:
        """None: the tokenizer is not available."""
        return None

    async def complete(self, request: Request) -> Completion:
        """Complete in the caller's way, or in the only way that the model has; cancelling abandons the request."""
        who, chat = caller.get(), partial(self.chat, request)
        if who is None or self.sync_only:
            try:
                return await in_thread(chat, self._slots)
            except NotImplementedError:
                return await self.achat(request)
        try:
            return await on_loop(who, partial(self.achat, request))
        except NotImplementedError:
            return await in_thread(chat, self._slots)

    @cached_property
    def _slots(self) -> threading.Semaphore | None:
        return threading.Semaphore(self.max_concurrent_calls) if self.max_concurrent_calls else None

    async def close(self) -> None:
        """Drop the copies; the model stays open."""
        self._copies.clear()

    def with_limits(self, request: Request) -> Any:  # noqa: ANN401
        """A copy of the model with the request's limit and temperature, if it is a pydantic model with such fields.

        A temperature of None stays: some models take none. Copies are kept, as each may open connections.
        """
        if (key := (request.max_tokens, request.temperature)) not in self._copies:
            self._copies[key] = self._copy(self.llm, request)
        return self._copies[key]

    def _copy(self, llm: Any, request: Request) -> Any:  # noqa: ANN401
        known = getattr(type(llm), "model_fields", {})
        fields: dict[str, Any] = {name: self._copy(getattr(llm, name), request) for name in WRAPPED if name in known}
        if "fallbacks" in known:
            fields["fallbacks"] = [self._copy(one, request) for one in llm.fallbacks]
        if not fields and self.sets_limit:
            fields = {name: request.max_tokens for name in LIMITS if name in known}
        if self.sets_temperature and "temperature" in known and llm.temperature is not None:
            fields["temperature"] = request.temperature
        try:
            return llm.model_copy(update=fields) if fields else llm
        except Exception:
            return llm  # a model that refuses is asked unchanged

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: one for name, one in vars(self).items() if name != "_slots"}, "_copies": {}, "_identity": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.llm).__name__} {self.model!r})"


def loaded_context(llm: Any) -> int | None:  # noqa: ANN401
    """The context length with which a model, or the model inside a wrapper, is loaded; None if that is not set."""
    while llm is not None:
        groups = [getattr(llm, name, None) for name in ARGUMENTS]
        found = [getattr(llm, name, None) for name in CONTEXT]
        found += [group.get(name) for group in groups if isinstance(group, Mapping) for name in CONTEXT]
        if sizes := [size for size in found if isinstance(size, int) and size > 0]:
            return sizes[0]
        llm = next((getattr(llm, name) for name in WRAPPED if hasattr(llm, name)), None)
    return None


SECRETS = (
    *("api_key", "apikey", "access_key", "private_key", "secret", "password", "credentials", "authorization"),
    *("api_token", "access_token", "auth_token", "bearer_token"),
)
"""Endings of the names of secrets."""

NOT_IDENTITY = {
    *("callbacks", "callback_manager", "cache", "verbose", "metadata", "tags", "run_name", "rate_limiter"),
    *("timeout", "request_timeout", "max_retries", "max_attempt_number", "wait_exponential_jitter"),
    *("retry_exception_types", "exponential_jitter_params", "token", "key"),
}
"""Fields that change no completion, or are secrets by these very names."""


def describe(value: Any, name: str = "llm") -> Any:  # noqa: ANN401
    """The settings of a model, and of the models inside it, as plain data without secrets; or its own `identity`.

    ValueError names a field that cannot be described (a function, an object without fields): two models that differ
    only there would share a store. Fields excluded from dumps are live objects, and left out unless they are functions.
    """
    if isinstance(identity := getattr(value, "identity", None), str):
        return identity
    fields = getattr(type(value), "model_fields", None)
    if fields is not None and not (hasattr(value, "prepare") and "default" in fields):  # not LangChain's configurable
        values = {name: getattr(value, name) for name, field in fields.items() if not field.exclude}
        excluded = {name: getattr(value, name, None) for name, field in fields.items() if field.exclude}
        return {
            "class": f"{type(value).__module__}.{type(value).__qualname__}",
            **describe(values | (getattr(value, "model_extra", None) or {})),
            **{name: one.__qualname__ for name, one in excluded.items() if isinstance(one, FunctionType)},
        }
    if isinstance(value, Mapping):
        named = {str(key): one for key, one in value.items() if str(key) not in NOT_IDENTITY}
        secret = {key for key in named if key.lower().replace("-", "_").endswith(SECRETS)}
        return {key: describe(one, key) for key, one in named.items() if key not in secret}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [describe(each, name) for each in value]
        return items if isinstance(value, (list, tuple)) else sorted(json.dumps(each, sort_keys=True) for each in items)
    if hasattr(value, "get_secret_value"):
        return None
    if isinstance(value, (PurePath, type, Enum)):
        return str(value.value if isinstance(value, Enum) else value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(
        f"cannot identify the model for the store: {name} is a {type(value).__name__}, which has no settings. "
        "Leave out store=, or pass reranker= with stored(…) around a backend with an `identity`"
    )


CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
REASONS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "reason")
NESTED = (
    *("choices", "candidates", "incomplete_details", "usage", "usage_metadata", "token_usage"),
    *("prompt_tokens_details", "input_tokens_details", "input_token_details"),
)
PROMPT_TOKENS = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
CACHED_TOKENS = ("cached_tokens", "cache_read", "cache_read_input_tokens", "cached_content_token_count")
COMPLETION_TOKENS = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
ANTHROPIC_CACHE = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Parts of the prompt that only Anthropic does not count in its `input_tokens`."""


def completion_from_reply(text: str | None, reasoning: str, *sources: object) -> Completion:
    """The completion of a reply: its text, its reasoning if that is separate, and the objects that describe it.

    Token counts (else 0) and finish reason (else "stop") are searched in `sources`, in this order, under the names
    that OpenAI, Anthropic, Google, Ollama and the frameworks use. Reasoning cut off before any text stays open.
    """
    groups = [group for source in sources for group in field_groups(source)]

    def first_number(names: tuple[str, ...]) -> int:
        for group in groups:
            for name in names:
                if number := token_count(group.get(name)):
                    others = ANTHROPIC_CACHE if name == "input_tokens" else ()
                    return number + sum(token_count(group.get(other)) for other in others)
        return 0

    reason = next((group[name] for group in groups for name in REASONS if group.get(name) is not None), None)
    cut_off = str(getattr(reason, "name", reason)).lower() in CUT_OFF
    text = text or ""
    if reasoning:
        text = f"<think>{reasoning}" if cut_off and not text else f"<think>{reasoning}</think>{text}"
    prompt_tokens = first_number(PROMPT_TOKENS)
    return Completion(
        text=text,
        prompt_tokens=prompt_tokens,
        cached_tokens=min(first_number(CACHED_TOKENS), prompt_tokens),
        completion_tokens=first_number(COMPLETION_TOKENS),
        finish_reason="length" if cut_off else "stop",
    )


def field_groups(source: object, depth: int = 4) -> Iterator[Mapping[str, Any]]:
    """The fields of an object, and those of the objects inside it that replies use for such things."""
    fields = source if isinstance(source, Mapping) else getattr(source, "__dict__", {})
    yield fields
    for inner in (fields.get(name) for name in NESTED if depth):
        yield from field_groups(inner[0] if isinstance(inner, list) and inner else inner, depth - 1)
