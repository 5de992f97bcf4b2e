"""The table of known checkpoints and their settings, by exact name. Nothing is guessed from other names.

Sources: github.com/ielab/llm-rankers (folder Rank-R1, "Released Models") and arXiv 2503.06034: LoRA adapters of rank
16, sets of 20, at most 2,048 completion tokens. The embedded one is this project's own: its card is
README.md in its folder in rankr1_rag/embedded.
"""

from __future__ import annotations

from dataclasses import dataclass

from rankr1_rag.backends.hub import BASES
from rankr1_rag.backends.openvino import weights
from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.types import Clip, Force

EMBEDDED = weights.EMBEDDED
"""The name of the embedded CPU default."""

READER = weights.READER
"""The name of the embedded reader."""

BASE = weights.BASE
"""The model from which both were trained."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A known model: its base and adapter, and the options of a `Reranker` that are left open.

    `query_tokens` and `passage_tokens` are the text lengths that it was trained on, None for any length; `clip` is
    "head" if it was trained on the beginnings of longer passages; `fusion` is the constant that fuses its result with
    the first-stage order, None for no fusion.
    """

    name: str
    base: str
    adapter: str | None
    format: Format
    size: int = 20
    reasoning_tokens: int = 0
    force: Force = "truncated"
    query_tokens: int | None = None
    passage_tokens: int | None = None
    fusion: float | None = None
    clip: Clip = "window"


def _released(series: str, format: Format, reasoning_tokens: int) -> list[Checkpoint]:
    return [
        Checkpoint(name, base, name, format, reasoning_tokens=reasoning_tokens)
        for name, base in BASES.items()
        if name.startswith(f"ielabgroup/{series}-")
    ]


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in [
        *_released("Rank-R1", FORMATS["rank-r1-v0.1"], reasoning_tokens=2032),
        *_released("Setwise-SFT", FORMATS["setwise-sft-v0.1"], reasoning_tokens=0),
        Checkpoint(
            EMBEDDED,
            BASE,
            EMBEDDED,
            FORMATS["naming-v1"],
            size=5,
            reasoning_tokens=32,
            force="unparsed",
            passage_tokens=64,
            fusion=2,
            clip="head",
        ),
        Checkpoint(BASE, BASE, None, FORMATS["rank-r1-v0.1"], size=10, reasoning_tokens=32, force="unparsed"),
    ]
}
"""Known checkpoints by name: `CHECKPOINTS["ielabgroup/Rank-R1-7B-v0.1"].base` is "Qwen/Qwen2.5-7B-Instruct"."""
