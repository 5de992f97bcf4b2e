"""Several backends are one: the load is shared, and the loss of one loses nothing."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.backends import Backend
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, load_balanced, retried, stored
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from tests.backends.scripts import Script, ask, ask_together, asking, run
from tests.mortal_server import mortal

if TYPE_CHECKING:
    from tests.backends.conftest import Server

GONE = BackendUnavailable("503")


def scripts(n: int, **settings: Any) -> list[Script]:
    return [Script("abcdefgh"[place], **settings) for place in range(n)]


def balanced(members: Sequence[Script], **settings: Any) -> load_balanced:
    return load_balanced([Scripted(member, identity=member.name) for member in members], **settings)


def in_turn(backend: Backend, n: int) -> str:
    """The names of those who answer `n` requests, made one after another."""
    return "".join(one.text for one in ask(backend, *map(asking, map(str, range(n)))))


async def together(backend: Backend, n: int) -> str:
    """The names of those who answer `n` requests, made at once, sorted."""
    answers = await asyncio.gather(*(backend.complete(asking(str(number))) for number in range(n)))
    return "".join(sorted(one.text for one in answers))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rankr1_rag.load_balancer"]


# ---- which one is asked


@pytest.mark.parametrize("n", [1, 2, 3])
def test_requests_at_once_are_shared_evenly(n: int) -> None:
    members = scripts(n, seconds=0.01)
    assert len(ask_together(balanced(members), 100)) == 100
    assert all(abs(member.calls - 100 / n) < 1 and member.most == member.calls for member in members)


def test_requests_one_after_another_are_answered_in_turn() -> None:
    assert in_turn(balanced(scripts(3)), 7) == "abcabca"


def test_a_slow_backend_is_asked_less() -> None:
    slow, fast = Script("slow", seconds=0.2), Script("fast", seconds=0.002)
    ask_together(limited(balanced([slow, fast]), 4), 60)
    assert slow.calls < 12 < fast.calls
    assert slow.calls + fast.calls == 60


# ---- the loss of one


def test_the_loss_of_one_loses_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    members = [Script("a", error=BackendUnavailable("a is gone"), seconds=0.01), Script("b")]
    assert ask_together(balanced(members), 100) == ["b"] * 100
    assert members[0].calls == 50
    (line,) = logged(caplog)
    assert line.startswith("Scripted(")
    assert line.endswith("identity='a') is out for 2 s, the others are asked: a is gone")


def test_a_lost_backend_cools_down_and_is_used_again_after_one_probe(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> None:
        backend = balanced(members, first_cooldown=0.2)
        assert [(await backend.complete(asking())).text for _ in range(9)] == ["b"] * 9
        assert members[0].calls == 1
        members[0].error, members[0].seconds = None, 0.1
        await asyncio.sleep(0.25)
        assert await together(backend, 10) == "a" + 9 * "b"
        assert len(logged(caplog)) == 2
        assert await together(backend, 10) == "aaaaabbbbb"

    members = [Script("a", error=GONE), Script("b")]
    run(job())
    out = "is out for 0.2 s, the others are asked: 503"
    assert [line.rpartition("') ")[2] for line in logged(caplog)] == [out, "answers again"]


def test_failures_together_are_one_loss_which_the_success_of_an_older_request_does_not_end() -> None:
    async def job() -> None:
        backend = balanced(members, first_cooldown=0.6)
        members[0].seconds = 0.25
        early = asyncio.create_task(backend.complete(asking()))
        await asyncio.sleep(0)
        members[0].seconds, members[0].error = 0, GONE
        assert await together(backend, 40) == 40 * "b"
        assert members[0].calls > 10
        members[0].error = None
        assert (await early).text == "a"
        assert (await backend.complete(asking("still cooling down"))).text == "b"
        await asyncio.sleep(0.5)
        assert (await backend.complete(asking("a probe"))).text == "a"

    members = scripts(2)
    run(job())


def test_cooldowns_double_up_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> tuple[int, int]:
        backend, asked, early = balanced(members, first_cooldown=0.1, longest_cooldown=0.2), 0, 0
        while members[0].calls < 2 + 12:  # 100 seconds if cooldowns doubled without an end
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
        for _ in range(20):
            assert await together(backend, 1) == "b"
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


def test_when_all_are_lost_the_retries_find_the_first_that_is_back() -> None:
    async def job() -> str:
        task = asyncio.create_task(retried(balanced(members), first_wait=0.05).complete(asking()))
        await asyncio.sleep(0.02)
        members[1].error = None
        return (await task).text

    members = scripts(3, error=BackendUnavailable("down"))
    assert run(job()) == "b"


def test_retries_wait_for_the_first_retry_after() -> None:
    async def job() -> str:
        task = asyncio.create_task(retried(balanced(members), first_wait=0.001).complete(asking()))
        await asyncio.sleep(0.02)
        for member in members:
            member.error = None
        done, _ = await asyncio.wait({task}, timeout=0.2)
        assert not done
        return (await task).text

    members = [Script("a", error=BackendUnavailable("429", 60.0)), Script("b", error=BackendUnavailable("429", 0.3))]
    assert run(job()) == "b"
    assert members[0].calls == 1


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
    async def job() -> list[str]:
        backend = balanced(members, first_cooldown=0.01)
        await backend.complete(asking())
        await asyncio.sleep(0.02)
        members[0].error, members[0].seconds = None, 20
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.complete(asking("a probe")), 0.05)
        members[0].seconds = 0
        return [(await backend.complete(asking(str(n)))).text for n in range(3)]

    members = [Script("a", error=GONE), Script("b")]
    assert "a" in run(job())


@pytest.mark.parametrize("copy", [deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_in_a_copy_no_backend_is_cooling_down(copy: Callable[[Backend], Any]) -> None:
    backend = balanced([Script("a", error=GONE), Script("b")], first_cooldown=50.0)
    assert in_turn(backend, 3) == "bbb"
    copied = copy(backend)
    for member in (one._f for one in copied.backends):
        member.error = None
    assert (copied.identity, copied.first_cooldown) == (backend.identity, 50.0)
    assert in_turn(copied, 4) == "abab"


# ---- what it is as a backend


def test_it_can_do_what_all_of_them_can() -> None:
    def script(**settings: Any) -> Scripted:
        return Scripted(lambda messages: "", model="judge", **settings)

    backend = load_balanced([script(context=None), script(context=9, count=len), script(context=7, can_continue=False)])
    assert (backend.model, backend.context, backend.can_continue, backend.count("four")) == ("judge", 7, False, 4)
    assert load_balanced([script(), script()]).context is None
    assert load_balanced([script(), script()]).can_continue


identities = st.lists(st.text(max_size=3), min_size=1, max_size=5)


@given(identities, identities, st.randoms())
def test_its_identity_holds_all_of_them_in_any_order(one: list[str], other: list[str], random: Any) -> None:
    def identity(names: list[str]) -> str:
        return load_balanced([Scripted(len, identity=name) for name in names]).identity

    assert identity(one) == identity(random.sample(one, len(one)))
    if len(set(one)) == 1:
        assert identity(one) == one[0]
    assert len({*one}) == len({*other}) == 1 or (identity(one) == identity(other)) == ({*one} == {*other})


def test_servers_with_one_revision_share_their_completions_whatever_their_addresses() -> None:
    here, there = (OpenAI("m", base_url=f"http://{host}:8000/v1", revision="r") for host in "ab")
    assert load_balanced([here, there]).identity == here.identity == there.identity


def test_a_stored_completion_is_found_whichever_backend_would_be_next(tmp_path: Path) -> None:
    members = scripts(2)
    assert [ask(stored(balanced(some), tmp_path / "store"))[0].text for some in (members, members[::-1])] == ["a", "a"]


@pytest.mark.parametrize(
    ("backends", "problem"),
    [
        ([], "at least one backend, got none"),
        ([Scripted(len, model="m"), Scripted(len, model="n")], "backends of one model, got 'm', 'n'"),
    ],
)
def test_none_and_different_models_are_a_value_error(backends: list[Backend], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        load_balanced(backends)


def test_all_are_closed_even_if_one_cannot_be() -> None:
    class Stuck(Scripted):
        closed = 0

        async def close(self) -> None:
            Stuck.closed += 1
            raise OSError("stuck")

    with pytest.raises(OSError, match="stuck"):
        run(load_balanced([Stuck(len), Stuck(len)]).close())
    assert Stuck.closed == 2


# ---- real servers


async def closing(backend: Backend, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    finally:
        await backend.close()


@pytest.mark.usefixtures("environment")
def test_a_server_that_is_killed_in_the_middle_of_a_job_costs_nothing_and_is_used_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(mortal(delay=0.02)) for _ in range(2)]
        backend = load_balanced([OpenAI("m", base_url=server.url) for server in servers], first_cooldown=0.2)
        narrow = limited(backend, 8)

        async def ask() -> None:
            answers = await asyncio.gather(*(narrow.complete(asking(str(number))) for number in range(100)))
            assert {answer.text for answer in answers} == {"<think>the lowest</think> <answer>[1]</answer>"}

        async def job() -> None:
            working = asyncio.create_task(ask())
            while await asyncio.to_thread(lambda: servers[0].asked) < 20:
                assert not working.done()
            await asyncio.to_thread(servers[0].kill)
            await working
            assert servers[1].asked >= 50
            (line,) = logged(caplog)
            assert f"{servers[0].url} cannot be reached or broke off" in line
            await asyncio.to_thread(servers[0].start)
            await asyncio.sleep(2)
            await ask()
            assert 25 <= servers[0].asked <= 75
            assert [line.rpartition(" ")[2] for line in logged(caplog)[1:]] == ["again"]

        run(closing(backend, job))


@pytest.mark.usefixtures("environment")
def test_when_all_servers_are_gone_every_address_is_named() -> None:
    with mortal() as one, mortal() as other:
        urls = [one.url, other.url]
    backend = load_balanced([OpenAI("m", base_url=url) for url in urls])

    async def job() -> None:
        with pytest.raises(BackendUnavailable) as caught:
            await backend.complete(asking())
        assert all(f"{url} cannot be reached" in str(caught.value) for url in urls)

    run(closing(backend, job))


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("status", "says"), [(401, "the key sent was"), (404, "is there a server with the model")])
def test_a_server_with_another_key_or_model_is_an_error(server: Server, status: int, says: str) -> None:
    with mortal() as good:
        backend = load_balanced([OpenAI("m", base_url=good.url), OpenAI("m", base_url=server.url)])

        async def job() -> None:
            for _ in range(2):
                server.answers.append(server.Answer({"error": {"message": "no"}}, status=status))
                assert (await backend.complete(asking())).text
                with pytest.raises(BackendError, match=f"{server.url} answered {status}.*{says}") as caught:
                    await backend.complete(asking())
                assert type(caught.value) is BackendError

        run(closing(backend, job))
