"""The reward of reinforcement learning, as in arXiv 2503.06034: 1.0 where form and label are right, else 0.0.

Knows formats and texts; nothing of models and trainers.
"""

from __future__ import annotations

from dataclasses import dataclass

from rankr1_rag.prompt import Format


@dataclass(frozen=True, slots=True)
class Reward:
    """What a text earned, in parts: it is in the `format`, to the letter, and its label is `right`.

    Of a text in another form, `right` says what the kind parse of inference reads.
    """

    format: bool
    right: bool

    @property
    def value(self) -> float:
        """1.0 for both parts, else 0.0."""
        return float(self.format and self.right)


def reward(format: Format, text: str, n: int, right: int) -> Reward:
    """The reward of a whole completion for a set of n, of which the passage at position `right` is the positive."""
    kept = format.strict(text, n)
    places = kept or (None if format.thinking(text) else format.parse(text, n))
    return Reward(kept is not None, places is not None and places[0] == right)
