"""A study as JSON, as Markdown, and as cells for a table of any kind.

Knows what a study holds. Must not know how it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rankr1_eval.simulation.judges import WITHIN_A_GRADE, described
from rankr1_eval.simulation.study import COSTS, MEASURES, Line, Setting, Study
from rankr1_eval.types import Estimate

Json = dict[str, Any]


def measure_names(setting: Setting) -> dict[str, str]:
    """MEASURES as they are written in tables and JSON."""
    return {"ndcg": f"nDCG@{setting.k}", "recall": f"recall@{setting.k}", **{cost: cost for cost in COSTS}}


def as_json(study: Study, source: Mapping[str, object]) -> Json:
    """The whole study; `source` tells what it was made from."""
    names = measure_names(study.setting)
    judges: dict[str, Json] = {}
    for line in study.lines:
        entry: Json = {names[measure]: _plain(line.scores[measure]) for measure in MEASURES}
        entry["difference"] = None if line.difference is None else asdict(line.difference)
        judges.setdefault(line.judge, {})[line.way] = entry
    return {
        "settings": {**source, **asdict(study.setting)},
        "queries": study.queries,
        "reference": study.reference,
        "bounds": {
            name: {names[measure]: _plain(scores[measure]) for measure in MEASURES[:2]}
            for name, scores in study.bounds.items()
        },
        "judges": judges,
    }


def heads(study: Study) -> list[str]:
    """The names of the columns of `cells`."""
    k = study.setting.k
    costs = [cost.replace("_", " ") for cost in COSTS]
    return ["algorithm", f"nDCG@{k}", f"from {study.reference}", f"recall@{k}", *costs]


def cells(study: Study, line: Line) -> list[str]:
    """A line as it is shown."""
    apart = line.difference
    return [
        line.way,
        _interval(line.scores["ndcg"]),
        "" if apart is None else f"{_signed(apart.mean)} [{_short(apart.low)}, {_short(apart.high)}]",
        _short(line.scores["recall"].mean),
        *(f"{line.scores[cost].mean:,.1f}" for cost in COSTS[:2]),
        f"{line.scores['passages_read'].mean:,.0f}",
    ]


def bound_cells(study: Study, name: str) -> list[str]:
    """A bound as it is shown."""
    scores = study.bounds[name]
    return [name, _interval(scores["ndcg"]), "", _short(scores["recall"].mean), "0", "0", "0"]


def as_markdown(study: Study, command: str) -> str:
    """The tables, judge by judge, and how they are to be read."""
    tables = [_table(study, judge) for judge in dict.fromkeys(line.judge for line in study.lines)]
    return "\n".join([_preface(study, command), *tables])


def _preface(study: Study, command: str) -> str:
    setting = study.setting
    return f"""# Which selection algorithm under which judge

Made by `{command}`.

![nDCG against comparisons, rounds and passages read, judge by judge](selection.png)

Top {setting.k} of {setting.depth}, sets of up to {setting.size}, {study.queries} queries, each played \
{setting.repeats} times: means, and 95 % bootstrap intervals over the queries.

* nDCG@{setting.k} is by the qrels, recall@{setting.k} the share of the {setting.k} best by the judge's utility. A
  passage is read each time it is shown.
* "From {study.reference}" is the difference in nDCG@{setting.k}, queries paired.
* `NAME:3` asks each set three times, in fresh orders. `window` is answered by whole orders, the others by the best of a
  set alone.
* A passage's utility is its grade + U(0, {WITHIN_A_GRADE}), drawn anew each time; unjudged is grade 0. Noise and bias
  are in grades.
* A noisy judge (Plackett-Luce) names the better of two passages with odds exp(difference / noise), drawn anew for each
  comparison.
* One that likes a place sees a passage so many grades worse at the other end of the prompt; one that likes both ends,
  in the middle.
* One of pairs drawn once has the same odds for each pair, but keeps to what was drawn, circles and all, and orders a
  set by how many of it a passage is preferred to.
"""


def _table(study: Study, judge: str) -> str:
    rows = [bound_cells(study, name) for name in study.bounds]
    rows += [cells(study, line) for line in study.under(judge)]
    head = [heads(study), ["---", *["---:"] * 6]]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in head + rows)
    return f"## {judge}: {described(judge)}\n\n{lines}\n"


def _plain(estimate: Estimate) -> Json:
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}


def _interval(estimate: Estimate) -> str:
    return f"{_short(estimate.mean)} [{_short(estimate.low)}, {_short(estimate.high)}]"


def _short(number: float) -> str:
    """Three digits, as 1.000, .892, -.015."""
    text = f"{number:z.3f}"
    return text.replace("0.", ".", 1) if abs(number) < 0.9995 else text


def _signed(number: float) -> str:
    text = f"{number:+.3f}".replace("0.", ".", 1)
    return text if text.strip("+-0.") else "0"
