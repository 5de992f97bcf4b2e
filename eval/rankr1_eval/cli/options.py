"""The options of `rankr1-eval qa` beside the reranker's, and what they make. Knows constructors; asks nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from rankr1_eval.cli.embedded import is_embedded
from rankr1_eval.data import DATASETS
from rankr1_eval.firststage import FirstStage, Retriever
from rankr1_eval.reader import Reader
from rankr1_eval.retrieve.dense import MODEL
from rankr1_rag.checkpoints import BASE
from rankr1_rag.cli.progress import Job
from rankr1_rag.cli.settings import BackendName, Server, Settings
from rankr1_rag.connect import connect
from rankr1_rag.reranker import Reranker

RetrieverName = StrEnum("RetrieverName", ["bm25", "dense", "own", "run"])


def _option(help: str, panel: str, *names: str, **more: Any) -> Any:  # noqa: ANN401
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which questions are asked, and over which corpus."""

    dataset: Annotated[str, _option(f"One of {', '.join(DATASETS)}.", "Questions")]
    data: Annotated[Path | None, _option("A local official file; else the hub's.", "Questions")] = None
    split: Annotated[str, _option("Of the hub's data.", "Questions")] = "validation"
    questions: Annotated[int | None, _option("A seeded sample of so many; else all.", "Questions", min=1)] = None
    pool: Annotated[
        int | None, _option("The corpus is the paragraphs of so many questions; else of all.", "Questions", min=1)
    ] = None


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Where the candidates come from."""

    retriever: Annotated[RetrieverName, _option("own: the question's own paragraphs.", "First stage")] = (
        RetrieverName.bm25
    )
    candidates: Annotated[int, _option("So many for each question.", "First stage")] = 20
    run: Annotated[Path | None, _option("A TREC run over OUT/passages.jsonl, for --retriever run.", "First stage")] = (
        None
    )
    dense_model: Annotated[str, _option("For --retriever dense: a name or folder.", "First stage")] = MODEL

    def first_stage(self, cache: Path) -> FirstStage:
        """ValueError where they do not go together."""
        return FirstStage(cast(Retriever, self.retriever.value), self.candidates, self.run, self.dense_model, cache)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Who reads; where nothing is said the reranker's model, and of the embedded one what it was before training."""

    reader_backend: Annotated[BackendName | None, _option("Where another reader runs.", "Reader")] = None
    reader_model: Annotated[str | None, _option("Its name, as --model is the reranker's.", "Reader")] = None
    reader_base_url: Annotated[list[str] | None, _option("Its server's address, ending in /v1.", "Reader")] = None
    reader_server: Annotated[Server | None, _option("What runs there.", "Reader")] = None
    reader_api_key_env: Annotated[str | None, _option("The variable that holds its key.", "Reader")] = None
    reader_tokens: Annotated[
        int, _option("Most tokens of an answer; more for a model that thinks first.", "Reader", min=1)
    ] = 32
    no_read: Annotated[bool, _option("Read nothing: support recall alone, no answers.", "Reader", "--no-read")] = False
    read: Annotated[list[int] | None, _option("Passages that it sees; may be repeated; else --k.", "Reader", min=1)] = (
        None
    )

    def ks(self, k: int) -> tuple[int, ...]:
        """How many passages the reader sees."""
        return tuple(sorted(set(self.read or [k])))

    def reader(self, settings: Settings, reranker: Reranker, job: Job) -> Reader | None:
        """None where nothing is to be read. ValueError, StoreError as `connect` has them."""
        if self.no_read:
            named = self.reader_backend, self.reader_model, self.reader_base_url, self.reader_server
            if self.read or any(named):
                raise ValueError("--no-read reads nothing: leave it out, or --read and what names a reader")
            return None
        if not (self.reader_backend or self.reader_model or self.reader_base_url):
            if self.reader_server or self.reader_api_key_env:
                raise ValueError("--reader-server and --reader-api-key-env are for another reader: give --reader-model")
            if not is_embedded(settings):
                return Reader(reranker.plan.backend, self.reader_tokens)
            backend = connect("openvino", BASE, store=settings.store, options={"max_batch": 1})
            return Reader(job.counted(backend), self.reader_tokens, own=True)
        kind = self.reader_backend or (None if self.reader_base_url else settings.backend)
        backend = connect(
            kind.value if kind else None,  # type: ignore[arg-type]
            self.reader_model,
            base_url=self.reader_base_url or None,
            server=self.reader_server.value if self.reader_server else None,
            api_key_env=self.reader_api_key_env,
            timeout=settings.timeout,
            attempts=settings.attempts,
            store=settings.store,
        )
        return Reader(job.counted(backend), self.reader_tokens, own=True)
