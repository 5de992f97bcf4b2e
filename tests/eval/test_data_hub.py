"""The shapes of the hub, as real tables of `datasets`, opened by the code that opens the hub's."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.data import DATASETS, load
from rankr1_eval.data.loading import questions
from rankr1_eval.data.questions import TWOWIKI
from rankr1_eval.types import Question
from rankr1_rag.errors import FileError

pytestmark = pytest.mark.third_party

datasets = pytest.importorskip("datasets", reason="rows of the hub need datasets: rankr1-eval[hub]")

Json = dict[str, Any]
FILES = {
    "hotpotqa": "hotpotqa/dev_distractor_sample.json",
    "2wikimultihopqa": "2wikimultihopqa/dev_sample.json",
    "musique": "musique/musique_ans_v1.0_dev_sample.jsonl",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def in_columns(record: Json, sentences: str = "sentences") -> Json:
    """A record of HotpotQA's shape as the hub has it: lists by name."""
    context, facts = record["context"], record["supporting_facts"]
    return {
        "id": record["_id"],
        **{name: record[name] for name in ("question", "answer", "type")},
        "supporting_facts": {"title": [title for title, _ in facts], "sent_id": [number for _, number in facts]},
        "context": {"title": [title for title, _ in context], sentences: [text for _, text in context]},
    }


def in_rows(record: Json) -> Json:
    return {
        **in_columns(record),
        "supporting_facts": [{"title": title, "sent_id": number} for title, number in record["supporting_facts"]],
        "context": [{"title": title, "content": sentences} for title, sentences in record["context"]],
    }


def in_strings(record: Json) -> Json:
    names = ("context", "supporting_facts", "evidences")
    return {**record, **{name: json.dumps(record[name]) for name in names}}


def first(path: Path, n: int = 25) -> list[Json]:
    text = path.read_text()
    return json.loads(text)[:n] if text.startswith("[") else [json.loads(line) for line in text.splitlines()[:n]]


def read(name: str, records: list[Json]) -> list[Question]:
    rows = datasets.Dataset.from_list(records)
    return questions(DATASETS[name], ((None, row) for row in rows), DATASETS[name].hub.id)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("hotpotqa", [in_columns, in_rows, lambda record: in_columns(record, "content")]),
        ("2wikimultihopqa", [in_columns, in_rows, lambda record: in_columns(record, "content"), in_strings]),
        ("musique", [dict]),
    ],
)
def test_rows_in_the_shapes_of_the_hub_are_the_questions_of_the_official_file_and_so_is_their_parquet_file(
    shared_data: Path, tmp_path: Path, name: str, shapes: list[Callable[[Json], Json]]
) -> None:
    records, expected = first(shared_data / FILES[name]), load(name, shared_data / FILES[name])[:25]
    for shape in shapes:
        rows = [shape(record) for record in records]
        assert read(name, rows) == expected
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
        assert load(name, tmp_path / "rows.parquet") == expected


def test_parquet_that_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list([{"text": "no question", "id": 1}]).to_parquet(path)
    with pytest.raises(FileError, match=r'rows.parquet: question 1 \(1\): .* the fields are "text", "id"; needed are'):
        load("hotpotqa", path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError, match="not parquet, or damaged: fetch it again"):
        load("hotpotqa", path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'needs pyarrow: pip install "rankr1-eval\[hub\]", or give JSON lines'):
        load("hotpotqa", path)


def test_a_config_of_a_repository_is_opened_by_its_name_and_split(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"distractor": slice(0, 5), "fullwiki": slice(5, 10)}
    card = ["---", "configs:"]
    for config, part in files.items():
        rows = [in_columns(record) for record in first(shared_data / FILES["hotpotqa"])[part]]
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / config / "validation-00000-of-00001.parquet")
        card += [f"- config_name: {config}", "  data_files:", f"  - {{split: validation, path: {config}/*.parquet}}"]
    (tmp_path / "README.md").write_text("\n".join([*card, "---", ""]))
    expected = load("hotpotqa", shared_data / FILES["hotpotqa"])
    for name, config in (("hotpotqa", "distractor"), ("hotpotqa-fullwiki", "fullwiki")):
        local = replace(DATASETS[name], hub=replace(DATASETS[name].hub, id=str(tmp_path)))
        monkeypatch.setitem(DATASETS, name, local)
        assert load(name) == expected[files[config]]


def test_a_repository_of_parquet_files_is_opened_by_the_file_of_the_split(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(address: str) -> None:
        local = replace(TWOWIKI, hub=replace(TWOWIKI.hub, files={"validation": address}))
        monkeypatch.setitem(DATASETS, TWOWIKI.name, local)

    rows = [in_strings(record) for record in first(shared_data / FILES["2wikimultihopqa"])]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "dev.parquet")
    at(str(tmp_path / "dev.parquet"))
    assert load("2wikimultihopqa") == load("2wikimultihopqa", shared_data / FILES["2wikimultihopqa"])[:25]
    with pytest.raises(ValueError, match="split 'tset': xanhho/2WikiMultihopQA has validation"):
        load("2wikimultihopqa", split="tset")
    at("http://127.0.0.1:9/dev.parquet")
    with pytest.raises(ConnectionError, match=r"2WikiMultihopQA could not be fetched \(.*\): try again, or give"):
        load("2wikimultihopqa")


def test_a_bad_row_is_named_by_its_repository_number_and_id(shared_data: Path) -> None:
    records = [in_columns(record) for record in first(shared_data / FILES["hotpotqa"], 3)]
    records[2]["context"]["title"].pop()
    problem = r"hotpotqa/hotpot_qa: question 3 \('5.*'\): the lists in field \"context\" have"
    with pytest.raises(ValueError, match=problem):
        read("hotpotqa", records)
