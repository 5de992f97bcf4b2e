"""Single comparisons: sets with one right passage each, every one asked once, and how often that is named.

A record of a comparison:

    {"id": "0f3a…-0", "query": "q1", "source": "hotpotqa", "n": 5, "right": 2, "chosen": 2, "format": true,
     "forced": false, "completion_tokens": 19, "text": "<think> The Town </think> <answer>[3]</answer>"}

Its id is made of what the set shows: the same id means the same query and the same passages in the same order. `right`
and `chosen` are places in the set, counted from 0; `chosen` is null where no answer could be read, which counts as
wrong and for no place. `format` is whether the model wrote, by itself, exactly the format. The bootstrap draws
questions with all their comparisons: those of one question are no independent evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from rankr1_eval.pipeline import result_settings, successes
from rankr1_eval.retrieval.bm25 import scores_at
from rankr1_eval.retrieval.dense import Dense, shown
from rankr1_eval.run_folder import digest, stage_records
from rankr1_eval.types import Difference, Estimate
from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import Json
from rankr1_rag.io.journal import Journal, read_journal
from rankr1_rag.reranker import Reranker
from rankr1_rag.train.data import Example, TrainingSet, sets

if TYPE_CHECKING:
    from rankr1_eval.measures.intervals import Table

STAGE = "comparisons"
FIELDS = {"query": "a string", "chosen": "a whole number or null", "format": "a boolean", "forced": "a boolean"}
FIELDS |= dict.fromkeys(("n", "right", "completion_tokens"), "a whole number")
MODEL = "model"
"""The name of the model that is measured; the others are rivals."""
RIGHT = "right"
"""The places of the right passages: those of a perfect model."""

Choices = Mapping[str, int | None]
"""Comparison id to the chosen place."""


@dataclass(frozen=True, slots=True)
class ComparisonAnswer:
    """What a comparison resulted in: the place that was chosen, None where no answer could be read."""

    chosen: int | None
    format: bool
    forced: bool
    completion_tokens: int


@dataclass(frozen=True)
class ComparisonGroup:
    """Some comparisons: accuracy by name, and by rival the paired difference, the model's less the rival's."""

    comparisons: int
    questions: int
    accuracy: Mapping[str, Estimate]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class ComparisonScores:
    """All comparisons and those of each source.

    `places` by name: how often each place was chosen, among the answers that could be read, as a multiple of its fair
    share; 1 is fair. `format` is the share of answers in exactly the format, None where the model was not left to write
    one. `unparsed` and `forced` count comparisons, `completion_tokens` is a mean.
    """

    all: ComparisonGroup
    sources: Mapping[str, ComparisonGroup]
    places: Mapping[str, tuple[Estimate, ...]]
    format: Estimate | None
    unparsed: int
    forced: int
    completion_tokens: float


def drawn(
    examples: Sequence[Example], *, size: int, hard: int | None, seed: int, draws: int = 1
) -> dict[str, TrainingSet]:
    """Id to set, `draws` ≥ 1 for every positive, drawn as in training; more draws, or more examples, keep these sets.

    `size` and `hard` as for `sets`. ValueError where an example comes twice, or has known passages, which a single
    comparison does not show.
    """
    for example in examples:
        if example.known:
            raise ValueError(
                f"the example {example.query.id!r:.100} has known passages, which a single comparison does not show: "
                "take examples made without --known"
            )
    if draws < 1:
        raise ValueError(f"draws={draws}: must be at least 1")
    found: dict[str, TrainingSet] = {}
    for draw in range(draws):
        for one in sets(examples, size=size, seed=seed, hard=hard, epoch=draw):
            texts = [(passage.title, passage.text) for passage in one.passages]
            id = f"{digest(one.source, one.query.id, one.query.text, one.right, texts)}-{draw}"
            if id in found:
                raise ValueError(f"duplicate example {one.query.id!r:.100}: its comparisons would count double")
            found[id] = one
    return found


def rivals(
    sets: Mapping[str, TrainingSet], examples: Iterable[Example], model: str | None = None
) -> dict[str, Choices]:
    """By name the choices of rivals: "first" the passage shown first, "bm25", and with an embedding model "dense".

    BM25 weighs words by all passages of the examples. Of equal scores the one shown first counts. ValueError where the
    examples hold no word; ImportError where the model needs the extra.
    """

    def best(scores: Iterable[Sequence[float]]) -> Choices:
        return {id: max(range(len(own)), key=own.__getitem__) for id, own in zip(sets, scores, strict=True)}

    pool = (passage for example in examples for passage in (*example.positives, *example.negatives))
    corpus = {(passage.title, passage.text): passage for passage in pool}
    place = {content: at for at, content in enumerate(corpus)}
    places = [(one.query.text, [place[p.title, p.text] for p in one.passages]) for one in sets.values()]
    found = {"first": dict.fromkeys(sets, 0), "bm25": best(scores_at(list(corpus.values()), places))}
    if model is not None:
        texts = [(one.query.text, [shown(passage) for passage in one.passages]) for one in sets.values()]
        found["dense"] = best(Dense(model).similarities(texts))
    return found


def opened(path: Path, reranker: Reranker, hard: int | None) -> Journal:
    """The file of the comparisons of this reranker, begun or resumed. FileError where it is another's."""
    return stage_records(path, STAGE, {**result_settings(reranker), "hard": hard}, FIELDS)


