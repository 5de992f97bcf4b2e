"""The options of `rankr1-eval qa` beside the reranker's, and what they make. Knows constructors; asks nothing.

How the embedded model is asked in an evaluation, trained or not, where no option says otherwise. Knows settings.

The stages of a run on the terminal: a bar there, elsewhere a line for each. Knows names and numbers.

The options of `rankr1-eval reproduce` that say what is reranked, and the collections that they make.

Knows names and files; asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from rankr1_eval.baselines import FirstStage, Retriever
from rankr1_eval.data import DATASETS
from rankr1_eval.data.collections import from_files, judged
from rankr1_eval.reader import Reader
from rankr1_eval.reproduce.targets import Target, parse
from rankr1_eval.retrieval.dense import MODEL
from rankr1_eval.types import Judged
from rankr1_rag.checkpoints import BASE, EMBEDDED
from rankr1_rag.cli.options import CommandSettings
from rankr1_rag.cli.report import Job
from rankr1_rag.connect import connect
from rankr1_rag.errors import FileError
from rankr1_rag.explain import clean
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import Kind, Option, Server

if TYPE_CHECKING:
    from rankr1_eval.reproduce.reproducing import PreparedCollection

WARNING = f"{BASE} has 135 million parameters and was never trained for this: it shows that the path works."


def is_embedded(settings: CommandSettings) -> bool:
    """Whether these settings ask the embedded model, trained or not."""
    return settings.kind == "openvino" and settings.model in (None, EMBEDDED, BASE)


def repeatable(settings: CommandSettings) -> CommandSettings:
    """The embedded model computes one request at a time.

    Beside others near ties fall either way (bench/openvino.md): a run that was killed would go on to another result.
    """
    if not is_embedded(settings):
        return settings
    return replace(settings, options={"max_batch": 1, **(settings.options or {})})


class Stages:
    """Goes through stages and tells of them; `what` is what they count."""

    def __init__(self, job: Job, console: Console, what: str = "questions") -> None:
        self.job, self.console, self._what = job, console, what

    def __call__(self, name: str, total: int, ids: Iterator[str]) -> None:
        """One stage, to its end."""
        started = monotonic()
        self.job.begin(name, total)
        for _ in ids:
            self.job.advance()
        if not self.console.is_terminal:
            self.console.print(Text(clean(f"{name}: {total:,} {self._what}, {monotonic() - started:.0f} s")))


FIRST, WHERE = "First stage", "Collection"


def _material_option(help: str, panel: str, **more: Any) -> Any:  # noqa: ANN401
    return typer.Option(help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is reranked: the first stage, the collection, how much of it."""

    run: Annotated[
        Path | None, _material_option("A TREC run; for dl19 and dl20 there must be one, else BM25 by bm25s.", FIRST)
    ] = None
    runs: Annotated[
        Path | None, _material_option("For beir and bright: a folder with NAME.trec for each collection.", FIRST)
    ] = None
    depth: Annotated[int, _material_option("So many candidates of each query.", FIRST, min=2)] = 100
    collections: Annotated[
        str | None, _material_option("Those of beir or bright, with commas; else bright's 12.", WHERE)
    ] = None
    queries: Annotated[
        Path | None, _material_option("A file instead of the hub's: id<TAB>text, or JSON lines.", WHERE)
    ] = None
    passages: Annotated[Path | None, _material_option("With --queries: id<TAB>text, or JSON lines.", WHERE)] = None
    qrels: Annotated[Path | None, _material_option("With --queries: TREC's or BEIR's.", WHERE)] = None
    sample: Annotated[
        int | None, _material_option("A trial with a seeded sample of so many queries.", WHERE, min=1)
    ] = None

    def target(self, name: str) -> Target:
        """The target of that name. ValueError where it and the options do not go together."""
        target = parse(name, self.collections.split(",") if self.collections is not None else None)
        files = [self.queries, self.passages, self.qrels]
        if any(files) and not all(files):
            raise ValueError("--queries, --passages and --qrels make a collection together: give all three, or none")
        if target.grouped and (self.run or any(files)):
            raise ValueError(f"{name} is several collections: give --runs, or take one of them, {name}/NAME")
        if not target.grouped and self.runs:
            raise ValueError(f"{name} is one collection: give --run")
        if target.needs_run and not self.run:
            raise ValueError(
                f"{name} needs --run, the BM25 run of its 8.8 million passages, which are not indexed here: "
                "docs/reproduction.md says how to have it made"
            )
        return target

    def prepared(self, target: Target, seed: int) -> Iterator[PreparedCollection]:
        """Each collection when it is reached, all of their runs being there. FileError, ValueError, ImportError."""
        from rankr1_eval.reproduce.reproducing import prepare

        runs = {name: self._run(target, name) for name in target.collections}
        return (
            prepare(self._judged(name), run, self.depth, self.sample, seed, self._files) for name, run in runs.items()
        )

    def _run(self, target: Target, name: str) -> Path | None:
        run = self.runs / f"{name.partition('/')[2]}.trec" if self.runs else self.run
        if run and not run.is_file():
            raise FileError(run, None, f"there is no such file, the run of {name}")
        return run

    @property
    def _files(self) -> tuple[Path, ...]:
        return (self.queries, self.passages) if self.queries and self.passages else ()

    def _judged(self, name: str) -> Judged:
        if not (self.queries and self.passages and self.qrels):
            return judged(name)
        found = from_files(self.queries, self.passages, self.qrels, name)
        return replace(found, excluded=_itself(found)) if name.startswith("beir/") else found


def _itself(collection: Judged) -> Mapping[str, frozenset[str]]:
    """BEIR's own evaluation drops a passage with the id of the query."""
    return {id: frozenset({id}) for id in collection.queries}


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

    reader_backend: Annotated[
        Kind | None, Option("Model runtime of another reader", "Reader", "openai with an address, else the reranker's")
    ] = None
    reader_model: Annotated[str | None, _option("Its name, as --model is the reranker's.", "Reader")] = None
    reader_base_url: Annotated[
        str | Sequence[str] | None, Option("Server address of another reader, ending in /v1", "Reader", "none")
    ] = None
    reader_server: Annotated[
        Server | None, Option("Server software of another reader", "Reader", "other, without constraints")
    ] = None
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

    def reader(self, settings: CommandSettings, reranker: Reranker, job: Job) -> Reader | None:
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
            kind,
            self.reader_model,
            base_url=self.reader_base_url,
            server=self.reader_server,
            api_key_env=self.reader_api_key_env,
            timeout=settings.timeout,
            attempts=settings.attempts,
            store=settings.store,
        )
        return Reader(job.counted(backend), self.reader_tokens, own=True)
