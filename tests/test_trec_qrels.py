"""Qrels: what is read, what is refused, and that what is written comes back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import read_qrels, write_qrels

DATA = Path(os.environ.get("RANKR1_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
DL19 = DATA / "trec-dl-2019"
needs_data = pytest.mark.skipif(not DL19.is_dir(), reason=f"no {DL19}: set RANKR1_SHARED_DATA to the shared data")


def file(folder: Path, content: bytes | str, name: str = "file.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


words = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters="\ufeff"), min_size=1)


def test_qrels_keep_every_judgement_negative_ones_too(tmp_path: Path) -> None:
    path = file(tmp_path, "q2 0 a 3\nq1\t0\ta\t-2\nq2 0 b 0\n")
    assert read_qrels(path) == {"q2": {"a": 3, "b": 0}, "q1": {"a": -2}}


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"", None, "empty"),
        (b"query-id\tcorpus-id\tscore\nq\ta\t1\n", 1, "BEIR qrels (query-id, corpus-id, score)? Convert them: awk"),
        (b"q 0 a 1\nq Q0 a 1 2.0 t\n", 2, "looks like a run"),
        (b"q 0 a 1\nq 0 b\n", 2, "`qid 0 docid rel`, this one has 3"),
        (b"q 0 a 1.5\n", 1, "relevance '1.5' is not a whole number"),
        (b"q 0 a 1_0\n", 1, "relevance '1_0' is not a whole number"),
        (b"q 0 a 1\nq 0 a 1\n", 2, "passage 'a' is judged a second time for query 'q'"),
    ],
)
def test_malformed_qrels_are_an_error_that_names_file_and_line(
    tmp_path: Path, content: bytes, line: int | None, says: str
) -> None:
    path = file(tmp_path, content)
    with pytest.raises(FileError) as caught:
        read_qrels(path)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert says in str(caught.value)


@given(st.dictionaries(words, st.dictionaries(words, st.integers(-9, 9), min_size=1, max_size=4), min_size=1))
def test_all_qrels_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, qrels: dict[str, dict[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("qrels") / "qrels.txt.gz"
    write_qrels(path, qrels)
    assert read_qrels(path) == qrels


@pytest.mark.parametrize(
    ("qrels", "says"),
    [
        ({"q 1": {"a": 1}}, "query id 'q 1' is not one word"),
        ({"q": {"": 1}}, "query 'q': passage id '' is not one word"),
        ({"q": {}}, "nothing to write"),
    ],
)
def test_qrels_that_would_be_read_otherwise_are_refused(
    tmp_path: Path, qrels: dict[str, dict[str, int]], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        write_qrels(tmp_path / "qrels", qrels)
    assert os.listdir(tmp_path) == []


@needs_data
def test_the_qrels_of_trec_dl_2019_come_back_as_they_were_written(tmp_path: Path) -> None:
    qrels = read_qrels(DL19 / "qrels.txt")
    assert len(qrels) == 43
    assert sum(map(len, qrels.values())) == 9260
    assert {relevance for judged in qrels.values() for relevance in judged.values()} == {0, 1, 2, 3}
    write_qrels(tmp_path / "qrels.txt", qrels)
    assert read_qrels(tmp_path / "qrels.txt") == qrels


@needs_data
def test_real_beir_qrels_are_told_from_trec_qrels() -> None:
    with pytest.raises(FileError, match=r"qrels_train\.tsv:1: .*BEIR"):
        read_qrels(DATA / "beir-scifact" / "qrels_train.tsv")
