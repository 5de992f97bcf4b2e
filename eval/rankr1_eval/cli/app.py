"""The commands together. Heavy modules are imported when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from rankr1_eval import __version__
from rankr1_eval.cli.compare import compare
from rankr1_eval.cli.comparisons import WITHOUT, comparisons
from rankr1_eval.cli.examples import examples
from rankr1_eval.cli.ir import ir
from rankr1_eval.cli.qa import qa
from rankr1_eval.cli.reproduce import reproduce
from rankr1_eval.cli.score import score
from rankr1_eval.cli.selection import selection
from rankr1_rag.cli.app import Commands
from rankr1_rag.cli.options import with_settings
from rankr1_rag.settings import TOP_N, EffectiveDefault

app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rankr1-eval {__version__}")
        raise typer.Exit


@app.callback()
def _rankr1_eval(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What reranking does to rankings and to the answers of multi-hop questions."""


app.command(no_args_is_help=True)(with_settings(qa, k=TOP_N))
app.command(no_args_is_help=True, hidden=True)(selection)
app.command(no_args_is_help=True)(score)
app.command(no_args_is_help=True)(ir)
app.command(no_args_is_help=True)(compare)
app.command(no_args_is_help=True)(with_settings(examples, split="train"))
app.command(no_args_is_help=True, hidden=True)(with_settings(comparisons, without=WITHOUT, size=5))
app.command(no_args_is_help=True)(
    with_settings(
        reproduce,
        k=10,
        algorithm="heapsort",
        query_tokens=EffectiveDefault("the paper's"),
        passage_tokens=EffectiveDefault("the paper's"),
        force=EffectiveDefault("never, as in the paper"),
        store=EffectiveDefault("OUT/completions.sqlite"),
    )
)
