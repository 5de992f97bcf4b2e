"""What a backend is: one method, and what one must know about it.

A backend turns a `Request` (messages, limits) into a `Completion` (text, token counts). It knows tokens and servers; it
knows nothing of queries, passages, labels or algorithms. Each backend has a module of its own, which imports what it
needs only when it is used; `wrappers` holds backends around backends: `stored`, `retried`, `limited`, `spread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rankr1_rag.types import Completion, Message


@dataclass(frozen=True, slots=True)
class Request:
    """One completion asked of a backend.

    `messages` may end with an assistant message: a backend with `can_continue` goes on writing it. `max_tokens` is the
    most tokens of the completion, ≥ 1. `temperature` 0 is greedy. The text ends before the first of `stop`. With
    `choices` the completion is exactly one of these strings (a backend that cannot constrain says so in its docstring
    and completes freely). `logprobs` is the number of alternatives wanted for each token (0: none). `sample` tells
    apart several completions of the same prompt.
    """

    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    logprobs: int = 0
    seed: int = 0
    sample: int = 0


@runtime_checkable
class Backend(Protocol):
    """A language model: cancelling `complete` abandons the request."""

    @property
    def model(self) -> str:
        """The name under which the table of checkpoints knows it."""

    @property
    def identity(self) -> str:
        """Model, adapter digest and tokenizer: all that a stored completion depends on; never a secret."""

    @property
    def context(self) -> int | None:
        """Longest prompt and completion together, in tokens; None where unknown."""

    @property
    def can_continue(self) -> bool:
        """A final assistant message is continued; if not, the forced label is asked for in a new user turn."""

    def count(self, text: str) -> int | None:
        """Tokens of this text, None where the tokenizer is not at hand. Called for every passage, from any thread."""

    async def complete(self, request: Request) -> Completion:
        """Complete, or raise a `BackendError`; `BackendUnavailable` where asking again may help."""

    async def close(self) -> None:
        """Give back memory, connections and processes. Safe to call twice."""
