"""Evaluations with a scripted model, which reranks and reads; and the command line in a process of its own."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankr1_eval.baselines import FirstStage
from rankr1_eval.evaluation import Evaluation
from rankr1_eval.reader import Reader
from rankr1_eval.run_folder import RunFolder
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.systems import parse
from rankr1_eval.types import Question, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.types import Message

Model = Callable[[Sequence[Message]], str]


def through(name: str, total: int, ids: Iterator[str]) -> None:
    assert len(set(ids)) == total, name


def evaluation(questions: Sequence[Question], model: Model, systems: str, **other: Any) -> Evaluation:
    backend = Scripted(model)
    made: dict[str, Any] = {
        "dataset": "hotpotqa",
        "questions": questions,
        "corpus": pooled(questions),
        "source": {"dataset": "demo"},
        "first_stage": FirstStage(n=8),
        "systems": parse([systems]),
        "ks": (2, 5),
        "reranker": Reranker(backend, k=5, size=4),
        "reader": Reader(backend),
    }
    return Evaluation(**(made | other))


def run(questions: Sequence[Question], model: Model, path: Path, systems: str, **other: Any) -> EvaluatedRun:
    """The finished evaluation, with its rankings in memory."""
    with RunFolder(path) as folder:
        found = evaluation(questions, model, systems, **other).run(folder, through)
        return replace(found, systems=tuple(replace(one, rankings=dict(one.rankings)) for one in found.systems))


def command(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`rankr1-eval` with these arguments; an error is printed without a traceback. White space is made single."""
    line = [sys.executable, "-W", "error", "-m", "rankr1_eval", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    done.stderr = " ".join(done.stderr.split())
    return done
