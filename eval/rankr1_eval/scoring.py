"""The score of a finished run: each question's measures by row, their means, what differs from no reranking, groups.

A row has support measures (R@k, All@k, RR, nDCG@10) where it has orders, EM@k and F1@k for each k it was read at.
Everything is over all the questions of the run: what a row lacks counts as 0 and is told in `RowScores.missing`, which
a finished `qa` has none of. Knows runs and measures; nothing of files or models.

The scores of a run as values: each question's, their means with intervals, paired differences, groups.

Knows no file and no measure by name: `score.py` fills them in.

A finished run as values: what each row ranked and answered, for the score and for the report.

A *row* is one way to order or choose what the reader sees: "none" (first-stage order), "oracle", "random", "dense",
"cross-encoder", "rank-r1"; "gold" and "no-context" have no order, only answers. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rankr1_eval.measures import answers
from rankr1_eval.types import Difference, Each, Estimate, Question, RowScores, Scores
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
class Row:
    """One row: `orders`, question id to passage ids, best first (empty for rows without an order); `reads`, k to
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
    """One evaluation: its questions, the passages by id, the rows in the order asked for ("none" first where it is).

    `settings` is what it was made with, for the reader of the report. Support recall is told at `cutoffs` too.
    """

    name: str
    dataset: str
    questions: tuple[Question, ...]
    passages: Mapping[str, Passage]
    candidates: int
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cutoffs: tuple[int, ...] = ()


if TYPE_CHECKING:
    from rankr1_eval.measures.intervals import Table

VERSION = 1
"""Of what `to_json` gives."""

BASELINE = "none"
"""The row that the others are compared with: first-stage order."""

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
"""By row and measure."""


def score(run: EvaluatedRun) -> Scores:
    """All that a run is worth. ValueError for a run without questions, or a question without supports."""
    ids = [question.query.id for question in run.questions]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"run {run.name!r}: {len(ids)} questions with {len(set(ids))} ids: needed is one, each once")
    each = {row.name: {**_support_scores(run, row), **_answer_scores(run, row)} for row in run.rows}
    means = estimates(each, ids)
    apart = _differences([(each[row], each[BASELINE]) for row in each], ids) if BASELINE in each else [{} for _ in each]
    rows = {
        row.name: RowScores(
            row.name,
            each[row.name],
            means[row.name],
            {} if row.name == BASELINE else differs,
            _cost(row),
            _missing(row, ids),
        )
        for row, differs in zip(run.rows, apart, strict=True)
    }
    return Scores(rows, grouped(each, run.questions))


def estimates(each: Mapping[str, Each], ids: Sequence[str]) -> Estimates:
    """Of each row and measure the mean over these questions, with its interval."""
    from rankr1_eval.measures import intervals

    columns = [(row, measure) for row, measures in each.items() for measure in measures]
    found = intervals.estimates(_table([each[row][measure] for row, measure in columns], ids)) if columns else []
    means: Estimates = {row: {} for row in each}
    for (row, measure), estimate in zip(columns, found, strict=True):
        means[row][measure] = estimate
    return means


def grouped(each: Mapping[str, Each], questions: Iterable[Question]) -> dict[str, dict[str, Estimates]]:
    """The estimates by type and by hops of the questions, as far as they have any."""
    groups: dict[str, dict[str, Estimates]] = {}
    for name, key in GROUPS.items():
        keyed = sorted((value, question.query.id) for question in questions if (value := key(question)) is not None)
        for value, members in groupby(keyed, key=lambda pair: pair[0]):
            groups.setdefault(name, {})[str(value)] = estimates(each, [id for _, id in members])
    return groups


def differences(a: RowScores, b: RowScores, among: Sequence[str] | None = None) -> dict[str, Difference]:
    """Of each measure that both have, `a` minus `b` on the questions that both have; {} where there are none.

    `among` are the questions that count, all of them common, where not all do.
    """
    ids = common(a, b) if among is None else among
    return _differences([(a.each, b.each)], ids)[0] if ids else {}


def common(a: RowScores, b: RowScores) -> list[str]:
    """The questions that both have scores of in all that both measure, in the first one's order."""
    shared = [measure for measure in a.each if measure in b.each]
    ids = next(iter(a.each.values()), {})
    return [id for id in ids if all(id in row.each[name] for row in (a, b) for name in shared)]


def to_json(scores: Scores) -> dict[str, Any]:
    """The scores as JSON takes them, each question's too, nothing rounded: what `scores.json` holds."""
    return {"rankr1_eval": VERSION, **asdict(scores)}


def from_json(record: object) -> Scores:
    """The scores that `to_json` gave. ValueError for anything else."""
    if not isinstance(record, dict) or record.get("rankr1_eval") != VERSION:
        raise ValueError("these are no scores of a run: scores.json in the folder of a finished run holds them")
    try:
        rows = {
            name: RowScores(
                row["name"],
                {measure: dict(found) for measure, found in row["each"].items()},
                _estimated(row["estimates"]),
                {measure: Difference(**found) for measure, found in row["differences"].items()},
                row["cost"],
                tuple(row["missing"]),
            )
            for name, row in record["rows"].items()
        }
        groups = {
            name: {value: {row: _estimated(found) for row, found in by.items()} for value, by in values.items()}
            for name, values in record["groups"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"these scores are damaged, make them anew: {error!r}") from error
    return Scores(rows, groups)


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


def _support_scores(run: EvaluatedRun, row: Row) -> Each:
    from rankr1_eval.measures import answers

    if not row.orders:
        return {}
    found = {question.query.id: question.supports for question in run.questions}
    cutoffs = sorted({*answers.CUTOFFS, *run.cutoffs, *(k for other in run.rows for k in other.reads)})
    return answers.scores({id: row.orders.get(id, ()) for id in found}, found, cutoffs)


def _answer_scores(run: EvaluatedRun, row: Row) -> Each:
    if not row.reads:
        return {}
    scorer = answers.scorer(run.dataset)
    each: dict[str, dict[str, float]] = {}
    for k, reads in sorted(row.reads.items()):
        em, f1 = each[f"EM@{k}"], each[f"F1@{k}"] = {}, {}
        for question in run.questions:
            id = question.query.id
            em[id], f1[id] = scorer(reads[id].answer, question.answers) if id in reads else (0.0, 0.0)
    return each


def _missing(row: Row, ids: Iterable[str]) -> tuple[str, ...]:
    needed: list[Mapping[str, object]] = [*([row.orders] if row.orders else []), *row.reads.values()]
    return tuple(id for id in ids if not all(id in found for found in needed))


def _cost(row: Row) -> dict[str, float]:
    asked = list(row.costs.values())
    total = sum(asked, Cost())
    reads = [read for found in row.reads.values() for read in found.values()]
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
    if row.retrieved:
        cost["retrieved"] = sum(row.retrieved.values()) / len(row.retrieved)
    cost["reader_empty"] = sum(not read.answer.strip() for read in reads) / max(1, len(reads))
    return cost
