"""Each set asked once, through a reranker that has nothing to select but the best of it; what came of it as a record.

    {"id": "0f3a…-0", "query": "q1", "source": "hotpotqa", "n": 5, "right": 2, "chosen": 2, "format": true,
     "forced": false, "completion_tokens": 19, "text": "<think> The Town </think> <answer>[3]</answer>"}

`right` and `chosen` are places in the set, counted from 0; `chosen` is null where no answer could be read, `format` is
whether the model wrote, by itself, exactly what the format asks for. Knows sets, records and how to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rankr1_eval.asked import asked_with
from rankr1_eval.pipeline import Failures
from rankr1_eval.records import Json, Records, read
from rankr1_rag.errors import FileError
from rankr1_rag.prompt import Format
from rankr1_rag.reranker import Reranker
from rankr1_rag.train.sets import TrainingSet
from rankr1_rag.types import Ranking

STAGE = "comparisons"
FIELDS = ("query", "n", "right", "chosen", "format", "forced", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a comparison: the place that was chosen, None where no answer could be read."""

    chosen: int | None
    format: bool
    forced: bool
    completion_tokens: int


def opened(path: Path, reranker: Reranker, hard: int | None) -> Records:
    """The file of the comparisons of this reranker, begun or gone on with. FileError where it is another's."""
    return Records(path, STAGE, {**asked_with(reranker), "hard": hard}, FIELDS)


def ask(records: Records, sets: Mapping[str, TrainingSet], reranker: Reranker) -> Iterator[str]:
    """Ask what the records lack; the ids as they are done. StageError at the end where some failed."""
    missing = [id for id in sets if id not in records]
    yield from (id for id in sets if id in records)
    failures = Failures(records, len(missing))
    asked = ((sets[id].query, sets[id].passages) for id in missing)
    for index, ranking in failures.apart(reranker.rank_many(asked)):
        id = missing[index]
        records.add(id, _record(sets[id], ranking, reranker.plan.format))
        yield id


def answered(records: Mapping[str, Json] | Records, ids: Iterable[str]) -> dict[str, Answered]:
    """What came of these comparisons."""
    return {id: _answered(records[id]) for id in ids}


def elsewhere(path: Path, sets: Mapping[str, TrainingSet]) -> dict[str, Answered]:
    """What another finished file has of exactly these sets. FileError where it has not all of them, or others."""
    found = read(path, STAGE, FIELDS)
    lacks, more = len(sets.keys() - found.keys()), len(found.keys() - sets.keys())
    if lacks or more:
        raise FileError(
            path,
            None,
            f"not the same sets: it lacks {lacks:,} of these {len(sets):,} and has {more:,} others. Make both of the "
            "same examples, with the same --size, --hard, --seed and --draws",
        )
    return answered(found, sets)


def _record(one: TrainingSet, ranking: Ranking, format: Format) -> Json:
    (comparison,) = ranking.trace
    n, text = len(one.passages), comparison.completion.text
    return {
        "query": one.query.id,
        "source": one.source,
        "n": n,
        "right": one.right,
        "chosen": comparison.answer[0] if comparison.parsed else None,
        "format": not comparison.forced and format.strict(text, n) is not None,
        "forced": comparison.forced,
        "completion_tokens": comparison.completion.completion_tokens,
        "text": text,
    }


def _answered(record: Json) -> Answered:
    return Answered(record["chosen"], record["format"], record["forced"], record["completion_tokens"])
