"""Data sets by name, from a local file or the hub, as questions; a seeded choice among them, and their corpus.

A local file is a JSON list or JSON lines, gzipped where its name ends in `.gz`, or parquet. An official list is one
long line, so errors name an element and a byte. The choice depends on the seed and each question's id alone, whatever
the order of the file; a larger sample contains the smaller ones of its seed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from rankr1_eval.data.fields import Dataset, Hub, Json, official
from rankr1_eval.data.questions import HOTPOTQA, HOTPOTQA_FULLWIKI, MUSIQUE, TWOWIKI
from rankr1_eval.types import Question, passage_of, pooled
from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import parse_object
from rankr1_rag.io.files import LONGEST_LINE, FilePath, numbered_lines
from rankr1_rag.types import Passage

DATASETS: dict[str, Dataset] = {each.name: each for each in (HOTPOTQA, HOTPOTQA_FULLWIKI, TWOWIKI, MUSIQUE)}
INSTALL = 'pip install "rankr1-eval[hub]"'
LARGEST_VALUE = 1 << 30
"""Bytes of a file that is one JSON value."""
ROWS = 1_000
"""Rows of parquet that are in memory at once: a value that many rows share is repeated for each."""
CUT = "the file is cut short, fetch it again"
_SPACE = re.compile(r"[ \t\n\r]*")


def load(
    dataset: str, path: FilePath | None = None, *, split: str = "validation", supports: bool = True
) -> list[Question]:
    """The questions of a data set, in file order: of a local file, or of that split from the hub where `path` is None.

    Without `supports` a question may lack them, as in a file that only answers are scored with. ValueError for an
    unknown name; FileError for bad content.
    """
    if dataset not in DATASETS:
        raise ValueError(f"data set {dataset!r} is unknown: must be one of {', '.join(DATASETS)}")
    known = DATASETS[dataset]
    if path is None:
        return questions(known, ((None, row) for row in opened(known.hub, split)), known.hub.id, supports)
    return questions(known, records(path), path, supports)


def questions(
    dataset: Dataset, records: Iterable[tuple[int | None, Json]], source: FilePath, supports: bool = True
) -> list[Question]:
    """The questions of (line, record) pairs from that source.

    A support that is a mere title (`titled`) becomes another question's paragraph of that title, if there is one.
    """
    found: dict[str, Question] = {}
    for number, (line, own) in enumerate(records, start=1):
        try:
            record = official(own)
            others = [one for one in DATASETS.values() if not one.marks.isdisjoint(record)]
            if dataset.marks.isdisjoint(record) and others:
                name = others[0].name
                raise ValueError(f"this looks like {name}, not {dataset.name}: give --dataset {name}")
            needed = [("question",), ("_id", "id"), *([("context", "paragraphs")] if supports else [])]
            if any(record.keys().isdisjoint(names) for names in needed):
                there = ", ".join(f'"{name}"' for name in record if name in own or name != "answer") or "none"
                accepted = ", ".join(" or ".join(names) for names in [("answer", "golden_answers"), *needed])
                problem = f"the fields are {there:.200}; needed are {accepted}"
                raise ValueError(f"this is no record of {dataset.name}: {problem}")
            question = dataset.read(record, supports)
            if question.query.id in found:
                raise ValueError("duplicate id: each question needs its own")
        except ValueError as error:
            id = own.get("_id", own.get("id"))
            name = f" ({id!r:.60})" if isinstance(id, str | int) else ""
            raise FileError(source, line, f"question {number}{name}: {error}") from error
        found[question.query.id] = question
    if not found:
        raise FileError(source, None, "no question in it")
    every = list(found.values())
    if all({passage.id for passage in one.passages}.issuperset(one.supports) for one in every):
        return every
    named = {passage_of(passage.title, "").id: passage.id for one in every for passage in one.passages}
    return [replace(one, supports=tuple(dict.fromkeys(named.get(id, id) for id in one.supports))) for one in every]


def opened(hub: Hub, split: str) -> Any:  # noqa: ANN401
    """The split as a `datasets.Dataset`, fetched once and kept in the cache of `datasets`.

    ImportError without the extra, ValueError for a split that is not there, ConnectionError where the fetch fails.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(f"reading {hub.id} from the hub needs datasets: {INSTALL}, or give a local file") from error
    if hub.files and split not in hub.files:
        raise ValueError(f"split {split!r}: {hub.id} has {', '.join(hub.files)}")
    with fetching(hub.id):
        if not hub.files:
            return load_dataset(hub.id, hub.config, split=split)
        return load_dataset("parquet", data_files={split: hub.files[split]}, split=split)


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Turn the errors of a failed fetch into a ConnectionError; a ValueError stays."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # of the library that met the network, which is another one from version to version
        raise ConnectionError(
            f"{what} could not be fetched ({error!s:.300}): try again, or give local files"
        ) from error


def records(path: FilePath, numbered: Iterable[tuple[int, str]] | None = None) -> Iterator[tuple[int | None, Json]]:
    """Each record of a JSON list, JSON lines or a parquet file with its line, which is None in a list that is one line.

    FileError where the file is none of these, broken, cut short or empty.
    """
    if Path(path).suffix == ".parquet":
        yield from ((None, row) for row in parquet_rows(path))
        return
    lines = iter(numbered_lines(path, most_bytes(path)) if numbered is None else numbered)
    number, first = next(lines)
    begin = first.lstrip()[:1]
    every = chain([(number, first)], lines)
    if begin == "[":
        yield from list_elements(path, joined(path, every))
    elif begin == "{":
        for number, line in every:
            try:
                record = parse_object(line)
            except ValueError as error:
                last = f"; this is the last line: {CUT}" if next(lines, None) is None else ""
                raise FileError(path, number, f"{error}{last}") from error
            yield number, record
    else:
        page = ": a web page? Fetch the file itself" if begin == "<" else ""
        raise FileError(path, number, f"neither a JSON list nor JSON lines, it begins with {first[:60]!r}{page}")


