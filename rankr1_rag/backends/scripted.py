"""A backend that answers with a function: the test seam of this package, for its tests and for yours.

Knows nothing of models. What the function says is taken as it is: limits, stop strings and choices are not enforced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from rankr1_rag.backends import Request
from rankr1_rag.types import Completion, Message

Answer = str | Completion
Script = Callable[[Sequence[Message]], Answer | Awaitable[Answer]]


class Scripted:
    """Calls `f(messages)`, a function or a coroutine function; an exception of `f` passes through.

        Scripted(lambda messages: "<think>The second names the year.</think> <answer>[2]</answer>")

    `f` gives the text, or a whole `Completion` where token counts, logprobs or a finish reason matter. Two scripts that
    share a store need an `identity` each: the default is made of `model` alone.
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
    ) -> None:
        self._f = f
        self._count = count
        self.model = model
        self.identity = f"scripted:{model}" if identity is None else identity
        self.context = context
        self.can_continue = can_continue

    def count(self, text: str) -> int | None:
        """What the `count` it was made with says, else None."""
        return None if self._count is None else self._count(text)

    async def complete(self, request: Request) -> Completion:
        """What the script says to these messages."""
        said = self._f(request.messages)
        if not isinstance(said, str | Completion):
            said = await said
        if isinstance(said, Completion):
            return said
        if not isinstance(said, str):
            raise TypeError(f"the script of {self!r} gave {type(said).__name__}, not a str or a Completion")
        return Completion(said)

    async def close(self) -> None:
        """Nothing to give back."""

    def __repr__(self) -> str:
        return f"Scripted({getattr(self._f, '__qualname__', self._f)!s}, identity={self.identity!r})"
