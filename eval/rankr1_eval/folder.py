"""The folder of a run: which file holds which stage, and how its records become values again.

    questions.jsonl     load        the questions asked, with their answers and the ids of their supports
    passages.jsonl      load        the corpus, one passage a line
    candidates.jsonl    retrieve    for each question the ids of its candidates, best first, with their scores
    rerank/ROW.jsonl    rerank      for each question the order of one row, with the trace where a model reasoned
    read/ROW@K.jsonl    read        for each question what the reader said of the first k
    scores.json, report.html, report.md          score; beside them what `exports` writes
    completions.sqlite              what models said: nothing is asked twice

Knows records and values; nothing of models or measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rankr1_eval.records import Json, Records
from rankr1_eval.results import Read
from rankr1_eval.rows import RowSpec
from rankr1_eval.types import Question
from rankr1_rag.errors import FileError
from rankr1_rag.files import writing
from rankr1_rag.jsonlines import ranking_from_json, ranking_to_json, to_line
from rankr1_rag.types import Cost, Passage, Query, Ranking


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

    def orders(self, row: RowSpec, settings: Mapping[str, object]) -> Records:
        """The records of the stage rerank, one row."""
        return self._open(
            self.path / "rerank" / f"{row.file}.jsonl", f"rerank {row.name}", settings, "order", "seconds"
        )

    def reads(self, row: RowSpec, k: int, settings: Mapping[str, object]) -> Records:
        """The records of the stage read, one row at one k."""
        name = f"{row.file}@{k}" if row.ordered else row.file
        return self._open(self.path / "read" / f"{name}.jsonl", f"read {row.name}", settings, "shown", "answer", "text")

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
    """The rankings of a row, read one at a time: all their traces together may be large."""

    def __init__(self, queries: Mapping[str, Query], records: Records, passages: Mapping[str, Passage]) -> None:
        self._queries, self._records, self._passages = queries, records, passages

    def __getitem__(self, id: str) -> Ranking:
        return ranking_of(self._queries[id], self._records[id], self._passages)

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)
