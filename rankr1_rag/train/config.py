"""The settings of training runs as frozen, self-checking values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.settings import Option, check_options
from rankr1_rag.train.data import Kind

Device = Literal["cpu", "cuda"]
DATA, PROMPT, LORA, COURSE = "Data", "Prompt", "Adapter", "Schedule"
FORMAT = Option(f"Prompt format: {', '.join(FORMATS)}", PROMPT, choices=tuple(FORMATS))
COMPLETION_TOKENS = Option("Maximum completion length in tokens", PROMPT, least=1)
LEARNING_RATE = Option("Peak learning rate, with warm-up and cosine decay", COURSE, above=0)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of supervised training and of GRPO. A wrong value is a ValueError at once."""

    model: Annotated[str, Option("Base model: a folder or a name on the hub", DATA)]
    data: Annotated[
        Sequence[str],
        Option("JSON lines of examples (own format, Tevatron's or FlagEmbedding's); may be repeated", DATA),
    ]
    out: Annotated[str, Option("Folder of the run: adapter, card, log, plots, checkpoints", DATA)]
    held_out: Annotated[
        Sequence[str], Option("Held-out examples for the evaluation during training; may be repeated", DATA, "none")
    ] = ()
    adapter: Annotated[
        str | None, Option("LoRA adapter to continue from; it keeps its rank", DATA, "a new adapter")
    ] = None
    share: Annotated[float, Option("Fraction of examples to use, 0..1; subsets are nested", DATA)] = 1.0
    size: Annotated[
        int, Option("Passages in a set, 2..20: one positive, the rest negatives", DATA, least=2, most=20)
    ] = 20
    hard: Annotated[
        int | None, Option("Number of hardest negatives to draw from", DATA, "all of an example", least=1)
    ] = None
    format: Annotated[str, FORMAT] = "rank-r1-v0.1"
    query_tokens: Annotated[int | None, Option("Maximum query length in tokens", PROMPT, "no limit", least=1)] = None
    passage_tokens: Annotated[int | None, Option("Maximum passage length in tokens", PROMPT, "no limit", least=1)] = (
        None
    )
    prompt_tokens: Annotated[
        int, Option("Maximum prompt length in tokens; passages are clipped equally to fit", PROMPT, least=1)
    ] = 4096
    completion_tokens: Annotated[int, COMPLETION_TOKENS] = 2048
    rank: Annotated[int, Option("Rank of the LoRA matrices", LORA, least=1)] = 16
    alpha: Annotated[int, Option("LoRA alpha; the update is scaled by alpha / rank", LORA, least=1)] = 32
    dropout: Annotated[float, Option("Dropout before the LoRA matrices", LORA, least=0)] = 0.05
    epochs: Annotated[int, Option("Passes over the data; each draws new negatives and orders", COURSE, least=1)] = 1
    steps: Annotated[int | None, Option("Maximum number of steps", COURSE, "all epochs", least=1)] = None
    learning_rate: Annotated[float, LEARNING_RATE] = 1e-5
    batch: Annotated[int, Option("Sets per step on all devices together", COURSE, least=1)] = 8
    device_batch: Annotated[
        int | None, Option("Sequences per device at once", COURSE, "the whole share of the device", least=1)
    ] = None
    seed: Annotated[int, Option("Seed of sets, orders and samples", COURSE, least=0)] = 0
    save: Annotated[int, Option("Steps between checkpoints; each evaluates the held-out sets", COURSE, least=1)] = 100
    held_sets: Annotated[int, Option("Maximum number of held-out sets to evaluate", COURSE, least=1)] = 256
    device: Annotated[Device | None, Option("Device, cpu or cuda", COURSE, "cuda if available")] = None
    compile: Annotated[bool, Option("Compile the layers first: takes a minute, then steps are faster", COURSE)] = False
    checkpointing: Annotated[bool, Option("Gradient checkpointing on a GPU: less memory, more time", COURSE)] = True

    def __post_init__(self) -> None:
        check_options(self)
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share!r}: a number above 0 and at most 1 is needed")
        if self.dropout >= 1:
            raise ValueError(f"dropout={self.dropout!r}: a number in 0..1 is needed")
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
        Kind,
        Option("Completion to learn: the label alone, or naming: the passage's name, then its label", COURSE),
    ] = "label"
    format: Annotated[str, FORMAT] = "setwise-sft-v0.1"
    completion_tokens: Annotated[int, COMPLETION_TOKENS] = 64
    learning_rate: Annotated[float, LEARNING_RATE] = 1e-4

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if (self.target == "naming") != self.prompt_format.reasoning:
            fitting = [name for name, one in FORMATS.items() if one.reasoning == (self.target == "naming")]
            raise ValueError(f"target={self.target!r} does not fit format={self.format!r}: use {' or '.join(fitting)}")


@dataclass(frozen=True, kw_only=True)
class GRPO(Training):
    """Reinforcement learning from labels alone, with the settings of the paper (arXiv 2503.06034) as defaults.

    `batch` counts prompts, each answered `generations` times. The rollouts are vLLM's on a GPU, where it is installed.
    """

    generations: Annotated[int, Option("Samples per prompt", COURSE, least=2)] = 8
    temperature: Annotated[
        float, Option("Sampling temperature; greedy samples of a prompt would all be equal", COURSE, above=0)
    ] = 1.0
    kl: Annotated[
        float,
        Option("Weight of the KL divergence from the initial model; 0 keeps no copy of it", COURSE, least=0),
    ] = 0.0
    vllm: Annotated[bool | None, Option("Generate samples with vLLM", COURSE, "on a GPU if vLLM is installed")] = None

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        if self.prompt_format.kind != "setwise":
            raise ValueError(f"format={self.format!r}: GRPO rewards one label: use a setwise format")
