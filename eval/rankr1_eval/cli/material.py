"""The options of `rankr1-eval reproduce` that say what is reranked, and the collections that they make.

Knows names and files; asks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rankr1_eval.data.collections import from_files, judged
from rankr1_eval.reproduce.prepared import Prepared, prepared
from rankr1_eval.reproduce.targets import Target, parse
from rankr1_eval.types import Judged
from rankr1_rag.errors import FileError

FIRST, WHERE = "First stage", "Collection"


def _option(help: str, panel: str, **more: Any) -> Any:  # noqa: ANN401
    return typer.Option(help=help, rich_help_panel=panel, **more)


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is reranked: the first stage, the collection, how much of it."""

    run: Annotated[
        Path | None, _option("A TREC run; for dl19 and dl20 there must be one, else BM25 by bm25s.", FIRST)
    ] = None
    runs: Annotated[
        Path | None, _option("For beir and bright: a folder with NAME.trec for each collection.", FIRST)
    ] = None
    depth: Annotated[int, _option("So many candidates of each query.", FIRST, min=2)] = 100
    collections: Annotated[str | None, _option("Those of beir or bright, with commas; else bright's 12.", WHERE)] = None
    queries: Annotated[Path | None, _option("A file instead of the hub's: id<TAB>text, or JSON lines.", WHERE)] = None
    passages: Annotated[Path | None, _option("With --queries: id<TAB>text, or JSON lines.", WHERE)] = None
    qrels: Annotated[Path | None, _option("With --queries: TREC's or BEIR's.", WHERE)] = None
    sample: Annotated[int | None, _option("A trial with a seeded sample of so many queries.", WHERE, min=1)] = None

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

    def prepared(self, target: Target, seed: int) -> Iterator[Prepared]:
        """Each collection when it is reached, all of their runs being there. FileError, ValueError, ImportError."""
        runs = {name: self._run(target, name) for name in target.collections}
        return (
            prepared(self._judged(name), run, self.depth, self.sample, seed, self._files) for name, run in runs.items()
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
