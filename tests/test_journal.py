"""Resumable JSON lines: finished records are found again, a torn line is cut off, other files are refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag import __version__
from rankr1_rag.errors import FileError
from rankr1_rag.io.journal import Journal, head_settings, read_journal

SETTINGS = {"k": 5, "model": "m"}
HEAD = '{"rankr1_journal": 1, "kind": "rerank", "settings": {}}\n'
OTHER_FILES = ['{"rankr1_eval": 1}\n', "[1]\n", "no json\n", "mine", '{"rankr1_journal": 99, "kind": "x"}\n', HEAD]


def begun(path: Path, kind: str = "read none", settings: dict[str, object] = SETTINGS, **options: object) -> Journal:
    options = {"fields": {}, **options}
    return Journal(path, kind, settings, remedy="give another --out", **options)


def kept(path: Path, *ids: str) -> None:
    with begun(path) as records:
        for id in ids:
            records.add(id, {"said": f"of {id}"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.jsonl"


def test_records_are_found_again_and_the_later_of_two_counts(path: Path) -> None:
    kept(path, "q1", "q2")
    with begun(path) as records:
        assert list(records) == ["q1", "q2"]
        assert records["q2"] == {"id": "q2", "said": "of q2"}
        assert "q3" not in records
        records.add("q1", {"said": "another thing"})
        assert records["q1"]["said"] == "another thing"
        records.add("q3", {"text": (text := "\ud800 \u2028 é \x00")})
    with begun(path) as records:
        assert len(records) == 3
        assert [records[id].get("said") for id in records] == ["another thing", "of q2", None]
        assert records["q3"]["text"] == text
    assert all(json.loads(line) for line in path.read_text().splitlines())


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_resumes_with_its_whole_lines(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    kept(path, "q1", "q2", "q3")
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    with begun(path) as records:
        assert list(records) == ["q1", "q2", "q3"][: max(0, whole[:cut].count(b"\n") - 1)]
        for id in ("q1", "q2", "q3"):
            if id not in records:
                records.add(id, {"said": f"of {id}"})
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", OTHER_FILES)
def test_a_file_of_something_else_stays_as_it_is(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(FileError, match=r"not the records of 'read none'.*: move it away, or give another --out"):
        begun(path)
    assert path.read_text() == content


def test_other_settings_are_refused_unless_there_are_no_records(path: Path) -> None:
    kept(path)
    with begun(path, settings={**SETTINGS, "k": 6}) as records:
        assert not len(records)
        records.add("q1", {})
    with pytest.raises(FileError, match=r"other settings \(k 6 → 5\).*give another --out"):
        begun(path)


LINES = ["no json\n", "[]\n", '{"id": 3}\n', '{"id": "q2"}\n', '{"id": "q2", "said": 3}\n', "[" * 9**6 + "\n", "\0\n"]


@pytest.mark.parametrize("line", LINES, ids=[str(n) for n, _ in enumerate(LINES)])
def test_a_damaged_record_is_left_out_with_one_warning_and_stays_in_the_file(
    path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept(path, "q1", "q2")
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, line, *others]))
    with pytest.raises(FileError, match=r"a\.jsonl:2: damaged or unfinished: run the command that makes it again"):
        read_journal(path, "read none", {"said": "a string"})
    for _ in range(2):
        with begun(path, fields={"said": "a string"}) as records:
            assert list(records) == ["q1", "q2"]
    (record,) = caplog.records
    assert (
        record.getMessage()
        == f"{path}:2: the line at byte {len(first)} is damaged and left out: what it held is done again"
    )
    assert line in path.read_text()
    assert [*read_journal(path, "read none", {"said": "a string"})] == ["q1", "q2"]


def test_a_file_of_another_version_names_it(path: Path) -> None:
    kept(path, "q1")
    head, record = path.read_text().splitlines(keepends=True)
    assert json.loads(head) == {"rankr1_journal": 1, "version": __version__, "kind": "read none", "settings": SETTINGS}
    for version, by in (("0.0.9", "rankr1-rag 0.0.9"), (None, "an earlier, unreleased version of rankr1-rag")):
        old = {key: value for key, value in {**json.loads(head), "version": version}.items() if value is not None}
        path.write_text(json.dumps(old) + "\n" + record)
        with pytest.raises(FileError, match=f"written by {by} without text at byte .*: remove it, or"):
            begun(path, fields={"said": "a string", "text": "a string"})
        with pytest.raises(FileError, match=f":2: written by {by} without text at byte .*: run the command"):
            read_journal(path, "read none", {"said": "a string", "text": "a string"})
        with pytest.raises(FileError, match=f"made by {by} with other settings"):
            begun(path, settings={"think": 5})
        with begun(path) as records:
            assert list(records) == ["q1"]
    for first, by in (
        (head.replace('l": 1', 'l": 2').rstrip() + "\n", "version 2 of this format"),
        ('{"rankr1_eval": 1}\n', "written by an earlier, unreleased version of rankr1-rag"),
    ):
        path.write_text(first)
        with pytest.raises(FileError, match=f"not the records of 'read none', but {by}: move it away"):
            begun(path)


def test_one_process_at_a_time_and_a_restart_forgets(path: Path) -> None:
    with begun(path) as first:
        first.add("a", {"number": 0})
        for restart in (False, True):
            with pytest.raises(FileError, match="another process is at work"):
                begun(path, restart=restart)
        assert first["a"] == {"id": "a", "number": 0}
    with begun(path, restart=True) as records:
        assert not len(records)


def test_a_temporary_file_without_records_and_notes_is_removed(path: Path) -> None:
    with begun(path, temporary=True):
        assert path.exists()
    assert not path.exists()
    with begun(path, temporary=True) as records:
        records.note(gave_up_at=9)
    with begun(path, temporary=True) as records:
        assert records.notes == {"gave_up_at": 9}
        records.add("a", {})
        records.clear()
    assert not path.exists()


def test_notes_belong_to_the_settings(path: Path) -> None:
    with begun(path) as records:
        records.note(gave_up_at=9)
    with begun(path, settings={"k": 4}) as records:
        assert records.notes == {}


def test_a_finished_file_can_be_read_at_any_time(path: Path) -> None:
    kept(path, "q1", "q2", "q1")
    with begun(path) as records:
        records.note(gave_up_at=1)
        wanted = {id: {"id": id, "said": f"of {id}"} for id in ("q1", "q2")}
        assert read_journal(path, "read none", {"said": "a string"}) == wanted
    assert head_settings(path.read_bytes().splitlines()[0]) == SETTINGS
    assert head_settings(b"[1]") is None
    with pytest.raises(FileError, match="not the records of 'rerank'"):
        read_journal(path, "rerank", {})
    with pytest.raises(FileError, match=r"a\.jsonl:2: damaged or unfinished"):
        read_journal(path, "read none", {"said": "a string", "read": "a string"})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FileError, match=r"a\.jsonl:5: damaged or unfinished"):
        read_journal(path, "read none", {})
