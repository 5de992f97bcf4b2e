"""The reward: form and label, each told apart, and 1.0 for both alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.prompt import FORMATS
from rankr1_rag.train.evaluate import Reward, reward

NAMING, PLAIN = FORMATS["naming-v1"], FORMATS["setwise-sft-v0.1"]


@pytest.mark.parametrize(
    ("text", "kept", "right"),
    [
        ("<think> Fleas </think> <answer>[2]</answer>", True, True),
        ("<think> Fleas </think> <answer>[1]</answer>", True, False),
        ("<answer>[2]</answer>", False, True),
        ("<think> Fleas </think> <answer>Passage [2].</answer> Done.", False, True),
        ("<think> Fleas </think> <answer>[6]</answer>", False, False),
        ("<think> like <answer>[2]</answer>, cut", False, False),
        ("", False, False),
    ],
)
def test_form_and_label_are_told_apart(text: str, kept: bool, right: bool) -> None:
    assert reward(NAMING, text, 5, 1) == Reward(kept, right)
    assert reward(NAMING, text, 5, 1).value == float(kept and right)


def test_a_format_without_reasoning_is_rewarded_for_the_answer_alone() -> None:
    assert reward(PLAIN, "<answer>[2]</answer>", 5, 1).value == 1.0
    assert reward(PLAIN, "<think> Fleas </think> <answer>[2]</answer>", 5, 1) == Reward(False, True)


@given(st.integers(1, 20), st.integers(0, 19), st.integers(0, 19), st.text(), st.text())
def test_the_value_is_one_exactly_where_strict_reads_the_right_place(
    n: int, right: int, place: int, before: str, after: str
) -> None:
    for format in FORMATS.values():
        for text in (before + after, before + format.answer(place, after)):
            earned = reward(format, text, n, right).value
            assert earned == float((format.strict(text, n) or (None,))[0] == right)
