"""A run's scores: what each system is worth, what is missing, how far a system is from no reranking."""

import json
from dataclasses import replace

import pytest

from rankr1_eval.scoring import EvaluatedRun, Read, SystemRun, differences, from_json, score, to_json
from rankr1_eval.types import Question
from rankr1_rag.types import Cost, Query

pytestmark = pytest.mark.third_party


def question(id: str, type: str = "bridge", hops: int | None = 2, supports: tuple[str, ...] = ("a", "b")) -> Question:
    return Question(Query(id, f"What is {id}?"), (f"answer {id}",), supports, (), type, hops)


QUESTIONS = (question("q1"), question("q2", "comparison"), question("q3", "comparison", 4), question("q4", "", None))
RIGHT = {q.query.id: Read(q.answers[0], q.answers[0], 100, 4, 0.5) for q in QUESTIONS}
WRONG = dict.fromkeys(RIGHT, Read("", "I do not know", 100, 6, 1.5))
FIRST = dict.fromkeys(RIGHT, ("x", "y", "a", "z", "b"))
BEST = dict.fromkeys(RIGHT, ("b", "a", "x", "y", "z"))


def run(*systems: SystemRun, questions: tuple[Question, ...] = QUESTIONS) -> EvaluatedRun:
    return EvaluatedRun("run", "hotpotqa", questions, {}, 5, systems)


NONE = SystemRun("none", FIRST, {2: WRONG, 5: RIGHT})
OURS = SystemRun(
    "rank-r1", BEST, {2: RIGHT, 5: RIGHT}, {}, dict.fromkeys(RIGHT, Cost(comparisons=3, seconds=2.0, unparsed=1))
)
GOLD = SystemRun("gold", {}, {2: RIGHT, 5: RIGHT})


def test_a_row_has_support_measures_where_it_has_orders_and_em_and_f1_at_each_k() -> None:
    systems = score(run(NONE, OURS, GOLD)).systems
    answers = ["EM@2", "F1@2", "EM@5", "F1@5"]
    assert list(systems["gold"].each) == answers
    assert list(systems["none"].each)[-4:] == answers
    assert len(systems["none"].each) == 14
    assert list(systems) == ["none", "rank-r1", "gold"]
    assert {name: one.mean for name, one in systems["none"].estimates.items()} == pytest.approx(
        {"R@2": 0, "R@3": 0.5, "R@5": 1, "R@10": 1, "All@2": 0, "All@3": 0, "All@5": 1, "All@10": 1, "RR": 1 / 3}
        | {"nDCG@10": systems["none"].each["nDCG@10"]["q1"], "EM@2": 0, "F1@2": 0, "EM@5": 1, "F1@5": 1}
    )


def test_differences_are_from_no_rerank_and_only_in_what_both_have() -> None:
    systems = score(run(NONE, OURS, GOLD)).systems
    assert systems["none"].differences == {}
    assert list(systems["gold"].differences) == ["EM@2", "F1@2", "EM@5", "F1@5"]
    assert systems["rank-r1"].differences["R@2"].mean == 1
    assert systems["rank-r1"].differences["R@2"].p == 2 / 16
    assert (systems["rank-r1"].differences["F1@5"].mean, systems["rank-r1"].differences["F1@5"].p) == (0, 1)


def test_without_the_row_none_there_is_nothing_to_differ_from() -> None:
    assert score(run(OURS, GOLD)).systems["rank-r1"].differences == {}


def test_costs_are_means_a_question_and_of_the_reader_means_a_reading() -> None:
    systems = score(run(NONE, OURS)).systems
    assert systems["rank-r1"].cost["comparisons"] == 3
    assert systems["rank-r1"].cost["seconds"] == 2
    assert systems["rank-r1"].cost["unparsed"] == 1
    assert systems["none"].cost["comparisons"] == 0
    assert systems["none"].cost["reader_prompt_tokens"] == 100
    assert systems["none"].cost["reader_completion_tokens"] == 5
    assert systems["none"].cost["reader_seconds"] == 1
    assert systems["none"].cost["reader_empty"] == 0.5


