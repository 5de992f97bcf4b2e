"""Tells backends in the child of a fork that their threads and processes are the parent's. Knows no backend."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """What must let go in the child of a fork."""

    def forked(self) -> None:
        """Start anew at the next use, and leave the parent's things alone."""


_ALL: WeakSet[Forkable] = WeakSet()


def tell_of_forks(one: Forkable) -> None:
    """Call its `forked` in the child of every fork from now on, as long as it lives."""
    _ALL.add(one)


def _tell() -> None:
    for one in _ALL:
        one.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_tell)
