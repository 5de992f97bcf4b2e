"""`rankr1-eval qa`: what reranking does to the evidence and the answers of multi-hop questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from rankr1_eval import data
from rankr1_eval.cli.options import WARNING, Reading, Retrieval, Source, Stages, is_embedded, repeatable
from rankr1_eval.cli.table import CAPTION, UNREAD, table
from rankr1_eval.data.loading import corpus, sample
from rankr1_eval.evaluation import Evaluation
from rankr1_eval.pipeline import finish
from rankr1_eval.run_folder import Folder, digest
from rankr1_eval.scoring import EvaluatedRun, to_json
from rankr1_eval.systems import DEFAULT, KINDS, parse
from rankr1_eval.types import Question, Scores
from rankr1_rag.checkpoints import BASE
from rankr1_rag.cli.options import CommandSettings, arguments
from rankr1_rag.cli.report import Job
from rankr1_rag.explain import clean

THINK_TOKENS = 64
"""The thinking budget of the embedded model before its training, here; any other has its checkpoint's."""


def qa(
    *,
    source: Source,
    retrieval: Retrieval,
    reading: Reading,
    settings: CommandSettings,
    systems: Annotated[
        str, typer.Option(help=f"What to compare, comma-separated: {', '.join(KINDS)}; rank-r1:votes=3 and so on.")
    ] = ",".join(DEFAULT),
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; a run that is there goes on. [default: runs/DATASET]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Rerank the candidates of multi-hop questions, have them read, score evidence and answers: OUT/report.html.

    rankr1-eval qa --dataset hotpotqa --data hotpot_dev_distractor_v1.json --questions 3

    Killed at any moment, the same command goes on where it was. The embedded model, as reranker and reader, runs
    anywhere and shows little: give --backend and --model for one that reasons, --reader-model for another reader.
    With --no-read there is no reader, and the report tells what becomes of the supports.
    """
    console, path = Console(stderr=as_json), out or Path("runs") / source.dataset
    with arguments():
        evaluation = _asked(source, retrieval, systems, reading.ks(settings.top), settings.seed, path)
    with Folder(path) as folder:
        settings = _settled(settings, folder)
        job = Job(Console(stderr=True), None)
        with settings.reranker(job) as reranker:
            with arguments():
                reader = reading.reader(settings, reranker, job)
            with reader or nullcontext():
                with arguments():
                    asked = evaluation(reranker=reranker, reader=reader)
                _finish(folder, asked, Stages(job, Console(stderr=True)), console, as_json)


def _asked(
    source: Source, retrieval: Retrieval, systems: str, ks: tuple[int, ...], seed: int, path: Path
) -> Callable[..., Evaluation]:
    """The evaluation, but for its models. ValueError, FileError."""
    specs, first_stage = parse(systems.split(",")), retrieval.first_stage(path)
    everything = data.load(source.dataset, source.data, split=source.split)
    asked = sample(everything, source.questions, seed)
    return partial(
        Evaluation,
        dataset=source.dataset,
        questions=asked,
        corpus=corpus(everything, asked, source.pool, seed),
        source=_told(source, everything, seed),
        first_stage=first_stage,
        systems=specs,
        ks=ks,
        seed=seed,
    )


def _finish(folder: Folder, evaluation: Evaluation, stages: Stages, console: Console, as_json: bool) -> None:
    """Go through the stages, score, and tell."""
    with stages.job, arguments():
        run = evaluation.run(folder, stages)
    scores, left_out = finish(run, folder.path)
    for told in filter(None, [left_out, _fewer(folder, run)]):
        stages.console.print(Text(clean(told), style="yellow"))
    if as_json:
        typer.echo(json.dumps(to_json(scores)))
    else:
        _tell(console, run, scores, evaluation, folder)


def _told(source: Source, everything: Sequence[Question], seed: int) -> dict[str, object]:
    """What a question's candidates depend on: not on how many others are asked, so a run may grow."""
    asked = [(one.query, one.answers, one.supports, [passage.id for passage in one.passages]) for one in everything]
    return {"dataset": source.dataset, "data": digest(asked), "pool": source.pool, "seed": seed}


def _settled(settings: CommandSettings, folder: Folder) -> CommandSettings:
    """With a store in the run's folder, and a budget for thoughts where the untrained model would have its own."""
    untrained = is_embedded(settings) and settings.model == BASE
    thinks = THINK_TOKENS if settings.reasoning_tokens is None and untrained else settings.reasoning_tokens
    return replace(repeatable(settings), store=settings.store or str(folder.store), reasoning_tokens=thinks)


def _fewer(folder: Folder, run: EvaluatedRun) -> str:
    """Where the folder holds more than was asked for now, that it does."""
    held = folder.held()
    if held == len(run.questions):
        return ""
    return f"the folder holds {held:,} questions; scores and report are of the {len(run.questions):,} asked for now"


def _tell(console: Console, run: EvaluatedRun, scores: Scores, evaluation: Evaluation, folder: Folder) -> None:
    for k in evaluation.ks:
        console.print(table(run, scores, k))
    console.print(Text(CAPTION if evaluation.reader else UNREAD, style="dim"))
    asked = [evaluation.reranker.plan.backend, *([evaluation.reader.backend] if evaluation.reader else [])]
    if BASE in [backend.model for backend in asked]:
        console.print(Text(WARNING, style="yellow"))
    console.print(Text(f"The report, with the reasoning: {clean(str(folder.path / 'report.html'))}"))