def test_what_a_row_lacks_counts_as_0_and_is_told() -> None:
    orders = {id: order for id, order in BEST.items() if id != "q2"}
    reads = {id: read for id, read in RIGHT.items() if id != "q3"}
    found = score(run(NONE, SystemRun("rank-r1", orders, {2: RIGHT, 5: reads}))).systems["rank-r1"]
    assert found.missing == ("q2", "q3")
    assert found.each["R@2"] == {"q1": 1, "q2": 0, "q3": 1, "q4": 1}
    assert found.each["F1@5"] == {"q1": 1, "q2": 1, "q3": 0, "q4": 1}
    assert found.estimates["R@2"].n == found.estimates["F1@5"].n == 4
    assert found.differences["F1@5"].mean == -0.25
    assert score(run(NONE)).systems["none"].missing == ()


def test_groups_are_by_type_and_by_hops_where_questions_have_them() -> None:
    groups = score(run(NONE, OURS)).groups
    sizes = {name: {value: by["none"]["F1@5"].n for value, by in values.items()} for name, values in groups.items()}
    assert sizes == {"type": {"bridge": 1, "comparison": 2}, "hops": {"2": 2, "4": 1}}
    assert groups["type"]["comparison"]["rank-r1"]["R@2"].mean == 1
    bare = run(NONE, questions=(question("q4", "", None),))
    assert score(bare).groups == {}


def test_one_question_has_scores_without_spread_and_a_p_of_1() -> None:
    systems = score(run(NONE, OURS, questions=QUESTIONS[:1])).systems
    assert (systems["rank-r1"].estimates["R@2"].low, systems["rank-r1"].estimates["R@2"].high) == (1, 1)
    assert (systems["rank-r1"].differences["R@2"].mean, systems["rank-r1"].differences["R@2"].p) == (1, 1)


def test_rows_without_orders_and_reads_are_scored_as_nothing() -> None:
    assert score(run(SystemRun("none"))).systems["none"].estimates == {}


@pytest.mark.parametrize(
    ("questions", "problem"),
    [
        ((), "0 questions with 0 ids"),
        (QUESTIONS + QUESTIONS[:1], "5 questions with 4 ids"),
        ((question("q1", supports=()),), "question 'q1' has no support"),
    ],
)
def test_questions_that_cannot_be_scored_are_named(questions: tuple[Question, ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        score(run(NONE, questions=questions))


def test_an_unknown_data_set_has_no_answer_scores() -> None:
    with pytest.raises(ValueError, match="'squad' has no official answer scores"):
        score(replace(run(NONE), dataset="squad"))


def test_scores_come_back_from_json_as_they_were() -> None:
    scores = score(run(NONE, OURS, GOLD, SystemRun("random", {"q1": ("a",)}, {2: RIGHT})))
    assert from_json(json.loads(json.dumps(to_json(scores)))) == scores


@pytest.mark.parametrize("record", [None, [], {}, {"rankr1_eval": 2}, {"rankr1_eval": 1, "stage": "read"}])
def test_json_that_is_no_scores_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match=r"not the scores of a run|damaged"):
        from_json(record)


def test_damaged_scores_are_refused() -> None:
    record = to_json(score(run(NONE)))
    del record["systems"]["none"]["estimates"]["R@2"]["low"]
    with pytest.raises(ValueError, match="damaged scores"):
        from_json(record)


def test_two_runs_differ_on_the_questions_and_measures_that_both_have() -> None:
    a = score(run(OURS, questions=QUESTIONS[:3])).systems["rank-r1"]
    b = score(run(SystemRun("rank-r1", FIRST, {2: WRONG}), questions=QUESTIONS[1:])).systems["rank-r1"]
    found = differences(a, b)
    assert set(found) == set(b.each)
    assert found["F1@2"].mean == 1
    assert found["F1@2"].p == 0.5, "two questions"
    assert differences(b, a)["F1@2"].mean == -1
    other = score(run(NONE, questions=QUESTIONS[3:])).systems["none"]
    assert differences(a, other) == {}
