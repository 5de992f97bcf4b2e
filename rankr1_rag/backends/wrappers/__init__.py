"""Backends around backends: `stored(limited(retried(backend)))` is how they are usually stacked.

Outermost the store, so that what is known costs no slot; innermost the retries, so that one who waits keeps its slot
and an overloaded server is not asked by others meanwhile. Each has the method and the attributes of what it is around.

Several servers take the place of the one: `stored(limited(retried(spread([backend, backend]))))`. The retries stand
outside, so that a request waits only when no server is left; inside, it would wait for a lost one beside another that
is idle.
"""

from __future__ import annotations

from rankr1_rag.backends.wrappers.base import limited
from rankr1_rag.backends.wrappers.cache import stored
from rankr1_rag.backends.wrappers.load_balancer import spread
from rankr1_rag.backends.wrappers.retry import retried

__all__ = ["limited", "retried", "spread", "stored"]
