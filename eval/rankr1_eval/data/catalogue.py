"""Collections of `ir_datasets`, which the extra `hub` installs: TREC Deep Learning and BEIR.

The mapping is tried on collections that `ir_datasets` makes of local files; to fetch MS MARCO and BEIR is its own work,
takes a network, and is not tried. Knows names and fields of `ir_datasets`; no measure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from rankr1_eval.data.hub import INSTALL, unreachable
from rankr1_eval.types import Judged
from rankr1_rag.trec import Qrels
from rankr1_rag.types import Passage

TREC_DL = {"dl19": "msmarco-passage/trec-dl-2019/judged", "dl20": "msmarco-passage/trec-dl-2020/judged"}


def trec_dl(name: str) -> Judged:
    """TREC Deep Learning passages of a year, a key of `TREC_DL`."""
    return of_catalogue(name, _catalogue().load(TREC_DL[name]))


def beir(name: str) -> Judged:
    """A data set of BEIR, its test split where it has several. ValueError where there is none of that name.

    A passage with the id of the query is excluded, as BEIR's own evaluation does: in ArguAna it is the query itself.
    """
    catalogue = _catalogue()
    known = {id.removeprefix("beir/") for id in catalogue.registry if id.startswith("beir/")}
    for id in (f"{name}/test", name):
        if id in known and (dataset := catalogue.load(f"beir/{id}")).has_qrels():
            found = of_catalogue(f"beir/{name}", dataset)
            return replace(found, excluded={query: frozenset({query}) for query in found.queries})
    names = sorted({id.removesuffix("/test") for id in known if id.endswith("/test") or "/" not in id})
    raise ValueError(f"BEIR has no {name!r} with judgements: {', '.join(names)}")


def of_catalogue(name: str, dataset: Any) -> Judged:  # noqa: ANN401
    """The judged collection that a data set of `ir_datasets` is; its passages are looked up when they are asked for."""
    qrels: Qrels = {}
    with _fetching(name):
        for judgement in dataset.qrels_iter():
            qrels.setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.relevance
        texts = {query.query_id: query.text for query in dataset.queries_iter()}
    if missing := [id for id in qrels if id not in texts]:
        raise ValueError(f"{name}: query {missing[0]!r} is judged, but has no text")
    queries = {id: text for id, text in texts.items() if id in qrels}
    looked_up, everything = partial(_looked_up, name, dataset), partial(_everything, name, dataset)
    return Judged(name, queries, looked_up, qrels, everything=everything)


def _looked_up(name: str, dataset: Any, wanted: Collection[str]) -> dict[str, Passage]:  # noqa: ANN401
    with _fetching(f"the passages of {name}"):
        found = dataset.docs_store().get_many(wanted)
    return {id: Passage(id, found[id].text, getattr(found[id], "title", "") or "") for id in wanted if id in found}


def _everything(name: str, dataset: Any) -> Iterator[Passage]:  # noqa: ANN401
    with _fetching(f"the passages of {name}"):
        for one in dataset.docs_iter():
            yield Passage(one.doc_id, one.text, getattr(one, "title", "") or "")


@contextmanager
def _fetching(what: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as error:  # `ir_datasets` raises the one or the other for the same trouble
        raise unreachable(what, error) from error


def _catalogue() -> Any:  # noqa: ANN401
    try:
        import ir_datasets
    except ImportError as error:
        raise ImportError(f"collections by name need ir_datasets: {INSTALL}, or give files by path") from error
    return ir_datasets
