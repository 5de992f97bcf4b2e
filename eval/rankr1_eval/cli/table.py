"""The scores of a run as a table for the terminal. Knows scores and how they are spelled."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from rankr1_eval.report.wording import sure
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Difference, Estimate, Scores, SystemScores
from rankr1_rag.explain import clean

COSTS = (("comparisons", "comp."), ("unparsed", "unparsed"), ("seconds", "s"))
CAPTION = (
    "Means with 95 % bootstrap intervals. R: support recall, All: all supports found, EM and F1: of the answers. "
    "Δ: F1 less that without reranking, with the p of a randomisation test. comp., s: comparisons, seconds a question."
)
UNREAD = (
    "Means with 95 % bootstrap intervals. R: support recall, All: all supports found. Δ: R less that without "
    "reranking, with the p of a randomisation test. comp., s: comparisons, seconds a question."
)


def table(run: EvaluatedRun, scores: Scores, k: int) -> Table:
    """Support recall, all supports, EM and F1 of each system at k; differences from no rerank in F1.

    Where nothing was read there are no answers, and differences are those of support recall.
    """
    names = ("R", "All", "EM", "F1") if any(system.reads for system in run.systems) else ("R", "All")
    main, shown = "F1" if "F1" in names else "R", [f"{name}@{k}" for name in names]
    costs = [(name, head) for name, head in COSTS if any(system.cost.get(name) for system in scores.systems.values())]
    out = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{len(run.questions):,} {run.dataset} questions, top {run.candidates} of {len(run.passages):,} passages",
    )
    out.add_column("system", overflow="fold", min_width=8)
    for name in [*shown, f"Δ{main}", *(head for _, head in costs)]:
        out.add_column(name, justify="right", no_wrap=True)
    for system in scores.systems.values():
        means = [_mean(system.estimates.get(name)) for name in shown]
        out.add_row(
            Text(clean(system.name)), *means, _change(system.differences.get(f"{main}@{k}")), *_costs(system, costs)
        )
    return out


def _mean(estimate: Estimate | None) -> Text:
    if estimate is None:
        return Text("-", style="dim")
    return Text.assemble(_short(estimate.mean, 3), (f"\n{_short(estimate.low)}-{_short(estimate.high)}", "dim"))


def _short(share: float, digits: int = 2) -> str:
    """A number of 0..1 without its leading zero: seven measures are to fit eighty columns."""
    return f"{share:.{digits}f}".replace("0.", ".", 1) if share < 1 else f"{share:.{digits}f}"


def _change(difference: Difference | None) -> Text:
    if difference is None:
        return Text("")
    style = ("green" if difference.mean > 0 else "red") if sure(difference) else "dim"
    return Text.assemble(
        (f"{difference.mean:+.3f}".replace("0.", ".", 1), style),
        (f"\np {difference.p:.3f}".replace("0.", ".", 1), "dim"),
    )


def _costs(system: SystemScores, shown: Sequence[tuple[str, str]]) -> list[str]:
    asked = bool(system.cost.get("comparisons"))
    return [f"{system.cost[name]:.1f}" if asked and name in system.cost else "" for name, _ in shown]
