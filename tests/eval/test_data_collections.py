"""Collections with judgements: by path, and by name over local files in the shapes of their sources."""

import gzip
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.data import collections, load
from rankr1_eval.data.collections import from_files, judged
from rankr1_eval.types import JudgedCollection
from rankr1_rag import Passage
from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import read_qrels, read_run

pytestmark = pytest.mark.third_party


@pytest.fixture
def ir_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "ir_datasets"))
    return pytest.importorskip("ir_datasets", reason="collections by name need ir_datasets: rankr1-eval[hub]")


@pytest.fixture(scope="module")
def dl19(dl19_files: dict[str, Path]) -> JudgedCollection:
    return from_files(*(dl19_files[name] for name in ("queries", "passages", "qrels")))


@pytest.fixture(scope="module")
def scifact(shared_data: Path) -> JudgedCollection:
    folder = shared_data / "beir-scifact"
    return from_files(folder / "queries.jsonl", folder / "corpus.jsonl.gz", folder / "qrels_train.tsv", "scifact")


def test_collections_by_path(dl19: JudgedCollection, scifact: JudgedCollection, dl19_files: dict[str, Path]) -> None:
    assert (dl19.name, len(dl19.queries), dl19.qrels) == ("qrels", 43, read_qrels(dl19_files["qrels"]))
    ids = [scored.id for scored in read_run(dl19_files["run"], depth=10)["264014"]]
    texts = dl19.passages([*ids, "none"])
    assert sorted(texts) == sorted(ids)
    assert all(passage.id == id and passage.text for id, passage in texts.items())
    assert (scifact.name, sum(map(len, scifact.qrels.values())), scifact.qrels["0"]) == (
        "scifact",
        919,
        {"31715818": 1},
    )
    assert set(scifact.queries) == set(scifact.qrels)
    assert scifact.passages({"4983"})["4983"].title.startswith("Microstructural development")


