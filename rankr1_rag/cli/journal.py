"""What a job has finished, kept on disk as it goes: an interrupted job goes on where it was.

Beside the output `OUT` stands `OUT.partial` until all is done: one line of JSON a query, in order of completion, each
written whole before the next. The first line tells the settings: a job goes on only with the same ones. Knows nothing
of what the records mean.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rankr1_rag.errors import FileError

Json = dict[str, Any]
VERSION = 1


class Journal:
    """Records of finished queries by index; `key` tells whether a record is of the same input as now."""

    def __init__(self, output: Path, settings: Mapping[str, object], *, restart: bool) -> None:
        self.path = output.with_name(output.name + ".partial")
        self._settings = json.loads(json.dumps(settings, default=str))
        self._places: dict[int, tuple[int, str]] = {}
        if restart:
            self.path.unlink(missing_ok=True)
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        self._lock()
        self._begin()

    def done(self, index: int, key: str) -> bool:
        """Whether this query was finished, from this very input."""
        return self._places.get(index, (0, ""))[1] == key

    def add(self, index: int, key: str, record: Mapping[str, Any]) -> None:
        """Keep a finished query: on disk when this returns."""
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps({"index": index, "key": key, "record": record}).encode("ascii") + b"\n")
        self._file.flush()
        self._places[index] = (start, key)

    def records(self) -> Iterator[Json]:
        """The records in the order of the input."""
        for index in sorted(self._places):
            self._file.seek(self._places[index][0])
            yield json.loads(self._file.readline())["record"]

    def finish(self) -> None:
        """All is written elsewhere: remove the journal."""
        self.path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._places)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise FileError(self.path, None, "another process is at work on this output: wait for it") from None

    def _begin(self) -> None:
        head = self._file.readline()
        if not head.endswith(b"\n"):
            self._file.seek(0)
            self._file.truncate()
            self._file.write(
                json.dumps({"rankr1_journal": VERSION, "settings": self._settings}).encode("ascii") + b"\n"
            )
            self._file.flush()
            return
        self._check(head)
        self._read()

    def _check(self, head: bytes) -> None:
        try:
            begun = json.loads(head)
            known, settings = begun["rankr1_journal"] == VERSION, begun["settings"]
        except (ValueError, KeyError, TypeError):
            known, settings = False, {}
        if not known:
            raise FileError(self.path, 1, "not a journal of this version: move it away, or begin anew with --restart")
        names = settings.keys() | self._settings.keys()
        if changed := sorted(name for name in names if settings.get(name) != self._settings.get(name)):
            what = ", ".join(f"{name} {settings.get(name)!r} → {self._settings.get(name)!r}" for name in changed)
            raise FileError(
                self.path, None, f"begun with other settings ({what}): go on with those, or begin anew with --restart"
            )

    def _read(self) -> None:
        """Where each record lies. A torn last line, of a killed process, is cut off."""
        start = self._file.tell()
        while (line := self._file.readline()).endswith(b"\n"):
            try:
                record = json.loads(line)
                self._places[record["index"]] = (start, record["key"])
            except (ValueError, KeyError, TypeError):
                raise FileError(self.path, None, f"damaged at byte {start}: begin anew with --restart") from None
            start = self._file.tell()
        self._file.truncate(start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()
