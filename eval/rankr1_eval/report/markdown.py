"""A run's report as GitHub Markdown: the tables of the page, for a README or an issue.

Every string from elsewhere is cleaned, put on one line and escaped. Knows tables and sentences; nothing of HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from rankr1_eval.report import extremes, story, tables
from rankr1_eval.report.charts import moves
from rankr1_eval.report.page import settings
from rankr1_eval.report.wording import View, row_name
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Scores
from rankr1_rag.explain.text import line, start
from rankr1_rag.io.files import FilePath, writing

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$@])")
_WIDTH = 160


def markdown(run: EvaluatedRun, scores: Scores) -> str:
    """The whole file as text."""
    view = View(run, scores)
    blocks = [
        f"# {escaped(story.headline(view))}",
        escaped(story.over(view)),
        " ".join(map(escaped, story.lede(view))),
        *(f"> **Note:** {escaped(sentence)}" for sentence in story.warnings(view)),
        "## Every row",
        _scores(tables.scores_table(view, view.leading)),
        "Percent with 95 % intervals, and the paired difference from no rerank with its interval and p. Bold is the "
        "best row that does not know the supports.",
        *_everything(view),
        *_moved(view),
        *(block for kind in tables.groups(view) for block in _grouped(kind)),
        *_cases(view),
        *_costs(view),
        "## How this was measured",
        *map(escaped, story.protocol(view)),
        table(["setting", "value"], ([name, value] for name, value in settings(run.settings))),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def write_markdown(run: EvaluatedRun, scores: Scores, path: FilePath) -> None:
    """Write it: whole or, where something fails, not at all. OSError where the folder cannot be written."""
    content = markdown(run, scores)
    with writing(path) as out:
        out.write(content)


def escaped(text: str) -> str:
    """The text on one line, without anything that Markdown would take for its own."""
    return _SPECIAL.sub(r"\\\1", escape(line(text), quote=False))


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of texts from elsewhere; "" without a line."""
    return _table(heads, ([escaped(cell) for cell in cells] for cells in lines))


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    body = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *body]) if body else ""


def _scores(found: tables.Table) -> str:
    lines = [[escaped(one.name), *map(_cell, one.cells)] for one in found.lines]
    return _table(["row", *(column.name for column in found.columns)], lines)


def _cell(cell: tables.Cell) -> str:
    if cell.plot is None:
        return cell.value
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} ({cell.interval})" + (f"<br>{cell.change}, {escaped(cell.p)}" if cell.change else "")


def _everything(view: View) -> Iterator[str]:
    if len(view.measures) > len(view.leading):
        yield "<details><summary>All measures</summary>"
        yield _scores(tables.scores_table(view, view.measures))
        yield "</details>"


def _moved(view: View) -> Iterator[str]:
    found = moves(view, view.main) if view.main else None
    if found is None:
        return
    yield "## Where the supports went"
    yield (
        f"{escaped(row_name(view.main or ''))}: {found.up} up, {found.down} down of {found.supports} supports among "
        f"the candidates; {found.into} into the first {view.k}, {found.out} out of them. Lines are first-stage ranks, "
        "columns ranks after."
        + (
            f" Of {found.missing} others {found.found} were retrieved between the hops, {found.read} of them into the "
            f"first {view.k}."
            if found.found
            else ""
        )
    )
    lines = [[band, *map(str, counts)] for band, counts in zip(found.bands, found.matrix, strict=True)]
    yield table(["before ╲ after", *found.bands], lines)


def _grouped(found: tables.Groups) -> Iterator[str]:
    yield f"## By {'number of hops' if found.kind == 'hops' else found.kind}"
    lines = [
        [escaped(start(group.value, _WIDTH)), str(group.n), escaped(one.name), *map(_cell, one.cells)]
        for group in found.groups
        for one in group.lines
    ]
    yield _table([found.kind, "questions", "row", *(column.name for column in found.columns)], lines)


def _cases(view: View) -> Iterator[str]:
    for title, cases in zip(("Greatest gains", "Greatest losses"), extremes.extremes(view), strict=True):
        if cases:
            yield f"## {title}"
            yield table(
                [
                    "question",
                    "change",
                    "right answer",
                    "no rerank",
                    row_name(view.main or ""),
                    "supports before",
                    "after",
                ],
                ([*_told(view, case)] for case in cases),
            )


def _told(view: View, case: extremes.Case) -> Iterator[str]:
    by_row = {one.row: one for one in case.answered}
    before, after = by_row["none"], by_row[view.main or ""]
    yield start(case.question.query.text, _WIDTH)
    yield ", ".join(change.text for change in case.changes)
    yield from (start(text, _WIDTH) for text in (case.answers, before.answer, after.answer))
    yield from (before.ranks, after.ranks)


def _costs(view: View) -> Iterator[str]:
    names, lines = tables.costs(view)
    if lines:
        yield "## What it costs"
        yield "Means a question; of the reader, a reading. Marked with ! is what casts doubt on a row."
        marked = ([one.name, *(f"{figure} !" if doubt else figure for figure, doubt in one.figures)] for one in lines)
        yield table(["row", *names], marked)
