"""`rankr1 rerank` in one go: what goes in comes out, reranked; what is wrong is refused before anything is asked."""

import json
import os
import random
import threading
from typing import Any

import pytest

from rankr1_rag.io.trec import read_run
from tests.cli.conftest import JOB, best, query

pytestmark = pytest.mark.third_party

TREC = [*JOB[:3], "out.trec", "--to", "trec"]
RUN = ["rerank", "--run", "run.trec", "--queries", "queries.tsv", "--passages", "passages.jsonl"]
LINE = json.dumps(query(1)) + "\n"


def test_json_lines_come_out_in_their_order_with_all_that_they_held_and_a_summary_that_adds_up(shell: Any) -> None:
    queries = [query(number, n=12, note=number) for number in range(5)]
    shell.write(*queries)
    summary = json.loads(shell.run(*JOB, "--k", "3", "--size", "5", "--json"))
    for before, after in zip(queries, shell.lines(), strict=True):
        assert best(after) == ["d0", "d1", "d2"]
        assert (after["query"], after["note"]) == (before["query"], before["note"])
        assert sorted(p["url"] for p in after["passages"]) == sorted(p["url"] for p in before["passages"])
        assert after["rankr1"]["trace"]
        assert [p["rank"] for p in after["passages"]] == list(range(1, 13))
    comparisons = sum(record["rankr1"]["cost"]["comparisons"] for record in shell.lines())
    assert summary["queries"] == 5
    assert summary["cost"]["comparisons"] == comparisons == len(shell.server.prompts)
    assert summary["cost"]["prompt_tokens"] == 100 * comparisons
    assert shell.files == {"in.jsonl", "out.jsonl"}


def test_candidates_beyond_the_depth_follow_as_they_were(shell: Any) -> None:
    shell.write(query(1, n=12))
    shell.run(*JOB, "--depth", "4", "--k", "4", "--no-trace")
    order, (after,) = [passage["id"] for passage in query(1, n=12)["passages"]], shell.lines()
    assert best(after, 12) == sorted(order[:4], key=lambda id: int(id[1:])) + order[4:]
    assert "trace" not in after["rankr1"]


def trec(shell: Any, n: int, queries: int) -> dict[str, list[int]]:
    """A run with its texts."""
    orders = {f"q{number}": random.Random(number).sample(range(n), n) for number in range(queries)}
    lines = [
        f"{id} Q0 d{rank} {place} {100 - place} bm25\n"
        for id, order in orders.items()
        for place, rank in enumerate(order, 1)
    ]
    (shell.folder / "run.trec").write_text("".join(lines))
    (shell.folder / "queries.tsv").write_text("".join(f"{id}\twhich {id}?\n" for id in orders))
    shell.write(*({"docid": f"d{rank}", "text": f"number {rank}"} for rank in range(n)), name="passages.jsonl")
    return orders


def test_a_trec_run_keeps_all_its_lines(shell: Any) -> None:
    orders = trec(shell, n=30, queries=3)
    shell.run(*RUN, "--out", "new.trec", "--depth", "20", "--k", "5", "--tag", "mine")
    run = read_run(shell.folder / "new.trec")
    for id, order in orders.items():
        ids = [scored.id for scored in run[id]]
        assert ids[:5] == [f"d{rank}" for rank in sorted(order[:20])[:5]]
        assert ids[20:] == [f"d{rank}" for rank in order[20:]]
        assert sorted(ids) == sorted(f"d{rank}" for rank in order)
    assert (shell.folder / "new.trec").read_text().splitlines()[0].endswith(" mine")


def test_the_nearest_of_a_run_of_distances_are_reranked(shell: Any, caplog: pytest.LogCaptureFixture) -> None:
    trec(shell, n=9, queries=1)
    lines = [f"q0 Q0 d{rank} {rank + 1} {rank / 10} faiss\n" for rank in range(9)]
    (shell.folder / "run.trec").write_text("".join(lines))
    for options, first in (([], "d6"), (["--distances"], "d0")):
        shell.run(*RUN, "--out", "new.trec", "--overwrite", "--depth", "3", "--k", "1", *options)
        assert read_run(shell.folder / "new.trec")["q0"][0].id == first
    (problem,) = caplog.messages
    assert problem.startswith("run.trec: query 'q0': its first-stage scores rise from the first candidate to the last")
    assert "(--distances)" in problem


