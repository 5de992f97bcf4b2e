"""How a query and its candidates are made to fit a model's context: cleaned, then clipped, once each.

The passages of a set share what the context leaves after the completion and the overhead, equally. Knows formats and
token counts; nothing of algorithms or of how completions are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rankr1_rag.prompt import Format, clip, sanitise, tokens
from rankr1_rag.types import Passage

MARGIN = 192
"""Tokens kept free for what the chat template adds and for asking again where the label must be forced."""

LEAST = 16
"""A share below so many tokens a passage is refused: the model would see nothing worth comparing."""


class Room(Protocol):
    """What of a `Backend` is needed here."""

    @property
    def context(self) -> int | None:
        """Longest prompt and completion together, in tokens; None where unknown."""

    def count(self, text: str) -> int | None:
        """Tokens of this text, None where the tokenizer is not at hand."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What will be shown of one query and its candidates; `clipped` counts the texts that were cut."""

    query: str
    lines: tuple[str, ...]
    clipped: int


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one reranker, in tokens; None is no limit of its own.

    `size` is the set size, `known` how many passages may be shown beside a set as known already.
    """

    format: Format
    size: int
    think_tokens: int
    query_tokens: int | None = None
    passage_tokens: int | None = None
    known: int = 0

    def fit(self, query: str, candidates: Sequence[Passage], backend: Room) -> Texts:
        """Clean and clip. ValueError where the context cannot hold a set of this size at all."""
        context = backend.context
        shown = sanitise(query)
        limit = _least(self.query_tokens, context // 4 if context else None)
        asked = clip(shown, limit, backend.count) if limit is not None else shown
        share = _least(self.passage_tokens, self._share(asked, min(self.size, len(candidates)), backend))
        lines = [self.format.line(passage) for passage in candidates]
        cut = lines if share is None else [clip(line, share, backend.count) for line in lines]
        return Texts(asked, tuple(cut), (asked != shown) + _differ(lines, cut))

    def _share(self, query: str, n: int, backend: Room) -> int | None:
        """Tokens for each passage of a full set, and for each that is known beside it."""
        if backend.context is None or n == 0:
            return None
        known, shown = [""] * self.known, n + self.known * self.format.given_times
        text = "\n".join(message["content"] for message in self.format.messages(query, [""] * n, known))
        completion = self.think_tokens + 2 * self.format.answer_tokens(n)
        share = (backend.context - MARGIN - completion - tokens(text, backend.count)) // shown
        if share < LEAST:
            beside = f" and {self.known} known beside them" if self.known else ""
            raise ValueError(
                f"a context of {backend.context} tokens leaves {max(share, 0)} tokens for each of {n} passages{beside} "
                f"after {completion} for the completion: lower the set size ({self.size}) below {n}, or think_tokens "
                f"({self.think_tokens}){', or hops' if self.known else ''}"
            )
        return share


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _differ(before: Iterable[str], after: Iterable[str]) -> int:
    return sum(a != b for a, b in zip(before, after, strict=True))
