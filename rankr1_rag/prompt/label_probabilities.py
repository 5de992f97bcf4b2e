"""The probability of each choice of a constrained completion, from the log-probabilities of its tokens.

Labels may be spelled digit by digit: then the first token of `12]` pools 1 and 10 to 19, and only the second one
separates them. Beginnings that several choices share are named, so that their rest can be requested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, inf

from rankr1_rag.types import TokenLogprob


@dataclass(frozen=True, slots=True)
class Shares:
    """A probability of 1 divided among choices: `settled` by choice, `opened` by a beginning of several choices."""

    settled: dict[str, float] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)

    def add(self, choices: Sequence[str], begun: str, mass: float) -> None:
        """Add the probability of a text with which one or several of these choices begin."""
        fitting = [choice for choice in choices if choice.startswith(begun)]
        place, key = (self.settled, fitting[0]) if len(fitting) == 1 else (self.opened, begun)
        place[key] = place.get(key, 0.0) + mass

    def divide(self, begun: str, mass: float, rest: Sequence[str], logprobs: Sequence[TokenLogprob]) -> None:
        """Divide what choices with the same beginning share by the log-probabilities of their rest, or equally."""
        inner = shares(rest, logprobs) or Shares(dict.fromkeys(rest, 1 / len(rest)))
        for choice, share in inner.settled.items():
            self.settled[begun + choice] = self.settled.get(begun + choice, 0.0) + mass * share
        self.opened.update({begun + more: mass * share for more, share in inner.opened.items()})


def shares(choices: Sequence[str], tokens: Sequence[TokenLogprob]) -> Shares | None:
    """The probabilities of all choices from these tokens, the beginning of one of them; None without alternatives.

    At each token the alternatives with which no choice begins are dropped and the others renormalised, as servers do
    that hold the model to the choices.
    """
    found = Shares()
    begun, mass = "", 1.0
    for token in tokens:
        alternatives = {token.token: token.logprob, **dict(token.top)} if token.top else {}
        fitting = {
            text: logprob
            for text, logprob in alternatives.items()
            # nan is left out too
            if text and logprob < inf and any(choice.startswith(begun + text) for choice in choices)
        }
        most = max(fitting.values(), default=-inf)
        if most == -inf:
            return None
        weights = {text: exp(logprob - most) for text, logprob in fitting.items()}
        total = sum(weights.values())
        for text, weight in weights.items():
            found.add(choices, begun + text, mass * weight / total)
        begun += token.token
        if begun not in found.opened:
            break
        mass = found.opened.pop(begun)
    else:
        if not tokens:
            return None
        found.opened[begun] = mass
    return found
