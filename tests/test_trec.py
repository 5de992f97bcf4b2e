"""Runs and qrels: what is read, what is refused, and that what is written comes back."""

from __future__ import annotations

import io
import math
import os
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.errors import FileError
from rankr1_rag.io.trec import Scored, read_qrels, read_run, run_entry, write_qrels, write_run
from rankr1_rag.types import Passage, Query, Ranking

Writer = Callable[..., Path]

GOOD = b"q1 Q0 d1 1 2.5 bm25\n"


# Runs, read


def test_a_run_is_ordered_by_score_and_the_rank_is_ignored(file: Writer) -> None:
    path = file("q2 Q0 a 1 1 t\nq1 Q0 a 1 -3e-1 t\nq2\tQ0\tb\t9\t7.5\tt\nq1 Q0 b 1 .5 t\n")
    assert read_run(path) == {"q2": [("b", 7.5), ("a", 1.0)], "q1": [("b", 0.5), ("a", -0.3)]}
    assert read_run(path)["q2"][0] == Scored(id="b", score=7.5)


def test_equal_scores_keep_the_order_of_the_file(file: Writer) -> None:
    path = file("".join(f"q Q0 {id} 1 {score} t\n" for id, score in [("b", 1), ("c", 2), ("a", 1), ("d", 2)]))
    assert [id for id, _ in read_run(path)["q"]] == ["c", "d", "b", "a"]


@pytest.mark.parametrize(("depth", "ids"), [(None, ["c", "b", "a"]), (1, ["c"]), (2, ["c", "b"]), (9, ["c", "b", "a"])])
def test_depth_keeps_the_best_not_the_first(file: Writer, depth: int | None, ids: list[str]) -> None:
    path = file("q Q0 a 1 1 t\nq Q0 b 2 2 t\nq Q0 c 3 3 t\n")
    assert [id for id, _ in read_run(path, depth)["q"]] == ids
    with pytest.raises(ValueError, match="depth=0"):
        read_run(path, 0)


