"""Nothing is asked twice, and nothing that was finished is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.errors import BackendUnavailable, StoreError
from rankr1_rag.types import Completion, TokenLogprob

ROOT = Path(__file__).parent.parent.parent


def asking(text: str = "which?", **fields: object) -> Request:
    return Request([{"role": "user", "content": text}], max_tokens=8, **fields)


class Counting:
    """A script that echoes, counts its calls, and takes `seconds` for each."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.calls = 0
        self.seconds = seconds

    async def __call__(self, messages: list[dict[str, str]]) -> Completion:
        self.calls += 1
        await asyncio.sleep(self.seconds)
        return Completion(messages[-1]["content"], 5, 2, 1)


def ask(backend: Backend, *requests: Request) -> list[Completion]:
    """Complete one after another, and close."""

    async def whole() -> list[Completion]:
        try:
            return [await backend.complete(request) for request in requests]
        finally:
            await backend.close()

    return asyncio.run(whole())


def close(backend: Backend) -> None:
    asyncio.run(backend.close())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


# ---- what is found again


def test_a_completion_is_found_again_by_another_backend_object_as_it_was(store: Path) -> None:
    said = Completion(
        "<think>é \ud800 𝄞 \x00</think> [1]",
        12,
        8,
        3,
        "length",
        (TokenLogprob("a", -0.1, (("b", -2.5),)), TokenLogprob("\udc80", float("-inf"))),
    )
    assert ask(stored(Scripted(lambda messages: said), store), asking()) == [said]
    again = stored(Scripted(lambda messages: 1 / 0), store)
    assert ask(again, asking(), asking()) == [replace(said, stored=True)] * 2
    assert (again.hits, again.misses) == (2, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "which?\ud800"}]},
        {"messages": [{"role": "system", "content": "which?"}]},
        {"messages": [{"role": "user", "content": "which?"}] * 2},
        {"messages": []},
        {"max_tokens": 9},
        {"temperature": 0.1},
        {"stop": ("a",)},
        {"stop": ("a", "b")},
        {"stop": ("ab",)},
        {"choices": ("a",)},
        {"choices": ("b", "a")},
        {"logprobs": 1},
        {"seed": 1},
        {"sample": 1},
    ],
)
def test_every_field_of_a_request_tells_completions_apart(store: Path, change: dict[str, object]) -> None:
    backend = stored(Scripted(script := Counting()), store)
    first = asking()
    fields = {name: getattr(first, name) for name in first.__slots__}
    ask(backend, first, Request(**{**fields, **change}) if change.get("messages") != [] else asking("other"))
    assert script.calls == 2


def test_equal_requests_are_equal_however_they_are_written(store: Path) -> None:
    backend = stored(Scripted(script := Counting()), store)
    message = {"content": "which?", "role": "user"}
    ask(backend, asking(), Request((message,), 8, temperature=0), Request([message], 8, 0.0, (), (), 0, 0, 0))
    assert script.calls == 1


def test_another_identity_is_another_model(store: Path) -> None:
    for identity, calls in [("a", 1), ("b", 1), ("a", 0)]:
        ask(stored(Scripted(script := Counting(), identity=identity), store), asking())
        assert script.calls == calls


def test_it_looks_like_what_it_is_around(store: Path) -> None:
    inner = Scripted(lambda messages: "", model="judge", context=9, can_continue=False, count=len)
    outer = stored(inner, store)
    assert isinstance(outer, Backend)
    for name in ("model", "identity", "context", "can_continue"):
        assert getattr(outer, name) == getattr(inner, name)
    assert outer.count("four") == 4
    assert repr(outer) == f"stored({inner!r}, {str(store)!r})"
    close(outer)
    close(outer)


def test_a_closed_store_opens_again_when_it_is_used(store: Path) -> None:
    backend = stored(Scripted(script := Counting()), store)
    for _ in range(3):
        ask(backend, asking())
    assert script.calls == 1


def test_a_pickle_shares_the_file(store: Path) -> None:
    backend = stored(Scripted(Counting()), str(store))
    ask(backend, asking())
    copy = pickle.loads(pickle.dumps(backend))
    ask(copy, asking())
    assert copy.backend._f.calls == 1  # as it was pickled


# ---- at the same time


