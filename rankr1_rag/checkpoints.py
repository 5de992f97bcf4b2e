"""The table of known checkpoints and their settings, by exact name. Nothing is guessed from other names.

Sources: github.com/ielab/llm-rankers (folder Rank-R1, "Released Models") and arXiv 2503.06034: LoRA adapters of rank
16, sets of 20, at most 2,048 completion tokens. The embedded one is this project's own: its card is
README.md in its folder in rankr1_rag/embedded. Sources of other models are with their formats in prompt/authors.py;
reasoning budgets are those of their own programs, figures those of their papers or cards, each over a first stage of
their own choice.
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
    the first-stage order, None for no fusion; `step` is the distance of its windows.

    `parameters` in billions, `licence` of the weights and `figures` are for `rankr1 models`; 0 and "" if not known.
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
    step: int | None = None
    parameters: float = 0
    licence: str = ""
    figures: str = ""

    @property
    def memory(self) -> float:
        """The weights of the base in bfloat16, in GiB."""
        return self.parameters * 2e9 / 2**30


SIZES = {"0.5B": 0.49, "0.6B": 0.6, "1.5B": 1.54, "3B": 3.09, "4B": 4.02, "7B": 7.62, "8B": 8.19, "14B": 14.77}
SIZES |= {"32B": 32.76}
"""The parameters of Qwen2.5 and Qwen3, in billions, by the size in their names."""


def _released(series: str, format: Format, reasoning_tokens: int, figures: dict[str, str]) -> list[Checkpoint]:
    sizes = {name: name.split("-")[-2] for name in BASES if name.startswith(f"ielabgroup/{series}-")}
    return [
        Checkpoint(
            name,
            BASES[name],
            name,
            format,
            reasoning_tokens=reasoning_tokens,
            parameters=SIZES[size],
            licence="Apache-2.0",
            figures=figures.get(size, ""),
        )
        for name, size in sizes.items()
    ]


def _others(
    format: str, licence: str, figures: str, models: dict[str, float], reasoning_tokens: int = 0
) -> list[Checkpoint]:
    """Whole models of other authors, with their parameters: the largest sets of the format, windows in steps of 10."""
    own = FORMATS[format]
    return [
        Checkpoint(
            name,
            name,
            None,
            own,
            size=own.max_passages,
            reasoning_tokens=reasoning_tokens,
            step=10 if own.kind == "listwise" else None,
            parameters=parameters,
            licence=licence,
            figures=figures,
        )
        for name, parameters in models.items()
    ]


def _sized(name: str, sizes: str) -> dict[str, float]:
    """The models of these sizes: "rank1-{}b", "7 32"."""
    return {name.format(size): SIZES[f"{size}B"] for size in sizes.split()}


CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.name: checkpoint
    for checkpoint in [
        *_released(
            "Rank-R1",
            FORMATS["rank-r1-v0.1"],
            2032,
            {"7B": "DL19/20 .727/.685, BRIGHT .164 (BM25)", "14B": "DL19/20 .714/.691, BRIGHT .205 (BM25)"},
        ),
        *_released("Setwise-SFT", FORMATS["setwise-sft-v0.1"], 0, {"7B": "DL19/20 .738/.692 (BM25)"}),
        *_others("reasonrank", "MIT", "BRIGHT 35.7, BEIR-7 54.4", {"liuwenhan/reasonrank-7B": 7.62}, 3072),
        *_others("reasonrank", "MIT", "BRIGHT 38.0, BEIR-7 55.4", {"liuwenhan/reasonrank-32B": 32.76}, 3072),
        *_others("rearank", "Apache-2.0 (code)", "DL19/20 74.2/70.0", {"le723z/Rearank-7B": 7.62}, 2048),
        *_others("rank-k", "MIT (code)", "BRIGHT 32.6", {"hltcoe/Rank-K-32B": 32.76}, 4000),
        *_others(
            "rank-zephyr",
            "",
            "DL19/20 .739/.706 (RankZephyr)",
            {"castorini/rank_zephyr_7b_v1_full": 7.24, "castorini/rank_vicuna_7b_v1": 6.74},
        ),
        *_others(
            "qwen3-listwise",
            "Apache-2.0",
            "8B: DL19/20 .774/.759 (SPLADE++), not trained to rank",
            _sized("Qwen/Qwen3-{}B", "4 8 14 32"),
        ),
        *_others(
            "grouprank",
            "Apache-2.0",
            "32B: BRIGHT 46.8 (own retrieval)",
            _sized("AQ-MedAI/Diver-GroupRank-{}B", "7 32"),
            8000,
        ),
        *_others(
            "qwen3-reranker",
            "Apache-2.0",
            "0.6B, 4B, 8B: MTEB-R 65.8, 69.8, 69.0",
            _sized("Qwen/Qwen3-Reranker-{}B", "0.6 4 8"),
        ),
        *_others("rank1", "MIT", "BRIGHT 27 to 29", _sized("jhu-clsp/rank1-{}b", "0.5 1.5 3 7 14 32"), 8192),
        *_others("rank1", "MIT", "BRIGHT 27 to 29", {"songtingyu/limrank": 7.62}, 8192),
        *_others("mxbai-rerank-v2", "Apache-2.0", "BEIR 59.6", {"mixedbread-ai/mxbai-rerank-base-v2": 0.49}),
        *_others("mxbai-rerank-v2", "Apache-2.0", "BEIR 62.5", {"mixedbread-ai/mxbai-rerank-large-v2": 1.54}),
        Checkpoint(
            EMBEDDED,
            BASE,
            EMBEDDED,
            FORMATS["label-v2"],
            size=5,
            force="unparsed",
            passage_tokens=96,
            parameters=0.135,
            licence="Apache-2.0",
        ),
        Checkpoint(
            BASE,
            BASE,
            None,
            FORMATS["rank-r1-v0.1"],
            size=10,
            reasoning_tokens=32,
            force="unparsed",
            parameters=0.135,
            licence="Apache-2.0",
        ),
    ]
}
"""Known checkpoints by name: `CHECKPOINTS["ielabgroup/Rank-R1-7B-v0.1"].base` is "Qwen/Qwen2.5-7B-Instruct"."""
