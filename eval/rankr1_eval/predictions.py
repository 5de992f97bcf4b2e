"""Answer strings from anywhere, scored: a JSON file `{id: answer string}` and the questions that it answers.

    {"5a8c7595554299585d9e36b6": "Chief of Protocol", "5a85b2d95542997b5ce40028": "yes", …}

The official `{"answer": {id: answer string, …}, "sp": …}` is read too. As in the official scripts a question without a
prediction counts as 0; it is told. Knows files of answer strings and measures; nothing of models.

A run in the forms that other programs read: TREC runs and qrels, and answer strings as `rankr1-eval score` has them.

    supports.qrels          the supports of each question, relevance 1
    runs/SYSTEM.trec           the order of a system; scores are 1 / rank
    predictions/SYSTEM@K.json  {question id: answer string}

Knows values and formats.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankr1_eval.measures.answers import scorer
from rankr1_eval.scoring import EvaluatedRun, estimates, grouped
from rankr1_eval.systems import file_name
from rankr1_eval.types import Each, Estimate, Question
from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import KINDS
from rankr1_rag.io.files import FilePath, numbered_lines, writing
from rankr1_rag.io.trec import write_qrels, write_run


def export(run: EvaluatedRun, folder: Path) -> str:
    """Write them, each whole or not at all. What is left out, and why: "" where nothing is.

    TREC files part their fields by white space: a question whose id holds some can be in none.
    """
    _remove_stale(folder)
    for system in run.systems:
        for k, reads in system.reads.items():
            with writing(folder / "predictions" / f"{file_name(system.name)}@{k}.json") as out:
                json.dump({id: read.answer for id, read in reads.items()}, out)
    try:
        _as_trec(run, folder)
    except ValueError as error:
        return f"no TREC files were written: {error}"
    return ""


def _remove_stale(folder: Path) -> None:
    """Remove what an earlier command wrote of the folder's systems, and no other file."""
    for name in ("predictions", "runs"):
        (folder / name).mkdir(exist_ok=True)
    for system in {
        path.stem.partition("@")[0] for stage in ("rerank", "read") for path in (folder / stage).glob("*.jsonl")
    }:
        for stale in [folder / "runs" / f"{system}.trec", *(folder / "predictions").glob(f"{system}@*.json")]:
            stale.unlink(missing_ok=True)


def _as_trec(run: EvaluatedRun, folder: Path) -> None:
    write_qrels(folder / "supports.qrels", {one.query.id: dict.fromkeys(one.supports, 1) for one in run.questions})
    for system in run.systems:
        if system.orders:
            ranked = (
                (id, [(one, 1 / rank) for rank, one in enumerate(order, 1)]) for id, order in system.orders.items()
            )
            write_run(folder / "runs" / f"{file_name(system.name)}.trec", ranked, tag=file_name(system.name))


Group = Mapping[str, Mapping[str, Estimate]]
"""Type, or number of hops, to measure to estimate."""


@dataclass(frozen=True)
class AnswerScores:
    """EM and F1 of each question and their means. `missing` are the questions without a prediction, which count as 0;
    `unknown` the ids of predictions that answer none of the questions.
    """

    each: Each
    estimates: Mapping[str, Estimate]
    types: Group
    hops: Group
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def read_predictions(path: FilePath) -> dict[str, str]:
    """Question id to answer string. FileError for what is no such file, an id twice, or an answer that is no string."""
    value, twice = _parsed(path)
    if isinstance(value, dict) and isinstance(value.get("answer"), dict):
        value = value["answer"]
    if not isinstance(value, dict):
        raise FileError(path, None, f"holds {_kind(value)} where one object is needed, {{id: answer string, …}}")
    if not value:
        raise FileError(path, None, "the object is empty: it predicts no answer")
    if again := [id for id in twice if id in value]:
        raise FileError(path, None, f"id {again[0]!r} stands twice: a question has one answer string")
    for id, answer in value.items():
        if not isinstance(answer, str):
            raise FileError(
                path, None, f'the answer to {id!r} is {_kind(answer)} where a string is needed; "" for none'
            )
    return value


def score_predictions(dataset: str, questions: Sequence[Question], predictions: Mapping[str, str]) -> AnswerScores:
    """The official scores over all the questions. ValueError where no prediction is for one of them."""
    score = scorer(dataset)
    answers = {question.query.id: question.answers for question in questions}
    if answers.keys().isdisjoint(predictions):
        first = f"{next(iter(predictions), '')!r} is not an id like {next(iter(answers), '')!r}"
        raise ValueError(f"no prediction answers one of the {len(answers):,} questions: {first}")
    found = {id: score(predictions[id], right) for id, right in answers.items() if id in predictions}
    each = {name: {id: found.get(id, (0.0, 0.0))[place] for id in answers} for place, name in enumerate(("EM", "F1"))}
    groups = grouped({"": each}, questions)
    types, hops = ({value: by[""] for value, by in groups.get(name, {}).items()} for name in ("type", "hops"))
    return AnswerScores(
        each,
        estimates({"": each}, list(answers))[""],
        types,
        hops,
        tuple(id for id in answers if id not in predictions),
        tuple(id for id in predictions if id not in answers),
    )


def _parsed(path: FilePath) -> tuple[object, list[str]]:
    """The JSON value, and the names that one of its objects holds twice."""
    twice: list[str] = []

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(found)
        if len(value) < len(found):
            twice.extend(name for name, times in Counter(name for name, _ in found).items() if times > 1)
        return value

    lines = dict(numbered_lines(path))
    text = "\n".join(lines.get(number, "") for number in range(1, max(lines) + 1))
    try:
        return json.loads(text, object_pairs_hook=pairs), twice
    except json.JSONDecodeError as error:
        problem = f"not one whole JSON object: {error.msg} at column {error.colno}"
        hint = "; JSON lines are not read" if error.msg == "Extra data" else "; is the file cut short?"
        raise FileError(path, error.lineno, problem + hint) from error
    except RecursionError:
        raise FileError(path, None, "JSON nested too deeply to be read") from None


def _kind(value: object) -> str:
    return next(name for name, types in KINDS.items() if isinstance(value, types))