def test_equal_requests_at_once_are_asked_once(store: Path) -> None:
    async def crowd() -> list[Completion]:
        return await asyncio.gather(*(backend.complete(asking(str(i % 2))) for i in range(20)))

    backend = stored(Scripted(script := Counting(0.02)), store)
    assert [completion.text for completion in asyncio.run(crowd())] == ["0", "1"] * 10
    assert (script.calls, backend.misses, backend.hits) == (2, 2, 18)
    close(backend)


def test_one_who_gives_up_does_not_harm_the_others(store: Path) -> None:
    async def giving_up() -> Completion:
        first, second, third = (asyncio.create_task(backend.complete(asking())) for _ in range(3))
        await asyncio.sleep(0.05)
        first.cancel()
        third.cancel()
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
        return await second

    backend = stored(Scripted(script := Counting(0.2)), store)
    assert asyncio.run(giving_up()).text == "which?"
    assert script.calls == 1
    close(backend)


def test_when_all_give_up_the_request_is_abandoned_and_the_next_one_asks_anew(store: Path) -> None:
    ends: list[str] = []

    async def slow(messages: object) -> str:
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            ends.append("abandoned")
            raise
        ends.append("answered")
        return "[1]"

    async def giving_up() -> Completion:
        both = [asyncio.create_task(backend.complete(asking())) for _ in range(2)]
        await asyncio.sleep(0.05)
        for task in both:
            task.cancel()
        new = asyncio.create_task(backend.complete(asking()))
        await asyncio.gather(*both, return_exceptions=True)
        assert ends == ["abandoned"]
        return await new

    backend = stored(Scripted(slow), store)
    assert asyncio.run(giving_up()).text == "[1]"
    assert ends == ["abandoned", "answered"]
    close(backend)


def test_one_who_fails_does_not_harm_the_others(store: Path) -> None:
    calls = 0

    async def once(messages: object) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.02)
        if calls == 1:
            raise BackendUnavailable("not yet")
        return "[1]"

    async def crowd() -> list[Completion | BaseException]:
        return await asyncio.gather(*(backend.complete(asking()) for _ in range(5)), return_exceptions=True)

    backend = stored(Scripted(once), store)
    first, *others = asyncio.run(crowd())
    assert isinstance(first, BackendUnavailable)
    assert [other.text for other in others] == ["[1]"] * 4
    assert calls == 2
    close(backend)


def test_a_failure_is_not_stored(store: Path) -> None:
    backend = stored(Scripted(lambda messages: 1 / 0), store)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            ask(backend, asking())
    assert rows(store) == 0


def test_cancelled_while_it_is_written_it_is_written_all_the_same(store: Path) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(backend.complete(asking()))
        while not script.calls:
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)  # now it waits for the lock below
        task.cancel()
        await asyncio.to_thread(other.execute, "ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await task

    backend = stored(Scripted(script := Counting()), store)
    other = sqlite3.connect(store, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    asyncio.run(cancelled())
    other.close()
    assert rows(store) == 1
    close(backend)


def test_the_event_loop_goes_on_while_the_file_is_locked(store: Path) -> None:
    async def ticking() -> int:
        task = asyncio.create_task(backend.complete(asking()))
        ticks = 0
        for _ in range(20):
            await asyncio.sleep(0.01)
            ticks += not task.done()
        other.execute("ROLLBACK")
        await task
        return ticks

    backend = stored(Scripted(Counting()), store)
    other = sqlite3.connect(store, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert asyncio.run(ticking()) == 20
    other.close()
    close(backend)


def rows(store: Path) -> int:
    with sqlite3.connect(store) as connection:
        (count,) = connection.execute("SELECT count(*) FROM completions").fetchone()
    connection.close()
    return int(count)


# ---- what is no store


def test_only_its_owner_can_read_it(store: Path) -> None:
    backend = stored(Scripted(Counting()), store)

    async def modes() -> set[int]:
        await backend.complete(asking())
        return {stat.S_IMODE(path.stat().st_mode) for path in store.parent.glob(store.name + "*")}

    assert asyncio.run(modes()) == {0o600}
    close(backend)


def text_file(path: Path) -> None:
    path.write_text("this is no database\n" * 200)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE completions (key, completion)")
    connection.close()


def newer(path: Path) -> None:
    close(stored(Scripted(Counting()), path))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()


def damaged(path: Path) -> None:
    ask(stored(Scripted(Counting()), path), *(asking("x" * 5_000 + str(i)) for i in range(30)))
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4 * 4096))


def cut_off(path: Path) -> None:
    ask(stored(Scripted(Counting()), path), *(asking("x" * 5_000 + str(i)) for i in range(30)))
    os.truncate(path, 3 * 4096 + 17)


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (text_file, "not a database.*use another path"),
        (foreign, "another program: use another path"),
        (newer, "version 2, not 1"),
        (damaged, "malformed|damaged"),
        (cut_off, "malformed|damaged"),
        (directory, "use another path"),
    ],
)
def test_what_is_no_store_is_said_at_once_and_left_as_it_is(
    store: Path, spoil: Callable[[Path], object], says: str
) -> None:
    spoil(store)
    before = store.read_bytes() if store.is_file() else b""
    with pytest.raises(StoreError, match=says) as caught:
        stored(Scripted(Counting()), store)
    assert str(store) in str(caught.value)
    assert (store.read_bytes() if store.is_file() else b"") == before


