"""BRIGHT (Su et al., 2024, https://huggingface.co/datasets/xlangai/BRIGHT), by `datasets` of the extra `hub`.

A row of `examples` and one of `documents`, shortened:

    {"id": "0", "query": "Why do moths …", "gold_ids": ["moths/a_1.txt"], "excluded_ids": ["N/A"], …}
    {"id": "moths/a_1.txt", "content": "Moths …"}

`excluded_ids` are passages that must not count, ["N/A"] where there are none. The mapping is tried on local rows of
these shapes; to fetch them takes a network. Knows no measure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from rankr1_eval.data.dataset import Hub
from rankr1_eval.data.hub import opened
from rankr1_eval.types import Judged
from rankr1_rag.trec import Qrels
from rankr1_rag.types import Passage

REPOSITORY = "xlangai/BRIGHT"
NOTHING = "N/A"


def fetched(name: str) -> Judged:
    """The collection of that name, which on the hub is a split. ValueError where there is none."""
    examples = opened(Hub(REPOSITORY, "examples"), name)
    return of_rows(f"bright/{name}", examples, opened(Hub(REPOSITORY, "documents"), name))


def of_rows(name: str, examples: Any, documents: Any) -> Judged:  # noqa: ANN401
    """The judged collection that two `datasets.Dataset` are. ValueError where a query comes twice, or has no gold."""
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    excluded: dict[str, frozenset[str]] = {}
    for row in examples:
        id = str(row["id"])
        if id in queries or not row["gold_ids"]:
            raise ValueError(f"{name}: query {id!r} {'comes twice' if id in queries else 'has no gold_ids'}")
        queries[id] = row["query"]
        qrels[id] = dict.fromkeys(row["gold_ids"], 1)
        if names := frozenset(row["excluded_ids"]) - {NOTHING}:
            excluded[id] = names

    @cache
    def places() -> dict[str, int]:
        return {id: place for place, id in enumerate(documents["id"])}

    def lookup(wanted: Collection[str]) -> dict[str, Passage]:
        return {id: Passage(id, documents[places()[id]]["content"]) for id in wanted if id in places()}

    def everything() -> Iterator[Passage]:
        return (Passage(row["id"], row["content"]) for row in documents)

    return Judged(name, queries, lookup, qrels, excluded, everything)
