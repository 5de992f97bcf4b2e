"""What supervised training and GRPO share: the trainers' arguments, measuring, going on where a killed run stopped.

Of several processes each goes this way, and the main one alone writes. Knows transformers' trainer and the run's
folder; knows nothing of rewards and targets.

What a trainer reports, a JSON line a step: `{"step": 10, "loss": 2.1, "reward": 0.4, …}`.

Lines of measurements hold `held_out` in place of a loss. Knows the trainers' names; knows no model.

The course of a training run as one picture: reward or loss, form, length, accuracy on held-out sets. By matplotlib.

Knows the lines of the log; knows no model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rankr1_rag.train import card
from rankr1_rag.train.card import write_card
from rankr1_rag.train.config import Training
from rankr1_rag.train.distributed import ALONE, Processes, joined
from rankr1_rag.train.evaluate import Measured, measure
from rankr1_rag.train.model import Trained, installed, load
from rankr1_rag.train.prompts import Material, asked, read
from rankr1_rag.train.run_dir import Folder, opened

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


_PANELS = (
    ("Reward", ("reward",), None),
    ("Loss", ("loss",), None),
    ("Held-out sets", (), ("accuracy", "format_rate")),
    ("Completion, tokens", ("completion_tokens",), ("completion_tokens",)),
    ("Form kept, training", ("format_rate",), None),
    ("Entropy", ("entropy",), None),
)
"""A panel's title, what of the trained sets it shows, and what of the held-out ones."""


