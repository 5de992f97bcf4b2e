"""How long a step of training takes on this CPU: with memory kept or not, compiled or not, prompts shared or not.

    .venv-test/bin/python -m bench.training MODEL EXAMPLES.jsonl > bench/training.md

MODEL is a folder of SmolLM2-135M-Instruct, the examples as `rankr1-eval examples` makes them. Each is a run of twenty
steps in a folder that is thrown away; timed are the last ten. What keeps memory keeps it until the process ends, so
the run without comes first. Sets of 5, passages of 64 tokens, as the embedded
checkpoint was trained. Knows the trainers; nothing of what they learn.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import trl

from bench.shared_prompts import SharedPrompts, keep_memory
from rankr1_rag.train.config import GRPO, SFT
from rankr1_rag.train.grpo import grpo
from rankr1_rag.train.sft import sft
from rankr1_rag.train.trainer import Progress

T = TypeVar("T", SFT, GRPO)

STEPS, TIMED = 20, 10
SETS = 4
"""Prompts in a step of GRPO; a step of supervised training has twice as many sets."""


def seconds(train: Callable[[T, Progress], object], settings: T) -> float:
    """Of a step, the mean of the last ten."""
    at: dict[int, float] = {}

    def progress(step: int, *_: object) -> None:
        at.setdefault(step, time.perf_counter())

    train(settings, progress)
    return (at[STEPS] - at[STEPS - TIMED]) / TIMED


def main(model: str, examples: str) -> None:
    """Print the table."""
    shared: dict[str, Any] = {
        "model": model,
        "data": (examples,),
        "format": "naming-v1",
        "size": 5,
        "hard": 20,
        "passage_tokens": 64,
        "prompt_tokens": 1024,
        "completion_tokens": 48,
        "rank": 8,
        "alpha": 16,
        "dropout": 0.0,
        "steps": STEPS,
        "save": STEPS,
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        plain = SFT(**shared, target="naming", batch=2 * SETS, out=str(out / "handed_back"), learning_rate=1e-3)
        handed_back = seconds(sft, plain)
        keep_memory()
        cold = SFT(
            **shared, target="naming", batch=2 * SETS, compile=True, out=str(out / "compiled"), learning_rate=1e-3
        )
        compiled = seconds(sft, cold)
        eager = seconds(sft, replace(plain, out=str(out / "eager")))
        reinforced = {**shared, "adapter": cold.out, "batch": SETS, "generations": 8}
        ours = seconds(partial(grpo, trainer_class=SharedPrompts), GRPO(**reinforced, out=str(out / "shared")))
        rows = seconds(grpo, GRPO(**reinforced, out=str(out / "rows")))
    print(f"torch {torch.__version__}, trl {trl.__version__}, {torch.get_num_threads()} threads\n")
    print("| step | seconds | ratio |\n|---|---|---|")
    print(f"| supervised, {2 * SETS} sets, compiled | {compiled:.1f} | 1 |")
    print(f"| supervised, {2 * SETS} sets | {eager:.1f} | {eager / compiled:.1f} |")
    print(
        f"| supervised, {2 * SETS} sets, freed memory handed back | {handed_back:.1f} | {handed_back / compiled:.1f} |"
    )
    print(f"| GRPO, {SETS} sets × 8 completions, prompts shared | {ours:.1f} | 1 |")
    print(f"| GRPO, {SETS} sets × 8 completions, trl's own | {rows:.1f} | {rows / ours:.1f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
