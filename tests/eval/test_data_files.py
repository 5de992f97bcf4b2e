"""Files and records that are not what a data set has: each error names the file, the place, the id, and what to do."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval.data import load
from rankr1_eval.data.loading import records, whole
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
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.json"


@pytest.fixture
def load_record(path: Path) -> Load:
    def loaded(name: str, record: Json, supports: bool = True) -> Question:
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
        ("musique", {"query": "what", "pos": []}, 'no record of musique: the fields are "query", "pos"; needed are '),
        (
            "hotpotqa",
            {},
            "the fields are none; needed .* or golden_answers, question, _id or id, context or paragraphs$",
        ),
        (
            "hotpotqa",
            {"id": "1", "question": "?", "golden_answers": ["x"]},
            'fields are "id", "question", "golden_answ',
        ),
    ],
)
def test_the_fields_of_another_data_set_are_named(load_record: Load, name: str, other: Json, said: str) -> None:
    with pytest.raises(FileError, match=said):
        load_record(name, other)


BAD = [
    ("answer", None, "no answer: a test split"),
    ("answer", "", "the answer is empty"),
    ("answer", " \n", "the answer is empty"),
    ("answer", ["a"], 'field "answer" is an array where a string is needed'),
    ("answer", True, 'field "answer" is a boolean'),
    ("answer", 3.10, 'field "answer" is the number 3.1: write it as a string'),
    ("golden_answers", "Seat", 'field "golden_answers" is a string where an array is needed'),
    ("golden_answers", [], "no answer: a test split"),
    ("golden_answers", ["Seat", None], 'an entry of field "golden_answers" is null'),
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
    ("_id", "a\x1bb", "contains characters that cannot be printed"),
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
def test_a_bad_field_is_named_with_its_line(path: Path, name: str, field: str, value: object, said: str) -> None:
    good = GOOD[name]
    bad = {**good, "_id" if "_id" in good else "id": "bad1", field: value}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    with pytest.raises(FileError, match=said) as caught:
        load(name, path)
    assert caught.value.line == 2
    assert caught.value.problem.startswith("question 2" if field in ("_id", "id") else "question 2 ('bad1')")


@pytest.mark.parametrize("answer", ["yes", "no", "noanswer", "1943", "12 May 1943", "The", "§", "a b  c"])
def test_answers_stay_as_they_are_written(load_record: Load, answer: str) -> None:
    assert all(load_record(name, {**record, "answer": answer}).answers[0] == answer for name, record in GOOD.items())


def test_whole_numbers_become_strings_and_aliases_come_once_and_never_empty(load_record: Load) -> None:
    question = load_record("hotpotqa", {**HOTPOTQA, "answer": 1943, "_id": 17})
    assert (question.query.id, question.answers) == ("17", ("1943",))
    question = load_record("musique", {**MUSIQUE, "answer_aliases": ["Seat", "", "Seat City", "Seat City", 12]})
    assert question.answers == ("Seat", "Seat City", "12")


@pytest.mark.parametrize("name", GOOD)
def test_records_of_flashrag_are_the_questions_of_the_official_ones(load_record: Load, name: str) -> None:
    plain = {field: value for field, value in GOOD[name].items() if field not in ("_id", "id", "question", "answer")}
    id = GOOD[name].get("_id", GOOD[name].get("id"))
    golden = [GOOD[name]["answer"], *plain.pop("answer_aliases", ["An alias"])]
    record = {"id": id, "question": GOOD[name]["question"], "golden_answers": golden}
    expected = replace(load_record(name, GOOD[name]), answers=tuple(golden))
    assert load_record(name, {**record, "metadata": plain}) == expected
    scored = load_record(name, record, supports=False)  # without metadata answers can be scored
    assert (scored.query, scored.answers, scored.passages) == (expected.query, expected.answers, ())


def test_a_support_that_is_no_own_paragraph_is_an_error_in_distractor_and_stays_in_fullwiki(load_record: Load) -> None:
    record = {**HOTPOTQA, "supporting_facts": [["Painter", 0], ["Elsewhere", 2]]}
    with pytest.raises(FileError, match=r"question 1 \('h1'\): support 'Elsewhere' is none of its own paragraphs"):
        load_record("hotpotqa", record)
    question = load_record("hotpotqa-fullwiki", record)
    assert question.supports == (question.passages[0].id, passage_of("Elsewhere", "").id)


def test_of_paragraphs_with_one_title_the_first_with_the_named_sentence_is_the_support(load_record: Load) -> None:
    record = {**TWOWIKI, "context": [["Twice", ["One."]], ["Twice", ["One.", "Two."]]]}
    for sentence, place in ((0, 0), (1, 1), (5, 0)):
        question = load_record("2wikimultihopqa", {**record, "supporting_facts": [["Twice", sentence]]})
        assert question.supports == (question.passages[place].id,), sentence


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
    ("name", "change", "type", "hops"),
    [
        ("musique", {"id": "2hop__1_2"}, "2hop", 2),
        ("musique", {"id": "3hop2__1_2_3"}, "3hop2", 3),
        ("musique", {"id": "mine"}, "", 2),
        ("musique", {"id": "4hop"}, "", 2),
        ("musique", {"id": "mine", "question_decomposition": []}, "", None),
        ("2wikimultihopqa", {"type": "new"}, "new", None),
        ("hotpotqa", {"type": None}, "", 2),
    ],
)
def test_type_and_hops_are_those_of_the_data(
    load_record: Load, name: str, change: Json, type: str, hops: int | None
) -> None:
    question = load_record(name, {**GOOD[name], **change})
    assert (question.type, question.hops) == (type, hops)


def test_an_id_that_comes_twice_is_named(path: Path) -> None:
    path.write_text("\n".join(json.dumps({**HOTPOTQA, "_id": id}) for id in ("h1", "h2", "h1")))
    with pytest.raises(FileError, match=r"data.json:3: question 3 \('h1'\): duplicate id"):
        load("hotpotqa", path)


# Files that are damaged, or hold no questions.

CUT = "the file is cut short, fetch it again"
RECORD = {"_id": "ä1", "answer": "yes", "note": 'a "quoted" \\ é 語', "list": [True, {"x": 1.5}]}


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("", None, "the file is empty"),
        (" \n\n", None, "the file is empty"),
        ("not JSON", 1, "neither a JSON list nor JSON lines, it begins with 'not JSON'"),
        ("\n\n<html>", 3, "it begins with '<html>': a web page"),
        ('"string"', 1, "neither a JSON list nor JSON lines"),
        (b"\xff\xfe[", 1, "not UTF-8"),
        (b"\x1f\x8b\x08", 1, "this is gzip: give the file a name that ends in .gz"),
        ("[1]", None, "element 1 is 1, not an object"),
        ("[\n{},\n\n[]]", 4, r"element 2 is \[\], not an object"),
        ('[\n\n {"a": 1},\n {\n "a": 2},\n 3]', 6, "element 3 is 3, not an object"),
        ('[{"a": 1} {"a": 2}]', None, "the list behind element 1 is broken at byte 10: ',' or ']' is missing"),
        ('[{"a": nonsense}]', None, "element 1 is broken at byte 7: Expecting value"),
        ('[{"a": NaN}]', None, "element 1 is broken at byte 1: NaN is not JSON"),
        ("[" + '{"a":' * 9999 + "}" * 9999 + "]", None, "element 1 is broken at byte 1: JSON nested too deeply"),
        ("[] {}", None, "the list is broken at byte 3: something follows its end"),
        ("[", None, f"element 1 is broken at byte 1: {CUT}"),
        ('[{"a": 1}, {"é": 2}, {"a": "xy', None, f"element 3 is broken at byte 28: {CUT}"),
        ('{"a": 1', 1, f"not JSON: .*; this is the last line: {CUT}"),
        ('{"a": 1}\n\n{"a"', 3, f"not JSON: .*; this is the last line: {CUT}"),
        ('{"a": 1\n{}', 1, r"not JSON: .*each line must be one whole object \(jq -c . FILE\)$"),
        ('{\n "a": 1\n}', 1, r"each line must be one whole object \(jq -c . FILE\)$"),
    ],
)
def test_a_damaged_file_says_why(path: Path, content: str | bytes, line: int | None, said: str) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(FileError, match=said) as caught:
        list(records(path))
    assert caught.value.line == line


def test_an_empty_list_holds_no_question_and_a_missing_file_is_the_systems_error(path: Path) -> None:
    path.write_text(" [ ]\n")
    with pytest.raises(FileError, match="no question in it"):
        load("hotpotqa", path)
    with pytest.raises(FileNotFoundError):
        load("hotpotqa", path.with_name("none.json"))


@pytest.mark.parametrize("content", [json.dumps([RECORD] * 99), f"{json.dumps(RECORD)}\n" * 99])
def test_damaged_gzip_is_to_be_fetched_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.json.gz"
    path.write_bytes(gzip.compress(content.encode())[:-20])
    with pytest.raises(FileError, match="damaged or cut short from here on, fetch it again"):
        list(records(path))


@given(cut=st.integers(1), indent=st.sampled_from([None, 1]), count=st.integers(1, 3))
def test_a_list_cut_anywhere_is_an_error_that_says_so(
    tmp_path_factory: pytest.TempPathFactory, cut: int, indent: int | None, count: int
) -> None:
    content = json.dumps([RECORD] * count, indent=indent, ensure_ascii=False)
    path = tmp_path_factory.mktemp("cut") / "data.json"
    path.write_text(content[: 1 + cut % (len(content) - 1)])
    with pytest.raises(FileError, match=CUT):
        list(records(path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    found=st.lists(st.dictionaries(st.text(), json_values, max_size=3), min_size=1, max_size=4),
    indent=st.sampled_from([None, 2]),
)
def test_a_list_is_read_as_json_reads_it(
    tmp_path_factory: pytest.TempPathFactory, found: list[Any], indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("list") / "data.json"
    path.write_text(json.dumps(found, indent=indent))
    assert [record for _, record in records(path)] == found == whole(path)


def test_the_elements_of_a_list_of_many_lines_have_the_lines_they_begin_in(path: Path) -> None:
    path.write_text('[\n\n  {"a": 1},\n  {\n  "a": 2}\n]')
    assert [line for line, _ in records(path)] == [3, 4]
