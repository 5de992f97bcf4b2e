"""A language model that belongs to somebody else's pipeline: an LLM object of a framework, say.

It is used as its owner would use it: by its sync method, in a thread, for a caller who waits in a thread, and by its
async method, on the caller's own event loop, for a caller who awaits. Such objects keep open connections, which belong
to the loop they were made on: used on two, they fail ("bound to a different event loop"). Knows `loop.caller` and how
such objects are made alike; knows no framework. They are called as `borrowed_calls` does, what they are is told by
`borrowed_identity`, their replies are read by `borrowed_reply`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

from rankr1_rag.backends import Request
from rankr1_rag.backends.borrowed_calls import in_thread, on_loop
from rankr1_rag.backends.borrowed_identity import described
from rankr1_rag.loop import caller
from rankr1_rag.types import Completion

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
