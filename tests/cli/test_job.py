"""A job of `rankr1 rerank` that does not go smoothly: what is kept, what is asked again, and what is printed."""

import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import JOB, NO_BYTECODE, best, query
from tests.mortal_server import mortal

pytestmark = pytest.mark.third_party


def ids(shell: Any) -> list[str]:
    return [record["query"]["id"] for record in shell.lines()]


def until(reached: Callable[[], bool], process: Any) -> None:
    """Wait while the process runs."""
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def unfinished(shell: Any, *more: str) -> None:
    """A job of three queries of which the second has failed, and a server that now answers it."""
    shell.write(query(0), query(1, word="poison"), query(2))
    shell.server.failing = "poison"
    shell.run(*JOB, *more, code=1)
    shell.server.failing, shell.server.prompts[:] = "", []


def test_a_query_that_fails_does_not_stop_the_others_and_is_all_that_is_asked_again(shell: Any) -> None:
    unfinished(shell)
    assert "query 'poison1' failed: BackendError" in shell.said
    assert "1 query failed" in shell.said
    with (shell.folder / "out.jsonl.partial").open("a") as file:
        file.write('{"index": 1, "key": "')  # torn by a killed process
    shell.run(*JOB)
    assert all("poison" in prompt for prompt in shell.server.prompts)
    assert [best(record) for record in shell.lines()] == [["d0", "d1"]] * 3
    assert "(2 more done before)" in shell.said
    assert shell.files == {"in.jsonl", "out.jsonl"}


def test_a_job_resumes_with_another_number_of_servers_and_only_with_its_own_settings(shell: Any) -> None:
    unfinished(shell, "--k", "3")
    shell.run(*JOB, "--k", "4", code=2)
    assert "made with other settings (k 3 → 4)" in shell.said
    with mortal() as second:
        shell.run(*JOB, "--k", "3", "--base-url", second.url)
    assert ids(shell) == ["fine0", "poison1", "fine2"]
    assert "2 more done before" in shell.said
    unfinished(shell, "--overwrite")
    shell.run(*JOB, "--k", "4", "--restart", "--overwrite")
    assert len(shell.lines()) == 3
    assert "done before" not in shell.said


def test_a_changed_input_comes_out_as_it_is_now(shell: Any) -> None:
    unfinished(shell)
    shell.write(query(0, note="new"), query(5), query(2))
    shell.run(*JOB)
    assert ids(shell) == ["fine0", "fine5", "fine2"]
    assert [record.get("note") for record in shell.lines()] == ["new", None, None]
    assert len(shell.server.prompts) == 1
    assert "1 record of another input left out" in shell.said


def test_on_failure_first_stage_keeps_the_order_and_says_so(shell: Any) -> None:
    line = query(1, n=12, word="poison")
    shell.write(line)
    shell.server.failing = "poison"
    shell.run(*JOB, "--on-failure", "first_stage")
    (record,) = shell.lines()
    assert best(record, 12) == [passage["id"] for passage in line["passages"]]
    assert record["rankr1"]["failure"].startswith("BackendError")
    assert "1 query with the first-stage order only" in shell.said


def test_a_query_that_ends_early_keeps_its_best_order_and_says_so(shell: Any) -> None:
    shell.write(query(1, n=60))
    shell.run(*JOB, "--budget-tokens", "220", "--k", "3", "--size", "4", "--requests", "1")
    (record,) = shell.lines()
    assert sorted(record["rankr1"]["order"]) == list(range(60))
    assert record["rankr1"]["truncated"]["reason"] == "budget_tokens"
    assert "1 query ended early, with the best order so far" in shell.said
    assert "ended after 220 tokens: 0 selected" in shell.run("explain", "out.jsonl", model=False)
    shell.server.delay = 0.5
    shell.run(*JOB[:2], "-o", "late.jsonl", "--deadline", "0.7", "--k", "3", "--size", "4", "--json")
    (record,) = shell.lines("late.jsonl")
    assert record["rankr1"]["truncated"]["reason"] == "deadline"


def test_queries_that_are_too_long_do_not_mean_that_the_model_is_gone(shell: Any) -> None:
    shell.write(*(query(number, word="long") for number in range(12)), *map(query, range(3)))
    shell.server.failing, shell.server.complaint = "long", "the maximum context length is 10 tokens"
    shell.run(*JOB, "--in-flight", "1", code=1)
    assert "12 queries failed" in shell.said
    assert "in a row" not in shell.said
    assert sum("fine" in prompt for prompt in shell.server.prompts) == 3


