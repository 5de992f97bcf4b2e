"""How often the right passage is named, which places are chosen, and how often the format is kept.

What is drawn in the bootstrap are questions, with all their comparisons: those of one question are no independent
evidence. An answer that could not be read is wrong, and counts for no place. Knows places; nothing of texts or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rankr1_eval.comparisons.asking import Answered
from rankr1_eval.comparisons.rivals import Choices
from rankr1_eval.scores import Difference, Estimate
from rankr1_rag.train.sets import TrainingSet

if TYPE_CHECKING:
    from rankr1_eval.measures.intervals import Table

MODEL = "model"
"""The row of the model that is measured; the others are rivals."""
RIGHT = "right"
"""Where the right passages stand: what the places of a perfect model would be."""


@dataclass(frozen=True)
class Group:
    """Some comparisons: accuracy by row, and by rival the paired difference, the model's accuracy less the rival's."""

    comparisons: int
    questions: int
    accuracy: Mapping[str, Estimate]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Result:
    """All comparisons and those of each source.

    `places` of a row: how often each place was chosen, among the answers that could be read, as a multiple of its fair
    share; 1 is fair. `format` is the share of answers in exactly the form asked for, None where the model was not left
    to write one. `unparsed` and `forced` count comparisons, `completion_tokens` is a mean.
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
    rows: dict[str, Choices] = {MODEL: {id: one.chosen for id, one in answered.items()}, **rivals}
    sources = sorted({one.source for one in sets.values()} - {""})
    told = [answered[id] for id in sets]
    return Result(
        all=_group(sets, rows),
        sources={name: _group({id: one for id, one in sets.items() if one.source == name}, rows) for name in sources},
        places=_places(sets, rows),
        format=_format(sets, answered) if written else None,
        unparsed=sum(one.chosen is None for one in told),
        forced=sum(one.forced for one in told),
        completion_tokens=sum(one.completion_tokens for one in told) / len(told),
    )


def _group(sets: Mapping[str, TrainingSet], rows: Mapping[str, Choices]) -> Group:
    from rankr1_eval.measures import intervals

    right = {name: [float(chosen[id] == one.right) for id, one in sets.items()] for name, chosen in rows.items()}
    table, count = _sums(sets, list(right.values())), _sums(sets, [[1.0] * len(sets)])
    accuracy = intervals.estimates(table, weights=count)
    apart = intervals.differences(table[:, :1] - table[:, 1:], weights=count)
    return Group(
        len(sets),
        len(table),
        dict(zip(rows, accuracy, strict=True)),
        dict(zip(list(rows)[1:], apart, strict=True)),
    )


def _places(sets: Mapping[str, TrainingSet], rows: Mapping[str, Choices]) -> dict[str, tuple[Estimate, ...]]:
    """By row the share of each place; none of a place that no answered set has."""
    from rankr1_eval.measures import intervals

    most = max(len(one.passages) for one in sets.values())
    shown = {**rows, RIGHT: {id: one.right for id, one in sets.items()}}
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
