"""The backend protocol: a language model turns a `Request` (messages, limits) into a `Completion` (text, tokens).

Backends know tokens and servers; they know nothing of queries, passages, labels or algorithms. Each has a module of its
own, which imports its libraries when it is used. `wrappers` holds backends around backends: `stored`, `retried`,
`limited`, `load_balanced`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rankr1_rag.types import Completion, Message


@dataclass(frozen=True, slots=True)
class Request:
    """The request of one completion.

    `messages` may end with an assistant message: a backend with `can_continue` continues it. `max_tokens` is the limit
    of the completion, ≥ 1. `temperature` 0 is greedy. The text ends before the first of `stop`. With `choices` the
    completion is exactly one of these strings (a backend that cannot constrain says so in its docstring and completes
    freely). `logprobs` is the number of alternatives to return for each token (0: none). `sample` distinguishes several
    completions of the same prompt.
    """

    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    logprobs: int = 0
    seed: int = 0
    sample: int = 0


on_text: ContextVar[Callable[[int, str], object] | None] = ContextVar("on_text", default=None)
"""Inside `complete`: the function that a backend that streams calls on its event loop with each piece of the text as it
comes, and the number of characters before it; None if nobody listens. It never raises."""


def token_count(value: object) -> int:
    """A number of tokens as a server says it; 0 for anything that is none."""
    return value if type(value) is int and 0 <= value < 2**31 else 0


@runtime_checkable
class Backend(Protocol):
    """A language model: cancelling `complete` abandons the request.

    It may have an attribute `capacity`, the number of requests that it computes at once: as many queries are open then,
    and the comparisons of the earliest of them go first. It may have an attribute `special_tokens`, a frozenset of the
    texts that its tokenizer makes control tokens of: they are neutralised in everything that is not the prompt's own.
    """

    @property
    def model(self) -> str:
        """Its name in the table of checkpoints."""

    @property
    def identity(self) -> str:
        """Model, adapter digest and tokenizer: all that a stored completion depends on; never a secret."""

    @property
    def context(self) -> int | None:
        """Longest prompt and completion together, in tokens; None if unknown."""

    @property
    def can_continue(self) -> bool:
        """Whether a final assistant message is continued; if not, the forced answer is requested in a new user turn."""

    def count(self, text: str) -> int | None:
        """Tokens of this text, None if there is no tokenizer. Called for every passage, from any thread."""

    async def complete(self, request: Request) -> Completion:
        """Complete, or raise a `BackendError`; `BackendUnavailable` if another attempt may help."""

    async def close(self) -> None:
        """Release memory, connections and processes. Safe to call twice."""
