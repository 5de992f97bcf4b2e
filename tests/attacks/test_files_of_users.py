"""Outputs that are named for something of the user's: nothing of it changes, and no model is asked."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import stat
import sys
import threading
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.errors import FileError, StoreError
from rankr1_rag.io.files import check_apart, check_output, writing
from rankr1_rag.train.config import SFT
from rankr1_rag.train.run_dir import ALONE, opened
from tests.cli.conftest import JOB, Shell, query
from tests.cli.conftest import server as server
from tests.cli.conftest import shell as shell

pytestmark = pytest.mark.third_party

HOSTILE = {
    "in.jsonl": "is an input",
    "./in.jsonl": "is an input",
    "folder/../in.jsonl": "is an input",
    "hard": "is an input",
    "soft": "is an input",
    "linked/in.jsonl": "is an input",
    "notes": "holds something else",
    "to-notes": "holds something else",
    "empty-and-read-only": "read-only",
    "loop": "where nothing is",
    "dangling": "where nothing is",
    "loop/x": "the folder loop does not exist",
    "none/x": "the folder none does not exist",
    "notes/x": "the folder notes does not exist",
    "folder": "this is a folder",
    "folder/": "this is a folder",
    "": "this is a folder",
    "/": "this is a folder",
    "socket": "neither a file nor a pipe",
    "disk": "neither a file nor a pipe",
    "/proc/x": "the folder /proc cannot be written to",
    "/sys/kernel/x": "the folder /sys/kernel cannot be written to",
    "n" * 256: "File name too long",
    "ä" * 128: "File name too long",
    "a\nb/x": r"the folder a\nb does not exist",
}
"""What an output is named for, and the error."""

COMMANDS = {
    "rerank": [*JOB[:3], "OUT", "--overwrite", "--restart"],
    "store": [*JOB, "--store", "OUT"],
    "explain": ["explain", "in.jsonl", "--html", "OUT"],
    "demo": ["demo", "--html", "OUT"],
    "comparisons": ["comparisons", "in.jsonl", "--out", "OUT"],
    "examples": ["examples", "--dataset", "hotpotqa", "--data", "in.jsonl", "--out", "OUT"],
    "held-out": ["examples", "--dataset", "hotpotqa", "--data", "in.jsonl", "--out", "new", "--held-out", "OUT"],
    "compare": ["compare", "in.jsonl", "in.jsonl", "--html", "OUT"],
}


def furnish(folder: Path) -> None:
    """Everything in `HOSTILE`, in a folder that is the present one."""
    (folder / "in.jsonl").write_text(json.dumps(query(0)) + "\n")
    (folder / "notes").write_text("precious\n")
    (folder / "folder").mkdir()
    (folder / "empty-and-read-only").touch(0o444)
    for name, target in (("soft", "in.jsonl"), ("to-notes", "notes"), ("loop", "loop"), ("dangling", "nowhere")):
        (folder / name).symlink_to(target)
    (folder / "linked").symlink_to(".")
    (folder / "hard").hardlink_to(folder / "in.jsonl")
    with chdir(folder), socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    with suppress(PermissionError):
        os.mknod(folder / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 250))


def state(folder: Path) -> dict[str, object]:
    """All that a folder holds: kinds, modes, targets of links, contents."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        own = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else None
        if stat.S_ISREG(own.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (own.st_mode, own.st_ino, own.st_nlink, content)
    return found


def evaluate(shell: Shell, *arguments: str, model: bool = True) -> int:
    """The exit status of `rankr1-eval`; what it says is in `shell.said`."""
    from rankr1_eval.cli import main

    errors, end = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, chdir(shell.folder), redirect_stdout(errors), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["rankr1-eval", *shell.command(*arguments, model=model)])
        try:
            main()
        except SystemExit as left:
            end = int(left.code or 0)
        finally:
            shell.said = " ".join(errors.getvalue().split())
    return end


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_of_any_hostile_name_is_refused_before_anything_is_asked(command: str, shell: Shell) -> None:
    furnish(shell.folder)
    before = state(shell.folder)
    of_evaluation = command in ("comparisons", "examples", "held-out", "compare")
    if of_evaluation and not find_spec("rankr1_eval"):
        pytest.skip("the evaluation is not installed")
    step = 1 if float(os.environ.get("RANKR1_ATTACKS", "1")) > 1 else 3  # each name meets some of the commands
    for name in list(HOSTILE)[list(COMMANDS).index(command) % step :: step]:
        problem = HOSTILE[name]
        if name == "disk" and name not in before:
            continue  # only root can make one
        if command == "rerank" and name == "notes":
            continue  # --overwrite names it
        if command == "comparisons" and "something" in problem:
            continue  # the journal says it, see below
        if command == "demo" and "input" in problem:
            problem = "holds something else"  # it has no input
        arguments = [name if one == "OUT" else one for one in COMMANDS[command]]
        if of_evaluation:
            code = evaluate(shell, *arguments, model=command == "comparisons")
            assert (code, problem in shell.said) == (2, True), (name, shell.said)
        else:
            shell.run(*arguments, code=2)
            assert problem in shell.said, (name, shell.said)
        assert "Traceback" not in shell.said
        assert (shell.server.prompts, state(shell.folder)) == ([], before), name


