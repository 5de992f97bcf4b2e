"""Names and numbers as people read them, and `View`: a run with its scores, seen from the system it is about.

Every number that leaves here is finite or a dash.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from rankr1_eval.scoring import EvaluatedRun, SystemRun
from rankr1_eval.systems import UNORDERED
from rankr1_eval.types import Difference, Estimate, Question, Scores

BOUNDS = ("oracle", "gold")
"""Systems that know the supports: an upper bound, never the best system."""
FLOORS = ("random", "no-context")
"""Systems that know nothing: a lower bound."""
DASH = "\N{EN DASH}"
"""Replaces a number that is not known."""
_PREFERRED_K = 5
_TONES = 6
"""Colours of the style sheet for systems that are not the first stage, a bound or the main one."""
_SYSTEMS = {
    "none": ("No rerank", "first-stage order"),
    "oracle": ("Oracle", "supports first: no order of the candidates finds more"),
    "random": ("Random order", "one random order"),
    "dense": ("Dense", ""),
    "gold": ("Gold context", "the supports and nothing else"),
    "no-context": ("No context", "the reader by itself"),
    "rank-r1": ("Rank-R1", ""),
    "cross-encoder": ("Cross-encoder", ""),
}
_MEASURES = {"R": "Support recall", "All": "All supports", "RR": "Reciprocal rank", "EM": "Exact match"}
_DATASETS = {"hotpotqa": "HotpotQA", "2wikimultihopqa": "2WikiMultihopQA", "musique": "MuSiQue"}


@dataclass(frozen=True)
class View:
    """A run with its scores; scores that are missing or not finite are None."""

    run: EvaluatedRun
    scores: Scores

    @cached_property
    def systems(self) -> dict[str, SystemRun]:
        """The systems by name, in the run's order."""
        return {system.name: system for system in self.run.systems}

    @cached_property
    def questions(self) -> dict[str, Question]:
        """The questions by id."""
        return {question.query.id: question for question in self.run.questions}

    @cached_property
    def reordering(self) -> list[str]:
        """The systems other than no rerank, bounds and floors."""
        return [name for name in self.systems if name != "none" and kind(name) not in BOUNDS + FLOORS]

    @cached_property
    def main(self) -> str | None:
        """The system that the report is about: the first Rank-R1, else the first that reorders."""
        own = [name for name in self.reordering if kind(name) == "rank-r1"]
        return next(iter(own or self.reordering), None)

    @cached_property
    def rivals(self) -> list[str]:
        """The other systems of Rank-R1."""
        return [name for name in self.systems if kind(name) == "rank-r1" and name != self.main]

    @cached_property
    def ks(self) -> list[int]:
        """The numbers of passages that were read."""
        return sorted({k for system in self.run.systems for k in system.reads if kind(system.name) not in UNORDERED})

    @cached_property
    def k(self) -> int:
        """The k that the report is about: 5 if it was read, else the greatest that was."""
        return _PREFERRED_K if not self.ks or _PREFERRED_K in self.ks else self.ks[-1]

    @cached_property
    def measures(self) -> list[str]:
        """Every measure of any system, in order of appearance."""
        return list(dict.fromkeys(name for scored in self.scores.systems.values() for name in scored.estimates))

    def family(self, name: str) -> dict[int, str]:
        """By k, the measures of that name: {2: "R@2", 5: "R@5"} of "R"."""
        return dict(sorted((int(one.partition("@")[2]), one) for one in self.measures if one.startswith(f"{name}@")))

    def at_k(self, name: str) -> str | None:
        """The measure of that name at the report's k, else at the nearest."""
        family = self.family(name)
        return family[min(family, key=lambda k: (abs(k - self.k), k))] if family else None

    @cached_property
    def leading(self) -> list[str]:
        """The measures of the first table."""
        ranked = [self.at_k("R"), self.at_k("All"), "RR" if "RR" in self.measures else None]
        return [name for name in [*ranked, self.at_k("EM"), self.at_k("F1")] if name is not None]

    def estimate(self, system: str | None, measure: str | None) -> Estimate | None:
        """A system's mean."""
        scored = self.scores.systems.get(system or "")
        return finite(scored.estimates.get(measure or "")) if scored else None

    def difference(self, system: str | None, measure: str | None) -> Difference | None:
        """A system's difference from no rerank."""
        scored = self.scores.systems.get(system or "")
        found = scored.differences.get(measure or "") if scored else None
        return found if found and all(map(math.isfinite, (found.mean, found.low, found.high, found.p))) else None

    def each(self, system: str | None, measure: str | None) -> Mapping[str, float]:
        """Question id to score; empty if there are none."""
        scored = self.scores.systems.get(system or "")
        return scored.each.get(measure or "", {}) if scored else {}

    def best(self, measure: str) -> set[str]:
        """The systems with the greatest mean, without bounds; empty if all are equal or 0."""
        names = [name for name in self.scores.systems if kind(name) not in BOUNDS]
        found = {name: one.mean for name in names if (one := self.estimate(name, measure))}
        most = max(found.values(), default=0.0)
        best = {name for name in found if math.isclose(found[name], most)}
        return best if most > 0 and len(best) < len(found) else set()

    def tone(self, system: str) -> str:
        """The system's class in the style sheet."""
        if system == self.main:
            return "main"
        for tone, kinds in (("none", ("none",)), ("bound", BOUNDS), ("floor", FLOORS)):
            if kind(system) in kinds:
                return tone
        others = [name for name in self.reordering if name != self.main]
        return f"other{others.index(system) % _TONES if system in others else 0}"

    def ranks(self, system: str, question: Question) -> list[int | None]:
        """The rank of each support, None if it is not in the system's order."""
        order = self.systems[system].orders.get(question.query.id, ())
        places = {passage: rank for rank, passage in reversed(list(enumerate(order, start=1)))}
        return [places.get(support) for support in question.supports]


