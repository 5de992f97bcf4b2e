"""`rankr1-eval qa`: what reranking does to the evidence and the answers of multi-hop questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.text import Text

from rankr1_eval import data
from rankr1_eval.baselines import FirstStage, Retriever
from rankr1_eval.cli.options import WARNING, QuestionOptions, StageProgress, option, repeatable
from rankr1_eval.cli.table import CAPTION, table
from rankr1_eval.data.loading import corpus, sample
from rankr1_eval.evaluation import Evaluation
from rankr1_eval.pipeline import finish
from rankr1_eval.retrieval.dense import MODEL
from rankr1_eval.run_folder import RunFolder, digest
from rankr1_eval.scoring import to_json
from rankr1_eval.systems import DEFAULT, KINDS, parse
from rankr1_rag.checkpoints import BASE, READER
from rankr1_rag.cli.options import CommandSettings, arguments
from rankr1_rag.cli.report import Job
from rankr1_rag.connect import connect
from rankr1_rag.explain import clean
from rankr1_rag.reader import Prompt, Reader
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import Kind, Server, declare

REASONING_TOKENS = 64
"""The reasoning budget of the embedded model before its training; any other has its checkpoint's."""

RetrieverName = StrEnum("RetrieverName", ["bm25", "dense", "own", "run"])


@dataclass(frozen=True, kw_only=True)
class FirstStageOptions:
    """Where the candidates come from."""

    retriever: Annotated[RetrieverName, option("First stage; own: the question's own paragraphs.", "First stage")] = (
        RetrieverName.bm25
    )
    candidates: Annotated[int, option("Candidates a question.", "First stage")] = 20
    run: Annotated[Path | None, option("TREC run over OUT/passages.jsonl, for --retriever run.", "First stage")] = None
    dense_model: Annotated[str, option("Embedding model of --retriever dense: name or folder.", "First stage")] = MODEL


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """The reader: by default the reranker's model; for the embedded one, the embedded reader."""

    reader_backend: Kind | None = declare(
        None, "Model runtime of another reader", "Reader", "openai with an address, else the reranker's"
    )
    reader_model: Annotated[str | None, option("Model of another reader, as --model.", "Reader")] = None
    reader_adapter: Annotated[
        str | None, option("LoRA adapter of `rankr1 train reader` for the reader's model, as --adapter.", "Reader")
    ] = None
    reader_prompt: Prompt | None = declare(
        None, "Prompt of the reader: reader-v1 is that of trained ones", "Reader", "reader-v1 with --reader-adapter"
    )
    reader_base_url: str | Sequence[str] | None = declare(
        None, "Server address of another reader, ending in /v1", "Reader", "none"
    )
    reader_server: Server | None = declare(
        None, "Server software of another reader", "Reader", "other, without constraints"
    )
    reader_api_key_env: Annotated[
        str | None, option("Environment variable with the key of the reader's server.", "Reader")
    ] = None
    reader_tokens: Annotated[
        int, option("Maximum answer length in tokens; more for a model that reasons first.", "Reader", min=1)
    ] = 32
    no_read: Annotated[bool, option("No reader: support recall alone, no answers.", "Reader", "--no-read")] = False
    read: Annotated[
        list[int] | None, option("Passages the reader sees; may be repeated (default: --k).", "Reader", min=1)
    ] = None

    def reader(self, settings: CommandSettings, reranker: Reranker, job: Job) -> Reader | None:
        """The reader, None with --no-read. ValueError, StoreError as of `connect`."""
        if self.no_read:
            another = self.reader_backend or self.reader_model or self.reader_base_url or self.reader_adapter
            if self.read or another or self.reader_server or self.reader_prompt:
                raise ValueError("--no-read excludes --read and the options of a reader: leave it or them out")
            return None
        prompt = self.reader_prompt or (
            "reader-v1" if self.reader_adapter or self.reader_model == READER else "five-examples-v1"
        )
        if self.reader_backend or self.reader_model or self.reader_base_url or self.reader_adapter:
            embedded = self.reader_adapter and not (self.reader_model or self.reader_base_url)
            backend = connect(
                self.reader_backend or (None if self.reader_base_url else settings.backend),
                BASE if embedded and settings.embedded else self.reader_model,
                adapter=self.reader_adapter,
                base_url=self.reader_base_url,
                server=self.reader_server,
                api_key_env=self.reader_api_key_env,
                timeout=settings.timeout,
                attempts=settings.attempts,
                store=settings.store,
            )
        elif self.reader_server or self.reader_api_key_env:
            raise ValueError("--reader-server and --reader-api-key-env need another reader: add --reader-model")
        else:
            reader = settings.reader(reranker, job, self.reader_tokens)
            return replace(reader, prompt=self.reader_prompt or reader.prompt)
        return Reader(job.counted(backend), self.reader_tokens, own=True, prompt=prompt)