@pytest.mark.parametrize("option", [(), ("--restart",), ("--overwrite",), ("--restart", "--overwrite")])
def test_what_is_in_the_place_of_a_job_s_own_files_stays(option: tuple[str, ...], shell: Shell) -> None:
    """The journal and the store of OUT: a file, an input, a link, a pipe of that name."""
    furnish(shell.folder)
    os.mkfifo(shell.folder / "pipe")
    (shell.folder / "theirs.partial").write_text('{"rankr1_journal": 1, "kind": "load", "settings": {}}\n')
    for name in ("notes", "to-notes", "soft", "loop", "dangling", "folder", "pipe", "theirs.partial"):
        partial = shell.folder / "out.jsonl.partial"
        if not partial.exists():
            partial.symlink_to(name)
        before = state(shell.folder)
        shell.run(*JOB, *option, code=2)
        assert "out.jsonl.partial" in shell.said
        assert "remove" not in shell.said
        assert (shell.server.prompts, state(shell.folder)) == ([], before), name
        partial.unlink()
    (shell.folder / "x.partial").write_text(json.dumps(query(0)) + "\n")
    (shell.folder / "y.partial.sqlite").write_text(json.dumps(query(0)) + "\n")
    before = state(shell.folder)
    for name in ("x", "y"):
        given = next(path.name for path in shell.folder.glob(f"{name}.partial*"))
        shell.run("rerank", given, "-o", name, *option, code=2)
        assert "is an input" in shell.said
    assert (shell.server.prompts, state(shell.folder)) == ([], before)


def test_an_overwrite_through_a_link_replaces_only_a_result_and_keeps_the_link(shell: Shell) -> None:
    furnish(shell.folder)
    shell.run(*JOB)
    (shell.folder / "latest").symlink_to("out.jsonl")
    os.chmod(shell.folder / "out.jsonl", 0o600)
    shell.run("rerank", "in.jsonl", "-o", "latest", code=2)
    assert "latest exists: use another --out, or --overwrite" in shell.said
    shell.run("rerank", "in.jsonl", "-o", "latest", "--overwrite", "--no-trace")
    assert (shell.folder / "latest").is_symlink()
    assert "trace" not in shell.lines("out.jsonl")[0]["rankr1"]
    assert stat.S_IMODE((shell.folder / "out.jsonl").stat().st_mode) == 0o600
    assert not list(shell.folder.glob("*.partial*"))
    shell.run("rerank", "in.jsonl", "-o", "notes", "--overwrite")  # which is what the option is for
    assert len(shell.lines("notes")) == 1


@pytest.mark.parametrize(
    "outputs",
    [
        ["rerank", "in.jsonl", "-o", "x", "--store", "./x"],
        ["rerank", "in.jsonl", "-o", "x", "--store", "x.partial"],
        ["rerank", "in.jsonl", "-o", "x", "--store", "linked/x.partial.sqlite"],
        ["explain", "in.jsonl", "--html", "x", "--store", "x"],
        ["demo", "--html", "-", "--json"],
        ["demo", "--html", "/dev/stdout", "--json"],
    ],
)
def test_two_options_name_no_one_output(outputs: list[str], shell: Shell) -> None:
    furnish(shell.folder)
    before = state(shell.folder)
    shell.run(*outputs, code=2)
    assert "is another output" in shell.said
    assert (shell.server.prompts, state(shell.folder)) == ([], before)


