"""Lists of names as they are given. Knows no name."""

from __future__ import annotations

from collections.abc import Sequence


def distinct(what: str, names: Sequence[str]) -> Sequence[str]:
    """The names. ValueError where there is none, or one twice."""
    if not names:
        raise ValueError(f"no {what} is given: name one at least")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{what} {twice[0]!r} is given twice: once is enough")
    return names