def test_a_directory_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No such file or directory.*a writable directory"):
        stored(Scripted(Counting()), tmp_path / "missing" / "store.sqlite")


def test_a_directory_that_is_not_ours_is_said_at_once() -> None:
    # Root may write anywhere: be nobody.
    with TemporaryDirectory() as name:
        script = f"""
            import os
            if os.getuid() == 0:
                os.setuid(65534)
            for name in ("new.sqlite", "there.sqlite"):
                try:
                    stored(Scripted(lambda messages: ""), {name!r} + "/" + name)
                except StoreError as error:
                    print(error)
        """
        close(stored(Scripted(Counting()), Path(name) / "there.sqlite"))
        (Path(name) / "there.sqlite").chmod(0o444)
        Path(name).chmod(0o555)
        new, there = python(script).splitlines()
        Path(name).chmod(0o755)
    assert "new.sqlite cannot be created (Permission denied)" in new
    assert "there.sqlite cannot be used as a store (attempt to write a readonly database)" in there


def test_a_row_that_cannot_be_read_is_said(store: Path) -> None:
    backend = stored(Scripted(Counting()), store)
    ask(backend, asking())
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE completions SET completion = '[]'")
    connection.close()
    with pytest.raises(StoreError, match="holds a completion that cannot be read"):
        ask(backend, asking())


# ---- a full disk


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_on_a_full_disk_everything_is_returned_and_saved_when_there_is_room(
    full_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, ballast = full_disk / "store.sqlite", full_disk / "ballast"
    requests = [asking("x" * 4_000 + str(i)) for i in range(8)]

    async def filling() -> None:
        backend = stored(Scripted(script := Counting()), store)
        await backend.complete(requests[0])
        fill(ballast)
        for request in requests[1:7]:
            assert (await backend.complete(request)).text == request.messages[0]["content"]
        for request in requests[:7]:  # found again, though not on the disk
            await backend.complete(request)
        assert script.calls == 7
        assert [record.levelno for record in caplog.records] == [logging.ERROR]  # once
        assert "database or disk is full" in caplog.text
        ballast.unlink()
        await backend.complete(requests[7])
        assert "nothing was lost" in caplog.records[-1].getMessage()
        await backend.close()

    asyncio.run(filling())
    assert rows(store) == 8


def test_what_could_not_be_saved_until_the_end_is_an_error(full_disk: Path) -> None:
    store, ballast = full_disk / "store.sqlite", full_disk / "ballast"
    backend = stored(Scripted(script := Counting()), store)
    fill(ballast)
    with pytest.raises(StoreError, match=r"2 completions were returned but not saved .*disk is full.*free some space"):
        ask(backend, asking("x" * 9_000), asking("y" * 9_000))
    assert script.calls == 2
    ballast.unlink()
    close(backend)  # now there is room
    assert rows(store) == 2


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 512)


def test_a_file_that_may_not_grow_loses_nothing_either(store: Path) -> None:
    # Anyone can have this one: a limit on the size of files.
    script = f"""
        import asyncio, resource
        async def main():
            backend = stored(Scripted(lambda messages: messages[0]["content"]), {str(store)!r})
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            for i in range(8):
                text = str(i) * 4_000
                assert (await backend.complete(Request([{{"role": "user", "content": text}}], 8))).text == text
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await backend.close()
        asyncio.run(main())
    """
    python(script, errors="completions are kept in memory")
    assert rows(store) == 8


