"""What a trainer reports, a JSON line a step: `{"step": 10, "loss": 2.1, "reward": 0.4, …}`.

Lines of measurements hold `held_out` in place of a loss. Knows the trainers' names; knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from rankr1_rag.train.folder import Folder

NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "entropy": "entropy",
    "kl": "kl",
    "mean_token_accuracy": "token_accuracy",
    "reward": "reward",
    "reward_std": "reward_deviation",
    "frac_reward_zero_std": "groups_alike",
    "rewards/kept/mean": "format_rate",
    "rewards/right/mean": "accuracy",
    "completions/mean_length": "completion_tokens",
    "completions/clipped_ratio": "cut_off",
    "num_tokens": "tokens",
}
"""What the trainers report, by their name for it, and ours."""


def record(step: int, logs: Mapping[str, Any]) -> dict[str, float]:
    """One line of the log, of what is known by name; empty where nothing is."""
    found = {ours: round(float(logs[theirs]), 6) for theirs, ours in NAMES.items() if theirs in logs}
    return {"step": step, **found} if found else {}


def append(folder: Folder, line: Mapping[str, Any]) -> None:
    """One more line."""
    with folder.log.open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


def logging_to(folder: Folder) -> Any:  # a class of a library that may not be installed
    """A callback of a transformers trainer that writes the log."""
    transformers: Any = import_module("transformers")

    class Log(transformers.TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            line = record(state.global_step, logs or {})
            if state.is_world_process_zero and "loss" in line:
                append(folder, line)

    return Log()
