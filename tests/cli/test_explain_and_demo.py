"""`rankr1 explain` and `rankr1 demo`."""

import json
from typing import Any

import pytest

from rankr1_rag import demo
from tests.cli.conftest import JOB, query

pytestmark = pytest.mark.third_party


def test_a_result_is_explained_without_a_model_if_it_has_its_trace(shell: Any) -> None:
    shell.write(query(0, n=3), query(1, n=3))
    shell.run(*JOB)
    asked = len(shell.server.prompts)
    out = shell.run("explain", "out.jsonl", "--query", "fine1", model=False)
    assert "fine 1?" in out
    assert "0 is the lowest" in out
    assert len(shell.server.prompts) == asked
    shell.run(*JOB, "--no-trace", "--overwrite")
    shell.run("explain", "out.jsonl", code=2)
    assert "out.jsonl:1: no comparisons, because of --no-trace" in shell.said


def test_any_other_line_is_reranked_first_and_comes_as_text_as_a_page_or_as_json(shell: Any) -> None:
    shell.write(query(0, n=3))
    assert "0 is the lowest" in shell.run("explain", "in.jsonl")
    assert "in.jsonl is not reranked yet: reranking query 'fine0' with judge" in shell.said
    assert shell.run("explain", "in.jsonl", "--html", "page.html").strip() == "page.html"
    assert "0 is the lowest" in (shell.folder / "page.html").read_text(encoding="utf-8")
    best = json.loads(shell.run("explain", "in.jsonl", "--json"))["passages"][0]
    assert best["id"] == "d0"


def test_the_demo_prints_what_a_model_did(shell: Any) -> None:
    pytest.importorskip("bm25s", reason="the demo's first stage is not installed")
    shell.server.judge = lambda messages: "<think>why not</think> <answer>[1]</answer>"
    printed = " ".join(shell.run("demo", "--html", "page.html").split())
    assert "page.html" in shell.files
    figures = json.loads(shell.run("demo", "--json"))
    assert figures["questions"] == sum(len(one.supports) == 2 for one in demo.questions()) >= 40
    assert figures["cost"]["comparisons"] == 2 * figures["questions"], "sets of 20"
    for k, recall in figures["support_recall"].items():
        assert recall["before"] == recall["after"] == pytest.approx({"2": 0.655, "5": 0.810}[k], abs=5e-4)
    assert "@2: BM25 0.655, reranked 0.655; 0 questions better, 0 worse" in printed
    assert figures["right_before"] == figures["right_after"] == 0
    assert "Right answers, read by judge: 0 from BM25's first 2, 0 from the reranked first 2" in printed


def test_the_demo_prints_no_escape_sequence_of_a_model(shell: Any) -> None:
    pytest.importorskip("bm25s", reason="the demo's first stage is not installed")
    shell.server.judge = lambda messages: "<think>\x1b[31mred\x07 \x9b2J</think> <answer>[2]</answer>"
    out = shell.run("demo")
    assert "␛[31mred␇" in out
    assert not set(out) & {"\x1b", "\x07", "\x9b"}


def test_a_question_of_the_user_is_asked_of_the_users_passages(shell: Any) -> None:
    pytest.importorskip("bm25s", reason="the demo's first stage is not installed")
    parking = {"id": "p", "title": "Parking", "text": "Visitors park here. To open the barrier, reset nothing."}
    lines = ["To reset a password, open Settings.", json.dumps(parking), "Invoices are sent once a month."]
    (shell.folder / "own.txt").write_text("\n".join(lines))
    shell.server.judge = lambda messages: "<think>it has the word barrier</think> <answer>[2]</answer>"
    ask = ["demo", "--ask", "How do I open the barrier?", "--passages", "own.txt"]
    assert "it has the word barrier" in shell.run(*ask)
    ranked = json.loads(shell.run(*ask, "--json"))
    assert ranked["answer"] == "[2]"
    assert sorted((one["id"], one["title"]) for one in ranked["passages"]) == [("1", ""), ("3", ""), ("p", "Parking")]
    own = json.loads(shell.run("demo", "--ask", "Who composed music for Peer Gynt?", "--json"))  # the demo's passages
    assert "edvard-grieg" in [one["id"] for one in own["passages"]]
    assert len(own["passages"]) > 20, "some are found between the hops"
    for wrong, problem in (
        (["demo", "--passages", "own.txt"], "--passages needs --ask"),
        ([*ask, "--html", "own.txt"], "own.txt: own.txt is an input"),
        (["demo", "--ask", " "], "the query is empty"),
    ):
        shell.run(*wrong, code=2)
        assert problem in shell.said
