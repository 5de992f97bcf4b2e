"""A run's report as GitHub Markdown: the tables of the page, for a README or an issue.

Every string from elsewhere is cleaned, put on one line and escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from rankr1_eval.report import story, tables
from rankr1_eval.report.charts import support_moves
from rankr1_eval.report.extremes import extremes
from rankr1_eval.report.page import setting_lines
from rankr1_eval.report.wording import DASH, View, interval, measure_name, p_value, percent, points, system_name
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Scores
from rankr1_rag.explain.story import line, start

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$@])")
_WIDTH = 160


def markdown(run: EvaluatedRun, scores: Scores) -> str:
    """The whole file as text."""
    view = View(run, scores)
    return "\n\n".join(block for block in blocks(view) if block) + "\n"


def escaped(text: str) -> str:
    """The text on one line, without anything that Markdown would take for its own."""
    return _SPECIAL.sub(r"\\\1", escape(line(text), quote=False))


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; "" without a line."""
    body = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *body]) if body else ""


def blocks(view: View) -> Iterator[str]:
    """The paragraphs and tables in order."""
    yield f"# {escaped(story.headline(view))}"
    yield escaped(story.over(view))
    yield " ".join(map(escaped, story.lede(view)))
    for sentence in story.warnings(view):
        yield f"> **Note:** {escaped(sentence)}"
    yield "## All systems"
    yield measure_table(tables.scores_table(view, view.leading))
    yield (
        "Percent with 95 % intervals, and the paired difference from no rerank with its interval and p. Bold is the "
        "best system that does not know the supports."
    )
    if len(view.measures) > len(view.leading):
        yield "<details><summary>All measures</summary>"
        yield measure_table(tables.scores_table(view, view.measures))
        yield "</details>"
    yield from moves(view)
    for group in tables.group_tables(view):
        yield f"## By {'number of hops' if group.kind == 'hops' else group.kind}"
        yield measure_table(group)
    yield from cases(view)
    heads, lines = tables.cost_table(view)
    if lines:
        yield "## Cost"
        yield "Means a question; for the reader, a reading. A figure marked with ! casts doubt on its system."
        marked = ([name, *(f"{figure} !" if doubt else figure for figure, doubt in cells)] for name, _, cells in lines)
        yield table(["system", *heads], ([escaped(cell) for cell in cells] for cells in marked))
    yield "## How this was measured"
    yield from map(escaped, story.protocol(view))
    yield table(
        ["setting", "value"], ([escaped(name), escaped(value)] for name, value in setting_lines(view.run.settings))
    )


def measure_table(found: tables.MeasureTable) -> str:
    """Systems by measures, with two more columns if there are groups."""
    lines = []
    for value, n, systems in found.groups:
        head = [escaped(start(value, _WIDTH)), str(n)] if found.kind else []
        for system in systems:
            cells = []
            for cell in system.cells:
                if cell.estimate is None:
                    cells.append(DASH)
                    continue
                mean = percent(cell.estimate.mean)
                text = f"{f'**{mean}**' if cell.best else mean} ({interval(cell.estimate)})"
                if cell.change:
                    change = f"{points(cell.change.mean)} ({interval(cell.change)})"
                    text += f"<br>{change}, {escaped(p_value(cell.change.p))}"
                cells.append(text)
            lines.append([*head, escaped(system.name), *cells])
    heads = [found.kind, "questions"] if found.kind else []
    return table([*heads, "system", *(measure_name(column.measure) for column in found.columns)], lines)


def moves(view: View) -> Iterator[str]:
    """Ranks of the supports before and after."""
    found = support_moves(view, view.main) if view.main else None
    if found is None:
        return
    yield "## Moves of the supports"
    later = (
        f" Of {found.missing} others {found.retrieved} were retrieved between the hops, {found.read} of them ranked in "
        f"the first {view.k}."
    )
    yield (
        f"{escaped(system_name(view.main or ''))}: {found.up} up, {found.down} down of {found.supports} supports among "
        f"the candidates; {found.into} into the first {view.k}, {found.out} out of them. Lines are first-stage ranks, "
        f"columns ranks after.{later if found.retrieved else ''}"
    )
    lines = ([band, *map(str, counts)] for band, counts in zip(found.bands, found.matrix, strict=True))
    yield table(["before ╲ after", *found.bands], ([escaped(cell) for cell in cells] for cells in lines))


def cases(view: View) -> Iterator[str]:
    """The questions that gained and lost most."""
    main = system_name(view.main or "")
    heads = ["question", "change", "right answer", "no rerank", escaped(main), "supports before", "after"]
    for title, found in zip(("Greatest gains", "Greatest losses"), extremes(view), strict=True):
        lines = []
        for case in found:
            by_name = {one.system: one for one in case.answers}
            before, after = by_name["none"], by_name[view.main or ""]
            change = ", ".join(text for text, _ in case.changes)
            sides = (before.answer, after.answer, before.ranks, after.ranks)
            texts = (case.question.query.text, change, case.right, *sides)
            lines.append([escaped(start(text, _WIDTH)) for text in texts])
        if lines:
            yield f"## {title}"
            yield table(heads, lines)
