"""Sets drawn from examples: what they hold, what they depend on, and that nothing else changes them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.train.data import Example, TrainingSet, sets
from rankr1_rag.types import Passage, Query


def example(id: str, positives: int = 1, negatives: int = 30) -> Example:
    right = tuple(Passage(f"{id}+{n}", f"right {n}") for n in range(positives))
    wrong = tuple(Passage(f"{id}-{n}", f"wrong {n}") for n in range(negatives))
    return Example(Query(id, f"query {id}"), right, wrong, f"source of {id}")


EXAMPLES = st.lists(
    st.builds(example, st.text(max_size=3), st.integers(1, 3), st.integers(1, 25)),
    max_size=6,
    unique_by=lambda one: one.query.id,
)
SETTINGS = st.fixed_dictionaries(
    {
        "size": st.integers(2, 20),
        "seed": st.integers(),
        "hard": st.none() | st.integers(1, 30),
        "epoch": st.integers(0, 9),
    }
)


@given(EXAMPLES, SETTINGS)
def test_each_positive_stands_once_among_distinct_negatives(examples: list[Example], settings: dict[str, int]) -> None:
    by = {one.query.id: one for one in examples}
    drawn = sets(examples, **settings)
    for one in drawn:
        of = by[one.query.id]
        shown = list(one.passages)
        assert shown.pop(one.right) in of.positives
        assert set(shown) <= set(of.negatives[: settings["hard"]])
        assert len(set(shown)) == len(shown) == min(settings["size"] - 1, len(of.negatives[: settings["hard"]])) > 0
        assert (one.query, one.source) == (of.query, of.source)
    met = [(one.query.id, one.passages[one.right].id) for one in drawn]
    assert sorted(met) == sorted((one.query.id, right.id) for one in examples for right in one.positives)


@given(EXAMPLES, SETTINGS, st.randoms())
def test_other_examples_change_no_set_and_no_order(
    examples: list[Example], settings: dict[str, int], chance: random.Random
) -> None:
    kept = [one for one in examples if chance.random() < 0.5]
    chance.shuffle(kept)
    ids = {one.query.id for one in kept}
    assert sets(kept, **settings) == [one for one in sets(examples, **settings) if one.query.id in ids]


def test_what_is_known_is_shown_beside_and_not_to_choose_from() -> None:
    known = (Passage("k", "known"),)
    (one,) = sets([replace(example("q"), known=known)], size=5, seed=1)
    assert one.known == known
    assert not set(known) & set(one.passages)
    (plain,) = sets([example("q")], size=5, seed=1)
    assert replace(one, known=()) == plain


def test_the_global_state_of_chance_is_neither_used_nor_changed() -> None:
    random.seed(1)
    first, state = sets([example("a"), example("b")], size=5, seed=3), random.getstate()
    random.seed(2)
    assert sets([example("a"), example("b")], size=5, seed=3) == first
    random.seed(1)
    assert random.getstate() == state


def seen(drawn: list[TrainingSet]) -> list[list[str]]:
    return [[passage.id for passage in one.passages] for one in drawn]


def test_a_draw_is_the_same_in_every_python() -> None:
    assert seen(sets([example("a"), example("b", 2)], size=4, seed=7)) == [
        ["a+0", "a-21", "a-29", "a-28"],
        ["b+0", "b-2", "b-24", "b-18"],
        ["b-3", "b-0", "b+1", "b-15"],
    ]


@pytest.mark.parametrize("changed", [{"seed": 8}, {"epoch": 1}])
def test_another_seed_or_epoch_draws_anew(changed: dict[str, int]) -> None:
    examples = [example(str(n)) for n in range(20)]
    one = sets(examples, **{"size": 5, "seed": 7, "epoch": 0})
    other = sets(examples, **{"size": 5, "seed": 7, "epoch": 0} | changed)
    assert [it.query.id for it in one] != [it.query.id for it in other]
    assert not {tuple(ids) for ids in seen(one)} & {tuple(ids) for ids in seen(other)}


def test_every_place_and_every_negative_gets_its_share() -> None:
    drawn = [one for epoch in range(400) for one in sets([example("a", 1, 8)], size=5, seed=0, epoch=epoch)]
    places = Counter(one.right for one in drawn)
    shown = Counter(passage.id for one in drawn for passage in one.passages)
    assert {*places} == {0, 1, 2, 3, 4}
    assert all(50 < count < 110 for count in places.values())
    assert all(160 < shown[f"a-{n}"] < 240 for n in range(8))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"size": 1}, "size=1: a whole number in 2..20"),
        ({"size": 21}, "size=21"),
        ({"size": 2.5}, r"size=2\.5"),
        ({"size": True}, "size=True"),
        ({"hard": 0}, "hard=0: a whole number ≥ 1"),
    ],
)
def test_another_size_is_refused(changed: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sets([example("a")], **{"size": 5, "seed": 0} | changed)
