"""The scores of a run as values: each question's, their means with intervals, paired differences, groups.

Knows no file and no measure by name: `score.py` fills them in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Each = Mapping[str, Mapping[str, float]]
"""Measure to question id to score."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over n questions with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean paired difference with its 95 % bootstrap interval and the p of a two-sided randomisation test."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class RowScores:
    """One row's scores. `differences` are from the row "none", empty where there is none and for that row itself.

    `cost` holds means. A question: comparisons, rounds, passages_read, prompt_tokens, cached_tokens, completion_tokens,
    think_tokens, unparsed, forced and seconds, all 0 for a row that no model ordered, and retrieved, the passages found
    between hops, for a row that retrieves there. A reading (a question at one k):
    reader_prompt_tokens, reader_completion_tokens, reader_seconds, and reader_empty, the share that brought no answer
    string. Seconds are of what was asked, not of what a store held, and not there where it held all. `missing` are the
    ids of questions that lack an order or a reading, because something failed: what is missing counts as 0.
    """

    name: str
    each: Each
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    cost: Mapping[str, float]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """A run's scores by row. `groups`: "type" or "hops" to its value to row to measure to estimate."""

    rows: Mapping[str, RowScores]
    groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Estimate]]]]
