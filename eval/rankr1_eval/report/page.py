"""A run's report as one HTML file that needs nothing else: no script, no request, its style by hash, drawings inline.

Every string that the template prints is cleaned and escaped at one gate, `finalize` with autoescape; only the style
sheet is `Markup`. Knows the template; sentences, tables and drawings come from the modules beside it.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from rankr1_eval.report import charts, extremes, story, tables, wording
from rankr1_eval.report.wording import View
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Scores
from rankr1_rag.explain import clean
from rankr1_rag.explain.html import mentioned, pieces
from rankr1_rag.explain.story import name as passage_name
from rankr1_rag.explain.text import counted, start
from rankr1_rag.io.files import FilePath, writing

_VALUE = 300


def page(run: EvaluatedRun, scores: Scores) -> str:
    """The whole file as text; it holds no lone surrogate, so it can always be written as UTF-8."""
    view = View(run, scores)
    gains, losses = extremes.extremes(view)
    return rendered(
        "page.html.j2",
        view=view,
        main_name=wording.row_name(view.main) if view.main else "",
        over=story.over(view),
        headline=story.headline(view),
        lede=story.lede(view),
        warnings=story.warnings(view),
        leading=tables.scores_table(view, view.leading),
        everything=tables.scores_table(view, view.measures),
        drawings=[drawing for drawing in _drawings(view) if drawing is not None],
        bars=charts.answers(view) if len(view.ks) < 2 else None,
        cost_charts=[chart for family in ("R", "F1") if (chart := charts.against_cost(view, family)) is not None],
        moves=charts.moves(view, view.main) if view.main else None,
        groups=tables.groups(view),
        gains=gains,
        losses=losses,
        costs=tables.costs(view),
        settings=list(settings(run.settings)),
        protocol=story.protocol(view),
    )


def write_page(run: EvaluatedRun, scores: Scores, path: FilePath) -> None:
    """Write the page: whole or, where something fails, not at all. OSError where the folder cannot be written."""
    content = page(run, scores)
    with writing(path) as out:
        out.write(content)


def rendered(template: str, **values: object) -> str:
    """A template of this folder with the style sheet that its policy allows by its hash."""
    style = _read("page.css")
    digest = b64encode(sha256(style.encode()).digest()).decode()
    return _template(template).render(style=Markup(style), style_hash=digest, **values)


def settings(values: Mapping[str, object], under: str = "") -> Iterator[tuple[str, str]]:
    """The settings as (name, value) in the order given; those of a mapping stand under its name."""
    for name, value in values.items():
        told = f"{under} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from settings(value, told)
        else:
            spelled = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            yield told, start(spelled, _VALUE)


def _drawings(view: View) -> Iterator[charts.Chart | None]:
    yield charts.curve(view, "R", "Support recall at k")
    yield charts.curve(view, "F1", "F1 of the answers with k passages read", view.ks)


@cache
def _template(name: str) -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_cleaned, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(start=start, thousands="{:,}".format)
    environment.globals.update(
        counted=counted,
        pieces=pieces,
        mentioned=mentioned,
        passage_name=passage_name,
        dataset_name=wording.dataset_name,
        PLOT=tables.PLOT,
        CHART=charts,
        MOVES=charts,
        SWAP=extremes,
    )
    return environment.from_string(_read(name))


def _cleaned(value: object) -> object:
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _read(name: str) -> str:
    return files("rankr1_eval.report").joinpath(name).read_text("utf-8")
