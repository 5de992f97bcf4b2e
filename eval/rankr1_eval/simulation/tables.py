"""A study as JSON, as Markdown, and as cells for a table of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rankr1_eval.simulation.judges import WITHIN_A_GRADE, described
from rankr1_eval.simulation.study import COSTS, MEASURES, Study, StudyLine
from rankr1_eval.types import Estimate


def as_json(study: Study, source: Mapping[str, object]) -> dict[str, Any]:
    """The whole study; `source` describes the files it was made from."""
    k = study.setting.k
    names = {"ndcg": f"nDCG@{k}", "recall": f"recall@{k}", **{cost: cost for cost in COSTS}}

    def scores(estimates: Mapping[str, Estimate], measures: tuple[str, ...] = MEASURES) -> dict[str, Any]:
        return {
            names[one]: {"mean": estimates[one].mean, "low": estimates[one].low, "high": estimates[one].high}
            for one in measures
        }

    judges: dict[str, dict[str, Any]] = {}
    for line in study.lines:
        difference = None if line.difference is None else asdict(line.difference)
        judges.setdefault(line.judge, {})[line.way] = {**scores(line.scores), "difference": difference}
    return {
        "settings": {**source, **asdict(study.setting)},
        "queries": study.queries,
        "reference": study.reference,
        "bounds": {name: scores(estimates, MEASURES[:2]) for name, estimates in study.bounds.items()},
        "judges": judges,
    }


def heads(study: Study) -> list[str]:
    """The names of the columns of `cells`."""
    k = study.setting.k
    costs = [cost.replace("_", " ") for cost in COSTS]
    return ["algorithm", f"nDCG@{k}", f"from {study.reference}", f"recall@{k}", *costs]


def cells(line: StudyLine) -> list[str]:
    """A line as it is shown."""
    apart, ndcg = line.difference, line.scores["ndcg"]
    change = ""
    if apart is not None:
        mean = f"{apart.mean:+.3f}".replace("0.", ".", 1)
        change = f"{mean if mean.strip('+-0.') else '0'} [{short(apart.low)}, {short(apart.high)}]"
    return [
        line.way,
        f"{short(ndcg.mean)} [{short(ndcg.low)}, {short(ndcg.high)}]",
        change,
        short(line.scores["recall"].mean),
        *(f"{line.scores[cost].mean:,.1f}" if line.scores[cost].mean else "0" for cost in COSTS[:2]),
        f"{line.scores['passages_read'].mean:,.0f}",
    ]


def judge_lines(study: Study, judge: str) -> list[StudyLine]:
    """The lines of one judge's table: the bounds first."""
    return [StudyLine(judge, name, scores, None) for name, scores in study.bounds.items()] + study.under(judge)


def short(number: float) -> str:
    """Three digits: 1.000, .892, -.015."""
    text = f"{number:z.3f}"
    return text.replace("0.", ".", 1) if abs(number) < 0.9995 else text


def as_markdown(study: Study, command: str) -> str:
    """The tables, judge by judge, and how to read them."""
    setting = study.setting
    parts = [
        f"""# Which selection algorithm under which judge

Made by `{command}`.

![nDCG against comparisons, rounds and passages read, judge by judge](selection.png)

Top {setting.k} of {setting.depth}, sets of up to {setting.size}, {study.queries} queries, each played \
{setting.repeats} times: means, and 95 % bootstrap intervals over the queries.

* nDCG@{setting.k} is by the qrels, recall@{setting.k} the share of the {setting.k} best by the judge's utility. A
  passage is read each time it is shown.
* "From {study.reference}" is the difference in nDCG@{setting.k}, queries paired.
* `NAME:3` asks each set three times, with new passage orders. `window` is answered by whole orders, the others by the
  best of a set alone.
* A passage's utility is its grade + U(0, {WITHIN_A_GRADE}), drawn for each repeat; unjudged is grade 0. Noise and bias
  are in grades.
* A noisy judge (Plackett-Luce) names the better of two passages with odds exp(difference / noise), drawn for each
  comparison.
* A judge that likes a place sees a passage at the other end of the prompt as that many grades worse; one that likes
  both ends, in the middle.
* A judge of pairs drawn once has the same odds for each pair, but keeps its preferences, circles and all, and orders a
  set by the number of its passages that a passage is preferred to.
"""
    ]
    for judge in study.judges:
        lines = [heads(study), ["---", *["---:"] * 6], *(cells(line) for line in judge_lines(study, judge))]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {judge}: {described(judge)}\n\n{table}\n")
    return "\n".join(parts)
