"""The settings of training runs as frozen, self-checking values. The text next to each field is its help."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.settings import check_within, one_of
from rankr1_rag.train.data import Kind

Device = Literal["cpu", "cuda"]
DATA, PROMPT, LORA, COURSE = "Data", "Prompt", "Adapter", "Schedule"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of supervised training and of GRPO. A wrong value is a ValueError at once."""

    model: Annotated[str, "Base model: a folder or a name on the hub.", DATA]
    data: Annotated[
        tuple[str, ...], "JSON lines of examples (own format, Tevatron's or FlagEmbedding's); may be repeated.", DATA
    ]
    out: Annotated[str, "Folder of the run: adapter, card, log, plots, checkpoints.", DATA]
    held_out: Annotated[
        tuple[str, ...], "Held-out examples for the evaluation during training; may be repeated.", DATA
    ] = ()
    adapter: Annotated[
        str | None, "LoRA adapter to continue from; it keeps its rank (default: a new adapter).", DATA
    ] = None
    share: Annotated[float, "Fraction of examples to use, 0..1; subsets are nested.", DATA] = 1.0
    size: Annotated[int, "Passages in a set, 2..20: one positive, the rest negatives.", DATA] = 20
    hard: Annotated[int | None, "Number of hardest negatives to draw from (default: all of an example).", DATA] = None
    format: Annotated[str, f"Prompt format: {', '.join(FORMATS)}.", PROMPT] = "rank-r1-v0.1"
    query_tokens: Annotated[int | None, "Maximum query length in tokens (default: no limit).", PROMPT] = None
    passage_tokens: Annotated[int | None, "Maximum passage length in tokens (default: no limit).", PROMPT] = None
    prompt_tokens: Annotated[int, "Maximum prompt length in tokens; passages are clipped equally to fit.", PROMPT] = (
        4096
    )
    completion_tokens: Annotated[int, "Maximum completion length in tokens.", PROMPT] = 2048
    rank: Annotated[int, "Rank of the LoRA matrices.", LORA] = 16
    alpha: Annotated[int, "LoRA alpha; the update is scaled by alpha / rank.", LORA] = 32
    dropout: Annotated[float, "Dropout before the LoRA matrices.", LORA] = 0.05
    epochs: Annotated[int, "Passes over the data; each draws new negatives and orders.", COURSE] = 1
    steps: Annotated[int | None, "Maximum number of steps (default: all epochs).", COURSE] = None
    learning_rate: Annotated[float, "Peak learning rate, with warm-up and cosine decay.", COURSE] = 1e-5
    batch: Annotated[int, "Sets per step on all devices together.", COURSE] = 8
    device_batch: Annotated[
        int | None, "Sequences per device at once (default: the whole share of the device).", COURSE
    ] = None
    seed: Annotated[int, "Seed of sets, orders and samples.", COURSE] = 0
    save: Annotated[int, "Steps between checkpoints; each evaluates the held-out sets.", COURSE] = 100
    held_sets: Annotated[int, "Maximum number of held-out sets to evaluate.", COURSE] = 256
    device: Annotated[Device | None, "Device, cpu or cuda (default: cuda if available).", COURSE] = None
    compile: Annotated[bool, "Compile the layers first: takes a minute, then steps are faster.", COURSE] = False
    checkpointing: Annotated[bool, "Gradient checkpointing on a GPU: less memory, more time.", COURSE] = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "save", "prompt_tokens", "completion_tokens", "rank", "alpha", "held_sets"):
            check_within(name, getattr(self, name), 1)
        for name in ("steps", "hard", "query_tokens", "passage_tokens", "device_batch"):
            if (value := getattr(self, name)) is not None:
                check_within(name, value, 1)
        check_within("size", self.size, 2, 20)
        check_within("seed", self.seed, 0)
        one_of("format", self.format, tuple(FORMATS))
        _fraction("share", self.share, above=True)
        _fraction("dropout", self.dropout)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate!r}: use a number above 0")
        if self.device is not None:
            one_of("device", self.device, get_args(Device))
        if not self.data:
            raise ValueError("data=(): name at least one file of examples")

    @property
    def prompt_format(self) -> Format:
        """The format as a value."""
        return FORMATS[self.format]

    @property
    def context(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self.prompt_tokens + self.completion_tokens

    def to_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class SFT(Training):
    """Supervised training: the label alone, or a cold start whose reasoning names the passage first."""

    target: Annotated[
        Kind, "Completion to learn: 'label' (the label alone) or 'naming' (the passage's name, then its label).", COURSE
    ] = "label"
    format: Annotated[str, f"Prompt format: {', '.join(FORMATS)}.", PROMPT] = "setwise-sft-v0.1"
    completion_tokens: Annotated[int, "Maximum completion length in tokens.", PROMPT] = 64
    learning_rate: Annotated[float, "Peak learning rate, with warm-up and cosine decay.", COURSE] = 1e-4

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        one_of("target", self.target, get_args(Kind))
        if (self.target == "naming") != self.prompt_format.reasoning:
            fitting = [name for name, one in FORMATS.items() if one.reasoning == (self.target == "naming")]
            raise ValueError(f"target={self.target!r} does not fit format={self.format!r}: use {' or '.join(fitting)}")


@dataclass(frozen=True, kw_only=True)
class GRPO(Training):
    """Reinforcement learning from labels alone, with the settings of the paper (arXiv 2503.06034) as defaults.

    `batch` counts prompts, each answered `generations` times. The rollouts are vLLM's on a GPU, where it is installed.
    """

    generations: Annotated[int, "Samples per prompt.", COURSE] = 8
    temperature: Annotated[float, "Sampling temperature.", COURSE] = 1.0
    kl: Annotated[float, "Weight of the KL divergence from the initial model (0: no copy of it is kept).", COURSE] = 0.0
    vllm: Annotated[bool | None, "Generate samples with vLLM (default: on a GPU if vLLM is installed).", COURSE] = None

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        check_within("generations", self.generations, 2)
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature!r}: use a number above 0; greedy samples of a prompt are all equal"
            )
        if not 0 <= self.kl < math.inf:
            raise ValueError(f"kl={self.kl!r}: a number ≥ 0 is needed")
        if self.prompt_format.kind != "setwise":
            raise ValueError(f"format={self.format!r}: GRPO rewards one label: use a setwise format")


def _fraction(name: str, value: float, above: bool = False) -> None:
    if not (0 < value <= 1 if above else 0 <= value < 1):
        raise ValueError(f"{name}={value!r}: a number {'above 0 and at most 1' if above else 'in 0..1'} is needed")