@pytest.mark.parametrize(
    ("read", "content", "line", "says"),
    [
        (read_run, b"", None, "empty"),
        (read_run, GOOD + b"q1 Q0 d2 2 1.5\n", 2, "`qid Q0 docid rank score tag`, this one has 5"),
        (read_run, GOOD + b"q1 Q0 d2 2 1.5 my tag\n", 2, "this one has 7"),
        (read_run, b"q1 0 d2 1\n", 1, "looks like qrels"),
        (read_run, GOOD + b"\nq1 Q0 d2 2 high bm25\n", 3, "score 'high' is not a finite number"),
        (read_run, GOOD + b"q1 Q0 d2 2 nan bm25\n", 2, "score 'nan' is not a finite number"),
        (read_run, GOOD + b"q1 Q0 d2 2 -inf bm25\n", 2, "score '-inf' is not a finite number"),
        (read_run, GOOD + b"q1 Q0 d2 2 1e999 bm25\n", 2, "score '1e999' is not a finite number"),
        (read_run, GOOD + b"q1 Q0 d2 2 1_5 bm25\n", 2, "score '1_5' is not a finite number"),
        (read_run, b"# nothing else\n", None, "nothing but comments"),
        (read_run, GOOD + b"q1 Q0 d\xe9 2 1 bm25\n", 2, "byte 0xe9 at column 8 is not UTF-8"),
        (read_qrels, b"", None, "empty"),
        (read_qrels, b"query-id\tcorpus-id\tscore\n", None, "no judgement below its header"),
        (
            read_qrels,
            b"query-id\tcorpus-id\tscore\nq\ta\n",
            2,
            "3 fields, `query-id corpus-id score`, this one has 2",
        ),
        (read_qrels, b"query-id\tcorpus-id\tscore\nq\ta\t0.5\n", 2, "relevance '0.5' is not a whole number"),
        (read_qrels, b"q 0 a 1\nq Q0 a 1 2.0 t\n", 2, "looks like a run"),
        (read_qrels, b"q 0 a 1\nq 0 b\n", 2, "or 3 under the header `query-id corpus-id score`, this one has 3"),
        (read_qrels, b"q 0 a 1.5\n", 1, "relevance '1.5' is not a whole number"),
        (read_qrels, b"q 0 a 1_0\n", 1, "relevance '1_0' is not a whole number"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_file_and_line(
    file: Writer, read: Callable[[Path], object], content: bytes, line: int | None, says: str
) -> None:
    path = file(content)
    with pytest.raises(FileError, match=re.escape(f"{path}:{line}: " if line else f"{path}: ")) as caught:
        read(path)
    assert says in str(caught.value)


def test_comments_are_skipped_repeated_ids_keep_the_first_and_ids_between_tabs_become_words(
    file: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    run = file("# BM25 run of DL 2019\n#q Q0 a 1 3 t\nq\tQ0\tof two\t1\t2\tt\n#\nq Q0 b 2 1.5 t\nq Q0 b 3 1 t\n", "run")
    assert read_run(run) == {"#q": [("a", 3.0)], "q": [("of_two", 2.0), ("b", 1.5)]}
    qrels = file("# qrels\nq\t0\tof two\t1\nq 0 b 2\nq 0 b 1\nq 0 of_two 0\n", "qrels")
    assert read_qrels(qrels) == {"q": {"of_two": 1, "b": 2}}
    assert caplog.messages == [
        f"{run}:6: duplicate passage 'b' in the ranking of query 'q': the first is kept",
        f"{qrels}:4: duplicate judgement of passage 'b' for query 'q', and 1 more: the first is kept",
    ]


@pytest.mark.parametrize("dummy", [False, True], ids=["ranks", "no ranks"])
@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
def test_distances_are_noticed_and_read_on_demand(
    file: Writer, caplog: pytest.LogCaptureFixture, dummy: bool, shuffled: bool
) -> None:
    lines = [f"{q} Q0 d{n} {0 if dummy else n} {n / 10:.1f} faiss\n" for q in ("q1", "q2") for n in range(1, 6)]
    path = file("".join(lines[::-1] if shuffled and not dummy else lines))
    assert read_run(path, 2)["q1"] == [("d5", 0.5), ("d4", 0.4)]
    (problem,) = caplog.messages
    assert problem.startswith(f"{path}: query '{'q2' if shuffled and not dummy else 'q1'}' (and 1 more): its first-")
    assert "rise from the first candidate to the last, as distances do" in problem
    assert "if they are distances, use distances=True (--distances)" in problem
    caplog.clear()
    assert read_run(path, 2, distances=True)["q1"] == [("d1", -0.1), ("d2", -0.2)]
    assert caplog.messages == []


def test_scores_that_contradict_ranks_are_noticed_of_similarities_too(
    file: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    read_run(file("q Q0 a 1 3 t\nq Q0 b 2 2 t\nq Q0 c 3 1 t\n"), distances=True)
    read_run(file("q Q0 a 1 2 t\nq Q0 b 2 3 t\nq Q0 c 3 1 t\n"))
    fall, mixed = caplog.messages
    assert "fall from the first candidate to the last, as similarities do; the least counts as the best" in fall
    assert "are not in the order of its candidates; the greatest counts as the best" in mixed


# Runs, written


def test_a_run_has_six_fields_ranks_from_one_and_the_scores_as_they_are() -> None:
    out = io.StringIO()
    write_run(out, [("q1", [("b", 1.0), ("a", 2 / 3)]), ("q2", []), ("q3", iter([("a", 7)]))], tag="mine")
    assert out.getvalue() == (
        "q1 Q0 b 1 1.0 mine\n"
        "q1 Q0 a 2 0.6666666666666666 mine\n"
        "q3 Q0 a 1 7.0 mine\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (("q", [("a", 1.0), ("b", 0.5), ("a", 0.1)]), "query 'q': passage id 'a' is ranked twice"),
        (("q", [("a", 1.0), ("b", 1.0)]), "query 'q': score 1.0 of passage 'b' at rank 2 is not below the 1.0"),
        (("q", [("a", 1.0), ("b", 2.0)]), "query 'q': score 2.0 of passage 'b' at rank 2"),
        (("q", [("a", 1.0), ("b", 1.0 - 1e-9)]), "query 'q': score 0.999999999 of passage 'b' at rank 2"),
        (("q", [("a", 1e-60), ("b", 0.0)]), "as float32"),
        (("q", [("a", math.nan)]), "query 'q': score nan of passage 'a'"),
        (("q", [("a", math.inf)]), "query 'q': score inf of passage 'a'"),
        (("q", [("a", 1.0), ("b", -1e39)]), "query 'q': score -1e+39 of passage 'b' is not a finite float32"),
        (("q", [("a b", 1.0)]), "query 'q': passage id 'a b' is not one word"),
        (("q", [("", 1.0)]), "query 'q': passage id '' is not one word"),
        (("q", [("a\n", 1.0)]), r"passage id 'a\n' is not one word"),
        (("q", [("\ud800", 1.0)]), r"passage id '\ud800' is not one word"),
        (("q\u00a01", [("a", 1.0)]), r"query id 'q\xa01' is not one word"),
        (("\ufeffq", [("a", 1.0)]), r"query id '\ufeffq' is not one word"),
        (("", [("a", 1.0)]), "query id '' is not one word"),
        (("good", [("a", 1.0)]), "query 'good' is ranked twice"),
    ],
)
def test_what_would_be_read_otherwise_is_refused_before_a_line_of_it_is_written(
    file: Writer, tmp_path: Path, entry: tuple[str, list[tuple[str, float]]], says: str
) -> None:
    out, path = io.StringIO(), file("q Q0 a 1 1.0 old\n")
    for target in (out, path):
        with pytest.raises(ValueError, match=re.escape(says)):
            write_run(target, [("good", [("a", 1.0)]), entry])
    assert out.getvalue() == "good Q0 a 1 1.0 rankr1\n"
    assert path.read_text() == "q Q0 a 1 1.0 old\n"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("tag", ["", "my run", "a\tb"])
def test_a_tag_is_one_word(tag: str) -> None:
    with pytest.raises(ValueError, match="tag"):
        write_run(io.StringIO(), [], tag)


def test_a_ranking_is_written_in_its_order_with_its_scores(tmp_path: Path) -> None:
    candidates = tuple(Passage(id, "text") for id in "abc")
    rankings = [Ranking(Query(id, "text"), candidates, (2, 0, 1), k=1) for id in ("q1", "q2")]
    write_run(tmp_path / "run", map(run_entry, rankings))
    expected = [("c", 1.0), ("a", 2 / 3), ("b", 1 / 3)]
    assert read_run(tmp_path / "run") == {"q1": expected, "q2": expected}


def test_the_scores_of_a_ranking_of_a_hundred_thousand_are_accepted() -> None:
    n = 100_000
    ranking = Ranking(Query("q", ""), tuple(Passage(str(id), "") for id in range(n)), tuple(range(n)), k=0)
    out = io.StringIO()
    write_run(out, [run_entry(ranking)])
    assert out.getvalue().count("\n") == n


words = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"], exclude_characters="\ufeff"), min_size=1)
falling = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), unique=True).map(
    lambda scores: sorted({score + 0.0 for score in scores}, reverse=True)
)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, list[Scored]]:
    run = {}
    for query in draw(st.sets(words, min_size=1, max_size=4)):
        scores = draw(falling.filter(bool))
        ids = draw(st.lists(words, min_size=len(scores), max_size=len(scores), unique=True))
        run[query] = [Scored(id, score) for id, score in zip(ids, scores, strict=True)]
    return run


@given(run=runs(), name=st.sampled_from(["run.trec", "run.trec.gz"]))
def test_every_run_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, run: dict[str, list[Scored]], name: str
) -> None:
    path = tmp_path_factory.mktemp("run") / name
    write_run(path, run.items())
    assert read_run(path) == run


