"""A reproduction as values: for each collection and for their mean, the first stage and the model beside the paper's.

Knows numbers and how they are spelled in JSON; computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rankr1_eval.scores import Difference, Estimate
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
