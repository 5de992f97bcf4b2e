"""What becomes of the errors of a command.

Exit codes: 0 done, 1 something failed, 2 a wrong argument or file, 130 interrupted. What is nobody's fault but ours
keeps its traceback. Knows no command.
"""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console
from rich.text import Text

from rankr1_rag.cli.usage import UsageError
from rankr1_rag.errors import FileError, RankR1Error
from rankr1_rag.explain import clean


def run(app: typer.Typer) -> None:
    """Run one of the app's commands; what the caller can mend is told in one line, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: say nothing more at exit
        sys.exit(1)
    except (UsageError, FileError, FileNotFoundError, IsADirectoryError) as error:
        _tell(error)
        sys.exit(2)
    except (RankR1Error, OSError) as error:
        _tell(error)
        sys.exit(1)


def _tell(error: Exception) -> None:
    text = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), clean(text)), soft_wrap=True)
