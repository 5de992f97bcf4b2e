"""Fusion of a result with the first-stage order. Knows orders of positions."""

from __future__ import annotations

from collections.abc import Iterable


def ordered(chosen: Iterable[int], n: int) -> tuple[int, ...]:
    """The chosen of n positions, then the rest in first-stage order."""
    return tuple(dict.fromkeys([*chosen, *range(n)]))


def fused(order: tuple[int, ...], constant: float) -> tuple[int, ...]:
    """Reciprocal-rank fusion of an order with the first-stage order (Cormack et al., SIGIR 2009, with 60)."""
    sums = {p: 1 / (constant + rank) + 1 / (constant + p + 1) for rank, p in enumerate(order, 1)}
    return tuple(sorted(order, key=sums.__getitem__, reverse=True))
