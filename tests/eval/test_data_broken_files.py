"""Files that are cut short, damaged, or of no questions: each error says where, and what is to be fetched anew."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval.data import load
from rankr1_eval.data.loading import records, whole
from rankr1_rag.errors import FileError

CUT = "the file is cut short, fetch it again"
RECORD = {"_id": "ä1", "answer": "yes", "note": 'a "quoted" \\ é 語', "list": [True, {"x": 1.5}]}


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


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
        ('[{"a": 1} {"a": 2}]', None, "the list behind element 1 is broken at byte 10: ',' or ']' is missing"),
        ('[{"a": nonsense}]', None, "element 1 is broken at byte 7: Expecting value"),
        ('[{"a": NaN}]', None, "element 1 is broken at byte 1: NaN is not JSON"),
        ("[" + '{"a":' * 9999 + "}" * 9999 + "]", None, "element 1 is broken at byte 1: JSON nested too deeply"),
        ("[] {}", None, "the list is broken at byte 3: something follows its end"),
        ("[", None, f"element 1 is broken at byte 1: {CUT}"),
        ('{"a": 1', 1, f"not JSON: .*; this is the last line: {CUT}"),
        ('{"a": 1\n{}', 1, "not JSON: .*each line must be one whole object$"),
        ('{\n "a": 1\n}', 1, "each line must be one whole object$"),
    ],
)
def test_a_file_that_is_no_file_of_questions_says_why(
    tmp_path: Path, content: str | bytes, line: int | None, said: str
) -> None:
    path = written(tmp_path / "data.json", content)
    with pytest.raises(FileError, match=re.escape(said) if CUT in said and ".*" not in said else said) as caught:
        list(records(path))
    assert caught.value.line == line


@pytest.mark.parametrize("content", ["[]", " [ ]\n"])
def test_an_empty_list_holds_no_question(tmp_path: Path, content: str) -> None:
    with pytest.raises(FileError, match="no question in it"):
        load("hotpotqa", written(tmp_path / "data.json", content))


def test_a_truncated_list_names_the_element_and_the_byte(shared_data: Path, tmp_path: Path) -> None:
    content = (shared_data / "hotpotqa/dev_distractor_sample.json").read_bytes()
    path = written(tmp_path / "data.json", content[:1_000_000])
    with pytest.raises(FileError, match=rf"element \d+ is broken at byte \d+: {CUT}") as caught:
        load("hotpotqa", path)
    element, byte = map(int, re.findall(r"\d+", caught.value.problem))
    whole_ones = json.JSONDecoder()
    text = content[:1_000_000].decode(errors="ignore")
    place = 1
    for _ in range(element - 1):
        place = whole_ones.raw_decode(text, place)[1]
        place = re.compile(r"[\s,]*").match(text, place).end()
    assert len(text[:place].encode()) <= byte <= 1_000_000
    with pytest.raises(json.JSONDecodeError):
        whole_ones.raw_decode(text, place)


def test_truncated_lines_name_the_last(shared_data: Path, tmp_path: Path) -> None:
    content = (shared_data / "musique/musique_ans_v1.0_dev_sample.jsonl").read_bytes()[:100_000]
    path = written(tmp_path / "data.jsonl", content.decode(errors="ignore"))
    with pytest.raises(FileError, match=f"this is the last line: {CUT}") as caught:
        load("musique", path)
    assert caught.value.line == content.count(b"\n") + 1


@pytest.mark.parametrize("file", ["hotpotqa/dev_distractor_sample.json", "musique/musique_ans_v1.0_dev_sample.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_gzip_is_to_be_fetched_anew(shared_data: Path, tmp_path: Path, file: str, damage: str) -> None:
    packed = bytearray(gzip.compress((shared_data / file).read_bytes()))
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    else:
        packed[len(packed) // 2] ^= 0xFF
    path = written(tmp_path / "data.json.gz", bytes(packed))
    with pytest.raises(FileError, match=r"damaged or cut short from here on, fetch it again|not UTF-8|not JSON|broken"):
        load("hotpotqa" if "hotpotqa" in file else "musique", path)


def test_a_missing_file_is_the_operating_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load("hotpotqa", tmp_path / "none.json")


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


def test_an_element_of_a_list_of_many_lines_is_named_by_the_line_it_begins_in(tmp_path: Path) -> None:
    path = written(tmp_path / "data.json", '[\n\n  {"a": 1},\n  {\n  "a": 2},\n 3]')
    with pytest.raises(FileError, match=r"data.json:6: element 3 is 3, not an object"):
        list(records(path))
    assert [line for line, _ in records(written(path, '[\n\n  {"a": 1},\n  {\n  "a": 2}\n]'))] == [3, 4]
