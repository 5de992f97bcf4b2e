"""What cannot be written is known before anything is asked; and if writing fails in mid-job, no answer is lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Passage, Query, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.errors import FileError, StoreError
from rankr1_rag.io.files import check_output, writing
from rankr1_rag.io.journal import Journal
from tests.backends.scripts import Script, ask, python
from tests.cli.conftest import JOB, NO_BYTECODE, best, query, server, shell

__all__ = ["server", "shell"]

LONG = f"<think>{'hm ' * 3_000}</think> <answer>[1]</answer>"
SMALL = NO_BYTECODE + "; import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are, for this process only."""
    path = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small disk with a store in it, full or read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*, full: bool = False) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
        if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        ask(stored(Scripted(Script()), disk / "store.sqlite"))
        if full:
            with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(512))
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return disk

    yield mount
    subprocess.run(["umount", "--lazy", str(disk)], check=False, capture_output=True)


# ---- before anything is asked


@pytest.mark.parametrize("full", [True, False], ids=["full", "read-only"])
def test_a_disk_that_cannot_be_written_to_is_refused_at_once(full: bool, mounted: Callable[..., Path]) -> None:
    disk = mounted(full=full)
    for name in ("store.sqlite", "new.sqlite"):
        with pytest.raises(StoreError, match=name):
            stored(Scripted(Script()), disk / name)
    for name in ("out.jsonl", "page.html"):
        with pytest.raises(FileError, match=rf"{name}: the folder .* cannot be written to \((No space|Read-only)"):
            check_output(disk / name)
    with pytest.raises(FileError, match="cannot be written to"):
        Journal(disk / "a.jsonl", "test", {}, {}, remedy="none")


def test_a_file_that_is_read_only_is_refused_at_once_where_its_folder_can_be_written_to(tmp_path: Path) -> None:
    """SQLite opens it, and even begins a transaction."""
    folder = tmp_path / "open"
    folder.mkdir()
    ask(stored(Scripted(Script()), folder / "store.sqlite"))
    (folder / "store.sqlite").chmod(0o444)
    folder.chmod(0o777)
    for path in folder.parents:
        if "pytest" in str(path):
            path.chmod(0o755)
    printed = python(f"""
        if os.getuid() == 0:  # root may write anywhere: be nobody
            os.setuid(65534)
        try:
            stored(Scripted(lambda messages: print("asked")), {str(folder / "store.sqlite")!r})
        except StoreError as error:
            print(error)
    """)
    assert "store.sqlite cannot be used as a store (attempt to write a readonly database): use another path" in printed


@pytest.mark.third_party
@pytest.mark.parametrize(
    "arguments",
    [JOB, ["rerank", "in.jsonl", "--store", "s.sqlite"], ["explain", "in.jsonl", "--html", "page.html"]],
    ids=["output", "store", "page"],
)
def test_a_command_that_can_write_nothing_asks_nothing(arguments: list[str], shell: Any) -> None:
    shell.write(query(0))
    with shell.process(*arguments, before=SMALL.format(1000)) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "File too large" in said
    assert not shell.server.prompts


# ---- in mid-job


def test_a_store_that_fails_in_mid_job_withholds_no_ranking_and_a_copy_has_all(
    tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk: the file may not grow further."""
    store, prompts = tmp_path / "store.sqlite", []

    def answer(messages: Any) -> str:
        prompts.append(messages)
        return LONG

    def rankings(path: Path) -> Iterator[Ranking]:
        backend = stored(Scripted(answer), path)
        with Reranker(backend, k=1, in_flight=1) as reranker:
            items = [(Query(str(n), f"which {n}?"), [Passage("a", "x"), Passage("b", "y")]) for n in range(9)]
            for n, outcome in reranker.rank_many(items):
                if n == 3 and path == store:
                    backend._file.connection.execute("PRAGMA max_page_count = 1")
                assert isinstance(outcome, Ranking)
                yield outcome

    found: list[Ranking] = []
    with pytest.raises(StoreError, match=r"returned but not saved \(database or disk is full\)") as caught:
        found.extend(rankings(store))
    assert [one.query.id for one in found] == [str(n) for n in range(9)]
    assert "completions are kept in memory" in caplog.text
    (copy,) = temporary.glob("rankr1-*/store.sqlite")
    assert f"none with the store {copy}" in str(caught.value)
    prompts.clear()
    assert [one.order for one in rankings(copy)] == [one.order for one in found]
    assert not prompts


@pytest.mark.third_party
def test_a_journal_that_cannot_grow_stops_the_job_and_keeps_what_it_has(shell: Any) -> None:
    shell.write(*map(query, range(20)))
    with shell.process(*JOB, "--in-flight", "1", before=SMALL.format(16_384)) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "done and kept, the same command resumes (out.jsonl.partial)" in said.replace("\n", " ")
    assert "error: out.jsonl.partial: File too large: free some space" in said
    asked = len(shell.server.prompts)
    shell.run(*JOB)
    assert [best(record) for record in shell.lines()] == [["d0", "d1"]] * 20
    assert len(shell.server.prompts) < 20 + asked


@pytest.mark.third_party
def test_a_damaged_record_of_a_job_is_asked_again_and_said(shell: Any, caplog: pytest.LogCaptureFixture) -> None:
    shell.write(query(0), query(1, word="poison"), query(2))
    shell.server.failing = "poison"
    shell.run(*JOB, code=1)
    partial = shell.folder / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes().replace(b"number 1", b"number 7", 1))
    shell.server.failing = ""
    shell.run(*JOB)
    assert "out.jsonl.partial:2: the line at byte" in caplog.text
    assert [record["query"]["id"] for record in shell.lines()] == ["fine0", "poison1", "fine2"]
    assert "number 7" not in (shell.folder / "out.jsonl").read_text()


@pytest.mark.third_party
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full_is_named_and_a_page_goes_to_the_terminal_instead(shell: Any) -> None:
    shell.write(query(0))
    shell.run("rerank", "in.jsonl", "-o", "/dev/full", code=1)
    assert "stopped: only what was written is kept; --out with a file, or --store, keeps every answer" in shell.said
    assert "error: /dev/full: No space left on device" in shell.said
    printed = shell.run("explain", "in.jsonl", "--html", "/dev/full", code=1)
    assert "fine 0?" in printed
    assert "error: /dev/full: No space left on device" in shell.said
    shell.server.judge = lambda _: "<answer>[1]</answer>"
    printed = shell.run("demo", "--html", "/dev/full", "--json", code=1)
    assert json.loads(printed)["questions"] == 42
    assert "error: /dev/full: No space left on device" in shell.said


def test_an_error_of_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        with writing(path) as out:
            out.write("x" * 99_999)
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="free some space") as caught:
        write(path)
    assert (caught.value.filename, path.read_text()) == (str(path), "old")
    assert [one.name for one in tmp_path.iterdir()] == ["out.txt"]
