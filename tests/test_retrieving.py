"""A second retrieval that misbehaves harms its own query and no other, and nothing that it found is lost or renamed."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from rankr1_rag import Passage, Query, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.cross_encoder import RankR1CrossEncoder
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.explain import story
from rankr1_rag.explain.html import chart, page
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json
from rankr1_rag.io.trec import run_entry, write_run
from rankr1_rag.types import Message

A, B, NEW = Passage("a", "x", "A"), Passage("b", "y", "B"), Passage("n", "new one", "N")


def first_shown(_: Sequence[Message]) -> str:
    return "<think> a </think> <answer>[1]</answer>"


def hopping(**settings: Any) -> Reranker:
    return Reranker(Scripted(first_shown), **{"hops": 2, **settings})


def leave(_: str) -> list[Passage]:
    sys.exit("the index is missing")


def leave_later(_: str) -> Iterator[Passage]:
    yield NEW
    sys.exit("the index is missing")


async def leave_awaited(_: str) -> list[Passage]:
    sys.exit("the index is missing")


@pytest.mark.parametrize("retrieve", [leave, leave_later, leave_awaited])
def test_one_that_would_end_python_is_an_error_of_its_query(retrieve: Callable[[str], Any]) -> None:
    with pytest.raises(RuntimeError, match=r"retrieve= raised SystemExit: the index is missing"):
        hopping().rank("q", [A, B], retrieve=retrieve)


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, ValueError])
def test_the_other_queries_of_a_job_go_on(error: type[BaseException]) -> None:
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
        end.wait(10)
        return []

    async def left() -> None:
        task = asyncio.create_task(hopping().arank("q", [A, B], retrieve=retrieve))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(left())
    end.set()


def test_one_that_is_awaited_runs_on_the_loop_of_a_caller_who_awaits() -> None:
    async def asked() -> tuple[Ranking, set[Any]]:
        where = set()
        lock = asyncio.Lock()

        async def retrieve(_: str) -> list[Passage]:
            async with lock:
                where.add(asyncio.get_running_loop())
            return [NEW]

        async with lock:
            open_ranking = asyncio.create_task(hopping().arank("q", [A, B], retrieve=retrieve))
            await asyncio.sleep(0.05)
        return await open_ranking, where - {asyncio.get_running_loop()}

    ranking, elsewhere = asyncio.run(asked())
    assert ranking.retrieved == 1
    assert elsewhere == set()


def test_a_generator_is_gone_through_in_its_thread() -> None:
    def retrieve(text: str) -> Iterator[Passage]:
        yield from Reranker(Scripted(first_shown)).rank(text, ["u", "v"]).passages

    assert hopping().rank("q", [A, B], retrieve=retrieve).retrieved == 2


@pytest.mark.parametrize("found", ["abc def", {"id": "text"}, {"u", "v"}, None, 3, NEW])
def test_what_is_no_list_of_passages_is_refused(found: Any) -> None:
    with pytest.raises(TypeError, match=r"retrieve= must return a list of passages"):
        hopping().rank("q", [A, B], retrieve=lambda _: found)


def test_what_cannot_be_called_is_refused_when_it_is_given() -> None:
    with pytest.raises(TypeError, match=r"retrieve= must be a function of a text \(got a int\)"):
        hopping(retrieve=42)
    with pytest.raises(TypeError, match="retrieve= returned a wrong list: passage 1 is neither"):
        hopping().rank("q", [A, B], retrieve=lambda _: [NEW, 3])


@pytest.mark.parametrize(
    ("given", "found", "ids"),
    [
        ([A, B], ["new text", Passage("0", "other")], ["a", "b", "2", "0"]),
        (["x", "y"], [Passage("1", "the answer")], ["0", "1", "1"]),
        ([Passage("1", "x"), Passage("2", "y")], ["z"], ["1", "2", "3"]),
        ([A, B], [Passage("a", "another text"), Passage("", "p"), Passage("", "q")], ["a", "b", "", ""]),
    ],
)
def test_an_id_that_was_made_up_hides_no_passage(
    given: list[Passage | str], found: list[Passage | str], ids: list[str]
) -> None:
    ranking = hopping(k=2).rank("q", given, retrieve=lambda _: found)
    assert [one.id for one in ranking.candidates] == ids


def test_a_text_found_between_gets_an_id_that_a_run_can_hold() -> None:
    ranking = hopping().rank(Query("q1", "q"), [Passage("1", "x"), Passage("2", "y")], retrieve=lambda _: ["z"])
    written = io.StringIO()
    write_run(written, [run_entry(ranking)])
    assert len(written.getvalue().splitlines()) == 3


def test_it_is_not_asked_again_where_nothing_was_chosen_since() -> None:
    asked: list[str] = []
    hopping(hops=5, k=5).rank("q", [A, B], retrieve=lambda text: asked.append(text) or [])
    assert asked == ["q A x", "q B y"]


def test_after_a_failure_what_was_found_stands_behind_the_first_stage_order() -> None:
    def failing(messages: Sequence[Message]) -> str:
        if "Known:" in messages[-1]["content"]:
            raise BackendUnavailable("gone")
        return first_shown(messages)

    reranker = Reranker(
        Scripted(failing), hops=2, k=3, format="naming-v1", on_failure="first_stage", fusion=0, retrieve=lambda _: [NEW]
    )
    ranking = reranker.rank("q", [A, B, Passage("c", "z")])
    assert ranking.failure is not None
    assert ranking.order == (0, 1, 2, 3)


def test_the_page_gives_what_was_found_between_no_first_stage_rank() -> None:
    ranking = hopping(format="naming-v1").rank("q", [A, B], retrieve=lambda _: [NEW])
    drawn = chart(ranking)
    assert [row.position for row in drawn.left] == [0, 1]
    assert sorted(row.position for row in drawn.right if row.position is not None) == [0, 1, 2]
    assert {curve.position for curve in drawn.curves} == {0, 1}
    assert ">new <bdi>N</bdi></span>" in page(
        hopping(format="naming-v1", k=3).rank("q", [A], retrieve=lambda _: [NEW, B])
    )
    lone = hopping().rank("q", [A], retrieve=lambda _: [NEW])
    assert story.lede(lone) == (
        "No comparison was needed: 1 candidate in first-stage order, then 1 found between two stages."
    )


@pytest.mark.parametrize("retrieved", [-1, 4])
def test_a_written_ranking_that_found_more_than_it_has_is_refused(retrieved: int) -> None:
    written = ranking_to_json(hopping().rank("q", [A, B], retrieve=lambda _: [NEW]))
    written["rankr1"]["retrieved"] = retrieved
    with pytest.raises(ValueError, match=r'"retrieved" must be 0\.\.3'):
        ranking_from_json(written)


def test_a_cross_encoder_has_no_place_for_what_is_found_between() -> None:
    with pytest.raises(ValueError, match="retrieve= finds documents that are at no position"):
        RankR1CrossEncoder(hopping(retrieve=lambda _: [NEW]))


@pytest.mark.parametrize("hops", [1, 2, 8])
def test_room_is_kept_for_as_many_known_passages_as_there_can_be(hops: int) -> None:
    backend = Scripted(first_shown, context=4096, count=lambda text: len(text.split()))
    passages = [Passage(str(place), f"{place} " + "word " * 600) for place in range(5)]
    assert Reranker(backend, k=1, hops=hops, reasoning_tokens=32).rank("q", passages).cost.clipped == 0


def test_a_context_that_known_passages_fill_is_refused_by_the_name_of_hops() -> None:
    backend = Scripted(first_shown, context=900, count=lambda text: len(text.split()))
    passages = [Passage(str(place), "word " * 50) for place in range(60)]
    with pytest.raises(ValueError, match=r"each of 3 passages and 49 known passages .* or hops"):
        Reranker(backend, k=50, size=3, hops=60, reasoning_tokens=32).rank("q", passages)
