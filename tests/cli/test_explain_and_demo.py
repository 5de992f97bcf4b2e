"""`rankr1 explain` and `rankr1 demo`."""

import json
from typing import Any

import pytest

pytestmark = pytest.mark.third_party

INPUT = [
    {"query": {"id": "a", "text": "which a?"}, "passages": ["number 3", "number 1", "number 2"]},
    {"query": {"id": "b", "text": "which b?"}, "passages": ["number 9", "number 8"]},
]


def test_a_result_is_explained_without_a_model(shell: Any) -> None:
    shell.write("in.jsonl", INPUT)
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--k", "2")
    asked = len(shell.server.prompts)
    out = shell.run("explain", "out.jsonl", "--query", "b", model=False)
    assert "which b?" in out
    assert "8 is the lowest" in out
    assert len(shell.server.prompts) == asked


def test_what_was_not_reranked_yet_is_reranked_first(shell: Any) -> None:
    shell.write("in.jsonl", INPUT)
    assert "1 is the lowest" in shell.run("explain", "in.jsonl")


def test_it_comes_as_a_page_or_as_json(shell: Any) -> None:
    shell.write("in.jsonl", INPUT)
    assert shell.run("explain", "in.jsonl", "--html", "page.html").strip() == "page.html"
    assert "1 is the lowest" in (shell.folder / "page.html").read_text(encoding="utf-8")
    assert json.loads(shell.run("explain", "in.jsonl", "--json"))["rankr1"]["order"][0] == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["explain", "in.jsonl", "--query", "z"], "no query has the id 'z'"),
        (["explain", "out.jsonl"], "out.jsonl:1: no comparisons, because of --no-trace"),
        (["explain", "bad.jsonl"], "bad.jsonl:1:"),
        (["explain", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
    ],
)
def test_what_cannot_be_explained_says_why(arguments: list[str], problem: str, shell: Any) -> None:
    shell.write("in.jsonl", INPUT)
    (shell.folder / "bad.jsonl").write_text("{nonsense\n")
    shell.run("rerank", "in.jsonl", "-o", "out.jsonl", "--no-trace")
    shell.run(*arguments, code=2)
    assert problem in shell.said


def test_the_demo_tells_what_a_model_did(shell: Any) -> None:
    pytest.importorskip("bm25s", reason="the demo's first stage is not installed")
    shell.server.judge = lambda messages: "<think>why not</think> <answer>[1]</answer>"
    out = shell.run("demo", "--html", "page.html")
    assert "BM25 0.800, reranked 0.800; 0 questions better, 0 worse" in " ".join(out.split())
    assert (shell.folder / "page.html").exists()
    figures = json.loads(shell.run("demo", "--json"))
    assert figures["support_recall_before"] == figures["support_recall_after"] == pytest.approx(0.8)
    assert figures["cost"]["comparisons"] == 75


def test_the_demo_prints_no_escape_sequence_of_a_model(shell: Any) -> None:
    pytest.importorskip("bm25s", reason="the demo's first stage is not installed")
    shell.server.judge = lambda messages: "<think>\x1b[31mred\x07 \x9b2J</think> <answer>[2]</answer>"
    out = shell.run("demo")
    assert "␛[31mred␇" in out
    assert not set(out) & {"\x1b", "\x07", "\x9b"}


def test_version_and_help_are_enough_to_begin(shell: Any) -> None:
    assert shell.run("--version", model=False).startswith("rankr1 0.")
    assert "rerank" in shell.run("--help", model=False)
    for command in ("rerank", "explain", "demo"):
        assert "--base-url" in shell.run(command, "--help", model=False)
