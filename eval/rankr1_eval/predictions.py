"""Answer strings scored from a JSON file `{id: answer string}`, and a run exported for other programs.

The official `{"answer": {id: answer string, …}, "sp": …}` is read too, and MuSiQue's lines, also as a JSON list:

    {"id": "2hop__123_456", "predicted_answer": "Seat", "predicted_support_idxs": [0, 3], "predicted_answerable": true}

As in the official scripts a question without a prediction counts as 0.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rankr1_eval.data.loading import joined, most_bytes, records
from rankr1_eval.measures.answers import scorer
from rankr1_eval.scoring import EvaluatedRun, estimates, grouped
from rankr1_eval.systems import file_name
from rankr1_eval.types import Each, Estimate, Question
from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import KINDS, id_of, text_of
from rankr1_rag.io.files import FilePath, numbered_lines, writing
from rankr1_rag.io.trec import write_qrels, write_run

# In a record of JSON lines the first field that is not null counts.
ID = ("id", "_id", "qid", "question_id")
ANSWER = ("predicted_answer", "prediction", "pred", "answer")
GOLD = {"answer_aliases", "context", "golden_answers", "paragraphs", "question_decomposition", "supporting_facts"}


def export(run: EvaluatedRun, folder: Path) -> str:
    """Write the supports as qrels, each order as a TREC run with scores 1 / rank, and the answers of each reading.

    Each file is written whole or not at all. A message about what is left out, or "": a question whose id contains
    whitespace can be in no TREC file.
    """
    for name in ("predictions", "runs"):
        (folder / name).mkdir(exist_ok=True)
    records = [path for stage in ("rerank", "read") for path in (folder / stage).glob("*.jsonl")]
    for system in {path.stem.partition("@")[0] for path in records}:  # an earlier command's, perhaps of other questions
        for stale in [folder / "runs" / f"{system}.trec", *(folder / "predictions").glob(f"{system}@*.json")]:
            stale.unlink(missing_ok=True)
    for one in run.systems:
        for k, reads in one.reads.items():
            with writing(folder / "predictions" / f"{file_name(one.name)}@{k}.json") as out:
                json.dump({id: read.answer for id, read in reads.items()}, out)
    try:
        supports = {question.query.id: dict.fromkeys(question.supports, 1) for question in run.questions}
        with writing(folder / "supports.qrels") as out:
            write_qrels(out, supports)
        for one in run.systems:
            if one.orders:
                ranked = ((id, [(p, 1 / rank) for rank, p in enumerate(order, 1)]) for id, order in one.orders.items())
                with writing(folder / "runs" / f"{file_name(one.name)}.trec") as out:
                    write_run(out, ranked, tag=file_name(one.name))
    except ValueError as error:
        return f"no TREC files were written: {error}"
    return ""


@dataclass(frozen=True)
class AnswerScores:
    """EM and F1 of each question and their means, also by type and by number of hops.

    `missing` are the questions without a prediction, which count as 0; `unknown` the ids of predictions that answer
    none of the questions.
    """

    each: Each
    estimates: Mapping[str, Estimate]
    types: Mapping[str, Mapping[str, Estimate]]
    hops: Mapping[str, Mapping[str, Estimate]]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def read_predictions(path: FilePath) -> dict[str, str]:
    """Question id to answer string. FileError for another content, an id twice, or an answer that is no string."""

    def kind(value: object) -> str:
        return next(name for name, types in KINDS.items() if isinstance(value, types))

    text = joined(path, numbered_lines(path, most_bytes(path)))
    value, duplicates = read_json(path, text)
    is_record = isinstance(value, dict) and value.keys() & {*ID} and value.keys() & {*ANSWER} - {"answer"}
    if value is None or is_record or (isinstance(value, list) and all(isinstance(one, dict) for one in value)):
        lines = enumerate(map(str.rstrip, StringIO(text)), start=1)
        value, duplicates = dict(read_records(path, (pair for pair in lines if pair[1]))), []
    if isinstance(value, dict) and isinstance(value.get("answer"), dict):
        value = value["answer"]
    if not isinstance(value, dict):
        raise FileError(path, None, f"holds {kind(value)} where one object is needed, {{id: answer string, …}}")
    if not value:
        raise FileError(path, None, "the object is empty: it predicts no answer")
    if again := [id for id in duplicates if id in value]:
        raise FileError(path, None, f"duplicate id {again[0]!r}: a question has one answer string")
    for id, answer in value.items():
        if not isinstance(answer, str):
            problem = f'the answer to {id!r} is {kind(answer)} where a string is needed; "" for none'
            raise FileError(path, None, problem)
    return value


def read_records(path: FilePath, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    """Question id and answer string of each record in JSON lines or a JSON list. FileError names the line."""
    seen: set[str] = set()
    for number, (line, record) in enumerate(records(path, lines), start=1):
        try:
            id = id_of(record, ID)
            name = next((name for name in ANSWER if name in record), ANSWER[0])
            if name == "answer" and not GOLD.isdisjoint(record):
                raise ValueError("a record of the data set, with the right answer, where a prediction is needed")
            if id in seen:
                raise ValueError(f"duplicate id {id!r}: a question has one answer string")
            answer = text_of(record, ANSWER if name not in record else (name,))
        except ValueError as error:
            raise FileError(path, line, f"prediction {number}: {error}") from error
        seen.add(id)
        yield id, answer


def read_json(path: FilePath, text: str) -> tuple[object, list[str]]:
    """The JSON value in the text, None where it is JSON lines; and the names that one of its objects holds twice."""
    duplicates: list[str] = []

    def to_dict(found: list[tuple[str, object]]) -> dict[str, object]:
        duplicates.extend(name for name, times in Counter(name for name, _ in found).items() if times > 1)
        return dict(found)

    try:
        return json.loads(text, object_pairs_hook=to_dict), duplicates
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return None, []
        place = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        problem = f"not one whole JSON object: {place}; is the file cut short?"
        raise FileError(path, error.lineno, problem) from error
    except (ValueError, RecursionError) as error:
        problem = "JSON nested too deeply to be read" if isinstance(error, RecursionError) else f"not JSON: {error}"
        raise FileError(path, None, problem) from None


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
