"""Fusion of a result with the first-stage order. Knows orders of positions."""

from __future__ import annotations

from collections.abc import Iterable


def ordered(chosen: Iterable[int], n: int) -> tuple[int, ...]:
    """The chosen of n positions, then the rest in first-stage order."""
    return tuple(dict.fromkeys([*chosen, *range(n)]))


def fused(order: tuple[int, ...], constant: float, first: int | None = None) -> tuple[int, ...]:
    """Reciprocal-rank fusion of an order with the first-stage order (Cormack et al., SIGIR 2009, with 60).

    Only the `first` positions have a first-stage rank, all if left out; the others count by their rank in `order`.
    """
    n = len(order) if first is None else first
    sums = {p: 1 / (constant + rank) + (1 / (constant + p + 1) if p < n else 0) for rank, p in enumerate(order, 1)}
    return tuple(sorted(order, key=sums.__getitem__, reverse=True))
