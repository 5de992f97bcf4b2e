"""Data sets by name, from a local file or the hub, as questions. Every error names the file, the place and the id."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from rankr1_eval.data import hub, local
from rankr1_eval.data.dataset import Dataset, Json
from rankr1_eval.data.hotpotqa import HOTPOTQA, HOTPOTQA_FULLWIKI
from rankr1_eval.data.musique import MUSIQUE
from rankr1_eval.data.twowiki import TWOWIKI
from rankr1_eval.types import Question, passage_of
from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath

DATASETS: dict[str, Dataset] = {each.name: each for each in (HOTPOTQA, HOTPOTQA_FULLWIKI, TWOWIKI, MUSIQUE)}


def load(
    dataset: str, path: FilePath | None = None, *, split: str = "validation", supports: bool = True
) -> list[Question]:
    """The questions of a data set, in file order: of a local file, or of that split from the hub where `path` is None.

    A local file is an official one, a JSON list or JSON lines, also gzipped. Without `supports` a question may lack
    them, as in a file that only answers are scored with. ValueError for an unknown name; FileError for bad content.
    """
    if dataset not in DATASETS:
        raise ValueError(f"data set {dataset!r} is not known: {', '.join(DATASETS)}")
    known = DATASETS[dataset]
    if path is None:
        return questions(known, hub.rows(hub.opened(known.hub, split)), known.hub.id, supports)
    return questions(known, local.records(path), path, supports)


def questions(
    dataset: Dataset, records: Iterable[tuple[int | None, Json]], source: FilePath, supports: bool = True
) -> list[Question]:
    """The questions of (line, record) pairs from that source."""
    found: dict[str, Question] = {}
    for number, (line, record) in enumerate(records, start=1):
        try:
            _check_dataset(dataset, record)
            question = dataset.read(record, supports)
            if question.query.id in found:
                raise ValueError("this id stands here a second time: a question has an id of its own")
        except ValueError as error:
            raise FileError(source, line, f"question {number}{_named(record)}: {error}") from error
        found[question.query.id] = question
    if not found:
        raise FileError(source, None, "it holds no question")
    return _found_elsewhere(found.values())


def _found_elsewhere(questions: Collection[Question]) -> list[Question]:
    """A support that is a mere title (`titled`) becomes another question's paragraph of that title, if there is one."""
    own = {one.query.id: {passage.id for passage in one.passages} for one in questions}
    if all(own[one.query.id].issuperset(one.supports) for one in questions):
        return list(questions)
    named = {passage_of(passage.title, "").id: passage.id for one in questions for passage in one.passages}
    return [replace(one, supports=tuple(dict.fromkeys(named.get(id, id) for id in one.supports))) for one in questions]


def _check_dataset(dataset: Dataset, record: Json) -> None:
    if dataset.marks.isdisjoint(record):
        for other in DATASETS.values():
            if not other.marks.isdisjoint(record):
                raise ValueError(f"this looks like {other.name}, not {dataset.name}: give --dataset {other.name}")
    if "question" not in record:
        found = ", ".join(map(repr, list(record)[:5])) or "none"
        raise ValueError(
            f'this is no record of {dataset.name}: "question" is not among its fields, which are {found:.200}'
        )


def _named(record: Json) -> str:
    id = record.get("_id", record.get("id"))
    return f" ({id!r:.60})" if isinstance(id, str | int) else ""