def test_parquet_by_path(
    scifact: JudgedCollection, shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = pytest.importorskip("pyarrow", reason="parquet needs pyarrow: rankr1-eval[hub]").Table
    parquet = pytest.importorskip("pyarrow.parquet")
    passages = [asdict(one) for one in scifact.passages({"4983", "5836"}).values()]
    queries = [{"_id": id, "text": text} for id, text in scifact.queries.items()]
    for name, rows in (("queries", queries), ("corpus", [*passages, {**passages[0], "text": "The same id again."}])):
        parquet.write_table(table.from_pylist(rows), tmp_path / f"{name}.parquet")
    qrels = shared_data / "beir-scifact" / "qrels_train.tsv"
    found = from_files(tmp_path / "queries.parquet", tmp_path / "corpus.parquet", qrels)
    assert (found.queries, found.qrels) == (scifact.queries, scifact.qrels)
    assert found.passages(["4983", "none"]) == scifact.passages(["4983"])
    assert found.everything is not None
    assert [one.id for one in found.everything()] == [one["id"] for one in passages]
    assert "corpus.parquet:3: duplicate id" in caplog.text
    parquet.write_table(table.from_pylist([{"id": "1", "abstract": "A text."}]), tmp_path / "bad.parquet")
    with pytest.raises(FileError, match=r'bad.parquet:1: field "text" or .*; the fields are "id", "abstract"'):
        from_files(tmp_path / "queries.parquet", tmp_path / "bad.parquet", qrels).passages(["1"])


def test_a_judged_query_without_a_text_is_named_and_one_without_a_judgement_left_out(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("queries.tsv", "passages.tsv", "qrels.txt")]
    for path, content in zip(paths, ("q1\tone\nq2\ttwo\n", "p\ttext\n", "q1 0 p 1\n"), strict=True):
        path.write_text(content)
    assert from_files(*paths).queries == {"q1": "one"}
    paths[2].write_text("q1 0 p 1\nq3 0 p 1\n")
    with pytest.raises(FileError, match=r"qrels.txt: query 'q3' is judged, but .*queries.tsv does not hold its text"):
        from_files(*paths)


@pytest.mark.parametrize("spec", ["dl21", "beir", "beir/", "scifact", "bright", "", "trec/x", "birco"])
def test_an_unknown_collection_is_refused_with_those_known(spec: str) -> None:
    with pytest.raises(ValueError, match=r"is unknown: must be one of dl19, dl20, beir/NAME, bright/NAME, birco:PATH"):
        judged(spec)


def test_trec_dl_of_the_catalogue_is_the_collection_by_path(
    dl19: JudgedCollection,
    dl19_files: dict[str, Path],
    tmp_path: Path,
    ir_datasets: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with gzip.open(dl19_files["passages"], "rt") as lines:
        texts = {record["docid"]: record["text"] for record in map(json.loads, lines)}
    (tmp_path / "docs.tsv").write_text("".join(f"{id}\t{text}\n" for id, text in texts.items()))
    local = ir_datasets.create_dataset(
        docs_tsv=tmp_path / "docs.tsv", queries_tsv=dl19_files["queries"], qrels_trec=dl19_files["qrels"]
    )
    monkeypatch.setitem(ir_datasets.registry._registered, collections.TREC_DL["dl19"], local)
    found = judged("dl19")
    assert (found.name, found.queries, found.qrels, found.excluded) == ("dl19", dl19.queries, dl19.qrels, {})
    ids = list(texts)[:50]
    assert found.passages([*ids, "none"]) == dl19.passages(ids)


def test_a_data_set_of_beir_is_its_test_split(
    shared_data: Path, scifact: JudgedCollection, tmp_path: Path, ir_datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ir_datasets.datasets import beir

    folder = shared_data / "beir-scifact"
    (tmp_path / "corpus.jsonl").write_bytes(gzip.decompress((folder / "corpus.jsonl.gz").read_bytes()))
    local = ir_datasets.util.LocalDownload
    split = ir_datasets.Dataset(
        beir.BeirDocs("sample", local(tmp_path / "corpus.jsonl"), beir.BeirTitleDoc),
        beir.BeirQueries("sample", local(folder / "queries.jsonl"), beir.GenericQuery),
        beir.BeirQrels(local(folder / "qrels_train.tsv"), {}),
    )
    monkeypatch.setitem(ir_datasets.registry._registered, "beir/sample/test", split)
    found = judged("beir/sample")
    assert (found.name, found.queries, found.qrels) == ("beir/sample", scifact.queries, scifact.qrels)
    assert found.excluded["0"] == {"0"}
    assert found.passages(["4983", "none"]) == scifact.passages(["4983"])
    assert found.everything is not None
    assert sum(1 for _ in found.everything()) == 5183


def test_what_cannot_be_fetched_is_named(ir_datasets: Any, shared_data: Path) -> None:
    nowhere, qrels = ir_datasets.util.RequestsDownload("http://127.0.0.1:9/x"), shared_data / "trec-dl-2019/qrels.txt"
    local = ir_datasets.Dataset(
        ir_datasets.formats.TsvQueries(nowhere),
        ir_datasets.formats.TrecQrels(ir_datasets.util.LocalDownload(qrels), {}),
    )
    with pytest.raises(ConnectionError, match=r"mine could not be fetched \(.*\): try again, or give local files"):
        collections.of_catalogue("mine", local)


def test_the_catalogue_has_the_names_that_we_use(ir_datasets: Any) -> None:
    names = {*collections.TREC_DL.values(), "beir/scifact/test", "beir/nfcorpus/test", "beir/scidocs", "beir/fiqa/test"}
    assert names | {"beir/trec-covid"} <= set(ir_datasets.registry)
    with pytest.raises(ValueError, match=r"BEIR has no 'scifct' with judgements: .* arguana, .*scifact"):
        judged("beir/scifct")


EXAMPLES = [
    {"id": "0", "query": "why", "gold_ids": ["a.txt", "b.txt"], "excluded_ids": ["N/A"], "gold_answer": "N/A"},
    {"id": "1", "query": "how", "gold_ids": ["b.txt"], "excluded_ids": ["c.txt", "a.txt"], "gold_answer": "N/A"},
]


def bright(**change: object) -> JudgedCollection:
    """A collection of BRIGHT's shape, with a change of its second query."""
    rows = pytest.importorskip("datasets", reason="BRIGHT needs datasets: rankr1-eval[hub]").Dataset.from_list
    documents = [{"id": f"{name}.txt", "content": f"text {name}"} for name in "abc"]
    return collections.of_bright("bright/x", rows([EXAMPLES[0], {**EXAMPLES[1], **change}]), rows(documents))


def test_bright_keeps_what_each_query_excludes() -> None:
    found = bright()
    assert found.queries == {"0": "why", "1": "how"}
    assert found.qrels == {"0": {"a.txt": 1, "b.txt": 1}, "1": {"b.txt": 1}}
    assert found.excluded == {"1": {"a.txt", "c.txt"}}
    assert found.passages(["c.txt", "none"]) == {"c.txt": Passage("c.txt", "text c")}


@pytest.mark.parametrize(
    ("change", "said"),
    [({"id": "0"}, "query '0' comes twice, with different texts"), ({"gold_ids": []}, "query '1' has no gold_ids")],
)
def test_a_bad_row_of_bright_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"bright/x: {said}"):
        bright(**change)


@pytest.mark.parametrize(
    ("file", "queries", "judgements"), [("clinical-trial", 9, 253), ("doris-mae", 40, 3129), ("wtb", 57, 137028)]
)
def test_birco_by_path(shared_data: Path, file: str, queries: int, judgements: int) -> None:
    path = shared_data / "birco" / f"{file}_dev_set.json.gz"
    found = judged(f"birco:{path}")
    assert (found.name, len(found.queries)) == (f"birco/{file}", queries)
    assert sum(map(len, found.qrels.values())) == judgements
    assert found.queries.keys() == found.qrels.keys()
    official = json.loads(gzip.decompress(path.read_bytes()))["qrel"]
    for query, judgement in found.qrels.items():
        assert len(found.passages(judgement)) == len(judgement)
        best = max(judgement.values()) / max(official[query].values())
        assert judgement == pytest.approx({id: value * best for id, value in official[query].items()})
    if file != "doris-mae":
        assert found.qrels == official


def test_ids_of_birco_become_words_and_the_first_of_equal_ones_is_kept(tmp_path: Path) -> None:
    texts = {"query": {"a q": "text"}, "corpus": {"c 1": "first", "c\t1": "second", "d": "text"}}
    (tmp_path / "x.json").write_text(json.dumps({**texts, "qrel": {"a q": {"c 1": 1, "d": 0}}}))
    found = judged(f"birco:{tmp_path / 'x.json'}")
    assert (found.queries, found.qrels) == ({"a_q": "text"}, {"a_q": {"c_1": 1, "d": 0}})
    assert found.passages(["c_1"]) == {"c_1": Passage("c_1", "first")}


BIRCO: dict[str, Any] = {"query": {"q": "text"}, "corpus": {"c": "text", "d": "text"}, "qrel": {"q": {"c": 1, "d": 0}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, r"the file is broken at byte \d+: the file is cut short, fetch it again"),
        ({"qrel": None}, 'field "qrel" is missing or null'),
        ({"query": ["text"]}, 'field "query" is an array where an object is needed'),
        ({"corpus": {"c": 1}}, "'c' in \"corpus\" is a whole number where a string is needed"),
        ({"qrel": {"p": {"c": 1}}}, "query 'p': it is judged, but has no text"),
        ({"qrel": {"q": {"e": 1}}}, "query 'q': passage 'e' is judged, but has no text"),
        ({"qrel": {"q": {"c": "1"}}}, "query 'q': the judgement of 'c' is a string where a number is needed"),
        ({"qrel": {"q": {"c": 0.123456789}}}, "the judgement 0.123456789 of 'c' is no fraction of a whole number"),
        ({"qrel": {"q": [1]}}, "query 'q': its qrel is an array where an object is needed"),
    ],
)
def test_a_bad_file_of_birco_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(BIRCO | change)[: None if change else -10])
    with pytest.raises(FileError, match=said):
        judged(f"birco:{tmp_path / 'x.json'}")


@pytest.mark.parametrize(
    ("module", "fetch"),
    [
        ("ir_datasets", lambda: judged("dl19")),
        ("ir_datasets", lambda: judged("beir/scifact")),
        ("datasets", lambda: judged("bright/biology")),
        ("datasets", lambda: load("hotpotqa")),
    ],
)
def test_a_missing_extra_is_named(module: str, fetch: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "rankr1-eval\[hub\]", or give '):
        fetch()