def test_a_query_that_fails_names_the_options_of_the_command_line(shell: Any) -> None:
    shell.write(query(0))
    for command, code in ((JOB, 1), (["explain", "in.jsonl"], 2)):
        shell.run(*command, "--context", "100", code=code)
        assert "a context of 100 tokens" in shell.said
        assert " --context " in shell.said


def test_a_rerun_is_not_stuck_where_the_last_one_gave_up_and_every_job_can_be_finished(shell: Any) -> None:
    poison = [query(number, word="poison") for number in range(24)]
    shell.write(*poison[:12], *map(query, range(3)), *poison[12:])
    shell.server.failing = "poison"
    shell.run(*JOB, "--in-flight", "1", code=1)
    assert "stopped after 10 in a row" in shell.said
    assert not any("fine" in prompt for prompt in shell.server.prompts)
    shell.run(*JOB, "--in-flight", "1", code=1)
    assert sum("fine" in prompt for prompt in shell.server.prompts) == 3
    assert "in a row" not in shell.said
    shell.run(*JOB, "--on-failure", "first_stage")
    assert len(shell.lines()) == 27
    assert "24 queries with the first-stage order only" in shell.said


@pytest.mark.parametrize(
    ("bad", "to", "problem"),
    [({"query": "q", "passages": 7}, "jsonl", "-:3:"), (query(0), "trec", "'fine0' is a duplicate")],
    ids=["malformed", "no run can hold it"],
)
def test_a_bad_line_of_a_stream_ends_it_and_what_was_done_before_is_kept(
    bad: object, to: str, problem: str, shell: Any
) -> None:
    text, more = ("".join(json.dumps(line) + "\n" for line in (query(0), query(1), last)) for last in (bad, query(2)))
    printed = shell.run("rerank", "-", "--to", to, code=2, input=text)
    assert "fine0" in printed
    assert "fine1" in printed
    shell.run("rerank", "-", "-o", "out.jsonl", "--to", to, code=2, input=text)
    assert problem in shell.said
    assert "stopped: 2 queries done and kept" in shell.said
    shell.server.prompts.clear()
    shell.run("rerank", "-", "-o", "out.jsonl", "--to", "jsonl", input=more)
    assert ids(shell) == ["fine0", "fine1", "fine2"]
    assert len(shell.server.prompts) == 1


def test_a_file_of_the_user_is_not_overwritten_by_accident(shell: Any) -> None:
    shell.write(query(0))
    for name, problem in (
        ("out.jsonl.partial", "not the records of 'rankr1 rerank': move it away"),
        ("out.jsonl", "out.jsonl exists"),
    ):
        (shell.folder / name).write_text("precious\n")
        shell.run(*JOB, code=2)
        assert problem in shell.said
        assert (shell.folder / name).read_text() == "precious\n"
    (shell.folder / "out.jsonl.partial").unlink()
    shell.run(*JOB, "--overwrite")
    assert len(shell.lines()) == 1


