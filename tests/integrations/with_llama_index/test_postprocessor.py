"""What goes in and what comes out: nodes, scores, metadata, settings."""

import asyncio
import copy
import json
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.rankr1 import RankR1Rerank

from rankr1_rag import BackendError, Completion, Ranking, Reranker, UnparsedError
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import QUERY, WANTED, knows_best, shown
from tests.integrations.with_llama_index.conftest import ids

Found = list[NodeWithScore]


class Lock(LlamaDebugHandler):
    """A handler that cannot be pickled, as most hold a connection."""

    def __init__(self) -> None:
        super().__init__(print_trace_on_end=False)
        self.lock = threading.Lock()


def made(script: Any = knows_best, **settings: Any) -> RankR1Rerank:
    own = {name: settings.pop(name) for name in ("strict", "on_failure", "size") if name in settings}
    return RankR1Rerank(reranker=Reranker(Scripted(script, model="scripted-1"), **own), **settings)


def test_it_is_a_node_postprocessor() -> None:
    assert BaseNodePostprocessor in RankR1Rerank.__mro__
    assert RankR1Rerank.class_name() == "RankR1Rerank"


def test_the_best_come_first_with_scores_that_strictly_decrease(found: Found) -> None:
    chosen = made(top_n=3).postprocess_nodes(found, query_str=QUERY)
    assert ids(chosen) == WANTED
    scores = np.array([node.score for node in chosen], dtype=np.float32)
    assert (np.diff(scores) < 0).all()
    assert 0 < scores.min() <= scores.max() <= 1


def test_top_n_is_5_by_default_none_is_all_and_it_may_be_changed(found: Found) -> None:
    rerank = made()
    assert len(rerank.postprocess_nodes(found, query_str=QUERY)) == 5
    rerank.top_n = None
    assert sorted(ids(rerank.postprocess_nodes(found, query_str=QUERY))) == sorted(ids(found))
    rerank.top_n = 1
    assert ids(rerank.postprocess_nodes(found, query_str=QUERY)) == WANTED[:1]
    assert len(made(top_n=50).postprocess_nodes(found, query_str=QUERY)) == len(found)


def test_nothing_that_came_in_is_changed(found: Found) -> None:
    before = copy.deepcopy(found)
    rerank = made(include_reasoning=True, keep_retrieval_score=True)
    chosen = rerank.postprocess_nodes(found, query_str=QUERY)
    assert found == before
    assert not {id(node) for node in chosen} & {id(node) for node in found}


def test_ids_and_metadata_and_relationships_come_back_as_they_were(found: Found) -> None:
    given = {node.node_id: node.node for node in found}
    for node in made(top_n=None).postprocess_nodes(found, query_str=QUERY):
        assert node.node == given[node.node_id]
        assert type(node.node) is TextNode


def test_a_score_belongs_to_its_own_node_also_where_texts_and_ids_repeat() -> None:
    texts = [
        "Whitby is a seaside town",
        "Dracula is an 1897 Gothic horror novel by the Irish author Bram Stoker.",
        "x",
        "x",
    ]
    found = [NodeWithScore(node=TextNode(id_="same", text=text), score=n / 10) for n, text in enumerate(texts)]
    chosen = made(top_n=None, keep_retrieval_score=True).postprocess_nodes(found, query_str=QUERY)
    assert sorted((one.text, one.node.metadata["retrieval_score"]) for one in chosen) == sorted(
        (one.text, one.score) for one in found
    )
    assert chosen[0].text == texts[1]
    assert len({one.score for one in chosen}) == 4


def test_reasoning_and_old_score_stand_in_a_copy_that_neither_embedder_nor_reader_sees(found: Found) -> None:
    rerank = made(top_n=3, include_reasoning=True, keep_retrieval_score=True)
    chosen = rerank.postprocess_nodes(found, query_str=QUERY)
    assert chosen[0].node.metadata["rankr1_reasoning"] == "dracula is what is wanted"
    assert [one.node.metadata["retrieval_score"] for one in chosen] == [0.8, 0.9, 0.6]
    for one in chosen:
        for mode in (MetadataMode.EMBED, MetadataMode.LLM):
            assert "rankr1_reasoning" not in one.node.get_content(mode)
            assert "retrieval_score" not in one.node.get_content(mode)
            assert one.node.get_content(mode).startswith("title: ")
    rerank = made(top_n=None, keep_retrieval_score=True)
    scores = {one.node_id: one.node.metadata["retrieval_score"] for one in rerank.postprocess_nodes(found, None, QUERY)}
    assert scores == {one.node_id: one.score for one in found}
    assert scores["whitby"] is None


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "Whitby source: {'file': 'whitby.txt', 'page': 1}\n\nWhitby is a seaside town in Yorkshire"),
        ({"title_key": None}, "title: Whitby\nsource: {'file': 'whitby.txt', 'page': 1}\n\nWhitby is a seaside town"),
        ({"title_key": "name"}, "title: Whitby\nsource: {'file': 'whitby.txt', 'page': 1}\n\nWhitby is a seaside town"),
        ({"metadata_mode": MetadataMode.NONE}, "Whitby Whitby is a seaside town in Yorkshire"),
        ({"metadata_mode": "none", "title_key": None}, "Whitby is a seaside town in Yorkshire"),
    ],
)
def test_the_model_sees_the_title_once_and_the_metadata_that_the_mode_says(
    found: Found, settings: dict[str, Any], line: str
) -> None:
    seen: list[str] = []

    def look(messages: Any) -> str:
        seen.append(messages[-1]["content"])
        return "<answer>[1]</answer>"

    made(look, **settings).postprocess_nodes(found, query_str=QUERY)
    assert f"[3] {line}" in seen[0]


