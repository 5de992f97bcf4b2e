"""Two runs side by side: for each row and measure that both have, both means and the paired difference.

Everything is over the questions that both runs asked, so that nothing but the runs can differ. Knows scores and the
folders that hold them; nothing of models or pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rankr1_eval.score import common, differences, from_json
from rankr1_eval.scores import Difference, RowScores, Scores
from rankr1_rag.errors import FileError

SCORES = "scores.json"
_SOURCE = ("dataset", "data", "pool")
"""What `questions.jsonl` says about where the questions come from; other settings may differ without a warning."""


@dataclass(frozen=True)
class Scored:
    """A run's scores with where they were found and, where that is known, what the questions are from."""

    path: Path
    scores: Scores
    source: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What to call the run: its folder's name."""
        path = self.path.resolve()
        return (path.parent.name if path.name == SCORES else path.stem) or str(path)


@dataclass(frozen=True, slots=True)
class Pair:
    """One measure of a row that both runs have: means over n common questions, the difference second minus first."""

    row: str
    measure: str
    first: float
    second: float
    difference: Difference
    n: int


@dataclass(frozen=True)
class Paired:
    """Two runs and all that they have in common; `notes` say what makes them hard to compare."""

    first: Scored
    second: Scored
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        runs = [{"name": one.name, "path": str(one.path)} for one in (self.first, self.second)]
        return {"runs": runs, "notes": list(self.notes), "pairs": [asdict(pair) for pair in self.pairs]}


def read(path: Path) -> Scored:
    """The scores in a run's folder, or in the file itself. FileError where they are not there or not scores."""
    file = path / SCORES if path.is_dir() else path
    if path.is_dir() and not file.exists():
        begun = (path / "questions.jsonl").exists()
        problem = (
            "not finished: run the same command again until it writes scores.json" if begun else "no scores.json in it"
        )
        raise FileError(path, None, f"{problem}, as a run's folder has")
    try:
        scores = from_json(json.loads(file.read_bytes()))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FileError(file, None, f"not JSON ({error}): is it the scores.json of a run?") from error
    except ValueError as error:
        raise FileError(file, None, str(error)) from error
    return Scored(file, scores, _source(file.with_name("questions.jsonl")))


def paired(first: Scored, second: Scored) -> Paired:
    """Both runs on what they have in common. ValueError where that is nothing."""
    rows = [name for name in first.scores.rows if name in second.scores.rows]
    pairs = tuple(pair for name in rows for pair in _pairs(first.scores.rows[name], second.scores.rows[name]))
    if not pairs:
        raise ValueError(f"{first.path} and {second.path} have nothing in common: {_why_nothing(first, second)}")
    return Paired(first, second, pairs, tuple(_notes(first, second)))


def _pairs(first: RowScores, second: RowScores) -> list[Pair]:
    ids = common(first, second)
    changes = differences(second, first)
    return [
        Pair(first.name, name, _mean(first, name, ids), _mean(second, name, ids), changes[name], len(ids))
        for name in first.each
        if name in changes
    ]


def _mean(row: RowScores, measure: str, ids: list[str]) -> float:
    return sum(row.each[measure][id] for id in ids) / len(ids)


def _asked(scored: Scored) -> set[str]:
    return {id for row in scored.scores.rows.values() for each in row.each.values() for id in each}


def _why_nothing(first: Scored, second: Scored) -> str:
    if not _asked(first) & _asked(second):
        return "not one question is in both"
    rows = (", ".join(one.scores.rows) or "none" for one in (first, second))
    return "no row with a measure is in both (rows {}; rows {})".format(*rows)


def _notes(first: Scored, second: Scored) -> list[str]:
    notes = []
    for key in _SOURCE:
        ours, theirs = first.source.get(key), second.source.get(key)
        if first.source and second.source and ours != theirs:
            what = {"dataset": "data set", "data": "data file", "pool": "pool of passages"}[key]
            notes.append(f"not the same {what}: {first.name} has {ours}, {second.name} has {theirs}")
    ours_asked, theirs_asked = _asked(first), _asked(second)
    both = len(ours_asked & theirs_asked)
    if ours_asked != theirs_asked:
        notes.append(
            f"not the same questions: {first.name} has {len(ours_asked):,}, {second.name} {len(theirs_asked):,}; "
            f"all figures are over the {both:,} that are in both"
        )
    if lone := sorted(first.scores.rows.keys() ^ second.scores.rows.keys()):
        notes.append(f"rows that only one of them has: {', '.join(lone)}")
    return notes


def _source(path: Path) -> Mapping[str, Any]:
    """What the first line of the questions says; {} where it cannot be read."""
    try:
        with path.open("rb") as lines:
            settings = json.loads(lines.readline())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}