def finite(estimate: Estimate | None) -> Estimate | None:
    """The estimate if all its numbers are finite."""
    return estimate if estimate and all(map(math.isfinite, (estimate.mean, estimate.low, estimate.high))) else None


def extent(estimates: Iterable[Estimate | None], step: float = 0.1) -> tuple[float, float]:
    """A scale for all of them: round ends, at least two steps wide, within 0 and 1 if they are."""
    found = [one for one in estimates if one is not None]
    low = math.floor(min((one.low for one in found), default=0.0) / step + 1e-9) * step
    high = math.ceil(max((one.high for one in found), default=1.0) / step - 1e-9) * step
    if high - low < 2 * step - 1e-9:
        high = min(1.0, low + 2 * step) if low >= 0 else low + 2 * step
        low = min(low, high - 2 * step)
    return round(low, 6), round(high, 6)


def scaled(value: float, low: float, high: float, start: float, end: float) -> float:
    """A value between low and high as a coordinate between start and end."""
    return round(start + (end - start) * (value - low) / (high - low or 1.0), 2)


def kind(system: str) -> str:
    """The part before the colon: "rank-r1" of "rank-r1:votes=3"."""
    return system.partition(":")[0]


def system_name(system: str) -> str:
    """A name for people: "Rank-R1, votes 3" for "rank-r1:votes=3"; a model without its owner."""
    name, _, rest = system.partition(":")
    known = _SYSTEMS.get(name, (name,))[0]
    if not rest:
        return known
    if name == "rank-r1":
        return ", ".join([known, *(part.replace("=", " ").replace("_", " ") for part in rest.split("+"))])
    return f"{known} {rest.rstrip('/').rpartition('/')[2]}"


def system_note(system: str) -> str:
    """A few words on a baseline; "" for other systems."""
    return _SYSTEMS.get(kind(system), ("", ""))[1]


def sides(system: str, against: str, first: str, second: str) -> tuple[str, str]:
    """Heads for the two columns of a comparison: two runs, two systems of one run, or systems of two runs."""
    if system == against:
        return first, second
    ours, theirs = system_name(against), system_name(system)
    return (ours, theirs) if first == second else (f"{ours} in {first}", f"{theirs} in {second}")


def measure_name(measure: str) -> str:
    """A name for people: "Support recall@5" for "R@5"."""
    name, at, k = measure.partition("@")
    return _MEASURES.get(name, name) + at + k


def dataset_name(dataset: str) -> str:
    """The spelling of its authors."""
    return _DATASETS.get(dataset.lower(), dataset)


def percent(share: float | None, digits: int = 1) -> str:
    """0.712 is "71.2"."""
    if share is None or not math.isfinite(share):
        return DASH
    return f"{round(100 * share, digits) + 0.0:.{digits}f}"  # 0 has no sign


def points(share: float) -> str:
    """A difference in percentage points with its sign: 0.02 is "+2.0", 0 is "0.0"."""
    if not math.isfinite(share):
        return DASH
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def short(number: str) -> str:
    """Without a decimal of 0, for sentences: "20.0" is "20"."""
    return number.replace(".0", "")


def interval(value: Estimate | Difference) -> str:
    """The ends: "62.0 to 79.5", of a difference "+3.1 to +7.0"."""
    spell = points if isinstance(value, Difference) else percent
    return f"{spell(value.low)} to {spell(value.high)}"


def p_value(p: float) -> str:
    """With its name and the digits that count: "p = 0.041"."""
    if not math.isfinite(p):
        return DASH
    return "p < 0.001" if p < 0.001 else f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.3f}"


def difference(value: Difference) -> str:
    """With interval and p: "+2.0 (+0.1 to +7.0), p = 0.041"."""
    return f"{points(value.mean)} ({interval(value)}), {p_value(value.p)}"


def sure(value: Difference | None) -> int:
    """1 for a gain, -1 for a loss, 0 unless p is below 0.05 and the interval excludes 0."""
    if value is None or not (value.p < 0.05 and value.low * value.high > 0):
        return 0
    return 1 if value.mean > 0 else -1


def amount(number: float | None) -> str:
    """A cost with three significant digits and thousands separators."""
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