# ---- several processes


def python(script: str, errors: str = "") -> str:
    """Run a script; what it printed."""
    done = subprocess.run([*COMMAND, code(script)], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert errors in done.stderr if errors else done.stderr == ""
    return done.stdout


COMMAND = [sys.executable, "-W", "error", "-c"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
IMPORTS = """
from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.errors import StoreError
"""


def code(script: str) -> str:
    return IMPORTS + textwrap.dedent(script)


def test_several_processes_share_a_file(store: Path) -> None:
    script = f"""
        import asyncio
        async def main():
            backend = stored(Scripted(lambda messages: messages[0]["content"]), {str(store)!r})
            for i in range(60):
                assert (await backend.complete(Request([{{"role": "user", "content": str(i)}}], 8))).text == str(i)
            await backend.close()
            print(backend.hits + backend.misses)
        asyncio.run(main())
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, "text": True}
    processes = [subprocess.Popen([*COMMAND, code(script)], **pipes) for _ in range(6)]  # all make the file at once
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (out, err) == ("60\n", "")
    assert rows(store) == 60


def test_killed_in_the_middle_everything_returned_is_there(store: Path) -> None:
    script = f"""
        import asyncio, itertools
        async def one(backend, i):
            print((await backend.complete(Request([{{"role": "user", "content": str(i)}}], 8))).text, flush=True)
        async def main():
            backend = stored(Scripted(lambda messages: messages[0]["content"]), {str(store)!r})
            for i in itertools.count(0, 8):
                await asyncio.gather(*(one(backend, i + j) for j in range(8)))
        asyncio.run(main())
    """
    for _ in range(3):
        with subprocess.Popen([*COMMAND, code(script)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
            returned = [process.stdout.readline() for _ in range(100)]
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            returned += process.stdout.read().splitlines(keepends=True)
        numbers = {int(line) for line in returned if line.endswith("\n")}
        backend = stored(Scripted(script_ := Counting()), store)
        ask(backend, *(asking(str(number)) for number in numbers))
        assert len(numbers) >= 100
        assert (script_.calls, backend.hits) == (0, len(numbers))


def test_a_forked_child_and_its_parent_both_go_on(store: Path) -> None:
    script = f"""
        import asyncio, os, sys
        backend = stored(Scripted(lambda messages: messages[0]["content"]), {str(store)!r})
        def say(*texts):
            async def one(text):
                return (await backend.complete(Request([{{"role": "user", "content": text}}], 8))).text
            async def main():
                return await asyncio.gather(*map(one, texts))
            assert asyncio.run(main()) == list(texts)
        say("before")
        children = []
        for n in range(3):
            pid = os.fork()
            if not pid:
                say("before", *(f"child {{n}} {{i}}" for i in range(50)))
                assert backend.hits == n + 1, backend.hits
                asyncio.run(backend.close())
                sys.exit(0)
            children.append(pid)
            say("before", *(f"parent {{n}} {{i}}" for i in range(50)))
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        say("after")
        asyncio.run(backend.close())
    """
    python(script)
    assert rows(store) == 302
    close(stored(Scripted(Counting()), store))  # and it is whole


def test_a_fork_waits_for_what_is_being_written(store: Path) -> None:
    script = f"""
        import asyncio, os, threading
        backend = stored(Scripted(lambda messages: messages[0]["content"]), {str(store)!r})
        async def main():
            one = lambda i: backend.complete(Request([{{"role": "user", "content": str(i)}}], 8))
            for i in range(300):
                await one(i)
            await backend.close()
        writing = threading.Thread(target=asyncio.run, args=(main(),))
        writing.start()
        while writing.is_alive():
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        writing.join()
    """
    python(script)
    assert rows(store) == 300


def test_leaving_without_close_ends_and_loses_nothing(store: Path) -> None:
    script = f"""
        import asyncio
        backend = stored(Scripted(lambda messages: "[1]"), {str(store)!r})
        asyncio.run(backend.complete(Request([{{"role": "user", "content": "?"}}], 8)))
    """
    python(script)
    assert rows(store) == 1
