"""What a finished run leaves in its folder: scores, report, and the forms for other programs.

Knows what each is called; nothing of how it is made.
"""

from __future__ import annotations

import json
from pathlib import Path

from rankr1_eval.exports import export
from rankr1_eval.report import write_report
from rankr1_eval.results import Run
from rankr1_eval.score import score, to_json
from rankr1_eval.scores import Scores
from rankr1_rag.files import writing


def finish(run: Run, folder: Path) -> tuple[Scores, str]:
    """Score a run and write it all, each file whole or not at all. The scores; and what could not be written, or ""."""
    scores = score(run)
    with writing(folder / "scores.json") as out:
        json.dump(to_json(scores), out)
    write_report(run, scores, folder)
    return scores, export(run, folder)
