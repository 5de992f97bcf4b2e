"""Asked again where that may help, and only there."""

import asyncio

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import retried
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from rankr1_rag.types import Completion

pytestmark = pytest.mark.third_party

REQUEST = Request([{"role": "user", "content": "which?"}], max_tokens=8)


class Flaky:
    """A script that raises these errors, one a call, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, messages: object) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "[1]"


def ask(backend: Backend) -> Completion:
    return asyncio.run(asyncio.wait_for(backend.complete(REQUEST), 60))


def test_what_was_unavailable_is_asked_again() -> None:
    script = Flaky(BackendUnavailable("refused"), BackendUnavailable("503"))
    assert ask(retried(Scripted(script), first_wait=0.001)).text == "[1]"
    assert script.calls == 3


@pytest.mark.parametrize("error", [BackendError("401"), PromptTooLong("400"), ValueError("a bug")])
def test_what_will_never_work_is_not_asked_again(error: Exception) -> None:
    script = Flaky(error)
    with pytest.raises(type(error)) as caught:
        ask(retried(Scripted(script)))
    assert caught.value is error
    assert script.calls == 1


def test_the_last_error_says_how_often_it_was_tried() -> None:
    last = BackendUnavailable("503 from here", retry_after=0.0)
    script = Flaky(BackendUnavailable("refused"), BackendUnavailable("refused"), last)
    with pytest.raises(BackendUnavailable, match=r"503 from here \(gave up after 3 attempts\)") as caught:
        ask(retried(Scripted(script), attempts=3, first_wait=0.001))
    assert caught.value.__cause__ is last
    assert caught.value.retry_after == 0.0


def test_the_servers_own_wish_is_honoured() -> None:
    async def sooner() -> bool:
        return bool((await asyncio.wait({asyncio.create_task(backend.complete(REQUEST))}, timeout=0.2))[0])

    backend = retried(Scripted(Flaky(BackendUnavailable("429", retry_after=0.3))), first_wait=0.001)
    assert not asyncio.run(sooner())
    assert ask(retried(Scripted(Flaky(BackendUnavailable("429", retry_after=0.3))), first_wait=0.001)).text == "[1]"


def test_a_wish_beyond_the_patience_gives_up_at_once() -> None:
    script = Flaky(BackendUnavailable("429", retry_after=3_600.0))
    with pytest.raises(BackendUnavailable, match="after 1 attempt"):
        ask(retried(Scripted(script), patience=5.0))


def test_patience_ends_before_the_attempts_do() -> None:
    script = Flaky(*(BackendUnavailable("503", retry_after=0.05) for _ in range(100)))
    with pytest.raises(BackendUnavailable, match="gave up after"):
        ask(retried(Scripted(script), attempts=100, patience=0.3, first_wait=0.001))
    assert script.calls <= 7


def test_waits_differ_so_that_a_crowd_does_not_come_back_at_once() -> None:
    async def crowd() -> None:
        async def one(number: int) -> None:
            await retried(Scripted(Flaky(BackendUnavailable("503"))), first_wait=0.2).complete(REQUEST)
            returned.append(number)

        await asyncio.gather(*map(one, range(20)))

    returned: list[int] = []
    asyncio.run(crowd())
    assert returned != sorted(returned)  # with equal waits they come back in the order in which they were refused


def test_it_can_be_cancelled_while_it_waits() -> None:
    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(retried(Scripted(script)).complete(REQUEST), 0.05)

    script = Flaky(BackendUnavailable("429", retry_after=60.0))
    asyncio.run(cancelled())
    assert script.calls == 1


def test_requests_do_not_share_their_attempts() -> None:
    async def both() -> None:
        backend = retried(Scripted(script), attempts=2, first_wait=0.001)
        await asyncio.gather(backend.complete(REQUEST), backend.complete(REQUEST))

    script = Flaky(BackendUnavailable("503"), BackendUnavailable("503"))
    asyncio.run(both())
    assert script.calls == 4


def test_no_attempt_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="got attempts=0"):
        retried(Scripted(lambda messages: ""), attempts=0)
