"""The tables of the paper: collections, expected figures and the paper's settings.

Zhuang et al., 2025, Rank-R1, https://arxiv.org/abs/2503.06034: rerankings of Pyserini's BM25 top 100, and that BM25
itself, in nDCG@10. Models are named as they were released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankr1_eval.pipeline import LATER, result_settings
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.reranker import Reranker

DEPTH = 100
REASONING_TOKENS = 2032
"""Of at most 2,048 completion tokens, 16 are for the answer."""
PAPER: Mapping[str, Any] = {
    "k": 10,
    "size": 20,
    "algorithm": "heapsort",
    "votes": 1,
    "temperature": 0.0,
    "reasoning_tokens": REASONING_TOKENS,
    "force": "never",
    "fusion": None,
    "hops": 1,
    "clip": "head",
    "strict_format": True,
}
"""The paper's settings; queries and passages are clipped as the target says."""

BM25 = "BM25"
R1_7B, R1_14B, SFT_7B = "ielabgroup/Rank-R1-7B-v0.1", "ielabgroup/Rank-R1-14B-v0.1", "ielabgroup/Setwise-SFT-7B-v0.1"
EXPECTED: Mapping[str, Mapping[str, float]] = {
    "dl19": {BM25: 0.506, R1_7B: 0.727, R1_14B: 0.714, SFT_7B: 0.738},
    "dl20": {BM25: 0.480, R1_7B: 0.685, R1_14B: 0.691, SFT_7B: 0.692},
    "bright": {BM25: 0.137, R1_7B: 0.164, R1_14B: 0.205},
    "beir": {BM25: 0.437, R1_7B: 0.536, R1_14B: 0.546},
}
"""Target to system to nDCG@10; "bright" and "beir" are means over 12 and 7 collections."""
TOLERANCE = 0.015
"""Of a model. Greedy decoding is not reproducible: engines, data types and the other requests of a batch turn near
ties, and the paper's code shuffles every set, ours does not. Chosen, not measured: of 43 queries two thirds of one.
"""
FIRST_STAGE_TOLERANCE = 0.002
"""Of the first stage, which has no model: the paper's rounding, and a version or two of the index."""

TREC_DL = ("dl19", "dl20")
GROUPS = ("beir", "bright")
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
    """`collections` are names for `data.collections.judged`; `whole`: the paper's figure is over these."""

    name: str
    collections: tuple[str, ...]
    query_tokens: int = 32
    passage_tokens: int = 512
    whole: bool = True

    @property
    def grouped(self) -> bool:
        """Whether its figure is a mean over collections."""
        return self.name in GROUPS

    @property
    def needs_run(self) -> bool:
        """Whether its corpus is too large to be indexed here."""
        return self.name in TREC_DL


def parse(name: str, collections: Sequence[str] | None = None) -> Target:
    """The target of that name, over these collections of a group.

    A group alone is all of BRIGHT, or the named collections of BEIR; "beir/NAME" and "bright/NAME" are one collection.
    ValueError for an unknown name or collection.
    """
    family, _, one = name.partition("/")
    if collections is not None:
        if name not in GROUPS:
            raise ValueError(f"collections are named for beir and bright, not for {name!r}")
        if not all(collections) or len(set(collections)) < len(collections):
            raise ValueError(f"collections {','.join(collections)!r}: each once, with commas between them")
    if name in TREC_DL:
        return Target(name, (name,))
    if family == "beir":
        if not one and not collections:
            raise ValueError(
                f"the paper's figure for beir is the mean of {BEIR_SIZE} collections: name the ones you want with "
                "--collections scifact,nfcorpus,…, or take one, beir/scifact"
            )
        names = (one,) if one else collections or ()
        return Target(name, tuple(f"beir/{each}" for each in names), whole=len(names) == BEIR_SIZE)
    if family == "bright":
        names = (one,) if one else collections or BRIGHT
        if unknown := [each for each in names if each not in BRIGHT]:
            raise ValueError(f"BRIGHT has no collection {unknown[0]!r}: {', '.join(BRIGHT)}")
        return Target(name, tuple(f"bright/{each}" for each in names), 1024, 1024, whole=set(names) == set(BRIGHT))
    raise ValueError(f"target {name!r}: one of {KNOWN} is needed")


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
