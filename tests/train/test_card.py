"""The card of an adapter lists all runs that made it; the folder of a run is one run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag.errors import FileError
from rankr1_rag.train import card
from rankr1_rag.train.config import GRPO, SFT, Training
from rankr1_rag.train.data import read_examples
from rankr1_rag.train.prompts import TrainingData
from rankr1_rag.train.run_dir import ALONE, RunDir, digest, opened


@pytest.fixture
def common(examples: Path, tmp_path: Path) -> dict[str, Any]:
    """What all runs here share; of a model only its configuration is looked at."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    return {"model": str(tmp_path / "model"), "data": (str(examples),), "size": 3}


def finished(settings: Training, weights: bytes) -> Path:
    """The folder of a run as it is at its end."""
    with opened(settings, ALONE) as folder:
        material = TrainingData((), (), tuple(read_examples(*settings.data)))
        card.write_card(settings, folder, [*card.before(settings), card.own(folder, material)])
        (folder.path / "adapter_config.json").write_text("{}", encoding="utf-8")
        (folder.path / "adapter_model.safetensors").write_bytes(weights)
    return folder.path


@pytest.fixture
def three(common: dict[str, Any], tmp_path: Path) -> list[Path]:
    """A cold start, more of it, and reinforcement."""
    cold = finished(SFT(**common, out=str(tmp_path / "cold"), rank=4), b"cold")
    more = finished(SFT(**common, out=str(tmp_path / "more"), adapter=str(cold), seed=7), b"more")
    return [cold, more, finished(GRPO(**common, out=str(tmp_path / "grpo"), adapter=str(more)), b"grpo")]


def test_a_card_lists_all_runs_in_order_with_sources_settings_and_digests(
    three: list[Path], common: dict[str, Any]
) -> None:
    cold, more, last = three
    text, (data,) = (last / "README.md").read_text(encoding="utf-8"), common["data"]
    assert "by 2 runs of supervised training, then GRPO" in text
    parts = text.split("\n## ")[1:4]
    ways = ("supervised training", "supervised training", "GRPO")
    assert [part.splitlines()[0] for part in parts] == [f"Run {n} of 3: {way}" for n, way in enumerate(ways, start=1)]
    begun = ("A new adapter.", *(f"`{one}` (sha256" for one in (cold, more)))
    same = ("12 examples, 0 sets. Sources: made 12.", f"| {data} | {digest(Path(data))} |")
    for part, beginning, setting in zip(parts, begun, ('"rank": 4', '"seed": 7', '"generations": 8'), strict=True):
        assert [one for one in (beginning, setting, *same) if one not in part] == []
    assert digest(more / "adapter_model.safetensors") in parts[2]
    _, metadata, _ = text.split("---\n", 2)
    named = dict(line.split(": ", 1) for line in metadata.splitlines())
    assert named.keys() == {"base_model", "library_name", "tags", "rankr1_runs"}
    assert len(json.loads(named["rankr1_runs"])) == 3


@pytest.mark.parametrize("lost", ["settings.json", "README.md"])
def test_the_runs_are_read_from_the_card_alone_or_from_the_runs_folders(
    lost: str, three: list[Path], common: dict[str, Any], tmp_path: Path
) -> None:
    """The card alone, as of an adapter that was copied, or comes from the hub."""
    for path in three:
        (path / lost).write_text("by hand", encoding="utf-8")
    runs = card.before(GRPO(**common, out=str(tmp_path / "more"), adapter=str(three[2])))
    assert [(run["training"], run["sources"]) for run in runs] == [
        (kind, {"made": 12}) for kind in ("sft", "sft", "grpo")
    ]


def test_an_adapter_without_records_is_named(three: list[Path], common: dict[str, Any], tmp_path: Path) -> None:
    (three[0] / "README.md").write_text("by hand", encoding="utf-8")
    (three[0] / "settings.json").unlink()
    other = finished(SFT(**common, out=str(tmp_path / "other"), adapter=str(three[0])), b"other")
    text = (other / "README.md").read_text(encoding="utf-8")
    assert f"The adapter `{three[0]}` has no record of its training." in text


def test_a_folder_is_one_run_s_at_a_time_and_resumes_only_from_its_own_adapter(
    three: list[Path], common: dict[str, Any], tmp_path: Path
) -> None:
    settings = GRPO(**common, out=str(tmp_path / "run"), adapter=str(three[0]))
    with opened(settings, ALONE) as folder:
        assert folder == RunDir(tmp_path / "run")
        with pytest.raises(FileError, match="another process is at work"), opened(settings, ALONE):
            pass
    (three[0] / "adapter_model.safetensors").write_bytes(b"trained again")
    with pytest.raises(FileError, match="holds a run with adapter_weights"), opened(settings, ALONE):
        pass
