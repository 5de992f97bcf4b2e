"""The test seam: a function is a backend."""

import asyncio

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.scripted import Script, Scripted
from rankr1_rag.types import Completion

REQUEST = Request([{"role": "user", "content": "which?"}], max_tokens=8)


def ask(backend: Backend) -> Completion:
    return asyncio.run(backend.complete(REQUEST))


async def soon(messages: object) -> str:
    await asyncio.sleep(0)
    return "[2]"


@pytest.mark.parametrize(
    ("f", "completion"),
    [
        (lambda messages: "[2]", Completion("[2]")),
        (lambda messages: messages[-1]["content"], Completion("which?")),
        (lambda messages: Completion("[2]", prompt_tokens=7), Completion("[2]", prompt_tokens=7)),
        (soon, Completion("[2]")),
    ],
)
def test_what_the_function_gives_is_the_completion(f: Script, completion: Completion) -> None:
    assert ask(Scripted(f)) == completion


def test_an_exception_of_the_function_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(Scripted(lambda messages: 1 / 0))


def test_another_type_is_the_scripts_fault() -> None:
    async def wrong(messages: object) -> int:
        return 3

    with pytest.raises(TypeError, match=r"Scripted\(.*wrong.* must return a str or a Completion, not int"):
        ask(Scripted(wrong))


def test_it_is_a_backend_with_the_attributes_of_its_arguments() -> None:
    backend = Scripted(lambda messages: "", model="judge", context=100, can_continue=False, count=len)
    assert isinstance(backend, Backend)
    assert (backend.model, backend.identity, backend.context) == ("judge", "scripted:judge", 100)
    assert not backend.can_continue
    assert backend.count("four") == 4
    assert Scripted(lambda messages: "").count("four") is None
    assert Scripted(lambda messages: "", identity="mine").identity == "mine"
    asyncio.run(backend.close())