def test_a_page_replaces_a_page_and_nothing_else(shell: Shell) -> None:
    furnish(shell.folder)
    shell.run(*JOB)
    for _ in range(2):
        assert shell.run("explain", "out.jsonl", "--html", "page.html") == "page.html\n"
    (shell.folder / "link.html").symlink_to("page.html")
    shell.run("explain", "out.jsonl", "--html", "link.html")
    assert (shell.folder / "link.html").is_symlink()
    before = state(shell.folder)
    for name, problem in (("out.jsonl", "is an input"), ("notes", "holds something else than this command writes")):
        shell.run("explain", "out.jsonl", "--html", name, code=2)
        assert f"{name}: " in shell.said
        assert problem in shell.said
    assert state(shell.folder) == before


def test_pipes_devices_and_open_files_are_written_into(shell: Shell) -> None:
    furnish(shell.folder)
    shell.run(*JOB)
    before, pipe, read = state(shell.folder), shell.folder / "pipe", []
    os.mkfifo(pipe)
    commands = [["rerank", "in.jsonl", "-o"], ["explain", "out.jsonl", "--html"]]
    for command in commands:
        reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
        reader.start()
        shell.run(*command, "pipe")
        reader.join(timeout=10)
        printed, piped = (_TIME.sub("", text) for text in (shell.run(*command, "/dev/stdout"), read[-1]))
        assert printed == piped
        for null in ("/dev/null", *(["null"] if _null(shell.folder / "null") else [])):
            shell.run(*command, null)
        log = shell.folder / "log"
        log.write_text("one\n")
        with log.open("a") as opened_log:
            name = f"/dev/fd/{opened_log.fileno()}"
            shell.run(*command, name)
            opened_log.write("three\n")
        assert _TIME.sub("", log.read_text()) == f"one\n{piped}three\n"
        log.unlink()
    assert Path(os.devnull).is_char_device()
    assert pipe.is_fifo()
    assert "rankr1" in json.loads(read[0])
    after = state(shell.folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() <= {"pipe", "null"}


_TIME = re.compile(r'"seconds": [\d.e-]+|[ \t]+$', re.MULTILINE)  # and the checksum of a line


def _null(path: Path) -> bool:
    """Make a null device, which only root can."""
    with suppress(FileExistsError, PermissionError):
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return path.exists()


def test_a_result_is_not_appended_to_its_input(shell: Shell) -> None:
    furnish(shell.folder)
    before = (shell.folder / "in.jsonl").read_text()
    with (shell.folder / "in.jsonl").open("a") as out, shell.process("rerank", "in.jsonl", stdout=out) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "is an input" in said
    assert (shell.folder / "in.jsonl").read_text() == before


@pytest.mark.parametrize(
    "path", ["loop", "dangling", "n" * 256, "none", "notes/x", "folder", "a\nb", "loop/x"], ids=lambda path: path[:8]
)
def test_an_input_that_is_none_is_an_error_in_one_line(path: str, shell: Shell) -> None:
    furnish(shell.folder)
    for command in (["rerank", path], ["rerank", path, "-o", "x"], ["explain", path], ["rerank", "--run", path]):
        more = ["--queries", path, "--passages", path] if "--run" in command else []
        shell.run(*command, *more, code=2)
        assert shell.said.startswith(f"error: {path}: ".replace("\n", r"\n"))
        assert "check the path" in shell.said
    assert not shell.server.prompts


def test_a_store_replaces_no_file_next_to_it(shell: Shell) -> None:
    furnish(shell.folder)
    for suffix in ("-wal", "-shm", "-journal"):
        beside = shell.folder / f"s.sqlite{suffix}"
        beside.write_text("precious")
        shell.run(*JOB, "--store", "s.sqlite", code=1)
        assert f"s.sqlite{suffix} would be replaced" in shell.said
        assert beside.read_text() == "precious"
        beside.unlink()
    assert not shell.server.prompts


RUN_FOLDERS = {
    "qa": [
        "qa",
        "--dataset",
        "hotpotqa",
        "--data",
        "questions.json",
        "--no-read",
        "--retriever",
        "own",
        "--out",
        "OUT",
    ],
    "selection": [
        *("selection", "--run", "run.trec", "--qrels", "qrels", "--out", "OUT"),
        *("--judge", "perfect", "--algorithm", "heapsort", "--repeats", "1"),
    ],
    "reproduce": [
        *("reproduce", "dl19", "--run", "run.trec", "--queries", "queries.tsv"),
        *("--passages", "passages.jsonl", "--qrels", "qrels", "--out", "OUT"),
    ],
}
MATERIAL = {
    "questions.json": json.dumps(
        [
            {
                "_id": "q",
                "question": "which?",
                "answer": "a",
                "type": "bridge",
                "level": "hard",
                "supporting_facts": [["a", 0]],
                "context": [["a", ["one 0"]], ["b", ["two 1"]], ["c", ["three 2"]]],
            }
        ]
    ),
    "run.trec": "q Q0 a 1 2 t\nq Q0 b 2 1 t\n",
    "qrels": "q 0 a 1\n",
    "queries.tsv": "q\twhich?\n",
    "passages.jsonl": '{"id": "a", "text": "one 0"}\n{"id": "b", "text": "two 1"}\n',
}
WRITTEN = {
    "qa": ["scores.json", "report.html", "report.md", "passages.jsonl", "supports.qrels", "runs/none.trec"],
    "selection": ["selection.json", "selection.md", "selection.png", "selection.svg"],
    "reproduce": ["reproduction.json", "reproduction.md", "reranked.trec", "rerank.jsonl"],
}


@pytest.mark.skipif(not find_spec("rankr1_eval"), reason="the evaluation is not installed")
@pytest.mark.parametrize("command", RUN_FOLDERS)
def test_the_folder_of_a_run_is_new_or_a_run_s_own(command: str, shell: Shell) -> None:
    for name, content in MATERIAL.items():
        (shell.folder / name).write_text(content)
    furnish(shell.folder)

    def refused(out: str) -> None:
        before = state(shell.folder)
        arguments = [out if one == "OUT" else one for one in RUN_FOLDERS[command]]
        code = evaluate(shell, *arguments, model=command != "selection")
        assert (code, "Traceback" in shell.said) == (2, False), (out, shell.said)
        assert not shell.server.prompts, out
        after = state(shell.folder)
        kept = before.keys() - {"run/completions.sqlite"}  # which is opened, and is a store
        assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}, out

    for out in ("notes", "to-notes", "notes/x", "loop", "dangling", "/proc/x", "n" * 256, "socket"):
        refused(out)
    for number, name in enumerate(WRITTEN[command]):  # of the user, in a folder of the user
        for kind in ("file", "link"):
            path = shell.folder / f"mine{number}{kind}" / name
            path.parent.mkdir(parents=True)
            if kind == "file":
                path.write_text("precious\n")
            else:
                path.symlink_to(shell.folder / "notes")
            refused(f"mine{number}{kind}")
    own = [one if one != "OUT" else "run" for one in RUN_FOLDERS[command]]
    for _ in range(2):  # a run's own files are written again
        assert evaluate(shell, *own, model=command != "selection") == 0, shell.said
    shell.server.prompts.clear()
    for name in WRITTEN[command]:  # the folder is a run's, and what is in it cannot be written
        path = shell.folder / "run" / name
        whole = path.read_bytes()
        for spoil in (lambda path: path.mkdir(), lambda path: path.symlink_to(shell.folder / "notes"), os.mkfifo):
            path.unlink()
            spoil(path)
            refused("run")
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_bytes(whole)
        path.unlink()
        path.write_bytes(whole)


