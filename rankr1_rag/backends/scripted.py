"""A backend that answers with a function, for the tests of this package and of its users."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

from rankr1_rag.backends import Request, on_text
from rankr1_rag.types import Completion, Message

Script = Callable[[Sequence[Message]], str | Completion | Awaitable[str | Completion] | AsyncIterable[str]]


class Scripted:
    """Calls `f(messages)`, a function, a coroutine function or, to stream, an async generator of pieces of the text.

        Scripted(lambda messages: "<think>The second names the year.</think> <answer>[2]</answer>")

    An exception of `f` passes through. `f` returns the text, or a `Completion` with token counts, logprobs or a finish
    reason; limits, stop strings and choices are not enforced. Two scripts that share a store need an `identity` each:
    the default is made of `model`.
    """

    def __init__(
        self,
        f: Script,
        *,
        model: str = "scripted",
        identity: str | None = None,
        context: int | None = None,
        can_continue: bool = True,
        count: Callable[[str], int] | None = None,
        capacity: int | None = None,
    ) -> None:
        self._f = f
        self._count = count
        self.model = model
        self.identity = f"scripted:{model}" if identity is None else identity
        self.context = context
        self.can_continue = can_continue
        self.capacity = capacity

    def count(self, text: str) -> int | None:
        """The result of the `count` argument, or None."""
        return None if self._count is None else self._count(text)

    async def complete(self, request: Request) -> Completion:
        """The script's answer to these messages."""
        answer = self._f(request.messages)
        if isinstance(answer, AsyncIterable):
            text, listen = "", on_text.get()
            async for piece in answer:
                if listen is not None:
                    listen(len(text), piece)
                text += piece
            answer = text
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, Completion):
            return answer
        if not isinstance(answer, str):
            raise TypeError(f"the script of {self!r} must return a str or a Completion, not {type(answer).__name__}")
        return Completion(answer)

    async def close(self) -> None:
        """Nothing to release."""

    def __repr__(self) -> str:
        return f"Scripted({getattr(self._f, '__qualname__', self._f)!s}, identity={self.identity!r})"
