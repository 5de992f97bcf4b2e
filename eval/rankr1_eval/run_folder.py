"""The folder of a run: which file holds which stage, and how its records become values again.

    questions.jsonl     load        the questions asked, with their answers and the ids of their supports
    passages.jsonl      load        the corpus, one passage a line
    candidates.jsonl    retrieve    for each question the ids of its candidates, best first, with their scores
    rerank/SYSTEM.jsonl    rerank      for each question the order of one system, with the trace where a model reasoned
    read/SYSTEM@K.jsonl    read        for each question what the reader said of the first k
    scores.json, report.html, report.md          score; beside them what `exports` writes
    completions.sqlite              what models said: nothing is asked twice

Knows records and values; nothing of models or measures.

One JSON-lines file of a stage: a record for each id, appended as it is done, found again by the next run.

    {"rankr1_eval": 1, "stage": "rerank rank-r1", "settings": {"k": 5, …}}
    {"id": "5a8c75…", …}

The first line tells what the records depend on: a run goes on only with the same. A torn last line, of a killed
process, is cut off. Of two records with one id the later counts. Knows nothing of what the records mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rankr1_eval.scoring import Read
from rankr1_eval.systems import System
from rankr1_eval.types import Question
from rankr1_rag.errors import FileError
from rankr1_rag.io.files import locked, writing
from rankr1_rag.io.jsonl import ranking_from_json, ranking_to_json, to_line
from rankr1_rag.types import Cost, Passage, Query, Ranking

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


@dataclass(frozen=True)
class Folder:
    """A run's folder, made where it is missing; its records are open, and nobody else's, until it is left."""

    path: Path
    _opened: ExitStack = field(default_factory=ExitStack)
    _all: list[Records] = field(default_factory=list)

    def __post_init__(self) -> None:
        made(self.path)
        if not (self.path / "questions.jsonl").exists():
            for name in ("passages.jsonl", "scores.json", "report.html", "report.md", "supports.qrels"):
                if (self.path / name).exists():
                    raise FileError(self.path / name, None, "stands here and is not of a run: give another --out")
        made(self.path / "rerank")
        made(self.path / "read")

    @property
    def store(self) -> Path:
        """Where completions are kept."""
        return self.path / "completions.sqlite"

    def questions(self, settings: Mapping[str, object]) -> Records:
        """The records of the stage load."""
        return self._open(self.path / "questions.jsonl", "load", settings, "question")

    def held(self) -> int:
        """How many questions it holds."""
        return sum(len(records) for records in self._all if records.stage == "load")

    def candidates(self, settings: Mapping[str, object]) -> Records:
        """The records of the stage retrieve."""
        return self._open(self.path / "candidates.jsonl", "retrieve", settings, "candidates")

    def orders(self, system: System, settings: Mapping[str, object]) -> Records:
        """The records of the stage rerank, one system."""
        return self._open(
            self.path / "rerank" / f"{system.file}.jsonl", f"rerank {system.name}", settings, "order", "seconds"
        )

    def reads(self, system: System, k: int, settings: Mapping[str, object]) -> Records:
        """The records of the stage read, one system at one k."""
        name = f"{system.file}@{k}" if system.ordered else system.file
        return self._open(
            self.path / "read" / f"{name}.jsonl", f"read {system.name}", settings, "shown", "answer", "text"
        )

    def _open(self, path: Path, stage: str, settings: Mapping[str, object], *fields: str) -> Records:
        records = self._opened.enter_context(Records(path, stage, settings, fields))
        self._all.append(records)
        return records

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._opened.close()

    def write_passages(self, corpus: Iterable[Passage]) -> None:
        """The corpus, for whoever wants to retrieve from it with something of their own."""
        with writing(self.path / "passages.jsonl") as out:
            out.writelines(to_line(asdict(passage)) for passage in corpus)


def made(path: Path) -> None:
    """Make a folder for results where there is none. FileError where something else stands there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FileError(path, None, "is, or is in, a file: --out is a folder for the results, give another") from None


def digest(*parts: object) -> str:
    """A short digest of settings or ids."""
    return sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def question_record(question: Question) -> Json:
    """A question as a record; its passages by id."""
    return {
        "question": question.query.text,
        "answers": list(question.answers),
        "supports": list(question.supports),
        "passages": [passage.id for passage in question.passages],
        "type": question.type,
        "hops": question.hops,
    }


def reranked_record(ranking: Ranking, seconds: float) -> Json:
    """A ranking as a record: the order by id, and what the core's JSON keeps under its one key."""
    return {
        "order": [passage.id for passage in ranking.passages],
        "scores": list(ranking.scores),
        "rankr1": ranking_to_json(ranking)["rankr1"],
        "seconds": seconds,
    }


def ranking_of(query: Query, record: Json, passages: Mapping[str, Passage]) -> Ranking:
    """The ranking that the record was made from."""
    ranked = [
        {**asdict(passages[id]), "score": score} for id, score in zip(record["order"], record["scores"], strict=True)
    ]
    return ranking_from_json({"query": asdict(query), "passages": ranked, "rankr1": record["rankr1"]})


def cost_of(record: Json) -> Cost:
    """What an order cost, `seconds` being wall time of the stage."""
    own: dict[str, Any] = record.get("rankr1", {}).get("cost", {})
    return Cost(**{**own, "seconds": record["seconds"]})


def retrieved_of(record: Json) -> int:
    """How many of the passages in an order were no candidates of the first stage."""
    return int(record["rankr1"].get("retrieved", 0))


def read_of(record: Json) -> Read:
    """What the reader said."""
    return Read(**{name: value for name, value in record.items() if name not in ("id", "shown")})


class Rankings(Mapping[str, Ranking]):
    """The rankings of a system, read one at a time: all their traces together may be large."""

    def __init__(self, queries: Mapping[str, Query], records: Records, passages: Mapping[str, Passage]) -> None:
        self._queries, self._records, self._passages = queries, records, passages

    def __getitem__(self, id: str) -> Ranking:
        return ranking_of(self._queries[id], self._records[id], self._passages)

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)
