"""The card of an adapter lists all runs that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag.errors import FileError
from rankr1_rag.train import card as card_module
from rankr1_rag.train.card import write_card
from rankr1_rag.train.config import GRPO, SFT, Training
from rankr1_rag.train.data import read_examples
from rankr1_rag.train.prompts import TrainingData
from rankr1_rag.train.run_dir import ALONE, RunDir, digest, opened


@pytest.fixture
def common(examples: Path, tmp_path: Path) -> dict[str, Any]:
    """What all runs here are told; of a model only its configuration is looked at."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    return {"model": str(tmp_path / "model"), "data": (str(examples),), "size": 3}


def finished(settings: Training, weights: bytes) -> Path:
    """The folder of a run as it is at its end."""
    with opened(settings, ALONE) as folder:
        material = TrainingData((), (), tuple(read_examples(*settings.data)))
        write_card(settings, folder, [*card_module.before(settings), card_module.own(folder, material)])
        (folder.path / "adapter_config.json").write_text("{}", encoding="utf-8")
        (folder.path / "adapter_model.safetensors").write_bytes(weights)
    return folder.path


@pytest.fixture
def three(common: dict[str, Any], tmp_path: Path) -> list[Path]:
    """A cold start, more of it, and reinforcement."""
    cold = finished(SFT(**common, out=str(tmp_path / "cold"), rank=4), b"cold")
    more = finished(SFT(**common, out=str(tmp_path / "more"), adapter=str(cold), seed=7), b"more")
    return [cold, more, finished(GRPO(**common, out=str(tmp_path / "grpo"), adapter=str(more)), b"grpo")]


def card(path: Path) -> str:
    return (path / "README.md").read_text(encoding="utf-8")


def test_a_card_tells_of_all_runs_in_order_with_sources_settings_and_digests(
    three: list[Path], common: dict[str, Any]
) -> None:
    cold, more, last = three
    text = card(last)
    assert "by supervised training, then supervised training, then GRPO" in text
    titles = [line for line in text.splitlines() if line.startswith("## Run")]
    ways = ("supervised training", "supervised training", "GRPO")
    assert titles == [f"## Run {number} of 3: {way}" for number, way in enumerate(ways, start=1)]
    parts = text.split("\n## ")[1:4]
    begun = ("A new adapter.", *(f"`{one}` (sha256" for one in (cold, more)))
    for part, beginning, setting in zip(parts, begun, ('"rank": 4', '"seed": 7', '"generations": 8'), strict=True):
        assert beginning in part
        assert setting in part
        assert "12 examples, 0 sets. Sources: made 12." in part
        assert f"| {common['data'][0]} | {digest(Path(common['data'][0]))} |" in part
    assert digest(more / "adapter_model.safetensors") in parts[2]


def test_the_runs_are_read_from_the_card_alone(three: list[Path], common: dict[str, Any], tmp_path: Path) -> None:
    """As of an adapter that was copied, or comes from the hub."""
    (three[1] / "settings.json").unlink()
    runs = card_module.before(GRPO(**common, out=str(tmp_path / "more"), adapter=str(three[1])))
    assert [(run["training"], run["sources"]) for run in runs] == [("sft", {"made": 12})] * 2


def test_what_a_card_does_not_tell_is_read_from_the_run_s_folder(
    three: list[Path], common: dict[str, Any], tmp_path: Path
) -> None:
    for path in three:
        (path / "README.md").write_text("by hand", encoding="utf-8")
    runs = card_module.before(GRPO(**common, out=str(tmp_path / "more"), adapter=str(three[2])))
    assert [run["training"] for run in runs] == ["sft", "sft", "grpo"]
    assert [run["sources"] for run in runs] == [{"made": 12}] * 3


def test_an_adapter_without_records_is_named(three: list[Path], common: dict[str, Any], tmp_path: Path) -> None:
    (three[0] / "README.md").write_text("by hand", encoding="utf-8")
    (three[0] / "settings.json").unlink()
    text = card(finished(SFT(**common, out=str(tmp_path / "other"), adapter=str(three[0])), b"other"))
    assert f"The adapter `{three[0]}` has no record of its training." in text


def test_metadata_of_a_card_are_lines_of_yaml(three: list[Path]) -> None:
    _, metadata, _ = card(three[2]).split("---\n", 2)
    named = dict(line.split(": ", 1) for line in metadata.splitlines())
    assert named.keys() == {"base_model", "library_name", "tags", "rankr1_runs"}
    assert len(json.loads(named["rankr1_runs"])) == 3


def test_a_run_does_not_go_on_from_another_adapter(three: list[Path], common: dict[str, Any], tmp_path: Path) -> None:
    settings = GRPO(**common, out=str(tmp_path / "run"), adapter=str(three[0]))
    with opened(settings, ALONE):
        pass
    (three[0] / "adapter_model.safetensors").write_bytes(b"trained anew")
    with pytest.raises(FileError, match="holds a run with adapter_weights"), opened(settings, ALONE):
        pass


def test_a_folder_is_one_run_s_at_a_time(common: dict[str, Any], tmp_path: Path) -> None:
    settings = SFT(**common, out=str(tmp_path / "run"))
    with opened(settings, ALONE) as folder:
        assert folder == RunDir(tmp_path / "run")
        with pytest.raises(FileError, match="another process is at work"), opened(settings, ALONE):
            pass
