"""The rows of a reproduced table as values and in words: means with intervals, the paper's figures, verdicts.

A mean over collections weighs each the same, as the paper's does. Its interval is from a bootstrap of all queries, each
counted by its distance from its collection's mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from rankr1_eval.reproduce.targets import BM25, EXPECTED, FIRST_STAGE_TOLERANCE, TOLERANCE, Target
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.types import Cost

if TYPE_CHECKING:
    from rankr1_eval.measures.intervals import Table

Verdict = Literal["within", "outside", "none"]
MEASURE = "nDCG@10"
MEAN = "mean"
"""The collection of a row that is over several."""
FIRST = "first stage"
HEADS = ("row", MEASURE, "paper", "Δ first stage", "comp.", "tokens", "s")
CAPTION = (
    "nDCG@10 with its 95 % bootstrap interval; the paper's, the difference from it and whether that is within the "
    "tolerance; the difference from the first stage with the p of a paired randomisation test; comparisons, with the "
    "share of unparsed answers; tokens of prompts + completions; seconds. Costs are means a query."
)
_COSTS = ("comparisons", "rounds", "passages_read", "prompt_tokens", "cached_tokens", "completion_tokens", "seconds")


@dataclass(frozen=True, slots=True)
class MeasuredCollection:
    """One collection: nDCG@10 by judged query of the first stage and of the model's order, and the cost.

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
class ReproducedRow:
    """One system on one collection, or over all of them.

    `cost` holds means a query, and of `unparsed` and `forced` the share of the comparisons; it is empty for the first
    stage. `reason` says why there is no verdict, else it is "".
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
    """All rows of a target; the last one has the verdict. `departures` are settings that are not the paper's."""

    target: str
    model: str
    rows: tuple[ReproducedRow, ...]
    settings: Mapping[str, Any]
    departures: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        last, rows = self.rows[-1], [{**asdict(row), "difference": row.difference} for row in self.rows]
        return {**asdict(self), "measure": MEASURE, "verdict": last.verdict, "reason": last.reason, "rows": rows}


def table_rows(
    target: Target, model: str, found: Sequence[MeasuredCollection], departures: Sequence[str] = ()
) -> tuple[ReproducedRow, ...]:
    """Two rows for each collection, and two for their mean if the target is a group: the last is the model's.

    With `departures` from the paper's settings the model has no verdict.
    """
    parts = [(one.name, [one]) for one in found] + ([(MEAN, list(found))] if target.grouped else [])
    return tuple(row for name, part in parts for row in row_pair(target, model, name, part, departures))


def row_pair(
    target: Target, model: str, name: str, part: Sequence[MeasuredCollection], departures: Sequence[str]
) -> tuple[ReproducedRow, ReproducedRow]:
    """The rows of first stage and model over one collection, or over the mean of several."""
    from rankr1_eval.measures import intervals

    table = target.name if name == MEAN else name

    def row(
        shown: str,
        system: str,
        each: Sequence[Mapping[str, float]],
        reason: str,
        change: Difference | None = None,
        cost: Mapping[str, float] | None = None,
    ) -> ReproducedRow:
        estimate, paper = mean_estimate(each)[0], EXPECTED.get(table, {}).get(system)
        allowed = FIRST_STAGE_TOLERANCE if system == BM25 else TOLERANCE
        if paper is None:
            unknown = f"the paper's value for {system} on {table} is not known here"
            reason = f"{unknown}; {reason}" if reason else unknown
        verdict: Verdict = "none"
        if paper is not None and not reason:
            verdict = "within" if abs(estimate.mean - paper) <= allowed else "outside"
        return ReproducedRow(name, shown, estimate, paper, allowed, verdict, reason, change, cost or {})

    first, reranked = [one.first for one in part], [one.reranked for one in part]
    asked, judged = sum(len(one.first) for one in part), sum(one.judged for one in part)
    reason = ""  # why no value of these is comparable with the paper's
    if asked < judged:
        reason = f"a trial with {asked:,} of {judged:,} judged queries"
    elif any(one.own for one in part):
        reason = "the first stage is bm25s, not the paper's BM25"
    elif name == MEAN and not target.whole:
        reason = f"the paper's mean is over other collections than these {len(part)}"
    elif failed := sum(one.failed for one in part):
        reason = f"{failed:,} queries failed and keep the first-stage order"
    before = row(FIRST, BM25, first, reason)
    if not reason and before.verdict == "outside":
        reason = f"it reranked a first stage that is not the paper's ({before.ndcg.mean:.4f}, not {before.expected})"
    if not reason and departures:
        reason = f"settings that are not the paper's: {', '.join(departures)}"
    apart, column = mean_estimate(
        [{id: two[id] - one[id] for id in one} for one, two in zip(first, reranked, strict=True)]
    )
    change = Difference(apart.mean, apart.low, apart.high, intervals.differences(column)[0].p)
    total = sum((one.cost for one in part), Cost())
    queries = sum(len(one.first) - one.not_ranked for one in part)
    cost = {field: getattr(total, field) / queries for field in _COSTS}
    cost |= {field: getattr(total, field) / max(1, total.comparisons) for field in ("unparsed", "forced")}
    return before, row(model, model, reranked, reason, change, cost)


