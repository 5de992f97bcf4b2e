"""Documents in, documents out: copies in score order, nothing lost, nothing of the caller's changed."""

import asyncio
import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.component import REASONING
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, shown
from tests.integrations.with_langchain.parts import Chat, documents, ids

Ask = Callable[[RankR1Rerank, Sequence[Document]], list[Document]]


def sync(compressor: RankR1Rerank, given: Sequence[Document]) -> list[Document]:
    return list(compressor.compress_documents(given, QUERY))


def awaited(compressor: RankR1Rerank, given: Sequence[Document]) -> list[Document]:
    return list(asyncio.run(compressor.acompress_documents(given, QUERY)))


both_ways = pytest.mark.parametrize("ask", [sync, awaited])


@both_ways
@pytest.mark.parametrize("bring", ["reranker", "llm"])
def test_no_documents_ask_nothing(ask: Ask, bring: str) -> None:
    def never(messages: object) -> str:
        raise AssertionError("asked")

    backend, rankings = Scripted(never), []
    given: dict[str, Any] = {"llm": Chat(backend=backend)} if bring == "llm" else {"reranker": Reranker(backend)}
    compressor = RankR1Rerank(**given, on_ranking=rankings.append)
    assert ask(compressor, []) == []
    assert ask(compressor, ()) == []
    (only,) = ask(compressor, [Document("alone")])
    assert (only.page_content, only.metadata) == ("alone", {"relevance_score": 1.0})
    assert [ranking.cost.comparisons for ranking in rankings] == [0]


@both_ways
@pytest.mark.parametrize(("top_n", "number"), [(1, 1), (3, 3), (6, 6), (50, 6), (None, 6)])
def test_top_n_come_back(ask: Ask, top_n: int | None, number: int, judge: Scripted) -> None:
    found = ask(RankR1Rerank(reranker=Reranker(judge), top_n=top_n), documents())
    assert len(found) == number
    assert ids(found)[:3] == WANTED[:number]
    assert len(set(ids(found))) == number


@both_ways
def test_the_number_that_comes_back_may_be_changed(ask: Ask, compressor: RankR1Rerank) -> None:
    rankings: list[Ranking] = []
    compressor.on_ranking = rankings.append
    for top_n, number in [(3, 3), (1, 1), (None, 6), (2, 2)]:
        compressor.top_n = top_n
        assert len(ask(compressor, documents())) == number
        assert rankings[-1].k == number


@both_ways
def test_scores_strictly_decrease_and_replace_stale_ones_in_the_copy_only(ask: Ask, judge: Scripted) -> None:
    given = documents()
    for document in given:
        document.metadata["relevance_score"] = -7.0
    found = ask(RankR1Rerank(reranker=Reranker(judge), top_n=None), given)
    scores = [document.metadata["relevance_score"] for document in found]
    assert all(0 < lower < higher <= 1 for higher, lower in itertools.pairwise(scores))
    assert len(scores) == 6
    assert all(document.metadata["relevance_score"] == -7.0 for document in given)


@both_ways
def test_nothing_of_the_callers_is_changed_now_or_later(ask: Ask, judge: Scripted) -> None:
    given = documents()
    for document in given:
        document.metadata["pages"] = {"from": [1, 2], "in": {"book": {"year": 1897}}}
    before, order = copy.deepcopy(given), list(map(id, given))
    found = ask(RankR1Rerank(reranker=Reranker(judge), top_n=None, include_reasoning=True), given)
    for document in found:
        document.metadata["pages"]["from"].append(3)
        document.metadata["pages"]["in"]["book"].clear()
        document.metadata["title"] = document.page_content = "changed"
    assert given == before
    assert list(map(id, given)) == order
    assert not {*map(id, given)} & {*map(id, found)}


