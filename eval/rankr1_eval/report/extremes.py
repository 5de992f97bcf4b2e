"""The questions that gained and lost most, with the answers of every system and the reasoning for the ranks.

Changes in F1 come first, then changes in support recall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankr1_eval.report.wording import DASH, View, percent, system_name
from rankr1_eval.types import Question
from rankr1_rag.explain import story
from rankr1_rag.explain.slopes import SlopeChart, compare_orders
from rankr1_rag.explain.story import line, start
from rankr1_rag.types import Comparison, Ranking

BY_ANSWER, BY_RECALL = 3, 2
"""The number of questions by F1, and of more by support recall; of gains and losses each."""
_DEPTH = 10
_REASONING = 1500
_ANSWER = 240
_ALIASES = 4


@dataclass(frozen=True, slots=True)
class SystemAnswer:
    """One system's answer and ranks of the supports; "" for a figure that it does not have."""

    system: str
    name: str
    tone: str
    answer: str
    f1: str
    right: bool
    ranks: str


@dataclass(frozen=True, slots=True)
class RankReason:
    """Why a passage has its rank: the verdict, and the reasoning with the comparison that its labels refer to."""

    rank: int
    name: str
    support: bool
    verdict: str
    reasoning: str
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class ChangedQuestion:
    """One question that gained or lost; `changes` are (text, whether it is a gain), `names` the candidates' names."""

    question: Question
    gain: bool
    changes: list[tuple[str, bool]]
    right: str
    answers: list[SystemAnswer]
    chart: SlopeChart | None
    reasons: list[RankReason]
    names: list[str]


def extremes(view: View) -> tuple[list[ChangedQuestion], list[ChangedQuestion]]:
    """The greatest gains and the greatest losses of the main system against no rerank."""
    if view.main is None or "none" not in view.systems:
        return [], []
    by_answer, by_recall = (changes(view, view.at_k(family)) for family in ("F1", "R"))
    gains, losses = (
        [changed_question(view, view.main, id, sign > 0) for id in most_changed(by_answer, by_recall, sign)]
        for sign in (1, -1)
    )
    return gains, losses


def changes(view: View, measure: str | None) -> dict[str, float]:
    """The main system's difference from no rerank by question, where both have a score."""
    before, after = view.each("none", measure), view.each(view.main, measure)
    return {id: after[id] - before[id] for id in view.questions if id in before and id in after}


def most_changed(by_answer: Mapping[str, float], by_recall: Mapping[str, float], sign: int) -> list[str]:
    """Ids, the greatest change first; of equal ones the one whose supports moved more, then the data set's order.

    A question whose answers and supports changed in opposite directions is neither a gain nor a loss.
    """

    def most(first: Mapping[str, float], second: Mapping[str, float], number: int) -> list[str]:
        moved = [id for id, change in first.items() if sign * change > 1e-9 and sign * second.get(id, 0.0) >= 0]
        return sorted(moved, key=lambda id: (-sign * first[id], -sign * second.get(id, 0.0)))[:number]

    chosen = most(by_answer, by_recall, BY_ANSWER)
    return chosen + most({id: one for id, one in by_recall.items() if id not in chosen}, by_answer, BY_RECALL)


def changed_question(view: View, main: str, id: str, gain: bool) -> ChangedQuestion:
    """All there is to show of a question."""
    question = view.questions[id]
    changes = []
    for family, label in (("F1", "F1"), ("R", "support recall")):
        before, after = (view.each(name, view.at_k(family)).get(id) for name in ("none", main))
        if before is not None and after is not None and abs(before - after) > 1e-9:
            changes.append((f"{label} {percent(before, 0)} → {percent(after, 0)}", after > before))
    right = " / ".join(start(answer, _ANSWER // 2) or "(empty)" for answer in question.answers[:_ALIASES])
    more = len(question.answers) - _ALIASES
    ranking = view.systems[main].rankings.get(id)
    return ChangedQuestion(
        question,
        gain,
        changes,
        right + (f" / {more} more" if more > 0 else ""),
        [system_answer(view, name, question) for name in view.systems],
        order_chart(view, main, question),
        reasons(ranking, question, view.k) if ranking is not None and ranking.failure is None else [],
        [story.name(ranking, position) for position in range(len(ranking.candidates))] if ranking is not None else [],
    )


def system_answer(view: View, name: str, question: Question) -> SystemAnswer:
    """At the report's k."""
    id, system = question.query.id, view.systems[name]
    read = system.reads.get(view.k, {}).get(id)
    f1, exact = (view.each(name, view.at_k(family)).get(id) for family in ("F1", "EM"))
    ranks = ", ".join(DASH if rank is None else str(rank) for rank in view.ranks(name, question))
    return SystemAnswer(
        name,
        system_name(name),
        view.tone(name),
        "" if read is None else start(read.answer, _ANSWER) or "(nothing)",
        "" if f1 is None else percent(f1, 0),
        exact == 1.0,
        ranks if id in system.orders else "",
    )


def order_chart(view: View, system: str, question: Question) -> SlopeChart | None:
    """The first passages before and after, and all supports."""
    before, after = (view.systems[name].orders.get(question.query.id, ()) for name in ("none", system))
    if not before or not after:
        return None
    depth = min(view.k, _DEPTH)

    def name(id: str) -> str:
        passage = view.run.passages.get(id)
        return (passage and (start(passage.title, 60) or start(passage.text, 60))) or line(id)

    drawn = {*before[:depth], *after[:depth], *question.supports}
    return compare_orders(before, after, drawn, name, lambda id: "support" if id in question.supports else "")


def reasons(ranking: Ranking, question: Question, k: int) -> list[RankReason]:
    """Of the first k, and of every support that the model has seen."""
    found = []
    for place in story.places(ranking):
        why, support = place.why, place.why.passage.id in question.supports
        if why.comparison is not None and (support or why.rank <= min(k, _DEPTH)):
            text = why.reasoning.strip()
            if len(text) > _REASONING:
                text = text[: _REASONING - 1].rstrip() + "…"
            verdict = story.verdict(ranking, why)
            found.append(RankReason(why.rank, place.name, support, verdict, text, why.comparison))
    return found
