"""Lines in, whole files out: encodings, damage, pipes and interruptions."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import located, numbered_lines, writing

Writer = Callable[..., Path]
SOME_GZIP = gzip.compress(b"one\n", mtime=0)


def test_lines_are_numbered_from_one_and_blank_ones_are_skipped_but_counted(file: Writer) -> None:
    path = file("\ufeffone\r\n\n \t \nfour\u2028still four")
    assert list(numbered_lines(path)) == [(1, "one"), (4, "four\u2028still four")]
    assert list(numbered_lines(str(path))) == [(1, "one"), (4, "four\u2028still four")]


@pytest.mark.parametrize(
    ("name", "content", "line", "says"),
    [
        ("f.txt", b"", None, "empty"),
        ("f.txt", b"\n  \n", None, "empty"),
        ("f.txt.gz", gzip.compress(b"", mtime=0), None, "empty"),
        ("f.txt", b"good\nbad \xff\n", 2, "byte 0xff at column 5 is not UTF-8"),
        ("f.txt", "one\n".encode("utf-16"), 1, "not UTF-8"),
        ("f.txt", "one\n".encode("utf-16-be"), 1, "NUL at column 1"),
        ("f.txt", b"good\nno\0pe\n", 2, "NUL at column 3"),
        ("f.txt", SOME_GZIP, 1, "a name that ends in .gz"),
        ("f.txt.gz", b"one\n", 1, "Not a gzipped file"),
        ("f.txt.gz", gzip.compress(b"one\ntwo\n", mtime=0)[:-12], 2, "cut short"),
        ("f.txt.gz", SOME_GZIP[:10] + b"\xff" * 20, 1, "damaged"),
    ],
)
def test_what_is_not_text_is_an_error_that_names_file_and_line(
    file: Writer, name: str, content: bytes, line: int | None, says: str
) -> None:
    path = file(content, name)
    with pytest.raises(FileError, match=re.escape(f"{path}:{line}: " if line else f"{path}: ")) as caught:
        list(numbered_lines(path))
    assert says in str(caught.value)
    assert (caught.value.path, caught.value.line) == (path, line)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_truncated_gzip_gives_its_whole_lines_first_and_then_the_line_where_it_ends(file: Writer) -> None:
    content = b"".join(b"%d %s\n" % (number, os.urandom(60).hex().encode()) for number in range(1, 3001))
    path = file(gzip.compress(content)[:-5000], "lines.gz")
    read: list[tuple[int, str]] = []
    with pytest.raises(FileError, match="cut short from here on") as caught:
        read.extend(numbered_lines(path))
    assert 1000 < len(read) < 3000
    assert caught.value.line == len(read) + 1
    assert content.startswith("".join(f"{line}\n" for _, line in read).encode())


def test_a_file_that_is_not_there_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        list(numbered_lines(tmp_path / "none.txt"))


def test_a_dash_is_standard_input_and_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ä\nb\n".encode()), encoding="ascii"))
    assert list(numbered_lines("-")) == [(1, "ä"), (2, "b")]
    assert not sys.stdin.closed
    with writing("-") as out:
        out.write("one\n")
    assert capsys.readouterr().out == "one\n"


@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
def test_what_is_written_is_read_back_when_it_is_whole_and_is_the_same_bytes(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path / f"b{name}"):
        with writing(path) as out:
            out.write("ä\n\u2028b\n" * 1000)
            out.flush()
            assert not path.exists()
        assert list(numbered_lines(path))[:2] == [(1, "ä"), (2, "\u2028b")]
    assert sorted(os.listdir(tmp_path)) == sorted([name, f"b{name}"])
    assert path.read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_the_old_file_stays_and_no_part_is_left(
    tmp_path: Path, name: str, error: type[BaseException]
) -> None:
    def write() -> None:
        with writing(tmp_path / name) as out:
            out.write("half\n" * 10_000)
            raise error

    with pytest.raises(error):
        write()
    assert os.listdir(tmp_path) == []
    (tmp_path / name).write_text("old")
    with pytest.raises(error):
        write()
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


def test_a_new_file_has_the_usual_permissions_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    (tmp_path / "link").symlink_to("usual")
    for name in ("new", "link"):
        with writing(tmp_path / name) as out:
            out.write("new\n")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "usual").read_text() == "new\n"


def test_a_pipe_and_a_device_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    for path in (pipe, os.devnull):
        with writing(path) as out:
            out.write("one\n")
    reader.join(timeout=10)
    assert read == ["one\n"]
    assert pipe.is_fifo()
    assert Path(os.devnull).is_char_device()


def test_a_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="this is a folder"), writing(tmp_path):
        pytest.fail("opened")
    assert os.listdir(tmp_path) == []


def test_only_a_value_error_gets_a_place() -> None:
    assert located("f", 3, int, "7") == 7
    with pytest.raises(FileError, match=r"^f:3: invalid literal"):
        located("f", 3, int, "x")
    with pytest.raises(TypeError):
        located("f", 3, len, 7)  # type: ignore[arg-type]


def test_standard_output_by_its_other_name_is_not_replaced(tmp_path: Path) -> None:
    code = "from rankr1_rag.io.files import writing\nwith writing('/dev/stdout') as out: print('two', file=out)"
    with (tmp_path / "log").open("w+") as log:
        log.write("one\n")
        log.flush()
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
        log.write("three\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"
