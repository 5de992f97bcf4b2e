"""A finished run as values and its scores: each question's measures by system, means, paired differences, groups.

A system has support measures (R@k, All@k, RR, nDCG@10) where it has orders, EM@k and F1@k for each k it was read at.
Everything is over all the questions of the run: what a system lacks counts as 0 and is named in `SystemScores.missing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from typing import Any

from rankr1_eval.measures import answers
from rankr1_eval.types import Difference, Each, Estimate, Question, Scores, SystemScores
from rankr1_rag.io.collection import member, of_kind
from rankr1_rag.reader import Read
from rankr1_rag.types import Cost, Passage, Ranking

VERSION = 2
"""The version of `scores.json`. Version 1 called the systems rows at first."""

BASELINE = "none"
"""The system that the others are compared with: first-stage order."""

COSTS = [field.name for field in fields(Cost) if field.name not in ("clipped", "stored")]
GROUPS: Mapping[str, Callable[[Question], str | int | None]] = {
    "type": lambda question: question.type or None,
    "hops": lambda question: question.hops,
}

Estimates = dict[str, dict[str, Estimate]]
"""By system and measure."""


@dataclass(frozen=True)
class SystemRun:
    """The results of one system, a way to order or choose what the reader sees.

    `orders`: question id to passage ids, best first; empty for "gold" and "no-context". `reads`: k to question id to
    the reading of the first k. `rankings` of a reasoning reranker. `costs` of reranking by question id, `Cost.seconds`
    being wall time of the stage. `retrieved`, of a system that retrieves between its hops: question id to how many
    passages of the order are no candidates.
    """

    name: str
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads: Mapping[int, Mapping[str, Read]] = field(default_factory=dict)
    rankings: Mapping[str, Ranking] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    retrieved: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluation: its questions, the passages by id, the systems, "none" first where it is there.

    `settings` are for the reader of the report. Support recall is reported at `cutoffs` too.
    """

    name: str
    dataset: str
    questions: tuple[Question, ...]
    passages: Mapping[str, Passage]
    candidates: int
    systems: tuple[SystemRun, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cutoffs: tuple[int, ...] = ()


def score(run: EvaluatedRun) -> Scores:
    """The scores of a run. ValueError for a run without questions, or a question without supports."""
    ids = [question.query.id for question in run.questions]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"run {run.name!r}: {len(ids)} questions with {len(set(ids))} ids: needs distinct ones")
    each: dict[str, Each] = {}
    scorer = answers.scorer(run.dataset) if any(system.reads for system in run.systems) else None
    supports = {question.query.id: question.supports for question in run.questions}
    cutoffs = sorted({*answers.CUTOFFS, *run.cutoffs, *(k for system in run.systems for k in system.reads)})
    for system in run.systems:
        orders = {id: system.orders.get(id, ()) for id in ids}
        own = dict(answers.scores(orders, supports, cutoffs)) if system.orders else {}
        for k, reads in sorted(system.reads.items()):
            assert scorer
            right = {
                one.query.id: scorer(reads[one.query.id].answer, one.answers)
                for one in run.questions
                if one.query.id in reads
            }
            for place, name in enumerate(("EM", "F1")):
                own[f"{name}@{k}"] = {id: right[id][place] if id in right else 0.0 for id in ids}
        each[system.name] = own
    means = estimates(each, ids)
    apart = paired_differences([(each[name], each.get(BASELINE, {})) for name in each], ids)
    systems = {}
    for system, found in zip(run.systems, apart, strict=True):
        needed: list[Mapping[str, object]] = [*([system.orders] if system.orders else []), *system.reads.values()]
        systems[system.name] = SystemScores(
            system.name,
            each[system.name],
            means[system.name],
            {} if system.name == BASELINE else found,
            mean_cost(system),
            tuple(id for id in ids if not all(id in found for found in needed)),
        )
    return Scores(systems, grouped(each, run.questions))


def estimates(each: Mapping[str, Each], ids: Sequence[str]) -> Estimates:
    """By system and measure the mean over these questions, with its interval."""
    from rankr1_eval.measures import intervals

    columns = [(system, measure) for system, measures in each.items() for measure in measures]
    means: Estimates = {system: {} for system in each}
    if columns:
        found = intervals.estimates(intervals.table([each[name][measure] for name, measure in columns], ids))
        for (system, measure), estimate in zip(columns, found, strict=True):
            means[system][measure] = estimate
    return means


