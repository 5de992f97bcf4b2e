"""Fusion of a result with the order in which it was retrieved. Knows orders of positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def ordered(chosen: Iterable[int], n: int) -> tuple[int, ...]:
    """The chosen of n positions, then the rest in first-stage order."""
    return tuple(dict.fromkeys([*chosen, *range(n)]))


def fused(order: tuple[int, ...], constant: float, ranks: Sequence[int] | None = None) -> tuple[int, ...]:
    """Reciprocal-rank fusion of an order with that in which it was found (Cormack et al., SIGIR 2009, with 60).

    `ranks`: by position, from 1, in the retrieval that found it; the first-stage order if left out.
    """
    found = range(1, len(order) + 1) if ranks is None else ranks
    sums = {p: 1 / (constant + rank) + 1 / (constant + found[p]) for rank, p in enumerate(order, 1)}
    return tuple(sorted(order, key=sums.__getitem__, reverse=True))
