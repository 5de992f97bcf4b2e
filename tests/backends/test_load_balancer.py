"""Several backends are one: the load is shared, and the loss of one loses nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.backends import Backend
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, load_balanced, retried
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from tests.backends.scripts import Script, ask_together, asking, run
from tests.mortal_server import mortal

GONE = BackendUnavailable("503")


def scripts(n: int, **settings: Any) -> list[Script]:
    return [Script(name, **settings) for name in "abcd"[:n]]


def balanced(members: Sequence[Script], **settings: Any) -> load_balanced:
    return load_balanced([Scripted(member, identity=member.name) for member in members], **settings)


async def one_by_one(backend: Backend, n: int) -> str:
    """The names of those who answer `n` requests, made one after another."""
    return "".join([(await backend.complete(asking(str(number)))).text for number in range(n)])


async def together(backend: Backend, n: int) -> str:
    """The names of those who answer `n` requests, made at once, sorted."""
    answers = await asyncio.gather(*(backend.complete(asking(str(number))) for number in range(n)))
    return "".join(sorted(one.text for one in answers))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged, behind the name of the backend."""
    return re.findall(r"\) ((?:is out|answers).*)", caplog.text)


# ---- which one is asked


@pytest.mark.parametrize("n", [1, 2, 3])
def test_requests_at_once_are_shared_evenly(n: int) -> None:
    members = scripts(n, seconds=0.01)
    assert len(run(together(balanced(members), 100))) == 100
    assert all(abs(member.calls - 100 / n) < 1 and member.most == member.calls for member in members)


def test_a_slow_backend_is_asked_less() -> None:
    slow, fast = Script("slow", seconds=0.2), Script("fast", seconds=0.002)
    ask_together(limited(balanced([slow, fast]), 4), 60)
    assert slow.calls < 12 < fast.calls
    assert slow.calls + fast.calls == 60


# ---- the loss of one


def test_the_loss_of_one_loses_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    members = [Script("a", error=BackendUnavailable("a is gone"), seconds=0.01), Script("b")]
    assert run(together(balanced(members), 100)) == "b" * 100
    assert members[0].calls == 50
    assert logged(caplog) == ["is out for 2 s, the others are asked: a is gone"]
    assert "Scripted(" in caplog.text


def test_a_lost_backend_cools_down_and_is_used_again_after_one_probe(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> None:
        backend = balanced(members, first_cooldown=0.2)
        assert await one_by_one(backend, 9) == "b" * 9
        assert members[0].calls == 1
        members[0].error, members[0].seconds = None, 0.1
        await asyncio.sleep(0.25)
        assert await together(backend, 10) == "a" + 9 * "b"
        assert await together(backend, 10) == "aaaaabbbbb"

    members = [Script("a", error=GONE), Script("b")]
    run(job())
    assert logged(caplog) == ["is out for 0.2 s, the others are asked: 503", "answers again"]


def test_failures_together_are_one_loss_which_the_success_of_an_older_request_does_not_end() -> None:
    async def job() -> None:
        backend = balanced(members, first_cooldown=0.6)
        members[0].seconds = 0.25
        early = asyncio.create_task(one_by_one(backend, 1))
        await asyncio.sleep(0)
        members[0].seconds, members[0].error = 0, GONE
        assert await together(backend, 40) == 40 * "b"
        assert members[0].calls > 10
        members[0].error = None
        assert await early == "a"
        assert await one_by_one(backend, 1) == "b"
        await asyncio.sleep(0.5)
        assert await one_by_one(backend, 1) == "a"  # a probe

    members = scripts(2)
    run(job())


def test_cooldowns_double_up_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> tuple[int, int]:
        backend, asked, early = balanced(members, first_cooldown=0.05, longest_cooldown=0.1), 0, 0
        while members[0].calls < 2 + 12:  # 50 seconds if cooldowns doubled without an end
            asked += len(await together(backend, 4))
            early = early or asked * (members[0].calls > 2)
        return asked, early

    members = [Script("a", error=GONE, seconds=0.002), Script("b", seconds=0.002)]
    asked, early = run(job())
    assert early > 4  # it cools down before the first probe
    assert members[1].calls == asked
    assert len(logged(caplog)) == 1


def test_a_backend_with_a_retry_after_is_not_asked_before() -> None:
    async def job() -> None:
        backend = balanced(members, first_cooldown=0.0001, longest_cooldown=0.0001)
        assert await together(backend, 10) == 10 * "b"
        assert await one_by_one(backend, 20) == 20 * "b"
        assert members[0].calls == 5

    members = [Script("a", error=BackendUnavailable("429", retry_after=30.0)), Script("b")]
    run(job())


@pytest.mark.parametrize("retry_after", [None, 30.0])
def test_when_all_are_lost_each_is_named_with_its_reason(retry_after: float | None) -> None:
    async def twice() -> None:
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="no backend is available") as caught:
                await backend.complete(asking())
            for name in "abc":
                assert f"identity='{name}'): the reason of {name}" in str(caught.value)
            assert caught.value.retry_after == (retry_after and pytest.approx(retry_after, abs=5))

    members = [Script(name, error=BackendUnavailable(f"the reason of {name}", retry_after)) for name in "abc"]
    backend = balanced(members)
    run(twice())
    # Cooling down they are asked nevertheless, as no other is left; but none before its Retry-After.
    assert [member.calls for member in members] == [1 if retry_after else 2] * 3


