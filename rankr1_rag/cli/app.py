"""The commands of `rankr1`, and the exit codes of their errors.

Exit codes: 0 done, 1 something failed, 2 a wrong argument or file, 130 interrupted. A bug keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any, TextIO

import typer
import typer.core
from rich.console import Console
from rich.text import Text

from rankr1_rag import __version__
from rankr1_rag.cli.demo import HOPS, K, demo
from rankr1_rag.cli.explain import explain
from rankr1_rag.cli.models import models
from rankr1_rag.cli.options import UsageError, with_settings
from rankr1_rag.cli.rerank import rerank
from rankr1_rag.cli.serve import serve
from rankr1_rag.cli.train import app as train
from rankr1_rag.errors import FileError, RankR1Error
from rankr1_rag.explain import clean
from rankr1_rag.redaction import excerpt, redact
from rankr1_rag.settings import EffectiveDefault


class Commands(typer.core.TyperGroup):
    """Commands whose errors show no wrong value that may be a key in the wrong place."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Invoke the command of these arguments."""
        try:
            return super().invoke(ctx)
        except Exception as error:  # a UsageError of click, or of the copy of click in newer versions of typer
            if isinstance(message := getattr(error, "message", None), str):
                vars(error)["message"] = excerpt(message, 1_000, strict=True)
            raise


class RedactedStream:
    """A stream for text that no secret passes, whoever writes: errors, logs, warnings and tracebacks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without secrets."""
        return self._stream.write(redact(text))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_STORE = EffectiveDefault("OUT.partial.sqlite until the job is done, if --out is a file")
app.command(no_args_is_help=True)(with_settings(rerank, store=_STORE))
app.command(no_args_is_help=True)(with_settings(explain, without={"query"}))  # its --query is an id
app.command()(with_settings(demo, k=K, hops=HOPS))
app.command()(with_settings(serve, without={"in_flight"}))
app.command()(models)
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


def run(app: typer.Typer) -> None:
    """Run one of the app's commands. An error that the caller can fix is printed in one line, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.stderr = RedactedStream(sys.stderr)
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: print nothing more at exit
        sys.exit(1)
    except (UsageError, RankR1Error, OSError) as error:
        text, is_wrong_path = str(error), False
        if isinstance(error, OSError) and error.filename and error.strerror:
            is_wrong_path = error.errno in WRONG_PATH
            text = f"{error.filename}: {error.strerror}{': check the path' if is_wrong_path else ''}"
        line = Text.assemble(("error: ", "bold red"), clean(text).replace("\n", "\\n"))
        Console(stderr=True).print(line, soft_wrap=True)
        is_usage = isinstance(error, UsageError | FileError | FileNotFoundError | PermissionError)
        sys.exit(2 if is_usage or is_wrong_path else 1)


WRONG_PATH = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
