"""One JSON-lines file of a stage: a record for each id, appended as it is done, found again by the next run.

    {"rankr1_eval": 1, "stage": "rerank rank-r1", "settings": {"k": 5, …}}
    {"id": "5a8c75…", …}

The first line tells what the records depend on: a run goes on only with the same. A torn last line, of a killed
process, is cut off. Of two records with one id the later counts. Knows nothing of what the records mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rankr1_rag.errors import FileError
from rankr1_rag.locked import locked

Json = dict[str, Any]
VERSION = 1


class Records:
    """The records of one stage by id. FileError where the file is another stage's, of other settings, or damaged.

    A record that lacks one of `fields` is damaged.
    """

    def __init__(self, path: Path, stage: str, settings: Mapping[str, object], fields: Collection[str] = ()) -> None:
        self.path, self.stage, self._fields = path, stage, {"id", *fields}
        self._head = {"rankr1_eval": VERSION, "stage": stage, "settings": json.loads(json.dumps(settings))}
        self._places: dict[str, int] = {}
        self._file = locked(path)
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise

    @property
    def settings(self) -> Json:
        """What the records depend on."""
        return dict(self._head["settings"])

    def add(self, id: str, record: Mapping[str, Any]) -> None:
        """Keep a record: with the operating system when this returns, so it survives a killed process."""
        self._places[id] = self._append({"id": id, **record})

    def __getitem__(self, id: str) -> Json:
        self._file.seek(self._places[id])
        record: Json = json.loads(self._file.readline())
        return record

    def __contains__(self, id: object) -> bool:
        return id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _begin(self) -> None:
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n") and _line(self._head).startswith(first):
            self._file.truncate(0)
            self._append(self._head)
            return
        self._check(_parsed(first))
        start = self._file.tell()
        while (line := self._file.readline()).endswith(b"\n"):
            self._places[self._id(line, start)] = start
            start = self._file.tell()
        self._file.truncate(start)

    def _check(self, head: Json | None) -> None:
        known = head is not None and head.get("rankr1_eval") == VERSION and head.get("stage") == self._head["stage"]
        if head is None or not known or not isinstance(head.get("settings"), dict):
            raise FileError(self.path, 1, f"not the records of {self._head['stage']!r}: give another --out")
        begun, now = head["settings"], self._head["settings"]
        if changed := sorted(name for name in begun.keys() | now.keys() if begun.get(name) != now.get(name)):
            what = ", ".join(f"{name} {begun.get(name)!r:.80} → {now.get(name)!r:.80}" for name in changed)
            raise FileError(
                self.path, None, f"made with other settings ({what}): go on with those, or give another --out"
            )

    def _id(self, line: bytes, start: int) -> str:
        record = _parsed(line)
        if record is None or not isinstance(id := record.get("id"), str) or not self._fields <= record.keys():
            raise FileError(self.path, None, f"damaged at byte {start}: remove the file, it will be made anew")
        return id

    def _append(self, record: Json) -> int:
        try:
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(_line(record))
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return start

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def read(path: Path, stage: str, fields: Collection[str] = ()) -> dict[str, Json]:
    """The records of a file that nobody adds to any more, by id, whatever their settings. FileError as above."""
    with path.open("rb") as file:
        head = _parsed(file.readline())
        if head is None or head.get("rankr1_eval") != VERSION or head.get("stage") != stage:
            raise FileError(path, 1, f"not the records of {stage!r}")
        found: dict[str, Json] = {}
        for number, line in enumerate(file, start=2):
            record = _parsed(line)
            if record is None or not isinstance(id := record.get("id"), str) or not record.keys() >= set(fields):
                raise FileError(path, number, "damaged, or not finished: the command that makes it goes on with it")
            found[id] = record
    return found


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record).encode("ascii") + b"\n"


def _parsed(line: bytes) -> Json | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
