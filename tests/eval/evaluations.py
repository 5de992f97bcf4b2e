"""Evaluations with a scripted model, which reranks and reads; and the command line."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from random import Random
from subprocess import CompletedProcess
from typing import Any

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.cli import main
from rankr1_eval.evaluation import Evaluation
from rankr1_eval.run_folder import RunFolder
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.systems import parse
from rankr1_eval.types import Question, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends import Backend
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendError
from rankr1_rag.reader import Reader
from rankr1_rag.types import Completion, Message

ALL = "none,random,oracle,rank-r1,rank-r1:votes=3,gold,no-context"


class Model:
    """Reranks and reads. Knows the supports and answers of `questions`, and is right with the probability `skill`.

    Of other questions it names the last passage and answers "Dublin.". `asked` are the prompts that it answered; those
    that `fails` names fail.
    """

    def __init__(
        self, questions: Sequence[Question] = (), fails: Callable[[str], bool] = lambda text: False, skill: float = 1.0
    ) -> None:
        self.asked: list[str] = []
        self.fails, self.skill = fails, skill
        self.known = {
            one.query.text.strip(): (one, tuple(p.title for p in one.passages if p.id in one.supports))
            for one in questions
        }

    def __call__(self, messages: Sequence[Message]) -> Completion:
        text = "".join(message["content"] for message in messages)
        if self.fails(text):
            raise BackendError("out of order")
        self.asked.append(text)
        last, chance = messages[-1]["content"], Random(f"{self.skill} {text}")
        question, titles = next((found for text, found in self.known.items() if text in last), (None, ()))
        if "Question:" in last:
            knows = question and chance.random() < self.skill * sum(title in last for title in titles) / len(titles)
            return Completion(f"Answer: {question.answers[0] if knows else 'Dublin.'}", len(text) // 4, 8)
        shown = re.findall(r"^\[(\d+)\] (.*)$", last, re.MULTILINE)
        right = [label for label, line in shown if titles and line.startswith(titles)]
        label = right[0] if right and chance.random() < self.skill else shown[-1][0]
        thought = f"It is named: passage [{label}] speaks of it directly, [{shown[0][0]}] only shares words with it."
        return Completion(f"<think>{thought}</think> <answer>[{label}]</answer>", len(text) // 4, 30)

    @property
    def read(self) -> list[str]:
        """The prompts of the reader."""
        return [text for text in self.asked if "Question:" in text]

    @property
    def ranked(self) -> list[str]:
        """The prompts of the reranker."""
        return [text for text in self.asked if "Question:" not in text]


def through(name: str, total: int, ids: Iterator[str]) -> None:
    assert len(set(ids)) == total, name


def evaluation(
    questions: Sequence[Question],
    model: Callable[[Sequence[Message]], Any] | Backend,
    systems: str,
    **other: Any,
) -> Evaluation:
    backend = Scripted(model) if callable(model) else model
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


def run(
    questions: Sequence[Question], model: Callable[[Sequence[Message]], Any], path: Path, systems: str, **other: Any
) -> EvaluatedRun:
    """The finished evaluation, with its rankings in memory."""
    with RunFolder(path) as folder:
        found = evaluation(questions, model, systems, **other).run(folder, through)
        return replace(found, systems=tuple(replace(one, rankings=dict(one.rankings)) for one in found.systems))


def command(*arguments: object, code: int = 0) -> CompletedProcess[str]:
    """`rankr1-eval` with these arguments, in this process. White space of errors is made single."""
    line, code_found = ["rankr1-eval", *map(str, arguments)], 0
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr("sys.argv", line)
        try:
            main()
        except SystemExit as ended:
            code_found = int(ended.code or 0)
    found = CompletedProcess(line, code_found, out.getvalue(), " ".join(errors.getvalue().split()))
    assert found.returncode == code, found.stderr
    return found
