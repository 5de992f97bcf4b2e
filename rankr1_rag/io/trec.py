"""Runs and qrels in the TREC text formats, read and written.

A run line is `qid Q0 docid rank score tag`, a qrels line `qid 0 docid rel`, fields separated by any whitespace:

    264014 Q0 5611210 1 15.780600 bm25
    264014 0 4834547 3

As in trec_eval a run is ordered by score, read as float32, and the rank is ignored.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, TextIO

from rankr1_rag.errors import FileError
from rankr1_rag.io.files import FilePath, located, numbered_lines, writing
from rankr1_rag.types import Ranking

_NOT_IN_A_WORD = re.compile(r"[\s\0\ufeff\ud800-\udfff]")
_BEIR_HINT = "; BEIR qrels (query-id, corpus-id, score)? Convert them: awk 'NR > 1 {print $1, 0, $2, $3}'"


class Scored(NamedTuple):
    """A passage id with its score in a run."""

    id: str
    score: float


Run = dict[str, list[Scored]]
"""For each query id its passages, best first."""

Qrels = dict[str, dict[str, int]]
"""For each query id its judgements: passage id to relevance."""


def read_run(path: FilePath, depth: int | None = None) -> Run:
    """The run, queries in file order, each with its best `depth` passages by score; the rank column is ignored.

    Equal scores keep the order of the file, which is the retriever's own (trec_eval puts the greater id first).
    FileError on a malformed line, a score that is not a finite number, or a passage that a query has twice.
    """
    if depth is not None and depth < 1:
        raise ValueError(f"depth={depth}: at least 1, or None for all")
    scores: dict[str, dict[str, float]] = {}
    for number, line in numbered_lines(path):
        query, passage, score = located(path, number, _parsed_run_line, line)
        ranked = scores.setdefault(query, {})
        if passage in ranked:
            raise FileError(path, number, f"duplicate passage {passage!r} in the ranking of query {query!r}")
        ranked[passage] = score
    run: Run = {}
    for query in list(scores):
        ranked = scores.pop(query)  # sorting is stable: ties keep the order of the file
        run[query] = [Scored(*item) for item in sorted(ranked.items(), key=lambda item: -item[1])[:depth]]
    return run


def write_run(
    target: FilePath | TextIO, rankings: Iterable[tuple[str, Iterable[tuple[str, float]]]], tag: str = "rankr1"
) -> None:
    """Write (query id, [(passage id, score), …] best first) pairs, as of `read_run(…).items()`.

    A path is written whole or not at all. ValueError where trec_eval would read something else: ids or a tag that are
    not one word, a query or a passage twice, scores that are not finite or, as float32, do not fall strictly; and for a
    run without a line.
    """
    _check_word("tag", tag)
    seen: set[str] = set()
    written = 0
    with writing(target) if isinstance(target, FilePath) else nullcontext(target) as out:
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
    """The judgements, in file order. FileError on a malformed line or on a passage that is judged twice for a query."""
    qrels: Qrels = {}
    for number, line in numbered_lines(path):
        query, passage, relevance = located(path, number, _parsed_qrels_line, line)
        judged = qrels.setdefault(query, {})
        if passage in judged:
            raise FileError(path, number, f"passage {passage!r} is judged a second time for query {query!r}")
        judged[passage] = relevance
    return qrels


def write_qrels(target: FilePath | TextIO, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write the judgements; a path is written whole or not at all. ValueError on unfit ids, or nothing to write."""
    lines = []
    for query, judged in qrels.items():
        _check_word("query id", query)
        for passage, relevance in judged.items():
            _check_word(f"query {query!r}: passage id", passage)
            lines.append(f"{query} 0 {passage} {relevance:d}\n")
    if not lines:
        raise ValueError("nothing to write: qrels without a judgement")
    with writing(target) if isinstance(target, FilePath) else nullcontext(target) as out:
        out.writelines(lines)


def _parsed_run_line(line: str) -> tuple[str, str, float]:
    fields = line.split()
    if len(fields) != 6:
        hint = "; with 4 it looks like qrels" if len(fields) == 4 else ""
        raise ValueError(f"a run line has 6 fields, `qid Q0 docid rank score tag`, this one has {len(fields)}{hint}")
    try:
        score = math.nan if "_" in fields[4] else float(fields[4])  # Python reads 1_5 as 15, nobody else does
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"score {fields[4]!r:.80} is not a finite number")
    return sys.intern(fields[0]), sys.intern(fields[2]), score


def _parsed_qrels_line(line: str) -> tuple[str, str, int]:
    fields = line.split()
    if len(fields) != 4:
        hint = {3: _BEIR_HINT, 6: "; with 6 it looks like a run"}.get(len(fields), "")
        raise ValueError(f"a qrels line has 4 fields, `qid 0 docid rel`, this one has {len(fields)}{hint}")
    if not re.fullmatch(r"[-+]?[0-9]{1,9}", fields[3]):
        raise ValueError(f"relevance {fields[3]!r:.80} is not a whole number")
    return sys.intern(fields[0]), sys.intern(fields[2]), int(fields[3])


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
