"""A run as people read it: `report.html`, one page that needs nothing else, and `report.md` with the same tables.

Takes a `Run` and its `Scores`; knows no model and no data set, and no files but the two that it writes.
"""

from __future__ import annotations

from pathlib import Path

from rankr1_eval.report.markdown import write_markdown
from rankr1_eval.report.page import write_page
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Scores

__all__ = ["write_markdown", "write_page", "write_report"]


def write_report(run: EvaluatedRun, scores: Scores, folder: str | Path) -> None:
    """Write report.html and report.md into the folder, each whole or not at all."""
    write_page(run, scores, Path(folder) / "report.html")
    write_markdown(run, scores, Path(folder) / "report.md")
