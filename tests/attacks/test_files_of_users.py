"""Outputs that are named for something of the user's: nothing of it changes, and no model is asked."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
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
from tests.attacks.conftest import SCALE
from tests.cli.conftest import JOB, Shell, query
from tests.cli.conftest import server as server
from tests.cli.conftest import shell as shell

pytestmark = pytest.mark.third_party
evaluation = pytest.mark.skipif(not find_spec("rankr1_eval"), reason="the evaluation is not installed")

PROBLEMS = {
    "is an input": ["in.jsonl", "./in.jsonl", "folder/../in.jsonl", "hard", "soft", "linked/in.jsonl"],
    "holds something else": ["notes", "to-notes"],
    "read-only": ["empty-and-read-only"],
    "where nothing is": ["loop", "dangling"],
    "the folder {} does not exist": ["loop/x", "none/x", "notes/x"],
    r"the folder a\nb does not exist": ["a\nb/x"],
    "this is a folder": ["folder", "folder/", "", "/"],
    "neither a file nor a pipe": ["socket", "disk"],
    "the folder {} cannot be written to": ["/proc/x", "/sys/kernel/x"],
    "File name too long": ["n" * 256, "ä" * 128],
}
"""The errors, and what an output is then named for; {} is its folder."""
HOSTILE = {name: problem.format(os.path.dirname(name)) for problem, names in PROBLEMS.items() for name in names}

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


@contextmanager
def unchanged(shell: Shell, *but: str, may_add: bool = False) -> Iterator[None]:
    """Nothing that is in the folder changes, and no model is asked."""
    before, asked = state(shell.folder), len(shell.server.prompts)
    yield
    after = state(shell.folder)
    assert len(shell.server.prompts) == asked
    if may_add:
        after = {name: after[name] for name in before if name in after}
    for name in but:
        before.pop(name, None), after.pop(name, None)
    assert after == before


def refused(shell: Shell, problem: str, *arguments: str, code: int = 2) -> None:
    """The command ends with this error, asks nothing and changes nothing."""
    with unchanged(shell, "run/completions.sqlite", may_add=arguments[0] in RUN_FOLDERS):  # a store, which is opened
        run(shell, *arguments, code=code)
    assert problem in shell.said, (arguments, shell.said)
    assert "Traceback" not in shell.said


def run(shell: Shell, *arguments: str, code: int = 0) -> str:
    """`rankr1`, or `rankr1-eval` where the command is one of the evaluation."""
    if arguments[0] in ("rerank", "explain", "demo"):
        return shell.run(*arguments, code=code)
    from rankr1_eval.cli import main

    return shell.run(*arguments, code=code, model=arguments[0] in ("comparisons", "qa", "reproduce"), main=main)


def thinned(names: list[str], number: int) -> list[str]:
    """By default a third of the names, others for each number."""
    return names if SCALE > 1 else names[number % 3 :: 3]


@pytest.fixture
def furnished(shell: Shell) -> Shell:
    furnish(shell.folder)
    return shell


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_of_any_hostile_name_is_refused_before_anything_is_asked(command: str, furnished: Shell) -> None:
    if command in ("comparisons", "examples", "held-out", "compare"):
        pytest.importorskip("rankr1_eval")
    for name in thinned(list(HOSTILE), list(COMMANDS).index(command)):
        problem = HOSTILE[name]
        if name == "disk" and not (furnished.folder / name).exists():
            continue  # only root can make one
        if (command, name) == ("rerank", "notes"):
            continue  # --overwrite names it
        if command == "comparisons" and "something" in problem:
            continue  # the journal says it
        if command == "demo" and "input" in problem:
            problem = "holds something else"  # it has no input
        refused(furnished, problem, *(name if one == "OUT" else one for one in COMMANDS[command]))


@pytest.mark.parametrize("number", range(4))
def test_what_is_in_the_place_of_a_job_s_own_files_stays(number: int, furnished: Shell) -> None:
    """The journal and the store of OUT: a file, an input, a link, a pipe of that name."""
    folder, option = furnished.folder, [["--restart"], ["--overwrite"], ["--restart", "--overwrite"], []][number]
    os.mkfifo(folder / "pipe")
    (folder / "theirs.partial").write_text('{"rankr1_journal": 1, "kind": "load", "settings": {}}\n')
    (partial := folder / "out.jsonl.partial").symlink_to("theirs.partial")
    names = ["theirs.partial", "notes", "to-notes", "soft", "loop", "dangling", "folder", "pipe"]
    for name in thinned(names, number):
        partial.unlink()
        partial.symlink_to(name)
        refused(furnished, "out.jsonl.partial", *JOB, *option)
        assert "remove" not in furnished.said
    for name in ("x.partial", "x.partial.sqlite"):
        (folder / name).write_text(json.dumps(query(0)) + "\n")
        refused(furnished, "is an input", "rerank", name, "-o", "x", *option)
        (folder / name).unlink()


def test_an_overwrite_through_a_link_replaces_only_a_result_and_keeps_the_link(furnished: Shell) -> None:
    furnished.run(*JOB)
    out, link = furnished.folder / "out.jsonl", furnished.folder / "latest"
    link.symlink_to("out.jsonl")
    out.chmod(0o600)
    refused(furnished, "latest exists: use another --out, or --overwrite", "rerank", "in.jsonl", "-o", "latest")
    furnished.run("rerank", "in.jsonl", "-o", "latest", "--overwrite", "--no-trace")
    assert "trace" not in furnished.lines("out.jsonl")[0]["rankr1"]
    assert (link.is_symlink(), stat.S_IMODE(out.stat().st_mode)) == (True, 0o600)
    assert not list(furnished.folder.glob("*.partial*"))
    furnished.run("rerank", "in.jsonl", "-o", "notes", "--overwrite")  # which is what the option is for
    assert len(furnished.lines("notes")) == 1


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
def test_two_options_name_no_one_output(outputs: list[str], furnished: Shell) -> None:
    refused(furnished, "is another output", *outputs)


def test_a_page_replaces_a_page_and_nothing_else(furnished: Shell) -> None:
    furnished.run(*JOB)
    for _ in range(2):
        assert furnished.run("explain", "out.jsonl", "--html", "page.html") == "page.html\n"
    (furnished.folder / "link.html").symlink_to("page.html")
    furnished.run("explain", "out.jsonl", "--html", "link.html")
    assert (furnished.folder / "link.html").is_symlink()
    for name, problem in (("out.jsonl", "is an input"), ("notes", "holds something else than this command writes")):
        refused(furnished, problem, "explain", "out.jsonl", "--html", name)
        assert f"{name}: " in furnished.said


def test_pipes_devices_and_open_files_are_written_into(furnished: Shell) -> None:
    shell, pipe, log = furnished, furnished.folder / "pipe", furnished.folder / "log"
    shell.run(*JOB)
    os.mkfifo(pipe)
    before, read = state(shell.folder), list[str]()
    for command in (["rerank", "in.jsonl", "-o"], ["explain", "out.jsonl", "--html"]):
        reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
        reader.start()
        shell.run(*command, "pipe")
        reader.join(timeout=10)
        printed, piped = (_TIME.sub("", text) for text in (shell.run(*command, "/dev/stdout"), read[-1]))
        assert printed == piped
        for null in ("/dev/null", *(["null"] if _null(shell.folder / "null") else [])):
            shell.run(*command, null)
        log.write_text("one\n")
        with log.open("a") as opened_log:
            shell.run(*command, f"/dev/fd/{opened_log.fileno()}")
            opened_log.write("three\n")
        assert _TIME.sub("", log.read_text()) == f"one\n{piped}three\n"
    assert Path(os.devnull).is_char_device()
    assert "rankr1" in json.loads(read[0])
    after = state(shell.folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() <= {"log", "null"}


_TIME = re.compile(r'"seconds": [\d.e-]+|[ \t]+$', re.MULTILINE)  # and the checksum of a line


def _null(path: Path) -> bool:
    """Make a null device, which only root can."""
    with suppress(FileExistsError, PermissionError):
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return path.exists()


def test_a_result_is_not_appended_to_its_input(furnished: Shell) -> None:
    with unchanged(furnished), (furnished.folder / "in.jsonl").open("a") as out:
        process = furnished.process("rerank", "in.jsonl", stdout=out)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, "is an input" in said) == (2, True)


@pytest.mark.parametrize(
    "path", ["loop", "dangling", "n" * 256, "none", "notes/x", "folder", "a\nb", "loop/x"], ids=lambda path: path[:8]
)
def test_an_input_that_is_none_is_an_error_in_one_line(path: str, furnished: Shell) -> None:
    run = ["rerank", "--run", path, "--queries", path, "--passages", path]
    for command in (["rerank", path], ["rerank", path, "-o", "x"], ["explain", path], run):
        refused(furnished, "check the path", *command)
        assert furnished.said.startswith(f"error: {path}: ".replace("\n", r"\n"))


def test_a_store_replaces_no_file_next_to_it(furnished: Shell) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        path = furnished.folder / f"s.sqlite{suffix}"
        path.write_text("precious")
        refused(furnished, f"{path.name} would be replaced", *JOB, "--store", "s.sqlite", code=1)
        path.unlink()


RUN_FOLDERS = {
    "qa": "qa --dataset hotpotqa --data questions.json --no-read --retriever own --out OUT",
    "selection": "selection --run run.trec --qrels qrels --out OUT --judge perfect --algorithm heapsort --repeats 1",
    "reproduce": "reproduce dl19 --run run.trec --queries q.tsv --passages passages.jsonl --qrels qrels --out OUT",
}
QUESTION: dict[str, Any] = {"_id": "q", "question": "which?", "answer": "a", "type": "bridge", "level": "hard"}
QUESTION |= {"supporting_facts": [["a", 0]], "context": [["a", ["one 0"]], ["b", ["two 1"]], ["c", ["three 2"]]]}
MATERIAL = {
    "questions.json": json.dumps([QUESTION]),
    "run.trec": "q Q0 a 1 2 t\nq Q0 b 2 1 t\n",
    "qrels": "q 0 a 1\n",
    "q.tsv": "q\twhich?\n",
    "passages.jsonl": '{"id": "a", "text": "one 0"}\n{"id": "b", "text": "two 1"}\n',
}
WRITTEN = {
    "qa": ["scores.json", "report.html", "report.md", "passages.jsonl", "supports.qrels", "runs/none.trec"],
    "selection": ["selection.json", "selection.md", "selection.png", "selection.svg"],
    "reproduce": ["reproduction.json", "reproduction.md", "reranked.trec", "rerank.jsonl"],
}


@pytest.fixture
def supplied(furnished: Shell) -> Shell:
    """With data for all commands of `RUN_FOLDERS`."""
    for name, content in MATERIAL.items():
        (furnished.folder / name).write_text(content)
    return furnished


def with_out(command: str, out: str) -> list[str]:
    return [out if one == "OUT" else one for one in RUN_FOLDERS[command].split()]


@evaluation
@pytest.mark.parametrize("command", RUN_FOLDERS)
def test_the_folder_of_a_run_is_new_or_a_run_s_own(command: str, supplied: Shell) -> None:
    folder, notes = supplied.folder, supplied.folder / "notes"
    outs = ["notes", "to-notes", "notes/x", "loop", "dangling", "/proc/x", "n" * 256, "socket"]
    for out in thinned(outs, list(RUN_FOLDERS).index(command)):
        refused(supplied, "", *with_out(command, out))
    written = WRITTEN[command] if SCALE > 1 else WRITTEN[command][-1:]
    for number, name in enumerate(written):  # of the user, in a folder of the user
        for kind, make in (("file", lambda path: path.write_text("x")), ("link", lambda path: path.symlink_to(notes))):
            path = folder / f"mine{number}{kind}" / name
            path.parent.mkdir(parents=True)
            make(path)
            refused(supplied, "", *with_out(command, f"mine{number}{kind}"))
    if command == "selection" and SCALE <= 1:
        return  # it draws pictures, which takes time
    for _ in range(2):  # a run's own files are written again
        run(supplied, *with_out(command, "run"))
    for name in written:  # the folder is a run's, and what is in it cannot be written
        path = folder / "run" / name
        whole = path.read_bytes()
        for spoil in (Path.mkdir, lambda path: path.symlink_to(notes), os.mkfifo):
            path.unlink()
            spoil(path)
            refused(supplied, "", *with_out(command, "run"))
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            path.write_bytes(whole)


@evaluation
def test_a_run_writes_over_no_input_in_its_folder(supplied: Shell) -> None:
    run(supplied, *with_out("qa", "run"))
    (supplied.folder / "linked.trec").symlink_to("run/runs/none.trec")
    for name in ("run/runs/none.trec", "linked.trec"):
        arguments = ["run" if one == "own" else one for one in with_out("qa", "run")]
        refused(supplied, "is an input", *arguments, "--run", name)


@evaluation
@pytest.mark.parametrize("command", ["qa", "reproduce"])
def test_no_file_of_a_run_is_its_store(command: str, supplied: Shell) -> None:
    for name in WRITTEN[command]:
        run(supplied, *with_out(command, "run"), "--store", f"run/{name}", code=2)
        assert "is an input or a store" in supplied.said or "is another output" in supplied.said
        assert not (supplied.folder / "run" / name).exists()
    assert not supplied.server.prompts
    run(supplied, *with_out(command, "run"), "--store", "run/completions.sqlite")


def test_an_overwrite_replaces_no_file_of_the_model(shell: Shell) -> None:
    (shell.folder / "in.jsonl").write_text(json.dumps(query(0)) + "\n")
    (shell.folder / "model").mkdir()
    (shell.folder / "model" / "config.json").write_text("{}")
    model = ["--overwrite", "--backend", "transformers", "--model", "model"]
    shell.run("rerank", "in.jsonl", "-o", "model/config.json", *model, model=False, code=2)
    assert "model/config.json: the file holds something else than this command writes" in shell.said
    assert (shell.folder / "model" / "config.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_a_name_that_no_file_can_have_is_an_error_of_ours(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="use another path"), writing(tmp_path / name):
        pytest.fail("opened")
    with pytest.raises(StoreError, match="cannot be created"):
        stored(Scripted(lambda _: ""), tmp_path / name)


@pytest.mark.parametrize("begin", ["precious\n", '{"editor.fontSize": 12}', None])
@pytest.mark.parametrize(
    "name", ["README.md", "settings.json", "adapter_model.safetensors", "checkpoints/checkpoint-best", "unfinished/x"]
)
def test_training_begins_in_no_folder_of_the_user(name: str, begin: str | None, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / name
    mine.parent.mkdir(parents=True)
    mine.write_text(begin) if begin else mine.mkdir()
    before = state(tmp_path)
    with pytest.raises(FileError, match="is not the file of a run"), opened(_sft(tmp_path / "mine"), ALONE):
        pytest.fail("opened")
    assert state(tmp_path) == before


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


def test_what_appears_in_the_meantime_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out"
    check_output(path, re.compile(rb"ours"))
    path.write_text("precious\n")
    with pytest.raises(FileError, match="holds something else"), writing(path, re.compile(rb"ours")):
        pytest.fail("opened")
    assert path.read_text() == "precious\n"
