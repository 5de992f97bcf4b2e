"""What the tests of both integrations share: a real server, a real embedder, models that say what a test wants."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sklearn.feature_extraction.text import HashingVectorizer

from rankr1_rag.backends.scripted import Scripted
from tests.llama_server import serving

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
"""What the reader needs, best first, which no first stage here gives in this order."""

Said = Callable[[Sequence[Any]], str]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here use a framework. Wheels and examples are tried with the newest versions only."""
    for item in items:
        if item.path.parent.name in ("with_langchain", "with_llama_index") or item.path.name == "test_switching.py":
            item.add_marker(pytest.mark.third_party)


def shown(messages: Sequence[Any]) -> list[str]:
    """The passages of a prompt, in shown order; behind the last stands the rest of the prompt, less what is known."""
    prompt = re.sub(r" \(already known: [^)]*\)", "", messages[-1]["content"])
    return re.split(r"^\[\d+\] ", prompt, flags=re.MULTILINE)[1:]


def knows_best(messages: Sequence[Any]) -> str:
    """A judge that knows what is wanted: a reason that names its passage, and its label."""
    names = [next((key for key, (title, text) in PASSAGES.items() if text in line), "") for line in shown(messages)]
    order = [*WANTED, *sorted(PASSAGES.keys() - set(WANTED)), ""]
    best = min(range(len(names)), key=lambda place: order.index(names[place]))
    return f"<think>{names[best]} is what is wanted</think> <answer>[{best + 1}]</answer>"


@pytest.fixture
def judge() -> Scripted:
    """A model that knows best."""
    return Scripted(knows_best, model="knows-best")


@pytest.fixture(scope="session")
def llama() -> Iterator[str]:
    """The address of a real server with a real model, two requests at once."""
    with serving(context=8_192, parallel=2) as url:
        yield url


class Vectors:
    """A real embedder without weights: hashed character n-grams, 256 dimensions. Keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._hashed = HashingVectorizer(n_features=256, analyzer="char_wb", ngram_range=(3, 5))

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        self.seen.extend(texts)
        vectors: list[list[float]] = self._hashed.transform(texts).toarray().tolist()
        return vectors
