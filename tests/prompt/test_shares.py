"""Log-probabilities of tokens to probabilities of whole labels, however a tokenizer spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.prompt import shares
from rankr1_rag.types import TokenLogprob

Spell = Callable[[str], list[str]]


def by_character(text: str) -> list[str]:
    return list(text)


def by_number(text: str) -> list[str]:
    digits, bracket, rest = text.partition("]")
    return [part for part in (digits, bracket, rest) if part]


def bracket_merged(text: str) -> list[str]:
    digits, bracket, rest = text.partition("]")
    return [*digits, f"{bracket}{rest}"]


def said(choices: dict[str, float], choice: str, spell: Spell) -> list[TokenLogprob]:
    """What a server that holds the model to these choices gives, where it chose this one."""
    tokens, begun, mass = [], "", 1.0
    for token in spell(choice):
        top: dict[str, float] = {}
        for other, probability in choices.items():
            spelled = spell(other)
            place = next((i for i in range(len(spelled)) if "".join(spelled[:i]) == begun), None)
            if place is not None:
                top[spelled[place]] = top.get(spelled[place], 0.0) + probability / mass
        tokens.append(TokenLogprob(token, _log(top[token]), tuple((text, _log(p)) for text, p in top.items())))
        begun, mass = begun + token, mass * top[token]
        if not mass:
            break
    return tokens


def resolved(choices: dict[str, float], chosen: str, spell: Spell) -> dict[str, float]:
    """Every choice's probability, asking further as the engine does."""
    found = shares(list(choices), said(choices, chosen, spell))
    assert found is not None
    while found.opened:
        begun, mass = found.opened.popitem()
        rest = [choice[len(begun) :] for choice in choices if choice.startswith(begun)]
        weights = {one: choices[begun + one] * _spelled_apart(begun, begun + one, spell) for one in rest}
        below = {one: weight / sum(weights.values()) for one, weight in weights.items()}
        found.divide(begun, mass, rest, said(below, max(below, key=below.__getitem__), spell))
    return found.settled


def _spelled_apart(begun: str, choice: str, spell: Spell) -> bool:
    """Whether a token of the choice ends where this beginning does: else a model hardly ever goes on so."""
    return begun in ["".join(spell(choice)[:i]) for i in range(len(choice))]


def labels(weights: Sequence[float]) -> dict[str, float]:
    return {f"{place}]</answer>": weight / sum(weights) for place, weight in enumerate(weights, start=1)}


def _log(probability: float) -> float:
    return log(probability) if probability else -inf


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=20),
    spell=st.sampled_from([by_character, by_number, bracket_merged]),
    data=st.data(),
)
def test_the_probability_of_every_label_is_found_however_it_is_spelled(
    weights: list[float], spell: Spell, data: st.DataObject
) -> None:
    choices = labels(weights)
    chosen = data.draw(st.sampled_from(list(choices)))
    found = resolved(choices, chosen, spell)
    assert found == pytest.approx(choices, abs=1e-9)
    assert sum(found.values()) == pytest.approx(1)


def test_the_first_digit_of_twelve_pools_one_and_ten_to_nineteen() -> None:
    choices = labels([1.0] * 20)
    found = shares(list(choices), said(choices, "3]</answer>", by_character))
    assert found is not None
    assert found.opened == pytest.approx({"1": 11 / 20, "2": 2 / 20})
    cut = shares(list(choices), said(choices, "12]</answer>", by_character)[:1])
    assert cut is not None
    assert cut.opened == pytest.approx(found.opened)
    assert set(found.settled) == {f"{label}]</answer>" for label in range(3, 10)}


def test_what_was_said_itself_need_not_be_asked_for_again() -> None:
    choices = labels([1.0] * 12)
    found = shares(list(choices), said(choices, "12]</answer>", by_character))
    assert found is not None
    assert not found.opened
    assert len(found.settled) == 12


def test_alternatives_that_begin_no_choice_are_left_out_and_the_others_renormalised() -> None:
    top = (("1", log(0.3)), ("2", log(0.1)), ("the", log(0.5)), ("7", log(0.1)))
    found = shares(["1]", "2]"], [TokenLogprob("1", log(0.3), top)])
    assert found is not None
    assert found.settled == pytest.approx({"1]": 0.75, "2]": 0.25})


def test_a_backend_that_gives_no_alternatives_gives_no_probabilities() -> None:
    assert shares(["1]", "2]"], [TokenLogprob("1", -0.1)]) is None
    assert shares(["1]", "2]"], []) is None
    assert shares(["1]", "2]"], [TokenLogprob("the", -0.1, (("the", -0.1), ("a", -3.0)))]) is None
