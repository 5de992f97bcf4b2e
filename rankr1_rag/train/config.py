"""What a training run is told, as frozen values that check themselves.

The words beside each field are its help on the command line. Knows no model and no file's content.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.settings import check_within, one_of
from rankr1_rag.train.data import Kind

Device = Literal["cpu", "cuda"]
DATA, PROMPT, LORA, COURSE = "Data", "Prompt", "Adapter", "Course"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What supervised training and GRPO share. A wrong value is a ValueError here and not an hour later."""

    model: Annotated[str, "The base model: a folder, or a name on the hub.", DATA]
    data: Annotated[tuple[str, ...], "JSON lines of examples (own shape or Tevatron's); may be repeated.", DATA]
    out: Annotated[str, "The folder of this run: adapter, card, log, plots, checkpoints.", DATA]
    held_out: Annotated[tuple[str, ...], "Examples to measure on while training, never trained on.", DATA] = ()
    adapter: Annotated[str | None, "Go on from this LoRA adapter (its rank stays) instead of a new one.", DATA] = None
    share: Annotated[float, "Train on this part of the examples, 0..1; a smaller part lies in a greater.", DATA] = 1.0
    size: Annotated[int, "Passages in a set, 2..20: one positive, the rest negatives.", DATA] = 20
    hard: Annotated[int | None, "Draw negatives from the first so many of an example.", DATA] = None
    format: Annotated[str, f"The prompt format: {', '.join(FORMATS)}.", PROMPT] = "rank-r1-v0.1"
    query_tokens: Annotated[int | None, "Clip queries to so many tokens.", PROMPT] = None
    passage_tokens: Annotated[int | None, "Clip passages to so many tokens.", PROMPT] = None
    prompt_tokens: Annotated[int, "Longest prompt; passages are clipped equally to fit.", PROMPT] = 4096
    completion_tokens: Annotated[int, "Longest completion.", PROMPT] = 2048
    rank: Annotated[int, "Rank of the LoRA matrices.", LORA] = 16
    alpha: Annotated[int, "Their scale is alpha / rank.", LORA] = 32
    dropout: Annotated[float, "Dropout before them.", LORA] = 0.05
    epochs: Annotated[int, "Passes over the data; negatives and orders are drawn anew in each.", COURSE] = 1
    steps: Annotated[int | None, "Stop after so many steps.", COURSE] = None
    learning_rate: Annotated[float, "Highest learning rate: warmed up, then falling along a cosine.", COURSE] = 1e-5
    batch: Annotated[int, "Sets in a step, on all devices together.", COURSE] = 8
    device_batch: Annotated[
        int | None, "Sequences a device computes at once; all of its share if left out.", COURSE
    ] = None
    seed: Annotated[int, "Draws sets, orders and samples.", COURSE] = 0
    save: Annotated[int, "Write a checkpoint, and measure, every so many steps.", COURSE] = 100
    held_sets: Annotated[int, "Measure on at most so many held-out sets.", COURSE] = 256
    device: Annotated[Device | None, "cpu or cuda; the best there is if left out.", COURSE] = None
    compile: Annotated[bool, "Compile the layers first: a minute, then faster steps.", COURSE] = False
    checkpointing: Annotated[
        bool,
        "Gradient checkpointing: less memory, more time. On a GPU; GRPO without vLLM then shares no prompts.",
        COURSE,
    ] = True

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
            raise ValueError(f"learning_rate={self.learning_rate!r}: a number above 0 is needed")
        if self.device is not None:
            one_of("device", self.device, get_args(Device))
        if not self.data:
            raise ValueError("data: no file of examples is given")

    @property
    def prompt_format(self) -> Format:
        """The format as a value."""
        return FORMATS[self.format]

    @property
    def context(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self.prompt_tokens + self.completion_tokens

    def telling(self) -> dict[str, Any]:
        """All that the result depends on, as JSON has it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class SFT(Training):
    """Supervised training: the label alone, or a cold start that thinks of the passage's name first."""

    target: Annotated[
        Kind, "What is learnt to be written: 'label', or 'naming': a thought that names the passage, then it.", COURSE
    ] = "label"
    format: Annotated[str, f"The prompt format: {', '.join(FORMATS)}.", PROMPT] = "setwise-sft-v0.1"
    completion_tokens: Annotated[int, "Longest completion.", PROMPT] = 64
    learning_rate: Annotated[float, "Highest learning rate: warmed up, then falling along a cosine.", COURSE] = 1e-4

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        one_of("target", self.target, get_args(Kind))
        if (self.target == "naming") != self.prompt_format.reasoning:
            fitting = [name for name, one in FORMATS.items() if one.reasoning == (self.target == "naming")]
            raise ValueError(f"target={self.target!r} does not go with format={self.format!r}: {' or '.join(fitting)}")


@dataclass(frozen=True, kw_only=True)
class GRPO(Training):
    """Reinforcement learning from labels alone, with the settings of the paper (arXiv 2503.06034) as defaults.

    `batch` counts prompts, each answered `generations` times. The rollouts are vLLM's on a GPU, where it is installed.
    """

    generations: Annotated[int, "Completions sampled for each prompt.", COURSE] = 8
    temperature: Annotated[float, "Of the samples.", COURSE] = 1.0
    kl: Annotated[float, "Weight of the divergence from the model it began with; 0 keeps no such model.", COURSE] = 0.0
    vllm: Annotated[bool | None, "Let vLLM write the samples; if left out, on a GPU where it is installed.", COURSE] = (
        None
    )

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        check_within("generations", self.generations, 2)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature!r}: a number above 0 is needed, greedy samples are equal")
        if not 0 <= self.kl < math.inf:
            raise ValueError(f"kl={self.kl!r}: a number ≥ 0 is needed")
        if self.prompt_format.kind != "setwise":
            raise ValueError(f"format={self.format!r}: one label can be rewarded, so a setwise format is needed")


def _fraction(name: str, value: float, above: bool = False) -> None:
    if not (0 < value <= 1 if above else 0 <= value < 1):
        raise ValueError(f"{name}={value!r}: a number {'above 0 and at most 1' if above else 'in 0..1'} is needed")
