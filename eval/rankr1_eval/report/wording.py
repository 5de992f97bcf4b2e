"""Names and numbers as people read them: rows, measures, percentages, differences, p.

Every number that leaves here is finite or a dash. Knows the names that rows and measures have; nothing of pages.

What a report looks at: which row it is about, at which k, what each row is coloured; missing scores are None.

Knows runs and scores; nothing of pages, files or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from rankr1_eval.scoring import EvaluatedRun, SystemRun
from rankr1_eval.systems import UNORDERED
from rankr1_eval.types import Difference, Estimate, Question, Scores

_PREFERRED = 5
_TONES = 6
"""Colours of the style sheet for rows that are neither the first stage, nor a bound, nor what the report is about."""


@dataclass(frozen=True)
class View:
    """A run with its scores, seen from the row that makes the claim."""

    run: EvaluatedRun
    scores: Scores

    @cached_property
    def rows(self) -> dict[str, SystemRun]:
        """The rows by name, in the run's order."""
        return {row.name: row for row in self.run.systems}

    @cached_property
    def questions(self) -> dict[str, Question]:
        """The questions by id."""
        return {question.query.id: question for question in self.run.questions}

    @cached_property
    def main(self) -> str | None:
        """The row that the report is about: the first Rank-R1, else the first that reorders; None where none does."""
        others = [name for name in self.rows if name != "none" and kind(name) not in BOUNDS + FLOORS]
        return next((name for name in others if kind(name) == "rank-r1"), others[0] if others else None)

    @cached_property
    def rivals(self) -> list[str]:
        """The other rows of Rank-R1."""
        return [name for name in self.rows if kind(name) == "rank-r1" and name != self.main]

    @cached_property
    def ks(self) -> list[int]:
        """How many passages were read."""
        return sorted({k for row in self.run.systems for k in row.reads if kind(row.name) not in UNORDERED})

    @cached_property
    def k(self) -> int:
        """The k that the report is about: 5 where it was read, else the greatest that was."""
        return _PREFERRED if not self.ks or _PREFERRED in self.ks else self.ks[-1]

    @cached_property
    def measures(self) -> list[str]:
        """Every measure that a row was scored by, in the order in which they are met."""
        return list(dict.fromkeys(name for row in self.scores.systems.values() for name in row.estimates))

    def family(self, name: str) -> dict[int, str]:
        """By k, the measures of that name: {2: "R@2", 5: "R@5"} of "R"."""
        found = {int(one.partition("@")[2]): one for one in self.measures if one.startswith(f"{name}@")}
        return dict(sorted(found.items()))

    def at_k(self, name: str) -> str | None:
        """The measure of that name at the report's k, else at the nearest."""
        family = self.family(name)
        return family[min(family, key=lambda k: (abs(k - self.k), k))] if family else None

    @cached_property
    def leading(self) -> list[str]:
        """The measures that the first table shows."""
        ranked = [self.at_k("R"), self.at_k("All"), "RR" if "RR" in self.measures else None]
        return [name for name in [*ranked, self.at_k("EM"), self.at_k("F1")] if name is not None]

    def estimate(self, row: str | None, measure: str | None) -> Estimate | None:
        """A row's mean, None where it has none."""
        scored = self.scores.systems.get(row or "")
        if scored is None or measure is None:
            return None
        found = scored.estimates.get(measure)
        return found if found is not None and finite(found.mean, found.low, found.high) else None

    def difference(self, row: str | None, measure: str | None) -> Difference | None:
        """A row's difference from no rerank, None where there is none."""
        scored = self.scores.systems.get(row or "")
        found = scored.differences.get(measure or "") if scored else None
        return found if found is not None and finite(found.mean, found.low, found.high, found.p) else None

    def each(self, row: str | None, measure: str | None) -> Mapping[str, float]:
        """Question id to score; empty where there is none."""
        scored = self.scores.systems.get(row or "")
        return scored.each.get(measure or "", {}) if scored else {}

    def best(self, measure: str) -> set[str]:
        """The rows with the greatest mean, bounds left out; none where there is nothing to choose from."""
        found = {
            row: e.mean for row in self.scores.systems if kind(row) not in BOUNDS and (e := self.estimate(row, measure))
        }
        most = max(found.values(), default=0.0)
        best = {row for row in found if math.isclose(found[row], most)}
        return best if most > 0 and len(best) < len(found) else set()

    def tone(self, row: str) -> str:
        """The row's class in the style sheet."""
        if row == self.main:
            return "main"
        if row == "none":
            return "none"
        if kind(row) in BOUNDS:
            return "bound"
        if kind(row) in FLOORS:
            return "floor"
        others = [name for name in self.rows if name not in ("none", self.main) and kind(name) not in BOUNDS + FLOORS]
        return f"other{others.index(row) % _TONES}" if row in others else "other0"

    def ranks(self, row: str, question: Question) -> list[int | None]:
        """The rank of each support, None where it is not in the row's order."""
        order = self.rows[row].orders.get(question.query.id, ())
        places = {passage: rank for rank, passage in reversed(list(enumerate(order, start=1)))}
        return [places.get(support) for support in question.supports]


def finite(*numbers: float) -> bool:
    """Whether all of them are."""
    return all(map(math.isfinite, numbers))


def extent(estimates: Iterable[Estimate | None], step: float = 0.1) -> tuple[float, float]:
    """The scale on which they all lie: round ends, no narrower than two steps, within 0 and 1 where they are."""
    found = [one for one in estimates if one is not None]
    low = math.floor(min((one.low for one in found), default=0.0) / step + 1e-9) * step
    high = math.ceil(max((one.high for one in found), default=1.0) / step - 1e-9) * step
    if high - low < 2 * step - 1e-9:
        high = min(1.0, low + 2 * step) if low >= 0 else low + 2 * step
        low = min(low, high - 2 * step)
    return round(low, 6), round(high, 6)


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
