"""The tables of a report as values, for page and Markdown: systems by measures, groups of questions, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankr1_eval.report.wording import View, amount, extent, finite, percent, scaled, system_name, system_note
from rankr1_eval.types import Difference, Estimate

PLOT = 116
"""Width of the plot in a cell; its ends are the ends of the column's scale."""
_EDGE = 4
_ALARMS = {"unparsed": 0.1, "forced": 0.8, "reader_empty": 0.1}
"""Shares (of the comparisons, of the readings) from which on a figure is marked."""
_HEADS = {
    "retrieved": "retrieved between hops",
    "cached_tokens": "of them cached",
    "reasoning_tokens": "of them reasoning",
    "reader_empty": "no reader answer",
}
"""Heads of the cost table that are not the name in the scores' `cost`."""


@dataclass(frozen=True, slots=True)
class MeasureColumn:
    """A measure with the scale of its plots."""

    measure: str
    low: float
    high: float

    def place(self, value: float) -> float:
        """A value as a coordinate in a cell's plot."""
        return scaled(value, self.low, self.high, _EDGE, PLOT - _EDGE)


@dataclass(frozen=True, slots=True)
class MeasureCell:
    """One mean; `reference` is the mean of no rerank, `change` the paired difference from it."""

    estimate: Estimate | None = None
    reference: Estimate | None = None
    change: Difference | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class SystemLine:
    """One system with a cell for each column."""

    name: str
    note: str
    tone: str
    cells: list[MeasureCell]


@dataclass(frozen=True, slots=True)
class MeasureTable:
    """Lines under common columns, in groups of questions: (value of the group, questions, lines)."""

    kind: str
    columns: list[MeasureColumn]
    groups: list[tuple[str, int, list[SystemLine]]]


def scores_table(view: View, measures: Sequence[str]) -> MeasureTable:
    """Every system by these measures, over all questions."""
    columns = [
        MeasureColumn(one, *extent(view.estimate(name, one) for name in view.scores.systems)) for one in measures
    ]
    lines = []
    for name in view.scores.systems:
        cells = [
            MeasureCell(
                view.estimate(name, one),
                view.estimate("none", one) if name != "none" else None,
                view.difference(name, one),
                name in view.best(one),
            )
            for one in measures
        ]
        if any(cell.estimate for cell in cells):
            lines.append(SystemLine(system_name(name), system_note(name), view.tone(name), cells))
    return MeasureTable("", columns, [("", len(view.run.questions), lines)] if lines else [])


def group_tables(view: View) -> list[MeasureTable]:
    """By type and by hops: no rerank, the main system and its rivals. A single group is left out."""
    measures = [name for name in (view.at_k("R"), view.at_k("All"), view.at_k("F1")) if name is not None]
    systems = [name for name in ("none", view.main, *view.rivals) if name is not None and name in view.scores.systems]
    tables = []
    for kind, values in view.scores.groups.items():
        if len(values) < 2 or not measures or not systems:
            continue

        def estimate(value: str, system: str, measure: str, values: Groups = values) -> Estimate | None:
            return finite(values[value].get(system, {}).get(measure))

        scales = ([estimate(value, system, one) for value in values for system in systems] for one in measures)
        columns = [MeasureColumn(one, *extent(found)) for one, found in zip(measures, scales, strict=True)]
        groups = []
        for value in sorted(
            values, key=lambda text: (not text.isdecimal(), len(text) if text.isdecimal() else 0, text)
        ):
            lines = []
            for system in systems:
                reference = [estimate(value, "none", one) if system != "none" else None for one in measures]
                cells = [MeasureCell(estimate(value, system, one), reference[n]) for n, one in enumerate(measures)]
                lines.append(SystemLine(system_name(system), "", view.tone(system), cells))
            n = max((one.n for found in values[value].values() for one in found.values()), default=0)
            groups.append((value or "(none)", n, lines))
        tables.append(MeasureTable(kind, columns, groups))
    return tables


Groups = Mapping[str, Mapping[str, Mapping[str, Estimate]]]


def cost_table(view: View) -> tuple[list[str], list[tuple[str, str, list[tuple[str, bool]]]]]:
    """Heads of the columns with any figure, and a line (name, tone, cells) for each system with one.

    Cells are (figure, whether it is an alarm); all are means a question.
    """
    costs = {name: scored.cost for name, scored in view.scores.systems.items() if any(scored.cost.values())}
    used = list(
        dict.fromkeys(key for cost in costs.values() for key in cost if any(one.get(key) for one in costs.values()))
    )
    lines = []
    for name, cost in costs.items():
        figures = {key: amount(cost.get(key)) for key in used}
        if cost.get("reader_empty"):
            figures["reader_empty"] = f"{percent(cost['reader_empty'], 0)} %"
        lines.append((system_name(name), view.tone(name), [(figures[key], alarm(cost, key)) for key in used]))
    return [_HEADS.get(key, key.replace("_", " ")) for key in used], lines


def alarm(cost: Mapping[str, float], key: str) -> bool:
    """Whether the share of unparsed, forced or missing answers casts doubt on the system."""
    if key not in _ALARMS:
        return False
    whole = 1.0 if key == "reader_empty" else cost.get("comparisons", 0.0)
    return whole > 0 and cost.get(key, 0.0) >= _ALARMS[key] * whole
