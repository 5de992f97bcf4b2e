"""No more than n at once."""

import asyncio
import pickle
import threading

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited

REQUEST = Request([{"role": "user", "content": "which?"}], max_tokens=8)


class Crowd:
    """A script that counts how many are in it at once."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0

    async def __call__(self, messages: object) -> str:
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.001)
        finally:
            self.now -= 1
        return "[1]"


async def ask(backend: Backend, times: int) -> None:
    await asyncio.gather(*(backend.complete(REQUEST) for _ in range(times)))


@pytest.mark.parametrize("n", [1, 3, 50])
def test_at_most_n_requests_are_under_way(n: int) -> None:
    crowd = Crowd()
    asyncio.run(ask(limited(Scripted(crowd), n), 20))
    assert (crowd.most, crowd.calls) == (min(n, 20), 20)


def test_one_that_is_cancelled_gives_its_slot_back() -> None:
    crowd = Crowd()
    backend = limited(Scripted(crowd), 1)

    async def cancelled() -> None:
        first, second, third = (asyncio.create_task(backend.complete(REQUEST)) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()  # under way
        second.cancel()  # still waiting
        await third
        await asyncio.gather(first, second, return_exceptions=True)

    asyncio.run(asyncio.wait_for(cancelled(), 5))
    assert crowd.calls == 2


def test_one_that_fails_gives_its_slot_back() -> None:
    backend = limited(Scripted(lambda messages: 1 / 0), 1)

    async def failing() -> None:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await backend.complete(REQUEST)

    asyncio.run(asyncio.wait_for(failing(), 5))


def test_it_serves_one_loop_after_another_and_several_at_once() -> None:
    backend = limited(Scripted(Crowd()), 2)
    asyncio.run(ask(backend, 5))
    threads = [threading.Thread(target=asyncio.run, args=(ask(backend, 5),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert backend.backend._f.calls == 25


def test_it_looks_like_what_it_is_around() -> None:
    inner = Scripted(lambda messages: "", model="judge", context=9, can_continue=False, count=len)
    outer = limited(inner, 2)
    assert isinstance(outer, Backend)
    for name in ("model", "identity", "context", "can_continue"):
        assert getattr(outer, name) == getattr(inner, name)
    assert outer.count("four") == 4
    assert repr(outer) == f"limited({inner!r}, 2)"
    asyncio.run(outer.close())


def test_it_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(limited(Scripted(Crowd()), 2)))
    asyncio.run(ask(copy, 5))
    assert copy.backend._f.most == 2


@pytest.mark.parametrize("n", [0, -1])
def test_none_at_all_is_an_error(n: int) -> None:
    with pytest.raises(ValueError, match=f"got n={n}"):
        limited(Scripted(lambda messages: ""), n)
