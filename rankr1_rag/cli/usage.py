"""What is the caller's fault and not ours. Knows exceptions; nothing of commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rankr1_rag.errors import FileError


class UsageError(Exception):
    """An argument is wrong, or something it needs is not installed: told in one line."""


@contextmanager
def arguments() -> Iterator[None]:
    """Around what checks arguments: its ValueError or ImportError is told as a UsageError. Elsewhere those are bugs."""
    try:
        yield
    except FileError:
        raise
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
