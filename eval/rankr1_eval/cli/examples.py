"""`rankr1-eval examples`: training examples for `rankr1 train`, from multi-hop questions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from rankr1_eval.cli.options import QuestionOptions
from rankr1_rag.cli.options import UsageError, arguments
from rankr1_rag.explain import clean
from rankr1_rag.io.files import check_apart, check_output, is_stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rankr1_eval.training_examples import ExamplesMade
    from rankr1_rag.train.data import Example

SHARE = 0.1


def examples(
    *,
    source: QuestionOptions,
    out: Annotated[Path, typer.Option(help="File for the examples, JSON lines; compressed if its name ends in .gz.")],
    held_out: Annotated[
        Path | None, typer.Option(help="File for the examples of questions that are kept out of OUT.")
    ] = None,
    held_share: Annotated[
        float | None, typer.Option(help=f"Fraction of questions for --held-out (default: {SHARE}).")
    ] = None,
    depth: Annotated[int, typer.Option(help="Passages of BM25 among which the negatives are.")] = 50,
    found: Annotated[
        int | None, typer.Option(help="Passages of BM25 among which positives must be (default: no limit).")
    ] = None,
    known: Annotated[bool, typer.Option("--known", help="Examples in which another support is known already.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the held-out questions and of a sample.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on standard output.")] = False,
) -> None:
    """Make training examples of multi-hop questions: positives are the supports, negatives other passages of BM25.

    rankr1-eval examples --dataset hotpotqa --data hotpot_train_v1.1.json --out train.jsonl --held-out held.jsonl

    BM25 searches the paragraphs of all questions of the file, so the negatives are such as a reranker meets, hardest
    first. Questions without a support in them are left out and counted. With --known each support is the positive where
    another of its question is known already, as in hop-aware reranking.
    """
    from rankr1_eval import data, training_examples
    from rankr1_eval.data.loading import corpus, sample
    from rankr1_rag.train.data import EXAMPLES, write_examples

    if held_out is None and held_share is not None:
        raise UsageError("--held-share needs --held-out, the file for that share: add it, or leave it out")
    check_apart([out, held_out, "-" if as_json else None], [source.data])
    check_output(out, EXAMPLES)
    check_output(held_out, EXAMPLES)
    with arguments():
        everything = data.load(source.dataset, source.data, split=source.split)
        asked = sample(everything, source.questions, seed)
        pool = corpus(everything, asked, source.pool, seed)
        made = training_examples.examples(asked, depth, source.dataset, pool, found)
        if not made.examples:
            raise ValueError(f"no example could be made: {next(iter(made.left_out.values()))}")
        kept: list[Example] = list(made.examples)
        held: list[Example] = []
        if held_out is not None:
            kept, held = training_examples.apart(made.examples, SHARE if held_share is None else held_share, seed)
        if known:
            kept, held = (training_examples.known(some, made.passages, seed, depth) for some in (kept, held))
    files = {out: kept, **({held_out: held} if held_out else {})}
    for path, some in files.items():
        write_examples(path, some)
    if as_json:
        figures = {
            "dataset": source.dataset,
            "depth": depth,
            "found": found,
            "known": known,
            "seed": seed,
            "examples": len(kept),
            "held_out": len(held),
            "positives": sum(len(example.positives) for example in made.examples),
            "negatives": sum(len(example.negatives) for example in made.examples),
            "passages": len(made.passages),
            "absent": made.absent,
            "left_out": made.left_out,
        }
        typer.echo(json.dumps(figures))
        return
    _print(made, files)


def _print(made: ExamplesMade, files: Mapping[Path, Sequence[Example]]) -> None:
    console = Console(stderr=any(map(is_stream, files)))
    for path, some in files.items():
        positives = sum(len(example.positives) for example in some)
        console.print(Text(clean(f"{path}: {len(some):,} examples, {positives:,} positives")))
    console.print(f"negatives by BM25 over {len(made.passages):,} passages")
    for reason, number in Counter(made.left_out.values()).items():
        console.print(Text(clean(f"{number:,} left out: {reason}"), style="yellow"))
    if made.absent:
        console.print(Text(f"{made.absent:,} supports are in no paragraph and no example", style="yellow"))