@both_ways
def test_ids_types_and_nested_metadata_are_kept(ask: Ask, compressor: RankR1Rerank) -> None:
    class Own(Document):
        shelf: str = ""

    nested = {"authors": [{"name": "Stoker"}], "score": 0.25, "path": ("a", "b"), "none": None}
    given: list[Document] = [
        Own(id=key, page_content=text, metadata={"title": title, **nested}, shelf=key)
        for key, (title, text) in PASSAGES.items()
    ]
    found = ask(compressor, given)
    assert ids(found) == [document.shelf for document in found] == WANTED  # type: ignore[attr-defined]
    for document in found:
        added = document.metadata.keys() - nested.keys() - {"title"}
        assert added == {"relevance_score"}
        assert {name: document.metadata[name] for name in nested} == nested


@both_ways
def test_documents_without_ids_or_with_the_same_are_told_apart(ask: Ask, judge: Scripted) -> None:
    given = [Document(text, id=None if n % 2 else "same") for n, (_, text) in enumerate(PASSAGES.values())]
    given += copy.deepcopy(given)
    found = ask(RankR1Rerank(reranker=Reranker(judge), top_n=None), given)
    assert [document.page_content for document in found[:4:2]] == [PASSAGES[key][1] for key in WANTED[:2]]
    assert sorted(document.page_content for document in found) == sorted(document.page_content for document in given)
    assert sum(document.id is None for document in found) == 6


@both_ways
def test_a_document_without_text_is_one_like_any(ask: Ask, judge: Scripted) -> None:
    given = [Document(""), Document("", metadata={"title": "only a title"}), Document(" \n"), *documents()]
    found = ask(RankR1Rerank(reranker=Reranker(judge), top_n=None), given)
    assert ids(found)[:3] == WANTED
    assert len(found) == 9


@both_ways
@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ({}, "Bram Stoker"),
        ({"title_key": "name"}, "Stoker, Bram"),
        ({"title_key": None}, "Bram Stoker was born"),
        ({"title_key": "missing"}, "Bram Stoker was born"),
        ({"title_key": "year"}, "1847"),
    ],
)
def test_the_title_comes_from_the_metadata(ask: Ask, settings: dict[str, Any], begins: str) -> None:
    lines = []

    def keeps(messages: Sequence[Any]) -> str:
        lines.extend(shown(messages))
        return "<answer>[1]</answer>"

    title, text = PASSAGES["stoker"]
    stoker = Document(text, metadata={"title": title, "name": "Stoker, Bram", "year": 1847})
    ask(RankR1Rerank(reranker=Reranker(Scripted(keeps)), **settings), [stoker, Document("other")])
    line = next(line.rstrip("\n") for line in lines if text in line)
    assert line.startswith(begins)
    assert (line == text) == (begins == "Bram Stoker was born")


@both_ways
def test_the_reasoning_is_added_where_it_is_asked_for(ask: Ask, compressor: RankR1Rerank) -> None:
    assert all(REASONING not in document.metadata for document in ask(compressor, documents()))
    compressor.include_reasoning = True
    found = ask(compressor, documents())
    assert [document.metadata[REASONING] for document in found] == [f"{key} is what is wanted" for key in WANTED]
    assert [document.page_content for document in found] == [PASSAGES[key][1] for key in WANTED]


@pytest.mark.parametrize("query", ["", " \n"])
def test_an_empty_query_is_refused(query: str, compressor: RankR1Rerank) -> None:
    with pytest.raises(ValueError, match="empty"):
        compressor.compress_documents(documents(), query)
    with pytest.raises(ValueError, match="empty"):
        asyncio.run(compressor.acompress_documents(documents(), query))


def test_metadata_that_cannot_be_copied_is_shared_and_nothing_that_was_paid_for_is_lost(judge: Scripted) -> None:
    lock = threading.Lock()
    given = [Document(document.page_content, metadata={"lock": lock, "deep": [1]}) for document in documents()]
    chosen = RankR1Rerank(reranker=Reranker(judge)).compress_documents(given, QUERY)
    assert all(document.metadata["lock"] is lock for document in chosen)
    assert all(document.metadata["deep"] is not one.metadata["deep"] for document in chosen for one in given)
