"""`rankr1 rerank`: what goes in comes out, reranked, whatever happens on the way."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag.cli import main
from rankr1_rag.io.trec import read_run

pytestmark = pytest.mark.third_party


def query(number: int, n: int = 12, word: str = "which") -> dict[str, Any]:
    ranks = random.Random(number).sample(range(n), n)
    return {
        "query": {"id": f"q{number}", "text": f"{word} {number}?", "hops": 2},
        "passages": [{"id": f"d{rank}", "text": f"number {rank}", "url": f"u{rank}"} for rank in ranks],
        "note": number,
    }


def best(record: dict[str, Any], k: int = 3) -> list[str]:
    return [passage["id"] for passage in record["passages"][:k]]


def test_json_lines_come_out_in_their_order_with_all_that_they_held(shell: Any) -> None:
    given = [query(number) for number in range(5)]
    shell.write("in.jsonl", given)
    shell.run("rerank", "in.jsonl", "--out", "out.jsonl", "--k", "3", "--size", "5")
    results = shell.lines("out.jsonl")
    for before, after in zip(given, results, strict=True):
        assert best(after) == ["d0", "d1", "d2"]
        assert after["query"] == before["query"]
        assert after["note"] == before["note"]
        assert sorted(p["url"] for p in after["passages"]) == sorted(p["url"] for p in before["passages"])
        assert after["rankr1"]["trace"]
        assert [p["rank"] for p in after["passages"]] == list(range(1, 13))
    assert "5 queries in" in shell.said
    assert not (shell.folder / "out.jsonl.partial").exists()


def test_the_summary_adds_up(shell: Any) -> None:
    shell.write("in.jsonl", [query(number) for number in range(4)])
    summary = json.loads(shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--json", "--no-trace"))
    costs = [record["rankr1"]["cost"] for record in shell.lines("out.jsonl")]
    assert summary["queries"] == 4
    assert summary["cost"]["comparisons"] == sum(cost["comparisons"] for cost in costs) == len(shell.server.prompts)
    assert summary["cost"]["prompt_tokens"] == 100 * len(shell.server.prompts)
    assert "trace" not in shell.lines("out.jsonl")[0]["rankr1"]


def test_candidates_beyond_the_depth_follow_as_they_were(shell: Any) -> None:
    shell.write("in.jsonl", [query(1)])
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--depth", "4", "--k", "4")
    given, (after,) = query(1)["passages"], shell.lines("out.jsonl")
    assert best(after, 4) == sorted((p["id"] for p in given[:4]), key=lambda id: int(id[1:]))
    assert best(after, 12)[4:] == [p["id"] for p in given[4:]]


def test_it_reads_standard_input_and_writes_standard_output(shell: Any) -> None:
    out = shell.run("rerank", "-", "--k", "2", input=json.dumps({"query": "q", "passages": ["number 1", "number 0"]}))
    assert best(json.loads(out), 2) == ["1", "0"]


def trec(shell: Any, n: int = 30, queries: int = 3) -> dict[str, list[int]]:
    orders = {f"q{number}": random.Random(number).sample(range(n), n) for number in range(queries)}
    lines = [
        f"{id} Q0 d{rank} {place} {100 - place} bm25"
        for id, order in orders.items()
        for place, rank in enumerate(order, 1)
    ]
    (shell.folder / "run.trec").write_text("\n".join(lines) + "\n")
    (shell.folder / "queries.tsv").write_text("".join(f"{id}\twhich {id}?\n" for id in orders))
    shell.write("passages.jsonl", [{"docid": f"d{rank}", "text": f"number {rank}"} for rank in range(n)])
    return orders


RUN = ["rerank", "--run", "run.trec", "--queries", "queries.tsv", "--passages", "passages.jsonl"]


def test_a_trec_run_keeps_all_its_lines(shell: Any) -> None:
    orders = trec(shell)
    shell.run(*RUN, "--out", "new.trec", "--depth", "20", "--k", "5", "--tag", "mine")
    run = read_run(shell.folder / "new.trec")
    for id, order in orders.items():
        ids = [scored.id for scored in run[id]]
        assert ids[:5] == [f"d{rank}" for rank in sorted(order[:20])[:5]]
        assert ids[20:] == [f"d{rank}" for rank in order[20:]]
        assert sorted(ids) == sorted(f"d{rank}" for rank in order)
    assert (shell.folder / "new.trec").read_text().splitlines()[0].endswith(" mine")


def test_a_trec_run_can_go_out_as_json_lines(shell: Any) -> None:
    trec(shell, n=5, queries=1)
    shell.run(*RUN, "-o", "new.jsonl", "--to", "jsonl")
    assert best(shell.lines("new.jsonl")[0]) == ["d0", "d1", "d2"]


def test_a_run_whose_texts_are_missing_says_which(shell: Any) -> None:
    trec(shell)
    shell.write("passages.jsonl", [{"docid": "d1", "text": "number 1"}])
    shell.run(*RUN, "-o", "new.trec", code=2)
    assert "passages.jsonl: lacks 29 of the passages in run.trec, for example d0, d10, d11: add" in shell.said


def test_a_malformed_line_of_a_file_is_named_before_anything_is_asked(shell: Any) -> None:
    shell.write("in.jsonl", [query(0), query(1), {"query": "q", "passages": 7}])
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", code=2)
    assert "in.jsonl:3:" in shell.said
    assert "stopped" not in shell.said
    assert shell.server.prompts == []
    assert {path.name for path in shell.folder.iterdir()} == {"in.jsonl"}


def test_a_malformed_line_of_a_stream_is_named_and_what_was_done_before_is_kept(shell: Any) -> None:
    good = "".join(json.dumps(query(number)) + "\n" for number in range(2))
    shell.run("rerank", "-", "-o", "out.jsonl", code=2, input=good + '{"query": "q", "passages": 7}\n')
    assert "-:3:" in shell.said
    assert "stopped: 2 queries done and kept" in shell.said
    asked = len(shell.server.prompts)
    shell.run("rerank", "-", "-o", "out.jsonl", input=good + json.dumps(query(2)))
    assert len(shell.lines("out.jsonl")) == 3
    assert not any("which 0" in prompt or "which 1" in prompt for prompt in shell.server.prompts[asked:])


def test_a_query_that_fails_does_not_stop_the_others_and_is_all_that_is_asked_again(shell: Any) -> None:
    shell.write("in.jsonl", [query(0), query(1, word="poison"), query(2)])
    shell.server.failing = ["poison"]
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", code=1)
    assert "query 'q1' failed: BackendError" in shell.said
    assert "1 query failed" in shell.said
    shell.server.failing, shell.server.prompts[:] = [], []
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl")
    assert all("poison" in prompt for prompt in shell.server.prompts)
    assert [best(record) for record in shell.lines("out.jsonl")] == [["d0", "d1", "d2"]] * 3
    assert "(2 more done before)" in shell.said


def test_on_failure_first_stage_keeps_the_order_and_says_so(shell: Any) -> None:
    shell.write("in.jsonl", [query(1, word="poison")])
    shell.server.failing = ["poison"]
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--on-failure", "first_stage")
    (record,) = shell.lines("out.jsonl")
    assert best(record) == [p["id"] for p in query(1)["passages"][:3]]
    assert record["rankr1"]["failure"].startswith("BackendError")
    assert "1 query with the first-stage order only" in shell.said


def test_a_server_that_is_gone_ends_the_job_early(shell: Any) -> None:
    shell.write("in.jsonl", [query(number, word="poison") for number in range(40)])
    shell.server.failing = ["poison"]
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--in-flight", "2", code=1)
    assert "stopped after 10 in a row" in shell.said
    assert len(shell.server.prompts) < 30


def interrupt(shell: Any, *arguments: str, after: int) -> None:
    """Ctrl-C once the server was asked so often."""
    with subprocess.Popen(shell.command(*arguments), cwd=shell.folder, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while len(shell.server.prompts) < after and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "the same command resumes" in errors.replace("\n", " ")


@pytest.mark.parametrize("extra", [[], ["--store", "store.sqlite"]])
def test_after_ctrl_c_the_same_command_goes_on_where_it_was(shell: Any, extra: list[str]) -> None:
    shell.write("in.jsonl", [query(number, n=20) for number in range(6)])
    job = ["rerank", "in.jsonl", "-o", "out.jsonl", "--in-flight", "2", "--size", "5", *extra]
    shell.server.delay = 0.01
    interrupt(shell, *job, after=70)
    assert not (shell.folder / "out.jsonl").exists()
    shell.server.delay = 0
    shell.run(*job)
    results = shell.lines("out.jsonl")
    assert [best(record, 10) for record in results] == [[f"d{rank}" for rank in range(10)]] * 6
    comparisons = sum(record["rankr1"]["cost"]["comparisons"] for record in results)
    asked_twice = len(shell.server.prompts) - comparisons
    assert asked_twice <= (10 if extra else comparisons // 3)


def test_a_job_goes_on_only_with_its_own_settings(shell: Any) -> None:
    shell.write("in.jsonl", [query(0), query(1, word="poison")])
    shell.server.failing = ["poison"]
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--k", "3", code=1)
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--k", "4", code=2)
    assert "made with other settings (k 3 → 4)" in shell.said
    shell.server.failing = []
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--k", "4", "--restart")
    assert len(shell.lines("out.jsonl")) == 2


def test_a_journal_torn_by_a_killed_process_loses_only_its_last_line(shell: Any) -> None:
    shell.write("in.jsonl", [query(0), query(1, word="poison")])
    shell.server.failing = ["poison"]
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", code=1)
    with (shell.folder / "out.jsonl.partial").open("a") as file:
        file.write('{"index": 1, "key": "')
    shell.server.failing, shell.server.prompts[:] = [], []
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl")
    assert all("poison" in prompt for prompt in shell.server.prompts)
    assert len(shell.lines("out.jsonl")) == 2


def test_what_is_no_journal_is_not_touched(shell: Any) -> None:
    shell.write("in.jsonl", [query(0)])
    (shell.folder / "out.jsonl.partial").write_text("my notes\n")
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", code=2)
    assert "not the records of 'rankr1 rerank': move it away" in shell.said
    assert (shell.folder / "out.jsonl.partial").read_text() == "my notes\n"


def test_a_finished_result_is_not_overwritten_by_accident(shell: Any) -> None:
    shell.write("in.jsonl", [query(0)])
    (shell.folder / "out.jsonl").write_text("precious")
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", code=2)
    assert "out.jsonl exists" in shell.said
    assert (shell.folder / "out.jsonl").read_text() == "precious"
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--overwrite")
    assert len(shell.lines("out.jsonl")) == 1


def test_two_processes_do_not_write_one_output_and_restart_does_not_change_that(shell: Any) -> None:
    shell.write("in.jsonl", [query(number, n=3) for number in range(3)])
    job = ["rerank", "in.jsonl", "-o", "out.jsonl"]
    held, judge = threading.Event(), shell.server.judge
    shell.server.judge = lambda messages: (held.wait(60), judge(messages))[1]
    with subprocess.Popen(shell.command(*job), cwd=shell.folder, stderr=subprocess.DEVNULL) as first:
        while not shell.server.prompts:
            time.sleep(0.02)
        shell.run(*job, "--restart", code=2)
        assert "another process is at work" in shell.said
        held.set()
        assert first.wait(60) == 0
    assert len(shell.lines("out.jsonl")) == 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["rerank", "in.jsonl", "-o", "in.jsonl", "--overwrite"], "in.jsonl is an input"),
        (["rerank", "empty.jsonl", "-o", "out.jsonl"], "empty.jsonl:1: the query '1' is empty"),
        (["rerank", "in.jsonl", "-o", "no/x.jsonl"], "error: no/x.jsonl: the folder no does not exist: create it"),
        (["explain", "in.jsonl", "--html", "no/x.html"], "error: no/x.html: the folder no does not exist: create it"),
        (["explain", "in.jsonl", "-q", "z"], "in.jsonl: no query has the id 'z': the first ids are 'q0'"),
        (["rerank", "missing.jsonl"], "missing.jsonl: No such file"),
        (["rerank", "--run", "x"], "--run needs --queries and --passages"),
        (["rerank", "in.jsonl", "--run", "x"], "one input is needed"),
        (["rerank", "in.jsonl", "--queries", "x"], "belong to --run"),
        (["rerank", "in.jsonl", "--k", "0"], "error: --k 0: a whole number"),
        (["rerank", "in.jsonl", "--size", "21"], "--size 21"),
        (["rerank", "in.jsonl", "--format", "r2"], "--format 'r2': one of"),
        (["rerank", "in.jsonl", "--algorithm", "window"], "needs a listwise format"),
        (["rerank", "in.jsonl", "--json"], "use --out"),
        (["rerank", "in.jsonl", "--store", "/proc/none"], "/proc/none cannot be created"),
        (["rerank", "in.jsonl", "--json", "-o", "/dev/stdout"], "use --out"),
        (["rerank", "in.jsonl", "-o", "out.jsonl", "--server", "vlm"], "vlm"),
        (["rerank", "in.jsonl", "-o", "out.jsonl", "--context", "0"], "--context 0"),
        (["rerank", "in.jsonl", "-o", "out.jsonl", "--context", "-5"], "--context -5"),
        (["rerank", "in.jsonl", "-o", "out.jsonl", "--timeout", "-1"], "--timeout -1"),
        (["rerank", "in.jsonl", "-o", "out.jsonl", "--timeout", "nan"], "--timeout nan"),
        (["rerank", "in.jsonl", "-o", "out.jsonl", "--to", "trec", "--tag", "my run"], "tag 'my run' is not one word"),
    ],
)
def test_a_wrong_argument_is_told_in_a_line(
    arguments: list[str], problem: str, shell: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shell.write("in.jsonl", [query(0)])
    shell.write("empty.jsonl", [{"query": " ", "passages": ["one", "two"]}])
    monkeypatch.chdir(shell.folder)
    monkeypatch.setattr(sys, "argv", ["rankr1", *arguments, *shell.server.options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == (1 if "--store" in arguments else 2)
    said = " ".join(capsys.readouterr().err.split())
    assert problem in said
    assert "stopped" not in said
    assert shell.server.prompts == []
    assert {path.name for path in shell.folder.iterdir()} == {"in.jsonl", "empty.jsonl"}


@pytest.mark.parametrize(
    ("model", "problem"), [("nowhere.gguf", "nowhere.gguf"), ("in.jsonl", "in.jsonl")], ids=["missing", "no model"]
)
def test_a_wrong_model_path_is_told_before_anything_is_done(model: str, problem: str, shell: Any) -> None:
    pytest.importorskip("openvino_genai", reason="the embedded backend is not installed")
    shell.write("in.jsonl", [query(0)])
    shell.run("rerank", "in.jsonl", "--model", model, code=2 if model == "nowhere.gguf" else 1, model=False)
    assert problem in shell.said


def test_a_reader_that_goes_away_ends_it_quietly(shell: Any) -> None:
    shell.write("in.jsonl", [query(number) for number in range(50)])
    command = " ".join([*shell.command("rerank", "in.jsonl"), "|", "head", "-n", "1"])
    done = subprocess.run(
        command, shell=True, cwd=shell.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert json.loads(done.stdout)["passages"]
    assert "Traceback" not in done.stderr


def test_hostile_ids_and_texts_steer_no_terminal(shell: Any, tmp_path: Path) -> None:
    evil = "\x1b[31m[bold]x[/nope]\x07"
    shell.write("in.jsonl", [{"query": {"id": evil, "text": evil}, "passages": [evil + " 1", evil + " 0"]}])
    shell.server.failing = ["bold"]
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", code=1)
    assert "\x1b" not in shell.result.stderr
    assert "[bold]x[/nope]" in shell.said
