"""The scores of a run as a table for the terminal. Knows scores and how they are spelled."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from rankr1_eval.report.wording import sure
from rankr1_eval.results import Run
from rankr1_eval.scores import Difference, Estimate, RowScores, Scores
from rankr1_rag.explain import clean

COSTS = (("comparisons", "comp.", "{:.1f}"), ("unparsed", "bad", "{:.1f}"), ("seconds", "s", "{:.1f}"))


def table(run: Run, scores: Scores, ks: Sequence[int]) -> Table:
    """Support recall, all supports, EM and F1 of each row, at what the reader saw; differences from no rerank in F1."""
    measures = [name for k in ks for name in (f"R@{k}", f"All@{k}", f"EM@{k}", f"F1@{k}")]
    shown = [name for name in measures if any(name in row.estimates for row in scores.rows.values())]
    out = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{len(run.questions):,} {run.dataset} questions, top {run.candidates} of {len(run.passages):,} passages",
        caption="Means with 95 % bootstrap intervals. R: support recall, All: all supports found. Δ: from no rerank, "
        "with the p of a randomisation test. comp., bad, s: comparisons, unparsed ones and seconds a question.",
    )
    out.add_column("row", overflow="fold", min_width=8)
    for name in [*shown, *(f"Δ{name}" for name in shown if name.startswith("F1")), *(head for _, head, _ in COSTS)]:
        out.add_column(name, justify="right", no_wrap=True)
    for row in scores.rows.values():
        changes = [_change(row.differences.get(name)) for name in shown if name.startswith("F1")]
        out.add_row(Text(clean(row.name)), *(_mean(row.estimates.get(name)) for name in shown), *changes, *_costs(row))
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


def _costs(row: RowScores) -> list[str]:
    asked = bool(row.cost.get("comparisons"))
    return [form.format(row.cost.get(name, 0)) if asked else "" for name, _, form in COSTS]
