"""Qrels as they lie in files: TREC's four columns, or BEIR's three tab-separated ones under a header.

    query-id	corpus-id	score
    13	1606628	1

Knows ids; nothing of texts.
"""

from __future__ import annotations

import re

from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath, located, numbered_lines
from rankr1_rag.trec import Qrels, read_qrels

BEIR = ("query-id", "corpus-id", "score")


def read_judgements(path: FilePath) -> Qrels:
    """The judgements, in file order. FileError on a malformed line or on a passage that is judged twice for a query."""
    lines = numbered_lines(path)
    if tuple(next(lines)[1].split()) != BEIR:
        return read_qrels(path)
    qrels: Qrels = {}
    for number, line in lines:
        query, passage, relevance = located(path, number, _parsed, line)
        judged = qrels.setdefault(query, {})
        if passage in judged:
            raise FileError(path, number, f"passage {passage!r} is judged a second time for query {query!r}")
        judged[passage] = relevance
    if not qrels:
        raise FileError(path, None, "it holds no judgement below its header")
    return qrels


def _parsed(line: str) -> tuple[str, str, int]:
    fields = line.split()
    if len(fields) != len(BEIR):
        raise ValueError(f"a line of BEIR qrels has 3 fields, `{' '.join(BEIR)}`, this one has {len(fields)}")
    if not re.fullmatch(r"[-+]?[0-9]{1,9}", fields[2]):
        raise ValueError(f"score {fields[2]!r:.80} is not a whole number")
    return fields[0], fields[1], int(fields[2])
