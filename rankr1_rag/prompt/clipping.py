"""Cutting a text to a number of tokens, with a model's tokenizer where it is at hand and an estimate where it is not.

Knows nothing of formats; the tokenizer comes in as a function.
"""

from __future__ import annotations

from collections.abc import Callable

Count = Callable[[str], int | None]

BYTES_PER_TOKEN = 3
"""The estimate without a tokenizer: careful for English (4 bytes a token), fair for Chinese (3 bytes a character)."""


def tokens(text: str, count: Count) -> int:
    """Tokens of a text: counted, or estimated (rounded up) where `count` gives None."""
    counted = count(text)
    return counted if counted is not None else -(-_size(text) // BYTES_PER_TOKEN)


def clip(text: str, limit: int, count: Count) -> str:
    """A beginning of the text with at most `limit` ≥ 0 tokens, cut between words; the text itself where it fits.

    Close to the longest such beginning, not always it: a few calls of `count`, whatever the length.
    """
    if _size(text) <= limit:  # no tokenizer in use spells a byte with more than one token
        return text
    while text and (length := tokens(text, count)) > limit:
        text = _cut(text, len(text) * limit // length)
    return text


def _cut(text: str, end: int) -> str:
    """At most `end` characters and fewer than there were, up to the last space unless that takes over a fifth."""
    end = min(end, len(text) - 1)
    cut = text[:end]
    if not text[end].isspace():
        space = max(cut.rfind(" "), cut.rfind("\n"))
        cut = cut[:space] if space > 0.8 * end else cut
    return cut.rstrip()


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
