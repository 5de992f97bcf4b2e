"""MuSiQue's official prediction lines, and records like them, as answer strings."""

import json
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.predictions import read_predictions
from rankr1_rag.errors import FileError

OFFICIAL = {"id": "a", "predicted_answer": "Seat", "predicted_support_idxs": [0, 3], "predicted_answerable": True}


@pytest.mark.parametrize(
    "second",
    [
        {**OFFICIAL, "id": "b", "predicted_answer": ""},
        {"_id": "b", "prediction": ""},
        {"question_id": "b", "pred": "", "answer": "the right one", "paragraphs": []},
        {"qid": "b", "answer": ""},
    ],
)
def test_lines_and_lists_of_predictions_are_read(second: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for content in (f"{json.dumps(OFFICIAL)}\n\n{json.dumps(second)}\n", json.dumps([OFFICIAL, second], indent=1)):
        path.write_text(content)
        assert read_predictions(path) == {"a": "Seat", "b": ""}
    path.write_text(json.dumps(OFFICIAL))
    assert read_predictions(path) == {"a": "Seat"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"predicted_answer": None, "answer": "right"},
            'field "predicted_answer" is missing or null; the fields are "id", ',
        ),
        ({"predicted_answer": 1990}, 'field "predicted_answer" is a whole number where a string is needed'),
        ({"id": None}, 'field "id" or "_id" or "qid" or "question_id" is missing or null'),
        ({"id": "a"}, "duplicate id 'a'"),
    ],
)
def test_a_bad_prediction_is_named_with_its_line(change: dict[str, Any], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{json.dumps(OFFICIAL)}\n{json.dumps({**OFFICIAL, 'id': 'b', **change})}\n")
    with pytest.raises(FileError, match=problem) as caught:
        read_predictions(path)
    assert caught.value.line == 2
    assert "prediction 2: " in caught.value.problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            '{"id": "a", "text": "x"}\n{"id": "b", "text": "x"}\n',
            '"pred" or "answer" is missing or null; the fields are "id", "text"',
        ),
        ("[]", "it predicts no answer"),
    ],
)
def test_a_file_without_predictions_is_named(content: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(FileError, match=problem):
        read_predictions(tmp_path / "answers.jsonl")


def test_the_data_set_itself_is_no_file_of_predictions(shared_data: Path) -> None:
    with pytest.raises(FileError, match="a record of the data set, with the right answer, where a prediction"):
        read_predictions(shared_data / "musique/musique_ans_v1.0_dev_sample.jsonl")
