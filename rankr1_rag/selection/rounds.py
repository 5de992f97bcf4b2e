"""The grammar of a selection: generators that yield a round, are sent its answers, and return a result.

Parts compose with `yield from` (one after another) and `together` (in parallel). A `Selection` is the part that returns
the k best positions. Nothing here does input or output (the idea is h11's): the driver of a part decides, with `step`,
how and how many at once sets are shown to a judge.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from math import inf, sqrt
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

Set: TypeAlias = tuple[int, ...]
"""2 to `size` distinct positions shown together, in shown order."""

Round: TypeAlias = list[Set]
"""Sets that do not wait for each other; never empty."""

Answer: TypeAlias = tuple[int, ...]
"""Positions of a set, best first: one from a setwise judge, all from a listwise one, never none."""

Scores: TypeAlias = Mapping[int, float]
"""What `scores` is sent in place of an answer: the score of each position of a set that has one."""

Part: TypeAlias = Generator[Round, list[Answer], T]
"""Yields rounds, is sent one answer a set in the order of the sets, returns a T."""

Selection: TypeAlias = Part[list[int]]
"""Returns exactly min(k, n) distinct positions, best first, whatever the answers."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The result of a part."""

    value: T


def step(part: Part[T], answers: list[Answer] | None = None) -> Round | Done[T]:
    """The next round, or the result. Leave `answers` out the first time only.

    ValueError if the answers do not fit the round: an error of the driver, after which the part is dead.
    """
    try:
        return next(part) if answers is None else part.send(answers)
    except StopIteration as stop:
        return Done(stop.value)


def ask(sets: Round) -> Part[list[Answer]]:
    """One round and its answers. ValueError if an answer does not begin with a position of its set."""
    answers = yield sets
    if len(answers) != len(sets):
        raise ValueError(f"a round of {len(sets)} sets was sent {len(answers)} answers: send one a set, in order")
    for shown, answer in zip(sets, answers, strict=True):
        if not answer or answer[0] not in shown:
            raise ValueError(f"the answer {answer} to the set {shown} does not begin with a position of the set")
    return answers


def named(shown: Set, answer: Answer) -> list[int]:
    """The positions an answer names, each once, in its order. ValueError if one is not in the set."""
    positions = list(dict.fromkeys(answer))
    if strangers := set(positions) - set(shown):
        raise ValueError(f"the answer {answer} to the set {shown} names {sorted(strangers)}, not in the set")
    return positions


def best(members: Iterable[int]) -> Part[int]:
    """The best of these positions, shown in first-stage order; a set of one needs no comparison."""
    shown = tuple(sorted(members))
    if len(shown) == 1:
        return shown[0]
    answers = yield from ask([shown])
    return answers[0][0]


def together(parts: Sequence[Part[T]]) -> Part[list[T]]:
    """Independent parts in parallel: each round is one round of every part not yet done; their results in order."""
    states = [step(part) for part in parts]
    while any(not isinstance(state, Done) for state in states):
        rounds = [[] if isinstance(state, Done) else state for state in states]
        answers = iter((yield from ask([shown for sets in rounds for shown in sets])))
        for place, sets in enumerate(rounds):
            if sets:
                states[place] = step(parts[place], [next(answers) for _ in sets])
    return [state.value for state in states if isinstance(state, Done)]


def so_far(n: int, asked: Iterable[tuple[Set, Answer]], chosen: Iterable[int] = ()) -> list[int]:
    """The best order known of n positions when a selection is left before its end: the `chosen`, then the others.

    The others are sorted by their rank / √(1 + beaten), where `beaten` are the positions that one beat, and those that
    they had beaten before. (The best of a random sample of s would be expected at 1 / (1 + s) of the ranks; but a first
    stage is better than random, and an answer may be wrong: see bench/anytime.md.) Then, in the order asked, each
    winner moves in front of the foremost that it beat. Of an answer that names more, the first does, then the second,
    and so on, and none is moved for the number that it beat: its set was made of neighbours.
    """
    asked, beaten = list(asked), [0] * n  # as bits
    for shown, answer in asked:
        if len(answer) == 1:
            won = 0
            for position in shown:
                won |= 1 << position | beaten[position]
            beaten[answer[0]] = won & ~(1 << answer[0])
    # Sorted by keys. Whatever moves in front of another takes the key of that, with its own turn before the ∞.
    keys: list[tuple[float, ...]] = [
        ((place + 1) / sqrt(1 + bits.bit_count()), place, inf) for place, bits in enumerate(beaten)
    ]
    for turn, (shown, answer) in enumerate(asked):
        behind = set(shown)
        for place, position in enumerate(answer):
            behind.discard(position)
            if not behind:
                break
            foremost = min([keys[other] for other in behind])
            if keys[position] > foremost:
                keys[position] = (*foremost[:-1], turn, place, inf)
    return list(dict.fromkeys((*chosen, *sorted(range(n), key=keys.__getitem__))))


def play(selection: Selection, judge: Callable[[Set], Answer]) -> list[int]:
    """Drive a selection with a function, one set after another: for tests, docs and traces."""
    state = step(selection)
    while not isinstance(state, Done):
        state = step(selection, [judge(shown) for shown in state])
    return state.value


def checked(
    algorithm: Callable[Concatenate[int, int, int, P], Selection], least: int = 2
) -> Callable[Concatenate[int, int, int, P], Selection]:
    """An algorithm whose n, k and size are checked when it is called, not at its first step; its k is min(k, n).

    `least` is the least size.

    A list that is passed as `chosen` holds, at any time, the positions that it has selected so far.
    """

    @wraps(algorithm)
    def begin(n: int, k: int, size: int, *args: P.args, **named: P.kwargs) -> Selection:
        if n < 0:
            raise ValueError(f"n, the number of candidates, must be at least 0 (got {n})")
        if k < 1:
            raise ValueError(f"k, the number of positions to select, must be at least 1 (got {k})")
        if size < least:
            raise ValueError(f"size, the most positions of a set, must be at least {least} (got {size})")
        return algorithm(n, min(k, n), size, *args, **named)

    return begin  # type: ignore[return-value]  # mypy: Concatenate takes no names, but wraps does


def among(selection: Selection, positions: Sequence[int]) -> Selection:
    """The same selection over these distinct positions in place of 0, 1, 2…; its sets and its result hold them.

    Give them in ascending order: a selection relies on first-stage order.
    """
    places = {position: place for place, position in enumerate(positions)}
    state = step(selection)
    while not isinstance(state, Done):
        answers = yield [tuple(positions[place] for place in shown) for shown in state]
        own: list[Any] = [
            {places[position]: score for position, score in answer.items()}
            if isinstance(answer, Mapping)
            else tuple(places[position] for position in answer)
            for answer in answers
        ]
        state = step(selection, own)
    return [positions[place] for place in state.value]
