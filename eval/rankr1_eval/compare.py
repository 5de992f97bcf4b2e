"""Two runs side by side: for each system and measure that both have, both means and the paired difference.

Or all systems against a chosen one, of the same run or another. Everything is over the questions of both sides.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rankr1_eval import run_folder
from rankr1_eval.scoring import common, differences, from_json
from rankr1_eval.types import Difference, Scores, SystemScores
from rankr1_rag.errors import FileError

SCORES = "scores.json"

Groups = Mapping[str, Collection[str]]
"""The ids of the questions of each type, or of each number of hops."""

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
    """One measure: means over n common questions, the difference second minus first.

    `system` is the second run's; the first one's is `against`, the same where none was chosen. `group` is the type, or
    the number of hops, of these questions; "" is all of them.
    """

    system: str
    measure: str
    first: float
    second: float
    difference: Difference
    n: int
    against: str
    group: str = ""


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


def paired(
    first: Scored, second: Scored, against: str = "", measures: Sequence[str] = (), by: Groups | None = None
) -> Paired:
    """Both runs on what they have in common: system by system, or all `against` one of the first run's.

    `measures` are all where none is named. The questions of each group in `by` stand apart too. ValueError where there
    is nothing in common, or no such system or measure.
    """
    _check(first, second, against, measures)
    systems = _systems(first, second, against)
    both = [(first.scores.systems[against or name], system) for name, system in systems.items()]
    pairs = tuple(pair for one, other in both for pair in _pairs(one, other, measures, by or {}))
    if not pairs and against:
        raise ValueError(
            f"{second.path} has nothing that system {against!r} could be compared in: {', '.join(systems)}"
        )
    if not pairs:
        raise ValueError(f"{first.path} and {second.path} have nothing in common: {_why_nothing(first, second)}")
    return Paired(first, second, pairs, (*_notes(first, second, against), *_ungrouped(first, by)))


def groups(scored: Scored, by: str) -> Groups:
    """The questions of a run by "type" or by "hops", which are called "2 hops" and so on; what has none is left out.

    FileError where that is not told.
    """
    path = scored.path.with_name("questions.jsonl")
    try:
        found = run_folder.read(path, "load", (by,))
    except FileNotFoundError:
        raise FileError(path, None, f"is not there, which tells each question's {by}: give a run's folder") from None
    keyed = sorted((record[by], id) for id, record in found.items() if record[by] not in ("", None))
    unit = " hops" if by == "hops" else ""
    return {f"{value}{unit}": {id for _, id in members} for value, members in groupby(keyed, key=itemgetter(0))}


def _check(first: Scored, second: Scored, against: str, measures: Sequence[str]) -> None:
    if against and against not in first.scores.systems:
        raise ValueError(
            f"{first.path} has no system {against!r} to compare with: it has {', '.join(first.scores.systems)}"
        )
    known = dict.fromkeys(
        name for one in (first, second) for system in one.scores.systems.values() for name in system.each
    )
    if unknown := [name for name in measures if name not in known]:
        raise ValueError(f"measure {unknown[0]!r}: there are {', '.join(known)}")


def _systems(first: Scored, second: Scored, against: str) -> dict[str, SystemScores]:
    """The second run's systems that have a partner, which is not the very same system."""
    same = against if first.path.resolve() == second.path.resolve() else ""
    named = {name: system for name, system in second.scores.systems.items() if name != same}
    return named if against else {name: system for name, system in named.items() if name in first.scores.systems}


def _pairs(first: SystemScores, second: SystemScores, measures: Sequence[str], by: Groups) -> list[Pair]:
    shared = common(first, second)
    told = [name for name in first.each if name in second.each and (not measures or name in measures)]
    pairs: list[Pair] = []
    for group, members in {"": shared, **by}.items():
        ids = [id for id in shared if id in members]
        changes = differences(second, first, ids)
        for name in told if ids else ():
            means = _mean(first, name, ids), _mean(second, name, ids)
            pairs.append(Pair(second.name, name, *means, changes[name], len(ids), first.name, group))
    return pairs


def _mean(system: SystemScores, measure: str, ids: list[str]) -> float:
    return sum(system.each[measure][id] for id in ids) / len(ids)


def _asked(scored: Scored) -> set[str]:
    return {id for system in scored.scores.systems.values() for each in system.each.values() for id in each}


def _why_nothing(first: Scored, second: Scored) -> str:
    if not _asked(first) & _asked(second):
        return "not one question is in both"
    systems = (", ".join(one.scores.systems) or "none" for one in (first, second))
    return "no system with a measure is in both (systems {}; systems {})".format(*systems)


def _ungrouped(first: Scored, by: Groups | None) -> list[str]:
    if by is None:
        return []
    left = _asked(first) - {id for members in by.values() for id in members}
    return [f"{len(left):,} questions of {first.name} are in no group, and count in the whole alone"] if left else []


def _notes(first: Scored, second: Scored, against: str) -> list[str]:
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
    if not against and (lone := sorted(first.scores.systems.keys() ^ second.scores.systems.keys())):
        notes.append(f"systems that only one of them has: {', '.join(lone)}")
    return notes


def _source(path: Path) -> Mapping[str, Any]:
    """What the first line of the questions says; {} where it cannot be read."""
    try:
        with path.open("rb") as lines:
            settings = json.loads(lines.readline())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}
