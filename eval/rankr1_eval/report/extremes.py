"""The questions that gained and lost most, with what every row answered and the reasoning beside the ranks.

By F1 first, then by support recall. Knows runs, scores and rankings; nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankr1_eval.report.wording import DASH, View, percent, row_name
from rankr1_eval.scoring import Read, SystemRun
from rankr1_eval.types import Question
from rankr1_rag.explain import story
from rankr1_rag.explain.text import line, start
from rankr1_rag.types import Comparison, Ranking

BY_ANSWER, BY_RECALL = 3, 2
"""So many questions by F1 and so many more by support recall, of gains and losses each."""
ROW = 26
WIDTH = 100
_DEPTH = 10
_THOUGHT = 1500
_ANSWER = 240
_ALIASES = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """What a row made of a question: "" for a figure that it does not have."""

    row: str
    name: str
    tone: str
    answer: str
    f1: str
    right: bool
    ranks: str


@dataclass(frozen=True, slots=True)
class Place:
    """A passage in a column of the picture, or a gap of so many passages where `rank` is 0."""

    rank: int
    name: str = ""
    support: bool = False
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Swap:
    """The first passages before and after, and a curve for each that stands in both columns."""

    left: list[Place]
    right: list[Place]
    curves: list[tuple[str, bool, str]]
    height: int


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a passage stands at its rank: the verdict, and the thought with the comparison that its labels refer to."""

    rank: int
    name: str
    support: bool
    verdict: str
    reasoning: str
    comparison: Comparison | None
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Change:
    """What a question gained or lost of one measure."""

    text: str
    gain: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One question that gained or lost: it may have gained answers and lost supports, or the other way round."""

    question: Question
    gain: bool
    changes: list[Change]
    answers: str
    answered: list[Answered]
    swap: Swap | None
    reasons: list[Reason]


def extremes(view: View) -> tuple[list[Case], list[Case]]:
    """The greatest gains and the greatest losses of the row that the report is about against no rerank."""
    if view.main is None or "none" not in view.rows:
        return [], []
    by_answer, by_recall = _changes(view, view.at_k("F1")), _changes(view, view.at_k("R"))
    return tuple(  # type: ignore[return-value]
        [_case(view, id, sign > 0) for id in _chosen(by_answer, by_recall, sign)] for sign in (1, -1)
    )


def _changes(view: View, measure: str | None) -> dict[str, float]:
    before, after = view.each("none", measure), view.each(view.main, measure)
    return {id: after[id] - before[id] for id in view.questions if id in before and id in after}


def _chosen(by_answer: Mapping[str, float], by_recall: Mapping[str, float], sign: int) -> list[str]:
    """Ids, the greatest change first; of equal ones that whose supports moved more, then the data set's order.

    What answers and supports disagree on is neither a gain nor a loss.
    """

    def most(first: Mapping[str, float], second: Mapping[str, float], number: int) -> list[str]:
        moved = [id for id, change in first.items() if sign * change > 1e-9 and sign * second.get(id, 0.0) >= 0]
        return sorted(moved, key=lambda id: (-sign * first[id], -sign * second.get(id, 0.0)))[:number]

    chosen = most(by_answer, by_recall, BY_ANSWER)
    others = {id: change for id, change in by_recall.items() if id not in chosen}
    return chosen + most(others, by_answer, BY_RECALL)


def _case(view: View, id: str, gain: bool) -> Case:
    question = view.questions[id]
    assert view.main is not None
    ranking = view.rows[view.main].rankings.get(id)
    shown, more = question.answers[:_ALIASES], len(question.answers) - _ALIASES
    return Case(
        question,
        gain,
        [one for name, label in (("F1", "F1"), ("R", "support recall")) if (one := _change(view, id, name, label))],
        " / ".join(start(answer, _ANSWER) or "(empty)" for answer in shown) + (f" / {more} more" if more > 0 else ""),
        [_answered(view, row, question) for row in view.run.systems],
        _swap(view, view.main, question),
        _reasons(ranking, set(question.supports), view.k) if ranking is not None else [],
    )


def _change(view: View, id: str, family: str, label: str) -> Change | None:
    measure = view.at_k(family)
    before, after = view.each("none", measure).get(id), view.each(view.main, measure).get(id)
    if before is None or after is None or abs(before - after) < 1e-9:
        return None
    return Change(f"{label} {percent(before, 0)} → {percent(after, 0)}", after > before)


def _answered(view: View, row: SystemRun, question: Question) -> Answered:
    read = _read(view, row, question.query.id)
    scored = view.scores.systems.get(row.name)
    names = scored.each if scored else {}
    f1, exact = (_score(view, names, family, question.query.id) for family in ("F1", "EM"))
    ranks = ", ".join(DASH if rank is None else str(rank) for rank in view.ranks(row.name, question))
    return Answered(
        row.name,
        row_name(row.name),
        view.tone(row.name),
        "" if read is None else start(read.answer, _ANSWER) or "(nothing)",
        "" if f1 is None else percent(f1, 0),
        exact == 1.0,
        ranks if question.query.id in row.orders else "",
    )


def _read(view: View, row: SystemRun, id: str) -> Read | None:
    """At the report's k."""
    return row.reads.get(view.k, {}).get(id)


