"""How sure a mean is: 95 % bootstrap intervals, and the p of a paired difference.

The interval is the percentile bootstrap's (Efron 1979; for retrieval Sakai 2006): the questions are drawn with
replacement, and all columns of a table share the draws. The p is that of the paired randomisation test (Fisher 1935;
Smucker, Allan and Carterette 2007): were the two systems the same, each question's difference might as well have had
the other sign. Both are the same for the same numbers, whatever ran before. scipy has both, with the same results, but
needs minutes for 10,000 questions and the measures of a whole run; a matrix product needs seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from rankr1_eval.types import Difference, Estimate

Table = NDArray[np.float64]
"""A line a question, a column a measure."""

RESAMPLES = 5_000
FLIPS = 10_000
CHUNK = 4_000_000
"""Numbers drawn at a time, 32 MB. With fewer the threads of the matrix product mostly wait for each other."""

EXACT = 13
"""Up to this number of questions all sign flips, 8,192 at most, are fewer than would be drawn."""

ROUNDING = 1e-9
"""Sums of the same numbers in another order count as equal."""


def table(columns: Iterable[Mapping[str, float]], ids: Iterable[str]) -> Table:
    """The numbers of the columns, a line an id."""
    lines = list(ids)
    return np.array([[column[id] for id in lines] for column in columns], dtype=np.float64).T


def estimates(table: Table, seed: int = 0, weights: Table | None = None) -> list[Estimate]:
    """Each column's mean with its interval. One question has no spread: the interval is the value itself.

    With `weights` (a column, or one for each of the table's) the numbers are sums over things of a question, its
    comparisons for example, `weights` is how many, and the means are over those; questions are drawn all the same.
    """
    means, low, high = _bootstrap(table, seed, weights)
    ends = zip(means.tolist(), low.tolist(), high.tolist(), strict=True)
    return [Estimate(mean, least, most, len(table)) for mean, least, most in ends]


def differences(table: Table, seed: int = 0, weights: Table | None = None) -> list[Difference]:
    """Of paired differences, a column a measure: the mean, its interval and the two-sided p; `weights` as there.

    Up to 13 questions the p is exact, else the share of 10,000 random flips, the observed one counted among them.
    """
    means, low, high = _bootstrap(table, seed, weights)
    ps = _randomised(table, seed)
    return [Difference(*map(float, values)) for values in zip(means, low, high, ps, strict=True)]


def _bootstrap(table: Table, seed: int, weights: Table | None) -> tuple[Table, Table, Table]:
    """The means of the columns and the ends of their intervals."""
    if table.ndim != 2 or not len(table):
        raise ValueError(f"scores of shape {table.shape}: must be a line a question, at least one, a column a measure")
    if not np.isfinite(table).all():
        raise ValueError("a score is not a finite number")
    each = np.ones((len(table), 1)) if weights is None else weights
    if each.shape not in (table.shape, (len(table), 1)):
        raise ValueError(f"weights of shape {each.shape} for scores of shape {table.shape}: must be one a line")
    if not (np.isfinite(each).all() and (each >= 0).all() and (each.sum(axis=0) > 0).all()):
        raise ValueError("weights must be finite numbers ≥ 0, and at least one of a column above 0")
    means = table.sum(axis=0) / each.sum(axis=0)
    centred = table - each * means  # so that equal scores have an interval without width
    resampled = []
    for counts in _draws(len(table), seed):
        sums, drawn = counts @ centred, counts @ each
        # 0, the mean itself, where nothing that counts was drawn
        resampled.append(np.divide(sums, drawn, out=np.zeros_like(sums), where=drawn > 0))
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975], axis=0)
    values = np.divide(table, each, out=np.full_like(table, np.nan), where=each > 0)
    least, most = np.nanmin(values, axis=0), np.nanmax(values, axis=0)  # rounding must not leave them, or 0 becomes -0
    return means, np.clip(means + low, least, most), np.clip(means + high, least, most)


def _randomised(table: Table, seed: int) -> Table:
    """The share of sign flips whose sum is as far from 0 as the observed one."""
    observed = np.abs(table.sum(axis=0)) * (1 - ROUNDING) - ROUNDING
    as_far = np.zeros(table.shape[1])
    n, exact = len(table), len(table) <= EXACT
    every = [1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)] if exact else _random_signs(n, seed)
    for signs in every:
        as_far += (np.abs(signs @ table) >= observed).sum(axis=0)
    return as_far / 2**n if exact else (as_far + 1) / (FLIPS + 1)


def _draws(n: int, seed: int) -> Iterator[Table]:
    """How often each of n questions was drawn, a line a resample."""
    random = np.random.default_rng([seed, n, 0])
    for lines in _chunks(RESAMPLES, n):
        drawn = random.integers(0, n, size=(lines, n))
        drawn += n * np.arange(lines)[:, None]
        yield np.bincount(drawn.ravel(), minlength=lines * n).reshape(lines, n).astype(np.float64)


def _random_signs(n: int, seed: int) -> Iterator[Table]:
    random = np.random.default_rng([seed, n, 1])
    for lines in _chunks(FLIPS, n):
        bits = np.unpackbits(np.frombuffer(random.bytes(lines * (n // 8 + 1)), np.uint8).reshape(lines, -1), axis=1)
        yield 1.0 - 2.0 * bits[:, :n].astype(np.float64)


def _chunks(lines: int, n: int) -> Iterator[int]:
    """How many of the lines, of n numbers each, are made at a time."""
    size = max(1, CHUNK // n)
    for start in range(0, lines, size):
        yield min(size, lines - start)
