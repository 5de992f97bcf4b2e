"""An evaluation killed with SIGKILL, again and again: it finishes as if nothing had been, and asks nothing twice.

Run as a script, this module is the process that is killed.
"""

import asyncio
import pickle
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.evaluation import Evaluation
from rankr1_eval.reader import Reader
from rankr1_eval.run_folder import RunFolder
from rankr1_eval.scoring import score, to_json
from rankr1_eval.systems import parse
from rankr1_eval.types import Question, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends import Backend
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import stored
from rankr1_rag.types import Message

pytestmark = pytest.mark.slow

KILLS = 6
SLEEP = 0.01
"""Seconds that the model takes for a request, times the queries open at once: a run takes as long with 8 as with 1."""


class Model:
    """Writes the digest of each request down, then takes its time; the last of `most` requests it never answers."""

    def __init__(self, log: Path, seconds: float, most: int = 0) -> None:
        self.log, self.seconds, self.most = log, seconds, most
        self.asked = 0

    async def __call__(self, messages: Sequence[Message]) -> str:
        text = "\n".join(message["content"] for message in messages)
        digest = sha256(text.encode()).hexdigest()
        with self.log.open("a") as log:
            log.write(f"{digest}\n")
        self.asked += 1
        await asyncio.sleep(3600 if self.asked == self.most else self.seconds)
        labels = re.findall(r"^\[(\d+)\]", messages[-1]["content"], re.MULTILINE)
        if labels:
            return f"<think>by chance</think> <answer>[{labels[int(digest, 16) % len(labels)]}]</answer>"
        return f"Answer: {messages[-1]['content'].partition(':')[0]}"


def finished(
    questions: Sequence[Question], path: Path, system: str, algorithm: str, in_flight: int, backend: Backend
) -> object:
    """The evaluation in the folder at `path`, from where it was to its end: its scores, but for what is time."""
    evaluation = Evaluation(
        dataset="hotpotqa",
        questions=questions,
        corpus=pooled(questions),
        source={"dataset": "the demo"},
        first_stage=FirstStage(n=8),
        systems=parse(["none,gold", system]),
        ks=(2, 5),
        reranker=Reranker(backend, k=5, size=4, algorithm=algorithm, in_flight=in_flight),
        reader=Reader(backend),
    )
    with RunFolder(path) as folder:
        scores = to_json(score(evaluation.run(folder, through)))
    for found in scores["systems"].values():
        for name in ("seconds", "reader_seconds"):
            found["cost"].pop(name, None)
    return scores


def through(name: str, total: int, ids: Iterator[str]) -> None:
    assert len(set(ids)) == total, name


class Torn:
    """The folder of a run that is killed: what was asked, and what of that is kept, as the files tell."""

    def __init__(self, path: Path, questions: Sequence[Question], system: str, algorithm: str, in_flight: int) -> None:
        path.mkdir()
        self.path, self.out, self.log = path, path / "out", path / "asked"
        self.asking = (system, algorithm, str(in_flight))
        (path / "questions").write_bytes(pickle.dumps(questions))

    def start(self, most: int) -> subprocess.Popen[str]:
        asked = [sys.executable, __file__, str(self.path), *self.asking, str(most)]
        return subprocess.Popen(asked, stderr=subprocess.PIPE, text=True)

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def kept(self) -> int:
        """How many completions are in the store."""
        with closing(sqlite3.connect(self.out / "completions.sqlite")) as store:
            return int(store.execute("SELECT count(*) FROM completions").fetchone()[0])

    def kill(self, total: int, until: int, later: float) -> None:
        """Start it, wait until it has asked so many requests in all and a moment longer, and kill it.

        It cannot have come to its end by then, however slowly this process waits: its last request is not answered.
        """
        before, deadline = len(self.asked), time.monotonic() + 100
        with self.start(total - self.kept if before else total) as process:
            try:
                while len(self.asked) < max(until, before + 1):
                    assert process.poll() is None, process.communicate()[1]
                    assert time.monotonic() < deadline, "it asks nothing"
                    time.sleep(0.002)
                time.sleep(later)
                assert process.poll() is None, "it ended before it was killed"
            finally:
                process.kill()
        assert len(self.asked) > before


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
    whole = Model(tmp_path / "asked", 0)
    backend = stored(Scripted(whole), tmp_path / "store")
    scores = finished(questions, tmp_path / "whole", system, algorithm, in_flight, backend)
    wanted = Counter(whole.log.read_text().splitlines())
    assert set(wanted.values()) == {1}

    torn, dice, lost = Torn(tmp_path / "torn", questions, system, algorithm, in_flight), random.Random(in_flight), 0
    for until in sorted(dice.sample(range(1, len(wanted) - at_once), KILLS)):
        torn.kill(len(wanted), until, dice.uniform(0, 2 * SLEEP * in_flight))
        under_way = len(torn.asked) - torn.kept - lost
        assert 0 <= under_way <= at_once
        lost += under_way
    with torn.start(0) as process:
        assert process.wait(timeout=100) == 0, process.communicate()[1]

    asked = Counter(torn.asked)
    assert asked.keys() == wanted.keys()
    assert asked.total() == len(wanted) + lost
    assert torn.kept == len(wanted)
    again = Model(tmp_path / "again", 0)
    assert finished(questions, torn.out, system, algorithm, in_flight, Scripted(again)) == scores
    assert not again.asked, "what the stages keep needs no store"


def main(path: Path, system: str, algorithm: str, in_flight: int, most: int) -> None:
    """The process that is killed."""
    out = path / "out"
    out.mkdir(exist_ok=True)
    questions = pickle.loads((path / "questions").read_bytes())
    model = Model(path / "asked", SLEEP * in_flight, most)
    finished(questions, out, system, algorithm, in_flight, stored(Scripted(model), out / "completions.sqlite"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
