"""Single comparisons: sets with one right passage each, every one asked once, and how often that is named.

    drawn      the sets by id, drawn as training draws them
    asking     each set asked once, what came of it kept as a record
    rivals     which passage of a set the order shown, BM25 and an embedding model would name
    scoring    accuracy, places and format, with intervals over questions

Importing this loads nothing heavy.

Which sets are asked: one for every positive of every example, drawn anew as often as wanted. Knows no model.

An id is made of what a set shows: the same id means the same query and the same passages in the same order.

Which passage of each set others would name: who sees no text, BM25, an embedding model. Knows retrievers.

Each set asked once, through a reranker that has nothing to select but the best of it; what came of it as a record.

    {"id": "0f3a…-0", "query": "q1", "source": "hotpotqa", "n": 5, "right": 2, "chosen": 2, "format": true,
     "forced": false, "completion_tokens": 19, "text": "<think> The Town </think> <answer>[3]</answer>"}

`right` and `chosen` are places in the set, counted from 0; `chosen` is null where no answer could be read, `format` is
whether the model wrote, by itself, exactly what the format asks for. Knows sets, records and how to ask.

How often the right passage is named, which places are chosen, and how often the format is kept.

What is drawn in the bootstrap are questions, with all their comparisons: those of one question are no independent
evidence. An answer that could not be read is wrong, and counts for no place. Knows places; nothing of texts or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankr1_eval.pipeline import Failures, asked_with
from rankr1_eval.retrieval.bm25 import scores_at
from rankr1_eval.retrieval.dense import Dense, shown
from rankr1_eval.run_folder import Json, Records, digest, read
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.errors import FileError
from rankr1_rag.prompt import Format
from rankr1_rag.reranker import Reranker
from rankr1_rag.train.data import Example, TrainingSet, sets
from rankr1_rag.types import Ranking


def drawn(
    examples: Sequence[Example], *, size: int, hard: int | None, seed: int, draws: int = 1
) -> dict[str, TrainingSet]:
    """Id to set, `draws` ≥ 1 for every positive; more draws, or more examples, keep those that were.

    `size` and `hard` as for `sets`. ValueError where an example is given twice, or has passages that are known already:
    a single comparison has nothing that could be.
    """
    for example in examples:
        if example.known:
            raise ValueError(
                f"the example {example.query.id!r:.100} has passages that are known already, which a single comparison "
                "does not show: give examples made without --known"
            )
    if draws < 1:
        raise ValueError(f"draws={draws}: each positive must be asked about once at least")
    found: dict[str, TrainingSet] = {}
    for draw in range(draws):
        for one in sets(examples, size=size, seed=seed, hard=hard, epoch=draw):
            id = f"{_content(one)}-{draw}"
            if id in found:
                raise ValueError(
                    f"the example {one.query.id!r:.100} is given twice: its comparisons would count double"
                )
            found[id] = one
    return found


def _content(one: TrainingSet) -> str:
    shown = [(passage.title, passage.text) for passage in one.passages]
    return digest(one.source, one.query.id, one.query.text, one.right, shown)


Choices = Mapping[str, int | None]
"""Comparison id to the place that is chosen."""


def rivals(
    sets: Mapping[str, TrainingSet], examples: Iterable[Example], model: str | None = None
) -> dict[str, Choices]:
    """By name what each chooses: "first" the passage shown first, "bm25", and with an embedding model "dense".

    BM25 weighs words by all passages of the examples. Of equal scores the one shown first counts. ValueError where the
    examples hold no word; ImportError where the model needs the extra.
    """
    found = {"first": dict.fromkeys(sets, 0), "bm25": _bm25(sets, examples)}
    return found if model is None else {**found, "dense": _dense(sets, model)}


def _bm25(sets: Mapping[str, TrainingSet], examples: Iterable[Example]) -> Choices:
    pool = (passage for example in examples for passage in (*example.positives, *example.negatives))
    corpus = {(passage.title, passage.text): passage for passage in pool}
    place = {content: at for at, content in enumerate(corpus)}
    asked = [
        (one.query.text, [place[passage.title, passage.text] for passage in one.passages]) for one in sets.values()
    ]
    return _best(sets, scores_at(list(corpus.values()), asked))


def _dense(sets: Mapping[str, TrainingSet], model: str) -> Choices:
    asked = [(one.query.text, [shown(passage) for passage in one.passages]) for one in sets.values()]
    return _best(sets, Dense(model).similarities(asked))


def _best(ids: Iterable[str], scores: Iterable[Sequence[float]]) -> Choices:
    return {id: max(range(len(own)), key=own.__getitem__) for id, own in zip(ids, scores, strict=True)}


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


if TYPE_CHECKING:
    from rankr1_eval.measures.intervals import Table

MODEL = "model"
"""The system of the model that is measured; the others are rivals."""
RIGHT = "right"
"""Where the right passages stand: what the places of a perfect model would be."""


@dataclass(frozen=True)
class Group:
    """Some comparisons: accuracy by system, and by rival the paired difference, the model's less the rival's."""

    comparisons: int
    questions: int
    accuracy: Mapping[str, Estimate]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Result:
    """All comparisons and those of each source.

    `places` of a system: how often each place was chosen, among the answers that could be read, as a multiple of its
    fair share; 1 is fair. `format` is the share of answers in exactly the form asked for, None where the model was not
    left to write one. `unparsed` and `forced` count comparisons, `completion_tokens` is a mean.
    """

    all: Group
    sources: Mapping[str, Group]
    places: Mapping[str, tuple[Estimate, ...]]
    format: Estimate | None
    unparsed: int
    forced: int
    completion_tokens: float

    def to_json(self) -> dict[str, Any]:
        """As plain values, nothing rounded."""
        return asdict(self)


def score(
    sets: Mapping[str, TrainingSet],
    answered: Mapping[str, Answered],
    rivals: Mapping[str, Choices],
    *,
    written: bool = True,
) -> Result:
    """What these answers are worth beside the rivals; without `written` there was no format to keep.

    All by comparison id, every one in each mapping.
    """
    systems: dict[str, Choices] = {MODEL: {id: one.chosen for id, one in answered.items()}, **rivals}
    sources = sorted({one.source for one in sets.values()} - {""})
    told = [answered[id] for id in sets]
    return Result(
        all=_group(sets, systems),
        sources={
            name: _group({id: one for id, one in sets.items() if one.source == name}, systems) for name in sources
        },
        places=_places(sets, systems),
        format=_format(sets, answered) if written else None,
        unparsed=sum(one.chosen is None for one in told),
        forced=sum(one.forced for one in told),
        completion_tokens=sum(one.completion_tokens for one in told) / len(told),
    )


def _group(sets: Mapping[str, TrainingSet], systems: Mapping[str, Choices]) -> Group:
    from rankr1_eval.measures import intervals

    right = {name: [float(chosen[id] == one.right) for id, one in sets.items()] for name, chosen in systems.items()}
    table, count = _sums(sets, list(right.values())), _sums(sets, [[1.0] * len(sets)])
    accuracy = intervals.estimates(table, weights=count)
    apart = intervals.differences(table[:, :1] - table[:, 1:], weights=count)
    return Group(
        len(sets),
        len(table),
        dict(zip(systems, accuracy, strict=True)),
        dict(zip(list(systems)[1:], apart, strict=True)),
    )


def _places(sets: Mapping[str, TrainingSet], systems: Mapping[str, Choices]) -> dict[str, tuple[Estimate, ...]]:
    """By system the share of each place; none of a place that no answered set has."""
    from rankr1_eval.measures import intervals

    most = max(len(one.passages) for one in sets.values())
    shown = {**systems, RIGHT: {id: one.right for id, one in sets.items()}}
    columns = {
        (name, place): column
        for name, chosen in shown.items()
        for place in range(most)
        if any((column := _share(sets, chosen, place))[1])
    }
    table = _sums(sets, [counts for counts, _ in columns.values()])
    weights = _sums(sets, [fair for _, fair in columns.values()])
    found: dict[str, list[Estimate]] = {name: [] for name in shown}
    for (name, _), estimate in zip(columns, intervals.estimates(table, weights=weights), strict=True):
        found[name].append(estimate)
    return {name: tuple(estimates) for name, estimates in found.items()}


def _share(sets: Mapping[str, TrainingSet], chosen: Choices, place: int) -> tuple[list[float], list[float]]:
    """Of each comparison whether that place was chosen, and how often it would be if all were alike."""
    read = [(chosen[id], len(one.passages)) for id, one in sets.items()]
    counts = [float(choice == place) for choice, _ in read]
    return counts, [1 / n if choice is not None and n > place else 0.0 for choice, n in read]


def _format(sets: Mapping[str, TrainingSet], answered: Mapping[str, Answered]) -> Estimate:
    from rankr1_eval.measures import intervals

    table, count = _sums(sets, [[float(answered[id].format) for id in sets], [1.0] * len(sets)]).T
    return intervals.estimates(table[:, None], weights=count[:, None])[0]


def _sums(sets: Mapping[str, TrainingSet], columns: Sequence[Iterable[float]]) -> Table:
    """Of values a comparison, the sums over each question: a line a question."""
    import numpy as np

    lines: dict[tuple[str, str], int] = {}
    line = [lines.setdefault((one.source, one.query.id), len(lines)) for one in sets.values()]
    return np.array([np.bincount(line, weights=np.array(list(values))) for values in columns], dtype=np.float64).T


__all__ = [
    "MODEL",
    "RIGHT",
    "Answered",
    "Group",
    "Result",
    "answered",
    "ask",
    "drawn",
    "elsewhere",
    "opened",
    "rivals",
    "score",
]
