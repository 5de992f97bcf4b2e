"""A ranking and its tournament as one HTML file that needs nothing else: no script, no request, its style by hash.

Every string that the template prints is cleaned and escaped at one gate, `finalize` with autoescape; what is not a
string of ours never becomes `Markup`. Knows the template and the style sheet; the sentences come from `story`, the
numbers of the drawing from `chart`.

The slope chart as numbers: which candidates are drawn, where, and what is left out between them.

Two columns of equally high rows, first-stage order on the left and the ranking on the right, and one curve for each
candidate of the first stage: what was found later stands on the right alone.
Knows positions and ranks; nothing of HTML, colours or text.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from typing import Literal

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from rankr1_rag.explain import story
from rankr1_rag.explain.text import clean, counted, line, start
from rankr1_rag.types import Comparison, Ranking

ROW = 26
"""Height of a row in CSS pixels; page.css gives its list items the same."""
WIDTH = 100
_ALL = 30
"""Up to so many candidates all are drawn."""
_TOP = 20
"""Of more candidates, those that have one of the first k ranks on either side, but no more than so many ranks."""


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate at a rank or, where `position` is None, `hidden` candidates that are not drawn."""

    rank: int = 0
    position: int | None = None
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Curve:
    """From the left column to the right one; `path` is SVG path data."""

    position: int
    rank: int
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Two columns, the curves between them, and the size of the drawing."""

    left: list[Row]
    right: list[Row]
    curves: list[Curve]
    height: int
    width: int = WIDTH


def chart(ranking: Ranking) -> Chart:
    """The selected, what they pushed down from the top, and whatever else there is room for."""
    drawn = _drawn(ranking)
    left = _column(range(len(ranking) - ranking.retrieved), drawn)
    right = _column(ranking.order, drawn)
    at_left, at_right = _heights(left), _heights(right)
    ranks = {row.position: row.rank for row in right}
    curves = [Curve(position, ranks[position], _path(at_left[position], at_right[position])) for position in at_left]
    # The best drawn last lies on top of the others.
    curves.sort(key=lambda curve: -curve.rank)
    return Chart(left, right, curves, ROW * max(len(left), len(right)))


def _drawn(ranking: Ranking) -> set[int]:
    top = len(ranking) if len(ranking) <= _ALL else min(ranking.k, _TOP)
    return {*ranking.order[:top], *range(top)}


def _column(positions: Iterable[int], drawn: set[int]) -> list[Row]:
    rows: list[Row] = []
    for rank, position in enumerate(positions, start=1):
        if position in drawn:
            rows.append(Row(rank, position))
        elif rows and rows[-1].hidden:
            rows[-1] = Row(hidden=rows[-1].hidden + 1)
        else:
            rows.append(Row(hidden=1))
    return rows


def _heights(column: list[Row]) -> dict[int, int]:
    return {row.position: ROW * place + ROW // 2 for place, row in enumerate(column) if row.position is not None}


def _path(left: int, right: int) -> str:
    middle = WIDTH // 2
    return f"M0 {left}C{middle} {left} {middle} {right} {WIDTH} {right}"


_TOKEN = re.compile(r"(\[\d{1,2}\]|</?(?:think|answer)>)")
_OPEN = 20
"""Where nothing was selected, up to so many candidates lie open; more are folded."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a transcript: a label (`position` is what it stood for), a tag of the format, or plain text."""

    text: str
    kind: Literal["text", "tag", "label"]
    position: int | None = None


def pieces(text: str, comparison: Comparison) -> list[Piece]:
    """The text cut at its labels and tags; a label outside the set is plain text."""
    found = []
    for part in filter(None, _TOKEN.split(text)):
        digits = part[1:-1]
        if part[0] == "<" and _TOKEN.fullmatch(part):
            found.append(Piece(part, "tag"))
        elif digits.isdecimal() and _TOKEN.fullmatch(part) and 1 <= int(digits) <= len(comparison.set):
            found.append(Piece(part, "label", comparison.set[int(digits) - 1]))
        else:
            found.append(Piece(part, "text"))
    return found


def mentioned(text: str, comparison: Comparison) -> dict[str, int]:
    """Label → position, for each label that the text names, in label order."""
    labels = {piece.text: piece.position for piece in pieces(text, comparison) if piece.position is not None}
    return dict(sorted(labels.items(), key=lambda item: int(item[0][1:-1])))


def page(ranking: Ranking) -> str:
    """The whole file as text; it holds no lone surrogate, so it can always be written as UTF-8."""
    style = _read("page.css")
    places = story.places(ranking)
    return _template().render(
        ranking=ranking,
        style=Markup(style),
        style_hash=b64encode(sha256(style.encode()).digest()).decode(),
        lede=story.lede(ranking),
        scores=story.SCORES[ranking.score_meaning],
        warnings=story.warnings(ranking),
        chart=chart(ranking) if ranking.failure is None and ranking.trace else None,
        names=[story.name(ranking, position) for position in range(len(ranking.candidates))],
        selected=[place for place in places if place.why.selected],
        rest=[place for place in places if not place.why.selected],
        rounds=story.rounds(ranking),
        open_rest=len(places) <= _OPEN and not any(place.why.selected for place in places),
    )


def write_page(ranking: Ranking, path: str | Path) -> None:
    """Write the page: whole or, where something fails, not at all. OSError where the folder cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{token_hex(8)}")
    content = page(ranking).encode()
    try:
        with temporary.open("xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_cleaned, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(line=line, start=start, thousands="{:,}".format)
    environment.globals.update(
        counted=counted, pieces=pieces, mentioned=mentioned, verdict=story.verdict, known=story.known, found=story.found
    )
    return environment.from_string(_read("page.html.j2"))


def _cleaned(value: object) -> object:
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read(name: str) -> str:
    return files("rankr1_rag.explain").joinpath(name).read_text("utf-8")