def test_a_node_without_text_and_one_that_is_an_image_come_back_too(found: Found) -> None:
    found += [NodeWithScore(node=TextNode(id_="empty", text="")), NodeWithScore(node=ImageNode(id_="image"))]
    chosen = made(top_n=None).postprocess_nodes(found, query_str=QUERY)
    assert sorted(ids(chosen)) == sorted(ids(found))


@pytest.mark.parametrize("title", [7, "", None, ["a"]])
def test_a_title_of_any_kind_is_taken_as_text(title: object) -> None:
    found = [NodeWithScore(node=TextNode(text=text, metadata={"title": title})) for text in ("a", "b")]
    assert len(made().postprocess_nodes(found, query_str=QUERY)) == 2


def test_no_nodes_are_no_call_and_no_query_is_an_error(found: Found) -> None:
    def refuse(messages: Any) -> str:
        raise AssertionError("asked")

    assert made(refuse).postprocess_nodes([], query_str=QUERY) == []
    assert asyncio.run(made(refuse).apostprocess_nodes([], query_str=QUERY)) == []
    assert len(made(refuse).postprocess_nodes(found[:1], query_str=QUERY)) == 1
    with pytest.raises(TypeError, match="item 0 is a TextNode, not a NodeWithScore"):
        made().postprocess_nodes([one.node for one in found], query_str=QUERY)
    for nodes in ([], found):
        with pytest.raises(ValueError, match="needs a query"):
            made().postprocess_nodes(nodes)
        with pytest.raises(ValueError, match="needs a query"):
            asyncio.run(made().apostprocess_nodes(nodes))
    with pytest.raises(ValueError, match="empty"):
        made().postprocess_nodes(found, QueryBundle(" "))


def test_async_is_native_and_gives_the_same(found: Found) -> None:
    threads: list[str] = []

    async def slow(messages: Any) -> str:
        threads.append(threading.current_thread().name)
        await asyncio.sleep(0)
        return knows_best(messages)

    async def both() -> tuple[Found, set[str]]:
        before = {thread.name for thread in threading.enumerate()}
        chosen = await made(slow).apostprocess_nodes(found, query_str=QUERY)
        return chosen, {thread.name for thread in threading.enumerate()} - before

    chosen, started = asyncio.run(both())
    assert chosen == made().postprocess_nodes(found, query_str=QUERY)
    assert set(threads) == {"rankr1-loop"}
    assert not [name for name in started if name.startswith("asyncio")]


def test_the_sync_method_works_inside_a_running_loop_as_in_a_notebook(found: Found) -> None:
    async def cell() -> Found:
        return made().postprocess_nodes(found, query_str=QUERY)

    assert ids(asyncio.run(cell()))[:3] == WANTED


def test_threads_share_one_object(found: Found) -> None:
    rerank = made(top_n=3)
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda _: ids(rerank.postprocess_nodes(found, query_str=QUERY)), range(40))
        assert all(result == WANTED for result in results)


def test_many_queries_at_once_on_one_loop(found: Found) -> None:
    rerank = made(top_n=3)

    async def many() -> list[Found]:
        return await asyncio.gather(*(rerank.apostprocess_nodes(found, query_str=QUERY) for _ in range(40)))

    assert all(ids(result) == WANTED for result in asyncio.run(many()))


def fails(messages: Any) -> str:
    raise OSError("the model is gone")


def test_a_failing_model_raises_or_leaves_the_first_stage_order_and_says_so(
    found: Found, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BackendError, match="the model is gone"):
        made(fails).postprocess_nodes(found, query_str=QUERY)
    with pytest.raises(BackendError, match="the model is gone"):
        asyncio.run(made(fails).apostprocess_nodes(found, query_str=QUERY))
    told: list[Ranking] = []
    rerank = made(fails, on_failure="first_stage", top_n=2, on_ranking=told.append)
    with caplog.at_level(logging.WARNING, "rankr1_rag"):
        assert ids(rerank.postprocess_nodes(found, query_str=QUERY)) == ids(found)[:2]
    assert "the model is gone" in caplog.text
    assert told[0].failure


