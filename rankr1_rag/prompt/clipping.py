"""Cuts a text to a number of tokens, with the model's tokenizer if it is at hand, else with an estimate."""

from __future__ import annotations

from collections.abc import Callable

Count = Callable[[str], int | None]

BYTES_PER_TOKEN = 3
"""The estimate without a tokenizer: careful for English (4 bytes a token), fair for Chinese (3 bytes a character)."""


def tokens(text: str, count: Count) -> int:
    """Tokens of a text: counted, or estimated (rounded up) if `count` returns None."""
    counted = count(text)
    return counted if counted is not None else -(-size(text) // BYTES_PER_TOKEN)


def clip(text: str, limit: int, count: Count) -> str:
    """A beginning of the text with at most `limit` ≥ 0 tokens, cut between words; the text itself if it fits.

    Close to the longest such beginning, not always it: a few calls of `count`, whatever the length.
    """
    if size(text) <= limit:  # no tokenizer in use spells a byte with more than one token
        return text
    while text and (length := tokens(text, count)) > limit:
        end = min(len(text) * limit // length, len(text) - 1)
        cut = text[:end]
        if not text[end].isspace():  # back to the last space, unless that takes over a fifth
            space = max(cut.rfind(" "), cut.rfind("\n"))
            cut = cut[:space] if space > 0.8 * end else cut
        text = cut.rstrip()
    return text


def size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
