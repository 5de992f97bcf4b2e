"""Retrieval collections with judgements by name, or of any queries, passages and qrels by path.

| name | content | source |
|---|---|---|
| dl19, dl20 | TREC Deep Learning passages 2019, 2020, the judged queries | `ir_datasets` |
| beir/NAME | a BEIR data set, its test split where it has several: beir/scifact, beir/nfcorpus, … | `ir_datasets` |
| bright/NAME | BRIGHT: bright/biology, …; what a query excludes is in `JudgedCollection.excluded` | `datasets` |
| birco:PATH | a file of BIRCO | that file |

Queries without a judgement are left out: they cannot be scored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import isfinite, lcm
from pathlib import Path
from typing import Any

from rankr1_eval.data.fields import Hub, by_word
from rankr1_eval.data.loading import INSTALL, fetching, opened, parquet_rows, whole
from rankr1_eval.types import JudgedCollection
from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import as_passage, as_query, member, of_kind, read_passages, read_queries, within
from rankr1_rag.io.files import FilePath, located
from rankr1_rag.io.trec import Qrels, as_word, read_qrels, warn_repeated
from rankr1_rag.types import Passage

MOST_PARTS = 1000
TREC_DL = {"dl19": "msmarco-passage/trec-dl-2019/judged", "dl20": "msmarco-passage/trec-dl-2020/judged"}
KNOWN = "dl19, dl20, beir/NAME, bright/NAME, birco:PATH"


def judged(spec: str) -> JudgedCollection:
    """The collection of that name. ValueError for an unknown one, ImportError without the extra it needs.

    The first use of a collection fetches it: MS MARCO's passages are 1 GB, and several when they are unpacked.
    """
    family, slash, name = spec.partition("/")
    if spec.startswith("birco:"):
        return read_birco(spec.removeprefix("birco:"))
    if spec in TREC_DL:
        return of_catalogue(spec, catalogue().load(TREC_DL[spec]))
    if slash and name and family == "beir":
        return beir(name)
    if slash and name and family == "bright":
        examples, documents = (opened(Hub("xlangai/BRIGHT", config), name) for config in ("examples", "documents"))
        return of_bright(f"bright/{name}", examples, documents)
    raise ValueError(f"collection {spec!r} is unknown: must be one of {KNOWN}")


def from_files(queries: FilePath, passages: FilePath, qrels: FilePath, name: str | None = None) -> JudgedCollection:
    """The collection of three files; `name` is by default the stem of the qrels' name.

    Queries and passages are JSON lines, `id<TAB>text` or parquet, qrels TREC's or BEIR's; text may be gzipped. Passages
    are looked up by one pass over their file each time. FileError where a file is malformed, or a judged query has no
    text.
    """

    def rows(path: FilePath, read: Callable[[object], Any]) -> dict[str, Any]:
        found = [located(path, number, read, row) for number, row in enumerate(parquet_rows(path), start=1)]
        kept = by_word((one.id, one) for one in found)
        warn_repeated(
            path, [(n, f"id {one.id!r}") for n, one in enumerate(found, 1) if kept[as_word(one.id)] is not one]
        )
        return kept

    def lookup(wanted: Collection[str] | None = None) -> dict[str, Passage]:
        if Path(passages).suffix != ".parquet":
            return read_passages(passages, wanted)
        found = {id: replace(one, id=id) for id, one in rows(passages, as_passage).items()}
        return found if wanted is None else {id: found[id] for id in wanted if id in found}

    judgements = read_qrels(qrels)
    if Path(queries).suffix == ".parquet":
        texts = {id: one.text for id, one in rows(queries, as_query).items()}
    else:
        texts = read_queries(queries)
    for id in judgements:
        if id not in texts:
            raise FileError(qrels, None, f"query {id!r} is judged, but {queries} does not hold its text")
    return JudgedCollection(
        name=name or Path(qrels).name.partition(".")[0],
        queries={id: text for id, text in texts.items() if id in judgements},
        passages=lookup,
        qrels=judgements,
        everything=lambda: lookup().values(),
    )


def read_birco(path: FilePath) -> JudgedCollection:
    """A file of BIRCO (Wang et al., 2024, https://github.com/BIRCO-benchmark/BIRCO): one JSON object, perhaps gzipped.

        {"query": {"q_1": "I need …"}, "corpus": {"c_7": "This paper …"}, "qrel": {"q_1": {"c_7": 0.5, …}}}

    A query's candidates are those with a judgement, 0 included. Some judgements are fractions of a number that differs
    from query to query; qrels hold whole numbers, so they are brought to the smallest common denominator of their
    query: gains stay in proportion, so that nDCG is the same, but every fraction counts as relevant for recall.
    FileError where the file has another shape.
    """
    qrels: Qrels = {}
    try:
        content = of_kind("the file", whole(path), "an object")
        queries, corpus, judgements = (member(content, name, "an object") for name in ("query", "corpus", "qrel"))
        for field, texts in (("query", queries), ("corpus", corpus)):
            for id, text in texts.items():
                of_kind(f'{id!r} in "{field}"', text, "a string")
        queries, corpus = by_word(queries.items()), by_word(corpus.items())
        for id, own in by_word(judgements.items()).items():
            with within(f"query {id!r}"):
                if id not in queries:
                    raise ValueError("it is judged, but has no text")
                qrels[id] = whole_gains(of_kind("its qrel", own, "an object"))
                if unknown := [name for name in qrels[id] if name not in corpus]:
                    raise ValueError(f"passage {unknown[0]!r} is judged, but has no text")
    except FileError:
        raise
    except ValueError as error:
        raise FileError(path, None, f"not a file of BIRCO: {error}") from error
    passages = {id: Passage(id, text) for id, text in corpus.items()}
    return JudgedCollection(
        name=f"birco/{Path(path).name.partition('.')[0].removesuffix('_dev_set')}",
        queries={id: text for id, text in queries.items() if id in qrels},
        passages=lambda wanted: {id: passages[id] for id in wanted if id in passages},
        qrels=qrels,
        everything=passages.values,
    )


def whole_gains(judgements: Mapping[str, object]) -> dict[str, int]:
    """The judgements brought to their smallest common denominator."""
    parts: dict[str, Fraction] = {}
    for name, value in judgements.items():
        number = of_kind(f"the judgement of {name!r}", value, "a number")
        part = Fraction(number).limit_denominator(MOST_PARTS) if isfinite(number) else None
        if part is None or abs(part - Fraction(number)) > 1e-9:
            raise ValueError(f"the judgement {value!r} of {name!r} is no fraction of a whole number up to {MOST_PARTS}")
        parts.setdefault(as_word(name), part)
    scale = lcm(*{part.denominator for part in parts.values()})
    return {name: part.numerator * (scale // part.denominator) for name, part in parts.items()}


def of_bright(name: str, examples: Any, documents: Any) -> JudgedCollection:  # noqa: ANN401
    """A collection of BRIGHT (Su et al., 2024, https://huggingface.co/datasets/xlangai/BRIGHT) from its two data sets.

        {"id": "0", "query": "Why do moths …", "gold_ids": ["moths/a_1.txt"], "excluded_ids": ["N/A"], …}
        {"id": "moths/a_1.txt", "content": "Moths …"}

    `excluded_ids` are passages that must not count, ["N/A"] where there are none. Ids become words, as in the runs of
    the Rank-R1 paper; of passages with one id the first is kept. ValueError where a query comes twice with different
    texts, or has no gold.
    """
    queries: dict[str, str] = {}
    qrels: Qrels = {}
    excluded: dict[str, frozenset[str]] = {}
    for row in examples:
        id = as_word(str(row["id"]))
        if not row["gold_ids"] or queries.setdefault(id, row["query"]) != row["query"]:
            problem = "comes twice, with different texts" if row["gold_ids"] else "has no gold_ids"
            raise ValueError(f"{name}: query {id!r} {problem}")
        qrels.setdefault(id, dict.fromkeys((as_word(str(gold)) for gold in row["gold_ids"]), 1))
        if names := frozenset(as_word(str(id)) for id in row.get("excluded_ids") or ()) - {"N/A"}:
            excluded.setdefault(id, names)

    @cache
    def places() -> dict[str, int]:
        return by_word((id, place) for place, id in enumerate(documents["id"]))

    return JudgedCollection(
        name,
        queries,
        lambda wanted: {id: Passage(id, documents[places()[id]]["content"]) for id in wanted if id in places()},
        qrels,
        excluded,
        lambda: (Passage(as_word(str(row["id"])), row["content"]) for row in documents),
    )


def beir(name: str) -> JudgedCollection:
    """A data set of BEIR, its test split where it has several. ValueError where there is none of that name.

    A passage with the id of the query is excluded, as BEIR's own evaluation does: in ArguAna it is the query itself.
    """
    source = catalogue()
    known = {id.removeprefix("beir/") for id in source.registry if id.startswith("beir/")}
    for id in (f"{name}/test", name):
        if id in known and (dataset := source.load(f"beir/{id}")).has_qrels():
            found = of_catalogue(f"beir/{name}", dataset)
            return replace(found, excluded={query: frozenset({query}) for query in found.queries})
    names = sorted({id.removesuffix("/test") for id in known if id.endswith("/test") or "/" not in id})
    raise ValueError(f"BEIR has no {name!r} with judgements: must be one of {', '.join(names)}")


def of_catalogue(name: str, dataset: Any) -> JudgedCollection:  # noqa: ANN401
    """The judged collection of a data set of `ir_datasets`; its passages are looked up when they are needed."""
    qrels: Qrels = {}
    with fetching(name):
        for judgement in dataset.qrels_iter():
            qrels.setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.relevance
        texts = {query.query_id: query.text for query in dataset.queries_iter()}
    if missing := [id for id in qrels if id not in texts]:
        raise ValueError(f"{name}: query {missing[0]!r} is judged, but has no text")

    def passage(one: Any) -> Passage:  # noqa: ANN401
        return Passage(one.doc_id, one.text, getattr(one, "title", "") or "")

    def lookup(wanted: Collection[str]) -> dict[str, Passage]:
        with fetching(f"the passages of {name}"):
            found = dataset.docs_store().get_many(wanted)
        return {id: passage(found[id]) for id in wanted if id in found}

    def everything() -> Iterator[Passage]:
        with fetching(f"the passages of {name}"):
            yield from map(passage, dataset.docs_iter())

    queries = {id: text for id, text in texts.items() if id in qrels}
    return JudgedCollection(name, queries, lookup, qrels, everything=everything)


def catalogue() -> Any:  # noqa: ANN401
    """The module `ir_datasets`. ImportError without the extra."""
    try:
        import ir_datasets
    except ImportError as error:
        raise ImportError(f"collections by name need ir_datasets: {INSTALL}, or give files by path") from error
    return ir_datasets