@pytest.mark.skipif(not find_spec("rankr1_eval"), reason="the evaluation is not installed")
def test_a_run_writes_over_no_input_in_its_folder(shell: Shell) -> None:
    for name, content in MATERIAL.items():
        (shell.folder / name).write_text(content)
    own = [one if one != "OUT" else "run" for one in RUN_FOLDERS["qa"]]
    assert evaluate(shell, *own) == 0, shell.said
    before = state(shell.folder)
    (shell.folder / "linked.trec").symlink_to("run/runs/none.trec")
    for run in ("run/runs/none.trec", "linked.trec"):
        arguments = ["run" if one == "own" else one for one in own]
        assert evaluate(shell, *arguments, "--run", run) == 2
        assert "is an input" in shell.said
    after = state(shell.folder)
    assert {name: after[name] for name in before} == before


@pytest.mark.skipif(not find_spec("rankr1_eval"), reason="the evaluation is not installed")
@pytest.mark.parametrize("command", ["qa", "reproduce"])
def test_no_file_of_a_run_is_its_store(command: str, shell: Shell) -> None:
    for name, content in MATERIAL.items():
        (shell.folder / name).write_text(content)
    own = [one if one != "OUT" else "run" for one in RUN_FOLDERS[command]]
    for name in WRITTEN[command]:
        assert evaluate(shell, *own, "--store", f"run/{name}") == 2
        assert "is an input or a store" in shell.said or "is another output" in shell.said
        assert not (shell.folder / "run" / name).exists()
    assert not shell.server.prompts
    assert evaluate(shell, *own, "--store", "run/completions.sqlite") == 0, shell.said


