"""The command line: `rankr1-eval qa | ir | score | selection | compare | examples | comparisons | reproduce`.

Only the way in: it imports nothing before it can be interrupted. All else is in `app`.
"""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with 130 and without a traceback, while it still loads too."""
    try:
        from rankr1_eval.cli.app import app
        from rankr1_rag.cli.app import run

        run(app)
    except KeyboardInterrupt:
        sys.exit(130)
