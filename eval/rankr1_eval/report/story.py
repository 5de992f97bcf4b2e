"""A run in sentences that claim no more than its intervals support: headline, lede, warnings, protocol.

They are made of numbers, names and the run's own settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from rankr1_eval.report.tables import alarm
from rankr1_eval.report.wording import (
    View,
    dataset_name,
    difference,
    interval,
    kind,
    listed,
    p_value,
    percent,
    points,
    short,
    sure,
    system_name,
)
from rankr1_eval.scoring import differences
from rankr1_eval.types import Difference
from rankr1_rag.checkpoints import BASE
from rankr1_rag.explain.story import counted, line, start

FEW = 100
"""Fewer questions than this are called few."""
_RETRIEVERS = {"bm25": "BM25", "dense": "dense retrieval", "own": "the data set's own order", "run": "the run file"}


def first_stage(view: View) -> str:
    """A name for the first stage within a sentence."""
    retriever = view.run.settings.get("retriever")
    return _RETRIEVERS.get(retriever, line(retriever)) if isinstance(retriever, str) and retriever else "no rerank"


def over(view: View) -> str:
    """The line above the headline: data set, numbers, models."""
    n = len(view.run.questions)
    parts = [dataset_name(line(view.run.dataset)), counted(n, "question"), f"{view.run.candidates:,} candidates each"]
    models = view.run.settings.get("models", {})
    if models.get("reranker") and any(system.rankings for system in view.run.systems):
        parts.append(f"reranked by {line(models['reranker'])}")
    if models.get("reader"):
        parts.append(f"read by {line(models['reader'])}")
    return " · ".join(filter(None, parts))


def headline(view: View) -> str:
    """The result in one sentence: by support recall if it was measured, else by F1."""
    system = view.main or "none"
    model = view.run.settings.get("models", {}).get("reranker", "")
    subject = system_name(system)
    if kind(system) == "rank-r1" and model and not model.startswith("ielabgroup/Rank-R1"):
        subject = f"{line(model)}, asked as Rank-R1,"
    elif system == "none":
        subject = first_stage(view)[:1].upper() + first_stage(view)[1:]
    for family, what in (
        ("R", "finds {} % of the supports in the first {}"),
        ("F1", "reaches {} % F1 with {} passages read"),
    ):
        measure = view.at_k(family)
        found, change = view.estimate(system, measure), view.difference(system, measure)
        if measure is None or found is None:
            continue
        result = f"{subject} {what.format(percent(found.mean, 0), measure.partition('@')[2])}"
        if change is None or view.estimate("none", measure) is None:
            return f"{result} ({interval(found)})."
        return f"{result}, {compared(view, change, first_stage(view))}"
    return "Nothing was scored."


def compared(view: View, change: Difference, name: str) -> str:
    """A difference from another system: "6.2 points more than BM25 (+1.0 to +11.5)."."""
    size = short(points(abs(change.mean)).lstrip("+"))
    ends = short(interval(change)) + ("" if sure(change) else f", {p_value(change.p)}")
    if size == "0" and not sure(change):
        return f"as many as {name} ({ends})."
    unit = "point" if size == "1" else "points"
    result = f"{size} {unit} {'more' if change.mean > 0 else 'fewer'} than {name}"
    if sure(change):
        return f"{result} ({ends})."
    return f"{result}, which {counted(len(view.run.questions), 'question')} cannot tell from chance ({ends})."


def lede(view: View) -> Iterator[str]:
    """What follows the headline: other systems of Rank-R1, the answers, the bounds."""
    recall, f1, main = view.at_k("R"), view.at_k("F1"), view.scores.systems.get(view.main or "")
    for name in view.rivals:
        found = view.estimate(name, recall)
        change = differences(view.scores.systems[name], main).get(recall or "") if main else None
        if recall and main and found and change:
            share = f"{system_name(name)} finds {percent(found.mean, 0)} % in the first {recall.partition('@')[2]}"
            yield f"{share}, {compared(view, change, system_name(main.name))}"
    yield from answers(view)
    gold, alone = view.estimate("gold", f1), view.estimate("no-context", f1)
    if gold is not None:
        without = f", and {percent(alone.mean)} % without any passage" if alone is not None else ""
        shown = "the supports that the corpus has" if view.run.settings.get("absent") else "the supports alone"
        yield f"With {shown}, the same reader reaches {percent(gold.mean)} %{without}."
    ranks = {
        name: [rank for q in view.run.questions if q.query.id in system.orders for rank in view.ranks(name, q)]
        for name, system in view.systems.items()
        if name == "none" or system.retrieved
    }
    for name, placed in ranks.items():
        share = percent(sum(rank is not None for rank in placed) / max(1, len(placed)))
        if name != "none":
            yield f"{system_name(name)} has {share} % of them with the passages it retrieves between its hops."
        elif None in placed:
            yield f"Of the supports {share} % are among the candidates: no order of these can find more."


def answers(view: View) -> Iterator[str]:
    """The reader's F1, unless the headline has it."""
    measure, system = view.at_k("F1"), view.main or "none"
    found, before = view.estimate(system, measure), view.estimate("none", measure)
    change = view.difference(system, measure)
    if measure is None or found is None or view.at_k("R") is None:
        return
    result = f"The reader's F1 with {counted(int(measure.partition('@')[2]), 'passage')} is {percent(found.mean)} %"
    if change is None or before is None:
        yield f"{result} ({interval(found)})."
    elif sure(change):
        better = "better" if sure(change) > 0 else "worse"
        yield f"{result}, {better} than the {percent(before.mean)} % without reranking: {difference(change)}."
    else:
        yield (
            f"{result}, against {percent(before.mean)} % without reranking: {difference(change)}, so this run "
            "shows neither better nor worse answers."
        )