def _score(view: View, names: Mapping[str, Mapping[str, float]], family: str, id: str) -> float | None:
    measure = view.at_k(family) or ""
    return names.get(measure, {}).get(id)


def _swap(view: View, row: str, question: Question) -> Swap | None:
    before = view.rows["none"].orders.get(question.query.id, ())
    after = view.rows[row].orders.get(question.query.id, ())
    if not before or not after:
        return None
    depth = min(view.k, _DEPTH)
    drawn = {*before[:depth], *after[:depth], *question.supports}
    left, right = _column(view, before, drawn, question), _column(view, after, drawn, question)
    return Swap(
        [place for place, _ in left],
        [place for place, _ in right],
        _curves([id for _, id in left], [id for _, id in right], question),
        ROW * max(len(left), len(right)),
    )


def _column(view: View, order: tuple[str, ...], drawn: set[str], question: Question) -> list[tuple[Place, str]]:
    column: list[tuple[Place, str]] = []
    for rank, id in enumerate(order, start=1):
        if id in drawn:
            column.append((Place(rank, _name(view, id), id in question.supports), id))
        elif column and not column[-1][0].rank:
            column[-1] = Place(0, hidden=column[-1][0].hidden + 1), ""
        else:
            column.append((Place(0, hidden=1), ""))
    return column


def _curves(left: list[str], right: list[str], question: Question) -> list[tuple[str, bool, str]]:
    """(path, whether it is a support, id), supports last, so that they lie on top."""
    curves = []
    for place, id in enumerate(left):
        if id and id in right:
            y0, y1, middle = ROW * place + ROW // 2, ROW * right.index(id) + ROW // 2, WIDTH // 2
            curves.append((f"M0 {y0}C{middle} {y0} {middle} {y1} {WIDTH} {y1}", id in question.supports, id))
    return sorted(curves, key=lambda one: one[1])


def _name(view: View, id: str) -> str:
    passage = view.run.passages.get(id)
    if passage is None:
        return line(id)
    return start(passage.title, 60) or start(passage.text, 60) or line(id)


def _reasons(ranking: Ranking, supports: set[str], k: int) -> list[Reason]:
    """Of the first k, and of every support that the model has seen."""
    if ranking.failure is not None:
        return []
    found = []
    for rank in range(1, len(ranking) + 1):
        why = ranking.explain(rank)
        support = why.passage.id in supports
        if (rank <= min(k, _DEPTH) or support) and why.comparison is not None:
            name, told = story.name(ranking, why.position), story.verdict(ranking, why)
            found.append(Reason(rank, name, support, told, _cut(why.reasoning), why.comparison, ranking))
    return found


def _cut(thought: str) -> str:
    whole = thought.strip()
    return whole if len(whole) <= _THOUGHT else whole[: _THOUGHT - 1].rstrip() + "…"
