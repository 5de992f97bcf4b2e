"""Evaluations with a scripted model, which reranks and reads; and the command line."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.cli import main
from rankr1_eval.evaluation import Evaluation
from rankr1_eval.reader import Reader
from rankr1_eval.run_folder import RunFolder
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.systems import parse
from rankr1_eval.types import Question, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends import Backend
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Message


class Model:
    """Names a support of these questions if one is shown, else the last passage; answers "Dublin.".

    `asked` are the prompts that it answered, `fails` says of which it answers none.
    """

    def __init__(self, fails: Callable[[str], bool] = lambda text: False, questions: Sequence[Question] = ()) -> None:
        self.asked: list[str] = []
        self.fails = fails
        self.titles = {
            question.query.text: tuple(one.title for one in question.passages if one.id in question.supports)
            for question in questions
        }

    def __call__(self, messages: Sequence[Message]) -> str:
        text = "".join(message["content"] for message in messages)
        if self.fails(text):
            raise BackendError("out of order")
        self.asked.append(text)
        shown = re.findall(r"^\[(\d+)\] (.*)$", messages[-1]["content"], re.MULTILINE)
        if not shown:
            return "Answer: Dublin."
        titles = next((titles for question, titles in self.titles.items() if question in text), ())
        label = next((label for label, line in shown if titles and line.startswith(titles)), shown[-1][0])
        return f"<think>it is named</think> <answer>[{label}]</answer>"

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
