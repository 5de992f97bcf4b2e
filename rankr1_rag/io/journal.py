"""What a job has finished, kept on disk as it goes: an interrupted job goes on where it was.

Beside the output `OUT` stands `OUT.partial` until all is done: one line of JSON a query, in order of completion, each
written whole before the next. The first line tells the settings: a job goes on only with the same ones. Knows nothing
of what the records mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import LOCKS, locked

Json = dict[str, Any]
VERSION = 1
_HEAD = b'{"rankr1_journal": '


class Journal:
    """Records of finished queries by index; `key` tells whether a record is of the same input as now.

    A file without a record is begun anew, whatever its settings, and leaves nothing behind.
    """

    def __init__(self, output: Path, settings: Mapping[str, object], *, restart: bool) -> None:
        self.path = output.with_name(output.name + ".partial")
        self.gave_up_at = -1
        self._found: dict[tuple[int, str], int] = {}  # where the records of earlier runs lie, until they are asked for
        self._places: dict[int, int] = {}  # where those of the queries seen in this run lie
        self._file = locked(self.path)
        try:
            self._begin(json.loads(json.dumps(settings, default=str)), restart)
        except BaseException:
            self._file.close()
            raise

    def done(self, index: int, key: str) -> bool:
        """Whether this query was finished, from this very input; then its record is among `records`."""
        start = self._found.pop((index, key), None)
        if start is not None:
            self._places[index] = start
        return start is not None

    def add(self, index: int, key: str, record: Mapping[str, Any]) -> None:
        """Keep a finished query: with the operating system when this returns, so it survives a killed process."""
        self._places[index] = self._append({"index": index, "key": key, "record": record})

    def give_up(self, index: int) -> None:
        """Keep the place where this run gave up: the next one, asking what comes behind it first, is not stuck."""
        self.gave_up_at = index
        self._append({"gave_up_at": index})

    def records(self) -> Iterator[Json]:
        """The records of this run's queries, in the order of the input."""
        for index in sorted(self._places):
            self._file.seek(self._places[index])
            yield json.loads(self._file.readline())["record"]

    @property
    def left_out(self) -> int:
        """How many records belong to no query seen in this run: another input's."""
        return len(self._found)

    def finish(self) -> None:
        """All is written elsewhere: nothing is to be kept."""
        self._found, self._places, self.gave_up_at = {}, {}, -1

    def __len__(self) -> int:
        return len(self._places) + len(self._found)

    def _begin(self, settings: Json, restart: bool) -> None:
        begun = None if restart else self._settings(self._file.readline())
        if begun is not None:
            self._read()
        if begun is not None and self._found:
            self._check(begun, settings)
        elif begun != settings:
            self.gave_up_at = -1
            self._file.truncate(0)
            self._append({"rankr1_journal": VERSION, "settings": settings})

    def _settings(self, head: bytes) -> Json | None:
        """The settings it was begun with; None where it is empty or its first line is torn."""
        if not head.endswith(b"\n") and _HEAD.startswith(head[: len(_HEAD)]):
            return None
        try:
            begun = json.loads(head)
            if begun["rankr1_journal"] == VERSION:
                return dict(begun["settings"])
        except (ValueError, KeyError, TypeError):
            pass
        raise FileError(self.path, 1, "not a journal of this version: move it away, or begin anew with --restart")

    def _check(self, begun: Json, settings: Json) -> None:
        names = begun.keys() | settings.keys()
        if changed := sorted(name for name in names if begun.get(name) != settings.get(name)):
            what = ", ".join(f"{name} {begun.get(name)!r} → {settings.get(name)!r}" for name in changed)
            raise FileError(
                self.path, None, f"begun with other settings ({what}): go on with those, or begin anew with --restart"
            )

    def _read(self) -> None:
        """Where each record lies. A torn last line, of a killed process, is cut off."""
        start = self._file.tell()
        while (line := self._file.readline()).endswith(b"\n"):
            try:
                entry = json.loads(line)
                if "gave_up_at" in entry:
                    self.gave_up_at = int(entry["gave_up_at"])
                else:
                    self._found[entry["index"], entry["key"]] = start
            except (ValueError, KeyError, TypeError):
                raise FileError(self.path, None, f"damaged at byte {start}: begin anew with --restart") from None
            start = self._file.tell()
        self._file.truncate(start)

    def _append(self, entry: Mapping[str, Any]) -> int:
        """Write a line; where it begins."""
        try:
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(entry).encode("ascii") + b"\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        empty = not len(self) and self.gave_up_at < 0
        if empty and LOCKS:  # while it is locked: nobody else is at work on it
            self.path.unlink(missing_ok=True)
        with suppress(OSError):  # what could not be written was told by `_append`
            self._file.close()
        if empty and not LOCKS:  # Windows removes no open file
            self.path.unlink(missing_ok=True)
