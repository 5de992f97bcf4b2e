"""Collections with judgements: by path, and by name over local files in the shapes of their sources."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.data import collections
from rankr1_eval.data.collections import from_files, judged, read_judgements
from rankr1_rag import Passage
from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import read_qrels, read_run

pytestmark = pytest.mark.third_party


@pytest.fixture
def ir_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "ir_datasets"))
    return pytest.importorskip("ir_datasets", reason="collections by name need ir_datasets: rankr1-eval[hub]")


def test_trec_dl_2019_by_path(shared_data: Path) -> None:
    folder = shared_data / "trec-dl-2019"
    found = from_files(folder / "queries.tsv", folder / "passages.jsonl.gz", folder / "qrels.txt")
    assert (found.name, len(found.queries), len(found.qrels)) == ("qrels", 43, 43)
    assert found.qrels == read_qrels(folder / "qrels.txt")
    ids = [scored.id for scored in read_run(folder / "run.bm25.top100.trec", depth=10)["264014"]]
    texts = found.passages([*ids, "none"])
    assert sorted(texts) == sorted(ids)
    assert all(passage.id == id and passage.text for id, passage in texts.items())


def test_scifact_by_path_with_its_own_qrels(shared_data: Path) -> None:
    folder = shared_data / "beir-scifact"
    qrels = folder / "qrels_train.tsv"
    found = from_files(folder / "queries.jsonl", folder / "corpus.jsonl.gz", qrels, "scifact")
    lines = qrels.read_text().splitlines()[1:]
    assert sum(map(len, found.qrels.values())) == len(lines)
    assert found.qrels["0"] == {"31715818": 1}
    assert set(found.queries) == set(found.qrels)
    assert found.passages({"4983"})["4983"].title.startswith("Microstructural development")


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("query-id\tcorpus-id\tscore\n", None, "no judgement below its header"),
        ("query-id\tcorpus-id\tscore\n1\t2\n", 2, "has 3 fields, `query-id corpus-id score`, this one has 2"),
        ("query-id\tcorpus-id\tscore\n1\t2\t0.5\n", 2, "score '0.5' is not a whole number"),
        ("query-id\tcorpus-id\tscore\n1\t2\t1\n1\t2\t0\n", 3, "passage '2' is judged a second time for query '1'"),
        ("1\t2\t1\n", 1, "a qrels line has 4 fields"),
        ("1 0 2 1\n1 0 2 1\n", 2, "passage '2' is judged a second time"),
        ("", None, "the file is empty"),
    ],
)
def test_bad_judgements_name_their_line(tmp_path: Path, content: str, line: int | None, said: str) -> None:
    (tmp_path / "qrels").write_text(content)
    with pytest.raises(FileError, match=said) as caught:
        read_judgements(tmp_path / "qrels")
    assert caught.value.line == line


def test_a_judged_query_without_a_text_is_named_and_one_without_a_judgement_left_out(tmp_path: Path) -> None:
    files = {"queries.tsv": "q1\tone\nq2\ttwo\n", "passages.tsv": "p\ttext\n", "qrels.txt": "q1 0 p 1\n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    paths = [tmp_path / name for name in files]
    assert from_files(*paths).queries == {"q1": "one"}
    (tmp_path / "qrels.txt").write_text("q1 0 p 1\nq3 0 p 1\n")
    with pytest.raises(FileError, match=r"qrels.txt: query 'q3' is judged, but .*queries.tsv does not hold its text"):
        from_files(*paths)


@pytest.mark.parametrize("spec", ["dl21", "beir", "beir/", "scifact", "bright", "", "trec/x", "birco"])
def test_an_unknown_collection_is_refused_with_those_known(spec: str) -> None:
    with pytest.raises(ValueError, match=r"is unknown: must be one of dl19, dl20, beir/NAME, bright/NAME, birco:PATH"):
        judged(spec)


def test_trec_dl_of_the_catalogue_is_the_collection_by_path(
    shared_data: Path, tmp_path: Path, ir_datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_data / "trec-dl-2019"
    with gzip.open(folder / "passages.jsonl.gz", "rt") as lines:
        records = [json.loads(line) for line in lines]
    (tmp_path / "docs.tsv").write_text("".join(f"{record['docid']}\t{record['text']}\n" for record in records))
    local = ir_datasets.create_dataset(
        docs_tsv=tmp_path / "docs.tsv", queries_tsv=folder / "queries.tsv", qrels_trec=folder / "qrels.txt"
    )
    monkeypatch.setitem(ir_datasets.registry._registered, collections.TREC_DL["dl19"], local)
    found = judged("dl19")
    expected = from_files(folder / "queries.tsv", folder / "passages.jsonl.gz", folder / "qrels.txt")
    assert (found.name, found.queries, found.qrels, found.excluded) == ("dl19", expected.queries, expected.qrels, {})
    ids = [record["docid"] for record in records[:50]]
    assert found.passages([*ids, "none"]) == expected.passages(ids)


def test_a_data_set_of_beir_is_its_test_split(
    shared_data: Path, tmp_path: Path, ir_datasets: Any, monkeypatch: pytest.MonkeyPatch
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
    expected = from_files(folder / "queries.jsonl", folder / "corpus.jsonl.gz", folder / "qrels_train.tsv")
    assert (found.name, found.queries, found.qrels) == ("beir/sample", expected.queries, expected.qrels)
    assert found.excluded["0"] == {"0"}
    assert found.passages(["4983", "none"]) == expected.passages(["4983"])


def test_what_cannot_be_fetched_is_named(ir_datasets: Any, shared_data: Path) -> None:
    nowhere, qrels = ir_datasets.util.RequestsDownload("http://127.0.0.1:9/x"), shared_data / "trec-dl-2019/qrels.txt"
    local = ir_datasets.Dataset(
        ir_datasets.formats.TsvQueries(nowhere),
        ir_datasets.formats.TrecQrels(ir_datasets.util.LocalDownload(qrels), {}),
    )
    with pytest.raises(ConnectionError, match=r"mine could not be fetched \(.*\): try again, or give local files"):
        collections.of_catalogue("mine", local)


def test_the_catalogue_has_the_names_that_we_use(ir_datasets: Any) -> None:
    names = set(ir_datasets.registry)
    assert set(collections.TREC_DL.values()) <= names
    assert {"beir/scifact/test", "beir/nfcorpus/test", "beir/scidocs", "beir/trec-covid", "beir/fiqa/test"} <= names
    with pytest.raises(ValueError, match=r"BEIR has no 'scifct' with judgements: .* arguana, .*scifact"):
        judged("beir/scifct")


def rows_of(records: list[dict[str, Any]]) -> Any:
    datasets = pytest.importorskip("datasets", reason="BRIGHT needs datasets: rankr1-eval[hub]")
    return datasets.Dataset.from_list(records)


EXAMPLES = [
    {"id": "0", "query": "why", "gold_ids": ["a.txt", "b.txt"], "excluded_ids": ["N/A"], "gold_answer": "N/A"},
    {"id": "1", "query": "how", "gold_ids": ["b.txt"], "excluded_ids": ["c.txt", "a.txt"], "gold_answer": "N/A"},
]
DOCUMENTS = [{"id": f"{name}.txt", "content": f"text {name}"} for name in "abc"]


def test_bright_keeps_what_each_query_excludes() -> None:
    found = collections.of_bright("bright/x", rows_of(EXAMPLES), rows_of(DOCUMENTS))
    assert found.queries == {"0": "why", "1": "how"}
    assert found.qrels == {"0": {"a.txt": 1, "b.txt": 1}, "1": {"b.txt": 1}}
    assert found.excluded == {"1": {"a.txt", "c.txt"}}
    assert found.passages(["c.txt", "none"]) == {"c.txt": Passage("c.txt", "text c")}


@pytest.mark.parametrize(
    ("change", "said"), [({"id": "0"}, "query '0' comes twice"), ({"gold_ids": []}, "query '1' has no gold_ids")]
)
def test_a_bad_row_of_bright_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"bright/x: {said}"):
        collections.of_bright("bright/x", rows_of([EXAMPLES[0], {**EXAMPLES[1], **change}]), rows_of(DOCUMENTS))


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


BIRCO: dict[str, Any] = {"query": {"q": "text"}, "corpus": {"c": "text", "d": "text"}, "qrel": {"q": {"c": 1, "d": 0}}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
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
    (tmp_path / "x.json").write_text(json.dumps(BIRCO | change))
    with pytest.raises(FileError, match=said):
        judged(f"birco:{tmp_path / 'x.json'}")


def test_a_cut_file_of_birco_is_to_be_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(BIRCO)[:-10])
    with pytest.raises(FileError, match=r"the file is broken at byte \d+: the file is cut short, fetch it again"):
        judged(f"birco:{tmp_path / 'x.json'}")


@pytest.mark.parametrize(("spec", "module"), [("dl19", "ir_datasets"), ("beir/scifact", "ir_datasets")])
def test_a_missing_extra_is_named_with_its_command(spec: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "rankr1-eval\[hub\]"'):
        judged(spec)


def test_without_datasets_the_hub_and_bright_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from rankr1_eval.data import load

    monkeypatch.setitem(sys.modules, "datasets", None)
    for wanted in (lambda: judged("bright/biology"), lambda: load("hotpotqa")):
        with pytest.raises(ImportError, match=r'pip install "rankr1-eval\[hub\]", or give a local file'):
            wanted()
