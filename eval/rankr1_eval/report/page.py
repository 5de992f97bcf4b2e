"""The HTML pages: the report of a run, and two runs (or systems of one) side by side.

They need nothing else: no script, no request, the style by hash, drawings inline (see `rankr1_rag.explain.html`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby

from rankr1_eval.compare import Paired
from rankr1_eval.report import charts, story, tables, wording
from rankr1_eval.report.extremes import extremes
from rankr1_eval.report.wording import BOUNDS, FLOORS, View, kind, percent, points, short, sides, sure, system_name
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Scores
from rankr1_rag.explain.html import beginning_of, render
from rankr1_rag.explain.story import counted, start

VERSUS = "rankr1_eval.report/versus.html.j2"
PAGE = beginning_of(VERSUS)
VERSUS_WIDTH = 220
"""Width of the plot of a difference."""
_VALUE = 300
"""The longest value of a setting, in characters."""


def page(run: EvaluatedRun, scores: Scores) -> str:
    """The report as text; it holds no lone surrogate, so it can always be written as UTF-8."""
    view = View(run, scores)
    gains, losses = extremes(view)
    curves = [charts.curve(view, "R", "Support recall at k")]
    curves.append(charts.curve(view, "F1", "F1 of the answers with k passages read", view.ks))
    return render(
        "rankr1_eval.report/page.html.j2",
        view=view,
        wording=wording,
        tables=tables,
        charts=charts,
        main_name=system_name(view.main) if view.main else "",
        over=story.over(view),
        headline=story.headline(view),
        lede=story.lede(view),
        warnings=story.warnings(view),
        leading=tables.scores_table(view, view.leading),
        everything=tables.scores_table(view, view.measures),
        curves=[chart for chart in curves if chart is not None],
        bars=charts.answer_bars(view) if len(view.ks) < 2 else None,
        cost_charts=[chart for family in ("R", "F1") if (chart := charts.against_cost(view, family)) is not None],
        moves=charts.support_moves(view, view.main) if view.main else None,
        groups=tables.group_tables(view),
        gains=gains,
        losses=losses,
        costs=tables.cost_table(view),
        settings=list(setting_lines(run.settings)),
        protocol=story.protocol(view),
    )


def setting_lines(values: Mapping[str, object], under: str = "") -> Iterator[tuple[str, str]]:
    """The settings as (name, value), in order; a nested setting is named "outer inner"."""
    for key, value in values.items():
        name = f"{under} {key}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from setting_lines(value, name)
        else:
            spelled = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            yield name, start(spelled, _VALUE)


def versus(found: Paired) -> str:
    """The page of a comparison: a table of measures for each system, bounds and floors last."""
    reach = max(max(abs(pair.difference.low), abs(pair.difference.high)) for pair in found.pairs) or 0.01
    pairs = sorted(found.pairs, key=lambda pair: kind(pair.system) in ("none", *BOUNDS, *FLOORS))
    return render(
        VERSUS,
        wording=wording,
        first=found.first.name,
        second=found.second.name,
        alone=found.first.path == found.second.path,
        headline=versus_headline(found),
        notes=found.notes,
        blocks=[list(members) for _, members in groupby(pairs, key=lambda pair: pair.system)],
        place=lambda value: wording.scaled(value, -reach, reach, 5, VERSUS_WIDTH - 5),
        WIDTH=VERSUS_WIDTH,
        reach=points(reach).lstrip("+"),
    )


def versus_headline(found: Paired) -> str:
    """The main difference in one sentence, claiming no more than its interval supports, and a count of sure ones.

    The main one is support recall or F1 at 5 of the first system of Rank-R1, else the first of all.
    """
    own = [pair for pair in found.pairs if pair.system.startswith("rank-r1")] or list(found.pairs)
    pair = next((one for name in ("R@5", "F1@5") for one in own if one.measure == name), own[0])
    change = pair.difference
    size = short(points(abs(change.mean)).lstrip("+"))
    compared = f"{size} points {'more' if change.mean > 0 else 'fewer'} than" if size != "0" else "as much as"
    doubt = "" if sure(change) or size == "0" else f", which {counted(pair.n, 'question')} cannot tell from chance"
    certain = sum(sure(one.difference) != 0 for one in found.pairs)
    first, second = (start(one.name, 40) for one in (found.first, found.second))
    where, other = f" in {second}", f"in {first}"
    if pair.system != pair.against:
        where, other = "", sides(pair.system, pair.against, first, second)[0]
    return (
        f"{system_name(pair.system)}: {wording.measure_name(pair.measure)} is {percent(pair.second)} %{where}, "
        f"{compared} {other}{doubt} ({wording.interval(change)}). Of {counted(len(found.pairs), 'difference')}, "
        f"{certain} {'is' if certain == 1 else 'are'} statistically significant."
    )