@pytest.mark.parametrize("waits", [(None, None), (60.0, 0.3)], ids=["first that is back", "first Retry-After"])
def test_when_all_are_lost_the_retries_find(waits: tuple[float | None, float | None]) -> None:
    async def job() -> str:
        task = asyncio.create_task(one_by_one(retried(balanced(members), first_wait=0.05), 1))
        await asyncio.sleep(0.02)
        members[1].error = None
        assert waits[0] is None or not (await asyncio.wait({task}, timeout=0.2))[0]
        return await task

    members = [Script(name, error=BackendUnavailable("down", wait)) for name, wait in zip("ab", waits, strict=True)]
    assert run(job()) == "b"
    assert waits[0] is None or members[0].calls == 1


@given(st.lists(st.sets(st.integers(0, 3)), max_size=12), st.booleans())
def test_a_request_fails_only_when_all_do(ups: list[set[int]], at_once: bool) -> None:
    async def job() -> None:
        backend = balanced(members, first_cooldown=1e-4, longest_cooldown=1e-3)
        for up in ups:
            for place, member in enumerate(members):
                member.error = None if place in up else BackendUnavailable("down")
            requests = [backend.complete(asking(str(number))) for number in range(5 if at_once else 1)]
            for outcome in await asyncio.gather(*requests, return_exceptions=True):
                assert outcome.text in {members[place].name for place in up} if up else "down; " in str(outcome)

    members = scripts(4)
    run(job())


@pytest.mark.parametrize("error", [PromptTooLong("4,000 tokens"), BackendError("401 from b"), ValueError("a bug")])
def test_every_other_error_is_raised_and_hides_behind_no_other_backend(error: Exception) -> None:
    async def job() -> list[object]:
        backend = balanced(members)
        return [await asyncio.gather(backend.complete(asking()), return_exceptions=True) for _ in range(6)]

    members = [Script("a"), Script("b", error=error)]
    assert [outcome is error for (outcome,) in run(job())] == [False, True] * 3
    assert (members[0].calls, members[1].calls) == (3, 3)


def test_a_cancelled_request_is_open_no_more() -> None:
    async def job() -> str:
        backend = balanced(members)
        tasks = [asyncio.create_task(backend.complete(asking(str(n)))) for n in range(10)]
        await asyncio.sleep(0.02)
        for task in tasks[:9]:
            task.cancel()
        await asyncio.gather(*tasks[:9], return_exceptions=True)
        assert [member.now for member in members] == [0, 1]
        for member in members:
            member.seconds = 0.01
        answers = await together(backend, 7)
        tasks[9].cancel()
        return answers

    members = scripts(2, seconds=20)
    assert run(job()) == "aaaabbb"


