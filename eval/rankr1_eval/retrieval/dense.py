"""A dense first stage, and dense reordering, with any model of sentence-transformers (extra `dense`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from rankr1_eval.retrieval.bm25 import best
from rankr1_rag.io.files import writing_bytes
from rankr1_rag.io.trec import Run, Scored
from rankr1_rag.types import Passage, Query

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MISSING = (
    "the model {!r} is no folder, is not in the cache of Hugging Face, and could not be fetched ({}): "
    "check its name and the network, or give a folder that holds it"
)


class Dense:
    """An embedding model, loaded on first use: a name of the hub or a folder. ImportError without the extra.

    Embeddings of a corpus and of queries are kept in the folder `cache`, by model and content.
    """

    def __init__(self, model: str = MODEL, cache: Path | None = None) -> None:
        check_library()
        self.model, self.cache = model, cache
        self._loaded: Any = None

    def run(self, corpus: Sequence[Passage], queries: Sequence[Query], n: int) -> Run:
        """For each query id its best n passages by cosine similarity; equal scores are in corpus order."""
        scores_of = self._scoring(corpus)
        run: Run = {}
        for query, embedding in zip(queries, self._kept([query.text for query in queries]), strict=True):
            scores = scores_of(embedding)
            run[query.id] = [Scored(corpus[place].id, float(scores[place])) for place in best(scores, n)]
        return run

    def searching(self, corpus: Sequence[Passage], n: int) -> Callable[[str], list[str]]:
        """A function that finds for a text the ids of its best n passages, as `run`; its embedding is not kept."""
        scores_of = self._scoring(corpus)
        return lambda text: [corpus[place].id for place in best(scores_of(self._embedded([text])[0]), n)]

    def similarities(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """For each (query, texts) the cosine similarity of each of its texts to it; equal texts are embedded once."""
        rows: dict[str, int] = {}
        places = [[rows.setdefault(text, len(rows)) for text in (query, *texts)] for query, texts in asked]
        embeddings = self._kept(list(rows))
        return [[float(embeddings[query] @ embeddings[one]) for one in texts] for query, *texts in places]

    def _scoring(self, corpus: Sequence[Passage]) -> Callable[[Any], Any]:
        """From an embedding to the score of each passage."""
        import numpy

        if not corpus:
            raise ValueError("the corpus is empty: there is nothing to retrieve from")
        # Equal texts are embedded and scored once: in another batch, or another row, the last digit would differ.
        rows: dict[str, int] = {}
        row = numpy.array([rows.setdefault(shown(passage), len(rows)) for passage in corpus])
        embeddings = self._kept(list(rows))
        return lambda embedding: (embeddings @ embedding)[row]

    def _kept(self, texts: list[str]) -> Any:  # noqa: ANN401
        """The embeddings of these texts, from the cache or new; the name of a file ends in its checksum."""
        import numpy

        if self.cache is None:
            return self._embedded(texts)
        self.cache.mkdir(parents=True, exist_ok=True)
        key = sha256(repr([self.model, *texts]).encode()).hexdigest()[:24]
        for path in self.cache.glob(f"embeddings-{key}-*.npy"):
            if path.stem.endswith(f"{crc32(data := path.read_bytes()):08x}"):
                return numpy.load(BytesIO(data), allow_pickle=False)
        embeddings, file = self._embedded(texts), BytesIO()
        numpy.save(file, embeddings, allow_pickle=False)
        with writing_bytes(self.cache / f"embeddings-{key}-{crc32(file.getbuffer()):08x}.npy") as out:
            out.write(file.getbuffer())
        return embeddings

    def _embedded(self, texts: list[str]) -> Any:  # noqa: ANN401
        """Unit vectors, one row a text."""
        if self._loaded is None:
            self._loaded = load_model("SentenceTransformer", self.model)
        return self._loaded.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def check_library() -> None:
    """ImportError without the extra."""
    if find_spec("sentence_transformers") is None:
        raise ImportError('embedding models and cross-encoders need a library: pip install "rankr1-eval[dense]"')


def check_model(model: str) -> None:
    """ImportError without the extra, ValueError where the model is no folder, not in the cache and not on the hub."""
    check_library()
    if Path(model).is_dir():
        return
    from huggingface_hub import model_info, snapshot_download

    with suppress(Exception):
        snapshot_download(model, local_files_only=True)
        return
    try:
        model_info(model)
    except Exception as error:  # of the hub or of the network, which differ from version to version
        raise ValueError(MISSING.format(model, type(error).__name__)) from error


def load_model(kind: Literal["SentenceTransformer", "CrossEncoder"], model: str) -> Any:  # noqa: ANN401
    """The model, without the progress bar of its library, which would end up in logs. ValueError as above."""
    import sentence_transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return getattr(sentence_transformers, kind)(model, trust_remote_code=False)
    except OSError as error:
        raise ValueError(MISSING.format(model, type(error).__name__)) from error


def shown(passage: Passage) -> str:
    """A passage for a model without a format of its own: title, then text."""
    return f"{passage.title} {passage.text}".strip()
