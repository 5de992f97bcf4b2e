"""What supervised training and GRPO share: the trainer's arguments, the log, evaluation, plots, and resuming.

The log has one JSON line a step, `{"step": 10, "loss": 2.1, "reward": 0.4, …}`; lines of an evaluation have `held_out`
instead of a loss. With several processes each runs this code, and only the main process writes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rankr1_rag.io.checksum import with_checksum
from rankr1_rag.io.files import writing_bytes
from rankr1_rag.train import card
from rankr1_rag.train.card import write_card
from rankr1_rag.train.config import RerankerTraining, Training
from rankr1_rag.train.evaluate import measure
from rankr1_rag.train.model import Trained, load
from rankr1_rag.train.prompts import TrainingData, asked, read_training_data
from rankr1_rag.train.run_dir import ALONE, Processes, RunDir, joined, opened

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
"""Logged figures: the trainers' names and ours."""

_PANELS = (
    ("Reward", ("reward",), ()),
    ("Loss", ("loss",), ()),
    ("Held-out sets", (), ("accuracy", "format_rate", "f1", "answered")),
    ("Completion, tokens", ("completion_tokens",), ("completion_tokens",)),
    ("Form kept, training", ("format_rate",), ()),
    ("Entropy", ("entropy",), ()),
)
"""A panel's title, its figures of the training sets, and its figures of the held-out sets."""


def write_plots(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG with a panel for each figure in the log; no file if the log is empty."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    held: list[Mapping[str, Any]] = [{"step": r["step"], **r["held_out"]} for r in records if "held_out" in r]
    shown = []
    for title, of_training, of_held_out in _PANELS:
        curves = [(name, "training", "-", [one for one in records if name in one]) for name in of_training]
        curves += [(name, "held out", "o-", [one for one in held if name in one]) for name in of_held_out]
        if drawn := [curve for curve in curves if curve[-1]]:
            shown.append((title, drawn))
    if not shown:
        return
    rows = -(-len(shown) // 2)
    figure, axes = pyplot.subplots(rows, 2, figsize=(10, 3 * rows), squeeze=False, layout="constrained")
    for axis, (title, curves) in zip(axes.flat, shown, strict=False):
        axis.set_title(title, loc="left", fontsize=11)
        for name, source, marker, points in curves:
            steps, values = [one["step"] for one in points], [one[name] for one in points]
            axis.plot(steps, values, marker, label=f"{name.replace('_', ' ')}, {source}", linewidth=1.2, markersize=4)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    with writing_bytes(path) as out:
        figure.savefig(out, format="png", dpi=130)
    pyplot.close(figure)


Progress = Callable[[int, int, dict[str, Any]], None]
"""Called with the step, the number of steps, and the newest line of the log."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run: its settings, folder, data and model; `before` are the runs that made the adapter it continues."""

    settings: Training
    folder: RunDir
    material: TrainingData
    trained: Trained
    progress: Progress | None = None
    processes: Processes = ALONE
    before: Sequence[card.Record] = ()


def train(settings: Training, trainer: Callable[[Run], Any], progress: Progress | None = None) -> RunDir:
    """The folder with the finished adapter. A killed run resumes; a finished run is left unchanged.

    FileError, ValueError, BackendError and ImportError before anything is computed.
    """
    try:
        for name in ("torch", "peft", "trl", "datasets", "matplotlib"):
            import_module(name)
    except ImportError as error:
        problem = f'training needs torch, trl and peft: pip install "rankr1-rag[train]" ({error})'
        raise ImportError(problem) from error
    processes = joined(settings.device)
    with opened(settings, processes) as folder:
        if processes.from_main(lambda: folder.done):
            return folder
        before = processes.from_main(lambda: card.before(settings))
        material = read_training_data(settings)
        run = Run(settings, folder, material, load(settings), progress, processes, before)
        started = trainer(run)
        started.add_callback(log_callback(run))
        checkpoint = processes.from_main(folder.cut_log_to_checkpoint)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            started.remove_callback(import_module("transformers").PrinterCallback)
            started.train(resume_from_checkpoint=checkpoint)
        processes.from_main(lambda: finish(run))
    return folder


def arguments(run: Run, kind: Callable[..., Any], **further: object) -> Any:
    """The arguments of both trainers as an object of class `kind`, with those in `further`."""
    settings = run.settings
    gpu = run.trained.device == "cuda"
    shared = {
        "output_dir": str(run.folder.checkpoints),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "max_steps": settings.steps or -1,
        "num_train_epochs": 1,  # the rows hold all epochs
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
    made = kind(**shared, **further)
    made._n_gpu = min(made.n_gpu, 1)  # further GPUs belong to further processes; else a step would be larger than set
    return made


def shared_out(batch: int, device_batch: int | None, processes: Processes) -> tuple[int, int]:
    """Sequences a device computes at once, and accumulation steps until `batch` is complete.

    ValueError if the batch cannot be divided evenly.
    """
    at_once = device_batch or max(1, batch // processes.count)
    together = at_once * processes.count if device_batch else processes.count
    if batch % together:
        each = f" with device_batch={device_batch}" if device_batch else ""
        raise ValueError(
            f"a step of {batch} sequences (for GRPO: batch x generations) cannot be divided evenly among "
            f"{processes.count} devices{each}: choose a multiple of {together}"
        )
    return at_once, batch // (at_once * processes.count)


def log_callback(run: Run) -> Any:
    """A callback of a transformers trainer: the log, an evaluation at every checkpoint, and the progress."""
    transformers: Any = import_module("transformers")
    prompts = [asked(one, run.settings, run.trained.count)[0] for one in run.material.held_out]

    class Log(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not run.processes.from_main(lambda: run.folder.has_scores(state.global_step)):
                self.on_save(args, state, control)  # a new run, or one that was killed during an evaluation

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if prompts:
                form = run.settings.prompt_format if isinstance(run.settings, RerankerTraining) else None
                most = run.settings.completion_tokens
                scores = measure(run.trained, prompts, run.material.held_out, form, most, run.processes)
                self.log(state, {"held_out": asdict(scores)})

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            figures = {ours: round(float(logs[theirs]), 6) for theirs, ours in NAMES.items() if theirs in (logs or {})}
            self.log(state, figures)

        def log(self, state: Any, figures: Mapping[str, Any]) -> None:
            if not state.is_world_process_zero or not figures:
                return
            line = {"step": state.global_step, **figures}
            if {"loss", "held_out"} & line.keys():
                with run.folder.log.open("a", encoding="utf-8") as out:
                    out.write(with_checksum(json.dumps(line)) + "\n")
            if run.progress:
                run.progress(state.global_step, state.max_steps, line)

    return Log()


def finish(run: Run) -> None:
    """Write card and plots first, the adapter last and whole: its presence marks the run as done."""
    write_plots(run.folder.records(), run.folder.path / "training.png")
    write_card(run.settings, run.folder, [*run.before, card.own(run.folder, run.material)])
    unfinished = run.folder.path / "unfinished"
    run.trained.model.save_pretrained(str(unfinished))
    (unfinished / "README.md").unlink(missing_ok=True)
    for file in sorted(unfinished.iterdir()):  # adapter_config.json before adapter_model.safetensors
        file.replace(run.folder.path / file.name)
    unfinished.rmdir()