def test_a_store_that_cannot_be_saved_withholds_no_result(
    shell: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
    shell.write(query(0))
    answer = shell.server.judge

    def breaking(messages: Any) -> str:
        with sqlite3.connect(shell.folder / "store.sqlite") as store:
            store.execute("DROP TABLE completions")
        store.close()
        return str(answer(messages))

    shell.server.judge = breaking
    shell.run(*JOB, "--k", "1", "--store", "store.sqlite", code=1)
    assert "1 completions were returned but not saved" in shell.said
    assert "1 query in" in shell.said
    assert ids(shell) == ["fine0"]
    assert "out.jsonl.partial" not in shell.files


def test_a_journal_that_cannot_be_written_is_named_and_keeps_what_it_has(shell: Any) -> None:
    shell.write(*map(query, range(20)))
    limit = f"{NO_BYTECODE}; import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))"
    with shell.process(*JOB, "--in-flight", "1", before=limit) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: out.jsonl.partial: File too large" in said
    assert "done and kept, the same command resumes" in said
    shell.run(*JOB)
    assert len(shell.lines()) == 20
    assert "more done before" in shell.said


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_job_that_was_ended_resumes_with_the_same_command_and_asks_nothing_twice(
    shell: Any, by: signal.Signals
) -> None:
    shell.write(*(query(number, n=20) for number in range(6)))
    job = [*JOB, "--in-flight", "2", "--size", "5"]
    shell.server.delay = 0.01
    with shell.process(*job) as process:
        until(lambda: len(shell.server.prompts) >= 70, process)
        process.send_signal(by)
        _, said = process.communicate(timeout=30)
    assert process.returncode == (130 if by == signal.SIGINT else -signal.SIGKILL), said
    assert "Traceback" not in said
    assert ("the same command resumes" in said.replace("\n", " ")) == (by == signal.SIGINT)
    assert "out.jsonl" not in shell.files
    shell.server.delay = 0
    shell.run(*job)
    assert [best(record, 10) for record in shell.lines()] == [[f"d{rank}" for rank in range(10)]] * 6
    comparisons = sum(record["rankr1"]["cost"]["comparisons"] for record in shell.lines())
    assert len(shell.server.prompts) - comparisons <= 10  # those that were open
    assert shell.files == {"in.jsonl", "out.jsonl"}


def test_a_job_that_failed_in_its_first_query_keeps_what_was_answered_unless_it_restarts(shell: Any) -> None:
    shell.write(query(0, n=20))
    judge, job = shell.server.judge, [*JOB, "--size", "5", "--requests", "1"]

    def breaking(messages: Any) -> str:
        shell.server.failing = "number" if len(shell.server.prompts) > 9 else ""
        return str(judge(messages))

    def asked(*more: str, code: int = 0) -> int:
        shell.server.failing, shell.server.prompts[:] = "", []
        shell.run(*job, *more, code=code)
        return len(shell.server.prompts)

    shell.server.judge = breaking
    answered = asked(code=1) - 1
    shell.server.judge = judge
    assert asked("--size", "1", code=2) == 0  # refused, and nothing is lost
    comparisons = asked() + answered
    assert shell.lines()[0]["rankr1"]["cost"]["comparisons"] == comparisons
    shell.server.judge = breaking
    asked("--overwrite", code=1)
    shell.server.judge = judge
    assert asked("--overwrite", "--restart") == comparisons
    assert shell.files == {"in.jsonl", "out.jsonl"}


def test_a_store_of_the_user_stays_and_a_file_in_the_place_of_the_job_s_own_is_not_touched(shell: Any) -> None:
    shell.write(query(0))
    shell.run(*JOB, "--store", "mine.sqlite")
    assert shell.files == {"in.jsonl", "out.jsonl", "mine.sqlite"}
    place = shell.folder / "out.jsonl.partial.sqlite"
    place.write_text("precious")
    for more in ("--overwrite", "--restart"):
        shell.run(*JOB, "--overwrite", more)
        assert "completions are not kept" in shell.said
        assert place.read_text() == "precious"
    place.unlink()
    place.mkdir()
    shell.run(*JOB, "--overwrite", "--restart")
    assert "completions are not kept" in shell.said
    assert place.is_dir()


def test_a_result_comes_out_before_the_next_line_comes_in_and_ctrl_c_ends_the_wait(shell: Any) -> None:
    with shell.process("rerank", "-") as process:
        late = threading.Timer(60, process.kill)
        late.start()
        for number in range(2):
            process.stdin.write(json.dumps(query(number)) + "\n")
            process.stdin.flush()
            assert best(json.loads(process.stdout.readline())) == ["d0", "d1"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        late.cancel()
        said = process.stderr.read()
    assert "Traceback" not in said
    assert "Fatal" not in said


def test_a_reader_that_goes_away_ends_it_quietly(shell: Any) -> None:
    shell.write(*map(query, range(50)))
    with shell.process("rerank", "in.jsonl") as process:
        assert json.loads(process.stdout.readline())["passages"]
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_two_processes_do_not_write_one_output_and_restart_does_not_change_that(shell: Any) -> None:
    shell.write(*map(query, range(3)))
    held, judge = threading.Event(), shell.server.judge
    shell.server.judge = lambda messages: (held.wait(60), judge(messages))[1]
    with shell.process(*JOB) as first:
        until(lambda: bool(shell.server.prompts), first)
        shell.run(*JOB, "--restart", code=2)
        assert "another process is at work" in shell.said
        held.set()
        assert first.wait(60) == 0
    assert len(shell.lines()) == 3


def test_a_job_on_two_servers_outlives_one_of_them(shell: Any) -> None:
    ranks = [f"number {number}" for number in range(12)]
    shell.write(*({"query": f"which {n}?", "passages": ranks[n:] + ranks[:n]} for n in range(12)))
    shell.server.delay = 0.01
    job = [*JOB, "--size", "4", "--in-flight", "4", "--json"]
    with mortal(delay=0.01) as second, shell.process(*job, "--base-url", second.url) as process:
        until(lambda: second.asked >= 15, process)
        second.kill()
        summary, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert json.loads(summary)["queries"] == 12
    assert said.count(" is out for ") == 1
    assert f"{second.url} cannot be reached or broke off" in said
    assert [record["passages"][0]["text"] for record in shell.lines()] == ["number 0"] * 12
    assert len(shell.server.prompts) > 30
    assert "out.jsonl.partial" not in shell.files
