"""The way in: interrupted while it loads, on a system without file locks, and what is a bug of ours."""

import subprocess
import sys
from typing import Any

import pytest

from rankr1_rag.cli import main
from rankr1_rag.cli.report import Report

pytestmark = pytest.mark.third_party

LINE = {"query": "which?", "passages": ["number 1", "number 0"]}

CTRL_C = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""
NO_LOCKS = "import sys; sys.modules['fcntl'] = None"


def python(shell: Any, before: str, *arguments: str) -> Any:
    code = f"{before}\nfrom rankr1_rag.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False)


def test_ctrl_c_while_it_loads_ends_it_quietly(shell: Any) -> None:
    done = python(shell, CTRL_C, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_it_works_where_there_are_no_file_locks(shell: Any) -> None:
    shell.write("in.jsonl", [LINE])
    done = python(shell, NO_LOCKS, "rerank", "in.jsonl", "-o", "out.jsonl", *shell.server.options)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in shell.folder.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize("bug", [ValueError, TypeError])
def test_a_bug_of_ours_keeps_its_traceback_and_what_was_done(
    bug: type[Exception], shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shell.write("in.jsonl", [LINE, LINE])
    job = ["rankr1", "rerank", "in.jsonl", "-o", "out.jsonl", "--in-flight", "1", *shell.server.options]

    def broken(report: Report, _: object) -> None:
        report.queries += 1
        if report.queries == 2:
            raise bug("a bug")

    monkeypatch.chdir(shell.folder)
    monkeypatch.setattr(sys, "argv", job)
    monkeypatch.setattr(Report, "take", broken)
    with pytest.raises(bug, match="a bug"):
        main()
    assert "stopped: 1 query done and kept" in capsys.readouterr().err
