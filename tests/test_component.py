"""What the components of frameworks share, on a component without a framework."""

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rankr1_rag import Completion, LoopError, Passage, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.connect import RERANKING, connect
from rankr1_rag.frameworks.component import Component
from rankr1_rag.frameworks.llm import FrameworkLLM

pytestmark = pytest.mark.third_party

KEY = "sk-not-to-be-seen-0123456789"
SERVER: dict[str, Any] = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}
PASSAGES = [Passage(str(n), f"number {n}") for n in (3, 1, 2, 0)]


class Asked(FrameworkLLM):
    """A function of the messages is the model."""

    def chat(self, request: Request) -> Completion:
        return Completion(self.llm(request.messages))

    async def achat(self, request: Request) -> Completion:
        return self.chat(request)


class Mine(Component):
    """A component of no framework, around functions."""

    def _wrap_llm(self, llm: Any) -> FrameworkLLM:
        return Asked(llm, "mine")


def last(messages: Any) -> str:
    """The model that names the last passage it is shown."""
    return f"<think>it is last</think> <answer>[{messages[1]['content'].count(chr(10) + '[')}]</answer>"


def test_what_is_not_given_is_as_a_reranker_has_it() -> None:
    ranker, plain = Mine(llm=last).ranker, Reranker(Asked(last, "mine"), k=5)
    assert {name: getattr(ranker, name) for name in RERANKING} == {name: getattr(plain, name) for name in RERANKING}
    assert replace(ranker.plan, backend=plain.plan.backend) == plain.plan


def test_a_server_is_asked_with_the_arguments_of_connect() -> None:
    component = Mine(**SERVER, server="vllm", api_key=KEY, context=4_096, timeout=5, attempts=2, requests=3, size=4)
    backend = component.ranker.plan.backend
    alike = connect(None, **SERVER, server="vllm", api_key=KEY, context=4_096, requests=3)
    assert (repr(backend), backend.identity, backend.context) == (repr(alike), alike.identity, 4_096)
    assert component.ranker.size == 4
    assert Mine(**{**SERVER, "model": Path("org") / "name"}).model == "org/name"