def test_an_overwrite_replaces_no_file_of_the_model(shell: Shell) -> None:
    (shell.folder / "in.jsonl").write_text(json.dumps(query(0)) + "\n")
    (shell.folder / "model").mkdir()
    (shell.folder / "model" / "config.json").write_text("{}")
    model = ["--overwrite", "--backend", "transformers", "--model", "model"]
    shell.run("rerank", "in.jsonl", "-o", "model/config.json", *model, model=False, code=2)
    assert "model/config.json: the file holds something else than this command writes" in shell.said
    assert (shell.folder / "model" / "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    "name", ["README.md", "settings.json", "adapter_model.safetensors", "checkpoints/checkpoint-best", "unfinished/x"]
)
def test_training_begins_in_no_folder_of_the_user(name: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    for begin in ("precious\n", '{"editor.fontSize": 12}'):
        mine.unlink(missing_ok=True)
        mine.write_text(begin) if "checkpoint-" not in name else mine.mkdir(exist_ok=True)
        before = state(tmp_path)
        with pytest.raises(FileError, match="is not the file of a run"), opened(_sft(tmp_path / "mine"), ALONE):
            pytest.fail("opened")
        assert state(tmp_path) == before
        if mine.is_dir():
            break


def test_training_writes_into_no_model_no_adapter_and_no_file(tmp_path: Path) -> None:
    furnish(tmp_path)
    for out in ("notes", "loop", "dangling", "notes/x", "/proc/x", "n" * 256):
        with pytest.raises(FileError, match="not a folder that can be written to"), opened(_sft(tmp_path / out), ALONE):
            pytest.fail("opened")
    for more in ({"model": str(tmp_path / "folder")}, {"adapter": str(tmp_path / "linked" / "folder")}):
        with pytest.raises(FileError, match="is an input"), opened(_sft(tmp_path / "folder", **more), ALONE):
            pytest.fail("opened")
    assert not list((tmp_path / "folder").iterdir())


def _sft(out: Path, **more: Any) -> SFT:
    return SFT(**{"model": "some/model", "data": ["in.jsonl"], "out": str(out), **more})


def test_a_file_may_be_named_in_any_case_and_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    (tmp_path / "link").symlink_to(".")
    with chdir(tmp_path):
        for outputs, inputs in (
            (["in"], [str(tmp_path / "in")]),
            (["link/link/in"], ["in"]),
            (["new", "link/new"], []),
            (["new", "NEW"], []),
            (["-", "/dev/stdout"], []),
        ):
            with pytest.raises(FileError, match="and the same file: use another path"):
                check_apart(outputs, inputs)
        check_apart(["IN", None, "/dev/null", "-"], ["in", "-", None])
    if os.path.exists("/dev/tty"):
        check_apart(["/dev/stdout"], ["/dev/stdin"])


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_a_name_that_no_file_can_have_is_an_error_of_ours(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="use another path"), writing(tmp_path / name):
        pytest.fail("opened")
    with pytest.raises(StoreError, match="cannot be created"):
        stored(Scripted(lambda _: ""), tmp_path / name)


def test_what_appears_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    check_output(path, re.compile(rb"ours"))
    path.write_text("precious\n")
    with pytest.raises(FileError, match="holds something else"), writing(path, re.compile(rb"ours")):
        pytest.fail("opened")
    assert path.read_text() == "precious\n"
