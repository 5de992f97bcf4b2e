"""Rows from measured collections: means with intervals, the difference from the first stage, the verdict.

The mean over collections weighs each the same, as the paper's does. Its interval is of a bootstrap of all queries, each
of which counts by its distance from its collection's mean. Knows measures by their values only.

A reproduction as values: for each collection and for their mean, the first stage and the model beside the paper's.

Knows numbers and how they are spelled in JSON; computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from rankr1_eval.measures import intervals
from rankr1_eval.reproduce.targets import BM25, Target, expected, tolerance
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.types import Cost

Verdict = Literal["within", "outside", "none"]
MEAN = "mean"
"""Stands for a collection where a row is over several."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One collection: nDCG@10 by judged query of the first stage and of the model's order, and what that cost.

    `failed` queries kept their first-stage order (`on_failure="first_stage"`), `not_ranked` ones count as 0, `judged`
    counts all judged queries, of which a sample has fewer. `own`: the first stage is bm25s.
    """

    name: str
    first: Mapping[str, float]
    reranked: Mapping[str, float]
    cost: Cost
    failed: int
    not_ranked: int
    judged: int
    own: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One system on one collection, or over all of them. `cost` holds means a query, of `unparsed` and `forced` the
    share of the comparisons; it is empty for the first stage. `reason` says why there is no verdict, else it is "".
    """

    collection: str
    system: str
    ndcg: Estimate
    expected: float | None
    tolerance: float
    verdict: Verdict
    reason: str
    change: Difference | None
    cost: Mapping[str, float]

    @property
    def difference(self) -> float | None:
        """Measured minus expected."""
        return None if self.expected is None else self.ndcg.mean - self.expected


@dataclass(frozen=True, slots=True)
class Reproduction:
    """All rows of a target, the last one is the verdict's. `departures` is where this was asked otherwise than the
    paper did; `notes` is what else a reader must know.
    """

    target: str
    model: str
    rows: tuple[Row, ...]
    settings: Mapping[str, Any]
    departures: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        last = self.rows[-1]
        return {
            "target": self.target,
            "model": self.model,
            "measure": "nDCG@10",
            "verdict": last.verdict,
            "reason": last.reason,
            "rows": [{**asdict(row), "difference": row.difference} for row in self.rows],
            "settings": dict(self.settings),
            "departures": list(self.departures),
            "notes": list(self.notes),
        }


FIRST = "first stage"


def rows(target: Target, model: str, found: Sequence[Measured], departures: Sequence[str] = ()) -> tuple[Row, ...]:
    """Two rows for each collection, and two for their mean where the target is a group: the last is the model's.

    With `departures` from how the paper asked there is no verdict on the model.
    """
    made = [row for one in found for row in _pair(_Part(target, model, one.name, [one]), departures)]
    if target.grouped:
        made += _pair(_Part(target, model, MEAN, found), departures)
    return tuple(made)


@dataclass(frozen=True)
class _Part:
    """What two rows are over."""

    target: Target
    model: str
    name: str
    found: Sequence[Measured]

    def paper(self, system: str) -> float | None:
        """The expected value: a group's is that of the mean."""
        return expected(self.target.name if self.name == MEAN else self.name, system)


def _pair(part: _Part, departures: Sequence[str]) -> Iterator[Row]:
    first, reranked = ([getattr(one, name) for one in part.found] for name in ("first", "reranked"))
    reason = _incomparable(part)
    before = _row(part, FIRST, BM25, first, reason)
    yield before
    if not reason and before.verdict == "outside":
        reason = f"it reranked a first stage that is not the paper's ({before.ndcg.mean:.4f}, not {before.expected})"
    if not reason and departures:
        reason = f"asked otherwise than the paper: {', '.join(departures)}"
    changes = [{id: two[id] - one[id] for id in one} for one, two in zip(first, reranked, strict=True)]
    cost = sum((one.cost for one in part.found), Cost())
    queries = sum(len(one.first) - one.not_ranked for one in part.found)
    yield _row(part, part.model, part.model, reranked, reason, _difference(changes), _costs(cost, queries))


def _incomparable(part: _Part) -> str:
    """Why no value of this is comparable with the paper's, "" where it is."""
    sampled = [one for one in part.found if len(one.first) < one.judged]
    if sampled:
        asked, judged = sum(len(one.first) for one in part.found), sum(one.judged for one in part.found)
        return f"a trial with {asked:,} of {judged:,} judged queries"
    if any(one.own for one in part.found):
        return "the first stage is bm25s, not the paper's BM25"
    if part.name == MEAN and not part.target.whole:
        return f"the paper's mean is over other collections than these {len(part.found)}"
    failed = sum(one.failed for one in part.found)
    return f"{failed:,} queries failed and stand in first-stage order" if failed else ""


def _row(
    part: _Part,
    shown: str,
    system: str,
    each: Sequence[Mapping[str, float]],
    reason: str,
    change: Difference | None = None,
    cost: Mapping[str, float] | None = None,
) -> Row:
    estimate, paper, allowed = _estimate(each), part.paper(system), tolerance(system)
    if paper is None:
        where = part.target.name if part.name == MEAN else part.name
        reason = "; ".join(filter(None, [f"the paper's value for {system} on {where} is not known here", reason]))
    verdict: Verdict = "none"
    if paper is not None and not reason:
        verdict = "within" if abs(estimate.mean - paper) <= allowed else "outside"
    return Row(part.name, shown, estimate, paper, allowed, verdict, reason, change, cost or {})


def _estimate(each: Sequence[Mapping[str, float]]) -> Estimate:
    """The mean over collections of the mean over queries."""
    means = [sum(scores.values()) / len(scores) for scores in each]
    mean = sum(means) / len(means)
    centred = [[score - own for score in scores.values()] for scores, own in zip(each, means, strict=True)]
    return intervals.estimates(mean + _weighed(centred))[0]


def _difference(each: Sequence[Mapping[str, float]]) -> Difference:
    """The same of paired differences, with the p of flipped signs."""
    estimate = _estimate(each)
    p = intervals.differences(_weighed([list(scores.values()) for scores in each]))[0].p
    return Difference(estimate.mean, estimate.low, estimate.high, p)


def _weighed(each: Sequence[Sequence[float]]) -> intervals.Table:
    """One column whose mean over all queries is the mean over collections of their means."""
    total = sum(map(len, each))
    columns = [np.array(scores, dtype=np.float64) * (total / (len(each) * len(scores))) for scores in each]
    return np.concatenate(columns)[:, None]


def _costs(cost: Cost, queries: int) -> dict[str, float]:
    each = ("comparisons", "rounds", "passages_read", "prompt_tokens", "cached_tokens", "completion_tokens", "seconds")
    means = {name: getattr(cost, name) / queries for name in each}
    shares = {name: getattr(cost, name) / max(1, cost.comparisons) for name in ("unparsed", "forced")}
    return {**means, **shares}