def mean_estimate(each: Sequence[Mapping[str, float]]) -> tuple[Estimate, Table]:
    """The mean over collections of the mean over queries; and one column with this mean over all queries."""
    import numpy as np

    from rankr1_eval.measures import intervals

    found = [np.array(list(scores.values()), dtype=np.float64) for scores in each]
    weights = [sum(map(len, each)) / (len(each) * len(scores)) for scores in each]
    centred = np.concatenate([weight * (own - own.mean()) for weight, own in zip(weights, found, strict=True)])
    column = np.concatenate([weight * own for weight, own in zip(weights, found, strict=True)])
    return intervals.estimates(column.mean() + centred[:, None])[0], column[:, None]


def cells(row: ReproducedRow) -> tuple[str, ...]:
    """The cells under `HEADS`, of several lines each."""
    verdict = {"within": f"within {row.tolerance}", "outside": f"OUTSIDE {row.tolerance}", "none": ""}[row.verdict]
    cost = row.cost
    return (
        f"{row.system.rpartition('/')[2]}\n{row.collection}, n {row.ndcg.n:,}",
        f"{row.ndcg.mean:.4f}\n{row.ndcg.low:.3f}-{row.ndcg.high:.3f}",
        "-" if row.difference is None else f"{row.expected:.3f}\n{row.difference:+.4f}\n{verdict}".rstrip(),
        f"{row.change.mean:+.4f}\np {row.change.p:.4f}" if row.change else "",
        f"{cost['comparisons']:.1f}\n{cost['unparsed']:.1%}" if cost else "",
        f"{cost['prompt_tokens']:,.0f}\n+ {cost['completion_tokens']:,.0f}" if cost else "",
        f"{cost['seconds']:.1f}" if cost else "",
    )


def verdict(found: Reproduction) -> str:
    """One sentence: within, outside, or why there is no verdict."""
    row = found.rows[-1]
    measured = f"{found.model} on {found.target}: nDCG@10 {row.ndcg.mean:.4f}"
    if row.verdict == "none":
        return f"NO VERDICT: {measured}; {row.reason}."
    paper = f"the paper has {row.expected:.3f}, a difference of {row.difference:+.4f} where ±{row.tolerance} is allowed"
    return f"{row.verdict.upper()} the tolerance: {measured}, {paper}."


def remarks(found: Reproduction) -> list[str]:
    """A sentence each: settings that are not the paper's, forced answers, and the notes."""
    sentences = [f"Settings that are not the paper's: {'; '.join(found.departures)}."] if found.departures else []
    if forced := found.rows[-1].cost.get("forced"):
        sentences.append(f"{forced:.1%} of the answers were forced: there the model gave none by itself.")
    return [*sentences, *found.notes]


def markdown(found: Reproduction) -> str:
    """The page `reproduction.md`."""

    def escaped(text: str) -> str:
        return text.replace("|", r"\|").replace("<", "&lt;").replace("`", "'").replace("\n", "<br>")

    lines = [HEADS, ["---"] * len(HEADS), *([escaped(cell) for cell in cells(row)] for row in found.rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    settings = "\n".join(f"* {name}: {value}" for name, value in found.settings.items())
    sentences = [escaped(text) for text in (f"**{verdict(found)}**", *remarks(found))]
    parts = [f"# {found.target}, {found.model}", *sentences, table, CAPTION, "## Settings", settings]
    return "\n\n".join(parts) + "\n"
