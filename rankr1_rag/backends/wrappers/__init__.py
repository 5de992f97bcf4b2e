"""Backends around backends: `stored(limited(retried(backend)))` is how they are usually stacked.

Outermost the store, so that what is known costs no slot; innermost the retries, so that one who waits keeps its slot
and an overloaded server is not asked by others meanwhile. Each has the method and the attributes of what it is around.
"""

from __future__ import annotations

from rankr1_rag.backends.wrappers.limited import limited
from rankr1_rag.backends.wrappers.retried import retried
from rankr1_rag.backends.wrappers.stored import stored

__all__ = ["limited", "retried", "stored"]
