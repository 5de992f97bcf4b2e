"""`rankr1-eval score` and `rankr1-eval ir`: official figures from plain files, and errors that name the place."""

import json
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.predictions import read_predictions, score_predictions
from rankr1_eval.types import Question
from rankr1_rag.errors import FileError
from rankr1_rag.types import Query
from tests.eval.evaluations import command

QUESTIONS = [
    Question(Query("q1", "Is it?"), ("yes",), (), (), "comparison", 2),
    Question(Query("q2", "Where?"), ("Rome", "Roma"), (), (), "bridge", 2),
    Question(Query("q3", "When?"), ("12 May 1990",), (), (), "bridge", 3),
]
DATA = [
    {"_id": "q1", "question": "Is it?", "answer": "yes", "type": "comparison", "level": "hard"},
    {"_id": "q2", "question": "Where?", "answer": "Rome", "type": "bridge", "level": "easy"},
]
PARAGRAPHS = {"context": [["One", ["A sentence."]]], "supporting_facts": []}


def test_means_groups_and_what_is_missing() -> None:
    found = score_predictions("hotpotqa", QUESTIONS, {"q1": "Yes.", "q3": "May 1990", "other": "yes"})
    assert found.each == {"EM": {"q1": 1, "q2": 0, "q3": 0}, "F1": {"q1": 1, "q2": 0, "q3": pytest.approx(0.8)}}
    assert found.estimates["F1"].mean == pytest.approx(0.6)
    assert {value: one["F1"].n for value, one in found.types.items()} == {"bridge": 2, "comparison": 1}
    assert {value: one["EM"].mean for value, one in found.hops.items()} == {"2": 0.5, "3": 0}
    assert (found.missing, found.unknown) == (("q2",), ("other",))


def test_predictions_for_other_questions_are_an_error_that_shows_both() -> None:
    with pytest.raises(ValueError, match="no prediction answers one of the 3 questions: 'p1' is not an id like 'q1'"):
        score_predictions("hotpotqa", QUESTIONS, {"p1": "yes"})