def qa(
    *,
    source: QuestionOptions,
    retrieval: FirstStageOptions,
    reading: ReaderOptions,
    settings: CommandSettings,
    systems: Annotated[
        str, typer.Option(help=f"Systems to compare, comma-separated: {', '.join(KINDS)}; rank-r1:votes=3 and so on.")
    ] = ",".join(DEFAULT),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; an existing run is resumed (default: runs/DATASET).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Scores as JSON on standard output.")] = False,
) -> None:
    """Rerank the candidates of multi-hop questions, have them read, score evidence and answers: OUT/report.html.

    rankr1-eval qa --dataset hotpotqa --data hotpot_dev_distractor_v1.json --questions 3

    An interrupted run is resumed by the same command. The embedded model, as reranker and reader, runs anywhere and
    proves little: give --backend and --model for one that reasons, --reader-model for another reader. With --no-read
    the report shows the supports alone.
    """
    console, path = Console(stderr=as_json), out or Path("runs") / source.dataset
    ks = tuple(sorted(set(reading.read or [settings.top])))
    with arguments():
        first_stage = FirstStage(
            cast(Retriever, retrieval.retriever.value),
            retrieval.candidates,
            retrieval.run,
            retrieval.dense_model,
            path,
            settings.distances,
        )
        named, seed = parse([systems]), settings.seed
        unread = ", ".join(one.name for one in named if reading.no_read and not one.ordered)
        if not any(one.ordered for one in named) and unread:
            raise ValueError(f"--no-read leaves nothing of --systems {systems}: leave it out, or name another system")
        if unread and systems != ",".join(DEFAULT):
            Console(stderr=True).print(Text(f"Left out, because --no-read reads nothing: {unread}", style="yellow"))
        everything = data.load(source.dataset, source.data, split=source.split)
        asked = sample(everything, source.questions, seed)
        content = [(one.query, one.answers, one.supports, [own.id for own in one.passages]) for one in everything]
        evaluation_of = partial(
            Evaluation,
            dataset=source.dataset,
            questions=asked,
            corpus=corpus(everything, asked, source.pool, seed),
            # What a question's candidates depend on: not how many others are asked, so that a run may grow.
            source={"dataset": source.dataset, "data": digest(content), "pool": source.pool, "seed": seed},
            first_stage=first_stage,
            systems=named,
            ks=ks,
            seed=seed,
        )
    inputs = [source.data, retrieval.run, reading.reader_model]
    with RunFolder(path, [*inputs, *settings.inputs, settings.store]) as folder:
        settings.check_files([], inputs)
        settings = replace(repeatable(settings), store=settings.store or str(folder.store))
        if settings.reasoning_tokens is None and settings.embedded and settings.model == BASE:
            settings = replace(settings, reasoning_tokens=REASONING_TOKENS)
        job = Job(Console(stderr=True), None)
        with settings.reranker(job) as reranker:
            with arguments():
                reader = reading.reader(settings, reranker, job)
            with reader or nullcontext():
                with arguments():
                    evaluation = evaluation_of(reranker=reranker, reader=reader)
                _finish(folder, evaluation, StageProgress(job, Console(stderr=True)), console, as_json)


def _finish(
    folder: RunFolder, evaluation: Evaluation, progress: StageProgress, console: Console, as_json: bool
) -> None:
    """Go through the stages, score, and print the result."""
    with progress.job, arguments():
        run = evaluation.run(folder, progress)
    scores, left_out = finish(run, folder.path)
    held, asked = len(folder.stages["load"]), len(run.questions)
    if left_out:
        progress.console.print(Text(clean(left_out), style="yellow"))
    if held > asked:
        more = f"the folder holds {held:,} questions; scores and report are of the {asked:,} asked for now"
        progress.console.print(Text(more, style="yellow"))
    if as_json:
        typer.echo(json.dumps(to_json(scores)))
        return
    for k in evaluation.ks:
        console.print(table(run, scores, k))
    answers = ", EM and F1: of the answers" if evaluation.reader else ""
    console.print(Text(CAPTION.format(answers), style="dim"))
    reader = evaluation.reader
    backends = [evaluation.reranker.plan.backend]
    backends += [reader.backend] if reader and reader.prompt != "reader-v1" else []  # else trained for it
    if BASE in [backend.model for backend in backends]:
        console.print(Text(WARNING, style="yellow"))
    console.print(Text(f"The report, with the reasoning: {clean(str(folder.path / 'report.html'))}"), soft_wrap=True)
