"""Retrieval collections with judgements by name, or of any queries, passages and qrels by path.

| name | what | from |
|---|---|---|
| dl19, dl20 | TREC Deep Learning passages 2019, 2020, the judged queries | `ir_datasets` |
| beir/NAME | a BEIR data set, its test split where it has several: beir/scifact, beir/nfcorpus, … | `ir_datasets` |
| bright/NAME | BRIGHT: bright/biology, …; what a query excludes is in `Judged.excluded` | `datasets` |
| birco:PATH | a file of BIRCO | that file |

Queries without a judgement are left out: they cannot be scored. Knows names; each source has a module of its own.

A file of BIRCO (Wang et al., 2024, https://github.com/BIRCO-benchmark/BIRCO): one JSON object, gzipped or not.

    {"query": {"q_1": "I need …"}, "corpus": {"c_7": "This paper …"}, "qrel": {"q_1": {"c_7": 0.5, …}}}

A query's candidates are what it has judgements of, those of 0 included. Some judgements are fractions of a number that
differs from query to query; qrels hold whole numbers, so they are brought to the smallest common denominator of their
query: gains stay in proportion, so that nDCG is the same, but every part of relevance counts as relevant for recall.

BRIGHT (Su et al., 2024, https://huggingface.co/datasets/xlangai/BRIGHT), by `datasets` of the extra `hub`.

A row of `examples` and one of `documents`, shortened:

    {"id": "0", "query": "Why do moths …", "gold_ids": ["moths/a_1.txt"], "excluded_ids": ["N/A"], …}
    {"id": "moths/a_1.txt", "content": "Moths …"}

`excluded_ids` are passages that must not count, ["N/A"] where there are none. The mapping is tried on local rows of
these shapes; to fetch them takes a network. Knows no measure.

Collections of `ir_datasets`, which the extra `hub` installs: TREC Deep Learning and BEIR.

The mapping is tried on collections that `ir_datasets` makes of local files; to fetch MS MARCO and BEIR is its own work,
takes a network, and is not tried. Knows names and fields of `ir_datasets`; no measure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from math import isfinite, lcm
from pathlib import Path
from typing import Any

from rankr1_eval.data.fields import Hub, read_judgements
from rankr1_eval.data.loading import INSTALL, opened, unreachable, whole
from rankr1_eval.types import Judged
from rankr1_rag.errors import FileError
from rankr1_rag.io.collection import member, of_kind, read_passages, read_queries, within
from rankr1_rag.io.files import FilePath
from rankr1_rag.io.trec import Qrels
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


KNOWN = "dl19, dl20, beir/NAME, bright/NAME, birco:PATH"


def judged(spec: str) -> Judged:
    """The collection of that name. ValueError for an unknown one, ImportError without the extra it needs.

    The first use of a collection fetches it: MS MARCO's passages are 1 GB, and several when they are unpacked.
    """
    family, slash, name = spec.partition("/")
    if spec.startswith("birco:"):
        return read(spec.removeprefix("birco:"))
    if spec in TREC_DL:
        return trec_dl(spec)
    if slash and name and family in ("beir", "bright"):
        return beir(name) if family == "beir" else fetched(name)
    raise ValueError(f"collection {spec!r} is not known: {KNOWN}")


def from_files(queries: FilePath, passages: FilePath, qrels: FilePath, name: str | None = None) -> Judged:
    """The collection of three files; `name` is by default the stem of the qrels' name.

    Queries and passages are JSON lines or `id<TAB>text`, qrels TREC's or BEIR's; all may be gzipped. Passages are
    looked up by one pass over their file each time. FileError where a file is malformed, or a judged query has no text.
    """
    judgements = read_judgements(qrels)
    texts = read_queries(queries)
    for id in judgements:
        if id not in texts:
            raise FileError(qrels, None, f"query {id!r} is judged, but {queries} does not hold its text")
    return Judged(
        name=name or Path(qrels).name.partition(".")[0],
        queries={id: text for id, text in texts.items() if id in judgements},
        passages=partial(read_passages, passages),
        qrels=judgements,
        everything=lambda: read_passages(passages).values(),
    )
