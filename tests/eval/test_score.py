"""A run's scores: what each system is worth, what is missing, how far a system is from no reranking."""

import json
from dataclasses import replace

import pytest

from rankr1_eval.scoring import EvaluatedRun, SystemRun, differences, from_json, score, to_json
from rankr1_eval.types import Question
from rankr1_rag.reader import Read
from rankr1_rag.types import Cost, Query

pytestmark = pytest.mark.third_party


def question(id: str, type: str = "bridge", hops: int | None = 2, supports: tuple[str, ...] = ("a", "b")) -> Question:
    return Question(Query(id, f"What is {id}?"), (f"answer {id}",), supports, (), type, hops)


QUESTIONS = (question("q1"), question("q2", "comparison"), question("q3", "comparison", 4), question("q4", "", None))
RIGHT = {q.query.id: Read(q.answers[0], q.answers[0], 100, 4, 0.5) for q in QUESTIONS}
WRONG = dict.fromkeys(RIGHT, Read("", "I do not know", 100, 6, 1.5))
FIRST = dict.fromkeys(RIGHT, ("x", "y", "a", "z", "b"))
BEST = dict.fromkeys(RIGHT, ("b", "a", "x", "y", "z"))
COSTS = dict.fromkeys(RIGHT, Cost(comparisons=3, seconds=2.0, unparsed=1))


def run(*systems: SystemRun, questions: tuple[Question, ...] = QUESTIONS) -> EvaluatedRun:
    return EvaluatedRun("run", "hotpotqa", questions, {}, 5, systems)


NONE = SystemRun("none", FIRST, {2: WRONG, 5: RIGHT})
OURS = SystemRun("rank-r1", BEST, {2: RIGHT, 5: RIGHT}, {}, COSTS)
GOLD = SystemRun("gold", {}, {2: RIGHT, 5: RIGHT})
ALL = score(run(NONE, OURS, GOLD))


def test_a_system_has_support_measures_where_it_has_orders_and_em_and_f1_at_each_k() -> None:
    none = ALL.systems["none"]
    assert list(ALL.systems) == ["none", "rank-r1", "gold"]
    assert list(ALL.systems["gold"].each) == list(none.each)[-4:] == ["EM@2", "F1@2", "EM@5", "F1@5"]
    assert {name: one.mean for name, one in none.estimates.items()} == pytest.approx(
        {"R@2": 0, "R@3": 0.5, "R@5": 1, "R@10": 1, "All@2": 0, "All@3": 0, "All@5": 1, "All@10": 1, "RR": 1 / 3}
        | {"nDCG@10": none.each["nDCG@10"]["q1"], "EM@2": 0, "F1@2": 0, "EM@5": 1, "F1@5": 1}
    )
    assert score(run(SystemRun("none"))).systems["none"].estimates == {}


def test_differences_are_from_no_rerank_and_only_in_what_both_have() -> None:
    found = ALL.systems["rank-r1"].differences
    assert ALL.systems["none"].differences == score(run(OURS, GOLD)).systems["rank-r1"].differences == {}
    assert list(ALL.systems["gold"].differences) == ["EM@2", "F1@2", "EM@5", "F1@5"]
    assert (found["R@2"].mean, found["R@2"].p) == (1, 2 / 16)
    assert (found["F1@5"].mean, found["F1@5"].p) == (0, 1)


def test_costs_are_means_a_question_and_of_the_reader_means_a_reading() -> None:
    cost = {name: ALL.systems[name].cost for name in ("none", "rank-r1")}
    assert [cost["rank-r1"][name] for name in ("comparisons", "seconds", "unparsed")] == [3, 2, 1]
    assert cost["none"]["comparisons"] == 0
    reader = {"prompt_tokens": 100, "completion_tokens": 5, "seconds": 1, "empty": 0.5}
    assert {name: cost["none"][f"reader_{name}"] for name in reader} == reader


