"""Log-probabilities of tokens to probabilities of whole labels, however a tokenizer spells them."""

from collections.abc import Sequence
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.prompt import shares
from rankr1_rag.types import TokenLogprob
from tests.spelling import Spell, spelled


def by_number(text: str) -> list[str]:
    digits, bracket, rest = text.partition("]")
    return [part for part in (digits, bracket, rest) if part]


def bracket_merged(text: str) -> list[str]:
    digits, bracket, rest = text.partition("]")
    return [*digits, f"{bracket}{rest}"]


def labels(weights: Sequence[float]) -> dict[str, float]:
    return {f"{place}]</answer>": weight / sum(weights) for place, weight in enumerate(weights, start=1)}


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=20),
    spell=st.sampled_from([list, by_number, bracket_merged]),
    data=st.data(),
)
def test_the_probability_of_every_label_is_found_however_it_is_spelled(
    weights: list[float], spell: Spell, data: st.DataObject
) -> None:
    choices = labels(weights)
    found = shares(list(choices), spelled(choices, data.draw(st.sampled_from(list(choices))), spell))
    assert found is not None
    while found.opened:  # the model is asked for the rest, as the engine does
        begun, mass = found.opened.popitem()
        rest = [choice[len(begun) :] for choice in choices if choice.startswith(begun)]
        # a model hardly ever continues where no token of the choice ends
        ends = [begun in ["".join(spell(begun + one)[:i]) for i in range(len(begun + one))] for one in rest]
        weighed = {one: choices[begun + one] * end for one, end in zip(rest, ends, strict=True)}
        below = {one: weight / sum(weighed.values()) for one, weight in weighed.items()}
        found.divide(begun, mass, rest, spelled(below, max(below, key=below.__getitem__), spell))
    assert found.settled == pytest.approx(choices, abs=1e-9)
    assert sum(found.settled.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("number", "choice", "tokens", "opened", "settled"),
    [
        (20, "3]</answer>", 99, {"1": 11 / 20, "2": 2 / 20}, range(3, 10)),
        (20, "12]</answer>", 1, {"1": 11 / 20, "2": 2 / 20}, range(3, 10)),
        (12, "12]</answer>", 99, {}, range(1, 13)),
    ],
    ids=["1 pools 10 to 19", "cut off", "a label that was written needs no request"],
)
def test_labels_that_begin_alike_share_the_probability_of_their_first_digit(
    number: int, choice: str, tokens: int, opened: dict[str, float], settled: range
) -> None:
    choices = labels([1.0] * number)
    found = shares(list(choices), spelled(choices, choice)[:tokens])
    assert found is not None
    assert found.opened == pytest.approx(opened)
    assert set(found.settled) == {f"{label}]</answer>" for label in settled}


def test_alternatives_that_begin_no_choice_are_left_out_and_the_others_renormalised() -> None:
    top = (("1", log(0.3)), ("2", log(0.1)), ("the", log(0.5)), ("7", log(0.1)))
    found = shares(["1]", "2]"], [TokenLogprob("1", log(0.3), top)])
    assert found is not None
    assert found.settled == pytest.approx({"1]": 0.75, "2]": 0.25})


@pytest.mark.parametrize("top", [None, (), (("the", -0.1), ("a", -3.0))], ids=["no token", "no top", "no choice"])
def test_a_backend_that_gives_no_alternatives_gives_no_probabilities(top: tuple[tuple[str, float], ...] | None) -> None:
    assert shares(["1]", "2]"], [] if top is None else [TokenLogprob("the" if top else "1", -0.1, top)]) is None