def test_the_lines_of_rankllm_come_out_in_their_shape_or_as_a_run(shell: Any) -> None:
    candidates = [
        {"docid": f"d{rank}", "score": 9 - place, "doc": {"title": "", "segment": f"number {rank}"}}
        for place, rank in enumerate((3, 0, 2, 1))
    ]
    line = {"query": {"qid": "q7", "text": "which q7?"}, "candidates": candidates}
    shell.write(line)
    shell.run(*JOB, "--k", "2")
    (after,) = shell.lines()
    assert (after["query"], [one["docid"] for one in after["candidates"]]) == (line["query"], ["d0", "d1", "d3", "d2"])
    assert after["candidates"][0] == {**candidates[1], "score": 1.0, "rank": 1, "retrieval_score": 8}
    shell.run(*TREC, "--k", "2")
    assert [one.id for one in read_run(shell.folder / "out.trec")["q7"]] == ["d0", "d1", "d3", "d2"]
    shell.run("explain", "out.jsonl", "--query", "q7")


def test_a_trec_run_can_go_out_as_json_lines_and_lacks_no_text(shell: Any) -> None:
    trec(shell, n=5, queries=1)
    shell.run(*RUN, "-o", "out.jsonl", "--to", "jsonl")
    assert best(shell.lines()[0]) == ["d0", "d1", "d2"]
    shell.write({"docid": "d1", "text": "number 1"}, name="passages.jsonl")
    shell.run(*RUN, "-o", "new.trec", code=2)
    assert "passages.jsonl: lacks 4 of the passages in run.trec, for example d0, d2, d3: add" in shell.said


def test_a_query_without_candidates_has_no_line_in_a_run_and_stops_nothing(shell: Any) -> None:
    shell.write({"query": "empty", "passages": []}, query(0), query(1))
    printed = shell.run("rerank", "in.jsonl", "--to", "trec")
    shell.run(*TREC)
    for run in (printed, (shell.folder / "out.trec").read_text()):
        assert sorted(line.split()[0] for line in run.splitlines()) == ["fine0"] * 2 + ["fine1"] * 2


def test_a_pipe_is_read_once_and_a_device_is_written_to(shell: Any) -> None:
    assert best(json.loads(shell.run("rerank", "-", input=LINE))) == ["d0", "d1"]
    os.mkfifo(shell.folder / "pipe")
    feeder = threading.Thread(target=(shell.folder / "pipe").write_text, args=(LINE,))
    feeder.start()
    assert best(json.loads(shell.run("rerank", "pipe", "-o", "/dev/stdout"))) == ["d0", "d1"]
    feeder.join()
    out, said = shell.process("rerank", "/dev/stdin", "-o", "/dev/null").communicate(LINE, timeout=60)
    assert out == ""
    assert "1 query in" in said


