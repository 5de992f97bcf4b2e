"""Records that are not what a data set has: each names the file, the place, the id, and what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.data import load
from rankr1_eval.types import Question, passage_of
from rankr1_rag.errors import FileError

Json = dict[str, Any]
Load = Callable[..., Question]

HOTPOTQA: Json = {
    "_id": "h1",
    "question": "Where was the painter born?",
    "answer": "Town",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Painter", 0], ["Town", 1]],
    "context": [["Painter", ["She paints.", " In Town."]], ["Town", ["A town.", " It is old."]], ["Other", ["No."]]],
}
TWOWIKI: Json = {
    **{name: value for name, value in HOTPOTQA.items() if name != "level"},
    "_id": "w1",
    "type": "compositional",
    "evidences": [["Painter", "born in", "Town"]],
}
MUSIQUE: Json = {
    "id": "2hop__1_2",
    "question": "What is the seat of the county?",
    "answer": "Seat",
    "answer_aliases": ["Seat City"],
    "answerable": True,
    "question_decomposition": [{}, {}],
    "paragraphs": [
        {"idx": 0, "title": "Same", "paragraph_text": "One.", "is_supporting": False},
        {"idx": 1, "title": "Same", "paragraph_text": "Two.", "is_supporting": True},
    ],
}
GOOD = {"hotpotqa": HOTPOTQA, "hotpotqa-fullwiki": HOTPOTQA, "2wikimultihopqa": TWOWIKI, "musique": MUSIQUE}


@pytest.fixture
def load_record(tmp_path: Path) -> Load:
    def loaded(name: str, record: Json, supports: bool = True) -> Question:
        path = tmp_path / "data.jsonl"
        path.write_text(json.dumps(record))
        return load(name, path, supports=supports)[0]

    return loaded


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("hotpotqa", MUSIQUE, "looks like musique, not hotpotqa: give --dataset musique"),
        ("hotpotqa", TWOWIKI, "looks like 2wikimultihopqa, not hotpotqa: give --dataset 2wikimultihopqa"),
        ("2wikimultihopqa", HOTPOTQA, "looks like hotpotqa, not 2wikimultihopqa: give --dataset hotpotqa"),
        ("musique", TWOWIKI, "looks like 2wikimultihopqa, not musique"),
        ("musique", {"query": "what", "pos": []}, "no record of musique: .* its fields, which are 'query', 'pos'$"),
        ("hotpotqa", {"5a8b": "a prediction"}, "no record of hotpotqa: .* its fields, which are '5a8b'$"),
        ("hotpotqa", {}, "no record of hotpotqa: .* its fields, which are none$"),
    ],
)
def test_a_file_of_another_data_set_is_told_by_its_fields(
    load_record: Load, name: str, other: dict[str, Any], said: str
) -> None:
    with pytest.raises(FileError, match=said):
        load_record(name, other)


BAD = [
    ("answer", None, "no answer: a test split"),
    ("answer", "", "the answer is empty"),
    ("answer", " \n", "the answer is empty"),
    ("answer", ["a"], 'field "answer" is an array where a string is needed'),
    ("answer", True, 'field "answer" is a boolean'),
    ("answer", 3.10, 'field "answer" is the number 3.1: write it as a string'),
    ("question", None, 'field "question" is missing or null'),
    ("question", "  ", "the question is empty"),
    ("question", 7, 'field "question" is a whole number where a string is needed'),
]
TITLED_BAD = [
    *BAD,
    ("_id", None, '"_id" or "id" is missing or null'),
    ("_id", "", "the id is empty"),
    ("_id", ["x"], 'field "_id" is an array where a string is needed'),
    ("_id", True, 'field "_id" is a boolean'),
    ("supporting_facts", [], "no support: a test split"),
    ("supporting_facts", None, '"supporting_facts" is missing or null'),
    ("supporting_facts", 5, '"supporting_facts" is a whole number where an array is needed'),
    ("supporting_facts", [["Painter"]], 'entry 1 of field "supporting_facts" has 1 values where 2 are needed'),
    ("supporting_facts", [["Painter", "0"]], "the sentence of supporting fact 'Painter' is a string"),
    ("supporting_facts", [[1, 0]], "the title of a supporting fact is a whole number"),
    ("supporting_facts", "[[", '"supporting_facts" is a string that is not JSON'),
    ("context", None, '"context" is missing or null'),
    ("context", [["Painter", [1]]], "a sentence of paragraph 1 is a whole number"),
    ("context", [[None, []]], "title of paragraph 1 is null"),
    ("context", ["Painter"], 'entry 1 of field "context" is a string where an array is needed'),
    ("context", {"title": ["Painter"]}, '"sentences" of field "context" is null where an array is needed'),
    ("type", 3, 'field "type" is a whole number'),
]
MUSIQUE_BAD = [
    *BAD,
    ("id", None, '"_id" or "id" is missing or null'),
    ("answerable", False, "not answerable .MuSiQue-Full.: take the files of MuSiQue-Ans"),
    ("answer_aliases", "Seat", '"answer_aliases" is a string where an array is needed'),
    ("answer_aliases", [None], 'an entry of field "answer_aliases" is null'),
    ("paragraphs", None, '"paragraphs" is missing or null'),
    ("paragraphs", [], "no support: no paragraph has a true is_supporting"),
    ("paragraphs", [{"title": "T", "paragraph_text": "x"}], '"is_supporting" of paragraph 1 is null where a boolean'),
    ("paragraphs", [{"title": "T", "is_supporting": True}], '"paragraph_text" of paragraph 1 is null where a string'),
    ("paragraphs", [{"paragraph_text": "x", "is_supporting": 1}], '"is_supporting" of paragraph 1 is a whole number'),
]
CASES = [
    *(("hotpotqa", *case) for case in TITLED_BAD),
    *(("2wikimultihopqa", *case) for case in TITLED_BAD),
    *(("musique", *case) for case in MUSIQUE_BAD),
]


@pytest.mark.parametrize(("name", "field", "value", "said"), CASES)
def test_a_bad_field_is_named_with_its_line_and_question(
    tmp_path: Path, name: str, field: str, value: object, said: str
) -> None:
    path = tmp_path / "data.jsonl"
    good = GOOD[name]
    bad = {**good, "_id" if "_id" in good else "id": "bad1", field: value}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    with pytest.raises(FileError, match=said) as caught:
        load(name, path)
    assert caught.value.line == 2
    assert caught.value.problem.startswith("question 2")
    assert field in ("_id", "id") or "('bad1')" in caught.value.problem


@pytest.mark.parametrize("answer", ["yes", "no", "noanswer", "1943", "12 May 1943", "The", "§", "a b  c"])
def test_answers_stay_as_they_are_written(load_record: Load, answer: str) -> None:
    for name, record in GOOD.items():
        assert load_record(name, {**record, "answer": answer}).answers[0] == answer


def test_a_whole_number_as_answer_or_id_becomes_a_string(load_record: Load) -> None:
    question = load_record("hotpotqa", {**HOTPOTQA, "answer": 1943, "_id": 17})
    assert (question.query.id, question.answers) == ("17", ("1943",))


def test_aliases_come_once_and_never_empty(load_record: Load) -> None:
    question = load_record("musique", {**MUSIQUE, "answer_aliases": ["Seat", "", "Seat City", "Seat City", 12]})
    assert question.answers == ("Seat", "Seat City", "12")


def test_a_support_that_is_no_own_paragraph_is_an_error_in_distractor_and_stays_in_fullwiki(load_record: Load) -> None:
    record = {**HOTPOTQA, "supporting_facts": [["Painter", 0], ["Elsewhere", 2]]}
    with pytest.raises(FileError, match=r"question 1 \('h1'\): support 'Elsewhere' is none of its own paragraphs"):
        load_record("hotpotqa", record)
    question = load_record("hotpotqa-fullwiki", record)
    assert question.supports == (question.passages[0].id, passage_of("Elsewhere", "").id)


@pytest.mark.parametrize(("sentence", "place"), [(0, 0), (1, 1), (5, 0)])
def test_of_paragraphs_with_one_title_the_first_with_the_named_sentence_is_the_support(
    load_record: Load, sentence: int, place: int
) -> None:
    context = [["Twice", ["One."]], ["Twice", ["One.", "Two."]]]
    question = load_record(
        "2wikimultihopqa", {**TWOWIKI, "context": context, "supporting_facts": [["Twice", sentence]]}
    )
    assert question.supports == (question.passages[place].id,)


def test_equal_paragraphs_are_one_passage(load_record: Load) -> None:
    question = load_record("hotpotqa", {**HOTPOTQA, "context": HOTPOTQA["context"] * 2})
    assert len(question.passages) == 3
    paragraphs = [{**paragraph, "is_supporting": True} for paragraph in MUSIQUE["paragraphs"] * 2]
    assert len(load_record("musique", {**MUSIQUE, "paragraphs": paragraphs}).supports) == 2


@pytest.mark.parametrize("name", GOOD)
def test_a_question_may_lack_its_supports_where_none_are_needed(load_record: Load, name: str) -> None:
    record = {field: value for field, value in GOOD[name].items() if field != "supporting_facts"}
    if name == "musique":
        record["paragraphs"] = [{"title": "T", "paragraph_text": "x"}]
    assert load_record(name, record, supports=False).supports == ()
    with pytest.raises(FileError, match=r"missing or null|null where a boolean"):
        load_record(name, record)


@pytest.mark.parametrize(
    ("id", "type", "hops"), [("2hop__1_2", "2hop", 2), ("3hop2__1_2_3", "3hop2", 3), ("mine", "", 2), ("4hop", "", 2)]
)
def test_the_hops_of_musique_are_told_by_the_id_or_else_by_the_steps(
    load_record: Load, id: str, type: str, hops: int | None
) -> None:
    question = load_record("musique", {**MUSIQUE, "id": id})
    assert (question.type, question.hops) == (type, hops)


def test_hops_that_nothing_tells_are_none(load_record: Load) -> None:
    assert load_record("musique", {**MUSIQUE, "id": "mine", "question_decomposition": []}).hops is None
    assert load_record("2wikimultihopqa", {**TWOWIKI, "type": "new"}).hops is None
    assert load_record("hotpotqa", {**HOTPOTQA, "type": None}).hops == 2


def test_an_id_that_comes_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([json.dumps(HOTPOTQA), json.dumps({**HOTPOTQA, "_id": "h2"}), json.dumps(HOTPOTQA)]))
    with pytest.raises(FileError, match=r"data.jsonl:3: question 3 \('h1'\): duplicate id"):
        load("hotpotqa", path)
