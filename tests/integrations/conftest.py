"""Parts that the tests of both integrations share: passages, a judge, a real server, a real embedder."""

import asyncio
import re
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from rankr1_rag.backends.scripted import Scripted
from tests.llama_server import serving

if TYPE_CHECKING:
    from tests.integrations.both import Framework

PASSAGES = {
    "stoker": ("Bram Stoker", "Bram Stoker was born in Clontarf, Dublin, and managed the Lyceum Theatre."),
    "dracula": ("Dracula", "Dracula is an 1897 Gothic horror novel by the Irish author Bram Stoker."),
    "whitby": ("Whitby", "Whitby is a seaside town in Yorkshire with a ruined abbey."),
    "dublin": ("Dublin", "Dublin is the capital of Ireland and lies on the river Liffey."),
    "shelley": ("Mary Shelley", "Mary Shelley wrote the Gothic novel Frankenstein; she was born in London."),
    "lyceum": ("Lyceum Theatre", "The Lyceum Theatre in London opened in 1834 and was managed by Henry Irving."),
}
QUERY = "Where was the author of Dracula born?"
WANTED = ["dracula", "stoker", "dublin"]
"""The passages that the reader needs, best first; no first stage here has this order."""

BOTH = ("test_component.py", "test_llm.py", "test_retrieve.py")
"""The files whose tests run over both frameworks."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here use a framework. Wheels and examples are tried with the newest versions only."""
    for item in items:
        if item.path.parent.name in ("with_langchain", "with_llama_index") or item.path.name in BOTH:
            item.add_marker(pytest.mark.third_party)


def shown(messages: Sequence[Any]) -> list[str]:
    """The passages of a prompt, in shown order; the last one ends with the rest of the prompt without `known`."""
    prompt = re.sub(r" \(already known: [^)]*\)", "", messages[-1]["content"])
    return re.split(r"^\[\d+\] ", prompt, flags=re.MULTILINE)[1:]


def knows_best(messages: Sequence[Any]) -> str:
    """The answer of a judge that knows what is wanted: a reason that names its passage, and its label."""
    names = [next((key for key, (title, text) in PASSAGES.items() if text in line), "") for line in shown(messages)]
    order = [*WANTED, *sorted(PASSAGES.keys() - set(WANTED)), ""]
    best = min(range(len(names)), key=lambda place: order.index(names[place]))
    return f"<think>{names[best]} is what is wanted</think> <answer>[{best + 1}]</answer>"


@pytest.fixture
def judge() -> Scripted:
    """A model that knows best."""
    return Scripted(knows_best, model="knows-best")


@pytest.fixture(params=["langchain", "llama_index"])
def both(request: pytest.FixtureRequest) -> "Framework":
    """Each of the frameworks that is installed."""
    from tests.integrations.both import framework

    return framework(request.param)


class Call(NamedTuple):
    """A call of an LLM of a framework."""

    how: str
    thread: str
    loop: Any
    llm: Any


class Calls(list[Call]):
    """The calls of an LLM, which no pickle holds."""

    def __reduce__(self) -> tuple[type["Calls"], tuple[()]]:
        return Calls, ()


def call(how: str, llm: Any) -> Call:
    """The call that happens here."""
    if llm.only not in ("native", how):
        raise NotImplementedError
    return Call(how, threading.current_thread().name, asyncio._get_running_loop(), llm)


@pytest.fixture(scope="session")
def llama() -> Iterator[str]:
    """The address of a real server with a real model, two requests at once."""
    with serving(context=8_192, parallel=2) as url:
        yield url


class Vectors:
    """A real embedder without weights: hashed character n-grams, 256 dimensions. Records the texts in `seen`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._hashed = HashingVectorizer(n_features=256, analyzer="char_wb", ngram_range=(3, 5))

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.seen.extend(texts)
        vectors: list[list[float]] = self._hashed.transform(texts).toarray().tolist()
        return vectors
