"""Sizes: what is too large is refused with its limit, and work grows with its input, not with the square of it."""

import asyncio
import gzip
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rankr1_eval.data import loading
from rankr1_eval.predictions import read_predictions
from rankr1_rag import Completion, FileError, Passage, Query, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.engine.query import QueryRun
from rankr1_rag.explain import page
from rankr1_rag.io.collection import DEEPEST, parse_object, read_passages, read_queries
from rankr1_rag.io.files import LONGEST_LINE, numbered_lines
from rankr1_rag.io.jsonl import ranking_to_json, read_candidates, read_rankings, to_line
from rankr1_rag.io.trec import read_qrels, read_run
from rankr1_rag.redaction import LIKE_A_KEY
from rankr1_rag.scoring import Outcomes
from rankr1_rag.selection import ALGORITHMS, play
from rankr1_rag.types import Comparison

READERS: list[Callable[[Path], object]] = [
    lambda path: list(read_candidates(path)),
    lambda path: list(read_rankings(path)),
    read_queries,
    read_passages,
    read_run,
    read_qrels,
    lambda path: loading.load("hotpotqa", path),
    loading.whole,
    read_predictions,
]


@pytest.fixture(scope="session")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One line of a little more than the limit, in a gzip of 130 KB."""
    path = tmp_path_factory.mktemp("sizes") / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b'[{"query": "')
        for _ in range(LONGEST_LINE // (1 << 20) + 1):
            out.write(b"a" * (1 << 20))
    return path


@pytest.mark.parametrize("read", READERS)
def test_a_line_of_any_length_in_a_small_gzip_is_refused_with_the_limit(
    read: Callable[[Path], object], bomb: Path
) -> None:
    with pytest.raises(FileError, match=rf":1: the line has more than {LONGEST_LINE:,} bytes, .*: put one object"):
        read(bomb)


@pytest.mark.parametrize("name", ["lines", "lines.gz"])
@pytest.mark.parametrize("longest", [1 << 20, (1 << 20) + 7, 3 << 20])
def test_a_line_is_read_up_to_the_limit_and_no_further(name: str, longest: int, tmp_path: Path) -> None:
    path, opened = tmp_path / name, gzip.open if name.endswith("gz") else open
    with opened(path, "wb") as out:
        out.write(b"a\n" + b"b" * (longest - 1) + b"\n" + b"c" * longest + b"\r\nd")
    lines = numbered_lines(path, longest)
    assert [next(lines)[1], len(next(lines)[1])] == ["a", longest - 1]
    with pytest.raises(FileError, match=":3: the line has more"):
        next(lines)
    assert [len(line) for _, line in numbered_lines(path, longest + 2)] == [1, longest - 1, longest, 1]


def test_a_value_in_many_short_lines_is_limited_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "LONGEST_LINE", 1000)
    path = tmp_path / "list.json.gz"
    path.write_bytes(gzip.compress(b"[\n" + b"\n" * 500 + b"1,\n" * 200_000))
    for read in (loading.whole, read_predictions, lambda path: loading.load("hotpotqa", path)):
        with pytest.raises(FileError, match=r"the JSON value has more than [0-9,]+ bytes: give JSON lines"):
            read(path)


def test_rows_of_parquet_have_the_limit_of_a_line_and_a_value_that_they_share_is_not_repeated_for_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 200_000, pyarrow.int32()), ["a" * 100_000])
    parquet.write_table(pyarrow.table({"text": column}), path)
    assert path.stat().st_size < 1_000_000  # 20 GB of text
    assert len(next(loading.parquet_rows(path))["text"]) == 100_000
    assert pyarrow.total_allocated_bytes() < 1_000_000_000
    monkeypatch.setattr(loading, "LONGEST_LINE", 1000)
    parquet.write_table(pyarrow.table({"text": ["a" * 5000]}), path)
    with pytest.raises(FileError, match="rows of more than 1,000 bytes"):
        list(loading.parquet_rows(path))


@pytest.mark.parametrize("opening", ["[", '{"a": ', '[{"a": ', '[[], {"a": 1, "b": '])
@pytest.mark.parametrize("depth", [DEEPEST + 1, 500, 900, 100_000])
def test_json_that_is_nested_too_deeply_is_refused_where_it_is_read(opening: str, depth: int, tmp_path: Path) -> None:
    closing = "".join("]" if one == "[" else "}" for one in reversed(opening.replace("[]", "")) if one in "[{")
    times = -(-depth // len(closing))
    record = f'{{"query": "q", "passages": ["a", "b"], "own": {opening * times}1{closing * times}}}'
    path = tmp_path / "deep.jsonl"
    path.write_text(record + "\n")
    for read in READERS:
        if read not in (loading.whole, read_run, read_qrels):
            with pytest.raises(FileError, match="more than 100 levels" if read in READERS[:4] else None):
                read(path)


def test_json_of_the_greatest_depth_comes_through_a_job() -> None:
    value: object = 1
    for _ in range(DEEPEST - 1):
        value = [value]
    raw = parse_object(json.dumps({"query": "q", "passages": ["a", "b"], "own": value}).replace("[1]", "[]"))
    ranking = Reranker(Scripted(lambda _: "<answer>[1]</answer>")).rank("q", ["a", "b"])
    assert to_line(ranking_to_json(ranking, raw))


class Position(int):
    """A position that counts how often it is compared with another or looked up."""

    touched = 0

    def __hash__(self) -> int:
        Position.touched += 1
        return int.__hash__(self)

    def __eq__(self, other: object) -> bool:
        Position.touched += 1
        return int.__eq__(self, other)


def trace_of(n: int, votes: int = 3, probable: bool = False) -> tuple[list[int], list[Comparison]]:
    """The order and the trace of a selection of all n, each set compared several times."""
    trace: list[Comparison] = []
    chance = random.Random(n)

    def judge(shown: tuple[int, ...]) -> tuple[int, ...]:
        shown = tuple(map(Position, shown))
        for sample in range(votes):
            share = tuple([1 / len(shown)] * len(shown)) if probable else None
            best = (chance.choice(shown[:2]),)
            one = Comparison(shown, best, Completion(""), len(trace) // votes, sample=sample, probabilities=share)
            trace.append(one)
        return (min(shown),)

    return play(ALGORITHMS["tournament"](n, n, 20), judge), trace


@pytest.mark.parametrize("probable", [False, True], ids=["votes", "probabilities"])
def test_scores_and_explanations_take_time_in_proportion_to_the_passages_shown(probable: bool) -> None:
    taken = []
    for n in (100, 400):
        order, trace = trace_of(n, probable=probable)
        shown = sum(len(one.set) for one in trace)
        passages = tuple(Passage(str(position), "text") for position in range(n))
        Position.touched = 0
        ranking = Ranking(Query("", "q"), passages, tuple(order), n, tuple(trace))
        assert len(ranking.scores) == n
        outcomes = Outcomes(trace)
        for position in order:
            outcomes.deciding(position)
        for rank in range(1, n + 1):
            ranking.explain(rank)
        taken.append(Position.touched / shown)
    assert taken[1] < 1.3 * taken[0] < 60  # quadratic would be four times


def test_a_page_renders_a_candidate_once_and_not_each_time_that_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from rankr1_rag.explain import html, story

    calls: list[str] = []
    real = story.clean

    def clean(text: str) -> str:
        calls.append(text)
        return real(text)

    monkeypatch.setattr(html, "clean", clean)
    html.environment.cache_clear()
    counts = []
    for n in (50, 200):
        order, trace = trace_of(n, 1)
        passages = tuple(Passage(str(position), "text", f"title {position}") for position in range(n))
        calls.clear()
        assert page(Ranking(Query("", "q"), passages, tuple(order), n, tuple(trace))).count('class="chip') > 5 * n
        counts.append(len(calls) / n)
    html.environment.cache_clear()
    assert counts[1] < 1.2 * counts[0] < 80, counts


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("judge", ["best", "worst", "last shown", "circle"])
def test_the_comparisons_of_a_selection_of_all_are_bounded_whatever_the_answers(algorithm: str, judge: str) -> None:
    """At most those of its own bound: n² / size for bubblesort and window, n log n for the others."""
    n, size, asked = 400, 20, 0
    answers: dict[str, Callable[[tuple[int, ...]], int]] = {
        "best": min,
        "worst": max,
        "last shown": lambda shown: shown[-1],
        "circle": lambda shown: max(shown, key=lambda position: (position * 7 + sum(shown)) % 31),
    }

    def answer(shown: tuple[int, ...]) -> tuple[int, ...]:
        nonlocal asked
        asked += 1
        best = answers[judge](shown)
        return (best, *(position for position in shown if position != best))

    assert sorted(play(ALGORITHMS[algorithm](n, n, size), answer)) == list(range(n))
    quadratic = algorithm in ("bubblesort", "window")
    assert asked <= (n * n / size * 1.6 if quadratic else 6 * n)


def test_texts_found_between_hops_are_added_in_time_in_proportion_to_them() -> None:
    run = QueryRun("q", [Passage(str(1000 + number), f"text {number}") for number in range(500)])
    looked_up = []

    class Text(str):
        def __hash__(self) -> int:
            looked_up.append(self)
            return str.__hash__(self)

    assert run.add([Text(f"found {number}") for number in range(2000)])
    assert len(looked_up) <= 10 * 2000
    assert len({passage.id for passage in run.candidates}) == len(run.candidates) == 2500
    assert [passage.id for passage in run.candidates[500:502]] == ["500", "501"]


def test_scores_of_a_long_trace_are_not_computed_on_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from rankr1_rag import scoring

    real, calls = scoring.scores, 0

    def scores(n: int, chosen: Sequence[int], trace: Sequence[scoring.Vote]) -> tuple[float, ...]:
        nonlocal calls
        calls += 1
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return real(n, chosen, trace)

    monkeypatch.setattr(scoring, "scores", scores)
    reranker = Reranker(Scripted(lambda _: "<answer>[1]</answer>"), k=None, votes=3, size=10)

    async def main() -> tuple[float, ...]:
        ranking = await reranker.arank("q", [f"text {number}" for number in range(400)])
        assert len(ranking.trace) >= 1_000
        return ranking.scores

    assert len(asyncio.run(main())) == 400
    assert calls == 1


@pytest.mark.parametrize("piece", ["]", "-", "1", "\u200b", "sk-", "sk-a.", "eyJ-", "a*", "x@", "bearer "])
def test_looking_for_keys_takes_time_in_proportion_to_the_text(piece: str) -> None:
    """Where it grew with the square, these took minutes."""
    LIKE_A_KEY.sub("", piece * (100_000 // len(piece)))
