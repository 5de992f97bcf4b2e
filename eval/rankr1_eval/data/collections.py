"""Retrieval collections with judgements by name, or of any queries, passages and qrels by path.

| name | what | from |
|---|---|---|
| dl19, dl20 | TREC Deep Learning passages 2019, 2020, the judged queries | `ir_datasets` |
| beir/NAME | a BEIR data set, its test split where it has several: beir/scifact, beir/nfcorpus, … | `ir_datasets` |
| bright/NAME | BRIGHT: bright/biology, …; what a query excludes is in `Judged.excluded` | `datasets` |
| birco:PATH | a file of BIRCO | that file |

Queries without a judgement are left out: they cannot be scored. Knows names; each source has a module of its own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rankr1_eval.data import birco, bright, catalogue
from rankr1_eval.data.judgements import read_judgements
from rankr1_eval.types import Judged
from rankr1_rag.collection import read_passages, read_queries
from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath

KNOWN = "dl19, dl20, beir/NAME, bright/NAME, birco:PATH"


def judged(spec: str) -> Judged:
    """The collection of that name. ValueError for an unknown one, ImportError without the extra it needs.

    The first use of a collection fetches it: MS MARCO's passages are 1 GB, and several when they are unpacked.
    """
    family, slash, name = spec.partition("/")
    if spec.startswith("birco:"):
        return birco.read(spec.removeprefix("birco:"))
    if spec in catalogue.TREC_DL:
        return catalogue.trec_dl(spec)
    if slash and name and family in ("beir", "bright"):
        return catalogue.beir(name) if family == "beir" else bright.fetched(name)
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
