"""JSON lines: candidates in, rankings out with everything that came along, and every ranking comes back whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.errors import FileError
from rankr1_rag.io.jsonl import (
    Candidates,
    ranking_from_json,
    ranking_to_json,
    read_candidates,
    read_rankings,
    to_line,
)
from rankr1_rag.types import Comparison, Completion, Cost, Passage, Query, Ranking, TokenLogprob

Writer = Callable[..., Path]
PASSAGES = (Passage("a", "A"), Passage("b", "B", "Title"), Passage("a", "A again"))
COMPLETION = Completion("<think>B.</think> <answer>[2]</answer>", 40, 8, 9, "stop")
TRACE = (
    Comparison((0, 1), (1,), COMPLETION, round=0, reasoning="B."),
    Comparison((1, 2), (1,), Completion("no", 40, 0, 1, "length"), round=1, parsed=False, forced=True, sample=2),
)
RANKING = Ranking(Query("q", "which?"), PASSAGES, (1, 0, 2), k=1, trace=TRACE, clipped=3, seconds=0.5)


def one(folder: Path, record: object) -> Candidates:
    (folder / "candidates.jsonl").write_text(json.dumps(record))
    (candidates,) = read_candidates(folder / "candidates.jsonl")
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


def test_blank_lines_are_skipped_and_lines_are_counted_as_an_editor_counts_them(file: Writer) -> None:
    found = read_candidates(file('\ufeff{"query": "x", "passages": []}\r\n\n{"query": "y", "passages": []}'))
    assert [(one.query, one.line) for one in found] == [(Query("1", "x"), 1), (Query("3", "y"), 3)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"query": "x", "passages": [}', "not JSON: Expecting value at column 29"),
        ('{"query": "x', "not JSON: Unterminated string starting at column 11"),
        ('["x"]', "the line is an array where an object is needed"),
        ("7", "the line is a whole number where an object is needed"),
        ('{"passages": []}', 'field "query" or "question" is missing or null; the fields are "passages"'),
        (
            '{"query": "x", "docs": []}',
            '"ctxs" or "documents" is missing or null; the fields are "query", "docs"',
        ),
        ('{"query": " ", "passages": []}', "the query '2' is empty: pass"),
        ('{"query": 7, "passages": []}', 'field "query" is a whole number where a string or an object is needed'),
        ('{"query": {"id": "q"}, "passages": []}', '"query" or "question" is missing or null; the fields are "id"'),
        ('{"query": {"text": true}, "passages": []}', 'field "text" is a boolean where a string is needed'),
        ('{"query": "x", "id": [], "passages": []}', 'field "id" is an array where a string is needed'),
        ('{"query": "x", "passages": {}}', 'field "passages" is an object where an array is needed'),
        ('{"query": "x", "passages": ["A", null]}', "passages[1]: the passage is null where a string or an object"),
        ('{"query": "x", "passages": [{"id": "a"}]}', 'passages[0]: field "text" or "contents" or'),
        ('{"query": "x", "passages": [{"text": 1.5}]}', 'passages[0]: field "text" is a number where a string'),
        ('{"query": "x", "passages": [{"text": "", "title": 1}]}', 'passages[0]: field "title" is a whole number'),
        ('{"query": "x", "passages": [{"text": "", "score": NaN}]}', "NaN is not JSON"),
        ('{"query": "x\0"}', "NUL at column 13"),
        ('{"query": "\\u00', "not JSON: Invalid \\uXXXX escape"),
    ],
)
def test_a_malformed_line_is_an_error_that_names_file_line_and_field_when_it_is_reached(
    file: Writer, line: str, says: str
) -> None:
    path = file(f'{{"query": "x", "passages": ["A"]}}\n{line}\n')
    lines = read_candidates(path)
    assert next(lines).query.text == "x"
    with pytest.raises(FileError, match=re.escape(f"{path}:2: ")) as caught:
        next(lines)
    assert says in str(caught.value)


A, B = {"docid": "a", "score": 2.5, "doc": {"contents": "A"}}, {"docid": "b", "doc": {"segment": "B", "title": "T"}}


@pytest.mark.parametrize(
    ("line", "name", "id"),
    [
        ({"query": {"qid": 7, "text": "which?"}, "candidates": [A, B]}, "candidates", "7"),
        ({"query": "which?", "passages": [], "candidates": [A, B]}, "candidates", "1"),
        ({"query": "which?", "hits": [{"content": "A", "qid": 7, **A}, B]}, "hits", "1"),
        (
            {
                "question": "which?",
                "answers": ["x"],
                "ctxs": [{"text": "A", "id": "a"}, {"text": "B", "id": "b", "title": "T"}],
            },
            "ctxs",
            "1",
        ),
        ({"query": "which?", "documents": ["A", {"title": "T", "text": "B"}], "top_n": 1}, "documents", "1"),
    ],
    ids=["RankLLM, Anserini", "an empty list first", "RankLLM's older", "DPR", "Cohere"],
)
def test_the_lines_of_other_programs_are_read_and_come_back_in_their_shape(
    tmp_path: Path, line: dict[str, Any], name: str, id: str
) -> None:
    candidates = one(tmp_path, line)
    assert (candidates.query.id, [passage.text for passage in candidates.passages]) == (id, ["A", "B"])
    assert candidates.passages[1].title == "T"
    ranking = Ranking(candidates.query, candidates.passages, (1, 0), k=1)
    written = ranking_to_json(ranking, candidates.raw)
    assert {key: value for key, value in written.items() if key not in (name, "rankr1")} == {
        key: value for key, value in line.items() if key != name
    }
    for passage, came in zip(written[name], line[name][::-1], strict=True):
        own = {"score": passage["score"], "rank": passage["rank"]}
        assert passage == {**passage, **({"text": came} if isinstance(came, str) else came), **own}
    assert [(passage["rank"], passage["score"]) for passage in written[name]] == [(1, 1.0), (2, 0.5)]
    assert ranking_from_json(json.loads(to_line(written))) == ranking


@pytest.mark.parametrize("scores", [[0.1, 0.2, 0.2, 0.9], ["0.1", "0.2", "0.3", "0.9"], [1, 9, 2, 3]])
def test_scores_that_contradict_the_order_are_noticed_once_and_distances_are_sorted(
    file: Writer, caplog: pytest.LogCaptureFixture, scores: list[Any]
) -> None:
    line = {"query": "which?", "candidates": [{"text": f"{one}", "score": one} for one in scores]}
    path = file(json.dumps({"query": "x", "passages": ["A"]}) + 2 * f"\n{json.dumps(line)}")
    for _ in range(2):
        *_, last = read_candidates(path)
        assert [passage.text for passage in last.passages] == [f"{one}" for one in scores]
    (problem,) = caplog.messages
    assert problem.startswith(f"{path}:2: query '2': its first-stage scores ")
    assert "; their order is kept: if they are distances, use distances=True (--distances)" in problem
    *_, last = read_candidates(path, distances=True)
    assert [passage.text for passage in last.passages] == sorted(f"{one}" for one in scores)
    assert [passage["score"] for passage in last.raw["candidates"]] == sorted(scores)


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
    first = {"docid": 7, "text": "B", "meta": {"x": [1]}, "retrieval_score": 12.5, "retrieval_rank": 2}
    assert written["passages"] == [
        {**first, "rank": 1, "score": 1},
        {"id": "2", "text": "C", "rank": 2, "score": 2 / 3},
        {"id": "0", "text": "A", "rank": 3, "score": 1 / 3},
    ]
    assert json.dumps(candidates.raw) == before


def test_a_ranking_reranked_again_keeps_the_score_of_the_first_retriever(tmp_path: Path) -> None:
    raw: dict[str, Any] = {"query": "which?", "passages": [{"text": "A", "score": 12.5}, {"text": "B", "score": 11.5}]}
    for order in [(1, 0), (1, 0)]:
        candidates = one(tmp_path, raw)
        raw = ranking_to_json(Ranking(candidates.query, candidates.passages, order, k=1), candidates.raw)
    found = [(passage["id"], passage["score"], passage["retrieval_score"]) for passage in raw["passages"]]
    assert found == [("0", 1.0, 12.5), ("1", 0.5, 11.5)]


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


# Written


def test_without_its_trace_a_ranking_still_knows_its_cost() -> None:
    written = ranking_to_json(RANKING, trace=False)
    assert "trace" not in written["rankr1"]
    read = ranking_from_json(written)
    assert (read.trace, read.cost, sum([read.cost, read.cost], Cost()).comparisons) == ((), RANKING.cost, 4)
    assert (read.order, read.passages, read.scores) == (RANKING.order, RANKING.passages, RANKING.scores)


def test_a_raw_object_of_another_query_is_refused() -> None:
    with pytest.raises(ValueError, match="`raw` has 1 passages, the ranking 3"):
        ranking_to_json(RANKING, {"query": "x", "passages": ["A"]})


def test_a_line_is_ascii_and_one_line_whatever_the_text() -> None:
    line = to_line({"text": "ä\u2028\n\x1b[31m\x9b\ud800"})
    assert line.isascii()
    assert line.rstrip(" \t\n").isprintable()
    assert json.loads(line) == {"text": "ä\u2028\n\x1b[31m\x9b\ud800"}


# Read


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["rankr1"], None, 'field "rankr1" is missing or null'),
        (["rankr1", "version"], 2, '"rankr1" is of version 2, this package reads 1: update it'),
        (["rankr1", "order"], [0, 1], '"order" must name each of the 3 passages once, not [0, 1]'),
        (["rankr1", "order"], [0, 1, 1], '"order" must name each of the 3 passages once, not [0, 1, 1]'),
        (["rankr1", "order"], [0, 1, 2, 0], '"order" must name each of the 3 passages once, not [0, 1, 2, 0]'),
        (["rankr1", "order"], [0, 1, 3], 'position 3 in "order" is not in 0..2'),
        (["rankr1", "order"], [0, 1, -1], 'position -1 in "order" is not in 0..2'),
        (["rankr1", "order"], [0, 1, "2"], "is a string where a whole number is needed"),
        (["rankr1", "k"], True, 'field "k" is a boolean where a whole number is needed'),
        (["rankr1", "failure"], 7, 'field "failure" is a whole number where a string is needed'),
        (["rankr1", "cost"], {}, 'field "comparisons" is missing or null'),
        (["rankr1", "trace"], None, 'field "trace" is missing or null'),
        (["rankr1", "trace", 1], "x", "trace[1]: the comparison is a string where an object is needed"),
        (
            ["rankr1", "trace", 0],
            {"set": [0, 1], "answer": [1], "thought": "B."},
            'trace[0]: no "reasoning": an earlier',
        ),
        (["rankr1", "trace", 1, "set"], [1, 7], 'trace[1]: position 7 in "set" is not in 0..2'),
        (["rankr1", "trace", 1, "answer"], [], 'trace[1]: "answer" [] names none, or others, of the "set" [1, 2]'),
        (["rankr1", "trace", 1, "answer"], [0], 'trace[1]: "answer" [0] names none'),
        (["rankr1", "trace", 0, "parsed"], 1, 'trace[0]: field "parsed" is a whole number where a boolean is needed'),
        (["rankr1", "trace", 0, "completion", "text"], None, 'trace[0]: field "text" is missing or null'),
        (["rankr1", "trace", 0, "completion", "logprobs"], [1], "trace[0]: the entry in logprobs is a whole number"),
        (["rankr1", "trace", 0, "completion", "logprobs"], 0, 'trace[0]: field "logprobs" is a whole number'),
        (["query"], "which?", 'field "query" is a string where an object is needed'),
        (["passages", 1], 7, "passages[1]: the passage is a whole number"),
    ],
)
def test_what_is_no_ranking_of_ours_is_an_error_that_names_file_line_and_field(
    file: Writer, path: list[str | int], value: object, says: str
) -> None:
    record: Any = json.loads(to_line(ranking_to_json(RANKING)))
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    target = file(to_line(ranking_to_json(RANKING)) + to_line(record))
    lines = read_rankings(target)
    assert next(lines) == RANKING
    with pytest.raises(FileError, match=re.escape(f"{target}:2: ")) as caught:
        next(lines)
    assert says in str(caught.value)


# Round trips

small = st.integers(0, 2**40)
logprobs = st.floats(max_value=0, allow_nan=False)
tokens = st.builds(TokenLogprob, texts, logprobs, st.lists(st.tuples(texts, logprobs), max_size=2).map(tuple))
completions = st.builds(
    Completion, texts, small, small, small, texts, st.none() | st.lists(tokens, max_size=2).map(tuple)
)


@st.composite
def comparisons(draw: st.DrawFn, n: int) -> Comparison:
    members = tuple(draw(st.permutations(range(n)))[: draw(st.integers(1, n))])
    answer = tuple(draw(st.permutations(members))[: draw(st.integers(1, len(members)))])
    fields = {"completion": completions, "round": small, "reasoning": texts, "sample": small}
    flags = {"parsed": st.booleans(), "forced": st.booleans()}
    return draw(st.builds(Comparison, st.just(members), st.just(answer), **fields, **flags))


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    candidates = tuple(draw(st.lists(st.builds(Passage, texts, texts, texts), max_size=4)))
    n = len(candidates)
    return Ranking(
        query=Query(draw(texts), draw(texts)),
        candidates=candidates,
        order=tuple(draw(st.permutations(range(n)))),
        k=draw(st.integers(0, n)),
        trace=tuple(draw(st.lists(comparisons(n), max_size=3))) if n else (),
        clipped=draw(small),
        seconds=draw(st.floats(0, 1e6)),
        failure=draw(st.none() | texts),
    )


@given(rankings())
def test_every_ranking_comes_back_whole(ranking: Ranking) -> None:
    assert ranking_from_json(json.loads(to_line(ranking_to_json(ranking)))) == ranking
    assert ranking_from_json(ranking_to_json(ranking)) == ranking
    assert ranking_from_json(json.loads(to_line(ranking_to_json(ranking, trace=False)))).cost == ranking.cost


def test_an_instruction_of_a_query_is_read_and_comes_back(tmp_path: Path) -> None:
    query = {"id": "q", "text": "which?", "instruction": "Prefer primary sources."}
    read = one(tmp_path, {"query": query, "passages": ["A", "B"]})
    assert read.query == Query("q", "which?", "Prefer primary sources.")
    ranking = Ranking(read.query, PASSAGES, (1, 0, 2), k=1)
    for raw in (None, read.raw | {"passages": ["A", "B", "C"]}):
        record = ranking_to_json(ranking, raw)
        assert record["query"] == query
        assert ranking_from_json(record).query == read.query
    with pytest.raises(FileError, match='field "instruction" is a whole number'):
        one(tmp_path, {"query": query | {"instruction": 3}, "passages": ["A"]})
