"""A ranking and its tournament as one HTML file that needs nothing else: no script, no request, its style by hash.

Every string that a template prints is cleaned and escaped at one gate, `finalize` with autoescape; only style sheets
are `Markup`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from rankr1_rag.explain import story
from rankr1_rag.explain.slopes import WIDTH, SlopeChart, compare_orders
from rankr1_rag.explain.story import NumberedComparison, clean, counted, line, start
from rankr1_rag.io.files import writing
from rankr1_rag.types import Comparison, Ranking

_TOKEN = re.compile(r"\[(\d{1,2})\]|&lt;/?(?:think|answer)&gt;")
"""A label, or a tag of the formats in escaped text."""
_DRAWN_WHOLE = 30
"""Up to this number of candidates the chart draws all."""
_DRAWN_RANKS = 20
"""Of more candidates it draws those within the first k ranks on either side, and within this rank."""
_UNFOLDED = 20
"""Where nothing was selected, the list is open up to this number of candidates."""


def marked(text: str, comparison: Comparison, names: Sequence[str] | Mapping[int, str]) -> Markup:
    """The text, clean and escaped, with its tags and the labels of the set marked; a label has its passage's name."""

    def mark(found: re.Match[str]) -> str:
        if found[1] is None:
            return f'<bdi class="tag">{found[0]}</bdi>'
        if not 1 <= int(found[1]) <= len(comparison.set):
            return found[0]
        return f'<b class="label" title="{escape(clean(names[comparison.set[int(found[1]) - 1]]))}">{found[0]}</b>'

    return Markup(_TOKEN.sub(mark, escape(clean(text))))


def mentioned(text: str, comparison: Comparison) -> dict[str, int]:
    """Label → position, for each label of the set in the text, in label order."""
    shown = dict(enumerate(comparison.set, start=1))
    labels = {int(found[1]): found[0] for found in _TOKEN.finditer(text) if found[1]}
    return {labels[number]: shown[number] for number in sorted(labels.keys() & shown.keys())}


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
    places, rounds = story.places(ranking), story.rounds(ranking)
    top = ranking.k if ranking.failure is None else 0
    names = [story.name(ranking, position) for position in range(len(ranking.candidates))]
    return render(
        _TEMPLATE,
        ranking=ranking,
        lede=story.lede(ranking),
        scores=story.SCORE_MEANINGS[ranking.score_meaning],
        warnings=story.warnings(ranking),
        chart=chart(ranking) if ranking.failure is None and ranking.trace else None,
        names=names,
        cards=places[:top],
        rest=places[top:],
        rounds=rounds,
        choices=story.choices(ranking),
        numbers={id(asked.comparison): asked.number for members in rounds.values() for asked in members},
        shown=shown_sets(ranking, names, frozenset(ranking.order[:top])),
        open_rest=len(places) <= _UNFOLDED and not top,
        story=story,
    )


def shown_sets(
    ranking: Ranking, names: Sequence[str], selected: Collection[int]
) -> Callable[[NumberedComparison], tuple[Markup, Markup]]:
    """A function that draws the set of a comparison, as chips and as a list.

    A candidate is shown many times: its parts are rendered once, by the templates, and joined here.
    """
    parts: Any = environment().get_template("rankr1_rag.explain/parts.html.j2").module
    label, member = cache(parts.label), cache(lambda position, note: parts.member(names[position], position, note))

    @cache
    def chip(position: int, is_chosen: bool) -> Markup:
        number = "new" if story.is_retrieved(ranking, position) else position + 1
        return Markup(parts.chip(names[position], number, is_chosen, position in selected))

    def draw(asked: NumberedComparison) -> tuple[Markup, Markup]:
        row, items, chosen = list[str](), list[str](), asked.chosen
        note = "chosen" if asked.comparison.parsed else "the retriever’s best"  # noqa: RUF001
        for place, position in enumerate(asked.comparison.set, start=1):
            is_chosen = position == chosen
            row.append(chip(position, is_chosen))
            items += label(place, is_chosen), member(position, note if is_chosen else "")
        return Markup("".join(row)), Markup("".join(items))

    return draw


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
    jinja.filters.update(identity=id, line=line, start=start, thousands="{:,}".format)
    jinja.globals.update(counted=counted, marked=marked, mentioned=mentioned, SLOPE_WIDTH=WIDTH)
    return jinja


@cache
def read_resource(name: str) -> str:
    """The text of a file "package/file"."""
    package, _, file = name.partition("/")
    return files(package).joinpath(file).read_text("utf-8")
