"""Log-probabilities of labels, as a server gives them that holds a model of known odds to its choices."""

from collections.abc import Callable, Mapping
from math import inf, log

from rankr1_rag.types import TokenLogprob

Spell = Callable[[str], list[str]]


def spelled(odds: Mapping[str, float], chosen: str, spell: Spell = list) -> tuple[TokenLogprob, ...]:
    """The tokens of a choice, each with its alternatives; `spell` cuts a text into tokens (default: characters)."""
    tokens, begun = [], ""
    for token in spell(chosen):
        following: dict[str, float] = {}
        for choice, weight in odds.items():
            parts = spell(choice)
            place = next((i for i in range(len(parts)) if "".join(parts[:i]) == begun), None)
            if place is not None:
                following[parts[place]] = following.get(parts[place], 0.0) + weight
        total = sum(following.values())
        top = {text: log(weight / total) if weight else -inf for text, weight in following.items()}
        tokens.append(TokenLogprob(token, top[token], tuple(top.items())))
        begun += token
        if not following[token]:
            break
    return tuple(tokens)
