"""The commands put together. All ranking happens below."""

from __future__ import annotations

from typing import Annotated

import typer

from rankr1_rag import __version__
from rankr1_rag.cli.demo import demo
from rankr1_rag.cli.explain import explain
from rankr1_rag.cli.rerank import rerank
from rankr1_rag.cli.settings import with_settings
from rankr1_rag.cli.train import app as train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command(no_args_is_help=True)(with_settings(rerank))
app.command(no_args_is_help=True)(with_settings(explain))
app.command()(with_settings(demo, k=5))
app.add_typer(train, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rankr1 {__version__}")
        raise typer.Exit


@app.callback()
def _rankr1(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rerank passages with a language model that reasons before it picks (Rank-R1, arXiv 2503.06034)."""
