"""Hops and the retrieval between them: chosen passages are shown as known, found ones are candidates like the others.

A retriever that fails harms its own query and no other.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rankr1_rag import BackendError, Passage, Query, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.cross_encoder import RankR1CrossEncoder
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.explain import story
from rankr1_rag.explain.html import chart, page
from rankr1_rag.explain.terminal import show
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json
from rankr1_rag.io.trec import run_entry, write_run
from rankr1_rag.selection import ALGORITHMS, LISTWISE, among, play
from rankr1_rag.types import Message

Numbered = Callable[..., list[Passage]]

FILM = Passage("film", "is a film by Ana Lima.", "The Boat")
DIRECTOR = Passage("director", "was born in Faro.", "Ana Lima")
OTHERS = [Passage(f"o{n}", f"was born in town {n}.", f"Person {n}") for n in range(12)]
QUESTION = "Where was the director of The Boat born?"
A, B, NEW = Passage("a", "x", "A"), Passage("b", "y", "B"), Passage("n", "new one", "N")


def reader(messages: Sequence[Message]) -> str:
    """A reader of two hops: the film, and if that is known the person it names; else the first shown."""
    user = messages[-1]["content"]
    lines = re.findall(r"^\[(\d+)\] (.*)$", user, re.MULTILINE)
    wanted = "Ana Lima" if "Known: The Boat" in user else "The Boat"
    label = next((label for label, line in lines if line.startswith(wanted)), lines[0][0])
    return f"<think> {wanted} </think> <answer>[{label}]</answer>"


def first_shown(_: Sequence[Message]) -> str:
    return "<think> a </think> <answer>[1]</answer>"


def fails_at_the_second_hop(messages: Sequence[Message]) -> str:
    if "Known:" in messages[-1]["content"]:
        raise BackendUnavailable("gone")
    return reader(messages) if "Boat" in messages[-1]["content"] else first_shown(messages)


def words(text: str) -> int:
    return len(text.split())


def ranked(candidates: list[Passage], **settings: Any) -> Ranking:
    return Reranker(Scripted(reader), **{"k": 3, "size": 4, "format": "naming-v1"} | settings).rank(
        QUESTION, candidates
    )


def hopping(**settings: Any) -> Reranker:
    return Reranker(**{"backend": Scripted(first_shown), "hops": 2} | settings)


def test_the_second_hop_knows_what_the_first_chose() -> None:
    candidates = [*OTHERS, FILM, DIRECTOR]
    assert DIRECTOR not in ranked(candidates).passages[:2]
    ranking = ranked(candidates, hops=2)
    assert ranking.passages[:2] == (FILM, DIRECTOR)
    assert sorted(ranking.order) == list(range(len(candidates)))
    first, second = ([one for one in ranking.trace if bool(one.known) == known] for known in (False, True))
    assert ranking.trace == (*first, *second)
    assert all(one.known == (12,) and 12 not in one.set for one in second)
    assert min(one.round for one in second) == max(one.round for one in first) + 1
    assert ranking.cost.passages_read == sum(len(one.set) for one in ranking.trace) + len(second)


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - LISTWISE))
@pytest.mark.parametrize(("n", "k", "hops"), [(2, 2, 2), (3, 1, 3), (9, 4, 2), (20, 5, 3), (6, None, 9), (1, 1, 2)])
def test_hops_select_as_one_does_if_the_model_needs_nothing_known(
    algorithm: str, n: int, k: int | None, hops: int, judge: Scripted, numbered: Numbered
) -> None:
    passages = numbered(n)
    ranking = Reranker(judge, k=k, size=4, algorithm=algorithm, hops=hops).rank("which?", passages)
    plain = Reranker(judge, k=k, size=4, algorithm=algorithm).rank("which?", passages)
    assert (ranking.order, ranking.k) == (plain.order, plain.k)


@given(st.data())
def test_a_selection_among_some_positions_selects_the_best_of_them(data: st.DataObject) -> None:
    positions = sorted(data.draw(st.sets(st.integers(0, 99), min_size=1, max_size=30)))
    k, size = data.draw(st.integers(1, 30)), data.draw(st.integers(2, 20))
    worth = dict(zip(positions, data.draw(st.permutations(positions)), strict=True))

    def judge(shown: tuple[int, ...]) -> tuple[int, ...]:
        assert set(shown) <= set(positions)
        return (max(shown, key=worth.__getitem__),)

    chosen = play(among(ALGORITHMS["tournament"](len(positions), k, size), positions), judge)
    assert chosen == sorted(positions, key=worth.__getitem__, reverse=True)[:k]


def test_known_and_found_passages_are_shown_as_such() -> None:
    ranking = ranked([*OTHERS, FILM, DIRECTOR], hops=2)
    assert "known already: The Boat" in story.verdict(ranking, ranking.explain(2))
    assert "known" not in story.verdict(ranking, ranking.explain(1))
    assert "Known already: The Boat" in page(ranking)
    assert "Known already" not in page(ranked([*OTHERS, FILM, DIRECTOR]))
    ranking = ranked([*OTHERS, FILM], hops=2, retrieve=lambda _: [DIRECTOR])
    film, director = story.places(ranking)[:2]
    assert (film.moved, director.moved) == ("↑12", "new")
    assert film.origin == story.origin(ranking, 12) == "first-stage rank 13"
    assert director.origin == story.origin(ranking, 13) == story.RETRIEVED
    console = Console(width=100, record=True, file=io.StringIO())
    show(ranking, console)
    assert story.RETRIEVED in page(ranking)
    assert story.RETRIEVED in console.export_text()
    first = ranked([FILM, *OTHERS], k=2, hops=2, fusion=0, retrieve=lambda _: [DIRECTOR])
    assert "as in the first stage" in story.lede(first)
    lone = hopping().rank("q", [A], retrieve=lambda _: [NEW])
    assert story.lede(lone) == (
        "No comparison was needed: 1 candidate in first-stage order, then 1 retrieved between hops."
    )


def test_the_page_has_no_first_stage_rank_for_found_passages() -> None:
    ranking = hopping(format="naming-v1", k=3).rank("q", [A, B], retrieve=lambda _: [NEW])
    drawn = chart(ranking)
    assert [[label.rank for label in column] for column in (drawn.left, drawn.right)] == [["1", "2"], ["1", "2", "3"]]
    assert {slope.left for slope in drawn.slopes} == {0, 1}
    assert ">new <bdi>N</bdi></span>" in page(hopping(k=3).rank("q", [A], retrieve=lambda _: [NEW, B]))


@pytest.mark.parametrize("settings", [{}, {"hops": 2}, {"hops": 2, "retrieve": lambda _: [DIRECTOR]}])
def test_a_ranking_in_hops_is_read_as_it_was_written(settings: dict[str, Any]) -> None:
    ranking = ranked([*OTHERS, FILM], **settings)
    written = ranking_to_json(ranking)
    assert ranking_from_json(written) == ranking
    assert ("retrieved" in written["rankr1"]) == ("retrieve" in settings)
    assert any("known" in one for one in written["rankr1"]["trace"]) == ("hops" in settings)
    written["rankr1"]["retrieved"] = 15
    with pytest.raises(ValueError, match=r'"retrieved" must be 0\.\.1[34]'):
        ranking_from_json(written)


def test_found_passages_are_candidates_like_the_others_each_once() -> None:
    texts: list[str] = []

    def retrieve(text: str) -> list[Passage | str]:
        texts.append(text)
        return [FILM, OTHERS[3], DIRECTOR, "was born in Faro.", "was born in Faro.", DIRECTOR]

    ranking = ranked([*OTHERS, FILM], hops=2, retrieve=retrieve)
    assert texts == [f"{QUESTION} {FILM.title} {FILM.text}"]
    assert ranking.passages[:2] == (FILM, DIRECTOR)
    assert ranking.candidates == (*OTHERS, FILM, DIRECTOR, Passage("14", "was born in Faro."))
    assert (ranking.retrieved, sorted(ranking.order)) == (2, list(range(15)))


@pytest.mark.parametrize(
    ("candidates", "found", "ids"),
    [
        ([A, B], ["new text", Passage("0", "other")], ["a", "b", "2", "0"]),
        (["x", "y"], [Passage("1", "the answer")], ["0", "1", "1"]),
        ([Passage("1", "x"), Passage("2", "y")], ["z"], ["1", "2", "3"]),
        ([A, B], [Passage("a", "another text"), Passage("", "p"), Passage("", "q")], ["a", "b", "", ""]),
    ],
)
def test_an_id_of_ours_hides_no_passage(
    candidates: list[Passage | str], found: list[Passage | str], ids: list[str]
) -> None:
    ranking = hopping(k=2).rank(Query("q1", "q"), candidates, retrieve=lambda _: found)
    assert [one.id for one in ranking.candidates] == ids
    if len(set(ids)) == len(ids) and all(ids):
        write_run(io.StringIO(), [run_entry(ranking)])


def test_retrieve_may_be_awaited_and_be_for_one_query() -> None:
    async def retrieve(text: str) -> list[Passage]:
        await asyncio.sleep(0)
        return [DIRECTOR] if FILM.title in text else []

    reranker = Reranker(Scripted(reader), k=2, size=4, format="naming-v1", hops=2)
    found = reranker.rank(QUESTION, [*OTHERS, FILM], retrieve=retrieve)
    assert (found.passages[:2], found.retrieved) == ((FILM, DIRECTOR), 1)


def test_few_candidates_are_reason_enough_to_search() -> None:
    ranking = ranked([FILM, OTHERS[0]], k=5, hops=2, retrieve=lambda _: [DIRECTOR, *OTHERS[1:3]])
    assert (ranking.k, len(ranking), ranking.passages[:2]) == (5, 5, (FILM, DIRECTOR))
    assert ranked([FILM], k=2, hops=2, retrieve=lambda _: [*OTHERS, DIRECTOR]).passages[:2] == (FILM, DIRECTOR)
    assert hopping().rank(QUESTION, [FILM], k=1, retrieve=lambda _: [DIRECTOR]).order == (0,)
    assert ranked([FILM], k=2, hops=3, retrieve=lambda _: []).order == (0,)
    assert ranked([], k=2, hops=2, retrieve=lambda _: [DIRECTOR]).order == ()


def test_there_is_no_second_search_if_nothing_was_chosen_since() -> None:
    texts: list[str] = []
    hopping(hops=5, k=5).rank("q", [A, B], retrieve=lambda text: texts.append(text) or [])
    assert texts == ["q A x", "q B y"]


@pytest.mark.parametrize(
    ("before", "order"),
    [
        ([], (0, 4, 1, 2, 3)),  # 1/1+1/1, 1/2+1/1, 1/3+1/2, 1/4+1/3, 1/5+1/4
        ([FILM, *OTHERS[:2]], (0, 1, 4, 2, 3)),  # 1/1+1/1, 1/3+1/2, 1/2+1/4, …: known candidates count for its rank
    ],
)
def test_fusion_counts_the_rank_in_the_retrieval_that_found_it(before: list[Passage], order: tuple[int, ...]) -> None:
    ranking = ranked([FILM, *OTHERS[:3]], k=2, hops=2, fusion=0, retrieve=lambda _: [*before, DIRECTOR])
    assert (ranking.chosen, ranking.order) == ((0, 4), order)


@pytest.mark.parametrize("retrieve", [None, lambda _: [NEW]])
def test_a_failure_at_the_second_hop_leaves_the_first_stage_order_and_the_trace(retrieve: Any) -> None:
    settings: dict[str, Any] = {"k": 2, "size": 4, "format": "naming-v1", "hops": 2, "fusion": 0, "retrieve": retrieve}
    with pytest.raises(BackendError):
        Reranker(Scripted(fails_at_the_second_hop), **settings).rank(QUESTION, [*OTHERS, FILM])
    reranker = Reranker(Scripted(fails_at_the_second_hop), on_failure="first_stage", **settings)
    ranking = reranker.rank(QUESTION, [*OTHERS, FILM])
    assert ranking.order == tuple(range(14 if retrieve else 13))
    assert ranking.failure is not None
    assert ranking.trace


@pytest.mark.parametrize("hops", [1, 2, 8])
def test_room_is_kept_for_as_many_known_passages_as_there_can_be(hops: int) -> None:
    passages = [Passage(str(place), f"{place} " + "word " * 600) for place in range(5)]
    reranker = hopping(backend=Scripted(first_shown, context=4096, count=words), k=1, hops=hops, reasoning_tokens=32)
    assert reranker.rank("q", passages).cost.clipped == 0


def test_known_passages_take_their_share_of_the_context() -> None:
    longest: list[int] = []

    def model(messages: Sequence[Message]) -> str:
        longest.append(sum(words(message["content"]) for message in messages))
        return first_shown(messages)

    backend = Scripted(model, context=600, count=words)
    passages = [Passage(str(n), "word " * 500) for n in range(6)]
    for hops in (1, 2, 3):
        Reranker(backend, k=4, size=3, hops=hops, format="naming-v1", reasoning_tokens=32).rank("q", passages)
    assert max(longest) <= 600 - 192
    with pytest.raises(ValueError, match=r"each of 3 passages and 49 known passages .* or hops"):
        Reranker(backend, k=50, size=3, hops=60, reasoning_tokens=32).rank("q", passages * 10)


@pytest.mark.parametrize(
    ("settings", "error", "problem"),
    [
        *(({"hops": hops}, ValueError, "hops=") for hops in (0, -1, True, 1.5, "2")),
        ({"hops": 1, "retrieve": lambda _: []}, ValueError, r"retrieve= needs hops >= 2 \(got hops=1\)"),
        ({"retrieve": 42}, TypeError, "retrieve=42 is no function: pass"),
        ({"k": 1, "retrieve": lambda _: []}, ValueError, r"retrieve= needs k >= 2 \(got k=1\)"),
    ],
)
def test_wrong_hops_and_retrievers_are_refused(settings: dict[str, Any], error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        hopping(**settings)


def test_a_retriever_for_one_query_needs_hops_and_a_cross_encoder_takes_none() -> None:
    with pytest.raises(ValueError, match="needs hops >= 2"):
        hopping(hops=1).rank("q", [A, B], retrieve=lambda _: [])
    with pytest.raises(ValueError, match="retrieve= finds documents that have no position"):
        RankR1CrossEncoder(hopping(retrieve=lambda _: [NEW]))


def quits() -> NoReturn:
    sys.exit("the index is missing")


def leave_later(_: str) -> Iterator[Passage]:
    yield NEW
    quits()


async def leave_awaited(_: str) -> list[Passage]:
    quits()


@pytest.mark.parametrize(
    ("retrieve", "error", "problem"),
    [
        (lambda _: quits(), RuntimeError, "raised SystemExit: the index"),
        (leave_later, RuntimeError, "raised SystemExit: the index"),
        (leave_awaited, RuntimeError, "raised SystemExit: the index"),
        (lambda _: [{}["index"]], KeyError, "index"),
        (lambda _: [NEW, 3], TypeError, "retrieve= returned a wrong list: passage 1 is neither a str nor a Passage"),
        *(
            (lambda _, found=found: found, TypeError, "retrieve= must return a list, best first")
            for found in ("abc def", {"id": "text"}, {"u", "v"}, None, 3, NEW)
        ),
    ],
)
def test_an_error_of_the_retriever_is_the_error_of_its_query(
    retrieve: Callable[[str], Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        hopping().rank("q", [A, B], retrieve=retrieve)


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, ValueError])
def test_the_other_queries_of_a_job_continue(error: type[BaseException]) -> None:
    def retrieve(text: str) -> list[str]:
        if "bad" in text:
            raise error
        return ["found"]

    outcomes = dict(hopping(retrieve=retrieve).rank_many([(q, ["a", "b"]) for q in ("ok", "bad", "ok 2", "ok 3")]))
    assert [isinstance(outcomes[place], Ranking) for place in range(4)] == [True, False, True, True]


def test_a_cancelled_caller_is_still_cancelled() -> None:
    begun, end = threading.Event(), threading.Event()

    def retrieve(_: str) -> list[str]:
        begun.set()
        end.wait(60)
        return []

    async def left() -> None:
        task = asyncio.create_task(hopping().arank("q", [A, B], retrieve=retrieve))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(left())
    end.set()


def test_an_async_retriever_runs_on_the_loop_of_a_caller_that_awaits() -> None:
    async def main() -> tuple[Ranking, set[Any]]:
        where, lock = set(), asyncio.Lock()

        async def retrieve(_: str) -> list[Passage]:
            async with lock:
                where.add(asyncio.get_running_loop())
            return [NEW]

        async with lock:
            open_ranking = asyncio.create_task(hopping().arank("q", [A, B], retrieve=retrieve))
            await asyncio.sleep(0.05)
        return await open_ranking, where - {asyncio.get_running_loop()}

    ranking, elsewhere = asyncio.run(main())
    assert (ranking.retrieved, elsewhere) == (1, set())


def test_a_generator_is_iterated_in_its_thread() -> None:
    def retrieve(text: str) -> Iterator[Passage]:
        yield from Reranker(Scripted(first_shown)).rank(text, ["u", "v"]).passages

    assert hopping().rank("q", [A, B], retrieve=retrieve).retrieved == 2
