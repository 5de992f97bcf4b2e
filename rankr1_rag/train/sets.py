"""Sets to train and to measure on, drawn from examples: one positive among negatives, in a shown order.

Each set follows from the seed, the epoch and its own example alone, so data may grow and training may resume without
another set changing. Knows nothing of prompts and models.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from rankr1_rag.plan import within
from rankr1_rag.train.examples import Example, digest
from rankr1_rag.types import Passage, Query


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Passages in shown order, of which only the one at position `right`, counted from 0, is a positive.

    What is `given` is shown as known already, and not to choose from.
    """

    query: Query
    passages: tuple[Passage, ...]
    right: int
    source: str
    given: tuple[Passage, ...] = ()


def sets(
    examples: Iterable[Example], *, size: int, seed: int, hard: int | None = None, epoch: int = 0
) -> list[TrainingSet]:
    """A set of `size` passages, 2..20, for every positive of every example, in an order drawn from seed and epoch.

    The negatives are drawn without replacement from the first `hard` ≥ 1 of the example, None takes all; fewer than
    `size` - 1 are all shown. Other positives never are. Where examples are added, the others keep their sets and their
    order. ValueError for another size or `hard`.
    """
    within("size", size, 2, 20)
    if hard is not None:
        within("hard", hard, 1)
    drawn: dict[tuple[str, int], TrainingSet] = {}
    for example in examples:
        for positive in example.positives:
            key = digest(f"{seed}\n{epoch}\n{example.query.id}\n{positive.id}")
            drawn[key, len(drawn)] = _drawn(key, example, positive, size, hard)
    return [drawn[key] for key in sorted(drawn)]


def _drawn(key: str, example: Example, positive: Passage, size: int, hard: int | None) -> TrainingSet:
    generator = random.Random(key)
    pool = example.negatives[:hard]
    shown = generator.sample(pool, min(size - 1, len(pool)))
    right = generator.randint(0, len(shown))
    shown.insert(right, positive)
    return TrainingSet(example.query, tuple(shown), right, example.source, example.given)
