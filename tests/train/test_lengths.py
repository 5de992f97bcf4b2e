"""Batches of similar lengths: nothing is lost, and the order follows from the seed."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.train.sft import WINDOW, group_by_length


def rows(lengths: list[int]) -> list[dict[str, Any]]:
    return [{"input_ids": [0] * length, "number": number} for number, length in enumerate(lengths)]


@given(st.lists(st.integers(1, 9), max_size=120), st.integers(1, 5), st.integers())
def test_every_row_comes_once_and_from_nearby(lengths: list[int], batch: int, seed: int) -> None:
    ordered = group_by_length(rows(lengths), batch, seed)
    assert group_by_length(rows(lengths), batch, seed) == ordered
    numbers = [row["number"] for row in ordered]
    assert sorted(numbers) == list(range(len(lengths)))
    assert all(place // (WINDOW * batch) == number // (WINDOW * batch) for place, number in enumerate(numbers))


def test_a_batch_holds_rows_of_similar_lengths_and_the_batches_are_mixed() -> None:
    lengths = [(7 * number) % 64 for number in range(WINDOW * 4)]
    ordered = [len(row["input_ids"]) for row in group_by_length(rows(lengths), 4, 1)]
    batches = [ordered[at : at + 4] for at in range(0, len(ordered), 4)]
    assert all(max(batch) - min(batch) == 3 for batch in batches)
    assert batches != sorted(batches)
    assert group_by_length(rows(lengths), 4, 2) != group_by_length(rows(lengths), 4, 1)
