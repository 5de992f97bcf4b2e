"""A checksum behind each line of JSON that we write: its CRC-32 as 32 blanks, a space for 0 and a tab for 1.

Blanks behind the JSON belong to the line and not to its value. So every parser skips them, those of earlier versions of
this package too, and a program that reads a line, changes it and writes it again drops them: only a line whose bytes
changed is taken for damaged.
"""

from __future__ import annotations

import re
from zlib import crc32

_CHECKSUM = re.compile(rb"(?<![ \t])(?=[ \t]*\t)[ \t]{32}[\r\n]*\Z")
_BLANKS = str.maketrans("01", " \t")


def with_checksum(line: str, key: bytes = b"") -> str:
    """A line of JSON, without its end, and its checksum; it is also over the key under which the line is found."""
    return line + f"{crc32(line.encode(), crc32(key)):032b}".translate(_BLANKS)


def has_checksum(line: bytes) -> bool:
    """Whether the line, with its end or without, has a checksum: any at all."""
    return _CHECKSUM.search(line[-40:]) is not None


def without_checksum(line: str, key: bytes = b"") -> str:
    """The line, without its end, without its checksum if it has one.

    ValueError if that is the checksum of another line: some bytes have changed.
    """
    if not has_checksum(line[-40:].encode("utf-8", "surrogatepass")):
        return line
    if with_checksum(line[:-32], key) != line:
        remedy = "fetch it again; or if you changed the line yourself, remove the blanks at its end"
        raise ValueError(f"damaged, the checksum behind the line is that of another line: {remedy}")
    return line[:-32]