def warnings(view: View) -> Iterator[str]:
    """Reasons to doubt the numbers, gravest first."""
    if BASE in view.run.settings.get("models", {}).values():
        yield f"{BASE} has 135 million parameters and was never trained for this: it shows that the path works."
    gold = view.difference("gold", view.at_k("F1"))
    if gold is not None and sure(gold) <= 0:
        yield (
            "With the supports alone the reader answers no better than without reranking, as far as these questions "
            "show: F1 says little about reranking here. A better reader may."
        )
    if absent := view.run.settings.get("absent"):
        of = f"{absent:,} of {view.run.settings['supports']:,} supports"
        yield f"{of} are not in the corpus at all: nothing can find them, and gold context lacks them."
    yield from system_warnings(view)
    if (n := len(view.run.questions)) == 1:
        yield "One question: it shows that everything runs, and says nothing about any other question."
    elif n < FEW:
        yield f"{n} questions are few: only a large difference is no chance. Look at the intervals, not at the means."


def system_warnings(view: View) -> Iterator[str]:
    """Reasons to doubt the numbers of one system."""
    for name, scored in view.scores.systems.items():
        cost, title = scored.cost, system_name(name)
        asked = cost.get("comparisons", 0.0)
        if alarm(cost, "unparsed"):
            yield (
                f"{title}: {percent(cost['unparsed'] / asked, 0)} % of the comparisons gave no answer that could be "
                "parsed; there the retriever was trusted, not the model."
            )
        if alarm(cost, "forced") and cost.get("reasoning_tokens"):
            share = percent(cost["forced"] / asked, 0)
            yield f"{title}: {share} % of the answers were forced, so the reasoning may not explain them."
        if alarm(cost, "reader_empty"):
            yield f"{title}: the reader gave no answer string in {percent(cost['reader_empty'], 0)} % of its readings."
        if missing := len(scored.missing):
            yield f"{title}: {counted(missing, 'question')} without an order or an answer, counted as 0."
    for name, system in view.systems.items():
        failures = [ranking.failure for ranking in system.rankings.values() if ranking.failure is not None]
        if failures:
            n, first = counted(len(failures), "question"), start(failures[0], 120)
            yield f"{system_name(name)}: the model failed in {n}, which keep the first-stage order ({first})."
        if early := sum(ranking.truncated is not None for ranking in system.rankings.values()):
            yield f"{system_name(name)}: {counted(early, 'ranking')} ended early, with the best order so far."


def protocol(view: View) -> Iterator[str]:
    """How the numbers came about."""
    yield (
        f"Candidates are ordered by {first_stage(view)}; a system reorders them and adds none. A support that is not "
        "among them counts as not found, in every system."
    )
    if names := [system_name(name) for name, system in view.systems.items() if system.retrieved]:
        yield (
            f"But {listed(names)} {'asks' if len(names) == 1 else 'ask'} the first stage again between the hops, for "
            "the question with the passage chosen last. New passages join the end of the candidates, can be chosen and "
            "count as found. Random order and oracle have the candidates of the question alone."
        )
    if view.ks:
        yield (
            f"The reader is shown the first k passages of each system (k = {listed(map(str, view.ks))}); gold context "
            "is the supports alone, whatever k. Exact match and F1 are those of the data set's official script."
        )
    else:
        yield "Nothing was read: there are no answers."
    yield (
        "Support recall@k is the share of a question's supports within the first k; all supports@k is 1 if none is "
        "missing; reciprocal rank is that of the first support."
    )
    yield (
        "Means are over all questions of the run, in percent; a missing order or answer counts as 0. Intervals are "
        "95 % bootstrap intervals over questions. Differences are paired with no rerank, question by question, with a "
        "bootstrap interval and the p of a two-sided randomisation test, not corrected for the number of tests."
    )
    yield (
        "A difference is coloured, and the headline claims one, only if p is below 0.05 and the interval excludes 0. "
        "Bold is the best system of a column, without those that know the supports."
    )
    yield (
        "If an answer of the model cannot be parsed, it is counted as such and the retriever's best passage of the set "
        "wins."
    )
