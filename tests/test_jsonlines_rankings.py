"""Rankings as JSON lines: what people and programs read, and that every ranking comes back whole."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import read_passages, read_queries
from rankr1_rag.io.files import writing
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, read_candidates, read_rankings, to_line
from rankr1_rag.io.trec import read_run
from rankr1_rag.types import Comparison, Completion, Cost, Passage, Query, Ranking, TokenLogprob

DATA = Path(os.environ.get("RANKR1_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
DL19 = DATA / "trec-dl-2019"
needs_data = pytest.mark.skipif(not DL19.is_dir(), reason=f"no {DL19}: set RANKR1_SHARED_DATA to the shared data")

PASSAGES = (Passage("a", "A"), Passage("b", "B", "Title"), Passage("a", "A again"))
COMPLETION = Completion("<think>B.</think> <answer>[2]</answer>", 40, 8, 9, "stop")
TRACE = (
    Comparison((0, 1), (1,), COMPLETION, round=0, reasoning="B."),
    Comparison((1, 2), (1,), Completion("no", 40, 0, 1, "length"), round=1, parsed=False, forced=True, sample=2),
)
RANKING = Ranking(Query("q", "which?"), PASSAGES, (1, 0, 2), k=1, trace=TRACE, clipped=3, seconds=0.5)


def file(folder: Path, content: str) -> Path:
    path = folder / "rankings.jsonl"
    path.write_bytes(content.encode())
    return path


# Written


def test_all_that_is_ours_stands_under_one_key_in_the_words_of_the_project() -> None:
    written = ranking_to_json(RANKING)
    assert written.keys() == {"query", "passages", "rankr1"}
    own = written["rankr1"]
    assert own.keys() == {"version", "order", "k", "failure", "score_meaning", "cost", "trace"}
    assert (own["version"], own["order"], own["k"], own["failure"]) == (1, [1, 0, 2], 1, None)
    assert own["cost"]["comparisons"] == 2
    assert json.loads(to_line(own["trace"][0])) == {
        "set": [0, 1],
        "answer": [1],
        "completion": {
            "text": "<think>B.</think> <answer>[2]</answer>",
            "prompt_tokens": 40,
            "cached_tokens": 8,
            "completion_tokens": 9,
            "finish_reason": "stop",
            "logprobs": None,
            "stored": False,
        },
        "round": 0,
        "reasoning": "B.",
        "parsed": True,
        "forced": False,
        "sample": 0,
        "reasoning_tokens": 0,
        "probabilities": None,
    }


def test_without_its_trace_a_ranking_still_knows_its_cost() -> None:
    written = ranking_to_json(RANKING, trace=False)
    assert "trace" not in written["rankr1"]
    read = ranking_from_json(written)
    assert read.trace == ()
    assert read.cost == RANKING.cost
    assert read.cost.comparisons == 2
    assert (read.order, read.passages, read.scores) == (RANKING.order, RANKING.passages, RANKING.scores)


def test_a_raw_object_of_another_query_is_refused() -> None:
    with pytest.raises(ValueError, match="`raw` has 1 passages, the ranking 3"):
        ranking_to_json(RANKING, {"query": "x", "passages": ["A"]})


def test_a_failure_is_read_as_it_was_written() -> None:
    failed = Ranking(RANKING.query, PASSAGES, (0, 1, 2), k=1, failure="the server is down")
    assert ranking_from_json(ranking_to_json(failed)).failure == "the server is down"


def test_a_line_is_ascii_and_one_line_whatever_the_text() -> None:
    line = to_line({"text": "ä\u2028\n\x1b[31m\x9b\ud800"})
    assert line.isascii()
    assert line[:-1].isprintable()
    assert json.loads(line) == {"text": "ä\u2028\n\x1b[31m\x9b\ud800"}


def test_costs_of_rankings_read_without_a_trace_still_add_up() -> None:
    read = ranking_from_json(ranking_to_json(RANKING, trace=False))
    assert sum([read.cost, read.cost], Cost()).comparisons == 4


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
    tmp_path: Path, path: list[str | int], value: object, says: str
) -> None:
    record: Any = json.loads(to_line(ranking_to_json(RANKING)))
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    target = file(tmp_path, to_line(ranking_to_json(RANKING)) + to_line(record))
    lines = read_rankings(target)
    assert next(lines) == RANKING
    with pytest.raises(FileError) as caught:
        next(lines)
    assert str(caught.value).startswith(f"{target}:2: ")
    assert says in str(caught.value)


def test_candidates_are_no_ranking(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r':1: field "rankr1" is missing'):
        list(read_rankings(file(tmp_path, '{"query": "x", "passages": []}')))


# Round trips

texts = st.text(st.characters(), max_size=8)  # lone surrogates too
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


@needs_data
def test_trec_dl_2019_goes_through_json_lines_and_back(tmp_path: Path) -> None:
    run, queries = read_run(DL19 / "run.bm25.top100.trec"), read_queries(DL19 / "queries.tsv")
    passages = read_passages(DL19 / "passages.jsonl.gz")
    rankings = [
        Ranking(
            Query(id, queries[id]), tuple(passages[passage] for passage, _ in ranked), tuple(range(99, -1, -1)), k=10
        )
        for id, ranked in run.items()
    ]
    with writing(tmp_path / "rankings.jsonl.gz") as out:
        out.writelines(to_line(ranking_to_json(ranking)) for ranking in rankings)
    assert list(read_rankings(tmp_path / "rankings.jsonl.gz")) == rankings
    (first,) = islice(read_candidates(tmp_path / "rankings.jsonl.gz"), 1)
    assert (first.query, first.passages) == (rankings[0].query, rankings[0].passages)
