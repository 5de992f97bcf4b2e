"""`rankr1-eval score` and `ir`: official figures from plain files, errors that name the place; exported files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.measures.ir import score_run
from rankr1_eval.predictions import export, read_predictions, score_predictions
from rankr1_eval.scoring import EvaluatedRun, SystemRun, score
from rankr1_eval.types import Question, pooled
from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import read_qrels, read_run
from rankr1_rag.reader import Read
from rankr1_rag.types import Query
from tests.eval.evaluations import command

QUESTIONS = [
    Question(Query("q1", "Is it?"), ("yes",), (), (), "comparison", 2),
    Question(Query("q2", "Where?"), ("Rome", "Roma"), (), (), "bridge", 2),
    Question(Query("q3", "When?"), ("12 May 1990",), (), (), "bridge", 3),
]
PARAGRAPHS = {"context": [["One", ["A sentence."]]], "supporting_facts": []}
DATA = [
    {"_id": "q1", "question": "Is it?", "answer": "yes", "type": "comparison", "level": "hard", **PARAGRAPHS},
    {"_id": "q2", "question": "Where?", "answer": "Rome", "type": "bridge", "level": "easy", **PARAGRAPHS},
]


def test_means_groups_and_what_is_missing() -> None:
    found = score_predictions("hotpotqa", QUESTIONS, {"q1": "Yes.", "q3": "May 1990", "other": "yes"})
    assert found.each == {"EM": {"q1": 1, "q2": 0, "q3": 0}, "F1": {"q1": 1, "q2": 0, "q3": pytest.approx(0.8)}}
    assert found.estimates["F1"].mean == pytest.approx(0.6)
    assert {value: one["F1"].n for value, one in found.types.items()} == {"bridge": 2, "comparison": 1}
    assert {value: one["EM"].mean for value, one in found.hops.items()} == {"2": 0.5, "3": 0}
    assert (found.missing, found.unknown) == (("q2",), ("other",))
    with pytest.raises(ValueError, match="no prediction answers one of the 3 questions: 'p1' is not an id like 'q1'"):
        score_predictions("hotpotqa", QUESTIONS, {"p1": "yes"})


@pytest.mark.parametrize(
    "content",
    [
        '{"q1": "yes", "q2": ""}',
        '\ufeff{\n "q1": "yes",\n\n "q2": ""\n}\n',
        '{"answer": {"q1": "yes", "q2": ""}, "sp": {"q1": [["Title", 0]], "q2": []}}',
    ],
)
def test_plain_and_official_files_are_read(content: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    assert read_predictions(path) == {"q1": "yes", "q2": ""}


BROKEN = [
    ("", "the file is empty"),
    ("{}", "the object is empty: it predicts no answer"),
    ('{"answer": {}}', "the object is empty"),
    ('["yes"]', r"holds an array where one object is needed, {id: answer string, …}"),
    ('"yes"', "holds a string where one object is needed"),
    ("NaN", "holds a number where one object is needed"),
    ('{"q1": "yes",\n"q2": "Ro', r"answers\.json:2: .*: Unterminated string starting at column 7"),
    ('{"q1": "yes",', "at column 14; is the file cut short"),
    ('{"q1": "yes"}\n{"q2": "Rome"}', r'answers\.json:1: prediction 1: .*; the fields are "q1"'),
    ('{"q1": "yes", "q2": null}', "the answer to 'q2' is null where a string is needed"),
    ('{"q1": 1990}', "the answer to 'q1' is a whole number where a string is needed"),
    ('{"q1": true}', "the answer to 'q1' is a boolean"),
    ('{"q1": ["yes"]}', "the answer to 'q1' is an array"),
    ('{"q1": NaN}', "the answer to 'q1' is a number"),
    ('{"q1": "yes", "q2": "a", "q1": "no"}', "duplicate id 'q1'"),
    ('{"answer": {"q1": "yes", "q1": "yes"}}', "duplicate id 'q1'"),
    ("[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("content", "problem"), BROKEN)
def test_a_broken_file_is_an_error_with_its_place(content: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(FileError, match=problem) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(str(path))


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    """The arguments of `score` for two questions, one of which has a prediction."""
    data, predictions = tmp_path / "data.json", tmp_path / "answers.json"
    data.write_text(json.dumps(DATA))
    predictions.write_text(json.dumps({"q2": "rome", "q9": "x"}))
    return ["score", "--data", data, "--predictions", predictions, "--dataset", "hotpotqa"]


def test_score_prints_json_with_every_question_and_a_table_for_people(files: list[object]) -> None:
    found, table = json.loads(command(*files, "--json").stdout), command(*files).stdout
    assert (found["dataset"], found["questions"], found["em"], found["f1"]) == ("hotpotqa", 2, 0.5, 0.5)
    assert found["em_interval"] == found["f1_interval"] == [0, 1]
    assert found["each"] == {"q1": {"em": 0, "f1": 0}, "q2": {"em": 1, "f1": 1}}
    assert (found["missing"], found["unknown"]) == (["q1"], ["q9"])
    assert {value: one["em"] for value, one in found["types"].items()} == {"comparison": 0, "bridge": 1}
    assert found["hops"]["2"]["questions"] == 2
    for part in ("0.5000", "comparison", "2 hops", "Where?", "1 without a prediction, scored 0: q1", "ignored: q9"):
        assert part in table


@pytest.mark.parametrize("dataset", ["hotpotqa", "2wikimultihopqa", "musique"])
def test_score_gives_the_official_means_of_real_files(dataset: str, shared_data: Path, tmp_path: Path) -> None:
    golden = json.loads((shared_data / "golden" / "official_answer_scores.json").read_text())[dataset]
    predictions = tmp_path / "answers.json"
    predictions.write_text(json.dumps({id: item["prediction"] for id, item in golden["items"].items()}))
    data = shared_data / golden["dataset_file"]
    done = command("score", "--dataset", dataset, "--data", data, "--predictions", predictions, "--json")
    found = json.loads(done.stdout)
    assert (found["em"], found["f1"]) == pytest.approx((golden["mean"]["em"], golden["mean"]["f1"]), abs=1e-6)
    for id, item in golden["items"].items():
        assert found["each"][id] == pytest.approx({"em": item["em"], "f1": item["f1"]}, abs=1e-6)
    assert found["missing"] == found["unknown"] == []


@pytest.mark.parametrize(
    ("more", "content", "problem"),
    [
        (["--dataset", "squad"], "{}", "'squad' is unknown"),
        (["--dataset", "musique"], "{}", "looks like hotpotqa, not musique"),
        ([], '{"q9": "x"}', "no prediction answers one of the 2 questions"),
        (["--predictions", "gone.json"], "{}", "gone.json: No such file"),
    ],
)
def test_score_says_what_is_wrong_in_one_line(
    files: list[object], tmp_path: Path, more: list[str], content: str, problem: str
) -> None:
    (tmp_path / "answers.json").write_text(content)
    assert problem in command(*files, *more, code=2).stderr


@pytest.fixture
def trec(tmp_path: Path) -> list[Any]:
    """The arguments of `ir` for a run that ranks one judged query and one that is not judged."""
    (tmp_path / "run.trec").write_text("q1 Q0 b 1 2.0 t\nq1 Q0 a 2 1.0 t\nq7 Q0 a 1 1.0 t\n")
    (tmp_path / "better.trec").write_text("q1 Q0 a 1 2.0 t\nq2 Q0 a 2 1.0 t\n")
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 a 1\n")
    return ["ir", "--run", tmp_path / "run.trec", "--qrels", tmp_path / "qrels"]


@pytest.mark.parametrize(
    "way",
    [
        ["--measures", "RR@10", "R@5"],
        ["--measures", "RR@10", "--measures", "R@5"],
        ["--measures", "RR@10,R@5"],
        ["--measures", " RR@10, R@5 "],
        ["--measures", "RR@10", "MRR@10", "R@5,RR@10"],
    ],
    ids=" ".join,
)
def test_several_measures_may_be_named_in_any_way(way: list[str], trec: list[Any]) -> None:
    found = json.loads(command(*trec, *way, "--json").stdout)
    assert json.loads(command(trec[0], *way, "--json", *trec[1:]).stdout) == found
    assert found["measures"] == {"RR@10": 0.25, "R@5": 0.5}
    assert found["each"] == {"q1": {"RR@10": 0.5, "R@5": 1}, "q2": {"RR@10": 0, "R@5": 0}}
    assert found["intervals"] == {"RR@10": [0, 0.5], "R@5": [0, 1]}
    assert (found["queries"], found["not_judged"], found["not_ranked"]) == (2, ["q7"], ["q2"])


def test_a_comma_inside_a_measure_does_not_split_it(trec: list[Any]) -> None:
    done = command(*trec, "--measures", "P(rel=2,judged_only=True)@2,R@5", "--json")
    assert list(json.loads(done.stdout)["measures"]) == ["P(rel=2,judged_only=True)@2", "R@5"]


def test_further_runs_are_compared_with_the_first(trec: list[Any]) -> None:
    more = ["--run", trec[2].with_name("better.trec"), "--measures", "RR@10"]
    first, second = json.loads(command(*trec, *more, "--json").stdout)["runs"]
    assert (first["differences"], first["measures"]) == ({}, {"RR@10": 0.25})
    assert second["run"] == str(more[1])
    assert second["differences"] == {"RR@10": {"mean": 0.75, "low": 0.5, "high": 1, "p": 0.5}}
    assert "+0.7500" in command(*trec, *more).stdout


def test_the_table_names_queries_that_did_not_count(trec: list[Any]) -> None:
    said = " ".join(command(*trec).stdout.split())
    for part in ("nDCG@10", "1 judged but not ranked, scored 0: q2", "1 not judged: q7"):
        assert part in said


@pytest.mark.parametrize(
    ("more", "run", "problem"),
    [
        (["--measures", "nDCG10"], None, "measure 'nDCG10' is unknown: ir_measures cannot compute it"),
        (["nDCG@10"], None, "measure 'nDCG@10' needs --measures before it"),
        (["--run", "RUN"], None, "--run names a file twice"),
        (["--run", "gone.trec"], None, "gone.trec: No such file"),
        ([], "q1 Q0 a 1 nan t\n", "run.trec:1: score 'nan' is not a finite number"),
        ([], "q1 Q0 a 1 1.0 t\nq1 0 a\n", "run.trec:2: a run line has 6 fields"),
        ([], "q8 Q0 a 1 1.0 t\n", "run.trec: no query of the run is judged: the run has 'q8', the qrels 'q1', 'q2'"),
        ([], "", "run.trec: the file is empty"),
    ],
)
def test_ir_says_what_is_wrong_in_one_line(more: list[str], run: str | None, problem: str, trec: list[Any]) -> None:
    if run is not None:
        trec[2].write_text(run)
    assert problem in command(*trec, *[trec[2] if one == "RUN" else one for one in more], code=2).stderr


# Files for other programs.


def test_runs_qrels_and_predictions_score_as_the_run_does(questions: list[Question], tmp_path: Path) -> None:
    corpus = pooled(questions)
    orders = {one.query.id: tuple(p.id for p in corpus[place : place + 9]) for place, one in enumerate(questions)}
    reads = {one.query.id: Read(one.answers[0] if place % 2 else "", "said") for place, one in enumerate(questions)}
    system = SystemRun("rank-r1:votes=3", orders=orders, reads={5: reads})
    run = EvaluatedRun("demo", "hotpotqa", tuple(questions), {one.id: one for one in corpus}, 9, (system,))
    export(run, tmp_path)
    own = score(run).systems["rank-r1:votes=3"].estimates
    written = read_run(tmp_path / "runs" / "rank-r1_votes=3.trec")
    found = score_run(written, read_qrels(tmp_path / "supports.qrels"), ["R@5", "nDCG@10"])
    for name in ("R@5", "nDCG@10"):
        assert sum(found.each[name].values()) / len(questions) == own[name].mean
    answers = json.loads((tmp_path / "predictions" / "rank-r1_votes=3@5.json").read_text())
    assert answers == {id: read.answer for id, read in reads.items()}


def test_files_of_an_earlier_command_are_removed_and_others_are_left_alone(
    questions: list[Question], tmp_path: Path
) -> None:
    ours = [tmp_path / name for name in ("runs/dense.trec", "predictions/dense@5.json")]
    theirs = [tmp_path / name for name in ("runs/a.trec", "predictions/a.json", "predictions/dense-of-a@5.json")]
    for path in (*ours, *theirs, tmp_path / "rerank" / "dense.jsonl"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("before")
    run = EvaluatedRun("demo", "hotpotqa", tuple(questions), {}, 9, ())
    assert export(run, tmp_path) == ""
    assert [path.exists() for path in ours] == [False, False]
    assert all(path.read_text() == "before" for path in theirs)
    spaced = replace(questions[0], query=Query("a b", "Where?"))
    assert export(replace(run, questions=(spaced,)), tmp_path).startswith("no TREC files were written: ")
