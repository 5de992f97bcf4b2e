"""Backends around backends, usually stacked as `stored(limited(retried(backend)))`.

The store is outermost: what it holds takes no slot. The retries are innermost: a request that waits keeps its slot, so
an overloaded server gets no others meanwhile. Several servers replace the one backend:
`stored(limited(retried(load_balanced([backend, backend]))))`. There the retries are outside, so that a request waits
only if every server has failed.
"""

from __future__ import annotations

from rankr1_rag.backends.wrappers.base import limited, retried
from rankr1_rag.backends.wrappers.cache import stored
from rankr1_rag.backends.wrappers.load_balancer import load_balanced

__all__ = ["limited", "load_balanced", "retried", "stored"]
