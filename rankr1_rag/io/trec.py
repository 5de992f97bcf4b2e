"""Runs and qrels in the TREC text formats, read and written; BEIR's qrels are read, too.

A run line is `qid Q0 docid rank score tag`, a qrels line `qid 0 docid rel`, or `query-id corpus-id score` as in BEIR:

    264014 Q0 5611210 1 15.780600 bm25
    264014 0 4834547 3

Fields are separated by any whitespace; ids that contain some are read where tabs separate the fields, or where it is
not ASCII. As in trec_eval a run is ordered by score, read as float32, and the rank is ignored. Lines that begin with #
are comments.
"""

from __future__ import annotations

import logging
import math
import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from typing import NamedTuple, TextIO

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import FilePath, located, numbered_lines, writing
from rankr1_rag.scoring import Trend
from rankr1_rag.types import Ranking

_NOT_IN_A_WORD = re.compile(r"[\s\0\ufeff\ud800-\udfff]")
RUN = re.compile(rb"\A\S+ Q0 \S+ \d+ \S+ \S+\n")
QRELS = re.compile(rb"\A\S+ 0 \S+ -?\d+\n")
"""The beginning of a file as it is written here."""
_HEADER = re.compile(r"\S*(query|q_?id|topic)\S*\s.*[a-z]\"?\s*$", re.IGNORECASE)
log = logging.getLogger("rankr1_rag")
REMEDY = ("if they are distances, use distances=True (--distances)", "leave out distances=True (--distances)")
"""Of scores that contradict their order, without and with the option."""


class Scored(NamedTuple):
    """A passage id with its score in a run."""

    id: str
    score: float


Run = dict[str, list[Scored]]
"""For each query id its passages, best first."""

Qrels = dict[str, dict[str, int]]
"""For each query id its judgements: passage id to relevance."""


def as_word(id: object) -> str:
    """The id as one word, which TREC files need: white space becomes "_", as in the runs of the Rank-R1 paper."""
    return _NOT_IN_A_WORD.sub("_", str(id))


@cache
def warn_once(problem: str) -> None:
    """Log a warning once: a file may be read twice, to check it before anything is requested."""
    log.warning("%s", problem)


def warn_repeated(path: FilePath, repeated: Sequence[tuple[int, str]]) -> None:
    """One warning for all (line, name) that a file has had before."""
    if repeated:
        (number, name), others = repeated[0], f", and {len(repeated) - 1} more" if len(repeated) > 1 else ""
        warn_once(f"{path}:{number}: duplicate {name}{others}: the first is kept")


def read_run(path: FilePath, depth: int | None = None, *, distances: bool = False) -> Run:
    """The run, queries in file order, each with its best `depth` passages by score; the rank column is ignored.

    Equal scores keep the order of the file, which is the retriever's own (trec_eval puts the greater id first). With
    `distances` the least score is the best, and all come out negated. A warning is logged if the scores contradict the
    ranks, and if a query has a passage twice: the first is kept. FileError on a malformed line or a score that is not a
    finite number.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth={depth}: at least 1, or None for all")
    scores: dict[str, dict[str, float]] = {}
    trends: dict[str, Trend] = {}
    repeated = []
    for number, line in _lines(path, 6):
        query, passage, rank, score = located(path, number, _parsed_run_line, line)
        ranked = scores.setdefault(query, {})
        if passage in ranked:
            repeated.append((number, f"passage {passage!r} in the ranking of query {query!r}"))
            continue
        ranked[passage] = -score if distances else score
        if query not in trends:
            trends[query] = Trend()
        trends[query].add(-score if distances else score, rank)
    warn_repeated(path, repeated)
    wrong = {query: problem for query, one in trends.items() if (problem := one.contradiction(distances))}
    if wrong:
        query, others = next(iter(wrong)), f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        taken = "the least counts as the best" if distances else "the greatest counts as the best"
        log.warning("%s: query %r%s: %s; %s: %s", path, query, others, wrong[query], taken, REMEDY[distances])
    run: Run = {}
    for query in list(scores):
        ranked = scores.pop(query)  # sorting is stable: ties keep the order of the file
        run[query] = [Scored(*item) for item in sorted(ranked.items(), key=lambda item: -item[1])[:depth]]
    return run


def write_run(
    target: FilePath | TextIO, rankings: Iterable[tuple[str, Iterable[tuple[str, float]]]], tag: str = "rankr1"
) -> None:
    """Write (query id, [(passage id, score), …] best first) pairs, as of `read_run(…).items()`.

    A path is written whole or not at all, and replaces only a run. ValueError where trec_eval would read something
    else: ids or a tag that are not one word, a query or a passage twice, scores that are not finite or, as float32, do
    not fall strictly; and for a run without a line.
    """
    _check_word("tag", tag)
    seen: set[str] = set()
    written = 0
    with writing(target, RUN) if isinstance(target, FilePath) else nullcontext(target) as out:
        for query, scored in rankings:
            if query in seen:
                raise ValueError(f"query {query!r} is ranked twice: a run ranks a query once")
            seen.add(query)
            written += out.write(_run_lines(query, [Scored(id, float(score)) for id, score in scored], tag))
        if not written:
            raise ValueError(f"nothing to write: {len(seen)} rankings without a passage are not a run")


def run_entry(ranking: Ranking) -> tuple[str, list[Scored]]:
    """A ranking as `write_run` takes it: `write_run(path, map(run_entry, rankings))`."""
    ids = (passage.id for passage in ranking.passages)
    return ranking.query.id, [Scored(id, score) for id, score in zip(ids, ranking.scores, strict=True)]


def read_qrels(path: FilePath) -> Qrels:
    """The judgements, in file order; the first line decides between TREC's four columns and BEIR's three.

    A judgement must be a whole number, 1.0 is one. Of several judgements of a passage the first is kept, with a
    warning. FileError on a malformed line.
    """
    qrels: Qrels = {}
    width, repeated = 0, []
    for number, line in _lines(path, 4):
        fields = _columns(line, width or 3)
        if not width:
            width = 3 if len(fields) == 3 and ("\t" in line or _HEADER.match(line)) else 4
            if _HEADER.match(line):
                continue
            fields = _columns(line, width)
        query, passage, relevance = located(path, number, _parsed_qrels_line, fields, width)
        judged = qrels.setdefault(query, {})
        if passage in judged:
            repeated.append((number, f"judgement of passage {passage!r} for query {query!r}"))
        judged.setdefault(passage, relevance)
    if not qrels:
        raise FileError(path, None, "no judgement below its header")
    warn_repeated(path, repeated)
    return qrels


def write_qrels(target: FilePath | TextIO, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write the judgements; a path is written whole or not at all, and replaces only qrels.

    ValueError on unfit ids, or nothing to write.
    """
    lines = []
    for query, judged in qrels.items():
        _check_word("query id", query)
        for passage, relevance in judged.items():
            _check_word(f"query {query!r}: passage id", passage)
            lines.append(f"{query} 0 {passage} {relevance:d}\n")
    if not lines:
        raise ValueError("nothing to write: qrels without a judgement")
    with writing(target, QRELS) if isinstance(target, FilePath) else nullcontext(target) as out:
        out.writelines(lines)


