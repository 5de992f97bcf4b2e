"""Settings: wrong ones are told at once, a key is never shown, a pickle is the arguments it was made with."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.documents import BaseDocumentCompressor
from langchain_rankr1 import RankR1Rerank
from pydantic import SecretStr

from rankr1_rag import Cost, Ranking, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.types import Completion
from tests.integrations.conftest import QUERY, WANTED, knows_best
from tests.integrations.with_langchain.parts import Chat, Traces, documents, ids

KEY = "sk-never-to-be-seen"
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"topn": 3}, "there is no option 'topn': did you mean 'top_n'"),
        ({"k": 3}, "there is no option 'k': did you mean 'top_n'"),
        ({"callbacks": []}, "callbacks"),
        ({"top_n": 0}, "top_n"),
        ({"size": 1}, r"size=1: a whole number in 2\.\.20"),
        ({"reranker": "rank-r1"}, "reranker"),
        ({"reranker": True}, "reranker= has options of its own: leave out llm"),
        ({"base_url": NOWHERE, "model": "m"}, "llm= has a connection of its own: leave out base_url, model"),
    ],
)
def test_a_wrong_option_is_refused_when_the_compressor_is_made(
    settings: dict[str, Any], problem: str, judge: Scripted
) -> None:
    given = {"llm": Chat(backend=judge)} | settings
    given |= {"reranker": Reranker(judge)} if given.get("reranker") is True else {}
    with pytest.raises(ValueError, match=problem):
        RankR1Rerank(**given)


def test_what_is_decided_at_the_start_stays(compressor: RankR1Rerank) -> None:
    for name in ("size", "llm", "reranker", "model"):
        with pytest.raises(ValueError, match="frozen"):
            setattr(compressor, name, None)
    with pytest.raises(ValueError, match="topn"):
        compressor.topn = 3  # type: ignore[attr-defined]


def test_it_is_a_compressor_and_says_what_was_given(judge: Scripted) -> None:
    compressor = RankR1Rerank(llm=Chat(backend=judge), size=5)
    assert isinstance(compressor, BaseDocumentCompressor)
    assert "size=5" in repr(compressor)
    assert compressor.ranker.plan.size == 5


def test_a_key_is_never_shown() -> None:
    given = {"model": "m", "base_url": NOWHERE, "attempts": 1, "on_failure": "first_stage"}
    rankings: list[Ranking] = []
    compressor = RankR1Rerank(api_key=KEY, on_ranking=rankings.append, **given)
    traces = Traces()
    found = compressor.compress_documents(documents(), QUERY, callbacks=[traces])
    assert ids(found) == ids(documents())[:5]
    assert isinstance(compressor.api_key, SecretStr)
    assert compressor.api_key.get_secret_value() == KEY
    with pytest.raises(TypeError) as unpickled:
        pickle.dumps(compressor)
    for wrong in ({"topn": 1}, {"size": 1}, {"backend": "openvino"}):
        with pytest.raises(ValueError, match=r".") as refused:
            RankR1Rerank(**given, api_key=KEY, **wrong)  # type: ignore[arg-type]
        assert KEY not in f"{refused.value} {refused.value!r}"
    shown = [compressor, compressor.ranker, compressor.as_runnable(), compressor.model_dump(), rankings, found]
    shown += [compressor.model_dump_json(), unpickled.value, traces.runs]
    assert KEY not in "".join(f"{each} {each!r}" for each in shown)


def test_the_ranking_tells_what_it_cost(judge: Scripted) -> None:
    def counted(messages: Any) -> Completion:
        return Completion(knows_best(messages), prompt_tokens=100, cached_tokens=40, completion_tokens=7)

    rankings: list[Ranking] = []
    compressor = RankR1Rerank(reranker=Reranker(Scripted(counted)), on_ranking=rankings.append)
    compressor.compress_documents(documents(), QUERY)
    asyncio.run(compressor.acompress_documents(documents(), QUERY))
    total = sum((ranking.cost for ranking in rankings), Cost())
    assert total.comparisons == sum(len(ranking.trace) for ranking in rankings) > 0
    assert total.prompt_tokens == 100 * total.comparisons
    assert total.cached_tokens == 40 * total.comparisons
    assert total.completion_tokens == 7 * total.comparisons
    compressor.on_ranking = None
    compressor.compress_documents(documents(), QUERY)
    assert len(rankings) == 2


class Loading:
    """A backend that loads a model at its first use."""

    model, identity, context, can_continue = "loading", "loading", None, True

    def __init__(self) -> None:
        self.loads: list[int] = []
        self.closed = 0

    def count(self, text: str) -> int | None:
        return None

    async def complete(self, request: Request) -> Completion:
        if not self.loads:
            self.loads.append(id(self))
        return Completion(knows_best(request.messages))

    async def close(self) -> None:
        self.closed += 1


def test_there_is_one_model_however_many_queries() -> None:
    backend = Loading()
    compressor = RankR1Rerank(reranker=Reranker(backend))
    assert compressor.compress_documents([], QUERY) == []
    assert backend.loads == []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: compressor.compress_documents(documents(), QUERY), range(8)))
    for top_n in (1, None, 4):
        compressor.top_n = top_n
        compressor.as_runnable().batch([{"query": QUERY, "documents": documents()}] * 3)
        asyncio.run(compressor.acompress_documents(documents(), QUERY))
        assert compressor.ranker.plan.backend is backend
    assert backend.loads == [id(backend)]
    assert backend.closed == 0
    asyncio.run(compressor.aclose())
    compressor.close()
    assert backend.closed == 2


@pytest.mark.parametrize("settings", [{}, {"model": "m", "base_url": NOWHERE}], ids=["embedded", "server"])
def test_settings_make_one_backend_at_the_start(settings: dict[str, Any]) -> None:
    compressor = RankR1Rerank(**settings)
    backend = compressor.ranker.plan.backend
    compressor.top_n = 7
    assert compressor.compress_documents([], QUERY) == []
    assert compressor.ranker.plan.backend is backend
    assert compressor.model_copy(update={"top_n": 1}).ranker.plan.backend is backend


@pytest.mark.parametrize("again", [lambda each: pickle.loads(pickle.dumps(each)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("bring", ["reranker", "llm"])
def test_a_copy_and_a_pickle_rerank_the_same(again: Callable[[RankR1Rerank], RankR1Rerank], bring: str) -> None:
    backend = Scripted(knows_best, model="knows-best")
    live: dict[str, Any] = {"llm": Chat(backend=backend), "size": 4}
    if bring == "reranker":
        live = {"reranker": Reranker(backend, size=4, algorithm="tournament")}
    compressor = RankR1Rerank(**live, top_n=2, title_key=None, include_reasoning=True)
    compressor.compress_documents(documents(), QUERY)
    compressor.top_n = 4
    other = again(compressor)
    assert other.compress_documents(documents(), QUERY) == compressor.compress_documents(documents(), QUERY)
    assert len(other.compress_documents(documents(), QUERY)) == 4
    assert ids(other.compress_documents(documents(), QUERY))[:3] == WANTED
    assert (other.ranker.plan.size, other.ranker.plan.algorithm) == (4, compressor.ranker.plan.algorithm)


def test_what_cannot_be_pickled_is_named() -> None:
    here = Scripted(lambda messages: knows_best(messages), model="here")
    for given, named in [
        ({"llm": Chat(backend=here)}, r"llm=Chat cannot be pickled"),
        ({"reranker": Reranker(here)}, r"reranker=Scripted\(.* cannot be pickled"),
        ({"on_ranking": lambda ranking: None}, r"on_ranking=<function .* cannot be pickled"),
    ]:
        with pytest.raises(TypeError, match=named):
            pickle.dumps(RankR1Rerank(**given))  # type: ignore[arg-type]
