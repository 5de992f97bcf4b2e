"""The journal of an interrupted job: what it keeps, for whom, and what it leaves behind."""

from pathlib import Path

import pytest

from rankr1_rag.errors import FileError
from rankr1_rag.io.journal import Journal

SETTINGS = {"k": 3}


def begun(folder: Path, restart: bool = False, **settings: object) -> Journal:
    return Journal(folder / "out", settings or SETTINGS, restart=restart)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_it_goes_on_with_what_it_holds_of_this_input_in_its_order(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        for index in (2, 0, 1):
            journal.add(index, f"key {index}", {"number": index})
    with begun(tmp_path) as journal:
        assert journal.done(0, "key 0")
        assert journal.done(2, "key 2")
        assert not journal.done(1, "another key")
        journal.add(1, "another key", {"number": "new"})
        assert [record["number"] for record in journal.records()] == [0, "new", 2]
        assert journal.left_out == 1
        journal.finish()
    assert left(tmp_path) == []


def test_two_inputs_that_take_turns_lose_nothing(tmp_path: Path) -> None:
    for key in ("a", "b"):
        with begun(tmp_path) as journal:
            journal.add(0, key, {"from": key})
    with begun(tmp_path) as journal:
        assert journal.done(0, "a")
        assert list(journal.records()) == [{"from": "a"}]


def test_without_a_record_it_leaves_nothing_behind(tmp_path: Path) -> None:
    with begun(tmp_path):
        assert left(tmp_path) == ["out.partial"]
    assert left(tmp_path) == []


def test_a_journal_in_use_is_not_emptied_by_a_restart(tmp_path: Path) -> None:
    with begun(tmp_path) as first:
        first.add(0, "a", {"number": 0})
        with pytest.raises(FileError, match="another process is at work"):
            begun(tmp_path, restart=True)
        assert list(first.records()) == [{"number": 0}]
    with begun(tmp_path, restart=True) as journal:
        assert not journal.done(0, "a")
    assert left(tmp_path) == []


def test_the_place_where_it_gave_up_is_kept_and_belongs_to_the_settings(tmp_path: Path) -> None:
    with begun(tmp_path) as journal:
        journal.give_up(9)
    with begun(tmp_path) as journal:
        assert journal.gave_up_at == 9
    with begun(tmp_path, k=4) as journal:
        assert journal.gave_up_at == -1
    assert left(tmp_path) == []


@pytest.mark.parametrize("notes", [b"my notes\n", b"my notes", b'{"mine": 1}\n'])
def test_what_is_no_journal_stays_as_it_is(notes: bytes, tmp_path: Path) -> None:
    (tmp_path / "out.partial").write_bytes(notes)
    with pytest.raises(FileError, match="not a journal"):
        begun(tmp_path)
    assert (tmp_path / "out.partial").read_bytes() == notes


@pytest.mark.parametrize("torn", [b"", b'{"rankr', b'{"rankr1_journal": 1, "settings": {"k'])
def test_one_that_was_torn_at_its_first_line_is_begun_anew(torn: bytes, tmp_path: Path) -> None:
    (tmp_path / "out.partial").write_bytes(torn)
    with begun(tmp_path) as journal:
        journal.add(0, "a", {"number": 0})
        assert list(journal.records()) == [{"number": 0}]
