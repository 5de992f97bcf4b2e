"""What a report looks at: which row it is about, at which k, what each row is coloured; missing scores are None.

Knows runs and scores; nothing of pages, files or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from rankr1_eval.report.wording import BOUNDS, FLOORS, kind
from rankr1_eval.results import Row, Run
from rankr1_eval.rows import UNORDERED
from rankr1_eval.scores import Difference, Estimate, Scores
from rankr1_eval.types import Question

_PREFERRED = 5
_TONES = 6
"""Colours of the style sheet for rows that are neither the first stage, nor a bound, nor what the report is about."""


@dataclass(frozen=True)
class View:
    """A run with its scores, seen from the row that makes the claim."""

    run: Run
    scores: Scores

    @cached_property
    def rows(self) -> dict[str, Row]:
        """The rows by name, in the run's order."""
        return {row.name: row for row in self.run.rows}

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
        return sorted({k for row in self.run.rows for k in row.reads if kind(row.name) not in UNORDERED})

    @cached_property
    def k(self) -> int:
        """The k that the report is about: 5 where it was read, else the greatest that was."""
        return _PREFERRED if not self.ks or _PREFERRED in self.ks else self.ks[-1]

    @cached_property
    def measures(self) -> list[str]:
        """Every measure that a row was scored by, in the order in which they are met."""
        return list(dict.fromkeys(name for row in self.scores.rows.values() for name in row.estimates))

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
        scored = self.scores.rows.get(row or "")
        if scored is None or measure is None:
            return None
        found = scored.estimates.get(measure)
        return found if found is not None and finite(found.mean, found.low, found.high) else None

    def difference(self, row: str | None, measure: str | None) -> Difference | None:
        """A row's difference from no rerank, None where there is none."""
        scored = self.scores.rows.get(row or "")
        found = scored.differences.get(measure or "") if scored else None
        return found if found is not None and finite(found.mean, found.low, found.high, found.p) else None

    def each(self, row: str | None, measure: str | None) -> Mapping[str, float]:
        """Question id to score; empty where there is none."""
        scored = self.scores.rows.get(row or "")
        return scored.each.get(measure or "", {}) if scored else {}

    def best(self, measure: str) -> set[str]:
        """The rows with the greatest mean, bounds left out; none where there is nothing to choose from."""
        found = {
            row: e.mean for row in self.scores.rows if kind(row) not in BOUNDS and (e := self.estimate(row, measure))
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
