"""A file of BIRCO (Wang et al., 2024, https://github.com/BIRCO-benchmark/BIRCO): one JSON object, gzipped or not.

    {"query": {"q_1": "I need …"}, "corpus": {"c_7": "This paper …"}, "qrel": {"q_1": {"c_7": 0.5, …}}}

A query's candidates are what it has judgements of, those of 0 included. Some judgements are fractions of a number that
differs from query to query; qrels hold whole numbers, so they are brought to the smallest common denominator of their
query: gains stay in proportion, so that nDCG is the same, but every part of relevance counts as relevant for recall.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from math import isfinite, lcm
from pathlib import Path

from rankr1_eval.data.local import whole
from rankr1_eval.types import Judged
from rankr1_rag.collection import member, of_kind, within
from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath
from rankr1_rag.types import Passage

MOST_PARTS = 1000


def read(path: FilePath) -> Judged:
    """The collection of that file, named after it. FileError where it is not of that shape."""
    try:
        found = of_kind("the file", whole(path), "an object")
        queries, corpus, judgements = (member(found, name, "an object") for name in ("query", "corpus", "qrel"))
        for field, texts in (("query", queries), ("corpus", corpus)):
            for id, text in texts.items():
                of_kind(f'{id!r} in "{field}"', text, "a string")
        qrels = {id: _judged(id, judged, queries, corpus) for id, judged in judgements.items()}
    except FileError:
        raise
    except ValueError as error:
        raise FileError(path, None, f"not a file of BIRCO: {error}") from error
    passages = {id: Passage(id, text) for id, text in corpus.items()}

    def lookup(wanted: Collection[str]) -> dict[str, Passage]:
        return {id: passages[id] for id in wanted if id in passages}

    name = f"birco/{Path(path).name.partition('.')[0].removesuffix('_dev_set')}"
    asked = {id: text for id, text in queries.items() if id in qrels}
    return Judged(name, asked, lookup, qrels, everything=passages.values)


def _judged(id: str, judged: object, queries: Mapping[str, str], corpus: Mapping[str, str]) -> dict[str, int]:
    with within(f"query {id!r}"):
        parts = {name: _fraction(name, value) for name, value in of_kind("its qrel", judged, "an object").items()}
        if id not in queries:
            raise ValueError("it is judged, but has no text")
        if unknown := [name for name in parts if name not in corpus]:
            raise ValueError(f"passage {unknown[0]!r} is judged, but has no text")
        scale = lcm(*{part.denominator for part in parts.values()})
        return {name: part.numerator * (scale // part.denominator) for name, part in parts.items()}


def _fraction(name: str, value: object) -> Fraction:
    number = of_kind(f"the judgement of {name!r}", value, "a number")
    if isinstance(number, int):
        return Fraction(number)
    fraction = Fraction(number).limit_denominator(MOST_PARTS) if isfinite(number) else None
    if fraction is None or abs(fraction - Fraction(number)) > 1e-9:
        raise ValueError(f"the judgement {value!r} of {name!r} is no fraction of a whole number up to {MOST_PARTS}")
    return fraction
