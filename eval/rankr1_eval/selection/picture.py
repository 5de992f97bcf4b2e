"""The trade-off as one picture: nDCG against each cost, a row of panels for each judge.

All rows have the same scale, each shifted to where its judge leads. Knows a study and matplotlib's figures. Must not
know how the study was made.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

from rankr1_eval.selection.judges import described
from rankr1_eval.selection.panels import draw, name_points
from rankr1_eval.selection.study import COSTS, IDEAL, NONE, Line, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"
TICKS = [tick * 10**power for power in range(5) for tick in (1, 1.5, 2, 3, 5, 7)]
ROW, HEAD, FOOT = 2.1, 1.4, 0.4
"""Inches: a row of panels, what stands above them, what stands below."""

LEFT = 0.06

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
    """The picture as a file of this kind; the same study is the same bytes."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure(study).savefig(out, format=kind, metadata={"Date": None, "Creator": None} if kind == "svg" else None)
    return _few_colours(out) if kind == "png" else out.getvalue()


def _few_colours(png: io.BytesIO) -> bytes:
    """With a palette: a third of the bytes, and no eye sees it."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(png) as whole:
        whole.convert("RGB").quantize(255, Image.Quantize.MAXCOVERAGE).save(out, format="png", optimize=True)
    return out.getvalue()


def figure(study: Study) -> Figure:
    """The figure, drawn, for whoever wants to show it elsewhere."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judges = list(dict.fromkeys(line.judge for line in study.lines))
    height = HEAD + ROW * len(judges) + FOOT
    drawn = Figure(figsize=(11, height), dpi=110)
    FigureCanvasAgg(drawn)
    grid = drawn.subplots(len(judges), len(COSTS), sharex="col", sharey="row", squeeze=False)
    drawn.subplots_adjust(LEFT, FOOT / height, 0.985, 1 - HEAD / height, wspace=0.07, hspace=0.42)
    _head(drawn, study, height)
    span = _span(study)
    for row, judge in zip(grid, judges, strict=True):
        lines = study.under(judge)
        for axes, cost in zip(row, COSTS, strict=True):
            draw(axes, study, lines, cost)
            _axes(axes, cost)
        _shift(row[0], study, lines, span)
        row[0].set_ylabel(f"nDCG@{study.setting.k}")
        row[0].set_title(judge, loc="left", fontsize=10, fontweight="bold", pad=8)
        after = (6.9 * len(judge) + 6, 8.5)
        row[0].annotate(
            described(judge), (0, 1), after, xycoords="axes fraction", textcoords="offset points", fontsize=9
        )
    for row, judge in zip(grid, judges, strict=True):
        for axes, cost in zip(row, COSTS, strict=True):
            name_points(axes, study.under(judge), cost)
    return drawn


def _head(drawn: Figure, study: Study, height: float) -> None:
    setting = study.setting
    title = f"What a selection algorithm finds for what it costs: top {setting.k} of {setting.depth}"
    drawn.text(LEFT, 1 - 0.3 / height, title, fontsize=14, fontweight="bold", va="center")
    texts = (
        f"nDCG@{setting.k}, mean of {study.queries} queries played {setting.repeats} times each, sets of up to "
        f"{setting.size}. A row for each simulated judge, all on the same scale. Up and to the left is better.",
        f"■ answered by whole orders, ● by the best of a set, ○ with votes. Bars: 95 % interval of the difference from "
        f"{study.reference}, queries paired.",
        "Broad lines: no other way with this kind of answers is both cheaper and as good.",
    )
    for place, text in enumerate(texts):
        drawn.text(LEFT, 1 - (0.55 + 0.18 * place) / height, text, fontsize=8.5, va="center", color="#666666")


def _axes(axes: Axes, cost: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.margins(x=0.12)
    axes.text(0.02, 0.03, f"{cost.replace('_', ' ')} →", transform=axes.transAxes, fontsize=8, color="#888888")
    axes.tick_params(labelbottom=True, length=3)
    axes.grid(color="#F2F2F2", zorder=-1)
    axes.set_axisbelow(True)


def _span(study: Study) -> float:
    """How much of the nDCG axis every row shows: what the widest needs."""
    judges = {line.judge for line in study.lines}
    ranges = [[line.scores["ndcg"].mean for line in study.under(judge)] for judge in judges]
    return 1.3 * max(0.1, *(max(values) - min(values) for values in ranges))


def _shift(axes: Axes, study: Study, lines: list[Line], span: float) -> None:
    """Show a row's points in the middle; name the bounds, or say in which direction they are."""
    values = [line.scores["ndcg"].mean for line in lines]
    bottom = (max(values) + min(values) - span) / 2
    top = bottom + span
    axes.set_ylim(bottom, top)
    for name in (NONE, IDEAL):
        bound = study.bounds[name]["ndcg"].mean
        arrow = " ↓" if bound < bottom else " ↑" if bound > top else ""
        axes.annotate(
            f"{name} {bound:.3f}{arrow}",
            (0.99, min(max(bound, bottom), top)),
            xycoords=("axes fraction", "data"),
            xytext=(0, -2 if bound > top - 0.1 * span else 2),
            textcoords="offset points",
            ha="right",
            va="top" if bound > top - 0.1 * span else "bottom",
            fontsize=7.5,
            color="#888888",
        )
