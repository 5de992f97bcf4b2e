"""What the paper found, nDCG@10 as a fraction, and how near to it a measurement has to come.

From Zhuang et al., 2025, Rank-R1, https://arxiv.org/abs/2503.06034: the rerankings of Pyserini's BM25 top 100, and that
BM25 itself. "bright" is the mean of its 12 collections, "beir" that of the paper's seven. Models are named as they were
released. Knows numbers; nothing of runs.

How the paper asked, and where a reranker asks otherwise.

Set size 20, the top 10 of 100 by heapsort, greedy, at most 2,048 completion tokens (2,032 of thought, 16 of answer), no
label forced; queries and passages clipped as the target says. Knows settings; asks nothing.

What can be reproduced: which collections a target is made of, and how the paper clips their texts.

| target | collections |
|---|---|
| dl19, dl20 | itself |
| beir | the ones that are named; the paper's figure is the mean of seven |
| bright | all 12, or the ones that are named |
| beir/NAME, bright/NAME | one |

Knows names; nothing of files or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankr1_eval.pipeline import LATER, result_settings
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.reranker import Reranker

DEPTH = 100
THINK_TOKENS = 2032
PAPER: Mapping[str, Any] = {
    "k": 10,
    "size": 20,
    "algorithm": "heapsort",
    "votes": 1,
    "temperature": 0.0,
    "reasoning_tokens": THINK_TOKENS,
    "force": "never",
    "fusion": None,
    "hops": 1,
}


def departures(reranker: Reranker, target: Target, depth: int) -> tuple[str, ...]:
    """Each setting that is not the paper's, with the paper's: "size 10, not 20"."""
    plan = reranker.plan
    clips = {"query_tokens": target.query_tokens, "passage_tokens": target.passage_tokens}
    paper: dict[str, Any] = {**PAPER, **clips, "depth": DEPTH}
    if (known := CHECKPOINTS.get(plan.backend.model)) is not None:
        paper["format"] = known.format.name
    if not plan.format.reasoning:
        del paper["reasoning_tokens"], paper["force"]
    here = {**LATER, **result_settings(reranker), "depth": depth}
    return tuple(f"{name} {here[name]}, not {value}" for name, value in paper.items() if here[name] != value)


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


BM25 = "BM25"
R1_7B, R1_14B, SFT_7B = "ielabgroup/Rank-R1-7B-v0.1", "ielabgroup/Rank-R1-14B-v0.1", "ielabgroup/Setwise-SFT-7B-v0.1"

EXPECTED: dict[str, dict[str, float]] = {
    "dl19": {BM25: 0.506, R1_7B: 0.727, R1_14B: 0.714, SFT_7B: 0.738},
    "dl20": {BM25: 0.480, R1_7B: 0.685, R1_14B: 0.691, SFT_7B: 0.692},
    "bright": {BM25: 0.137, R1_7B: 0.164, R1_14B: 0.205},
    "beir": {BM25: 0.437, R1_7B: 0.536, R1_14B: 0.546},
}
"""Target to system to nDCG@10. What is not here has no expected value."""

TOLERANCE = 0.015
"""For a model. Greedy decoding is not one text: engines, data types and what is computed beside a request turn near
ties, and the paper's code shuffles every set, ours does not. Chosen, not measured: of 43 queries two thirds of one.
"""

FIRST_STAGE_TOLERANCE = 0.002
"""For the first stage, where no model is in it: the paper's rounding, and a version or two of the index."""


def expected(target: str, system: str) -> float | None:
    """The paper's nDCG@10, or None where it is not known."""
    return EXPECTED.get(target, {}).get(system)


def tolerance(system: str) -> float:
    """How far from the paper's value a measurement may be."""
    return FIRST_STAGE_TOLERANCE if system == BM25 else TOLERANCE