def write_plots(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A PNG with a panel for each of these that the log tells of; none where the log is empty."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    shown = [panel for panel in _PANELS if any(_curves(records, panel))]
    if not shown:
        return
    rows = -(-len(shown) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(10, 3 * rows), squeeze=False, layout="constrained")
    for axis, panel in zip(axes.flat, shown, strict=False):
        axis.set_title(panel[0], loc="left", fontsize=11)
        for name, steps, values, marker in _curves(records, panel):
            axis.plot(steps, values, marker, label=name, linewidth=1.2, markersize=4)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _curves(records: Sequence[Mapping[str, Any]], panel: tuple[str, Any, Any]) -> list[tuple[str, Any, Any, str]]:
    """Name, steps, values and line of every curve of a panel that has a point."""
    _, trained, held = panel
    found = []
    for name in trained:
        points = [(one["step"], one[name]) for one in records if name in one]
        found.append((f"{name.replace('_', ' ')}, training", points, "-"))
    for name in held or ():
        points = [(one["step"], one["held_out"][name]) for one in records if "held_out" in one]
        found.append((f"{name.replace('_', ' ')}, held out", points, "o-"))
    return [(name, *zip(*points, strict=True), line) for name, points, line in found if points]  # type: ignore[misc]


Progress = Callable[[int, int, dict[str, Any]], None]
"""Told the step, of how many, and the newest line of the log."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run under way: what it is told, reads and trains, where it writes, and the runs `before` it."""

    settings: Training
    folder: Folder
    material: Material
    trained: Trained
    progress: Progress | None = None
    processes: Processes = ALONE
    before: Sequence[card.Record] = ()


def train(settings: Training, trainer: Callable[[Run], Any], progress: Progress | None = None) -> Folder:
    """The folder with the finished adapter; a run that was killed goes on, a finished one is left as it is.

    FileError, ValueError, BackendError and ImportError before anything is computed.
    """
    installed()
    processes = joined(settings.device)
    with opened(settings, processes) as folder:
        if processes.told(lambda: folder.done):
            return folder
        before = processes.told(lambda: card.before(settings))
        material = read(settings)
        run = Run(settings, folder, material, load(settings), progress, processes, before)
        made = trainer(run)
        for callback in callbacks(run):
            made.add_callback(callback)
        _go(run, made)
        processes.told(lambda: _finish(run))
    return folder


def arguments(run: Run, kind: Callable[..., Any], **further: object) -> Any:
    """What both trainers are told, in the class of arguments of each."""
    made = kind(**_arguments(run), **further)
    made._n_gpu = min(made.n_gpu, 1)  # further GPUs are for further processes: a step would be greater than told
    return made


def _arguments(run: Run) -> dict[str, Any]:
    settings = run.settings
    gpu = run.trained.device == "cuda"
    return {
        "output_dir": str(run.folder.checkpoints),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "max_steps": settings.steps or -1,
        "num_train_epochs": 1,  # the epochs stand one after another in the rows
        "bf16": True,
        "use_cpu": not gpu,
        "activation_checkpointing": gpu and settings.checkpointing,
        "save_strategy": "steps",
        "save_steps": settings.save,
        "save_total_limit": 3,
        "logging_steps": max(1, min(10, settings.save)),
        "logging_nan_inf_filter": False,
        "report_to": [],
        "seed": settings.seed,
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
        "remove_unused_columns": False,
        "max_grad_norm": 1.0,
        "weight_decay": 0.0,
        "ddp_find_unused_parameters": False,  # every step uses every matrix of the adapter
        "ddp_broadcast_buffers": False,
    }


def shared_out(batch: int, device_batch: int | None, processes: Processes) -> tuple[int, int]:
    """Sequences that a device computes at once, and how often until a step of `batch` is whole.

    ValueError where the batch cannot be shared out evenly.
    """
    at_once = device_batch or max(1, batch // processes.count)
    together = at_once * processes.count if device_batch else processes.count
    if batch % together:
        each = f", {device_batch} at once on each" if device_batch else ""
        raise ValueError(
            f"a step of {batch} sequences (for GRPO, batch times generations) cannot be shared out evenly to "
            f"{processes.count} devices{each}: {together} must divide it"
        )
    return at_once, batch // (at_once * processes.count)


def callbacks(run: Run) -> list[Any]:
    """The log, the measuring at every checkpoint, and the progress."""
    transformers: Any = import_module("transformers")
    prompts = [asked(one, run.settings, run.trained.count) for one in run.material.held_out]

    class Course(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not run.processes.told(lambda: _measured_at(run.folder, state.global_step)):
                self._measure(state)  # the beginning, or a run that was killed while it measured

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._measure(state)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if run.progress and state.is_world_process_zero and logs:
                run.progress(state.global_step, state.max_steps, record(state.global_step, logs))

        def _measure(self, state: Any) -> None:
            found = _measured(run, prompts) if prompts else None  # by all of them
            if found and state.is_world_process_zero:
                append(run.folder, {"step": state.global_step, "held_out": asdict(found)})
                if run.progress:
                    run.progress(state.global_step, state.max_steps, {"held_out": asdict(found)})

    return [logging_to(run.folder), Course()]


def _measured_at(folder: Folder, step: int) -> bool:
    return any(one["step"] == step and "held_out" in one for one in folder.records())


def _measured(run: Run, prompts: Sequence[Any]) -> Measured:
    settings, held = run.settings, run.material.held_out
    return measure(run.trained, prompts, held, settings.prompt_format, settings.completion_tokens, run.processes)


def _go(run: Run, trainer: Any) -> None:
    checkpoint = run.processes.told(lambda: _begun(run.folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer.remove_callback(import_module("transformers").PrinterCallback)
        trainer.train(resume_from_checkpoint=checkpoint)


def _begun(folder: Folder) -> str | None:
    """The checkpoint to go on from, with the log as it was then."""
    checkpoint = folder.checkpoint()
    folder.cut_log(int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1)
    return str(checkpoint) if checkpoint else None


def _finish(run: Run) -> None:
    """Card and plots first, the adapter last and whole: it says that the run is done."""
    write_plots(run.folder.records(), run.folder.path / "training.png")
    write_card(run.settings, run.folder, [*run.before, card.own(run.folder, run.material)])
    unfinished = run.folder.path / "unfinished"
    run.trained.model.save_pretrained(str(unfinished))
    (unfinished / "README.md").unlink(missing_ok=True)
    for file in sorted(unfinished.iterdir()):  # adapter_config.json before adapter_model.safetensors
        file.replace(run.folder.path / file.name)
    unfinished.rmdir()