@pytest.mark.parametrize(
    "text", ["", "I would say that all of these are interesting!", "<answer>[99]</answer>", "[1], [2] or [-1]"]
)
def test_a_chatty_or_empty_answer_trusts_the_retriever_and_is_counted(found: Found, text: str) -> None:
    told: list[Ranking] = []
    chosen = made(lambda messages: text, on_ranking=told.append).postprocess_nodes(found, query_str=QUERY)
    assert ids(chosen) == ids(found)[:5]
    assert told[0].cost.unparsed == told[0].cost.comparisons > 0
    with pytest.raises(UnparsedError, match="names no passage"):
        made(lambda messages: text, strict=True).postprocess_nodes(found, query_str=QUERY)


def test_it_counts_what_it_cost(found: Found) -> None:
    told: list[Ranking] = []
    said = Completion("<think>x</think> <answer>[1]</answer>", prompt_tokens=100, completion_tokens=7)
    made(lambda messages: said, top_n=2, size=3, on_ranking=told.append).postprocess_nodes(found, query_str=QUERY)
    (ranking,) = told
    assert ranking.query.text == QUERY
    assert ranking.cost.prompt_tokens == 100 * ranking.cost.comparisons
    assert ranking.cost.completion_tokens == 7 * ranking.cost.comparisons
    assert [passage.id for passage in ranking.candidates] == ids(found)


def test_a_pickle_reranks_the_same(found: Found) -> None:
    reranker = Reranker(Scripted(knows_best), algorithm="heapsort", size=4, votes=3)
    rerank = RankR1Rerank(reranker=reranker, top_n=3, include_reasoning=True, metadata_mode=MetadataMode.NONE)
    again = pickle.loads(pickle.dumps(rerank))
    assert again.ranker.plan.algorithm == "heapsort"
    assert (again.ranker.votes, again.ranker.plan.size, again.metadata_mode) == (3, 4, MetadataMode.NONE)
    told = pickle.loads(pickle.dumps(RankR1Rerank(reranker=reranker, callback_manager=CallbackManager([Lock()]))))
    assert told.callback_manager.handlers == []
    assert again.postprocess_nodes(found, query_str=QUERY) == rerank.postprocess_nodes(found, query_str=QUERY)


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(TypeError, match=r"reranker=Scripted\(.*<lambda>.* cannot be pickled"):
        pickle.dumps(made(lambda messages: ""))
    with pytest.raises(TypeError, match=r"on_ranking=.*<lambda>.* cannot be pickled"):
        pickle.dumps(made(on_ranking=lambda ranking: None))


def test_settings_survive_a_round_trip_through_json_and_secrets_are_not_in_it() -> None:
    settings: dict[str, Any] = {"model": "ielabgroup/Rank-R1-7B-v0.1", "base_url": "http://localhost:1/v1", "votes": 3}
    rerank = RankR1Rerank(api_key="sk-secret", top_n=7, metadata_mode=MetadataMode.LLM, **settings)
    text = rerank.to_json()
    assert "sk-secret" not in text + repr(rerank) + str(rerank) + str(rerank.to_dict())
    again = RankR1Rerank.from_json(text)
    assert json.loads(text)["class_name"] == "RankR1Rerank"
    assert (again.top_n, again.metadata_mode) == (7, MetadataMode.LLM)
    assert again.ranker.votes == 3
    assert again.ranker.plan.backend.identity == rerank.ranker.plan.backend.identity
    assert again.ranker.plan.format == rerank.ranker.plan.format
    with pytest.raises(TypeError, match="api_key_env"):
        pickle.dumps(rerank)


def test_what_is_live_is_not_serialised_in_silence() -> None:
    with pytest.raises(TypeError, match="reranker= is a live object"):
        made().to_dict()
    with pytest.raises(TypeError, match="on_ranking= is a live object"):
        RankR1Rerank(on_ranking=print).to_json()


def test_its_schema_can_be_had() -> None:
    assert {"top_n", "model", "votes"} <= RankR1Rerank.model_json_schema()["properties"].keys()


def test_a_wrong_argument_is_told_when_it_is_made(found: Found) -> None:
    for wrong, message in (
        ({"topn": 3}, "there is no option 'topn': did you mean 'top_n'"),
        ({"llm": "gpt-4o"}, "llm='gpt-4o' is a name"),
        ({"top_n": "3"}, "valid integer"),
        ({"votes": 0}, "votes=0"),
        ({"keep_retrieval_score": 1}, "keep_retrieval_score"),
        ({"reranker": Reranker(Scripted(knows_best)), "size": 5}, "leave out size"),
    ):
        with pytest.raises(ValueError, match=message):
            RankR1Rerank(**wrong)
    with pytest.raises(FileNotFoundError, match="on a server add base_url="):
        RankR1Rerank(model="gpt-4o-mini")
    with pytest.raises(ValueError, match="frozen"):
        RankR1Rerank().votes = 3


def test_shown_reads_the_passages_of_a_prompt(found: Found) -> None:
    seen: list[list[str]] = []

    def look(messages: Any) -> str:
        seen.append(shown(messages))
        return "<answer>[1]</answer>"

    made(look).postprocess_nodes(found, query_str=QUERY)
    assert len(seen[0]) == len(found)
