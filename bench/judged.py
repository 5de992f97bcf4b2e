"""A backend whose completions are real and whose answers are a seeded, noisy judge's: what a benchmark of speed needs.

An untrained model's answers would change the work of the algorithms. Every completion is generated in full and paid
for; only what is read from it is replaced. Knows the text of prompts, which no part of the package may.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.wrappers.base import BackendWrapper
from rankr1_rag.types import Completion

_LINE = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


@dataclass
class Tally:
    """What was asked since the last `take`."""

    requests: list[Request] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)

    def take(self) -> Tally:
        """What there is, leaving none."""
        taken = Tally(self.requests, self.completions)
        self.requests, self.completions = [], []
        return taken


class Judged(BackendWrapper):
    """Around a backend. `worth` is the true worth of a passage by how its text begins; `noise` is that of the judge.

    The answer is drawn after Plackett and Luce: the greatest worth / noise + Gumbel noise, drawn from the seed, the set
    and the passage alone, so that it is the same in any order and at any time.
    """

    def __init__(self, backend: Backend, worth: Mapping[str, float], noise: float = 0.3, seed: int = 0) -> None:
        super().__init__(backend)
        self.worth, self.noise, self.seed = worth, noise, seed
        self.tally = Tally()

    async def complete(self, request: Request) -> Completion:
        """A whole completion, and the judge's answer as its text."""
        completion = await self.backend.complete(request)
        self.tally.requests.append(request)
        self.tally.completions.append(completion)
        return replace(
            completion, text=f"<think></think> <answer>[{self._label(request)}]</answer>", finish_reason="stop"
        )

    async def close(self) -> None:
        """Nothing: the backend is its owner's, who asks it in many ways."""

    def _label(self, request: Request) -> str:
        shown = _LINE.findall(request.messages[-1]["content"])
        together = "\n".join(sorted(text for _, text in shown))
        return str(max(shown, key=lambda line: self._drawn(line[1], together))[0])

    def _drawn(self, text: str, together: str) -> float:
        dice = random.Random(f"{self.seed}\n{text}\n{together}")
        return self.worth[start(text)] / self.noise - math.log(-math.log(dice.random() or 0.5))


def start(text: str) -> str:
    """By what a passage is known again, however it was clipped."""
    return text[:60].strip()
