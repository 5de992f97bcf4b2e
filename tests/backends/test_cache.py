"""Nothing is asked twice, and nothing that was finished is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rankr1_rag.backends import Request
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.errors import BackendUnavailable, StoreError
from rankr1_rag.types import Completion, TokenLogprob
from tests.backends.scripts import COMMAND, ENVIRONMENT, Script, answers, ask, asking, code, python, run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def execute(store: Path, command: str) -> list[tuple[int, ...]]:
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        return connection.execute(command).fetchall()


def rows(store: Path) -> int:
    return execute(store, "SELECT count(*) FROM completions")[0][0]


def new(path: Path, *texts: str) -> list[Completion]:
    """Make or use a store with a backend that repeats these prompts."""
    return ask(stored(Scripted(Script()), path), *map(asking, texts or ["which?"]))


LONG = ["x" * 5_000 + str(i) for i in range(30)]


# ---- what is found again


def test_a_completion_is_found_again_by_another_backend_object_unchanged(store: Path) -> None:
    logprobs = (TokenLogprob("a", -0.1, (("b", -2.5),)), TokenLogprob("\udc80", float("-inf")))
    first = Completion("<think>é \ud800 𝄞 \x00</think> [1]", 12, 8, 3, "length", logprobs)
    assert ask(stored(Scripted(lambda messages: first), store)) == [first]
    again = stored(Scripted(lambda messages: 1 / 0), store)
    assert ask(again, asking(), asking()) == [replace(first, stored=True)] * 2
    assert (again.hits, again.misses) == (2, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "which?\ud800"}]},
        {"messages": [{"role": "system", "content": "which?"}]},
        {"messages": [{"role": "user", "content": "which?"}] * 2},
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
    ids=str,
)
def test_completions_differ_by_every_field_of_a_request(store: Path, change: dict[str, object]) -> None:
    ask(stored(Scripted(script := Script()), store), asking(), replace(asking(), **change))
    assert script.calls == 2


def test_equal_requests_are_equal_however_they_are_written(store: Path) -> None:
    message = {"content": "which?", "role": "user"}
    others = Request((message,), 8, temperature=0), Request([message], 8, 0.0, (), (), 0, 0, 0)
    ask(stored(Scripted(script := Script()), store), asking(), *others)
    assert script.calls == 1


def test_another_identity_is_another_model(store: Path) -> None:
    script = Script()
    for identity, calls in [("a", 1), ("b", 2), ("a", 2)]:
        ask(stored(Scripted(script, identity=identity), store))
        assert script.calls == calls


def test_a_closed_store_opens_again_and_a_copy_shares_the_file(store: Path, copied: Callable[[Any], Any]) -> None:
    backend = stored(Scripted(Script()), str(store))
    ask(backend)
    for one in (backend, copied(backend)):
        ask(one)
        assert one.backend._f.calls == 1


# ---- at the same time


def test_equal_requests_at_once_are_asked_once(store: Path) -> None:
    backend = stored(Scripted(script := Script(seconds=0.02)), store)
    completions = run(answers(backend, [asking(str(i % 2)) for i in range(20)], together=True))
    assert [completion.text for completion in completions] == ["0", "1"] * 10
    assert (script.calls, backend.misses, backend.hits) == (2, 2, 18)


def test_a_cancelled_caller_does_not_harm_the_others_and_the_last_one_abandons_the_request(store: Path) -> None:
    async def job() -> None:
        first, second, third = tasks = [asyncio.create_task(backend.complete(asking())) for _ in range(3)]
        while not script.now:
            await asyncio.sleep(0.001)
        first.cancel()
        third.cancel()
        await asyncio.wait({first, third})
        assert script.now == 1
        second.cancel()
        script.seconds = 0
        again = asyncio.create_task(backend.complete(asking()))  # does not join the abandoned request
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert (await again).text == "which?"
        assert (script.calls, script.now) == (2, 0)
        await backend.close()

    backend = stored(Scripted(script := Script(seconds=50)), store)
    run(job())


def test_a_failure_is_raised_to_its_caller_alone_and_not_stored(store: Path) -> None:
    async def crowd() -> list[Completion | BaseException]:
        return await asyncio.gather(*(backend.complete(asking()) for _ in range(5)), return_exceptions=True)

    backend = stored(Scripted(script := Script("[1]", BackendUnavailable("not yet"), seconds=0.02)), store)
    first, *others = run(crowd())
    assert isinstance(first, BackendUnavailable)
    assert [other.text for other in others] == ["[1]"] * 4
    assert (script.calls, rows(store)) == (2, 1)
    run(backend.close())


def test_the_event_loop_runs_while_the_file_is_locked_and_a_cancelled_write_is_finished(store: Path) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(backend.complete(asking()))
        while not script.calls:
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)  # now it waits for the lock below
        assert not task.done()
        task.cancel()
        await asyncio.to_thread(other.execute, "ROLLBACK")
        with pytest.raises(asyncio.CancelledError):
            await task

    backend = stored(Scripted(script := Script()), store)
    with closing(sqlite3.connect(store, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        run(cancelled())
    assert rows(store) == 1
    run(backend.close())


# ---- files that are no stores


def test_only_its_owner_can_read_it(store: Path) -> None:
    async def modes(messages: object) -> str:
        return str({stat.S_IMODE(path.stat().st_mode) for path in store.parent.glob(store.name + "*")})

    assert {one.text for one in ask(stored(Scripted(modes), store), asking("a"), asking("b"))} == {str({0o600})}


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(4 * 4096))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text("this is no database\n" * 200), "not a database.*use another path"),
        (lambda path: execute(path, "CREATE TABLE completions (key, completion)"), "another program: use another path"),
        (lambda path: new(path) and execute(path, "PRAGMA user_version = 2"), "version 2, not 1"),
        (lambda path: new(path, *LONG) and damage(path), "malformed|damaged"),
        (lambda path: new(path, *LONG) and os.truncate(path, 3 * 4096 + 17), "malformed|damaged"),
        (Path.mkdir, "use another path"),
    ],
    ids=["text", "foreign", "newer", "damaged", "cut off", "folder"],
)
def test_a_file_that_is_no_store_is_an_error_at_once_and_left_unchanged(
    store: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(store)
    before = store.is_file() and store.read_bytes()
    with pytest.raises(StoreError, match=message) as caught:
        stored(Scripted(Script()), store)
    assert str(store) in str(caught.value)
    assert (store.is_file() and store.read_bytes()) == before


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"No such file or directory.*a writable directory"):
        stored(Scripted(Script()), tmp_path / "missing" / "store.sqlite")


def test_a_folder_that_is_not_writable_is_an_error_at_once() -> None:
    with TemporaryDirectory() as name:
        new(Path(name) / "there.sqlite")
        (Path(name) / "there.sqlite").chmod(0o444)
        Path(name).chmod(0o555)
        printed = python(f"""
            if os.getuid() == 0:  # root may write anywhere: be nobody
                os.setuid(65534)
            for name in ("new.sqlite", "there.sqlite"):
                try:
                    stored(Scripted(lambda messages: ""), {name!r} + "/" + name)
                except StoreError as error:
                    print(error)
        """)
        Path(name).chmod(0o755)
    created, there = printed.splitlines()
    assert "new.sqlite cannot be created (Permission denied)" in created
    assert "there.sqlite cannot be used as a store (attempt to write a readonly database)" in there


def test_rows_that_cannot_be_read_are_requested_again_and_replaced(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new(store, "a", "b", "c")
    execute(store, "UPDATE completions SET completion = '[]' WHERE rowid < 3")
    backend = stored(Scripted(script := Script()), store)
    assert [one.text for one in ask(backend, *map(asking, "abc"))] == ["a", "b", "c"]
    assert (script.calls, backend.damaged, backend.misses, backend.hits) == (2, 2, 2, 1)
    assert [one.getMessage().partition(": ")[2] for one in caplog.records] == [
        "a stored completion is requested again: it is damaged (it is an array where an object is needed)",
        "2 damaged completions were requested again",
    ]
    ask(again := stored(Scripted(lambda _: 1 / 0), store), *map(asking, "abc"))
    assert (again.hits, again.damaged, rows(store)) == (3, 0, 3)


# ---- a full disk


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 512)


def test_on_a_full_disk_everything_is_returned_and_saved_when_there_is_space_again(
    full_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, ballast = full_disk / "store.sqlite", full_disk / "ballast"
    requests = [asking("x" * 4_000 + str(i)) for i in range(8)]

    async def filling() -> None:
        backend = stored(Scripted(script := Script()), store)
        await backend.complete(requests[0])
        fill(ballast)
        for request in [*requests[1:7], *requests[:7]]:  # found again, though not on the disk
            assert (await backend.complete(request)).text == request.messages[0]["content"]
        assert script.calls == 7
        assert [record.levelno for record in caplog.records] == [logging.ERROR]  # once
        assert "database or disk is full" in caplog.text
        ballast.unlink()
        await backend.complete(requests[7])
        assert "nothing was lost" in caplog.records[-1].getMessage()
        await backend.close()

    run(filling())
    assert rows(store) == 8


def test_completions_that_could_not_be_saved_until_the_end_are_an_error(
    full_disk: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))
    store, ballast = full_disk / "store.sqlite", full_disk / "ballast"
    backend = stored(Scripted(script := Script()), store)
    fill(ballast)
    with pytest.raises(StoreError, match=r"2 completions were returned but not saved .*disk is full.*free some space"):
        ask(backend, asking("x" * 9_000), asking("y" * 9_000))
    assert script.calls == 2
    ballast.unlink()
    run(backend.close())  # now there is space
    assert rows(store) == 2


def test_a_file_that_may_not_grow_loses_nothing_either(store: Path, echo: str) -> None:  # needs no root
    script = f"""
        import resource, sys
        sys.dont_write_bytecode = True  # it would be cut short, for all that come later
        async def main():
            backend = {echo}
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
            for i in range(8):
                assert (await backend.complete(asking(str(i) * 4_000))).text == str(i) * 4_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await backend.close()
        asyncio.run(main())
    """
    python(script, errors="completions are kept in memory")
    assert rows(store) == 8


# ---- several processes


@pytest.fixture
def echo(store: Path) -> str:
    """The source of a store around a script."""
    return f"stored(Scripted(lambda messages: messages[0]['content']), {str(store)!r})"


def test_several_processes_share_a_file(store: Path, echo: str) -> None:
    script = f"""
        async def main():
            backend = {echo}
            for i in range(60):
                assert (await backend.complete(asking(str(i)))).text == str(i)
            await backend.close()
            print(backend.hits + backend.misses)
        asyncio.run(main())
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, "text": True}
    processes = [subprocess.Popen([*COMMAND, code(script)], **pipes) for _ in range(6)]  # all create the file at once
    assert [process.communicate(timeout=60) for process in processes] == [("60\n", "")] * 6
    assert rows(store) == 60


