"""Measures of questions: how well an order finds the supports, and how well an answer string matches.

R@k is the share of the supports among the first k; All@k is 1 where all of them are there, which a question of several
hops needs; RR is 1 by the rank of the first support. A support that the order lacks counts as not found. All but All@k
come from ir_measures. Exact match and F1 of answer strings are exactly those of each data set's official script:

* HotpotQA: `hotpot_evaluate_v1.py` of https://github.com/hotpotqa/hotpot (Yang et al. 2018, arXiv 1809.09600). F1 is 0
  as soon as one side is yes, no or noanswer and the other is not the same.
* 2WikiMultihopQA: `2wikimultihop_evaluate.py`, v1.0, of https://github.com/Alab-NII/2wikimultihop (Ho et al. 2020,
  arXiv 2011.01060): HotpotQA's. It reads no aliases (v1.1 does), so only the first of the answers counts.
* MuSiQue: `metrics/answer.py` of https://github.com/StonyBrookNLP/musique (Trivedi et al. 2022, arXiv 2108.00573):
  SQuAD 2.0's F1, the best over the answer and its aliases, EM and F1 each for itself. Yes and no are words like any
  other, and two texts without a token agree: there F1 is 1.

All three normalise alike (`normalised`), keep accents apart from plain letters, and know only ASCII punctuation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rankr1_eval.types import Each
from rankr1_rag.reader import normalised, token_f1

Scorer = Callable[[str, Sequence[str]], tuple[float, float]]
"""Exact match and F1 of a prediction and the right answers, the official one first, aliases after it."""

CUTOFFS = (2, 3, 5, 10)
_CLOSED = frozenset({"yes", "no", "noanswer"})


def scorer(dataset: str) -> Scorer:
    """The official scores of a data set, by its name. ValueError where it has none."""
    if dataset not in SCORERS:
        raise ValueError(f"data set {dataset!r} has no official answer scores: must be one of {', '.join(SCORERS)}")
    return SCORERS[dataset]


def hotpotqa(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """The scores of HotpotQA and 2WikiMultihopQA."""
    said, right = normalised(prediction), normalised(answers[0])
    if said == right:
        return 1.0, float(bool(said))  # two empty texts match exactly and share no token
    if said in _CLOSED or right in _CLOSED:
        return 0.0, 0.0
    return 0.0, token_f1(said.split(), right.split())


def musique(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """The scores of MuSiQue."""
    said = normalised(prediction)
    rights = [normalised(answer) for answer in answers]
    f1s = [token_f1(said.split(), right.split()) if said and right else float(said == right) for right in rights]
    return float(said in rights), max(f1s)


SCORERS: dict[str, Scorer] = {
    "hotpotqa": hotpotqa,
    "hotpotqa-fullwiki": hotpotqa,
    "2wikimultihopqa": hotpotqa,
    "musique": musique,
}


def scores(
    orders: Mapping[str, Sequence[str]], supports: Mapping[str, Sequence[str]], cutoffs: Sequence[int] = CUTOFFS
) -> Each:
    """Measure to question id to score, of every question in `supports`; one without an order scores 0.

    R@k and All@k at each k of `cutoffs`. An order holds passage ids, best first. ValueError where a question has no
    support, or an order has a passage twice.
    """
    from rankr1_eval.measures import ir  # heavy: numpy

    for question, wanted in supports.items():
        order = orders.get(question, ())
        if not wanted:
            raise ValueError(f"question {question!r} has no support that an order could find")
        if len(set(order)) < len(order):
            raise ValueError(f"question {question!r}: its order has a passage twice")
    measures = ir.parsed([*(f"R@{k}" for k in cutoffs), "RR", "nDCG@10"])
    found = ir.measured(
        {question: orders[question] for question in supports if orders.get(question)},
        {question: dict.fromkeys(wanted, 1) for question, wanted in supports.items()},
        measures,
    )
    complete = {
        f"All@{k}": {id: float(set(wanted) <= set(orders.get(id, ())[:k])) for id, wanted in supports.items()}
        for k in cutoffs
    }
    recall = {name: found.pop(name) for name in [f"R@{k}" for k in cutoffs]}
    return {**recall, **complete, **found}