def test_several_servers_are_a_setting_that_prints_pickles_and_goes_into_json() -> None:
    component = Mine(model="m", base_url=["http://a:8000/v1", "http://b:8000/v1"])
    backend = component.ranker.plan.backend
    assert "load_balanced([OpenAI('m', base_url='http://a:8000/v1'" in repr(backend)
    for other in (pickle.loads(pickle.dumps(component)), Mine(**json.loads(component.model_dump_json()))):
        assert other.base_url == ["http://a:8000/v1", "http://b:8000/v1"]
        assert repr(other.ranker.plan.backend) == repr(backend)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"reranker": Reranker(Scripted(last)), "llm": last, "votes": 3}, "reranker=.*leave out llm, votes"),
        ({"reranker": Reranker(Scripted(last)), **SERVER}, "reranker=.*leave out base_url, model"),
        (
            {"llm": last, "api_key": KEY, "api_key_env": "K", "attempts": 1, "backend": "openai", "context": 9},
            "leave out api_key, api_key_env, attempts, backend",
        ),
        ({"llm": last, "server": "vllm", "timeout": 3}, "leave out server, timeout"),
        ({"reranker": Scripted(last)}, r"reranker= is a Scripted: pass Reranker\(backend"),
        ({"server": "vllm", "api_key_env": "K"}, "server='vllm' needs a server: add base_url="),
        ({"llm": Scripted(last)}, "llm= is a Scripted, a backend: use an LLM, or reranker="),
        ({**SERVER, "api_key": KEY, "llm": last}, "llm= has a connection of its own: leave out api_key, base_url"),
        ({**SERVER, "api_key": KEY, "server": "ollama"}, "server='ollama'"),
        ({**SERVER, "api_key": KEY, "timeout": 0}, "timeout=0"),
        ({**SERVER, "api_key": KEY, "model": 5}, "model"),
    ],
)
def test_wrong_settings_are_a_value_error_that_names_them_and_no_key(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        Mine(**settings)
    assert KEY not in str(caught.value)


LATER = {"top_n", "title_key", "metadata_keys", "include_reasoning", "keep_retrieval_score", "on_ranking"}


def test_only_some_settings_may_be_changed_later() -> None:
    component = Mine(llm=last, top_n=1, size=3, on_ranking=print)
    for name in set(Component.model_fields) - LATER:
        with pytest.raises(ValueError, match=f"{name} cannot change later.*: make") as caught:
            setattr(component, name, KEY if name == "api_key" else None)
        assert KEY not in str(caught.value)
    with pytest.raises(ValueError, match="top_n=0: a whole number ≥ 1 is needed"):
        component.top_n = 0
    with pytest.raises(ValueError, match="did you mean 'top_n'"):
        component.model_copy(update={"topn": 1})
    assert repr(component) == (
        "Mine(of='mine', size=3, top_n=1, title_key='title', include_reasoning=False, keep_retrieval_score=False)"
    )
    assert not {"llm", "on_ranking", "reranker", "api_key"} & component.model_dump().keys()


def test_a_copy_shares_the_reranker_unless_a_setting_changes() -> None:
    component = Mine(llm=last, size=3)
    assert component.model_copy(update={"top_n": 1}).ranker is component.ranker
    other = component.model_copy(update={"size": 4})
    assert (other.ranker.plan.size, component.ranker.plan.size) == (4, 3)
    assert other.llm is last
    for copied in (copy.copy(component), copy.deepcopy(component), component.model_copy(deep=True)):
        assert copied.ranker is component.ranker


class Known:
    """A model that says which it is."""

    identity = "known"

    def __call__(self, messages: Any) -> str:
        return last(messages)


def test_a_model_of_the_pipeline_may_have_a_store_and_a_limit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot identify the model for the store: llm is a function"):
        Mine(llm=last, store=tmp_path / "store")
    component = Mine(llm=Known(), requests=2, store=tmp_path / "store")
    assert component.store == str(tmp_path / "store")
    assert repr(component.ranker.plan.backend).startswith("stored(limited(Asked(")
    first, second = (component.rank("which?", PASSAGES) for _ in range(2))
    assert (first.order, first.cost.stored) == (second.order, 0)
    assert second.cost.stored == second.cost.comparisons > 0
    component.close()


def test_a_pickle_keeps_what_was_set_and_names_what_it_cannot_keep() -> None:
    component = Mine(llm=last, size=3, votes=3, on_ranking=print)
    component.top_n = 2
    again = pickle.loads(pickle.dumps(component))
    assert (again.top_n, again.model_fields_set) == (2, {"llm", "size", "votes", "on_ranking", "top_n"})
    with pytest.raises(TypeError, match=r"llm=<function.* cannot be pickled"):
        pickle.dumps(Mine(llm=lambda messages: ""))


@pytest.mark.parametrize("close", [Mine.close, lambda component: asyncio.run(component.aclose())])
def test_a_closed_component_stays_closed(close: Callable[[Component], None]) -> None:
    component = Mine(llm=last, top_n=2)
    close(component)
    component.close()
    for component.top_n in (2, 3):
        with pytest.raises(LoopError, match="closed"):
            component.rank("which?", PASSAGES)


class Own(Mine):
    """A subclass with arguments of its own."""

    def __init__(self, size: int, **settings: Any) -> None:
        super().__init__(llm=last, size=size, **settings)


def test_a_subclass_with_arguments_of_its_own_is_pickled_and_copied() -> None:
    component = Own(3, votes=3)
    again, other = pickle.loads(pickle.dumps(component)), component.model_copy(update={"size": 4})
    assert (again.ranker.plan.size, again.ranker.votes, again.llm) == (3, 3, last)
    assert (other.ranker.plan.size, other.ranker.votes) == (4, 3)
