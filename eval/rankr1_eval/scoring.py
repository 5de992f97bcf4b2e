"""The score of a finished run: each question's measures by system, their means, what differs from no reranking, groups.

A system has support measures (R@k, All@k, RR, nDCG@10) where it has orders, EM@k and F1@k for each k it was read at.
Everything is over all the questions of the run: what a system lacks counts as 0 and is named in
`SystemScores.missing`; a finished `qa` has none.

The scores of a run as values: each question's, their means with intervals, paired differences, groups.

Knows no file and no measure by name: `score.py` fills them in.

A finished run as values: what each system ranked and answered, for the score and for the report.

A *system* is one way to order or choose what the reader sees: "none" (first-stage order), "oracle", "random", "dense",
"cross-encoder", "rank-r1"; "gold" and "no-context" have no order, only answers. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rankr1_eval.measures import answers
from rankr1_eval.types import Difference, Each, Estimate, Question, Scores, SystemScores
from rankr1_rag.types import Cost, Passage, Ranking


@dataclass(frozen=True, slots=True)
class Read:
    """What the reader said: the answer string taken from it ("" where there was none), its whole text, the cost.

    `stored` is True where it was not asked, and `seconds` therefore say nothing.
    """

    answer: str
    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    stored: bool = False


@dataclass(frozen=True)
class SystemRun:
    """One system: `orders`, question id to passage ids, best first (empty for systems without an order); `reads`, k to
    question id to what the reader said of the first k; `rankings` where a reasoning reranker made the order; `costs`
    of the reranking by question id, `Cost.seconds` being wall time of the stage; `retrieved`, where the reranker
    retrieves again between its hops, question id to how many passages of the order are no candidates.
    """

    name: str
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads: Mapping[int, Mapping[str, Read]] = field(default_factory=dict)
    rankings: Mapping[str, Ranking] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    retrieved: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluation: its questions, the passages by id, the systems in the order asked for ("none" first where it is).

    `settings` is what it was made with, for the reader of the report. Support recall is told at `cutoffs` too.
    """

    name: str
    dataset: str
    questions: tuple[Question, ...]
    passages: Mapping[str, Passage]
    candidates: int
    systems: tuple[SystemRun, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cutoffs: tuple[int, ...] = ()


if TYPE_CHECKING:
    from rankr1_eval.measures.intervals import Table

VERSION = 1
"""Of what `to_json` gives."""

BASELINE = "none"
"""The system that the others are compared with: first-stage order."""

COSTS = (
    "comparisons",
    "rounds",
    "passages_read",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "unparsed",
    "forced",
    "seconds",
)
READING = ("prompt_tokens", "completion_tokens", "seconds")
GROUPS: Mapping[str, Callable[[Question], str | int | None]] = {
    "type": lambda question: question.type or None,
    "hops": lambda question: question.hops,
}

Estimates = dict[str, dict[str, Estimate]]
"""By system and measure."""


def score(run: EvaluatedRun) -> Scores:
    """All that a run is worth. ValueError for a run without questions, or a question without supports."""
    ids = [question.query.id for question in run.questions]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"run {run.name!r}: {len(ids)} questions with {len(set(ids))} ids: needed is one, each once")
    each = {system.name: {**_support_scores(run, system), **_answer_scores(run, system)} for system in run.systems}
    means = estimates(each, ids)
    apart = (
        _differences([(each[system], each[BASELINE]) for system in each], ids)
        if BASELINE in each
        else [{} for _ in each]
    )
    systems = {
        system.name: SystemScores(
            system.name,
            each[system.name],
            means[system.name],
            {} if system.name == BASELINE else differs,
            _cost(system),
            _missing(system, ids),
        )
        for system, differs in zip(run.systems, apart, strict=True)
    }
    return Scores(systems, grouped(each, run.questions))


def estimates(each: Mapping[str, Each], ids: Sequence[str]) -> Estimates:
    """Of each system and measure the mean over these questions, with its interval."""
    from rankr1_eval.measures import intervals

    columns = [(system, measure) for system, measures in each.items() for measure in measures]
    found = intervals.estimates(_table([each[system][measure] for system, measure in columns], ids)) if columns else []
    means: Estimates = {system: {} for system in each}
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
    """Of each measure that both have, `a` minus `b` on the questions that both have; {} where there are none.

    `among` are the questions that count, all of them common, where not all do.
    """
    ids = common(a, b) if among is None else among
    return _differences([(a.each, b.each)], ids)[0] if ids else {}


