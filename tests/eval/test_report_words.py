"""What the report says and computes: no sentence claims what its interval does not bear, no support counts twice."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval.report import charts, story, wording
from rankr1_eval.report.charts import support_moves
from rankr1_eval.report.extremes import extremes
from rankr1_eval.report.tables import group_tables, scores_table
from rankr1_eval.report.wording import View, extent
from rankr1_eval.scoring import EvaluatedRun, SystemRun, score
from rankr1_eval.types import Difference, Estimate, Question, Scores, SystemScores
from rankr1_rag.checkpoints import BASE
from rankr1_rag.reader import Read
from rankr1_rag.types import Passage, Query

unit = st.floats(0, 1)
FIRST = "abcdefgh"
"""The order of the first stage: passages of one letter."""


def question(id: str, supports: tuple[str, ...], number: int = 0) -> Question:
    """Every second question is a comparison of three hops."""
    type = ("bridge", "comparison")[number % 2]
    return Question(Query(id, f"Question {id}?"), ("yes",), supports, (), type, 2 + number % 2)


def seen(supports: Mapping[str, str], answers: str = "", **orders: Mapping[str, str]) -> View:
    """A scored run of no rerank and these orders; in `answers` ("system id") the reader is right."""
    passages = {id: Passage(id, f"Text {id}", f"Title {id}") for id in "abcdefghijklmnopqrstuvwxyz"}
    systems = []
    for name, own in {"none": dict.fromkeys(supports, FIRST), **orders}.items():
        reads = {5: {id: Read("yes" if f"{name} {id}" in answers else "no", "") for id in supports}} if answers else {}
        systems.append(SystemRun(name, {id: tuple(order) for id, order in own.items()}, reads))
    questions = tuple(question(id, tuple(own), n) for n, (id, own) in enumerate(supports.items()))
    run = EvaluatedRun("r", "hotpotqa", questions, passages, 8, tuple(systems), {"retriever": "bm25"})
    return View(run, score(run))


def claiming(change: Difference, n: int = 50) -> View:
    """A view whose only result is this difference of support recall."""
    before, after = Estimate(0.5, 0.4, 0.6, n), Estimate(0.5 + change.mean, 0.4, 0.9, n)
    systems = {
        "none": SystemScores("none", {}, {"R@5": before}, {}, {}),
        "rank-r1": SystemScores("rank-r1", {}, {"R@5": after}, {"R@5": change}, {}),
    }
    questions = tuple(question(str(number), ("a",)) for number in range(n))
    runs = (SystemRun("none"), SystemRun("rank-r1"))
    return View(EvaluatedRun("r", "hotpotqa", questions, {}, 20, runs, {"retriever": "bm25"}), Scores(systems, {}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((0.2, 0.12, 0.28, 0.0001), "20 points more than BM25 (+12 to +28)."),
        ((-0.062, -0.1, -0.011, 0.01), "6.2 points fewer than BM25 (\N{MINUS SIGN}10 to \N{MINUS SIGN}1.1)."),
        (
            (0.02, -0.03, 0.07, 0.41),
            "2 points more than BM25, which 50 questions cannot tell from chance (\N{MINUS SIGN}3 to +7, p = 0.41).",
        ),
        (
            (0.1, 0.01, 0.2, 0.06),
            "10 points more than BM25, which 50 questions cannot tell from chance (+1 to +20, p = 0.060).",
        ),
        ((0.1, -0.01, 0.2, 0.04), "which 50 questions cannot tell from chance (\N{MINUS SIGN}1 to +20, p = 0.040)."),
        ((0.0, 0.0, 0.0, 1.0), "as many as BM25 (0 to 0, p = 1.00)."),
        ((0.01, 0.0, 0.02, 0.0001), "which 50 questions cannot tell from chance (0 to +2, p < 0.001)."),
    ],
)
def test_the_headline_claims_no_more_than_the_interval_and_p_bear(
    change: tuple[float, float, float, float], said: str
) -> None:
    sentence = story.headline(claiming(Difference(*change)))
    assert sentence.endswith(said)
    assert sentence.startswith(f"Rank-R1 finds {50 + 100 * change[0]:.0f} % of the supports in the first 5, ")


@given(mean=st.floats(-1, 1), low=st.floats(-1, 1), high=st.floats(-1, 1), p=unit)
def test_no_difference_is_sure_with_an_interval_around_0(mean: float, low: float, high: float, p: float) -> None:
    if wording.sure(Difference(mean, min(low, high), max(low, high), p)):
        assert p < 0.05
        assert min(low, high) > 0 or max(low, high) < 0


@pytest.mark.parametrize(
    ("spell", "value", "text"),
    [
        (wording.amount, 0, "0"),
        (wording.amount, 0.0004, "< 0.01"),
        (wording.amount, 0.1, "0.10"),
        (wording.amount, 7.56, "7.6"),
        (wording.amount, 7599.0, "7,599"),
        (wording.amount, 99.96, "100.0"),
        *((spell, math.nan, wording.DASH) for spell in (wording.percent, wording.points, wording.p_value)),
        (wording.amount, math.nan, wording.DASH),
        (wording.percent, None, wording.DASH),
        (wording.system_name, "none", "No rerank"),
        (wording.system_name, "rank-r1:votes=3+fusion=60", "Rank-R1, votes 3, fusion 60"),
        (wording.system_name, "rank-r1:reasoning_tokens=0", "Rank-R1, reasoning tokens 0"),
        (wording.system_name, "cross-encoder:owner/model/", "Cross-encoder model"),
        (wording.system_name, "something", "something"),
    ],
)
def test_numbers_and_systems_are_spelled_for_people(spell: Callable[[Any], str], value: object, text: str) -> None:
    assert spell(value) == text


@given(st.floats(-1, 1))
def test_0_has_no_sign(share: float) -> None:
    assert not re.search(r"^[-+\u2212]0\.0$", wording.points(share))
    assert wording.percent(share if share > 0 else -1e-12) != "-0.0"


def test_every_move_of_a_support_is_counted_once() -> None:
    found = support_moves(seen({"1": "ag", "2": "bz"}, **{"rank-r1": {"1": "gbcdefah", "2": FIRST}}), "rank-r1")
    assert found is not None
    assert (found.supports, found.missing, found.up, found.down, found.into, found.out) == (3, 1, 1, 1, 1, 1)
    assert sum(map(sum, found.matrix)) == sum(one.count for one in found.chart.slopes) == 3
    assert found.bands == ["1", "2", "3\N{EN DASH}5", "6\N{EN DASH}10"]
    assert found.matrix[3][0] == found.matrix[0][3] == 1


def test_a_support_that_only_the_reranker_retrieved_is_no_move_and_is_counted_apart() -> None:
    found = support_moves(seen({"1": "azy", "2": "xb"}, **{"rank-r1": {"1": "zabcdefghy", "2": FIRST}}), "rank-r1")
    assert found is not None
    assert (found.supports, found.missing, found.retrieved, found.read) == (2, 3, 2, 1)
    assert (found.up, found.down, found.into, found.out) == (0, 1, 0, 0)


def test_other_systems_of_rank_r1_are_compared_with_the_one_that_the_report_is_about() -> None:
    supports = dict.fromkeys(map(str, range(20)), "g")
    worse, better = (dict.fromkeys(supports, order) for order in (FIRST, "gabcdefh"))

    def told(*orders: Mapping[str, str]) -> list[str]:
        return [*story.lede(seen(supports, **dict(zip(("rank-r1", "rank-r1:hops=2"), orders, strict=False))))]

    more = "Rank-R1, hops 2 finds 100 % in the first 5, 100 points more than Rank-R1 (+100 to +100)."
    assert told(worse, better)[0] == more
    same = "Rank-R1, hops 2 finds 100 % in the first 5, as many as Rank-R1 (0 to 0, p = 1.00)."
    assert told(better, better)[0] == same
    assert not any("finds" in one for one in told(better))


def test_answers_are_called_better_only_if_the_difference_is_sure() -> None:
    supports = dict.fromkeys(map(str, range(20)), "g")
    right, same = ", ".join(f"rank-r1 {id}" for id in supports), dict.fromkeys(supports, FIRST)
    said = [*story.lede(seen(supports, right, **{"rank-r1": same}))]
    assert said[0].startswith("The reader's F1 with 5 passages is 100.0 %, better than the 0.0 % without reranking")


def test_reasons_to_doubt_the_numbers_are_told() -> None:
    cost = {"comparisons": 10.0, "unparsed": 2.0, "forced": 9.0, "reasoning_tokens": 5.0, "reader_empty": 0.5}
    view = seen({"1": "g"}, "none 1", **{"rank-r1": {"1": FIRST}})
    systems = {name: replace(one, cost=cost) for name, one in view.scores.systems.items()}
    settings = {"models": {"reader": BASE}, "absent": 2, "supports": 9}
    said = " ".join(story.warnings(View(replace(view.run, settings=settings), replace(view.scores, systems=systems))))
    for part in (
        f"{BASE} has 135 million parameters",
        "2 of 9 supports are not in the corpus at all",
        "Rank-R1: 20 % of the comparisons gave no answer that could be parsed",
        "Rank-R1: 90 % of the answers were forced",
        "Rank-R1: the reader gave no answer string in 50 % of its readings",
        "One question: it shows that everything runs",
    ):
        assert part in said


@given(st.lists(st.tuples(st.integers(1, 1500), st.integers(1, 1500)), min_size=1, max_size=30))
def test_any_ranks_have_a_place(pairs: list[tuple[int, int]]) -> None:
    def order(rank: int) -> tuple[str, ...]:
        return (*(f"p{place}" for place in range(1, rank)), "support")

    systems = tuple(
        SystemRun(name, {str(number): order(pair[side]) for number, pair in enumerate(pairs)})
        for side, name in enumerate(("none", "rank-r1"))
    )
    questions = tuple(question(str(number), ("support",)) for number in range(len(pairs)))
    found = support_moves(View(EvaluatedRun("r", "hotpotqa", questions, {}, 1500, systems), Scores({}, {})), "rank-r1")
    assert found is not None
    assert sum(map(sum, found.matrix)) == sum(one.count for one in found.chart.slopes) == len(pairs)


def test_a_gained_answer_comes_before_a_gained_support() -> None:
    ours = {"1": "gabcdefh", "2": FIRST, "3": "cdefghab"}
    gains, losses = extremes(seen({"1": "g", "2": "a", "3": "a"}, "rank-r1 2, none 3", **{"rank-r1": ours}))
    assert [case.question.query.id for case in gains] == ["2", "1"]
    assert [case.question.query.id for case in losses] == ["3"]
    assert [text for text, _ in losses[0].changes] == ["F1 100 → 0", "support recall 100 → 0"]
    assert gains[1].chart is not None
    assert [label.rank for label in gains[1].chart.left] == ["1", "2", "3", "4", "5", "", "7", ""]


def test_a_bound_is_never_the_best_system() -> None:
    view = seen({"1": "g"}, **{"oracle": {"1": "gabcdefh"}, "rank-r1": {"1": "agbcdefh"}})
    lines = scores_table(view, ["R@2", "RR"]).groups[0][2]
    best = {line.name: [cell.best for cell in line.cells] for line in lines}
    assert best == {"No rerank": [False, False], "Oracle": [False, False], "Rank-R1": [True, True]}


def test_groups_are_shown_where_there_is_more_than_one() -> None:
    supports, orders = dict.fromkeys("1234", "a"), dict.fromkeys("1234", FIRST)
    found = group_tables(seen(supports, **{"rank-r1": orders, "dense": orders, "rank-r1:hops=2": orders}))
    assert [(table.kind, [(value, n) for value, n, _ in table.groups]) for table in found] == [
        ("type", [("bridge", 2), ("comparison", 2)]),
        ("hops", [("2", 2), ("3", 2)]),
    ]
    systems = [[line.name for line in lines] for table in found for *_, lines in table.groups]
    assert systems == [["No rerank", "Rank-R1", "Rank-R1, hops 2"]] * 4
    assert group_tables(seen({"1": "a"})) == []


@given(st.lists(st.tuples(unit, unit, unit), max_size=8))
def test_a_scale_holds_every_interval(values: list[tuple[float, float, float]]) -> None:
    estimates = [Estimate(mean, low, high, 5) for low, mean, high in map(sorted, values)]
    low, high = extent(estimates)
    assert high - low > 0.19
    for one in estimates:
        assert low - 1e-6 <= one.low <= one.high <= high + 1e-6


@given(st.lists(st.floats(14, 260), min_size=1, max_size=12))
def test_names_beside_curves_do_not_overlap(wanted: list[float]) -> None:
    placed = sorted(charts.spread_names(wanted))
    assert all(below - above > 14.9 for above, below in pairwise(placed))
    assert placed[-1] <= charts.HEIGHT - charts.BOTTOM + 1e-6


@given(st.floats(0.001, 1e7))
def test_the_steps_of_a_cost_axis_are_round_and_reach_far_enough(greatest: float) -> None:
    steps = charts.round_steps(greatest)
    assert steps[0] == 0
    assert steps[-1] >= greatest * (1 - 1e-6)
    assert 2 <= len(steps) <= 7
