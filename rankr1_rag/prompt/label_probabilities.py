"""What the alternatives of a constrained completion say about each choice: a probability for the whole of it.

Labels may be spelled digit by digit: then the first token of `12]` pools 1 and 10 to 19, and only the second tells them
apart. What a completion leaves open is named, so that it can be asked for. Knows choices and log-probabilities; knows
nothing of prompts and backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, inf

from rankr1_rag.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class Shares:
    """A probability of 1 spread over choices: `settled` by choice, `opened` by a beginning of several choices."""

    settled: dict[str, float] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)


def shares(choices: Sequence[str], tokens: Sequence[TokenLogprob]) -> Shares | None:
    """What these tokens, the beginning of one of the choices, say of all of them; None where no alternatives are given.

    At each token the alternatives that no choice begins with are dropped and the others renormalised: what a server
    that holds the model to the choices does by itself.
    """
    found = Shares()
    begun, mass = "", 1.0
    for token in tokens:
        weights = _weights(token, begun, choices)
        total = sum(weights.values())
        if not total:
            return None
        for text, weight in weights.items():
            _settle(found, choices, begun + text, mass * weight / total)
        begun += token.token
        if begun not in found.opened:
            break
        mass = found.opened.pop(begun)
    else:
        if not tokens:
            return None
        found.opened[begun] = mass
    return found


def continued(choices: Sequence[str], begun: str) -> tuple[str, ...]:
    """What is left of the choices that begin so."""
    return tuple(choice[len(begun) :] for choice in choices if choice.startswith(begun))


def _weights(token: TokenLogprob, begun: str, choices: Sequence[str]) -> dict[str, float]:
    """The alternatives that go on as a choice does, by their probability."""
    if not token.top:
        return {}
    alternatives = {token.token: token.logprob, **dict(token.top)}
    fitting = {
        text: logprob
        for text, logprob in alternatives.items()
        if text and logprob < inf and any(choice.startswith(begun + text) for choice in choices)  # nan is left out too
    }
    most = max(fitting.values(), default=0.0)
    return {text: exp(logprob - most) for text, logprob in fitting.items()} if most > -inf else {}


def _settle(found: Shares, choices: Sequence[str], begun: str, mass: float) -> None:
    fitting = [choice for choice in choices if choice.startswith(begun)]
    place, key = (found.settled, fitting[0]) if len(fitting) == 1 else (found.opened, begun)
    place[key] = place.get(key, 0.0) + mass
