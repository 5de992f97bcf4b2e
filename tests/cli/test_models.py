"""`rankr1 models`: the table of checkpoints, and which of them fit a GPU."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.cli.app import app
from rankr1_rag.settings import Settings


def listed(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["models", "--json", *arguments])
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_every_known_model_is_listed_with_what_is_known_of_it() -> None:
    rows = {one["model"]: one for one in listed()}
    assert rows.keys() == CHECKPOINTS.keys()
    assert len(rows) >= 25
    known = {"format": "reasonrank", "kind": "listwise", "size": 20, "step": 10, "reasoning_tokens": 3072}
    known |= {"licence": "MIT", "memory_gib": 14.2, "adapter": None}
    assert rows["liuwenhan/reasonrank-7B"].items() >= known.items()
    assert rows["Qwen/Qwen3-Reranker-0.6B"].items() >= {"kind": "scored", "size": 1, "reasoning_tokens": 0}.items()
    assert rows["ielabgroup/Rank-R1-7B-v0.1"]["adapter"] == "ielabgroup/Rank-R1-7B-v0.1"
    text = CliRunner().invoke(app, ["models"], env={"COLUMNS": "80"}).stdout
    assert all(name in text for name in CHECKPOINTS)
    assert "…" not in text


def test_a_gpu_leaves_those_that_fit() -> None:
    small = {one["model"] for one in listed("--gpu", "24")}
    assert {"liuwenhan/reasonrank-7B", "Qwen/Qwen3-Reranker-8B"} <= small
    assert not {"liuwenhan/reasonrank-32B", "hltcoe/Rank-K-32B", "ielabgroup/Rank-R1-14B-v0.1"} & small
    assert {one["model"] for one in listed("--gpu", "80")} == CHECKPOINTS.keys()


@pytest.mark.parametrize(
    ("settings", "step"),
    [({}, 10), ({"size": 5}, 2), ({"size": 2}, 1), ({"step": 4}, 4), ({"algorithm": "tournament"}, None)],
)
def test_the_step_of_a_model_is_that_of_its_windows(settings: dict[str, Any], step: int | None) -> None:
    plan = Settings(**settings).resolved(Scripted(str, model="liuwenhan/reasonrank-7B"))
    assert (plan.step, plan.format.name) == (step, "reasonrank")
    other = Settings(format="rank-r1-v0.1").resolved(Scripted(str, model="jhu-clsp/rank1-7b"))
    assert (other.size, other.algorithm) == (20, "tournament")
    assert Settings(format="rank-r1-v0.1").resolved(Scripted(str, model="liuwenhan/reasonrank-7B")).step is None
