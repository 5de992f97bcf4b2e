"""Names and numbers as people read them: rows, measures, percentages, differences, p.

Every number that leaves here is finite or a dash. Knows the names that rows and measures have; nothing of pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from rankr1_eval.scores import Difference, Estimate

BOUNDS = ("oracle", "gold")
"""Rows that know the supports: what could be reached, never the best row."""
FLOORS = ("random", "no-context")
"""Rows that know nothing: what chance, or the reader by itself, reaches."""
DASH = "\N{EN DASH}"
"""What stands where there is no number."""

_ROWS = {
    "none": "No rerank",
    "oracle": "Oracle",
    "random": "Random order",
    "dense": "Dense",
    "gold": "Gold context",
    "no-context": "No context",
    "rank-r1": "Rank-R1",
    "cross-encoder": "Cross-encoder",
}
_NOTES = {
    "none": "first-stage order",
    "oracle": "supports first: no order of the candidates finds more",
    "random": "one order by chance",
    "gold": "the supports and nothing else",
    "no-context": "the reader by itself",
}
_MEASURES = {
    "R": "Support recall",
    "All": "All supports",
    "RR": "Reciprocal rank",
    "nDCG": "nDCG",
    "EM": "Exact match",
    "F1": "F1",
}
_DATASETS = {"hotpotqa": "HotpotQA", "2wikimultihopqa": "2WikiMultihopQA", "musique": "MuSiQue"}


def kind(row: str) -> str:
    """What stands before the colon: "rank-r1" of "rank-r1:votes=3"."""
    return row.partition(":")[0]


def row_name(row: str) -> str:
    """As people call it: "Rank-R1, votes 3" for "rank-r1:votes=3"; a model is named without its owner."""
    name, _, rest = row.partition(":")
    known = _ROWS.get(name, name)
    if not rest:
        return known
    if name == "rank-r1":
        return ", ".join([known, *(part.replace("=", " ").replace("_", " ") for part in rest.split("+"))])
    return f"{known} {rest.rstrip('/').rpartition('/')[2]}"


def sides(row: str, against: str, first: str, second: str) -> tuple[str, str]:
    """What stands beside each other, for the heads of two columns: two runs, two rows of one run, or rows of two."""
    if row == against:
        return first, second
    ours, theirs = row_name(against), row_name(row)
    return (ours, theirs) if first == second else (f"{ours} in {first}", f"{theirs} in {second}")


def row_note(row: str) -> str:
    """What the row is, in a few words; "" where its name says it."""
    return _NOTES.get(kind(row), "")


def measure_name(measure: str) -> str:
    """As people call it: "Support recall@5" for "R@5"."""
    name, at, k = measure.partition("@")
    return _MEASURES.get(name, name) + at + k


def dataset_name(dataset: str) -> str:
    """As its authors write it."""
    return _DATASETS.get(dataset.lower(), dataset)


def percent(share: float | None, digits: int = 1) -> str:
    """0.712 is "71.2"."""
    if share is None or not math.isfinite(share):
        return DASH
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"  # nought has no sign


def points(share: float) -> str:
    """A difference in percentage points with its sign: 0.02 is "+2.0", nought is "0.0"."""
    if not math.isfinite(share):
        return DASH
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def short(number: str) -> str:
    """Without a decimal that is nought: "20.0" is "20", for sentences."""
    return number.replace(".0", "")


def interval(value: Estimate | Difference) -> str:
    """The ends: "62.0 to 79.5", of a difference "-3.1 to +7.0", with a true minus."""
    if isinstance(value, Difference):
        return f"{points(value.low)} to {points(value.high)}"
    return f"{percent(value.low)} to {percent(value.high)}"


def p_value(p: float) -> str:
    """As it is written: "p = 0.04", "p < 0.001"."""
    if not math.isfinite(p):
        return DASH
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.3f}"


def difference(value: Difference) -> str:
    """All of it: "+2.0 (-3.1 to +7.0), p = 0.41"."""
    return f"{points(value.mean)} ({interval(value)}), {p_value(value.p)}"


def sure(value: Difference) -> int:
    """1 a gain, -1 a loss, 0 where interval and p do not both bear one."""
    if not (value.p < 0.05 and value.low * value.high > 0):
        return 0
    return 1 if value.mean > 0 else -1


def amount(number: float | None) -> str:
    """A cost: three digits that count, thousands apart; nought is "0"."""
    if number is None or not math.isfinite(number):
        return DASH
    if number == 0 or abs(number) >= 100:
        return f"{number:,.0f}"
    if abs(number) < 0.005:
        return "< 0.01"
    return f"{number:.2f}" if abs(number) < 1 else f"{number:.1f}"


def listed(parts: Iterable[str]) -> str:
    """As in a sentence: "a", "a and b", "a, b and c"."""
    *rest, last = list(parts) or [""]
    return f"{', '.join(rest)} and {last}" if rest else last
