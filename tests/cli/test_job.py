"""A job of `rankr1 rerank` that does not go smoothly: what is kept, what is asked again, and what is told."""

import json
import sqlite3
import subprocess
import time
from typing import Any

import pytest

from tests.mortal_server import mortal

pytestmark = pytest.mark.third_party


def lines(numbers: range, word: str = "fine", note: str = "") -> list[dict[str, Any]]:
    return [
        {"query": {"id": f"{word}{number}", "text": f"{word} {number}?"}, "passages": ["number 2", "number 1"]}
        | ({"note": note} if note else {})
        for number in numbers
    ]


def ids(shell: Any, name: str) -> list[str]:
    return [record["query"]["id"] for record in shell.lines(name)]


JOB = ["rerank", "in.jsonl", "-o", "out.jsonl"]


def test_a_changed_input_comes_out_as_it_is_now(shell: Any) -> None:
    old = lines(range(3))
    shell.write("in.jsonl", [*old, *lines(range(1), "poison")])
    shell.server.failing = ["poison"]
    shell.run(*JOB, code=1)
    shell.server.prompts.clear()
    now = [lines(range(1), note="new")[0], old[1]]
    shell.write("in.jsonl", now)
    shell.run(*JOB)
    assert ids(shell, "out.jsonl") == ["fine0", "fine1"]
    assert [record.get("note") for record in shell.lines("out.jsonl")] == ["new", None]
    assert len(shell.server.prompts) == 1
    assert "2 records of another input left out" in shell.said


def test_queries_that_are_too_long_do_not_mean_that_the_model_is_gone(shell: Any) -> None:
    shell.write("in.jsonl", lines(range(12), "long") + lines(range(3)))
    shell.server.failing, shell.server.complaint = ["long"], "the maximum context length is 10 tokens"
    shell.run(*JOB, "--in-flight", "1", code=1)
    assert "12 queries failed" in shell.said
    assert "in a row" not in shell.said
    assert sum("fine" in prompt for prompt in shell.server.prompts) == 3


def test_a_rerun_is_not_stuck_where_the_last_one_gave_up_and_every_job_can_be_finished(shell: Any) -> None:
    shell.write("in.jsonl", lines(range(12), "poison") + lines(range(3)) + lines(range(20, 32), "poison"))
    shell.server.failing = ["poison"]
    shell.run(*JOB, "--in-flight", "1", code=1)
    assert "stopped after 10 in a row" in shell.said
    assert not any("fine" in prompt for prompt in shell.server.prompts)
    shell.run(*JOB, "--in-flight", "1", code=1)
    assert sum("fine" in prompt for prompt in shell.server.prompts) == 3
    assert "in a row" not in shell.said
    shell.run(*JOB, "--on-failure", "first_stage")
    assert len(shell.lines("out.jsonl")) == 27
    assert "24 queries with the first-stage order only" in shell.said


def test_a_wrong_argument_does_not_stand_in_the_way_of_the_right_one(shell: Any) -> None:
    shell.write("in.jsonl", lines(range(1)))
    shell.run(*JOB, "--base-url", "http://127.0.0.1:9/v1", code=2, model=False)
    assert "--backend 'openai' needs --model" in shell.said
    assert "stopped" not in shell.said
    assert [path.name for path in shell.folder.iterdir()] == ["in.jsonl"]
    shell.run(*JOB)


def test_a_job_on_two_servers_outlives_one_of_them(shell: Any) -> None:
    ranks = [f"number {number}" for number in range(12)]
    shell.write("in.jsonl", [{"query": f"which {n}?", "passages": ranks[n:] + ranks[:n]} for n in range(12)])
    shell.server.delay = 0.01
    with mortal(delay=0.01) as second:
        command = shell.command(*JOB, "--base-url", second.url, "--size", "4", "--in-flight", "4", "--json")
        with subprocess.Popen(command, cwd=shell.folder, stdout=-1, stderr=-1, text=True) as process:
            while second.asked < 15:
                assert process.poll() is None
                time.sleep(0.02)
            second.kill()
            summary, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert json.loads(summary)["queries"] == 12
    assert said.count(" is out for ") == 1
    assert f"{second.url} cannot be reached or broke off" in said
    assert [record["passages"][0]["text"] for record in shell.lines("out.jsonl")] == ["number 0"] * 12
    assert len(shell.server.prompts) > 30
    assert not (shell.folder / "out.jsonl.partial").exists()


