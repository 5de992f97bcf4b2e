"""What a model learns to write by supervision: a label alone, or a thought that names the passage and its label.

A small model that says what it picks before it picks learns far faster than one shown labels only; such thoughts are
made from the labels, with no reasoning to imitate. Knows passages and formats; nothing of models.
"""

from __future__ import annotations

from typing import Literal

from rankr1_rag.prompt import Format, sanitise
from rankr1_rag.types import Passage

Kind = Literal["label", "naming"]

_WORDS = 6
"""Words of a passage without a title that name it."""

_ROUND = str.maketrans("[]", "()")
"""A name in the thought must not look like a label."""


def target(kind: Kind, passage: Passage, label: int, format: Format) -> str:
    """The completion that picks the passage under this label ≥ 1: "label" the answer alone, "naming" a name before it.

    ValueError for a listwise format, and for "naming" in a format without reasoning.
    """
    if format.kind != "setwise":
        raise ValueError(
            f"format {format.name!r} wants whole orders and a target names one passage: take a setwise one"
        )
    if label < 1:
        raise ValueError(f"label={label}: labels count from 1")
    if kind == "label":
        return format.answer(label - 1)
    if not format.reasoning:
        raise ValueError(f"format {format.name!r} has no thought that could name the passage: take target 'label'")
    return format.answer(label - 1, name(passage, format))


def name(passage: Passage, format: Format) -> str:
    """The title as the format shows it, else the first six words of the text; on one line, no label or tag in it."""
    title = format.line(Passage("", "", passage.title))
    words = title.split() or format.line(passage).split()[:_WORDS]
    return sanitise(" ".join(words)).translate(_ROUND)