def _lines(path: FilePath, width: int) -> Iterator[tuple[int, str]]:
    """The lines that are no comments. FileError if there is none."""
    empty = True
    for number, line in numbered_lines(path):
        fields = line.split()
        if not line.startswith("#") or (len(fields) == width and fields[1] in ("0", "Q0", "q0")):  # an id may begin so
            empty = False
            yield number, line
    if empty:
        raise FileError(path, None, "nothing but comments")


def _columns(line: str, width: int) -> list[str]:
    """The fields of a line; tabs may separate ids that contain spaces, which become words."""
    fields = [as_word(field.strip()) for field in line.split("\t")]
    if len(fields) == width and all(fields):
        return fields
    fields = line.split()
    if len(fields) > width:  # an id may contain white space that is not ASCII
        fields = [as_word(field.decode()) for field in line.encode().split()]
    return fields


def _parsed_run_line(line: str) -> tuple[str, str, int | None, float]:
    fields = _columns(line, 6)
    if len(fields) != 6:
        hint = "; with 4 it looks like qrels" if len(fields) == 4 else "; tabs may part ids with spaces"
        raise ValueError(f"a run line has 6 fields, `qid Q0 docid rank score tag`, this one has {len(fields)}{hint}")
    try:
        score = math.nan if "_" in fields[4] else float(fields[4])  # Python reads 1_5 as 15, nobody else does
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"score {fields[4]!r:.80} is not a finite number")
    rank = int(fields[3]) if re.fullmatch(r"[0-9]{1,9}", fields[3]) else None
    return sys.intern(fields[0]), sys.intern(fields[2]), rank, score


def _parsed_qrels_line(fields: Sequence[str], width: int) -> tuple[str, str, int]:
    if len(fields) != width:
        needed = "3 fields, `query-id corpus-id score`" if width == 3 else "4 fields, `qid 0 docid rel`"
        others = "" if width == 3 else ", or 3 under the header `query-id corpus-id score`"
        hint = "; with 6 it looks like a run" if len(fields) == 6 else ""
        raise ValueError(f"a qrels line has {needed}{others}, this one has {len(fields)}{hint}")
    if not re.fullmatch(r"[-+]?[0-9]{1,9}(\.0*)?", fields[-1]):
        raise ValueError(f"relevance {fields[-1]!r:.80} is not a whole number")
    return sys.intern(fields[0]), sys.intern(fields[-2]), int(float(fields[-1]))


def _check_word(what: str, word: str) -> None:
    """A field must come back as it was: one word, without NUL, byte order mark or lone surrogate."""
    if not word or _NOT_IN_A_WORD.search(word):
        raise ValueError(f"{what} {word!r} is not one word; TREC fields are whitespace-separated")


def _run_lines(query: str, scored: Sequence[Scored], tag: str) -> str:
    _check_word("query id", query)
    seen: set[str] = set()
    above = math.inf
    for rank, (id, score) in enumerate(scored, start=1):
        _check_word(f"query {query!r}: passage id", id)
        if id in seen:
            raise ValueError(f"query {query!r}: passage id {id!r} is ranked twice: a run names a passage once")
        seen.add(id)
        try:
            single = float(struct.unpack("f", struct.pack("f", score))[0])
        except OverflowError:
            single = math.inf
        if not math.isfinite(single):
            raise ValueError(f"query {query!r}: score {score!r} of passage {id!r} is not a finite float32 number")
        if single >= above:
            before = scored[rank - 2].score
            found = f"score {score!r} of passage {id!r} at rank {rank} is not below the {before!r} before it"
            raise ValueError(f"query {query!r}: {found}, as float32: trec_eval would not keep this order")
        above = single
    return "".join(f"{query} Q0 {id} {rank} {score!r} {tag}\n" for rank, (id, score) in enumerate(scored, start=1))
