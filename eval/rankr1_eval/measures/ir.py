"""Measures of a TREC run by ir_measures, in trec_eval's order, a query and a mean.

trec_eval orders a query's passages by score, which it reads as float32, and equal scores by id, the greater first. The
other programs behind ir_measures each have a rule of their own (RR@10 is MS MARCO's: the lesser id first), so that two
measures of one run would be of two orders. Here every one of them is given trec_eval's order, with scores that fall.

A judged query that the run does not rank counts as 0; a query without judgements is left out, and told. Knows ids,
scores and judgements; nothing of texts or files.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

import numpy as np

from rankr1_eval.measures import intervals
from rankr1_eval.types import Difference, Each, Estimate
from rankr1_rag.io.trec import Qrels, Run, Scored

if TYPE_CHECKING:
    from ir_measures import Measure

DEFAULT = ("nDCG@10", "R@100", "RR@10")
DEEPEST = 1_000_000
"""The greatest cutoff; the programs behind ir_measures end the process on what they cannot count."""


@dataclass(frozen=True)
class RunScores:
    """A run's scores. `not_judged` are its queries without judgements, left out; `not_ranked` the judged ones that it
    does not rank, which count as 0.
    """

    each: Each
    estimates: Mapping[str, Estimate]
    not_judged: tuple[str, ...]
    not_ranked: tuple[str, ...]


def score_run(
    run: Run,
    qrels: Qrels,
    measures: Iterable[str] = DEFAULT,
    excluded: Mapping[str, Collection[str]] | None = None,
) -> RunScores:
    """The scores over all judged queries, measures by the names that ir_measures gives them ("MRR@10" is RR@10).

    `excluded` passages of a query are dropped from the run first (BRIGHT's `excluded_ids`). ValueError for a measure
    that there is not, and where the run ranks no judged query.
    """
    wanted = parsed(measures)
    judged = {query: dict(judgements) for query, judgements in qrels.items() if judgements}
    gone = excluded or {}
    kept = {query: [one for one in run[query] if one.id not in gone.get(query, ())] for query in judged if query in run}
    if not kept:
        some = f"the run has {_some(run)}, the qrels {_some(judged)}"
        raise ValueError(f"no query of the run is judged: {some}. Are the two of one collection?")
    each = measured({query: trec_order(scored) for query, scored in kept.items()}, judged, wanted)
    return RunScores(
        each,
        dict(zip(each, intervals.estimates(_table(each, list(judged))), strict=True)),
        tuple(query for query in run if query not in judged),
        tuple(query for query in judged if query not in kept),
    )


def compared(a: RunScores, b: RunScores) -> dict[str, Difference]:
    """Of each measure `a` minus `b`, over the same judged queries."""
    queries = list(next(iter(a.each.values())))
    found = intervals.differences(_table(a.each, queries) - _table(b.each, queries))
    return dict(zip(a.each, found, strict=True))


def parsed(measures: Iterable[str]) -> list[Measure]:
    """The measures, each once. ValueError that names the one that does not exist, or cannot be computed here."""
    wanted = list({str(measure): measure for measure in map(_measure, measures)}.values())
    if not wanted:
        raise ValueError(f"no measure is given: {' '.join(DEFAULT)} for example")
    return wanted


def trec_order(scored: Collection[Scored]) -> list[str]:
    """The passages as trec_eval orders them: by score as float32, equal ones by id, the greater first."""
    with np.errstate(over="ignore"):
        scores = np.array([one.score for one in scored]).astype(np.float32).tolist()
    pairs = zip(scores, (one.id for one in scored), strict=True)
    return [id for _, id in sorted(pairs, reverse=True)]


def measured(
    orders: Mapping[str, Collection[str]], judged: Qrels, measures: Iterable[Measure]
) -> dict[str, dict[str, float]]:
    """Measure to judged query to value, in the order of both; 0 for a query that has no order."""
    import ir_measures

    run = {query: {id: float(-rank) for rank, id in enumerate(order)} for query, order in orders.items()}
    each = {str(measure): dict.fromkeys(judged, 0.0) for measure in measures}
    try:
        for found in ir_measures.iter_calc(list(measures), judged, run):
            each[str(found.measure)][found.query_id] = float(found.value)
    except CalledProcessError as error:  # ERR@k and others are TREC's Perl script, which wants query ids with a number
        raise ValueError(f"one of the measures {', '.join(each)} cannot be computed of these ids: {error}") from error
    for name, values in each.items():
        for query in orders:
            if not np.isfinite(values[query]):
                raise ValueError(f"measure {name} has no value for query {query!r}: leave the measure out")
    return each


def _measure(name: str) -> Measure:
    """A measure that a first trial shows to work."""
    import ir_measures

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its parser uses what newer Pythons warn of
            measure = ir_measures.parse_measure(name.strip())
        cutoff = measure.params.get("cutoff", 1)
        if type(cutoff) is not int or not 1 <= cutoff <= DEEPEST:
            raise ValueError(f"a cutoff is a whole number in 1..{DEEPEST:,}")
        list(ir_measures.iter_calc([measure], {"1": {"1": 1}}, {"1": {"1": 1.0}}))
    except Exception as error:
        examples = "nDCG@10, R@5, RR@10, AP, P(rel=2)@5"
        raise ValueError(f"measure {name!r} is none that ir_measures can compute, like {examples}: {error}") from error
    return measure


def _table(each: Each, queries: Collection[str]) -> intervals.Table:
    return np.array([[values[query] for query in queries] for values in each.values()], dtype=np.float64).T


def _some(ids: Collection[str]) -> str:
    shown = ", ".join(map(repr, list(ids)[:3]))
    return f"{shown}, …" if len(ids) > 3 else shown