@pytest.mark.parametrize(
    "content",
    ['{"q1": "yes", "q2": ""}', '\ufeff{\n "q1": "yes",\n\n "q2": ""\n}\n',
     '{"answer": {"q1": "yes", "q2": ""}, "sp": {"q1": [["Title", 0]], "q2": []}}'],
)  # fmt: skip
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
    ('{"q1": "yes",\n"q2": "Ro', r"answers\.json:2: not one whole JSON object: .*is the file cut short"),
    ('{"q1": "yes"}\n{"q2": "Rome"}', r"answers\.json:1: prediction 1: .*; its fields are \['q1'\]"),
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
def test_a_broken_file_is_told_with_its_place(content: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(FileError, match=problem) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(str(path))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    data, predictions = tmp_path / "data.json", tmp_path / "answers.json"
    data.write_text(json.dumps([record | PARAGRAPHS for record in DATA]))
    predictions.write_text(json.dumps({"q2": "rome", "q9": "x"}))
    return data, predictions


def test_score_prints_json_with_every_question(files: tuple[Path, Path]) -> None:
    data, predictions = files
    done = command("score", "--dataset", "hotpotqa", "--data", data, "--predictions", predictions, "--json")
    found = json.loads(done.stdout)
    assert (found["dataset"], found["questions"], found["em"], found["f1"]) == ("hotpotqa", 2, 0.5, 0.5)
    assert found["em_interval"] == found["f1_interval"] == [0, 1]
    assert found["each"] == {"q1": {"em": 0, "f1": 0}, "q2": {"em": 1, "f1": 1}}
    assert (found["missing"], found["unknown"]) == (["q1"], ["q9"])
    assert {value: one["em"] for value, one in found["types"].items()} == {"comparison": 0, "bridge": 1}
    assert found["hops"]["2"]["questions"] == 2


def test_score_prints_a_table_for_people(files: tuple[Path, Path]) -> None:
    data, predictions = files
    said = command("score", "--dataset", "hotpotqa", "--data", data, "--predictions", predictions).stdout
    for part in ("0.5000", "comparison", "2 hops", "Where?", "1 without a prediction, scored 0: q1", "ignored: q9"):
        assert part in said


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


def test_score_tells_what_is_wrong_in_one_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    data, predictions = files
    arguments = ["score", "--data", data, "--predictions", predictions]
    assert "'squad' is unknown" in command(*arguments, "--dataset", "squad", code=2).stderr
    assert "looks like hotpotqa, not musique" in command(*arguments, "--dataset", "musique", code=2).stderr
    predictions.write_text('{"q9": "x"}')
    assert "no prediction answers one of the 2 questions" in command(*arguments, "--dataset", "hotpotqa", code=2).stderr
    gone = ["score", "--dataset", "hotpotqa", "--data", data, "--predictions", tmp_path / "gone.json"]
    assert "gone.json: No such file" in command(*gone, code=2).stderr


@pytest.fixture
def trec(tmp_path: Path) -> list[str | Path]:
    (tmp_path / "run.trec").write_text("q1 Q0 b 1 2.0 t\nq1 Q0 a 2 1.0 t\nq7 Q0 a 1 1.0 t\n")
    (tmp_path / "better.trec").write_text("q1 Q0 a 1 2.0 t\nq2 Q0 a 2 1.0 t\n")
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 a 1\n")
    return ["ir", "--run", tmp_path / "run.trec", "--qrels", tmp_path / "qrels"]


WAYS = [
    ["--measures", "RR@10", "R@5"],
    ["--measures", "RR@10", "--measures", "R@5"],
    ["--measures", "RR@10,R@5"],
    ["--measures", " RR@10, R@5 "],
    ["--measures", "RR@10", "MRR@10", "R@5,RR@10"],
]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_several_measures_may_be_given_in_any_way(way: list[str], trec: Any) -> None:
    found = json.loads(command(*trec, *way, "--json").stdout)
    assert json.loads(command(trec[0], *way, "--json", *trec[1:]).stdout) == found
    assert found["measures"] == {"RR@10": 0.25, "R@5": 0.5}
    assert found["each"] == {"q1": {"RR@10": 0.5, "R@5": 1}, "q2": {"RR@10": 0, "R@5": 0}}
    assert found["intervals"] == {"RR@10": [0, 0.5], "R@5": [0, 1]}
    assert (found["queries"], found["not_judged"], found["not_ranked"]) == (2, ["q7"], ["q2"])


def test_commas_inside_a_measure_do_not_part_it(trec: Any) -> None:
    done = command(*trec, "--measures", "P(rel=2,judged_only=True)@2,R@5", "--json")
    assert list(json.loads(done.stdout)["measures"]) == ["P(rel=2,judged_only=True)@2", "R@5"]


def test_further_runs_are_compared_with_the_first(trec: Any, tmp_path: Path) -> None:
    more = ["--run", tmp_path / "better.trec", "--measures", "RR@10"]
    first, second = json.loads(command(*trec, *more, "--json").stdout)["runs"]
    assert (first["differences"], first["measures"]) == ({}, {"RR@10": 0.25})
    assert second["run"] == str(tmp_path / "better.trec")
    assert second["differences"] == {"RR@10": {"mean": 0.75, "low": 0.5, "high": 1, "p": 0.5}}
    assert "+0.7500" in command(*trec, *more).stdout


def test_the_table_tells_queries_that_did_not_count(trec: Any) -> None:
    said = command(*trec).stdout
    assert "nDCG@10" in said
    assert "1 judged but not ranked, scored 0: q2" in " ".join(said.split())
    assert "1 not judged: q7" in " ".join(said.split())


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--measures", "nDCG10"], "measure 'nDCG10' is unknown: ir_measures cannot compute it"),
        (["nDCG@10"], "measure 'nDCG@10' needs --measures before it"),
        (["--run", "RUN"], "--run names a file twice"),
        (["--run", "gone.trec"], "gone.trec: No such file"),
    ],
)
def test_ir_tells_what_is_wrong_in_one_line(more: list[str], problem: str, trec: Any) -> None:
    assert problem in command(*trec, *[trec[2] if one == "RUN" else one for one in more], code=2).stderr


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        ("q1 Q0 a 1 nan t\n", "run.trec:1: score 'nan' is not a finite number"),
        ("q1 Q0 a 1 1.0 t\nq1 0 a\n", "run.trec:2: a run line has 6 fields"),
        ("q8 Q0 a 1 1.0 t\n", "run.trec: no query of the run is judged: the run has 'q8', the qrels 'q1', 'q2'"),
        ("", "run.trec: the file is empty"),
    ],
)
def test_ir_names_the_line_of_a_bad_run(run: str, problem: str, trec: Any) -> None:
    Path(trec[2]).write_text(run)
    assert problem in command(*trec, code=2).stderr