@given(st.lists(st.tuples(st.text(max_size=3), st.floats()), max_size=4), st.text(max_size=3))
def test_any_ranking_is_either_refused_or_kept_by_trec_eval(ranking: list[tuple[str, float]], query: str) -> None:
    out = io.StringIO()
    try:
        write_run(out, [(query, ranking)])
    except ValueError:
        assert out.getvalue() == ""
        return
    lines = [line.split() for line in out.getvalue().split("\n")[:-1]]
    assert [(line[0], line[2]) for line in lines] == [(query, id) for id, _ in ranking]
    singles = [struct.unpack("f", struct.pack("f", float(line[4])))[0] for line in lines]
    assert all(above > below for above, below in pairwise(singles))


@pytest.fixture
def dl19(shared_data: Path) -> Path:
    return shared_data / "trec-dl-2019"


def test_the_bm25_run_of_trec_dl_2019_has_43_queries_with_100_passages(dl19: Path) -> None:
    run = read_run(dl19 / "run.bm25.top100.trec")
    assert (len(run), {len(ranked) for ranked in run.values()}) == (43, {100})
    assert run["264014"][:2] == [("5611210", 15.7806), ("6641238", 15.0908)]
    assert read_run(dl19 / "run.bm25.top100.trec", 10) == {query: ranked[:10] for query, ranked in run.items()}


