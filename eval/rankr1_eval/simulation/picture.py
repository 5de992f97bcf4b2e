"""The trade-off as one picture: nDCG against each cost, a row of panels for each judge, all on the same scale."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rankr1_eval.simulation.judges import described
from rankr1_eval.simulation.study import COSTS, IDEAL, NONE, Study, StudyLine, way_named
from rankr1_rag.selection import ALGORITHMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
TICKS = [tick * 10**power for power in range(5) for tick in (1, 1.5, 2, 3, 5, 7)]
ROW, HEAD, FOOT, LEFT = 2.1, 1.75, 0.4, 0.06
"""A row of panels, the space above and below them in inches; the left margin as a share of the width."""
COLOURS = ("#0072B2", "#7A7A7A", "#D55E00", "#00835F", "#B0508A", "#8A6D00", "#2B8CBE")
"""Of the algorithms in their order: after Okabe and Ito, safe for the colour-blind."""
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.edgecolor": "#AAAAAA",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": "#777777",
    "ytick.color": "#777777",
    "svg.fonttype": "none",
    "svg.hashsalt": "rankr1-eval",
}


def picture(study: Study, kind: Literal["png", "svg"]) -> bytes:
    """The picture as a file of this kind; the same study gives the same bytes."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure(study).savefig(out, format=kind, metadata={"Date": None, "Creator": None} if kind == "svg" else None)
    return out.getvalue()


def figure(study: Study) -> Figure:
    """The figure, drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    setting, judges = study.setting, study.judges
    height = HEAD + ROW * len(judges) + FOOT
    drawn = Figure(figsize=(11, height), dpi=110)
    FigureCanvasAgg(drawn)
    grid = drawn.subplots(len(judges), len(COSTS), sharex="col", sharey="row", squeeze=False)
    drawn.subplots_adjust(LEFT, FOOT / height, 0.985, 1 - HEAD / height, wspace=0.07, hspace=0.42)
    title = f"nDCG against cost of the selection algorithms: top {setting.k} of {setting.depth}"
    drawn.text(LEFT, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", va="center")
    texts = (
        f"nDCG@{setting.k}, mean of {study.queries} queries played {setting.repeats} times each, sets of up to "
        f"{setting.size}. A row for each simulated judge, all on the same scale. Up and to the left is better.",
        f"■ answered by whole orders, ◆ in fixed passes, ● by the best of a set, ○ with votes. Bars: 95 % interval of "
        f"the difference from {study.reference}, queries paired.",
        "Broad lines: no other way with this kind of answers is both cheaper and as good.",
    )
    for number, text in enumerate(texts):
        drawn.text(LEFT, 1 - (0.55 + 0.18 * number) / height, text, fontsize=8.5, va="center", color="#666666")
    means = {judge: [line.scores["ndcg"].mean for line in study.under(judge)] for judge in judges}
    span = 1.3 * max(0.1, *(max(values) - min(values) for values in means.values()))
    for row, judge in zip(grid, judges, strict=True):
        bottom = (max(means[judge]) + min(means[judge]) - span) / 2
        for axes, cost in zip(row, COSTS, strict=True):
            draw_panel(axes, study, study.under(judge), cost)
        row[0].set_ylim(bottom, bottom + span)
        row[0].set_ylabel(f"nDCG@{setting.k}")
        row[0].set_title(f"{judge}: {described(judge)}", loc="left", fontsize=10, fontweight="bold", pad=8)
        for name in (NONE, IDEAL):
            bound = study.bounds[name]["ndcg"].mean
            arrow = " ↓" if bound < bottom else " ↑" if bound > bottom + span else ""
            place = min(max(bound, bottom), bottom + span)
            below = place > bottom + 0.9 * span
            row[0].annotate(
                f"{name} {bound:.3f}{arrow}",
                (0.99, place),
                xycoords=("axes fraction", "data"),
                xytext=(0, -2 if below else 2),
                textcoords="offset points",
                ha="right",
                va="top" if below else "bottom",
                fontsize=7.5,
                color="#888888",
            )
    handles, labels = grid[0][0].get_legend_handles_labels()
    corner = (LEFT - 0.01, 1 - 1.0 / height)
    drawn.legend(handles, labels, loc="upper left", bbox_to_anchor=corner, ncols=8, frameon=False, fontsize=9)
    return drawn


def draw_panel(axes: Axes, study: Study, lines: Sequence[StudyLine], cost: str) -> None:
    """The points with their intervals, the bounds, and a frontier for either kind of answers."""
    from matplotlib.ticker import FixedLocator, NullLocator

    points = {line.way: (max(1.0, line.scores[cost].mean), line.scores["ndcg"].mean) for line in lines}
    for name in (NONE, IDEAL):
        axes.axhline(study.bounds[name]["ndcg"].mean, color="#D0D0D0", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for listwise, colour in ((False, "#DDDDDD"), (True, "#ECD3E2")):
        if own := [point for way, point in points.items() if way_named(way).listwise is listwise]:
            xs, ys = zip(*frontier(own), strict=True)
            axes.step(xs, ys, where="post", color=colour, linewidth=3, solid_capstyle="round", zorder=1)
    known = [*ALGORITHMS]
    for line in lines:
        (x, y), apart = points[line.way], line.difference
        colour = COLOURS[known.index(re.split("[/:]", line.way)[0]) % len(COLOURS)]
        low, high = (y, y) if apart is None else (y + apart.low - apart.mean, y + apart.high - apart.mean)
        axes.plot([x, x], [low, high], color=colour, alpha=0.35, linewidth=1.6, solid_capstyle="butt", zorder=2)
        axes.plot(
            [x],
            [y],
            marker="D" if "/" in line.way else "s" if way_named(line.way).listwise else "o",
            markersize=5.5,
            markeredgewidth=1.4,
            color=colour,
            markerfacecolor="white" if ":" in line.way else colour,
            linestyle="none",
            label=line.way,
            zorder=3,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.margins(x=0.12)
    axes.text(0.02, 0.03, f"{cost.replace('_', ' ')} →", transform=axes.transAxes, fontsize=8, color="#888888")
    axes.tick_params(labelbottom=True, length=3)
    axes.grid(color="#F2F2F2", zorder=-1)
    axes.set_axisbelow(True)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, nDCG) points for which no other is both cheaper and as good, cheapest first."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