def parquet_rows(path: FilePath) -> Iterator[Json]:
    """The rows of a parquet file. ImportError without the extra, FileError where it is damaged."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: {INSTALL}, or give JSON lines") from error
    with open(path, "rb") as file:
        try:
            table = parquet.ParquetFile(file)
            groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
            if any(group.total_byte_size > LONGEST_LINE * max(1, group.num_rows) for group in groups):
                raise FileError(
                    path, None, f"rows of more than {LONGEST_LINE:,} bytes, the most that is read: split them"
                )
            for batch in table.iter_batches(ROWS):
                yield from batch.to_pylist()
        except (ArrowException, MemoryError, OSError) as error:
            raise FileError(path, None, f"not parquet, or damaged: fetch it again ({error!s:.200})") from error


def whole(path: FilePath) -> Any:  # noqa: ANN401
    """The one JSON value in the file. FileError where there is none."""
    text = joined(path, numbered_lines(path, most_bytes(path)))
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise broken(path, text, 0, "the file", error) from error


def most_bytes(path: FilePath) -> int:
    """The most bytes that are read of a file as one JSON value: 20 times the file, which no text is compressed to.

    The official lists have up to 0.7 GB.
    """
    place = Path(path)
    return min(LARGEST_VALUE, max(LONGEST_LINE, 20 * place.stat().st_size)) if place.is_file() else LARGEST_VALUE


def joined(path: FilePath, lines: Iterable[tuple[int, str]]) -> str:
    """The text again, blank lines included, so that its lines keep their numbers. FileError where it is too long."""
    text, before, left = StringIO(), 1, most_bytes(path)
    for number, line in lines:
        left -= number - before + len(line)
        if left < 0:
            raise FileError(path, number, f"the JSON value has more than {most_bytes(path):,} bytes: give JSON lines")
        text.write("\n" * (number - before) + line)
        before = number
    return text.getvalue()


def list_elements(path: FilePath, text: str) -> Iterator[tuple[int | None, Json]]:
    """The objects of a JSON list, each with its line where the list has several."""

    def skip(place: int) -> int:
        found = _SPACE.match(text, place)
        return found.end() if found else place

    decoder = json.JSONDecoder(parse_constant=refuse)
    many = "\n" in text.strip()
    place = skip(text.index("[") + 1)
    number, line, counted = 0, 1, 0
    closed = text.startswith("]", place)
    while not closed:
        number, line, counted = number + 1, line + text.count("\n", counted, place), place
        try:
            element, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise broken(path, text, place, f"element {number}", error) from error
        if not isinstance(element, dict):
            raise FileError(path, line if many else None, f"element {number} is {element!r:.60}, not an object")
        yield line if many else None, element
        place = skip(end)
        closed = text.startswith("]", place)
        if not closed and not text.startswith(",", place):
            raise broken(path, text, place, f"the list behind element {number}", "',' or ']' is missing")
        place = skip(place + 1)
    if number == 0:
        place = skip(place + 1)
    if place < len(text):
        raise broken(path, text, place, "the list", "something follows its end")


def broken(path: FilePath, text: str, place: int, what: str, problem: Exception | str) -> FileError:
    """The error, with the byte where reading ended, of the line where there are several."""
    if isinstance(problem, json.JSONDecodeError):
        place, problem = problem.pos, problem.msg.removesuffix(" at")
    ended = text.rstrip()
    cut = ended[-1:] not in ("]", "}") or place >= len(ended) or str(problem).startswith("Unterminated string")
    if isinstance(problem, RecursionError):
        problem = "JSON nested too deeply to be read"
    start = text.rfind("\n", 0, place) + 1
    byte = len(text[start:place].encode("utf-8", "surrogatepass"))
    line = text.count("\n", 0, place) + 1 if "\n" in ended else None
    return FileError(path, line, f"{what} is broken at byte {byte}: {CUT if cut else problem}")


def refuse(constant: str) -> NoReturn:
    """Raise a ValueError for NaN and Infinity."""
    raise ValueError(f"{constant} is not JSON")


def sample(questions: Sequence[Question], n: int | None, seed: int) -> list[Question]:
    """N of the questions, in file order; all where `n` is None or more than there are. ValueError below 1."""
    if n is not None and n < 1:
        raise ValueError(f"questions={n}: must be at least 1, or None for all")
    if n is None or n >= len(questions):
        return list(questions)
    chosen = drawn((question.query.id for question in questions), n, seed)
    return [question for question in questions if question.query.id in chosen]


def corpus(
    questions: Sequence[Question], asked: Iterable[Question], pool: int | None, seed: int
) -> tuple[Passage, ...]:
    """The pooled paragraphs, in file order, of `pool` questions: those asked and a seeded sample of the others.

    None takes all questions. ValueError where `pool` is less than the number asked.
    """
    if pool is None:
        return pooled(questions)
    ids = {question.query.id for question in asked}
    if pool < len(ids):
        raise ValueError(f"pool={pool}: must be at least the {len(ids)} questions that are asked")
    others = (question.query.id for question in questions if question.query.id not in ids)
    ids |= drawn(others, pool - len(ids), seed)
    return pooled(question for question in questions if question.query.id in ids)


def drawn(ids: Iterable[str], n: int, seed: int) -> set[str]:
    """N of the ids, all where there are no more."""
    return set(sorted(ids, key=lambda id: sha256(f"{seed}\n{id}".encode("utf-8", "surrogatepass")).digest())[:n])
