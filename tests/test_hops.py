"""Stages: what was chosen first is shown as known, nothing is chosen twice, and one stage is what it always was."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rankr1_rag import BackendError, Passage, Query, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendUnavailable
from rankr1_rag.explain import story
from rankr1_rag.explain.html import page
from rankr1_rag.explain.terminal import show
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json
from rankr1_rag.selection import ALGORITHMS, LISTWISE, among, play
from rankr1_rag.types import Message

Numbered = Callable[..., list[Passage]]

FILM = Passage("film", "is a film by Ana Lima.", "The Boat")
DIRECTOR = Passage("director", "was born in Faro.", "Ana Lima")
OTHERS = [Passage(f"o{n}", f"was born in town {n}.", f"Person {n}") for n in range(12)]
QUESTION = "Where was the director of The Boat born?"


def hopping(messages: Sequence[Message]) -> str:
    """A reader of two hops: the film, and where that is known whoever it names; else the first shown."""
    user = messages[-1]["content"]
    lines = re.findall(r"^\[(\d+)\] (.*)$", user, re.MULTILINE)
    wanted = "Ana Lima" if "Known: The Boat" in user else "The Boat"
    label = next((label for label, line in lines if line.startswith(wanted)), lines[0][0])
    return f"<think> {wanted} </think> <answer>[{label}]</answer>"


def ranked(candidates: list[Passage], **settings: Any) -> Ranking:
    given = {"k": 3, "size": 4, "format": "naming-v1"} | settings
    return Reranker(Scripted(hopping), **given).rank(QUESTION, candidates)


def test_the_second_stage_knows_what_the_first_chose() -> None:
    candidates = [*OTHERS, FILM, DIRECTOR]
    assert DIRECTOR not in ranked(candidates).passages[:2]
    ranking = ranked(candidates, hops=2)
    assert ranking.passages[:2] == (FILM, DIRECTOR)
    assert sorted(ranking.order) == list(range(len(candidates)))
    film = candidates.index(FILM)
    first = [one for one in ranking.trace if not one.known]
    second = [one for one in ranking.trace if one.known]
    assert ranking.trace == (*first, *second)
    assert {one.known for one in second} == {(film,)}
    assert all(film not in one.set for one in second)
    assert min(one.round for one in second) == max(one.round for one in first) + 1
    assert ranking.cost.passages_read == sum(len(one.set) for one in ranking.trace) + len(second)


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - LISTWISE))
@pytest.mark.parametrize(("n", "k", "hops"), [(2, 2, 2), (3, 1, 3), (9, 4, 2), (20, 5, 3), (6, None, 9), (1, 1, 2)])
def test_stages_select_as_one_does_where_the_model_needs_nothing_known(
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


def test_what_is_known_is_told_wherever_a_ranking_is_shown() -> None:
    ranking = ranked([*OTHERS, FILM, DIRECTOR], hops=2)
    assert "known already: The Boat" in story.verdict(ranking, ranking.explain(2))
    assert "known" not in story.verdict(ranking, ranking.explain(1))
    assert "Known already: The Boat" in page(ranking)
    assert "Known already" not in page(ranked([*OTHERS, FILM, DIRECTOR]))


@pytest.mark.parametrize("settings", [{}, {"hops": 2}, {"hops": 2, "retrieve": lambda _: [DIRECTOR]}])
def test_a_ranking_in_stages_is_read_as_it_was_written(settings: dict[str, Any]) -> None:
    ranking = ranked([*OTHERS, FILM], **settings)
    written = ranking_to_json(ranking)
    assert ranking_from_json(written) == ranking
    assert ("retrieved" in written["rankr1"]) == ("retrieve" in settings)
    assert any("known" in one for one in written["rankr1"]["trace"]) == ("hops" in settings)


def test_what_a_second_retrieval_finds_is_a_candidate_like_the_others() -> None:
    asked: list[tuple[str, str]] = []

    def retrieve(text: str) -> list[Passage | str]:
        asked.append((text, threading.current_thread().name))
        return [FILM, OTHERS[3], DIRECTOR, "was born in Faro.", "was born in Faro.", DIRECTOR]

    ranking = ranked([*OTHERS, FILM], hops=2, retrieve=retrieve)
    assert [text for text, _ in asked] == [f"{QUESTION} {FILM.title} {FILM.text}"]
    assert ranking.passages[:2] == (FILM, DIRECTOR)
    assert ranking.candidates == (*OTHERS, FILM, DIRECTOR, Passage("14", "was born in Faro."))
    assert ranking.retrieved == 2
    assert sorted(ranking.order) == list(range(15))


def test_a_second_retrieval_may_be_awaited_said_for_one_query_and_find_nothing() -> None:
    async def retrieve(text: str) -> list[Passage]:
        await asyncio.sleep(0)
        return [DIRECTOR] if FILM.title in text else []

    reranker = Reranker(Scripted(hopping), k=2, size=4, format="naming-v1", hops=2)
    found = reranker.rank(QUESTION, [*OTHERS, FILM], retrieve=retrieve)
    assert (found.passages[:2], found.retrieved) == ((FILM, DIRECTOR), 1)
    plain = reranker.rank(QUESTION, [*OTHERS, FILM], retrieve=lambda _: [])
    assert (plain.retrieved, plain.order) == (0, reranker.rank(QUESTION, [*OTHERS, FILM]).order)


def test_more_than_the_first_candidates_may_be_selected_after_a_second_retrieval() -> None:
    ranking = ranked([FILM, OTHERS[0]], k=5, hops=2, retrieve=lambda _: [DIRECTOR, *OTHERS[1:3]])
    assert ranking.k == len(ranking) == 5
    assert ranking.passages[:2] == (FILM, DIRECTOR)


def test_a_single_candidate_is_reason_enough_to_search_again() -> None:
    ranking = ranked([FILM], k=2, hops=2, retrieve=lambda _: [*OTHERS, DIRECTOR])
    assert ranking.passages[:2] == (FILM, DIRECTOR)
    assert ranked([FILM], k=1, hops=2, retrieve=lambda _: [DIRECTOR]).order == (0,)
    assert ranked([FILM], k=2, hops=3, retrieve=lambda _: []).order == (0,)
    assert ranked([], k=2, hops=2, retrieve=lambda _: [DIRECTOR]).order == ()


def test_what_was_found_later_is_told_as_such() -> None:
    ranking = ranked([*OTHERS, FILM], hops=2, retrieve=lambda _: [DIRECTOR])
    film, director = story.places(ranking)[:2]
    assert (film.moved, director.moved) == ("↑12", "new")
    assert film.origin == story.origin(ranking, 12) == "first-stage rank 13"
    assert director.origin == story.origin(ranking, 13) == story.FOUND
    assert story.FOUND in page(ranking)
    console = Console(width=100, record=True, file=io.StringIO())
    show(ranking, console)
    assert story.FOUND in console.export_text()
    first = ranked([FILM, *OTHERS], k=2, hops=2, fusion=0, retrieve=lambda _: [DIRECTOR])
    assert "where the first stage had it" in story.lede(first)


@pytest.mark.parametrize(
    ("before", "order"),
    [
        ([], (0, 4, 1, 2, 3)),  # 1/1+1/1, 1/2+1/1, 1/3+1/2, 1/4+1/3, 1/5+1/4
        ([FILM, *OTHERS[:2]], (0, 1, 4, 2, 3)),  # 1/1+1/1, 1/3+1/2, 1/2+1/4, …: what was known counts for its rank
    ],
)
def test_fusion_counts_the_rank_in_the_retrieval_that_found_it(before: list[Passage], order: tuple[int, ...]) -> None:
    ranking = ranked([FILM, *OTHERS[:3]], k=2, hops=2, fusion=0, retrieve=lambda _: [*before, DIRECTOR])
    assert ranking.chosen == (0, 4)
    assert ranking.order == order


def test_an_error_of_the_second_retrieval_is_raised_as_it_is() -> None:
    def broken(_: str) -> list[Passage]:
        raise KeyError("index is gone")

    with pytest.raises(KeyError, match="index is gone"):
        ranked([*OTHERS, FILM], hops=2, retrieve=broken)
    with pytest.raises(TypeError, match="passage 0 is neither a str nor a Passage"):
        ranked([*OTHERS, FILM], hops=2, retrieve=lambda _: [3])


@pytest.mark.parametrize("hops", [0, -1, True, 1.5, "2"])
def test_a_wrong_number_of_hops_is_refused(hops: Any, judge: Scripted) -> None:
    with pytest.raises(ValueError, match="hops="):
        Reranker(judge, hops=hops)


def test_a_second_retrieval_without_a_second_stage_is_refused(judge: Scripted) -> None:
    with pytest.raises(ValueError, match=r"retrieve= needs hops >= 2 \(got hops=1\)"):
        Reranker(judge, retrieve=lambda _: [])
    with pytest.raises(ValueError, match=r"retrieve= needs hops >= 2 \(got hops=1\)"):
        Reranker(judge).rank("q", ["a", "b"], retrieve=lambda _: [])


def test_a_backend_that_fails_in_the_second_stage_leaves_the_first_stage_order_and_the_trace() -> None:
    def failing(messages: Sequence[Message]) -> str:
        if "Known:" in messages[-1]["content"]:
            raise BackendUnavailable("gone")
        return hopping(messages)

    settings: dict[str, Any] = {"k": 2, "size": 4, "format": "naming-v1", "hops": 2}
    with pytest.raises(BackendError):
        Reranker(Scripted(failing), **settings).rank(QUESTION, [*OTHERS, FILM])
    ranking = Reranker(Scripted(failing), on_failure="first_stage", **settings).rank(QUESTION, [*OTHERS, FILM])
    assert ranking.order == tuple(range(13))
    assert ranking.failure is not None
    assert ranking.trace


def test_known_passages_take_their_share_of_the_context() -> None:
    longest: list[int] = []

    def model(messages: Sequence[Message]) -> str:
        longest.append(sum(len(message["content"].split()) for message in messages))
        return "<think> a </think> <answer>[1]</answer>"

    backend = Scripted(model, context=600, count=lambda text: len(text.split()))
    passages = [Passage(str(n), "word " * 500) for n in range(6)]
    for hops in (1, 2, 3):
        Reranker(backend, k=4, size=3, hops=hops, format="naming-v1", reasoning_tokens=32).rank(
            Query("", "q"), passages
        )
    assert max(longest) <= 600 - 192
