"""JSON lines: candidates in, and out again in their new order with everything that came along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.errors import FileError
from rankr1_rag.io.jsonl import Candidates, ranking_from_json, ranking_to_json, read_candidates, to_line
from rankr1_rag.types import Passage, Query, Ranking


def file(folder: Path, content: str) -> Path:
    path = folder / "candidates.jsonl"
    path.write_bytes(content.encode())
    return path


def one(folder: Path, record: object) -> Candidates:
    (candidates,) = read_candidates(file(folder, json.dumps(record)))
    return candidates


# Candidates


@pytest.mark.parametrize(
    ("record", "query"),
    [
        ({"query": "which?"}, Query("1", "which?")),
        ({"query": {"text": "which?"}}, Query("1", "which?")),
        ({"query": {"id": "q", "text": "which?"}}, Query("q", "which?")),
        ({"query": {"id": "q", "text": "which?"}, "id": "line"}, Query("q", "which?")),
        ({"query": "which?", "id": "q"}, Query("q", "which?")),
        ({"query": "which?", "query_id": 7, "id": "line"}, Query("7", "which?")),
        ({"query": {"_id": 7, "query": "which?"}}, Query("7", "which?")),
        ({"query": "\ud800"}, Query("1", "\ud800")),
    ],
)
def test_a_query_is_a_text_or_an_object_and_without_an_id_it_has_its_line_number(
    tmp_path: Path, record: dict[str, Any], query: Query
) -> None:
    assert one(tmp_path, {**record, "passages": []}).query == query


def test_passages_are_texts_or_objects_and_without_an_id_they_have_their_position(tmp_path: Path) -> None:
    given = ["A", {"text": "B", "title": "T", "url": "u"}, {"id": 12, "text": "C"}, {"docid": "d", "contents": "D"}]
    candidates = one(tmp_path, {"query": "which?", "passages": given, "more": {"x": 1}})
    assert candidates.passages == (Passage("0", "A"), Passage("1", "B", "T"), Passage("12", "C"), Passage("d", "D"))
    assert candidates.raw == {"query": "which?", "passages": given, "more": {"x": 1}}


def test_blank_lines_are_skipped_and_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = file(tmp_path, '\ufeff{"query": "x", "passages": []}\r\n\n{"query": "y", "passages": []}')
    assert [(found.query, found.line) for found in read_candidates(path)] == [
        (Query("1", "x"), 1),
        (Query("3", "y"), 3),
    ]


def test_a_bad_line_is_an_error_only_when_it_is_reached(tmp_path: Path) -> None:
    path = file(tmp_path, '{"query": "x", "passages": ["A"]}\n{"query"')
    lines = read_candidates(path)
    assert next(lines).query.text == "x"
    with pytest.raises(FileError, match=r"candidates\.jsonl:2: not JSON"):
        next(lines)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"query": "x", "passages": [}', "not JSON: Expecting value at column 29"),
        ('{"query": "x', "not JSON: Unterminated string starting at column 11"),
        ('["x"]', "the line is an array where an object is needed"),
        ("7", "the line is a whole number where an object is needed"),
        ('{"passages": []}', 'field "query" is missing or null'),
        ('{"query": "x"}', 'field "passages" is missing or null'),
        ('{"query": " ", "passages": []}', "the query '2' is empty: pass"),
        ('{"query": 7, "passages": []}', 'field "query" is a whole number where a string or an object is needed'),
        ('{"query": {"id": "q"}, "passages": []}', 'field "text" or "query" is missing or null'),
        ('{"query": {"text": true}, "passages": []}', 'field "text" is a boolean where a string is needed'),
        ('{"query": "x", "id": [], "passages": []}', 'field "id" is an array where a string is needed'),
        ('{"query": "x", "passages": {}}', 'field "passages" is an object where an array is needed'),
        ('{"query": "x", "passages": ["A", null]}', "passages[1]: the passage is null where a string or an object"),
        ('{"query": "x", "passages": [{"id": "a"}]}', 'passages[0]: field "text" or "contents" is missing or null'),
        (
            '{"query": "x", "passages": [{"text": 1.5}]}',
            'passages[0]: field "text" is a number where a string is needed',
        ),
        ('{"query": "x", "passages": [{"text": "", "title": 1}]}', 'passages[0]: field "title" is a whole number'),
        ('{"query": "x", "passages": [{"text": "", "score": NaN}]}', "NaN is not JSON"),
        ('{"query": "x\0"}', "NUL at column 13"),
        ('{"query": "\\u00', "not JSON: Invalid \\uXXXX escape"),
    ],
)
def test_a_malformed_line_is_an_error_that_names_file_line_and_field(tmp_path: Path, line: str, says: str) -> None:
    path = file(tmp_path, f"\n{line}\n")
    with pytest.raises(FileError) as caught:
        list(read_candidates(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)


def test_an_empty_file_of_candidates_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"candidates\.jsonl: the file is empty"):
        list(read_candidates(file(tmp_path, "")))


# Reranked


def test_what_came_with_the_candidates_goes_out_with_the_ranking(tmp_path: Path) -> None:
    given = ["A", {"docid": 7, "text": "B", "meta": {"x": [1]}, "score": 12.5, "rank": 2}, {"id": None, "text": "C"}]
    line = {"query": {"qid": "q", "text": "which?", "lang": "en"}, "passages": given, "supports": ["7"]}
    candidates = one(tmp_path, line)
    before = json.dumps(candidates.raw)
    ranking = Ranking(candidates.query, candidates.passages, (1, 2, 0), k=1)
    written = ranking_to_json(ranking, candidates.raw)
    assert written["query"] == {"qid": "q", "text": "which?", "lang": "en", "id": "q"}
    assert written["supports"] == ["7"]
    assert written["passages"] == [
        {
            "docid": 7,
            "text": "B",
            "meta": {"x": [1]},
            "retrieval_score": 12.5,
            "retrieval_rank": 2,
            "rank": 1,
            "score": 1,
        },
        {"id": "2", "text": "C", "rank": 2, "score": 2 / 3},
        {"id": "0", "text": "A", "rank": 3, "score": 1 / 3},
    ]
    assert json.dumps(candidates.raw) == before


def test_a_ranking_reranked_again_keeps_the_score_of_the_first_retriever(tmp_path: Path) -> None:
    raw: dict[str, Any] = {"query": "which?", "passages": [{"text": "A", "score": 12.5}, {"text": "B", "score": 11.5}]}
    for order in [(1, 0), (1, 0)]:
        candidates = one(tmp_path, raw)
        raw = ranking_to_json(Ranking(candidates.query, candidates.passages, order, k=1), candidates.raw)
    assert [(passage["id"], passage["score"], passage["retrieval_score"]) for passage in raw["passages"]] == [
        ("0", 1.0, 12.5),
        ("1", 0.5, 11.5),
    ]


texts = st.text(st.characters(), max_size=8)  # lone surrogates too
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
ids = st.none() | texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
extra = st.dictionaries(texts.map("x-{}".format), values, max_size=2)
objects = st.builds(
    lambda more, id, name, text, title: {**more, name: id, "text": text, "title": title},
    extra, ids, st.sampled_from(["id", "_id", "docid"]), texts, st.none() | texts,
)  # fmt: skip
said = texts.map("?{}".format)  # a query is not empty
lines = st.builds(
    lambda more, query, id, passages: {**more, "query": query, "id": id, "passages": passages},
    extra, said | st.builds(lambda more, text: {**more, "text": text}, extra, said), ids, st.lists(texts | objects),
)  # fmt: skip


@given(line=lines, data=st.data())
def test_any_line_of_candidates_comes_back_reranked_with_every_field_it_had(
    tmp_path_factory: pytest.TempPathFactory, line: dict[str, Any], data: st.DataObject
) -> None:
    candidates = one(tmp_path_factory.mktemp("lines"), line)
    order = tuple(data.draw(st.permutations(range(len(line["passages"])))))
    ranking = Ranking(candidates.query, candidates.passages, order, k=0)
    written = json.loads(to_line(ranking_to_json(ranking, candidates.raw)))
    assert ranking_from_json(written) == ranking
    assert {key: value for key, value in written.items() if key.startswith("x-") or key == "id"} == {
        key: value for key, value in line.items() if key not in ("query", "passages")
    }
    for position, passage in zip(order, written["passages"], strict=True):
        came = line["passages"][position]
        came = {"text": came} if isinstance(came, str) else came
        assert all(passage[key] == value for key, value in came.items() if (key, value) != ("id", None))
