"""The file of a stage: what was finished is found again, what is torn or another's is told."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_eval.run_folder import Records, read
from rankr1_rag.errors import FileError

SETTINGS = {"k": 5, "model": "m"}


def kept(path: Path, *ids: str) -> None:
    with Records(path, "read none", SETTINGS) as records:
        for id in ids:
            records.add(id, {"said": f"of {id}"})


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    kept(tmp_path / "a.jsonl", "q1", "q2")
    with Records(tmp_path / "a.jsonl", "read none", SETTINGS) as records:
        assert list(records) == ["q1", "q2"]
        assert records["q2"] == {"id": "q2", "said": "of q2"}
        assert "q3" not in records
        records.add("q3", {})
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 4


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_goes_on_with_what_is_whole(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    kept(path, "q1", "q2", "q3")
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with Records(path, "read none", SETTINGS) as records:
        assert list(records) == ["q1", "q2", "q3"][: max(0, whole[:cut].count(b"\n") - 1)]
        for id in ("q1", "q2", "q3"):
            if id not in records:
                records.add(id, {"said": f"of {id}"})
    assert path.read_bytes() == whole


def test_other_settings_are_told_by_name(tmp_path: Path) -> None:
    kept(tmp_path / "a.jsonl", "q1")
    with pytest.raises(FileError, match=r"k 5 → 6\).*give another --out"):
        Records(tmp_path / "a.jsonl", "read none", SETTINGS | {"k": 6})


@pytest.mark.parametrize(
    "content", ['{"rankr1_journal": 1}\n', "[1]\n", "no json\n", "mine", '{"rankr1_eval": 99, "stage": "x"}\n']
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(FileError, match="not the records of 'read none'"):
        Records(path, "read none", SETTINGS)
    assert path.read_text() == content


@pytest.mark.parametrize("line", ["no json\n", "[]\n", '{"id": 3}\n', '{"id": "q2"}\n'])
def test_a_damaged_record_is_told_and_nothing_is_lost(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    kept(path, "q1")
    before = path.read_text() + line
    path.write_text(before)
    with pytest.raises(FileError, match="damaged at byte"):
        Records(path, "read none", SETTINGS, ("said",))
    assert path.read_text() == before


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Records(tmp_path / "a.jsonl", "read none", SETTINGS), pytest.raises(FileError, match="another process"):
        Records(tmp_path / "a.jsonl", "read none", SETTINGS)


def test_the_later_of_two_records_counts(tmp_path: Path) -> None:
    kept(tmp_path / "a.jsonl", "q1", "q2")
    with Records(tmp_path / "a.jsonl", "read none", SETTINGS) as records:
        records.add("q1", {"said": "another thing"})
        assert records["q1"]["said"] == "another thing"
    with Records(tmp_path / "a.jsonl", "read none", SETTINGS) as records:
        assert (records["q1"]["said"], records["q2"]["said"], len(records)) == ("another thing", "of q2", 2)


def test_any_text_survives(tmp_path: Path) -> None:
    text = "\ud800 \u2028 é \x00"
    with Records(tmp_path / "a.jsonl", "read none", SETTINGS) as records:
        records.add("q", {"text": text})
        assert records["q"]["text"] == text
    assert all(json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines())


def test_a_finished_file_is_read_by_anybody(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    kept(path, "q1", "q2", "q1")
    with Records(path, "read none", SETTINGS):
        assert read(path, "read none", ["said"]) == {id: {"id": id, "said": f"of {id}"} for id in ("q1", "q2")}
    with pytest.raises(FileError, match="not the records of 'rerank'"):
        read(path, "rerank")
    with pytest.raises(FileError, match=r"a\.jsonl:2: damaged, or not finished"):
        read(path, "read none", ["said", "read"])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FileError, match=r"a\.jsonl:4: damaged, or not finished"):
        read(path, "read none")
