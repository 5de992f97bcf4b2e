"""Answer strings from anywhere, scored: a JSON file `{id: answer string}` and the questions that it answers.

    {"5a8c7595554299585d9e36b6": "Chief of Protocol", "5a85b2d95542997b5ce40028": "yes", …}

The official `{"answer": {id: answer string, …}, "sp": …}` is read too. As in the official scripts a question without a
prediction counts as 0; it is told. Knows files of answer strings and measures; nothing of models.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankr1_eval.measures.answers import scorer
from rankr1_eval.score import estimates, grouped
from rankr1_eval.scores import Each, Estimate
from rankr1_eval.types import Question
from rankr1_rag.collection import KINDS
from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath, numbered_lines

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
