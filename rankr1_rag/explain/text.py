"""Cleans and shortens text from elsewhere, so that it is safe to print."""

from __future__ import annotations

_REPLACEMENT = 0xFFFD
_HOSTILE = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},  # C0 as its picture: ESC becomes ␛
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), _REPLACEMENT),  # C1: 0x9B alone starts an escape sequence
    **dict.fromkeys(range(0x202A, 0x202F), _REPLACEMENT),  # bidirectional embeddings and overrides
    **dict.fromkeys(range(0x2066, 0x206A), _REPLACEMENT),  # bidirectional isolates
    **dict.fromkeys(range(0xD800, 0xE000), _REPLACEMENT),  # lone surrogates: not UTF-8
    0x2028: ord("\n"),
    0x2029: ord("\n"),
}


def clean(text: str) -> str:
    """The text with everything that could steer a terminal or turn the reading direction made visible.

    Newlines and tabs stay; control characters become their pictures (ESC is ␛); C1, bidirectional controls and lone
    surrogates become U+FFFD. Cleaning twice changes nothing.
    """
    return text.replace("\r\n", "\n").translate(_HOSTILE)


def line(text: str) -> str:
    """The text, clean and on one line."""
    return " ".join(clean(text).split())


def start(text: str, length: int) -> str:
    """The beginning of the text on one line, at most `length` characters, cut between words where that costs little."""
    whole = line(text)
    if len(whole) <= length:
        return whole
    cut = whole[: length - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > length // 2 else cut).rstrip(" .,;:") + "…"


def counted(number: int, noun: str) -> str:
    """`counted(1, "round")` is "1 round", `counted(2000, "round")` is "2,000 rounds"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
