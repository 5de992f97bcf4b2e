"""Single comparisons: sets with one right passage each, every one asked once, and how often that is named.

    drawn      the sets by id, drawn as training draws them
    asking     each set asked once, what came of it kept as a record
    rivals     which passage of a set the order shown, BM25 and an embedding model would name
    scoring    accuracy, places and format, with intervals over questions

Importing this loads nothing heavy.
"""

from rankr1_eval.comparisons.asking import Answered, answered, ask, elsewhere, opened
from rankr1_eval.comparisons.drawn import drawn
from rankr1_eval.comparisons.rivals import rivals
from rankr1_eval.comparisons.scoring import MODEL, RIGHT, Group, Result, score

__all__ = [
    "MODEL",
    "RIGHT",
    "Answered",
    "Group",
    "Result",
    "answered",
    "ask",
    "drawn",
    "elsewhere",
    "opened",
    "rivals",
    "score",
]
