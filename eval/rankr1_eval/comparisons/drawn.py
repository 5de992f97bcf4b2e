"""Which sets are asked: one for every positive of every example, drawn anew as often as wanted. Knows no model.

An id is made of what a set shows: the same id means the same query and the same passages in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

from rankr1_eval.folder import digest
from rankr1_rag.train.examples import Example
from rankr1_rag.train.sets import TrainingSet, sets


def drawn(
    examples: Sequence[Example], *, size: int, hard: int | None, seed: int, draws: int = 1
) -> dict[str, TrainingSet]:
    """Id to set, `draws` ≥ 1 for every positive; more draws, or more examples, keep those that were.

    `size` and `hard` as for `sets`. ValueError where an example is given twice, or has passages that are known already:
    a single comparison has nothing that could be.
    """
    for example in examples:
        if example.given:
            raise ValueError(
                f"the example {example.query.id!r:.100} has passages that are known already, which a single comparison "
                "does not show: give examples made without --known"
            )
    if draws < 1:
        raise ValueError(f"draws={draws}: each positive must be asked about once at least")
    found: dict[str, TrainingSet] = {}
    for draw in range(draws):
        for one in sets(examples, size=size, seed=seed, hard=hard, epoch=draw):
            id = f"{_content(one)}-{draw}"
            if id in found:
                raise ValueError(
                    f"the example {one.query.id!r:.100} is given twice: its comparisons would count double"
                )
            found[id] = one
    return found


def _content(one: TrainingSet) -> str:
    shown = [(passage.title, passage.text) for passage in one.passages]
    return digest(one.source, one.query.id, one.query.text, one.right, shown)
