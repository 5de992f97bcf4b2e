"""An evaluation killed with SIGKILL, again and again: it finishes as if nothing had been, and asks nothing twice."""

import asyncio
import multiprocessing
import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from rankr1_eval.run_folder import RunFolder
from rankr1_eval.scoring import score, to_json
from rankr1_eval.types import Question
from rankr1_rag import Reranker
from rankr1_rag.backends import Backend
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.types import Message
from tests.eval.evaluations import evaluation, through

KILLS = 6
SLEEP = 0.01
"""Seconds that the model takes for a request, times the queries open at once: a run takes as long with 8 as with 1."""
STARTED = multiprocessing.get_context("forkserver")
"""Starts the processes that are killed, from one that has imported this module."""
STARTED.set_forkserver_preload([__name__])


class Model:
    """Writes the digest of each request down, then takes its time; the last of `most` requests it never answers."""

    def __init__(self, log: Path, seconds: float = 0, most: int = 0) -> None:
        self.log, self.seconds, self.most = log, seconds, most
        self.asked = 0

    async def __call__(self, messages: Sequence[Message]) -> str:
        digest = sha256("\n".join(message["content"] for message in messages).encode()).hexdigest()
        with self.log.open("a") as log:
            log.write(f"{digest}\n")
        self.asked += 1
        await asyncio.sleep(3600 if self.asked == self.most else self.seconds)
        labels = re.findall(r"^\[(\d+)\]", messages[-1]["content"], re.MULTILINE)
        if labels:
            return f"<think>by chance</think> <answer>[{labels[int(digest, 16) % len(labels)]}]</answer>"
        return f"Answer: {messages[-1]['content'].partition(':')[0]}"


Asking = tuple[Sequence[Question], str, str, int]
"""The questions, a system, its algorithm, and the queries open at once."""


def finished(asking: Asking, backend: Backend, out: Path) -> object:
    """The evaluation in this folder, from where it was to its end: its scores, but for time."""
    questions, system, algorithm, in_flight = asking
    reranker = Reranker(backend, k=5, size=4, algorithm=algorithm, in_flight=in_flight)
    with RunFolder(out) as folder:
        made = evaluation(questions, backend, f"none,gold,{system}", reranker=reranker)
        scores = to_json(score(made.run(folder, through)))
    for found in scores["systems"].values():
        for name in ("seconds", "reader_seconds"):
            found["cost"].pop(name, None)
    return scores


def killed(asking: Asking, path: Path, most: int) -> None:
    """The process that is killed."""
    model = Model(path / "asked", SLEEP * asking[-1], most)
    finished(asking, stored(Scripted(model), path / "out" / "completions.sqlite"), path / "out")


@pytest.mark.parametrize(
    ("system", "algorithm", "in_flight", "at_once"),
    [
        ("rank-r1", "bubblesort", 1, 1),
        ("rank-r1", "tournament", 8, 2 * 8),
        ("rank-r1:hops=2+retrieve=true", "tournament", 8, 4 * 8),
    ],
    ids=["one at a time", "eight queries, two sets each", "eight queries in two hops, four sets each"],
)
def test_killed_at_any_moment_it_finishes_with_the_same_scores_and_asks_nothing_twice(
    questions: list[Question], tmp_path: Path, system: str, algorithm: str, in_flight: int, at_once: int
) -> None:
    asking = (questions, system, algorithm, in_flight)
    scores = finished(asking, stored(Scripted(Model(tmp_path / "asked")), tmp_path / "store"), tmp_path / "whole")
    wanted = Counter((tmp_path / "asked").read_text().splitlines())
    assert set(wanted.values()) == {1}

    path, dice, lost = tmp_path / "torn", random.Random(in_flight), 0
    (path / "out").mkdir(parents=True)
    (path / "asked").touch()

    def asked() -> list[str]:
        return (path / "asked").read_text().splitlines()

    def kept() -> int:
        """How many completions are in the store."""
        with closing(sqlite3.connect(path / "out" / "completions.sqlite")) as store:
            return int(store.execute("SELECT count(*) FROM completions").fetchone()[0])

    for until in sorted(dice.sample(range(1, len(wanted) - at_once), KILLS)):
        # Its last request is not answered: it cannot end before it is killed, however slowly this process waits.
        before, deadline = len(asked()), time.monotonic() + 100
        process = STARTED.Process(target=killed, args=(asking, path, len(wanted) - (kept() if before else 0)))
        process.start()
        try:
            while len(asked()) < max(until, before + 1):
                assert process.is_alive(), f"it ended with {process.exitcode}"
                assert time.monotonic() < deadline, "it asks nothing"
                time.sleep(0.002)
            time.sleep(dice.uniform(0, 2 * SLEEP * in_flight))
            assert process.is_alive(), "it ended before it was killed"
        finally:
            process.kill()
            process.join()
        assert len(asked()) > before
        under_way = len(asked()) - kept() - lost
        assert 0 <= under_way <= at_once
        lost += under_way
    process = STARTED.Process(target=killed, args=(asking, path, 0))
    process.start()
    process.join(100)
    assert process.exitcode == 0

    assert Counter(asked()).keys() == wanted.keys()
    assert len(asked()) == len(wanted) + lost
    assert kept() == len(wanted)
    assert finished(asking, Scripted(Model(tmp_path / "again")), path / "out") == scores
    assert not (tmp_path / "again").exists(), "what the stages keep needs no store"
