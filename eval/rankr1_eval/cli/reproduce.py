"""`rankr1-eval reproduce`: a table of the paper, measured again by one command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_eval.cli.options import WARNING, StageProgress, option, repeatable
from rankr1_eval.data.collections import from_files, judged
from rankr1_eval.reproduce.results import CAPTION, HEADS, Reproduction, cells, markdown, remarks, verdict
from rankr1_eval.reproduce.targets import KNOWN, REASONING_TOKENS, Target, parse
from rankr1_rag.checkpoints import BASE, CHECKPOINTS
from rankr1_rag.cli.options import CommandSettings, arguments
from rankr1_rag.cli.report import Job
from rankr1_rag.errors import FileError
from rankr1_rag.explain import clean
from rankr1_rag.io.files import claim_folder, writing

if TYPE_CHECKING:
    from rankr1_eval.reproduce.reproducing import PreparedCollection

STYLES = {"within": "bold green", "outside": "bold red", "none": "bold yellow"}
OURS = re.compile(rb'\A\{\s*"target": ')
"""The beginning of reproduction.json."""
FIRST, WHERE = "First stage", "Collection"


@dataclass(frozen=True, kw_only=True)
class CollectionOptions:
    """What is reranked: the first stage, the collection, how much of it."""

    run: Annotated[Path | None, option("TREC run; needed for dl19 and dl20 (default: BM25 by bm25s).", FIRST)] = None
    runs: Annotated[Path | None, option("Folder with NAME.trec for each collection of beir or bright.", FIRST)] = None
    depth: Annotated[int, option("Candidates a query.", FIRST, min=2)] = 100
    collections: Annotated[
        str | None, option("Collections of beir or bright, comma-separated (default: bright's 12).", WHERE)
    ] = None
    queries: Annotated[
        Path | None, option("File of queries instead of the hub's: id<TAB>text, JSON lines or parquet.", WHERE)
    ] = None
    passages: Annotated[Path | None, option("File of passages, with --queries: the same formats.", WHERE)] = None
    qrels: Annotated[Path | None, option("File of judgements, with --queries: TREC's or BEIR's format.", WHERE)] = None
    sample: Annotated[int | None, option("Size of a seeded sample of queries, for a trial.", WHERE, min=1)] = None

    def target(self, name: str) -> Target:
        """The target of that name. ValueError where it and the options do not go together."""
        target = parse(name, self.collections.split(",") if self.collections is not None else None)
        files = [self.queries, self.passages, self.qrels]
        if any(files) and not all(files):
            raise ValueError("--queries, --passages and --qrels belong together: give all three, or none")
        if target.grouped and (self.run or any(files)):
            raise ValueError(f"{name} is several collections: give --runs, or take one of them, {name}/NAME")
        if not target.grouped and self.runs:
            raise ValueError(f"{name} is one collection: give --run instead of --runs")
        if target.needs_run and not self.run:
            raise ValueError(
                f"{name} needs --run, the BM25 run of its 8.8 million passages, which are not indexed here: "
                "docs/reproduction.md describes how to make it"
            )
        return target

    def prepared(self, target: Target, seed: int, distances: bool) -> Iterator[PreparedCollection]:
        """Each collection, all of their runs being there. FileError, ValueError, ImportError."""
        from rankr1_eval.reproduce.reproducing import prepare

        queries, passages, qrels = self.queries, self.passages, self.qrels
        files = (queries, passages) if queries and passages else ()
        runs: dict[str, Path | None] = {}
        for name in target.collections:
            run = runs[name] = self.runs / f"{name.partition('/')[2]}.trec" if self.runs else self.run
            if run and not run.is_file():
                raise FileError(run, None, f"there is no such file, the run of {name}")
        for name, run in runs.items():
            if queries and passages and qrels:
                collection = from_files(queries, passages, qrels, name)
                if name.startswith("beir/"):  # BEIR's own evaluation drops a passage with the id of the query
                    itself = {id: frozenset({id}) for id in collection.queries}
                    collection = replace(collection, excluded=itself)
            else:
                collection = judged(name)
            yield prepare(collection, run, self.depth, self.sample, seed, files, distances)


def reproduce(
    target: Annotated[str, typer.Argument(help=f"One of {KNOWN}.")],
    *,
    material: CollectionOptions,
    settings: CommandSettings,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; an existing run is resumed (default: runs/reproduce/TARGET)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on standard output.")] = False,
) -> None:
    """Measure a table of the Rank-R1 paper again: its nDCG@10, the nDCG@10 found, within its tolerance or not.

    The settings are the paper's where no option changes them: see docs/reproduction.md. The same command resumes an
    interrupted run. In OUT: reranked.trec, reproduction.md and reproduction.json.
    """
    with arguments():
        wanted = material.target(target)
    folder = out or Path("runs") / "reproduce" / target.replace("/", "-")
    inputs = [material.run, material.queries, material.passages, material.qrels, *settings.inputs]
    inputs += material.runs.glob("*.trec") if material.runs else ()
    claim_folder(folder, "reproduction.json", OURS, ("reproduction.json", "reproduction.md"), [*inputs, settings.store])
    places = [folder / name.partition("/")[2] if wanted.grouped else folder for name in wanted.collections]
    settings.check_files([place / name for place in places for name in ("reranked.trec", "rerank.jsonl")], inputs)
    job = Job(Console(stderr=True), None)
    paper: dict[str, object] = {"store": str(folder / "completions.sqlite")}  # where no option says otherwise
    if not settings.embedded:
        paper |= {"force": "never", "query_tokens": wanted.query_tokens, "passage_tokens": wanted.passage_tokens}
        paper |= {"clip": "head", "strict_format": True}
        if settings.model not in CHECKPOINTS:
            paper["reasoning_tokens"] = REASONING_TOKENS
    chosen = {name: value for name, value in paper.items() if getattr(settings, name) in (None, False)}
    settings = replace(repeatable(settings), **chosen)  # type: ignore[arg-type]
    with settings.reranker(job) as reranker, arguments():
        from rankr1_eval.reproduce import reproducing

        collections = list(
            material.prepared(wanted, settings.seed, settings.distances)
        )  # all, before the first is asked about
        with job:
            progress = StageProgress(job, Console(stderr=True), "queries")
            found = reproducing.reproduce(wanted, reranker, folder, collections, material.depth, progress)
    with writing(folder / "reproduction.json") as file:
        json.dump(found.to_json(), file, indent=1)
    with writing(folder / "reproduction.md") as file:
        file.write(markdown(found))
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        _print(Console(), found, folder)


def _print(console: Console, found: Reproduction, folder: Path) -> None:
    table = Table(HEADS[0], box=box.SIMPLE_HEAD, caption=CAPTION)
    for head in HEADS[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(*(Text(clean(cell)) for cell in cells(row)))
    console.print(table)
    for remark in remarks(found):
        console.print(Text(clean(remark), style="dim"))
    console.print(Text(clean(verdict(found)), style=STYLES[found.rows[-1].verdict]))
    if found.model == BASE:
        console.print(Text(WARNING, style="yellow"))
    console.print(Text(f"The same, the run and every comparison: {clean(str(folder))}"))
