"""The folder of a run, whose files docs/evaluation.md lists, and how its records become values again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from rankr1_eval.types import Question
from rankr1_rag.io.collection import Json, member
from rankr1_rag.io.files import AnyPath, claim_folder, make_folder, writing
from rankr1_rag.io.journal import Journal
from rankr1_rag.io.jsonl import plain_fields, ranking_from_json
from rankr1_rag.types import Cost, Passage, Query, Ranking

STALE = (
    "These results are of an earlier command: a later one in this folder did not finish. Run it again to replace them."
)
"""Marks results, at the beginning of each of their files."""
RESULTS = {
    "scores.json": ("{", f'"stale": "{STALE}", '),
    "report.md": ("", f"> **Note:** {STALE}\n\n"),
    "report.html": ("<body>", f'<ul class="warnings"><li>{STALE}</li></ul>'),
}
"""The files of results for people and for `compare`, each with the text that the mark follows, and the mark."""


JOURNAL = re.compile(rb'\A\{"rankr1')
"""The beginning of the records of a stage."""
FILES = ("questions.jsonl", "candidates.jsonl", "passages.jsonl", "rerank/*.jsonl", "read/*.jsonl", *RESULTS)
FILES += ("supports.qrels", "runs/*.trec", "predictions/*.json")
"""All that a run writes."""


ORDER = {"order": "an array of strings", "seconds": "a number"}
RANKING = {**ORDER, "scores": "an array", "rankr1": "an object"}
READING = {"shown": "an array of strings", "answer": "a string", "text": "a string", "seconds": "a number"}
READING |= dict.fromkeys(("prompt_tokens", "completion_tokens"), "a whole number")
"""The fields of a record: of an order, of one by a reasoning model, of a reading."""


class RunFolder:
    """A run's folder, made where it is missing; its records are open, and nobody else's, until it is left."""

    def __init__(self, path: Path, inputs: Iterable[AnyPath | None] = ()) -> None:
        self.path, self.store = path, path / "completions.sqlite"
        self.stages: dict[str, Journal] = {}
        self._opened = ExitStack()
        claim_folder(path, "questions.jsonl", JOURNAL, FILES, inputs)
        for name in ("rerank", "read"):
            make_folder(path / name)

    def records(self, file: str, stage: str, settings: Mapping[str, object], fields: Mapping[str, str]) -> Journal:
        """The records of a stage. FileError where the file is another stage's, or of other settings."""
        records = self._opened.enter_context(stage_records(self.path / file, stage, settings, fields))
        self.stages[stage] = records
        return records

    def mark_results(self) -> None:
        """Mark the results of an earlier command as stale, until new ones replace them."""
        for name, (before, mark) in RESULTS.items():
            path = self.path / name
            if path.exists() and STALE not in (text := path.read_text("utf-8", "replace")):
                with writing(path) as out:
                    out.write(text.rstrip().replace(before, before + mark, 1) + "\n")  # without a checksum

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._opened.close()


def stage_records(path: Path, stage: str, settings: Mapping[str, object], fields: Mapping[str, str]) -> Journal:
    """The records in a file of a stage, begun or resumed. FileError where they are another's."""
    return Journal(path, stage, settings, fields, remedy="give another --out")


def are_stale(results: Path) -> bool:
    """Whether the results of a run in this folder are marked."""
    try:
        with (results / "scores.json").open(encoding="utf-8", errors="replace") as file:
            return STALE in file.read(len(STALE) + 100)
    except OSError:
        return False


def digest(*parts: object) -> str:
    """A short digest of settings or ids."""
    return sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def question_record(question: Question) -> Json:
    """A question as a record; its passages by id."""
    return {
        "question": question.query.text,
        "answers": list(question.answers),
        "supports": list(question.supports),
        "passages": [passage.id for passage in question.passages],
        "type": question.type,
        "hops": question.hops,
    }


def cost_of(records: Journal, id: str) -> Cost:
    """The cost of an order, `seconds` being wall time of the stage."""
    record = records[id]
    try:
        own = plain_fields(Cost, member(record["rankr1"], "cost", "an object")) if "rankr1" in record else {}
        return Cost(**{**own, "seconds": record["seconds"]})
    except ValueError as error:
        raise records.damaged(id, error) from error


class Rankings(Mapping[str, Ranking]):
    """The rankings of a system, read one at a time: all their traces together may be large."""

    def __init__(self, queries: Mapping[str, Query], records: Journal, passages: Mapping[str, Passage]) -> None:
        self._queries, self._records, self._passages = queries, records, passages

    def __getitem__(self, id: str) -> Ranking:
        record = self._records[id]
        try:
            scored = zip(record["order"], record["scores"], strict=True)
            ranked = [{**asdict(self._passages[passage]), "score": score} for passage, score in scored]
            ranking = {"query": asdict(self._queries[id]), "passages": ranked, "rankr1": record["rankr1"]}
            return ranking_from_json(ranking)
        except (ValueError, LookupError) as error:
            raise self._records.damaged(id, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)