@pytest.mark.parametrize(("stored", "seconds"), [(0, 2.0), (1, 3.0), (3, None)])
def test_seconds_are_scaled_up_to_what_a_store_answered(stored: int, seconds: float | None) -> None:
    costs = {id: replace(one, stored=stored) for id, one in COSTS.items()}
    reads = {id: replace(one, stored=stored > 1) for id, one in RIGHT.items()}
    cost = score(run(replace(OURS, costs=costs, reads={5: reads}))).systems["rank-r1"].cost
    assert (cost.get("seconds"), "reader_seconds" in cost) == (seconds, seconds is not None)


def test_what_a_system_lacks_counts_as_0_and_is_reported() -> None:
    orders = {id: order for id, order in BEST.items() if id != "q2"}
    reads = {id: read for id, read in RIGHT.items() if id != "q3"}
    found = score(run(NONE, SystemRun("rank-r1", orders, {2: RIGHT, 5: reads}))).systems["rank-r1"]
    assert found.missing == ("q2", "q3")
    assert found.each["R@2"] == {"q1": 1, "q2": 0, "q3": 1, "q4": 1}
    assert found.each["F1@5"] == {"q1": 1, "q2": 1, "q3": 0, "q4": 1}
    assert found.estimates["R@2"].n == found.estimates["F1@5"].n == 4
    assert found.differences["F1@5"].mean == -0.25
    assert ALL.systems["none"].missing == ()


def test_groups_are_by_type_and_by_hops_where_questions_have_them() -> None:
    sizes = {name: {value: by["none"]["F1@5"].n for value, by in found.items()} for name, found in ALL.groups.items()}
    assert sizes == {"type": {"bridge": 1, "comparison": 2}, "hops": {"2": 2, "4": 1}}
    assert ALL.groups["type"]["comparison"]["rank-r1"]["R@2"].mean == 1
    assert score(run(NONE, questions=QUESTIONS[3:])).groups == {}


def test_one_question_has_scores_without_spread_and_a_p_of_1() -> None:
    found = score(run(NONE, OURS, questions=QUESTIONS[:1])).systems["rank-r1"]
    assert (found.estimates["R@2"].low, found.estimates["R@2"].high) == (1, 1)
    assert (found.differences["R@2"].mean, found.differences["R@2"].p) == (1, 1)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"questions": ()}, "0 questions with 0 ids"),
        ({"questions": QUESTIONS + QUESTIONS[:1]}, "5 questions with 4 ids"),
        ({"questions": (question("q1", supports=()),)}, "question 'q1' has no support"),
        ({"dataset": "squad"}, "'squad' has no official answer scores"),
    ],
)
def test_a_run_that_cannot_be_scored_is_an_error_that_names_why(changed: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        score(replace(run(NONE), **changed))  # type: ignore[arg-type]


def test_scores_come_back_from_json_as_they_were_unless_damaged() -> None:
    scores = score(run(NONE, OURS, GOLD, SystemRun("random", {"q1": ("a",)}, {2: RIGHT})))
    record = json.loads(json.dumps(to_json(scores)))
    assert from_json(record) == scores
    del record["systems"]["none"]["estimates"]["R@2"]["low"]
    with pytest.raises(ValueError, match="damaged scores"):
        from_json(record)


@pytest.mark.parametrize("record", [None, [], {}, {"rankr1_eval": 2}, {"rankr1_eval": 1, "stage": "read"}])
def test_json_that_is_no_scores_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match=r"not the scores of a run|damaged"):
        from_json(record)


def test_two_runs_differ_on_the_questions_and_measures_that_both_have() -> None:
    a = score(run(OURS, questions=QUESTIONS[:3])).systems["rank-r1"]
    b = score(run(SystemRun("rank-r1", FIRST, {2: WRONG}), questions=QUESTIONS[1:])).systems["rank-r1"]
    found = differences(a, b)
    assert set(found) == set(b.each)
    assert (found["F1@2"].mean, found["F1@2"].p) == (1, 0.5), "two questions"
    assert differences(b, a)["F1@2"].mean == -1
    assert differences(a, score(run(NONE, questions=QUESTIONS[3:])).systems["none"]) == {}
