"""The test seam: a function is a backend."""

import asyncio

import pytest

from rankr1_rag.backends import Backend
from rankr1_rag.backends.scripted import Script, Scripted
from rankr1_rag.types import Completion
from tests.backends.scripts import ask


async def soon(messages: object) -> str:
    await asyncio.sleep(0)
    return "[2]"


async def wrong(messages: object) -> int:
    return 3


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda messages: "[2]", Completion("[2]")),
        (lambda messages: messages[-1]["content"], Completion("which?")),
        (lambda messages: Completion("[2]", prompt_tokens=7), Completion("[2]", prompt_tokens=7)),
        (soon, Completion("[2]")),
        (lambda messages: 1 / 0, ZeroDivisionError("division by zero")),
        (wrong, TypeError(r"Scripted\(.*wrong.* must return a str or a Completion, not int")),
    ],
    ids=["text", "prompt", "completion", "coroutine", "exception", "type"],
)
def test_what_the_function_returns_or_raises_is_the_completion(f: Script, expected: Completion | Exception) -> None:
    if isinstance(expected, Completion):
        assert ask(Scripted(f)) == [expected]
    else:
        with pytest.raises(type(expected), match=str(expected)):
            ask(Scripted(f))


def test_it_is_a_backend_with_the_attributes_of_its_arguments() -> None:
    backend = Scripted(lambda messages: "", model="judge", context=100, can_continue=False, count=len)
    assert isinstance(backend, Backend)
    assert (backend.model, backend.identity, backend.context) == ("judge", "scripted:judge", 100)
    assert (backend.can_continue, backend.count("four")) == (False, 4)
    assert Scripted(lambda messages: "").count("four") is None
    assert Scripted(lambda messages: "", identity="mine").identity == "mine"
