"""The table of known checkpoints: what each was trained on, by exact name. Nothing is guessed from a name not in it.

Sources: github.com/ielab/llm-rankers (folder Rank-R1, "Released Models") and arXiv 2503.06034: LoRA adapters of rank
16, sets of 20, at most 2,048 completion tokens. The embedded one is this project's own: its card is
rankr1_rag/embedded/README.md. Knows nothing of backends; whoever loads a model may read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rankr1_rag.backends.hub import BASES
from rankr1_rag.backends.openvino import weights
from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.types import Force

EMBEDDED = weights.EMBEDDED
"""The name of the embedded CPU default."""

BASE = weights.BASE
"""What that was before it was trained to rerank."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model that this project knows: its base and adapter, and how it wants to be asked.

    `size` is the set size and `reasoning_tokens` the thinking budget that a `Reranker` takes unless told otherwise;
    `query_tokens` and `passage_tokens` are how long the texts were that it was trained on, None where any length is;
    `fusion` is the constant by which its result is fused with the first-stage order, None where it stands alone.
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
        ),
        Checkpoint(BASE, BASE, None, FORMATS["rank-r1-v0.1"], size=10, reasoning_tokens=32, force="unparsed"),
    ]
}
"""Known checkpoints by name: `CHECKPOINTS["ielabgroup/Rank-R1-7B-v0.1"].base` is "Qwen/Qwen2.5-7B-Instruct"."""
