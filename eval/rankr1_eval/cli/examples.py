"""`rankr1-eval examples`: what `rankr1 train` trains on, made of multi-hop questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from rankr1_eval.cli.options import Source
from rankr1_rag.cli.options import UsageError, arguments
from rankr1_rag.explain import clean

if TYPE_CHECKING:
    from rankr1_eval.training_examples import Made
    from rankr1_rag.train.data import Example

SHARE = 0.1


def examples(
    *,
    source: Source,
    out: Annotated[Path, typer.Option(help="The examples, JSON lines; a name that ends in .gz is compressed.")],
    held_out: Annotated[
        Path | None, typer.Option(help="Keep a share of the questions out of OUT and write them here.")
    ] = None,
    held_share: Annotated[
        float | None, typer.Option(help=f"How great a share, for --held-out. [default: {SHARE}]")
    ] = None,
    depth: Annotated[int, typer.Option(help="Negatives are the first so many of BM25, without the supports.")] = 50,
    found: Annotated[
        int | None, typer.Option(help="Positives are only supports among BM25's first so many, which a reranker meets.")
    ] = None,
    known: Annotated[bool, typer.Option("--known", help="Examples in which another support is known already.")] = False,
    seed: Annotated[int, typer.Option(help="Draws what is held out, and a sample of the questions.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Make training examples of multi-hop questions: positives are the supports, negatives what BM25 finds beside them.

    rankr1-eval examples --dataset hotpotqa --data hotpot_train_v1.1.json --out train.jsonl --held-out held.jsonl

    BM25 searches the paragraphs of all questions of the file, so the negatives are what a reranker is really shown,
    hardest first. Questions without a support in them are left out and counted. With --known each support is to be
    named when another of its question is known: what hop-aware reranking asks for.
    """
    from rankr1_rag.train.data import write_examples

    _check(out, held_out, held_share)
    with arguments():
        made = _made(source, depth, found, seed)
        kept, held = _apart(made, held_out, SHARE if held_share is None else held_share, seed)
        if known:
            kept, held = (_known(made, some, seed, depth) for some in (kept, held))
    write_examples(out, kept)
    if held_out is not None:
        write_examples(held_out, held)
    if as_json:
        told = {"dataset": source.dataset, "depth": depth, "found": found, "known": known, "seed": seed}
        typer.echo(json.dumps(told | _figures(made, kept, held)))
    else:
        _tell(Console(), made, {out: kept, **({held_out: held} if held_out else {})})


def _check(out: Path, held_out: Path | None, held_share: float | None) -> None:
    if held_out is None and held_share is not None:
        raise UsageError("--held-share says how much goes to --held-out: give that file, or leave it out")
    if held_out is not None and held_out.resolve() == out.resolve():
        raise UsageError(f"--held-out and --out are both {out}: what is held out must not be trained on")


def _made(source: Source, depth: int, found: int | None, seed: int) -> Made:
    from rankr1_eval import data
    from rankr1_eval.data.loading import corpus, sample
    from rankr1_eval.training_examples import examples

    everything = data.load(source.dataset, source.data, split=source.split)
    asked = sample(everything, source.questions, seed)
    made = examples(asked, depth, source.dataset, corpus(everything, asked, source.pool, seed), found)
    if not made.examples:
        raise ValueError(f"no example could be made: {next(iter(made.left_out.values()))}")
    return made


def _apart(made: Made, held_out: Path | None, share: float, seed: int) -> tuple[Sequence[Example], Sequence[Example]]:
    from rankr1_eval.training_examples import apart

    return apart(made.examples, share, seed) if held_out is not None else (made.examples, ())


def _known(made: Made, some: Sequence[Example], seed: int, depth: int) -> Sequence[Example]:
    from rankr1_eval.training_examples import known

    return known(some, made.passages, seed, depth)


def _figures(made: Made, kept: Sequence[Example], held: Sequence[Example]) -> dict[str, object]:
    return {
        "examples": len(kept),
        "held_out": len(held),
        "positives": sum(len(example.positives) for example in made.examples),
        "negatives": sum(len(example.negatives) for example in made.examples),
        "passages": len(made.passages),
        "absent": made.absent,
        "left_out": made.left_out,
    }


def _tell(console: Console, made: Made, files: dict[Path, Sequence[Example]]) -> None:
    for path, written in files.items():
        positives = sum(len(example.positives) for example in written)
        console.print(Text(clean(f"{path}: {len(written):,} examples, {positives:,} positives")))
    console.print(f"negatives by BM25 over {len(made.passages):,} passages")
    for reason, number in Counter(made.left_out.values()).items():
        console.print(Text(clean(f"{number:,} left out: {reason}"), style="yellow"))
    if made.absent:
        console.print(Text(f"{made.absent:,} supports are in no paragraph and no example", style="yellow"))
