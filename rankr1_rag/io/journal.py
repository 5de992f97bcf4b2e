"""Resumable JSON lines: one record for each id, appended as it is done and found again by the next run.

    {"rankr1_journal": 1, "version": "0.1.0", "kind": "rerank rank-r1", "settings": {"k": 5, …}}
    {"id": "5a8c75…", …}

The first line names what the records depend on: a run resumes only with the same settings. The torn last line of a
killed process is cut off. Of two records with one id the later counts. Each line ends in a checksum, see `checksum`; a
damaged one is left out, with a warning, so that what it held is done again. Its byte is then noted in the file:

    {"note": {"damaged at 20480": true}}
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from rankr1_rag import __version__
from rankr1_rag.errors import BackendError, BackendUnavailable, FileError, PromptTooLong, UnparsedError
from rankr1_rag.io.checksum import has_checksum, with_checksum, without_checksum
from rankr1_rag.io.collection import Json, of_kind
from rankr1_rag.io.files import ANYTHING, LOCKS, check_output, locked, named
from rankr1_rag.redaction import with_digests

VERSION = 1
HEAD = b'{"rankr1_journal": '
EARLIER = "an earlier, unreleased version of rankr1-rag"
DAMAGED_AT = "damaged at {}"
"""The note that the line that begins at this byte is damaged, and what it held was done again."""
log = logging.getLogger("rankr1_rag")

Fields = Mapping[str, str]
"""The fields that a record must have, and their kinds, keys of `KINDS`."""


class Journal(Mapping[str, Json]):
    """The records by id, in one file that no other process may use meanwhile.

    A file without a record is begun again, whatever its settings. A record without `fields` is damaged. `remedy` ends
    the errors about a file that does not fit. A `temporary` file is removed at the end unless it holds records or
    notes. FileError where the file is not of this kind, has other settings, or is damaged in its first line.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        settings: Mapping[str, object],
        fields: Fields,
        *,
        remedy: str,
        restart: bool = False,
        temporary: bool = False,
    ) -> None:
        self.path, self.kind = path, kind
        self.settings: Json = json.loads(json.dumps(with_digests(settings), default=str))
        self.notes: Json = {}
        self._places: dict[str, int] = {}
        self._damaged: dict[int, int] = {}
        self._temporary, self._writer = temporary, ""
        check_output(path, ANYTHING)
        self._file = locked(path)
        try:
            begun = with_digests(self._read(fields, remedy, restart))
            if (self._places or self._damaged) and begun != self.settings:
                names = sorted((begun or {}).keys() | self.settings.keys())
                pairs = [(name, (begun or {}).get(name), self.settings.get(name)) for name in names]
                changed = ", ".join(f"{name} {old!r:.80} → {new!r:.80}" for name, old, new in pairs if old != new)
                by = f" by {self._writer}" if self._writer else ""
                raise FileError(path, None, f"made{by} with other settings ({changed}): use those again, or {remedy}")
            if begun != self.settings:
                self.notes = {}
                self._file.truncate(0)
                head = {"rankr1_journal": VERSION, "version": __version__, "kind": kind, "settings": self.settings}
                self._append(head)
            if self._damaged:
                place, number = next(iter(self._damaged.items()))
                others = f", and {len(self._damaged) - 1:,} more" if len(self._damaged) > 1 else ""
                problem = "damaged and left out: what it held is done again"
                log.warning("%s:%d: the line at byte %d%s is %s", path, number, place, others, problem)
                self.note(**{DAMAGED_AT.format(place): True for place in self._damaged})
        except BaseException:
            with suppress(OSError):
                self._file.close()
            raise

    def add(self, id: str, record: Mapping[str, Any]) -> None:
        """Keep a record: with the operating system when this returns, so it survives a killed process."""
        self._places[id] = self._append({"id": id, **record})

    def note(self, **values: object) -> None:
        """Keep values that are no record; the last of each name counts."""
        self._append({"note": values})
        self.notes |= values

    def clear(self) -> None:
        """Forget all: it is written elsewhere."""
        self._places, self.notes = {}, {}

    def __getitem__(self, id: str) -> Json:
        self._file.seek(place := self._places[id])
        if (record := parsed(self._file.readline())).get("id") != id:
            raise FileError(self.path, None, f"the line at byte {place} was damaged meanwhile: run the command again")
        return record

    def damaged(self, id: str, problem: object) -> FileError:
        """The error for a record that is no longer what was added: another program has changed it."""
        remedy = "remove its line, and run the command again"
        return FileError(self.path, None, f"the record {id!r} is damaged ({problem}): {remedy}")

    def __contains__(self, id: object) -> bool:
        return id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Close the file, and remove a temporary one that holds nothing."""
        empty = self._temporary and not self._places and not self.notes
        if empty and LOCKS:  # while it is locked: nobody else uses it
            self.path.unlink(missing_ok=True)
        with suppress(OSError):  # `_append` has raised what could not be written
            self._file.close()
        if empty and not LOCKS:  # Windows removes no open file
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _read(self, fields: Fields, remedy: str, restart: bool) -> Json | None:
        """Find the records and what is newly damaged, the number of each line by its first byte.

        The settings they were made with, None for an empty file or one torn in its first line, and on a restart for
        whatever begins as a journal of this kind.
        """
        first = self._file.readline()
        if not first.endswith(b"\n") and HEAD.startswith(first[: len(HEAD)]):
            return None
        if restart and first.startswith(HEAD) and parsed(first).get("kind", self.kind) == self.kind:
            return None
        settings = head_settings(first, self.kind)
        self._writer = writer(first)
        if settings is None:
            raise FileError(self.path, 1, f"{not_of(first, self.kind)}: move it away, or give another --out")
        remedy = f"remove it, or {remedy}"
        self._places, self.notes, self._damaged, end = scan(self.path, self._file, first, fields, remedy)
        self._damaged.pop(end, None)  # torn
        self._file.truncate(end)
        return settings

    def _append(self, entry: Mapping[str, Any]) -> int:
        """Write a line; the byte where it begins."""
        with named(self.path):
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(with_checksum(json.dumps(entry)).encode("ascii") + b"\n")
            self._file.flush()
        return start


def read_journal(path: Path, kind: str, fields: Fields) -> dict[str, Json]:
    """The records of a finished file by id, whatever their settings. FileError also where a line is damaged."""
    remedy = "run the command that makes it again"
    with path.open("rb") as file:
        if head_settings(first := file.readline(), kind) is None:
            raise FileError(path, 1, not_of(first, kind))
        places, _, damaged, _ = scan(path, file, first, fields, remedy)
        for number in damaged.values():
            raise FileError(path, number, f"damaged or unfinished: {remedy}")
        found = {}
        for id, place in places.items():
            file.seek(place)
            found[id] = parsed(file.readline())
    return found


def scan(
    path: Path, file: BinaryIO, first: bytes, fields: Fields, remedy: str
) -> tuple[dict[str, int], Json, dict[int, int], int]:
    """What follows the first line: the first byte of each record by id, the notes, the damaged lines, and the end.

    The newly damaged ones, and one that is torn, have their numbers by their first bytes. If the first line has a
    checksum, so must all have one: a line without it was changed by another program.
    """
    places: dict[str, int] = {}
    notes: Json = {}
    damaged: dict[int, int] = {}
    end, is_checked, by = len(first), has_checksum(first), writer(first)
    for number, line in enumerate(file, start=2):
        entry = {} if is_checked and not has_checksum(line) else parsed(line)
        if not line.endswith(b"\n"):
            damaged[end] = number
            break
        if "id" not in entry and isinstance(entry.get("note"), dict):
            notes |= entry["note"]
        elif is_record(entry, fields):
            places[entry["id"]] = end
        elif by and isinstance(entry.get("id"), str) and (lacking := ", ".join(sorted(fields.keys() - entry.keys()))):
            raise FileError(path, number, f"written by {by} without {lacking} at byte {end}: {remedy}")
        else:
            damaged[end] = number
        end += len(line)
    return places, notes, {at: number for at, number in damaged.items() if DAMAGED_AT.format(at) not in notes}, end


def not_of(first: bytes, kind: str) -> str:
    """The problem of a file whose first line is not that of a journal of this kind."""
    head = parsed(first)
    if not head and first.startswith(HEAD):
        return "the first line is damaged"
    if "rankr1_journal" not in head and any(name.startswith("rankr1") for name in head):
        return f"not the records of {kind!r}, but written by {EARLIER}"
    version = head.get("rankr1_journal", VERSION)
    return f"not the records of {kind!r}" + (f", but version {version} of this format" if version != VERSION else "")


def is_record(entry: Json, fields: Fields) -> bool:
    """Whether an object has an id and these fields, each of its kind."""
    try:
        for name, kind in {"id": "a string", **fields}.items():
            of_kind(name, entry[name], kind)
    except (KeyError, ValueError):
        return False
    return True


def writer(first: bytes) -> str:
    """The version that wrote the journal with this first line, "" for this version."""
    version = parsed(first).get("version")
    if version == __version__:
        return ""
    return f"rankr1-rag {version}" if version else EARLIER


def head_settings(line: bytes, kind: str | None = None) -> Json | None:
    """The settings in the first line of a journal of this kind, or of any; None where it is none."""
    head = parsed(line)
    fits = head.get("rankr1_journal") == VERSION and kind in (None, head.get("kind"))
    settings = head.get("settings")
    return settings if fits and isinstance(settings, dict) else None


def parsed(line: bytes) -> Json:
    """The JSON object of a line, {} where it is none or damaged."""
    try:
        value = json.loads(without_checksum(line.rstrip(b"\r\n").decode()))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(slots=True)
class GiveUp:
    """Counts the failures in a row that mean that the model is gone; at `limit` the job should stop.

    `BackendUnavailable` counts always, any other `BackendError` only before the first answer: then it is a wrong key or
    model, later it is the fault of one query. A prompt that is too long and an answer that cannot be parsed show that
    the model works. `answered`: an earlier run of the job has had an answer.
    """

    limit: int = 10
    answered: bool = False
    in_a_row: int = 0

    def succeed(self) -> None:
        """Record an answer."""
        self.in_a_row, self.answered = 0, True

    def fail(self, error: Exception) -> None:
        """Record a failure."""
        if isinstance(error, PromptTooLong | UnparsedError):
            self.succeed()
        elif isinstance(error, BackendUnavailable) or (isinstance(error, BackendError) and not self.answered):
            self.in_a_row += 1

    @property
    def is_due(self) -> bool:
        """Whether the job should stop."""
        return self.in_a_row >= self.limit
