"""The settings of training runs as frozen, self-checking values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass
from typing import Any, Literal

from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.settings import check_options, declare
from rankr1_rag.train.data import Kind
from rankr1_rag.types import Clip

Device = Literal["cpu", "cuda"]
DATA, PROMPT, LORA, COURSE = "Data", "Prompt", "Adapter", "Schedule"
FORMAT = f"Prompt format: {', '.join(FORMATS)}"
COMPLETION_TOKENS = "Maximum completion length in tokens"
LEARNING_RATE = "Peak learning rate, with warm-up and cosine decay"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of supervised training and of GRPO. A wrong value is a ValueError at once."""

    model: str = declare(MISSING, "Base model: a folder or a name on the hub", DATA)
    data: Sequence[str] = declare(
        MISSING, "JSON lines of examples (own format, Tevatron's or FlagEmbedding's); may be repeated", DATA
    )
    out: str = declare(MISSING, "Folder of the run: adapter, card, log, plots, checkpoints", DATA)
    held_out: Sequence[str] = declare(
        (), "Held-out examples for the evaluation during training; may be repeated", DATA, "none"
    )
    adapter: str | None = declare(None, "LoRA adapter to continue from; it keeps its rank", DATA, "a new adapter")
    share: float = declare(1.0, "Fraction of examples to use, 0..1; subsets are nested", DATA)
    size: int = declare(20, "Passages in a set, 2..20: one positive, the rest negatives", DATA, least=2, most=20)
    hard: int | None = declare(None, "Number of hardest negatives to draw from", DATA, "all of an example", least=1)
    prompt_tokens: int = declare(
        4096, "Maximum prompt length in tokens; passages are clipped equally to fit", PROMPT, least=1
    )
    completion_tokens: int = declare(2048, COMPLETION_TOKENS, PROMPT, least=1)
    rank: int = declare(16, "Rank of the LoRA matrices", LORA, least=1)
    alpha: int = declare(32, "LoRA alpha; the update is scaled by alpha / rank", LORA, least=1)
    dropout: float = declare(0.05, "Dropout before the LoRA matrices", LORA, least=0)
    epochs: int = declare(1, "Passes over the data; each draws new negatives and orders", COURSE, least=1)
    steps: int | None = declare(None, "Maximum number of steps", COURSE, "all epochs", least=1)
    learning_rate: float = declare(1e-5, LEARNING_RATE, COURSE, above=0)
    batch: int = declare(8, "Sets per step on all devices together", COURSE, least=1)
    device_batch: int | None = declare(
        None, "Sequences per device at once", COURSE, "the whole share of the device", least=1
    )
    seed: int = declare(0, "Seed of sets, orders and samples", COURSE, least=0)
    save: int = declare(100, "Steps between checkpoints; each evaluates the held-out sets", COURSE, least=1)
    held_sets: int = declare(256, "Maximum number of held-out sets to evaluate", COURSE, least=1)
    device: Device | None = declare(None, "Device, cpu or cuda", COURSE, "cuda if available")
    compile: bool = declare(False, "Compile the layers first: takes a minute, then steps are faster", COURSE)
    checkpointing: bool = declare(True, "Gradient checkpointing on a GPU: less memory, more time", COURSE)

    def __post_init__(self) -> None:
        check_options(self)
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share!r}: a number above 0 and at most 1 is needed")
        if self.dropout >= 1:
            raise ValueError(f"dropout={self.dropout!r}: a number in 0..1 is needed")
        if not self.data:
            raise ValueError("data=(): name at least one file of examples")

    @property
    def kind(self) -> str:
        """The name of its command: sft, grpo or reader."""
        return type(self).__name__.removesuffix("Training").lower()

    @property
    def context(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self.prompt_tokens + self.completion_tokens

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class RerankerTraining(Training):
    """Settings of training to rerank."""

    smallest: int | None = declare(
        None, "Smallest number of passages in a set; sizes are drawn from it to --size", DATA, "--size", least=2
    )
    format: str = declare("rank-r1-v0.1", FORMAT, PROMPT, choices=tuple(FORMATS))
    query_tokens: int | None = declare(None, "Maximum query length in tokens", PROMPT, "no limit", least=1)
    passage_tokens: int | None = declare(None, "Maximum passage length in tokens", PROMPT, "no limit", least=1)
    clip: Clip = declare(
        "head", "Part of a longer passage that is shown: head, or the window that shares most with the query", PROMPT
    )

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if self.smallest is not None and self.smallest > self.size:
            raise ValueError(f"smallest={self.smallest}: at most size={self.size} is needed")

    @property
    def prompt_format(self) -> Format:
        """The format as a value."""
        return FORMATS[self.format]


@dataclass(frozen=True, kw_only=True)
class SFT(RerankerTraining):
    """Supervised training: the label alone, or a cold start whose reasoning names the passage first."""

    target: Kind = declare(
        "label", "Completion to learn: the label alone, or naming: the passage's name, then its label", COURSE
    )
    format: str = declare("setwise-sft-v0.1", FORMAT, PROMPT, choices=tuple(FORMATS))
    completion_tokens: int = declare(64, COMPLETION_TOKENS, PROMPT, least=1)
    learning_rate: float = declare(1e-4, LEARNING_RATE, COURSE, above=0)

    def __post_init__(self) -> None:
        RerankerTraining.__post_init__(self)
        if (self.target == "naming") != self.prompt_format.reasoning:
            fitting = [name for name, one in FORMATS.items() if one.reasoning == (self.target == "naming")]
            raise ValueError(f"target={self.target!r} does not fit format={self.format!r}: use {' or '.join(fitting)}")


@dataclass(frozen=True, kw_only=True)
class GRPO(RerankerTraining):
    """Reinforcement learning from labels alone, with the settings of the paper (arXiv 2503.06034) as defaults.

    `batch` counts prompts, each answered `generations` times. The rollouts are vLLM's on a GPU, where it is installed.
    """

    generations: int = declare(8, "Samples per prompt", COURSE, least=2)
    temperature: float = declare(
        1.0, "Sampling temperature; greedy samples of a prompt would all be equal", COURSE, above=0
    )
    kl: float = declare(
        0.0, "Weight of the KL divergence from the initial model; 0 keeps no copy of it", COURSE, least=0
    )
    vllm: bool | None = declare(None, "Generate samples with vLLM", COURSE, "on a GPU if vLLM is installed")

    def __post_init__(self) -> None:
        RerankerTraining.__post_init__(self)
        if self.prompt_format.kind != "setwise":
            raise ValueError(f"format={self.format!r}: GRPO rewards one label: use a setwise format")


@dataclass(frozen=True, kw_only=True)
class ReaderTraining(Training):
    """Supervised training of a reader: a short answer from passages, or that they do not hold it."""

    size: int = declare(5, "Passages shown: the positives, and negatives among them", DATA, least=1, most=20)
    missing: float = declare(0.15, "Share of examples shown without a positive: to be recognised, 0..1", DATA, least=0)
    prompt_tokens: int = declare(2048, "Maximum prompt length in tokens; passages are clipped equally", PROMPT, least=1)
    completion_tokens: int = declare(32, COMPLETION_TOKENS, PROMPT, least=1)
    learning_rate: float = declare(1e-4, LEARNING_RATE, COURSE, above=0)

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if self.missing >= 1:
            raise ValueError(f"missing={self.missing!r}: a number in 0..1, below 1, is needed")
