"""Several backends are one: evenly asked, and the loss of one loses nothing."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, load_balanced, retried, stored
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from rankr1_rag.types import Completion
from tests.mortal_server import mortal

if TYPE_CHECKING:
    from tests.backends.conftest import Server

LOGGER = "rankr1_rag.load_balancer"


class Member:
    """A script that says its name, fails with `error` while it has one, and counts who is in it."""

    def __init__(self, name: str, error: Exception | None = None, seconds: float = 0.0) -> None:
        self.name, self.error, self.seconds = name, error, seconds
        self.now = self.most = self.calls = 0

    async def __call__(self, messages: object) -> str:
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            return self.name
        finally:
            self.now -= 1


def members(n: int, **settings: Any) -> list[Member]:
    return [Member("abcdefgh"[place], **settings) for place in range(n)]


def around(scripts: Sequence[Member], **settings: Any) -> load_balanced:
    return load_balanced([Scripted(script, identity=script.name) for script in scripts], **settings)


def prompt(text: str) -> Request:
    return Request([{"role": "system", "content": "Judge."}, {"role": "user", "content": text}], max_tokens=8)


def ask(backend: Backend, texts: Sequence[str]) -> list[str]:
    """What is answered to these, all asked at once."""

    async def all_at_once() -> list[Completion]:
        return await asyncio.gather(*(backend.complete(prompt(text)) for text in texts))

    return [completion.text for completion in running(all_at_once())]


def in_turn(backend: Backend, texts: Sequence[str]) -> list[str]:
    """What is answered to these, asked one after the other."""

    async def each() -> list[str]:
        return [(await backend.complete(prompt(text))).text for text in texts]

    return running(each())


def running(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def different(n: int) -> list[str]:
    return [f"question {number}" for number in range(n)]


# ---- who is asked


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_hundred_requests_at_once_are_spread_evenly(n: int) -> None:
    scripts = members(n, seconds=0.01)
    assert len(ask(around(scripts), different(100))) == 100
    assert all(abs(script.calls - 100 / n) < 1 and script.most == script.calls for script in scripts)


def test_one_after_the_other_is_asked_in_turn() -> None:
    assert "".join(in_turn(around(members(3)), different(7))) == "abcabca"


def test_a_slow_one_is_asked_less() -> None:
    slow, fast = Member("slow", seconds=0.2), Member("fast", seconds=0.002)
    ask(limited(around([slow, fast]), 4), different(60))
    assert slow.calls < 12 < fast.calls
    assert slow.calls + fast.calls == 60


# ---- the loss of one


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_the_loss_of_one_loses_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    scripts = [Member("a", BackendUnavailable("a is gone"), seconds=0.01), Member("b")]
    assert ask(around(scripts), different(100)) == ["b"] * 100
    assert scripts[0].calls == 50
    (line,) = lines(caplog)
    assert line.startswith("Scripted(")
    assert line.endswith("identity='a') is out for 2 s, the others are asked: a is gone")


def test_one_that_is_lost_rests_and_is_used_again_after_a_trial(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> None:
        backend = around(scripts, first_cooldown=0.2)
        assert [(await backend.complete(prompt(text))).text for text in different(9)] == ["b"] * 9
        assert scripts[0].calls == 1
        scripts[0].error, scripts[0].seconds = None, 0.1
        await asyncio.sleep(0.25)
        at_once = await asyncio.gather(*(backend.complete(prompt(text)) for text in different(10)))
        assert sorted(one.text for one in at_once) == ["a", *"bbbbbbbbb"]  # one finds out for all
        assert len(lines(caplog)) == 2
        at_once = await asyncio.gather(*(backend.complete(prompt(text)) for text in different(10)))
        assert sorted(one.text for one in at_once) == [*"aaaaabbbbb"]

    scripts = [Member("a", BackendUnavailable("503")), Member("b")]
    running(job())
    assert [line.rpartition("') ")[2] for line in lines(caplog)] == [
        "is out for 0.2 s, the others are asked: 503",
        "answers again",
    ]


def test_many_that_fail_together_are_one_loss_and_a_late_success_of_before_does_not_end_it() -> None:
    async def job() -> None:
        backend = around(scripts, first_cooldown=0.6)
        scripts[0].seconds = 0.25
        early = asyncio.create_task(backend.complete(prompt("an early one")))
        await asyncio.sleep(0)
        scripts[0].seconds, scripts[0].error = 0, BackendUnavailable("503")
        crowd = await asyncio.gather(*(backend.complete(prompt(text)) for text in different(40)))
        assert [one.text for one in crowd] == ["b"] * 40
        scripts[0].error = None
        calls = scripts[0].calls
        assert calls > 10
        assert (await early).text == "a"
        assert (await backend.complete(prompt("still at rest"))).text == "b"
        await asyncio.sleep(0.5)
        assert (await backend.complete(prompt("a trial"))).text == "a"

    scripts = members(2)
    running(job())


def test_rests_double_up_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> tuple[int, int]:
        backend, asked, early = around(scripts, first_cooldown=0.1, longest_cooldown=0.2), 0, 0
        while scripts[0].calls < 2 + 12:  # 100 seconds if rests doubled on and on
            await asyncio.gather(*(backend.complete(prompt(f"{asked}, {n}")) for n in range(4)))
            asked += 4
            early = early or asked * (scripts[0].calls > 2)
        return asked, early

    scripts = [Member("a", BackendUnavailable("503"), seconds=0.002), Member("b", seconds=0.002)]
    asked, early = running(job())
    assert early > 4  # it rests before the first trial
    assert scripts[1].calls == asked
    assert len(lines(caplog)) == 1


def test_one_that_says_when_to_come_back_is_not_asked_before() -> None:
    scripts = [Member("a", BackendUnavailable("429", retry_after=30.0)), Member("b")]
    answers = in_turn(around(scripts, first_cooldown=0.0001, longest_cooldown=0.0001), different(50))
    assert (answers, scripts[0].calls) == (["b"] * 50, 1)


@pytest.mark.parametrize("error", [BackendUnavailable("{}: refused"), BackendUnavailable("{}: 429", retry_after=30.0)])
def test_when_all_are_lost_each_is_named_with_its_reason(error: BackendUnavailable) -> None:
    reasons = {name: str(error).format(f"the reason of {name}") for name in "abc"}
    scripts = [Member(name, BackendUnavailable(reason, error.retry_after)) for name, reason in reasons.items()]
    backend = around(scripts)

    async def twice() -> None:
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="no backend is available") as caught:
                await backend.complete(prompt("?"))
            for name in "abc":
                assert f"identity='{name}'): the reason of {name}: " in str(caught.value)
            if error.retry_after is None:
                assert caught.value.retry_after is None
            else:
                assert 25 < caught.value.retry_after <= 30

    running(twice())
    # At rest they are asked nevertheless, as nobody else is left; but not one that said when to come back.
    assert [script.calls for script in scripts] == [1 if error.retry_after else 2] * 3


def test_when_all_are_lost_the_retries_find_the_first_that_comes_back() -> None:
    async def job() -> str:
        asked = asyncio.create_task(retried(around(scripts), first_wait=0.05).complete(prompt("?")))
        await asyncio.sleep(0.02)
        scripts[1].error = None
        return (await asked).text

    scripts = members(3, error=BackendUnavailable("down"))
    assert running(job()) == "b"


def test_retries_wait_as_long_as_all_of_them_wish() -> None:
    async def job() -> str:
        asked = asyncio.create_task(retried(around(scripts), first_wait=0.001).complete(prompt("?")))
        await asyncio.sleep(0.02)
        for script in scripts:
            script.error = None
        done, _ = await asyncio.wait({asked}, timeout=0.2)
        assert not done
        return (await asked).text

    scripts = [Member("a", BackendUnavailable("429", 60.0)), Member("b", BackendUnavailable("429", 0.3))]
    assert running(job()) == "b"
    assert scripts[0].calls == 1


@given(st.lists(st.sets(st.integers(0, 3)), max_size=12), st.booleans())
def test_a_request_fails_only_when_all_do(ups: list[set[int]], at_once: bool) -> None:
    async def job() -> None:
        backend = around(scripts, first_cooldown=1e-4, longest_cooldown=1e-3)
        for up in ups:
            for place, script in enumerate(scripts):
                script.error = None if place in up else BackendUnavailable("down")
            asked = [backend.complete(prompt(text)) for text in different(5 if at_once else 1)]
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert outcome.text in {scripts[place].name for place in up} if up else "down; " in str(outcome)

    scripts = members(4)
    running(job())


# ---- what is nobody else's to mend


@pytest.mark.parametrize("error", [PromptTooLong("4,000 tokens"), BackendError("401 from b"), ValueError("a bug")])
def test_every_other_error_is_raised_and_hides_behind_no_other_backend(error: Exception) -> None:
    async def job() -> list[object]:
        backend = around(scripts)
        return [await asyncio.gather(backend.complete(prompt(t)), return_exceptions=True) for t in different(6)]

    scripts = [Member("a"), Member("b", error)]
    outcomes = [outcome for (outcome,) in running(job())]
    assert [outcome is error for outcome in outcomes] == [False, True] * 3
    assert (scripts[0].calls, scripts[1].calls) == (3, 3)


def test_one_that_is_cancelled_is_open_no_more() -> None:
    async def job() -> str:
        backend = around(scripts)
        asked = [asyncio.create_task(backend.complete(prompt(text))) for text in different(10)]
        await asyncio.sleep(0.02)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert [script.now for script in scripts] == [0, 0]
        for script in scripts:
            script.seconds = 0.01
        return "".join(sorted([one.text for one in await asyncio.gather(*map(backend.complete, more))]))

    more = [prompt(text) for text in different(6)]
    scripts = members(2, seconds=20)
    assert running(job()) == "aaabbb"


def test_a_trial_that_is_cancelled_is_followed_by_another() -> None:
    async def job() -> list[str]:
        backend = around(scripts, first_cooldown=0.01)
        await backend.complete(prompt("?"))
        await asyncio.sleep(0.02)
        scripts[0].error, scripts[0].seconds = None, 20
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.complete(prompt("a trial")), 0.05)
        scripts[0].seconds = 0
        return [(await backend.complete(prompt(text))).text for text in different(3)]

    scripts = [Member("a", BackendUnavailable("503")), Member("b")]
    assert sorted(running(job()))[0] == "a"


# ---- what it is


def test_it_is_a_backend_with_what_all_of_them_can() -> None:
    def script(**settings: Any) -> Scripted:
        return Scripted(lambda messages: "", model="judge", **settings)

    backend = load_balanced([script(context=None), script(context=9, count=len), script(context=7, can_continue=False)])
    assert isinstance(backend, Backend)
    assert (backend.model, backend.context, backend.can_continue, backend.count("four")) == ("judge", 7, False, 4)
    assert load_balanced([script(), script()]).context is None
    assert load_balanced([script(), script()]).can_continue
    assert load_balanced([script()]).count("four") is None
    assert repr(load_balanced([script()])).startswith("load_balanced([Scripted(")


identities = st.lists(st.text(max_size=3), min_size=1, max_size=5)


@given(identities, st.randoms())
def test_its_identity_is_the_same_in_any_order(names: list[str], random: Any) -> None:
    def of(names: list[str]) -> str:
        return load_balanced([Scripted(len, identity=name) for name in names]).identity

    other = random.sample(names, len(names))
    assert of(names) == of(other)
    if len(set(names)) == 1:
        assert of(names) == names[0]


@given(identities, identities)
def test_its_identity_holds_all_of_them(one: list[str], other: list[str]) -> None:
    def of(names: list[str]) -> str:
        return load_balanced([Scripted(len, identity=name) for name in names]).identity

    assert len({*one}) == len({*other}) == 1 or (of(one) == of(other)) == ({*one} == {*other})


def test_servers_with_one_revision_share_their_completions_whatever_their_addresses() -> None:
    here, there = (OpenAI("m", base_url=f"http://{host}:8000/v1", revision="r") for host in "ab")
    assert load_balanced([here, there]).identity == here.identity == there.identity


def test_what_one_has_answered_is_found_whoever_would_be_next(tmp_path: Path) -> None:
    scripts = members(2)
    backend = stored(around(scripts), tmp_path / "store")
    assert in_turn(backend, ["?"] * 4) == ["a"] * 4
    assert in_turn(stored(around(scripts[::-1]), tmp_path / "store"), ["?"]) == ["a"]


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


def test_all_are_closed_even_where_one_cannot_be() -> None:
    class Stuck(Scripted):
        closed = 0

        async def close(self) -> None:
            Stuck.closed += 1
            raise OSError("stuck")

    with pytest.raises(OSError, match="stuck"):
        asyncio.run(load_balanced([Stuck(len), Stuck(len)]).close())
    assert Stuck.closed == 2


# ---- loops, threads, processes


@pytest.mark.parametrize("copied", [deepcopy, lambda backend: pickle.loads(pickle.dumps(backend))])
def test_a_copy_and_a_pickle_begin_with_nobody_at_rest(copied: Callable[[Backend], Any]) -> None:
    backend = around([Member("a", BackendUnavailable("503")), Member("b")], first_cooldown=50.0)
    assert in_turn(backend, different(3)) == ["b"] * 3
    copy = copied(backend)
    for script in (one._f for one in copy.backends):
        script.error, script.calls = None, 0
    assert (copy.identity, copy.first_cooldown) == (backend.identity, 50.0)
    assert "".join(in_turn(copy, different(4))) == "abab"


def test_it_serves_one_loop_after_another_and_several_at_once() -> None:
    backend = around(members(2, seconds=0.002))
    answers = ask(backend, different(10))

    def other() -> None:
        answers.extend(ask(backend, different(10)))

    threads = [threading.Thread(target=other) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert "".join(sorted(answers)) == "a" * 25 + "b" * 25


def test_a_child_forked_while_requests_are_open_owes_nothing_to_them() -> None:
    script = """
        import asyncio, os, threading, time
        from rankr1_rag.backends import Request
        from rankr1_rag.backends.scripted import Scripted
        from rankr1_rag.backends.wrappers import load_balanced

        wait, begun = 20, []

        def named(name):
            async def script(messages):
                begun.append(name)
                await asyncio.sleep(wait)
                return name
            return Scripted(script, identity=name)

        async def ask():
            requests = [Request([{"role": "user", "content": str(n)}], 8) for n in range(6)]
            return sorted([one.text for one in await asyncio.gather(*map(backend.complete, requests))])

        backend = load_balanced([named("a"), named("b")])
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(ask(), loop)
        while len(begun) < 6:
            time.sleep(0.01)
        pid = os.fork()
        if not pid:
            wait = 0
            assert asyncio.run(asyncio.wait_for(ask(), 5)) == [*"aaabbb"]
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    """
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


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
            requests = [prompt(text) for text in different(100)]
            answers = await asyncio.gather(*map(narrow.complete, requests))
            assert {answer.text for answer in answers} == {"<think>the lowest</think> <answer>[1]</answer>"}

        async def job() -> None:
            working = asyncio.create_task(ask())
            while await asyncio.to_thread(lambda: servers[0].asked) < 20:
                assert not working.done()
            await asyncio.to_thread(servers[0].kill)
            await working
            assert servers[1].asked >= 50
            (line,) = lines(caplog)
            assert f"{servers[0].url} cannot be reached or broke off" in line
            await asyncio.to_thread(servers[0].start)
            await asyncio.sleep(2)
            await ask()
            assert 25 <= servers[0].asked <= 75
            assert [line.rpartition(" ")[2] for line in lines(caplog)[1:]] == ["again"]

        running(closing(backend, job))


@pytest.mark.usefixtures("environment")
def test_when_all_servers_are_gone_every_address_is_named() -> None:
    with mortal() as one, mortal() as other:
        urls = [one.url, other.url]
    backend = load_balanced([OpenAI("m", base_url=url) for url in urls])

    async def job() -> None:
        with pytest.raises(BackendUnavailable) as caught:
            await backend.complete(prompt("?"))
        assert all(f"{url} cannot be reached" in str(caught.value) for url in urls)

    running(closing(backend, job))


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("status", "says"), [(401, "the key sent was"), (404, "is there a server with the model")])
def test_a_server_with_another_key_or_model_is_told_and_not_passed_over(server: Server, status: int, says: str) -> None:
    with mortal() as good:
        backend = load_balanced([OpenAI("m", base_url=good.url), OpenAI("m", base_url=server.url)])

        async def job() -> None:
            for _ in range(2):
                server.answers.append(server.Answer({"error": {"message": "no"}}, status=status))
                assert (await backend.complete(prompt("?"))).text
                with pytest.raises(BackendError, match=f"{server.url} answered {status}.*{says}") as caught:
                    await backend.complete(prompt("?"))
                assert type(caught.value) is BackendError

        running(closing(backend, job))