def test_after_a_kill_everything_that_was_returned_is_there(store: Path, echo: str) -> None:
    script = f"""
        import itertools
        async def one(backend, i):
            print((await backend.complete(asking(str(i)))).text, flush=True)
        async def main():
            backend = {echo}
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
        backend = stored(Scripted(counter := Script()), store)
        ask(backend, *(asking(str(number)) for number in numbers))
        assert len(numbers) >= 100
        assert (counter.calls, backend.hits) == (0, len(numbers))


def test_forked_children_and_their_parent_continue(store: Path, echo: str) -> None:
    python(f"""
        backend = {echo}
        def say(*texts):
            async def main():
                return await asyncio.gather(*(backend.complete(asking(text)) for text in texts))
            assert [one.text for one in asyncio.run(main())] == list(texts)
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
    """)
    assert rows(store) == 302
    new(store)  # and it is whole


def test_a_fork_waits_for_the_write_in_progress(store: Path, echo: str) -> None:
    python(f"""
        backend = {echo}
        async def main():
            for i in range(300):
                await backend.complete(asking(str(i)))
            await backend.close()
        writing = threading.Thread(target=asyncio.run, args=(main(),))
        writing.start()
        while writing.is_alive():
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        writing.join()
    """)
    assert rows(store) == 300


def test_python_ends_without_close_and_loses_nothing(store: Path, echo: str) -> None:
    python(f"asyncio.run({echo}.complete(asking()))")
    assert rows(store) == 1