def ask(records: Journal, sets: Mapping[str, TrainingSet], reranker: Reranker) -> Iterator[str]:
    """Ask what the records lack; the ids as they are done. StageError at the end where some failed."""
    missing = [id for id in sets if id not in records]
    yield from (id for id in sets if id in records)
    results = reranker.rank_many((sets[id].query, sets[id].passages) for id in missing)
    for index, ranking in successes(results, records, len(missing)):
        comparison = ranking.trace[-1]  # of several, if the context shows the set only in parts, the final
        one, text = sets[missing[index]], comparison.completion.text
        is_read = any(one.parsed for one in ranking.trace) if comparison.scores else comparison.parsed
        record = {
            "query": one.query.id,
            "source": one.source,
            "n": len(one.passages),
            "right": one.right,
            "chosen": (ranking.chosen or ranking.order)[0] if is_read else None,
            "format": not comparison.forced and reranker.plan.format.strict(text, len(one.passages)) is not None,
            "forced": comparison.forced,
            "completion_tokens": comparison.completion.completion_tokens,
            "text": text,
        }
        records.add(missing[index], record)
        yield missing[index]


def answers(records: Mapping[str, Json], ids: Iterable[str]) -> dict[str, ComparisonAnswer]:
    """The answers to these comparisons."""
    names = [field.name for field in fields(ComparisonAnswer)]
    return {id: ComparisonAnswer(*(records[id][name] for name in names)) for id in ids}


def elsewhere(path: Path, sets: Mapping[str, TrainingSet]) -> dict[str, ComparisonAnswer]:
    """The answers in another finished file to exactly these sets. FileError where it has others."""
    found = read_journal(path, STAGE, FIELDS)
    lacks, more = len(sets.keys() - found.keys()), len(found.keys() - sets.keys())
    if lacks or more:
        problem = f"not the same sets: it lacks {lacks:,} of these {len(sets):,} and has {more:,} others"
        raise FileError(path, None, f"{problem}. Make both with the same examples, --size, --hard, --seed and --draws")
    return answers(found, sets)


def score(
    sets: Mapping[str, TrainingSet],
    answers: Mapping[str, ComparisonAnswer],
    rivals: Mapping[str, Choices],
    *,
    written: bool = True,
) -> ComparisonScores:
    """The scores of the model and its rivals; without `written` the model had no format to keep.

    All by comparison id, every one in each mapping.
    """
    from rankr1_eval.measures import intervals

    names: dict[str, Choices] = {MODEL: {id: one.chosen for id, one in answers.items()}, **rivals}
    own = [answers[id] for id in sets]
    format = None
    if written:
        table, count = sums(sets, [[float(one.format) for one in own], [1.0] * len(sets)]).T
        (format,) = intervals.estimates(table[:, None], weights=count[:, None])
    sources = sorted({one.source for one in sets.values()} - {""})
    return ComparisonScores(
        all=score_group(sets, names),
        sources={
            name: score_group({id: one for id, one in sets.items() if one.source == name}, names) for name in sources
        },
        places=score_places(sets, names),
        format=format,
        unparsed=sum(one.chosen is None for one in own),
        forced=sum(one.forced for one in own),
        completion_tokens=sum(one.completion_tokens for one in own) / len(own),
    )


def score_group(sets: Mapping[str, TrainingSet], names: Mapping[str, Choices]) -> ComparisonGroup:
    """The accuracy of each name on these sets; the first is the model."""
    from rankr1_eval.measures import intervals

    right = [[float(chosen[id] == one.right) for id, one in sets.items()] for chosen in names.values()]
    table, count = sums(sets, right), sums(sets, [[1.0] * len(sets)])
    accuracy = intervals.estimates(table, weights=count)
    apart = intervals.differences(table[:, :1] - table[:, 1:], weights=count)
    return ComparisonGroup(
        len(sets),
        len(table),
        dict(zip(names, accuracy, strict=True)),
        dict(zip(list(names)[1:], apart, strict=True)),
    )


def score_places(sets: Mapping[str, TrainingSet], names: Mapping[str, Choices]) -> dict[str, tuple[Estimate, ...]]:
    """By name the share of each place; none of a place that no answered set has."""
    from rankr1_eval.measures import intervals

    shown = {**names, RIGHT: {id: one.right for id, one in sets.items()}}
    owners, counts, fair = [], [], []
    for name, chosen in shown.items():
        read = [(chosen[id], len(one.passages)) for id, one in sets.items()]
        for place in range(max(n for _, n in read)):
            shares = [1 / n if choice is not None and n > place else 0.0 for choice, n in read]
            if any(shares):
                owners.append(name)
                counts.append([float(choice == place) for choice, _ in read])
                fair.append(shares)
    found: dict[str, list[Estimate]] = {name: [] for name in shown}
    for name, estimate in zip(owners, intervals.estimates(sums(sets, counts), weights=sums(sets, fair)), strict=True):
        found[name].append(estimate)
    return {name: tuple(estimates) for name, estimates in found.items()}


def sums(sets: Mapping[str, TrainingSet], columns: Sequence[Iterable[float]]) -> Table:
    """Of values a comparison, the sums over each question: a line a question."""
    import numpy as np

    lines: dict[tuple[str, str], int] = {}
    line = [lines.setdefault((one.source, one.query.id), len(lines)) for one in sets.values()]
    return np.array([np.bincount(line, weights=np.array(list(values))) for values in columns], dtype=np.float64).T
