"""The scores of a run as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from rankr1_eval.report.wording import sure
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Difference, Scores
from rankr1_rag.explain import clean

COSTS = (("comparisons", "comp."), ("unparsed", "unparsed"), ("seconds", "s"))
CAPTION = (
    "Means with 95 % bootstrap intervals. R: support recall, All: all supports found{}. "
    "Δ: less that without reranking, with the p of a randomisation test. comp., s: comparisons, seconds a question."
)


def difference_style(difference: Difference) -> str:
    """Green or red for a gain or a loss that is no chance."""
    return {1: "green", -1: "red", 0: ""}[sure(difference)]


def table(run: EvaluatedRun, scores: Scores, k: int) -> Table:
    """Support recall, all supports, EM and F1 of each system at k; differences from no rerank in F1.

    Where nothing was read there are no answers, and differences are those of support recall.
    """

    def short(number: str) -> str:
        """Without the leading zero: seven measures are to fit eighty columns."""
        return number.replace("0.", ".", 1) if not number.startswith("1") else number

    names = ("R", "All", "EM", "F1") if any(system.reads for system in run.systems) else ("R", "All")
    main, shown = "F1" if "F1" in names else "R", [f"{name}@{k}" for name in names]
    costs = [(name, head) for name, head in COSTS if any(one.cost.get(name) for one in scores.systems.values())]
    out = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{len(run.questions):,} {run.dataset} questions, top {run.candidates} of {len(run.passages):,} passages",
    )
    out.add_column("system", overflow="fold", min_width=8)
    for name in [*shown, f"Δ{main}", *(head for _, head in costs)]:
        out.add_column(name, justify="right", no_wrap=True)
    for system in scores.systems.values():
        cells = [Text(clean(system.name))]
        for name in shown:
            if found := system.estimates.get(name):
                ends = f"\n{short(f'{found.low:.2f}')}-{short(f'{found.high:.2f}')}"
                cells.append(Text.assemble(short(f"{found.mean:.3f}"), (ends, "dim")))
            else:
                cells.append(Text("-", style="dim"))
        change = Text("")
        if apart := system.differences.get(f"{main}@{k}"):
            p = ("\np <.001" if apart.p < 0.001 else f"\np {short(f'{apart.p:.3f}')}", "dim")
            change = Text.assemble((short(f"{apart.mean:+.3f}"), difference_style(apart) or "dim"), p)
        asked = bool(system.cost.get("comparisons"))
        cost = [f"{system.cost[name]:.1f}" if asked and name in system.cost else "" for name, _ in costs]
        out.add_row(*cells, change, *cost)
    return out
