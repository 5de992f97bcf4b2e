"""A run as a report for people: `report.html`, one page that needs nothing else, and `report.md` with the same tables.

Takes an `EvaluatedRun` and its `Scores`. Must not import models or data sets.
"""

from __future__ import annotations

from pathlib import Path

from rankr1_eval.report.markdown import markdown
from rankr1_eval.report.page import page
from rankr1_eval.scoring import EvaluatedRun
from rankr1_eval.types import Scores
from rankr1_rag.io.files import writing

__all__ = ["write_report"]


def write_report(run: EvaluatedRun, scores: Scores, folder: str | Path) -> None:
    """Write report.html and report.md into the folder, each whole or not at all."""
    for name, content in (("report.html", page(run, scores)), ("report.md", markdown(run, scores))):
        with writing(Path(folder) / name) as out:
            out.write(content)