def grouped(each: Mapping[str, Each], questions: Iterable[Question]) -> dict[str, dict[str, Estimates]]:
    """The estimates by type and by hops of the questions, as far as they have any."""
    groups: dict[str, dict[str, Estimates]] = {}
    for name, key in GROUPS.items():
        keyed = sorted((value, question.query.id) for question in questions if (value := key(question)) is not None)
        for value, members in groupby(keyed, key=lambda pair: pair[0]):
            groups.setdefault(name, {})[str(value)] = estimates(each, [id for _, id in members])
    return groups


def differences(a: SystemScores, b: SystemScores, among: Sequence[str] | None = None) -> dict[str, Difference]:
    """`a` minus `b` of each measure and question that both have; {} where there are none.

    `among` are the questions to count, all of them common, where not all do.
    """
    ids = common(a, b) if among is None else among
    return paired_differences([(a.each, b.each)], ids)[0] if ids else {}


def common(a: SystemScores, b: SystemScores) -> list[str]:
    """The questions that both have scores of in all that both measure, in the first one's order."""
    shared = [measure for measure in a.each if measure in b.each]
    ids = next(iter(a.each.values()), {})
    return [id for id in ids if all(id in system.each[name] for system in (a, b) for name in shared)]


def paired_differences(pairs: Sequence[tuple[Each, Each]], ids: Sequence[str]) -> list[dict[str, Difference]]:
    """The differences of each pair, first minus second; computed together, so that all share the same draws."""
    from rankr1_eval.measures import intervals

    columns = [(n, measure) for n, (a, b) in enumerate(pairs) for measure in a if measure in b]
    found: list[dict[str, Difference]] = [{} for _ in pairs]
    if columns:
        first, second = (intervals.table([pairs[n][side][measure] for n, measure in columns], ids) for side in (0, 1))
        for (n, measure), difference in zip(columns, intervals.differences(first - second), strict=True):
            found[n][measure] = difference
    return found


def mean_cost(system: SystemRun) -> dict[str, float]:
    """The means that `SystemScores.cost` describes."""
    costs = list(system.costs.values())
    total = sum(costs, Cost())
    reads = [read for found in system.reads.values() for read in found.values()]
    cost = {name: getattr(total, name) / max(1, len(costs)) for name in COSTS}
    for name in ("prompt_tokens", "completion_tokens"):
        cost[f"reader_{name}"] = sum(getattr(read, name) for read in reads) / max(1, len(reads))
    # A store does not know how long a completion took: what was not asked is taken to cost as much as what was.
    asked = [read.seconds for read in reads if not read.stored]
    cost["reader_seconds"] = sum(asked) / max(1, len(asked))
    if reads and not asked:
        del cost["reader_seconds"]
    if total.stored < total.comparisons:
        cost["seconds"] *= total.comparisons / (total.comparisons - total.stored)
    elif total.stored:
        del cost["seconds"]
    if system.retrieved:
        cost["retrieved"] = sum(system.retrieved.values()) / len(system.retrieved)
    cost["reader_empty"] = sum(not read.answer.strip() for read in reads) / max(1, len(reads))
    return cost


def to_json(scores: Scores) -> dict[str, Any]:
    """The scores as JSON values, each question's too, nothing rounded: the content of `scores.json`."""
    return {"rankr1_eval": VERSION, **asdict(scores)}


def from_json(record: object) -> Scores:
    """The scores that `to_json` made. ValueError for anything else."""
    if not isinstance(record, dict) or "rankr1_eval" not in record:
        raise ValueError("not the scores of a run: scores.json in the folder of a finished run holds them")
    version = record["rankr1_eval"]
    if version not in (1, VERSION) or "rows" in record:
        raise ValueError(
            f"scores of version {version!r}, this program reads version {VERSION}: run the command that made them "
            "again, with another --out"
        )

    def numbers(found: Mapping[str, object]) -> dict[str, Any]:
        return {name: of_kind(name, value, "a number") for name, value in found.items()}

    def estimated(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
        return {measure: Estimate(**numbers(one)) for measure, one in found.items()}

    try:
        systems = {
            name: SystemScores(
                member(own, "name", "a string"),
                {measure: numbers(found) for measure, found in own["each"].items()},
                estimated(own["estimates"]),
                {measure: Difference(**numbers(found)) for measure, found in own["differences"].items()},
                numbers(own["cost"]),
                tuple(of_kind("an id", id, "a string") for id in own["missing"]),
            )
            for name, own in record["systems"].items()
        }
        groups = {
            name: {value: {system: estimated(found) for system, found in by.items()} for value, by in values.items()}
            for name, values in record["groups"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"damaged scores ({error!r}): run the command that makes them again") from error
    return Scores(systems, groups)
