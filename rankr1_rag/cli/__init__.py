"""The command line: `rankr1 rerank | explain | demo | serve | train`. Imports nothing before it can be interrupted."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it with exit code 130 and without a traceback, also while it loads."""
    try:
        from rankr1_rag.cli.app import app, run

        run(app)
    except KeyboardInterrupt:
        sys.exit(130)