def common(a: SystemScores, b: SystemScores) -> list[str]:
    """The questions that both have scores of in all that both measure, in the first one's order."""
    shared = [measure for measure in a.each if measure in b.each]
    ids = next(iter(a.each.values()), {})
    return [id for id in ids if all(id in system.each[name] for system in (a, b) for name in shared)]


def to_json(scores: Scores) -> dict[str, Any]:
    """The scores as JSON takes them, each question's too, nothing rounded: what `scores.json` holds."""
    return {"rankr1_eval": VERSION, **asdict(scores)}


def from_json(record: object) -> Scores:
    """The scores that `to_json` gave. ValueError for anything else."""
    if not isinstance(record, dict) or record.get("rankr1_eval") != VERSION:
        raise ValueError("these are no scores of a run: scores.json in the folder of a finished run holds them")
    try:
        systems = {
            name: SystemScores(
                system["name"],
                {measure: dict(found) for measure, found in system["each"].items()},
                _estimated(system["estimates"]),
                {measure: Difference(**found) for measure, found in system["differences"].items()},
                system["cost"],
                tuple(system["missing"]),
            )
            for name, system in record["systems"].items()
        }
        groups = {
            name: {value: {system: _estimated(found) for system, found in by.items()} for value, by in values.items()}
            for name, values in record["groups"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"these scores are damaged, make them anew: {error!r}") from error
    return Scores(systems, groups)


def _estimated(record: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    return {measure: Estimate(**found) for measure, found in record.items()}


def _differences(pairs: Sequence[tuple[Each, Each]], ids: Sequence[str]) -> list[dict[str, Difference]]:
    """Of each pair the differences, first minus second; together, because all then share the same draws."""
    from rankr1_eval.measures import intervals

    columns = [(n, measure) for n, (a, b) in enumerate(pairs) for measure in a if measure in b]
    found: list[dict[str, Difference]] = [{} for _ in pairs]
    if columns:
        first, second = (_table([pairs[n][side][measure] for n, measure in columns], ids) for side in (0, 1))
        for (n, measure), difference in zip(columns, intervals.differences(first - second), strict=True):
            found[n][measure] = difference
    return found


def _table(columns: Sequence[Mapping[str, float]], ids: Sequence[str]) -> Table:
    import numpy as np

    return np.array([[column[id] for id in ids] for column in columns], dtype=np.float64).T


def _support_scores(run: EvaluatedRun, system: SystemRun) -> Each:
    from rankr1_eval.measures import answers

    if not system.orders:
        return {}
    found = {question.query.id: question.supports for question in run.questions}
    cutoffs = sorted({*answers.CUTOFFS, *run.cutoffs, *(k for other in run.systems for k in other.reads)})
    return answers.scores({id: system.orders.get(id, ()) for id in found}, found, cutoffs)


def _answer_scores(run: EvaluatedRun, system: SystemRun) -> Each:
    if not system.reads:
        return {}
    scorer = answers.scorer(run.dataset)
    each: dict[str, dict[str, float]] = {}
    for k, reads in sorted(system.reads.items()):
        em, f1 = each[f"EM@{k}"], each[f"F1@{k}"] = {}, {}
        for question in run.questions:
            id = question.query.id
            em[id], f1[id] = scorer(reads[id].answer, question.answers) if id in reads else (0.0, 0.0)
    return each


def _missing(system: SystemRun, ids: Iterable[str]) -> tuple[str, ...]:
    needed: list[Mapping[str, object]] = [*([system.orders] if system.orders else []), *system.reads.values()]
    return tuple(id for id in ids if not all(id in found for found in needed))


def _cost(system: SystemRun) -> dict[str, float]:
    asked = list(system.costs.values())
    total = sum(asked, Cost())
    reads = [read for found in system.reads.values() for read in found.values()]
    cost = {name: getattr(total, name) / max(1, len(asked)) for name in COSTS}
    for name in READING:
        cost[f"reader_{name}"] = sum(getattr(read, name) for read in reads) / max(1, len(reads))
    for name, known, found in (
        ("seconds", [one.seconds for one in asked if not one.stored], asked),
        ("reader_seconds", [read.seconds for read in reads if not read.stored], reads),
    ):
        cost[name] = sum(known) / max(1, len(known))
        if found and not known:  # all of it came from a store: what it took is not known here
            del cost[name]
    if system.retrieved:
        cost["retrieved"] = sum(system.retrieved.values()) / len(system.retrieved)
    cost["reader_empty"] = sum(not read.answer.strip() for read in reads) / max(1, len(reads))
    return cost