def test_the_order_of_trec_dl_2019_comes_back_and_its_queries_with_ties_are_refused(dl19: Path, tmp_path: Path) -> None:
    run = read_run(dl19 / "run.bm25.top100.trec")
    with pytest.raises(ValueError, match=r"is not below the \d"):
        write_run(tmp_path / "run.gz", run.items())
    untied = {query: ranked for query, ranked in run.items() if len({score for _, score in ranked}) == 100}
    assert len(untied) == 38
    write_run(tmp_path / "run.gz", untied.items(), tag="bm25")
    assert read_run(tmp_path / "run.gz") == untied
    rankings = [
        Ranking(Query(query, ""), tuple(Passage(id, "") for id, _ in ranked), tuple(range(100)), k=0)
        for query, ranked in run.items()
    ]
    write_run(tmp_path / "ordinal", map(run_entry, rankings))
    again = read_run(tmp_path / "ordinal")
    assert [[id for id, _ in again[query]] for query in run] == [[id for id, _ in ranked] for ranked in run.values()]


# Qrels


def test_qrels_keep_every_judgement_negative_ones_too(file: Writer) -> None:
    path = file("q2 0 a 3\nq1\t0\ta\t-2\nq2 0 b 0\n")
    assert read_qrels(path) == {"q2": {"a": 3, "b": 0}, "q1": {"a": -2}}


@pytest.mark.parametrize(
    "content",
    [
        "query-id\tcorpus-id\tscore\nq\ta\t1\nq\tof two\t0\n",
        "q\ta\t1.0\nq\tof two\t0.0\n",
        '"q_id"\t"doc_id"\t"rel"\nq\ta\t1.0\nq\tof two\t0.0\n',
        "q 0 a 1\nq 0 of\u00a0two 0\n",
        "# BEIR\nquery-id corpus-id score\nq a 1\nq of_two 0\n",
        "qid\titer\tdocid\trel\nq\t0\ta\t1.0\nq\tQ0\tof two\t0\n",
    ],
)
def test_qrels_of_beir_are_read_with_and_without_a_header(file: Writer, content: str) -> None:
    assert read_qrels(file(content)) == {"q": {"a": 1, "of_two": 0}}


@given(st.dictionaries(words, st.dictionaries(words, st.integers(-9, 9), min_size=1, max_size=4), min_size=1))
def test_all_qrels_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, qrels: dict[str, dict[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("qrels") / "qrels.txt.gz"
    write_qrels(path, qrels)
    assert read_qrels(path) == qrels


@pytest.mark.parametrize(
    ("write", "content", "says"),
    [
        (write_run, [], "nothing to write"),
        (write_run, [("q", [])], "nothing to write"),
        (write_qrels, {"q 1": {"a": 1}}, "query id 'q 1' is not one word"),
        (write_qrels, {"q": {"": 1}}, "query 'q': passage id '' is not one word"),
        (write_qrels, {"q": {}}, "nothing to write"),
    ],
)
def test_a_file_that_would_be_read_otherwise_is_not_written(
    tmp_path: Path, write: Callable[[Path, Any], None], content: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        write(tmp_path / "file", content)
    assert os.listdir(tmp_path) == []


def test_the_qrels_of_trec_dl_2019_come_back_as_they_were_written(dl19: Path, tmp_path: Path) -> None:
    qrels = read_qrels(dl19 / "qrels.txt")
    assert (len(qrels), sum(map(len, qrels.values()))) == (43, 9260)
    assert {relevance for judged in qrels.values() for relevance in judged.values()} == {0, 1, 2, 3}
    write_qrels(tmp_path / "qrels.txt", qrels)
    assert read_qrels(tmp_path / "qrels.txt") == qrels


def test_real_qrels_of_beir_are_read(shared_data: Path) -> None:
    qrels = read_qrels(shared_data / "beir-scifact" / "qrels_train.tsv")
    assert (len(qrels), sum(map(len, qrels.values())), qrels["0"]) == (809, 919, {"31715818": 1})
