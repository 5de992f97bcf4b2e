"""Measures of a TREC run by ir_measures, in trec_eval's order, a query and a mean.

trec_eval orders a query's passages by score, which it reads as float32, and equal scores by id, the greater first. The
other programs behind ir_measures each have a rule of their own (RR@10 is MS MARCO's: the lesser id first), so that two
measures of one run would be of two orders. Here all of them get trec_eval's order, with scores that fall.

A judged query that the run does not rank counts as 0; a query without judgements is left out and reported.
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
    """The scores over all judged queries, measures by the names of ir_measures ("MRR@10" is RR@10).

    `excluded` passages of a query are dropped from the run first (BRIGHT's `excluded_ids`). ValueError for an unknown
    measure, and where the run ranks no judged query.
    """
    wanted = parsed(measures)
    judged = {query: dict(judgements) for query, judgements in qrels.items() if judgements}
    dropped = excluded or {}
    kept = {
        query: [one for one in run[query] if one.id not in dropped.get(query, ())] for query in judged if query in run
    }
    if not kept:
        ours, theirs = (", ".join(map(repr, list(ids)[:3])) + ", …" * (len(ids) > 3) for ids in (run, judged))
        problem = f"the run has {ours}, the qrels {theirs}"
        raise ValueError(f"no query of the run is judged: {problem}. Are the two of one collection?")
    each = measured({query: trec_order(scored) for query, scored in kept.items()}, judged, wanted)
    return RunScores(
        each,
        dict(zip(each, intervals.estimates(intervals.table(each.values(), judged)), strict=True)),
        tuple(query for query in run if query not in judged),
        tuple(query for query in judged if query not in kept),
    )


def compared(a: RunScores, b: RunScores) -> dict[str, Difference]:
    """Of each measure `a` minus `b`, over the same judged queries."""
    queries = list(next(iter(a.each.values())))
    first, second = (intervals.table(one.each.values(), queries) for one in (a, b))
    return dict(zip(a.each, intervals.differences(first - second), strict=True))


def parsed(measures: Iterable[str]) -> list[Measure]:
    """The measures, each once. ValueError that names one that is unknown, or that a first trial cannot compute."""
    import ir_measures

    found: dict[str, Measure] = {}
    for name in measures:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # its parser is older than Python 3.12
                measure = ir_measures.parse_measure(name.strip())
            cutoff = measure.params.get("cutoff", 1)
            if type(cutoff) is not int or not 1 <= cutoff <= DEEPEST:
                raise ValueError(f"a cutoff is a whole number in 1..{DEEPEST:,}")
            list(ir_measures.iter_calc([measure], {"1": {"1": 1}}, {"1": {"1": 1.0}}))
        except Exception as error:
            examples = "nDCG@10, R@5, RR@10, AP, P(rel=2)@5"
            problem = f"ir_measures cannot compute it, unlike {examples}: {error}"
            raise ValueError(f"measure {name!r} is unknown: {problem}") from error
        found[str(measure)] = measure
    if not found:
        raise ValueError(f"at least one measure is needed: {' '.join(DEFAULT)} for example")
    return list(found.values())


def trec_order(scored: Collection[Scored]) -> list[str]:
    """The passages in trec_eval's order: by score as float32, equal ones by id, the greater first."""
    with np.errstate(over="ignore"):
        scores = np.array([one.score for one in scored]).astype(np.float32).tolist()
    pairs = zip(scores, (one.id for one in scored), strict=True)
    return [id for _, id in sorted(pairs, reverse=True)]


def measured(
    orders: Mapping[str, Collection[str]], judged: Qrels, measures: Iterable[Measure]
) -> dict[str, dict[str, float]]:
    """Measure to judged query to value, in the order of both; 0 for a query that has no order."""
    import ir_measures

    def word(id: str) -> str:
        """The id as pytrec_eval can take it: a lone surrogate ends Python there."""
        return id.encode("utf-8", "backslashreplace").decode()

    names = {word(query): query for query in judged}
    run = {word(query): {word(id): float(-rank) for rank, id in enumerate(order)} for query, order in orders.items()}
    qrels = {word(query): {word(id): grade for id, grade in one.items()} for query, one in judged.items()}
    each = {str(measure): dict.fromkeys(judged, 0.0) for measure in measures}
    try:
        for found in ir_measures.iter_calc(list(measures), qrels, run):
            each[str(found.measure)][names[found.query_id]] = float(found.value)
    except CalledProcessError as error:  # ERR@k and others are TREC's Perl script, which wants query ids with a number
        raise ValueError(f"one of the measures {', '.join(each)} cannot be computed of these ids: {error}") from error
    for name, values in each.items():
        for query in orders:
            if not np.isfinite(values[query]):
                raise ValueError(f"measure {name} has no value for query {query!r}: leave the measure out")
    return each
