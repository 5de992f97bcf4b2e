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

from rankr1_eval.run_folder import STALE
from rankr1_eval.scoring import common, differences, from_json
from rankr1_eval.types import Difference, Scores
from rankr1_rag.errors import FileError
from rankr1_rag.io.checksum import without_checksum
from rankr1_rag.io.journal import head_settings, read_journal

SCORES = "scores.json"

Groups = Mapping[str, Collection[str]]
"""The ids of the questions of each type, or of each number of hops."""

SOURCE = {"dataset": "data set", "data": "data file", "pool": "pool of passages"}
"""Settings of the questions that must not differ between two runs, and what to call them."""


@dataclass(frozen=True)
class ScoredRun:
    """A run's scores with their file and, where known, the settings and the number of the questions in its folder.

    `stale` are scores of an earlier command than the folder's last.
    """

    path: Path
    scores: Scores
    source: Mapping[str, Any]
    questions: int = 0
    stale: bool = False

    @property
    def name(self) -> str:
        """The name of the run: its folder's."""
        path = self.path.resolve()
        return (path.parent.name if path.name == SCORES else path.stem) or str(path)

    @property
    def asked(self) -> set[str]:
        """The ids of its questions."""
        return {id for system in self.scores.systems.values() for each in system.each.values() for id in each}


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
    """Two runs and all that they have in common; `notes` are reasons why they are hard to compare."""

    first: ScoredRun
    second: ScoredRun
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        runs = [{"name": one.name, "path": str(one.path)} for one in (self.first, self.second)]
        return {"runs": runs, "notes": list(self.notes), "pairs": [asdict(pair) for pair in self.pairs]}


def read(path: Path) -> ScoredRun:
    """The scores in a run's folder, or in the file itself. FileError where they are missing or not scores."""
    file = path / SCORES if path.is_dir() else path
    questions = file.with_name("questions.jsonl")
    if path.is_dir() and not file.exists():
        if questions.exists():
            raise FileError(path, None, "the run is unfinished: run its command again until it writes scores.json")
        raise FileError(path, None, "no scores.json in it: give the folder of a finished run")
    try:
        record = json.loads(without_checksum(file.read_text("utf-8").rstrip("\r\n")))
        scores = from_json(record)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FileError(file, None, f"not JSON ({error}): is it the scores.json of a run?") from error
    except ValueError as error:
        raise FileError(file, None, str(error)) from error
    try:
        with questions.open("rb") as lines:
            source, held = head_settings(lines.readline()) or {}, sum(1 for _ in lines)
    except OSError:
        source, held = {}, 0
    return ScoredRun(file, scores, source, held, "stale" in record)


def groups(scored: ScoredRun, by: str) -> Groups:
    """The questions of a run by "type" or by "hops" ("2 hops" and so on); questions without one are left out.

    FileError where the run's questions are missing.
    """
    path = scored.path.with_name("questions.jsonl")
    try:
        found = read_journal(path, "load", {by: "a string" if by == "type" else "a whole number or null"})
    except FileNotFoundError:
        raise FileError(path, None, f"missing; it holds each question's {by}: give a run's folder") from None
    keyed = sorted((record[by], id) for id, record in found.items() if record[by] not in ("", None))
    unit = " hops" if by == "hops" else ""
    return {f"{value}{unit}": {id for _, id in members} for value, members in groupby(keyed, key=itemgetter(0))}


def paired(
    first: ScoredRun, second: ScoredRun, against: str = "", measures: Sequence[str] = (), by: Groups | None = None
) -> Paired:
    """Both runs on what they have in common: system by system, or all `against` one of the first run's.

    `measures` are all where none is named. The questions of each group in `by` are compared apart too. ValueError where
    there is nothing in common, or no such system or measure.
    """
    ours, theirs = first.scores.systems, second.scores.systems
    if against and against not in ours:
        raise ValueError(f"{first.path} has no system {against!r} to compare with: it has {', '.join(ours)}")
    known = dict.fromkeys(name for systems in (ours, theirs) for system in systems.values() for name in system.each)
    if unknown := [name for name in measures if name not in known]:
        raise ValueError(f"measure {unknown[0]!r} is unknown: must be one of {', '.join(known)}")
    itself = against if first.path.resolve() == second.path.resolve() else ""
    partners = {name: ours[against or name] for name in theirs if name != itself and (against or name in ours)}
    pairs = []
    for name, one in partners.items():
        other = theirs[name]
        shared = common(one, other)
        wanted = [measure for measure in one.each if measure in other.each and measure in (measures or known)]
        for group, members in {"": shared, **(by or {})}.items():
            ids = [id for id in shared if id in members]
            changes = differences(other, one, ids)
            for measure in wanted if ids else ():
                a, b = (sum(system.each[measure][id] for id in ids) / len(ids) for system in (one, other))
                pairs.append(Pair(name, measure, a, b, changes[measure], len(ids), one.name, group))
    if not pairs:
        if against:
            raise ValueError(f"nothing in {second.path} can be compared with {against!r}: {', '.join(partners)}")
        problem = "no question is in both"
        if first.asked & second.asked:
            lists = (", ".join(systems) or "none" for systems in (ours, theirs))
            problem = "no system with a measure is in both (systems {}; systems {})".format(*lists)
        raise ValueError(f"{first.path} and {second.path} have nothing in common: {problem}")
    return Paired(first, second, tuple(pairs), tuple(_notes(first, second, against, by)))


def _notes(first: ScoredRun, second: ScoredRun, against: str, by: Groups | None) -> list[str]:
    notes = []
    for run in (first, second) if first.path != second.path else (first,):
        if run.stale:
            notes.append(f"{run.name}: {STALE}")
        if run.questions > len(run.asked):
            notes.append(f"{run.name} holds {run.questions:,} questions, but its scores are of {len(run.asked):,}")
    for key, what in SOURCE.items():
        ours, theirs = first.source.get(key), second.source.get(key)
        if first.source and second.source and ours != theirs:
            notes.append(f"not the same {what}: {first.name} has {ours}, {second.name} has {theirs}")
    if first.asked != second.asked:
        notes.append(
            f"not the same questions: {first.name} has {len(first.asked):,}, {second.name} {len(second.asked):,}; "
            f"all figures are over the {len(first.asked & second.asked):,} that are in both"
        )
    if not against and (lone := sorted(first.scores.systems.keys() ^ second.scores.systems.keys())):
        notes.append(f"systems that only one of them has: {', '.join(lone)}")
    if by is not None and (left := first.asked - {id for members in by.values() for id in members}):
        notes.append(f"{len(left):,} questions of {first.name} are in no group and count only in the whole")
    return notes
