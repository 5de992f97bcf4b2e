"""What a run says in sentences, no more than its intervals bear: headline, lede, warnings, protocol.

Every string that leaves here is made of numbers, names and the run's own settings. Knows scores; nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rankr1_eval.report.tables import alarm
from rankr1_eval.report.wording import (
    View,
    dataset_name,
    difference,
    interval,
    kind,
    listed,
    percent,
    points,
    row_name,
    short,
    sure,
)
from rankr1_eval.scoring import differences
from rankr1_eval.types import Difference
from rankr1_rag.checkpoints import BASE
from rankr1_rag.explain.text import counted, line, start

FEW = 100
"""Fewer questions than this are called few."""
_RETRIEVERS = {"bm25": "BM25", "dense": "dense retrieval", "own": "the data set's own order", "run": "the given run"}


def first_stage(view: View) -> str:
    """What ordered the candidates, as it stands in a sentence."""
    retriever = view.run.settings.get("retriever")
    return _RETRIEVERS.get(retriever, line(retriever)) if isinstance(retriever, str) and retriever else "no rerank"


def over(view: View) -> str:
    """The line above the headline."""
    n = len(view.run.questions)
    named = [dataset_name(line(view.run.dataset)), counted(n, "question"), f"{view.run.candidates:,} candidates each"]
    return " · ".join([*(part for part in named if part), *_models(view)])


def _models(view: View) -> Iterator[str]:
    """Who reranked and who read: the rows are called by what they do, whatever model does it."""
    models = view.run.settings.get("models", {})
    for role, did in (("reranker", "reranked by"), ("reader", "read by")):
        if models.get(role) and (role == "reader" or any(row.rankings for row in view.run.systems)):
            yield f"{did} {line(models[role])}"


def headline(view: View) -> str:
    """The result in one sentence: of support recall where it was measured, else of F1."""
    for measure, verb in ((view.at_k("R"), "finds"), (view.at_k("F1"), "answers")):
        row = view.main or "none"
        found, before = view.estimate(row, measure), view.estimate("none", measure)
        if measure is None or found is None:
            continue
        k = measure.partition("@")[2]
        what = f"of the supports in the first {k}" if verb == "finds" else f"F1 with {k} passages read"
        begun = f"{_subject(view, row)} {'finds' if verb == 'finds' else 'reaches'} {percent(found.mean, 0)} % {what}"
        change = view.difference(row, measure)
        if change is None or before is None:
            return f"{begun} ({interval(found)})."
        return f"{begun}, {_against(view, change, first_stage(view))}"
    return "Nothing was scored."


def lede(view: View) -> list[str]:
    """What comes after the headline: other rows of Rank-R1, the answers, what could be reached, what is not there."""
    return [*_rivals(view), *_answers(view), *_bounds(view)]


def warnings(view: View) -> list[str]:
    """What a reader must know before believing the numbers, gravest first."""
    return [*_doubts(view), *_few(view)]


def protocol(view: View) -> list[str]:
    """How the numbers came about."""
    ks = listed(map(str, view.ks))
    return [
        f"Candidates are ordered by {first_stage(view)}; a row reorders them and adds none. A support that is not "
        "among them counts as not found, in every row.",
        *_searching(view),
        f"The reader is shown the first k passages of each row (k = {ks}); gold context is the supports alone, "
        "whatever k. Exact match and F1 are those of the data set's official script."
        if ks
        else "Nothing was read: there are no answers.",
        "Support recall@k is the share of a question's supports within the first k; all supports@k is 1 where none is "
        "missing; reciprocal rank is that of the first support.",
        "Means are over all questions of the run, in percent; what a row did not order or answer counts as 0. "
        "Intervals are 95 % bootstrap intervals over questions. Differences are paired with no rerank, question by "
        "question, with a bootstrap interval and the p of a two-sided randomisation test; the p are not corrected for "
        "their number.",
        "A difference is coloured, and the headline claims one, only where p is below 0.05 and the interval leaves out "
        "0. Bold is the best row of a column, those that know the supports left out.",
        "An answer of the model that cannot be parsed is counted as such, and the retriever's best passage of the set "
        "is taken.",
    ]


def _subject(view: View, row: str) -> str:
    model = view.run.settings.get("models", {}).get("reranker", "")
    if kind(row) == "rank-r1" and model and not model.startswith("ielabgroup/Rank-R1"):
        return f"{line(model)}, asked as Rank-R1,"
    if row != "none":
        return row_name(row)
    name = first_stage(view)
    return name[:1].upper() + name[1:]


def _against(view: View, change: Difference, name: str) -> str:
    """The comparison with no rerank or another row: "6.2 points more than BM25 (+1.0 to +11.5)."."""
    size = short(points(abs(change.mean)).lstrip("+"))
    ends = f"{short(points(change.low))} to {short(points(change.high))}"
    ends += "" if sure(change) else f", p = {change.p:.2f}"
    unit = "point" if size == "1" else "points"
    if direction := sure(change):
        return f"{size} {unit} {'more' if direction > 0 else 'fewer'} than {name} ({ends})."
    n = len(view.run.questions)
    verb = "question cannot" if n == 1 else "questions cannot"
    if size == "0":
        return f"as many as {name} ({ends})."
    more = "more" if change.mean > 0 else "fewer"
    return f"{size} {unit} {more} than {name}, which {n:,} {verb} tell from chance ({ends})."


def _answers(view: View) -> Iterator[str]:
    measure = view.at_k("F1")
    row = view.main or "none"
    found, before, change = view.estimate(row, measure), view.estimate("none", measure), view.difference(row, measure)
    if measure is None or found is None or view.at_k("R") is None:
        return
    shown = counted(int(measure.partition("@")[2]), "passage")
    begun = f"The reader's F1 with {shown} is {percent(found.mean)} %"
    if change is None or before is None:
        yield f"{begun} ({interval(found)})."
    elif direction := sure(change):
        better = "better" if direction > 0 else "worse"
        yield f"{begun}, {better} than the {percent(before.mean)} % without reranking: {difference(change)}."
    else:
        yield (
            f"{begun}, against {percent(before.mean)} % without reranking: {difference(change)}, so this run "
            "shows neither better nor worse answers."
        )


def _rivals(view: View) -> Iterator[str]:
    """Each other row of Rank-R1 against the one that the report is about."""
    measure, main = view.at_k("R"), view.scores.systems.get(view.main or "")
    for row in view.rivals:
        found = view.estimate(row, measure)
        if measure is None or main is None or found is None:
            continue
        if change := differences(view.scores.systems[row], main).get(measure):
            begun = f"{row_name(row)} finds {percent(found.mean, 0)} % in the first {measure.partition('@')[2]}"
            yield f"{begun}, {_against(view, change, row_name(main.name))}"


def _searching(view: View) -> Iterator[str]:
    """Which rows add to the candidates after all."""
    if rows := [row_name(name) for name, row in view.rows.items() if row.retrieved]:
        yield (
            f"But {listed(rows)} {'asks' if len(rows) == 1 else 'ask'} the first stage again between the hops, for the "
            "question with the passage chosen last: what is new stands behind the candidates, to choose from and to "
            "count as found. Random order and oracle have the candidates of the question alone."
        )


def _bounds(view: View) -> Iterator[str]:
    measure = view.at_k("F1")
    gold, alone = view.estimate("gold", measure), view.estimate("no-context", measure)
    if gold is not None:
        without = f", and {percent(alone.mean)} % without any passage" if alone is not None else ""
        given = "the supports" if not view.run.settings.get("absent") else "those supports that the corpus has"
        yield f"Given {given} and nothing else, the same reader reaches {percent(gold.mean)} %{without}."
    row = view.rows.get("none")
    ranks = (
        [rank for q in view.run.questions if q.query.id in row.orders for rank in view.ranks("none", q)] if row else []
    )
    if ranks and None in ranks:
        share = sum(rank is not None for rank in ranks) / len(ranks)
        yield f"Of the supports {percent(share)} % are among the candidates: no order of these can find more."
    for name, one in view.rows.items():
        if one.retrieved:
            own = [rank for q in view.run.questions for rank in view.ranks(name, q)]
            share = sum(rank is not None for rank in own) / len(own)
            yield f"{row_name(name)} has {percent(share)} % of them with what it retrieves between its hops."


def _few(view: View) -> Iterator[str]:
    n = len(view.run.questions)
    if n == 1:
        yield "One question: it shows that everything runs, and says nothing about any other question."
    elif n < FEW:
        yield (
            f"{n} questions are few: a difference must be large to be told from chance. Look at the intervals, not at "
            "the means."
        )


def _doubts(view: View) -> Iterator[str]:
    models = view.run.settings.get("models", {})
    if BASE in models.values():
        yield f"{BASE} has 135 million parameters and was never trained for this: it shows that the path works."
    gold = view.difference("gold", view.at_k("F1"))
    if gold is not None and sure(gold) <= 0:
        yield (
            "The reader answers no better with the supports alone than without reranking, as far as these questions "
            "tell: F1 says little about reranking here. A better reader may."
        )
    if absent := view.run.settings.get("absent"):
        of = f"{absent:,} of {view.run.settings['supports']:,} supports"
        yield f"{of} are not in the corpus at all: nothing can find them, and gold context lacks them."
    for name, scored in view.scores.systems.items():
        yield from _row_doubts(row_name(name), scored.cost)
        if missing := len(scored.missing):
            yield f"{row_name(name)}: {counted(missing, 'question')} without an order or an answer, counted as 0."
    failed = {name: _failures(view, name) for name in view.rows}
    for name, reasons in failed.items():
        if reasons:
            n, first = counted(len(reasons), "question"), start(reasons[0], 120)
            yield f"{row_name(name)}: in {n} the model failed and the first-stage order stands ({first})."


def _failures(view: View, row: str) -> list[str]:
    found = (ranking.failure for ranking in view.rows[row].rankings.values())
    return [reason for reason in found if reason is not None]


def _row_doubts(name: str, cost: Mapping[str, float]) -> Iterator[str]:
    asked = cost.get("comparisons", 0.0)
    if alarm(cost, "unparsed"):
        share = percent(cost["unparsed"] / asked, 0)
        yield (
            f"{name}: {share} % of the comparisons gave no answer that could be parsed; there the retriever was "
            "trusted, not the model."
        )
    if alarm(cost, "forced") and cost.get("reasoning_tokens"):
        share = percent(cost["forced"] / asked, 0)
        yield f"{name}: {share} % of the labels had to be forced, so the thoughts may not be the reasons."
    if alarm(cost, "reader_empty"):
        yield f"{name}: the reader gave no answer string to {percent(cost['reader_empty'], 0)} % of what it was asked."
