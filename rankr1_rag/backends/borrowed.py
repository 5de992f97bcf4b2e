"""A language model that belongs to somebody else's pipeline: an LLM object of a framework, say.

It is used as its owner would use it: by its sync method, in a thread, for a caller who waits in a thread, and by its
async method, on the caller's own event loop, for a caller who awaits. Such objects keep open connections, which belong
to the loop they were made on: used on two, they fail ("bound to a different event loop"). Knows `loop.caller` and how
such objects are made alike; knows no framework. Replies are the business of `borrowed_reply`.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

from rankr1_rag.backends import Request
from rankr1_rag.loop import caller
from rankr1_rag.types import Completion

T = TypeVar("T")

_LIMITS = ("max_tokens", "max_new_tokens", "max_output_tokens", "num_predict")


class Borrowed(ABC):
    """A backend around `llm`; a subclass says how it is asked, `chat` and `achat`.

    No message is continued, and choices, seeds and log-probabilities are not passed on: no framework has a common word
    for them. `close` leaves the model to its owner.
    """

    can_continue = False
    at_once: int | None = None
    """How many requests the model stands at once; None is any number."""

    def __init__(self, llm: Any, model: str, context: int | None = None) -> None:  # noqa: ANN401
        self.llm = llm
        self.model = model
        self.context = context
        self._copies: dict[tuple[int, float], Any] = {}

    @abstractmethod
    def chat(self, request: Request) -> Completion:
        """Complete; called in a thread of its own. NotImplementedError where the model is async only."""

    @abstractmethod
    async def achat(self, request: Request) -> Completion:
        """Complete; called on the event loop of the caller. NotImplementedError where the model is sync only."""

    @property
    def identity(self) -> str:
        """The kind and the name of the model: two under one name should not share a store."""
        return f"{type(self).__name__}:{type(self.llm).__name__}:{self.model}"

    def count(self, text: str) -> int | None:
        """None: its tokenizer is not at hand."""
        return None

    async def complete(self, request: Request) -> Completion:
        """Complete where the caller is; cancelling abandons the request."""
        if (loop := caller.get()) is None:
            try:
                return await self._in_thread(request)
            except NotImplementedError:
                return await self.achat(request)
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.achat(request), loop))
        except NotImplementedError:
            return await self._in_thread(request)

    async def close(self) -> None:  # noqa: B027
        """Nothing: it is not ours."""

    def limited(self, request: Request) -> Any:  # noqa: ANN401
        """The model with the request's limit and temperature, if it is a pydantic model with such fields; else as is.

        The fields of a copy, because what the methods take differs from model to model. A temperature of None stays:
        there are models that take none. Copies are kept, as each may open connections of its own.
        """
        known = getattr(type(self.llm), "model_fields", {})
        fields: dict[str, object] = {name: request.max_tokens for name in _LIMITS if name in known}
        if "temperature" in known and self.llm.temperature is not None:
            fields["temperature"] = request.temperature
        if not fields:
            return self.llm
        key = (request.max_tokens, request.temperature)
        if key not in self._copies:
            self._copies[key] = self.llm.model_copy(update=fields)
        return self._copies[key]

    async def _in_thread(self, request: Request) -> Completion:
        return await asyncio.wrap_future(_in_thread(lambda: self.chat(request)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.llm).__name__} {self.model!r})"


def _in_thread(f: Callable[[], T]) -> Future[T]:
    """Call it in a daemon thread of its own: an abandoned request must not keep Python from leaving."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(f)
        except BaseException as error:
            with suppress(InvalidStateError):  # cancelled meanwhile
                future.set_exception(error)
        else:
            with suppress(InvalidStateError):
                future.set_result(result)

    threading.Thread(target=work, name="rankr1-borrowed", daemon=True).start()
    return future