def test_a_job_goes_on_with_another_number_of_servers(shell: Any) -> None:
    shell.write("in.jsonl", lines(range(1)) + lines(range(1), "poison"))
    shell.server.failing = ["poison"]
    shell.run(*JOB, code=1)
    shell.server.failing = []
    with mortal() as second:
        shell.run(*JOB, "--base-url", second.url)
    assert ids(shell, "out.jsonl") == ["fine0", "poison0"]
    assert "1 more done before" in shell.said


def test_a_server_given_twice_is_told_before_anything_is_asked(shell: Any) -> None:
    shell.write("in.jsonl", lines(range(1)))
    url = shell.server.options[3]
    shell.run(*JOB, "--base-url", url + "/", code=2)
    assert f"base_url lists {url} more than once" in shell.said
    assert shell.server.prompts == []


def test_a_store_that_cannot_be_saved_withholds_no_result(shell: Any) -> None:
    shell.write("in.jsonl", lines(range(1)))
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
    assert ids(shell, "out.jsonl") == ["fine0"]
    assert not (shell.folder / "out.jsonl.partial").exists()


def test_a_journal_that_cannot_be_written_is_named_and_keeps_what_it_has(shell: Any) -> None:
    shell.write("in.jsonl", lines(range(20)))
    shell.run(*JOB, "--in-flight", "1", code=1, before="ulimit -f 8")
    assert "error: out.jsonl.partial: File too large" in shell.said
    assert "done and kept, the same command resumes" in shell.said
    shell.run(*JOB)
    assert len(shell.lines("out.jsonl")) == 20
    assert "more done before" in shell.said


RUN = [*JOB[:3], "out.trec", "--to", "trec"]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"query": {"id": "fine0", "text": "again?"}}, "query 'fine0' is a duplicate"),
        ({"query": {"id": "two words", "text": "?"}}, "query id 'two words' is not one word"),
        ({"passages": [{"id": "d", "text": "1"}, {"id": "d", "text": "2"}]}, "passage id 'd' is ranked twice"),
    ],
    ids=["query twice", "not a word", "passage twice"],
)
def test_ids_that_no_run_can_hold_are_told_before_anything_is_asked(
    bad: dict[str, Any], problem: str, shell: Any
) -> None:
    shell.write("in.jsonl", [*lines(range(2)), lines(range(2, 3))[0] | bad])
    shell.run(*RUN, code=2)
    assert "in.jsonl:3: " in shell.said
    assert problem in shell.said
    assert "--to jsonl takes any ids" in shell.said
    assert shell.server.prompts == []


def test_of_a_stream_all_is_kept_that_came_before_such_ids_and_json_lines_save_it(shell: Any) -> None:
    stream = shell.folder / "in.jsonl"
    shell.write("in.jsonl", lines(range(2)) + lines(range(1)))
    text = stream.read_text()
    printed = shell.run("rerank", "-", "--to", "trec", code=2, input=text)
    assert sorted({line.split()[0] for line in printed.splitlines()}) == ["fine0", "fine1"]
    shell.run("rerank", "-", "-o", "out", "--to", "trec", code=2, input=text)
    assert "stopped: 2 queries done and kept" in shell.said
    shell.server.prompts.clear()
    shell.run("rerank", "-", "-o", "out", "--to", "jsonl", input=text)
    assert len(shell.server.prompts) == 1
    assert len(shell.lines("out")) == 3


def test_a_query_without_candidates_has_no_line_in_a_run_and_stops_nothing(shell: Any) -> None:
    shell.write("in.jsonl", [{"query": "empty", "passages": []}, *lines(range(2))])
    printed = shell.run("rerank", "in.jsonl", "--to", "trec")
    shell.run(*RUN)
    for run in (printed, (shell.folder / "out.trec").read_text()):
        assert sorted(line.split()[0] for line in run.splitlines()) == ["fine0"] * 2 + ["fine1"] * 2
