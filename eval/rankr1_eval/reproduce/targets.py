"""What can be reproduced: which collections a target is made of, and how the paper clips their texts.

| target | collections |
|---|---|
| dl19, dl20 | itself |
| beir | the ones that are named; the paper's figure is the mean of seven |
| bright | all 12, or the ones that are named |
| beir/NAME, bright/NAME | one |

Knows names; nothing of files or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TREC_DL = ("dl19", "dl20")
BRIGHT = (
    "biology",
    "earth_science",
    "economics",
    "psychology",
    "robotics",
    "stackoverflow",
    "sustainable_living",
    "pony",
    "leetcode",
    "aops",
    "theoremqa_theorems",
    "theoremqa_questions",
)
"""The collections of BRIGHT in the order of the paper's code."""

BEIR_SIZE = 7
KNOWN = "dl19, dl20, beir, beir/NAME, bright, bright/NAME"


@dataclass(frozen=True, slots=True)
class Target:
    """`collections` are names that `data.collections.judged` knows. `whole`: the paper's figure is over these."""

    name: str
    collections: tuple[str, ...]
    query_tokens: int = 32
    passage_tokens: int = 512
    whole: bool = True

    @property
    def grouped(self) -> bool:
        """Whether its figure is a mean over collections."""
        return self.name in ("beir", "bright")

    @property
    def needs_run(self) -> bool:
        """Whether its corpus is too large to be retrieved from here."""
        return self.name in TREC_DL


def parse(name: str, collections: Sequence[str] | None = None) -> Target:
    """The target of that name, over these collections of a group. ValueError that says what there is."""
    family, _, one = name.partition("/")
    if collections is not None and name not in ("beir", "bright"):
        raise ValueError(f"collections are named for beir and bright, not for {name!r}")
    if name in TREC_DL:
        return Target(name, (name,))
    if family == "beir":
        return Target(name, (name,)) if one else _beir(collections)
    if family == "bright":
        return _bright(name, collections if not one else (one,))
    raise ValueError(f"target {name!r}: one of {KNOWN} is needed")


def _beir(names: Sequence[str] | None) -> Target:
    if not names:
        raise ValueError(
            f"the paper's figure for beir is the mean of {BEIR_SIZE} collections: name the ones you want with "
            "--collections scifact,nfcorpus,…, or take one, beir/scifact"
        )
    return Target("beir", tuple(f"beir/{one}" for one in _each_once(names)), whole=len(names) == BEIR_SIZE)


def _bright(name: str, names: Sequence[str] | None) -> Target:
    wanted = _each_once(BRIGHT if names is None else names)
    if unknown := [one for one in wanted if one not in BRIGHT]:
        raise ValueError(f"BRIGHT has no collection {unknown[0]!r}: {', '.join(BRIGHT)}")
    return Target(name, tuple(f"bright/{one}" for one in wanted), 1024, 1024, whole=set(wanted) == set(BRIGHT))


def _each_once(names: Sequence[str]) -> tuple[str, ...]:
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"collections {','.join(names)!r}: each once, with commas between them")
    return tuple(names)
