"""What every wrapper promises, then the limit and the retries."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag.backends import Backend, wrappers
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, retried
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from tests.backends.scripts import Script, ask, ask_together, asking, python, run

SOURCES = {
    "limited": "limited(backend, 1)",
    "load_balanced": "load_balanced([backend])",
    "retried": "retried(backend, attempts=2, first_wait=0.001)",
    "stored": "stored(backend, path)",
    "all": "stored(limited(retried(load_balanced([backend]), attempts=2, first_wait=0.001), 1), path)",
}
Wrap = Callable[[Backend], Any]
GONE = BackendUnavailable("503")


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> str:
    return SOURCES[request.param]


@pytest.fixture
def wrap(source: str, tmp_path: Path) -> Wrap:
    return lambda backend: eval(source, {**vars(wrappers), "backend": backend, "path": tmp_path / "store"})


def innermost(backend: Any) -> Any:
    while not isinstance(backend, Scripted):
        backend = backend.backends[0] if hasattr(backend, "backends") else backend.backend
    return backend._f


# ---- every wrapper


def test_it_looks_like_its_backend_and_closes_it(wrap: Wrap, source: str) -> None:
    class Closed(Scripted):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    inner = Closed(lambda messages: "", model="judge", context=9, can_continue=False, count=len)
    outer = wrap(inner)
    assert isinstance(outer, Backend)
    for name in ("model", "identity", "context", "can_continue"):
        assert getattr(outer, name) == getattr(inner, name)
    assert outer.count("four") == 4
    assert repr(outer).startswith(source.partition("backend")[0])
    assert repr(inner) in repr(outer)
    run(outer.close())
    run(outer.close())
    assert inner.closed == 2


def test_it_returns_the_completion_of_its_backend(wrap: Wrap) -> None:
    requests = asking("a"), asking("b")
    assert ask(wrap(Scripted(Script())), *requests) == ask(Scripted(Script()), *requests)


@pytest.mark.parametrize("error", [BackendError("401"), PromptTooLong("400"), ValueError("a bug")], ids=repr)
def test_an_error_that_waiting_does_not_help_is_raised_unchanged(wrap: Wrap, error: Exception) -> None:
    backend = wrap(Scripted(script := Script("", error)))
    with pytest.raises(type(error)) as caught:
        ask(backend)
    assert caught.value is error
    assert script.calls == 1
    assert ask(backend)[0].text == "which?"  # the next request works


def test_a_backend_that_stays_unavailable_is_reported_with_its_reason(wrap: Wrap) -> None:
    with pytest.raises(BackendUnavailable, match="503 from here"):
        ask(wrap(Scripted(Script(error=BackendUnavailable("503 from here")))))


def test_cancelled_requests_are_abandoned_and_the_next_is_answered(wrap: Wrap) -> None:
    async def job() -> str:
        tasks = [asyncio.create_task(backend.complete(asking(text))) for text in "abc"]
        while not script.calls:
            await asyncio.sleep(0.001)
        for task in tasks:  # open ones, and in a limit waiting ones
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert script.now == 0
        script.seconds = 0.0
        return (await backend.complete(asking("d"))).text

    backend = wrap(Scripted(script := Script(seconds=50)))
    assert run(job()) == "d"


def test_it_serves_one_loop_after_another_and_several_at_once(wrap: Wrap) -> None:
    backend = wrap(Scripted(script := Script(seconds=0.002)))
    answers = ask_together(backend, 5)
    threads = [threading.Thread(target=lambda: answers.extend(ask_together(backend, 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == sorted(5 * "01234")
    assert script.calls <= 25
    run(backend.close())


def test_a_copy_asks_for_itself(wrap: Wrap, copied: Callable[[Any], Any]) -> None:
    backend = wrap(Scripted(script := Script()))
    ask(backend)
    copy = copied(backend)
    assert (copy.identity, repr(copy)[:9]) == (backend.identity, repr(backend)[:9])
    assert ask(copy, asking("new"))[0].text == "new"
    assert (innermost(copy).calls, script.calls) == (2, 1)


def test_a_child_forked_while_requests_are_open_is_not_blocked_by_them(tmp_path: Path) -> None:
    python(f"""
        async def script(messages):
            begun.append(1)
            await asyncio.sleep(wait)
            return messages[-1]["content"]

        async def ask(backend):
            answers = await asyncio.gather(*(backend.complete(asking(text)) for text in "abc"))
            return sorted(answer.text for answer in answers)

        inner = Scripted(script)
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        for source in {list(SOURCES.values())!r}:
            wait, begun, backend, path = 20, [], inner, {str(tmp_path / "store")!r} + str(len(source))
            backend = eval(source)
            asyncio.run_coroutine_threadsafe(ask(backend), loop)
            while not begun:
                time.sleep(0.01)
            pid = os.fork()
            if not pid:
                wait = 0
                assert asyncio.run(asyncio.wait_for(ask(backend), 60)) == ["a", "b", "c"], source
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, source
    """)


# ---- limited


@pytest.mark.parametrize("n", [1, 3, 50])
def test_at_most_n_requests_are_open(n: int) -> None:
    ask_together(limited(Scripted(script := Script(seconds=0.001)), n), 20)
    assert (script.most, script.calls) == (min(n, 20), 20)


@pytest.mark.parametrize(("wrapper", "argument"), [(limited, "n=0"), (limited, "n=-1"), (retried, "attempts=0")])
def test_a_number_below_one_is_an_error(wrapper: Callable[..., Any], argument: str) -> None:
    name, value = argument.split("=")
    with pytest.raises(ValueError, match=f"got {argument}"):
        wrapper(Scripted(len), **{name: int(value)})


# ---- retried


def test_an_unavailable_backend_is_asked_again() -> None:
    script = Script("", BackendUnavailable("refused"), GONE)
    assert ask(retried(Scripted(script), first_wait=0.001))[0].text == "which?"
    assert script.calls == 3


def test_the_last_error_is_raised_with_the_number_of_attempts() -> None:
    last = BackendUnavailable("503 from here", retry_after=0.0)
    with pytest.raises(BackendUnavailable, match=r"503 from here \(gave up after 3 attempts\)") as caught:
        ask(retried(Scripted(Script("", GONE, GONE, last)), attempts=3, first_wait=0.001))
    assert (caught.value.__cause__, caught.value.retry_after) == (last, 0.0)


def test_retry_after_is_honoured() -> None:
    async def job() -> str:
        task = asyncio.create_task(backend.complete(asking()))
        assert not (await asyncio.wait({task}, timeout=0.2))[0]
        assert script.calls == 1
        return (await task).text

    script = Script("", BackendUnavailable("429", retry_after=0.3))
    backend = retried(Scripted(script), first_wait=0.001)
    assert run(job()) == "which?"


@pytest.mark.parametrize(
    ("retry_after", "patience", "least", "most"), [(3_600.0, 5.0, 1, 1), (0.05, 0.3, 1, 6)], ids=["longer", "used up"]
)
def test_patience_ends_before_the_attempts_do(retry_after: float, patience: float, least: int, most: int) -> None:
    script = Script(error=BackendUnavailable("429", retry_after))
    with pytest.raises(BackendUnavailable, match="gave up after"):
        ask(retried(Scripted(script), attempts=100, patience=patience, first_wait=0.001))
    assert least <= script.calls <= most


def test_waits_differ_so_that_a_crowd_does_not_return_together() -> None:
    async def crowd() -> None:
        async def one(number: int) -> None:
            await retried(Scripted(Script("", GONE)), first_wait=0.2).complete(asking())
            returned.append(number)

        await asyncio.gather(*map(one, range(20)))

    returned: list[int] = []
    run(crowd())
    assert returned != sorted(returned)  # with equal waits they return in the order in which they were refused


def test_it_can_be_cancelled_while_it_waits() -> None:
    script = Script("", BackendUnavailable("429", retry_after=60.0))
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(retried(Scripted(script)).complete(asking()), 0.05))
    assert script.calls == 1


def test_requests_do_not_share_their_attempts() -> None:
    backend = retried(Scripted(script := Script("", GONE, GONE)), attempts=2, first_wait=0.001)
    assert ask_together(backend, 2) == ["0", "1"]
    assert script.calls == 4