def test_hostile_ids_and_texts_steer_no_terminal(shell: Any) -> None:
    evil = "\x1b[31m[bold]x[/nope]\x07"
    shell.write({"query": {"id": evil, "text": evil}, "passages": [evil + " 1", evil + " 0"]})
    shell.server.failing = "bold"
    shell.run(*JOB, code=1)
    assert "\x1b" not in shell.said
    assert "[bold]x[/nope]" in shell.said


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ({"query": "q", "passages": 7}, 'in.jsonl:3: field "passages" is a whole number'),
        (query(0), "in.jsonl:3: query 'fine0' is a duplicate"),
        (query(2, query={"id": "two words", "text": "?"}), "in.jsonl:3: query id 'two words' is not one word"),
        (
            query(2, passages=[{"id": "d", "text": text} for text in "12"]),
            "query 'fine2': passage id 'd' is ranked twice",
        ),
    ],
    ids=["malformed", "query twice", "not a word", "passage twice"],
)
def test_a_line_that_no_run_can_hold_is_refused_before_anything_is_asked(
    bad: dict[str, Any], problem: str, shell: Any
) -> None:
    shell.write(query(0), query(1), bad)
    shell.run(*TREC, code=2)
    assert problem in shell.said
    assert ("--to jsonl takes any ids" in shell.said) == (bad["passages"] != 7)
    assert "stopped" not in shell.said
    assert (shell.server.prompts, shell.files) == ([], {"in.jsonl"})


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["rerank", "in.jsonl", "-o", "in.jsonl", "--overwrite"], "in.jsonl is an input"),
        (["rerank", "empty.jsonl", "-o", "out.jsonl"], "empty.jsonl:1: the query '1' is empty"),
        (["rerank", "in.jsonl", "-o", "no/x.jsonl"], "error: no/x.jsonl: the folder no does not exist: create it"),
        (["rerank", "in.jsonl", "-o", "folder", "--overwrite"], "error: folder: this is a folder: use the path of a"),
        (["rerank", "in.jsonl", "-o", "in.jsonl/x"], "error: in.jsonl/x: the folder in.jsonl does not exist"),
        (["rerank", "in.jsonl", "-o", "/proc/x"], "error: /proc/x: the folder /proc cannot be written to"),
        (["rerank", "missing.jsonl"], "missing.jsonl: No such file"),
        (["rerank", "--run", "x"], "--run needs --queries and --passages"),
        (["rerank", "in.jsonl", "--run", "x"], "one input is needed"),
        (["rerank", "in.jsonl", "--queries", "x"], "belong to --run"),
        (["rerank", "in.jsonl", "--k", "0"], "error: --k 0: a whole number"),
        (["rerank", "in.jsonl", "--format", "r2"], "--format 'r2': one of"),
        (["rerank", "in.jsonl", "--algorithm", "window"], "needs a listwise format"),
        (["rerank", "in.jsonl", "--json"], "use --out"),
        (["rerank", "in.jsonl", "--store", "/proc/none"], "/proc/none: the folder /proc cannot be written to"),
        (["rerank", "in.jsonl", "--json", "-o", "/dev/stdout"], "use --out"),
        ([*JOB, "--server", "vlm"], "vlm"),
        ([*JOB, "--timeout", "nan"], "--timeout nan"),
        ([*JOB, "--to", "trec", "--tag", "my run"], "tag 'my run' is not one word"),
        ([*JOB, "--base-url", "http://127.0.0.1:9/v1"], "--backend 'openai' needs --model"),
        ([*JOB, "--model", "nowhere.gguf"], "nowhere.gguf"),
        ([*JOB, "--model", "in.jsonl"], "in.jsonl"),
        (["explain", "in.jsonl", "--html", "no/x.html"], "error: no/x.html: the folder no does not exist: create it"),
        (["explain", "in.jsonl", "--html", "folder"], "error: folder: this is a folder: use the path of a file"),
        (["demo", "--html", "/proc/x.html"], "error: /proc/x.html: the folder /proc cannot be written to"),
        (["demo", "--html", "folder"], "error: folder: this is a folder: use the path of a file"),
        (["explain", "in.jsonl", "-q", "z"], "in.jsonl: no query has the id 'z': the first ids are 'fine0'"),
        (["explain", "bad.jsonl"], "bad.jsonl:1: not JSON"),
        (["explain", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_line(arguments: list[str], problem: str, shell: Any) -> None:
    shell.write(query(0))
    shell.write({"query": " ", "passages": ["one", "two"]}, name="empty.jsonl")
    (shell.folder / "bad.jsonl").write_text("{nonsense\n")
    (shell.folder / "folder").mkdir()
    before, own_model = shell.files, {"--model", "--base-url"} & {*arguments}
    if "--model" in arguments:
        pytest.importorskip("openvino_genai", reason="the embedded backend is not installed")
    failed = arguments[-2:] == ["--model", "in.jsonl"]
    shell.run(*arguments, model=not own_model, code=1 if failed else 2)
    assert problem in shell.said
    if "--model" not in arguments:  # a local model is looked at when it is needed first
        assert "stopped" not in shell.said
        assert (shell.server.prompts, shell.files) == ([], before)
