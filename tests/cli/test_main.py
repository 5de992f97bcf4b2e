"""The way in: version and help, Ctrl-C while it loads, a system without file locks, and a bug of ours."""

import io
from typing import Any

import pytest
from rich.console import Console

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.cli.report import Job, Report
from tests.cli.conftest import JOB, query

pytestmark = pytest.mark.third_party

CTRL_C = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""
NO_LOCKS = "import sys; sys.modules['fcntl'] = None"


def test_version_and_help_are_enough_to_begin(shell: Any) -> None:
    assert shell.run("--version", model=False).startswith("rankr1 0.")
    assert "rerank" in shell.run("--help", model=False)
    for command in ("rerank", "explain", "demo"):
        assert "--base-url" in shell.run(command, "--help", model=False)


def test_ctrl_c_while_it_loads_ends_it_quietly(shell: Any) -> None:
    with shell.process("--version", before=CTRL_C, model=False) as process:
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def test_it_works_where_there_are_no_file_locks(shell: Any) -> None:
    shell.write(query(0))
    with shell.process(*JOB, before=NO_LOCKS) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert shell.files == {"in.jsonl", "out.jsonl"}


@pytest.mark.parametrize("bug", [ValueError, TypeError])
def test_a_bug_of_ours_keeps_its_traceback_and_what_was_done(
    bug: type[Exception], shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.write(query(0), query(1))

    def broken(report: Report, _: object) -> None:
        report.queries += 1
        if report.queries == 2:
            raise bug("a bug")

    monkeypatch.setattr(Report, "take", broken)
    with pytest.raises(bug, match="a bug"):
        shell.run(*JOB, "--in-flight", "1")
    assert "stopped: 1 query done and kept" in shell.said


def test_verbose_logs_the_queries_that_are_done_and_nothing_else_does(shell: Any) -> None:
    shell.write(query(0), query(1))
    shell.run(*JOB)
    assert "is done" not in shell.said
    shell.run(*JOB, "--overwrite", "--verbose")
    assert "query 'fine0' is done: 1 comparisons in " in shell.said
    assert "query 'fine1' is done: 1 comparisons in " in shell.said
    shell.run(*JOB, "--overwrite")
    assert "is done" not in shell.said


def test_the_bar_counts_comparisons_and_expects_those_of_all_queries() -> None:
    console = Console(force_terminal=True, width=120, color_system=None, file=io.StringIO())
    job = Job(console, 4)
    job.skip()
    backend = job.counted(Scripted(lambda messages: "<think>hm" if len(messages) < 3 else "[1]"))
    reranker = Reranker(backend, k=1, size=2, force="unparsed")
    for answered, shown in ((0, "0/9 0 of 3 queries"), (2, "6/9 2 of 3 queries")):
        with job:
            job.expect(reranker, 4)
            for number in range(answered):
                job.advance(reranker.rank(f"which {number}?", ["a", "b", "c", "d"]).cost.comparisons)
        assert f" {shown}, " in " ".join(console.file.getvalue().split())
    reranker.close()
