"""A ranking and its tournament as one HTML file that needs nothing else: no script, no request, its style by hash.

Every string that a template prints is cleaned and escaped at one gate, `finalize` with autoescape; only style sheets
are `Markup`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from rankr1_rag.explain import story
from rankr1_rag.explain.slopes import WIDTH, SlopeChart, compare_orders
from rankr1_rag.explain.story import clean, counted, line, start
from rankr1_rag.io.files import writing
from rankr1_rag.types import Comparison, Ranking

_TOKEN = re.compile(r"(\[\d{1,2}\]|</?(?:think|answer)>)")
_DRAWN_WHOLE = 30
"""Up to this number of candidates the chart draws all."""
_DRAWN_RANKS = 20
"""Of more candidates it draws those within the first k ranks on either side, and within this rank."""
_UNFOLDED = 20
"""Where nothing was selected, the list is open up to this number of candidates."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a transcript: a label (`position` is its passage's), a tag of the format, or plain text."""

    text: str
    kind: Literal["text", "tag", "label"]
    position: int | None = None


def pieces(text: str, comparison: Comparison) -> list[Piece]:
    """The text cut at its labels and tags; a label outside the set is plain text."""
    parts = []
    for part in filter(None, _TOKEN.split(text)):
        is_token, digits = _TOKEN.fullmatch(part) is not None, part[1:-1]
        if is_token and part[0] == "<":
            parts.append(Piece(part, "tag"))
        elif is_token and 1 <= int(digits) <= len(comparison.set):
            parts.append(Piece(part, "label", comparison.set[int(digits) - 1]))
        else:
            parts.append(Piece(part, "text"))
    return parts


def mentioned(text: str, comparison: Comparison) -> dict[str, int]:
    """Label → position, for each label in the text, in label order."""
    labels = {piece.text: piece.position for piece in pieces(text, comparison) if piece.position is not None}
    return dict(sorted(labels.items(), key=lambda item: int(item[0][1:-1])))


def chart(ranking: Ranking) -> SlopeChart:
    """From first-stage order to the ranking; passages retrieved between hops are on the right alone."""
    top = len(ranking) if len(ranking) <= _DRAWN_WHOLE else min(ranking.k, _DRAWN_RANKS)
    selected = {why.position for why in map(ranking.explain, range(1, len(ranking) + 1)) if why.selected}
    return compare_orders(
        range(len(ranking) - ranking.retrieved),
        ranking.order,
        {*ranking.order[:top], *range(top), *selected},
        lambda position: story.name(ranking, position),
        lambda position: "selected" if position in selected else "",
    )


def page(ranking: Ranking) -> str:
    """The whole file as text; it holds no lone surrogate, so it can always be written as UTF-8."""
    places = story.places(ranking)
    top = ranking.k if ranking.failure is None else 0
    return render(
        _TEMPLATE,
        ranking=ranking,
        lede=story.lede(ranking),
        scores=story.SCORES[ranking.score_meaning],
        warnings=story.warnings(ranking),
        chart=chart(ranking) if ranking.failure is None and ranking.trace else None,
        names=[story.name(ranking, position) for position in range(len(ranking.candidates))],
        cards=places[:top],
        rest=places[top:],
        rounds=story.rounds(ranking),
        open_rest=len(places) <= _UNFOLDED and not top,
        story=story,
    )


def beginning_of(template: str) -> re.Pattern[bytes]:
    """The beginning of every page of this template."""
    return re.compile(rb"\A<!doctype html>[^{}]*<meta name=\"generator\" content=\"" + re.escape(template.encode()))


_TEMPLATE = "rankr1_rag.explain/page.html.j2"
PAGE = beginning_of(_TEMPLATE)


def write_page(ranking: Ranking, path: str | Path) -> None:
    """Write the page: whole or, where something fails, not at all.

    FileError where it cannot be written, and where it would replace something else than such a page.
    """
    content = page(ranking)
    with writing(path, PAGE) as out:
        out.write(content)


def render(template: str, **values: object) -> str:
    """A template "package/file" that extends `base.html.j2`, with the style sheet its policy allows by hash.

    The style sheet is `base.css` and the package's own `page.css`.
    """
    style = read_resource("rankr1_rag.explain/base.css") + read_resource(f"{template.partition('/')[0]}/page.css")
    digest = b64encode(sha256(style.encode()).digest()).decode()
    values |= {"style": Markup(style), "style_hash": digest, "generator": template}
    return environment().get_template(template).render(**values)


@cache
def environment() -> Environment:
    """Jinja with the gate for strings and the functions that every template may use."""
    jinja = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(read_resource),
    )
    jinja.filters.update(line=line, start=start, thousands="{:,}".format)
    jinja.globals.update(counted=counted, pieces=pieces, mentioned=mentioned, SLOPE_WIDTH=WIDTH)
    return jinja


@cache
def read_resource(name: str) -> str:
    """The text of a file "package/file"."""
    package, _, file = name.partition("/")
    return files(package).joinpath(file).read_text("utf-8")