def test_a_cancelled_probe_is_followed_by_another() -> None:
    async def job() -> str:
        backend = balanced(members, first_cooldown=0.01)
        await one_by_one(backend, 1)
        await asyncio.sleep(0.02)
        members[0].error, members[0].seconds = None, 20
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one_by_one(backend, 1), 0.05)
        members[0].seconds = 0
        return await one_by_one(backend, 3)

    members = [Script("a", error=GONE), Script("b")]
    assert "a" in run(job())


def test_in_a_copy_no_backend_is_cooling_down(copied: Callable[[Any], Any]) -> None:
    backend = balanced([Script("a", error=GONE), Script("b")], first_cooldown=50.0)
    assert run(one_by_one(backend, 3)) == "bbb"
    copy = copied(backend)
    for member in copy.backends:
        member._f.error = None
    assert (copy.identity, copy.first_cooldown) == (backend.identity, 50.0)
    assert run(one_by_one(copy, 4)) == "abab"


# ---- what it is as a backend


def test_it_can_do_what_all_of_them_can() -> None:
    def made(*settings: dict[str, Any]) -> load_balanced:
        return load_balanced([Scripted(lambda messages: "", model="judge", **one) for one in settings])

    backend = made({"context": None}, {"context": 9, "count": len}, {"context": 7, "can_continue": False})
    assert (backend.model, backend.context, backend.can_continue, backend.count("four")) == ("judge", 7, False, 4)
    assert (made({}, {}).context, made({}, {}).can_continue) == (None, True)


identities = st.lists(st.text(max_size=3), min_size=1, max_size=5)


@given(identities, identities, st.randoms())
def test_its_identity_holds_all_of_them_in_any_order(one: list[str], other: list[str], random: Any) -> None:
    def identity(names: list[str]) -> str:
        return load_balanced([Scripted(len, identity=name) for name in names]).identity

    assert identity(one) == identity(random.sample(one, len(one)))
    if len(set(one)) == 1:
        assert identity(one) == one[0]
    assert len({*one}) == len({*other}) == 1 or (identity(one) == identity(other)) == ({*one} == {*other})


@pytest.mark.parametrize(("models", "got"), [("", "none"), ("nm", "'m', 'n'")])
def test_none_and_different_models_are_a_value_error(models: str, got: str) -> None:
    with pytest.raises(ValueError, match=f"needs backends of one model, got {got}"):
        load_balanced([Scripted(len, model=model) for model in models])


def test_all_are_closed_even_if_one_cannot_be() -> None:
    class Stuck(Scripted):
        async def close(self) -> None:
            closed.append(self)
            raise OSError("stuck")

    closed: list[Stuck] = []
    with pytest.raises(OSError, match="stuck"):
        run(load_balanced([Stuck(len), Stuck(len)]).close())
    assert len(closed) == 2


# ---- real servers


@pytest.mark.usefixtures("environment")
def test_a_killed_server_costs_nothing_and_is_used_again_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> None:
        backend = load_balanced([OpenAI("m", base_url=server.url) for server in (first, second)], first_cooldown=0.2)
        narrow, answer = limited(backend, 8), "<think>the lowest</think> <answer>[1]</answer>"
        working = asyncio.create_task(together(narrow, 100))
        while await asyncio.to_thread(lambda: first.asked) < 20:
            assert not working.done()
        await asyncio.to_thread(first.kill)
        assert await working == 100 * answer
        assert second.asked >= 50
        (line,) = logged(caplog)
        assert f"{first.url} cannot be reached or broke off" in line
        with pytest.raises(BackendUnavailable, match=f"{first.url} cannot be reached"):
            await backend.backends[0].complete(asking())
        await asyncio.to_thread(first.start)
        await asyncio.sleep(1)
        assert await together(narrow, 100) == 100 * answer
        assert 25 <= first.asked <= 75
        assert logged(caplog)[1:] == ["answers again"]
        await backend.close()

    with mortal(delay=0.02) as first, mortal(delay=0.02) as second:
        run(job())
