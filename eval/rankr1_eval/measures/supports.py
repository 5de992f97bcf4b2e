"""How well an order finds the supports of its question: R@k, All@k, RR and nDCG@10.

R@k is the share of the supports among the first k; All@k is 1 where all of them are there, which is what a question of
several hops needs; RR is 1 by the rank of the first support. A support that the order lacks counts as not found. All
but All@k come from ir_measures. Knows ids; nothing of texts, judgements or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rankr1_eval.measures import ir
from rankr1_eval.scores import Each

CUTOFFS = (2, 3, 5, 10)


def scores(
    orders: Mapping[str, Sequence[str]], supports: Mapping[str, Sequence[str]], cutoffs: Sequence[int] = CUTOFFS
) -> Each:
    """Measure to question id to score, of every question in `supports`; one without an order scores 0.

    R@k and All@k at each k of `cutoffs`. An order holds passage ids, best first. ValueError where a question has no
    support, or an order has a passage twice.
    """
    for question, wanted in supports.items():
        order = orders.get(question, ())
        if not wanted:
            raise ValueError(f"question {question!r} has no support: there is nothing that an order could find")
        if len(set(order)) < len(order):
            raise ValueError(f"question {question!r}: its order has a passage twice")
    measures = ir.parsed([*(f"R@{k}" for k in cutoffs), "RR", "nDCG@10"])
    found = ir.measured(
        {question: orders[question] for question in supports if orders.get(question)},
        {question: dict.fromkeys(wanted, 1) for question, wanted in supports.items()},
        measures,
    )
    complete = {f"All@{k}": _complete(orders, supports, k) for k in cutoffs}
    recall = {name: found.pop(name) for name in [f"R@{k}" for k in cutoffs]}
    return {**recall, **complete, **found}


def _complete(orders: Mapping[str, Sequence[str]], supports: Mapping[str, Sequence[str]], k: int) -> dict[str, float]:
    return {question: float(set(wanted) <= set(orders.get(question, ())[:k])) for question, wanted in supports.items()}
