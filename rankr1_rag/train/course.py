"""What supervised training and GRPO share: the trainers' arguments, measuring, going on where a killed run stopped.

Knows transformers' trainer and the run's folder; knows nothing of rewards and targets.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from rankr1_rag.train import log
from rankr1_rag.train.card import write_card
from rankr1_rag.train.folder import Folder, opened
from rankr1_rag.train.held_out import Measured, measure
from rankr1_rag.train.material import Material, asked, read
from rankr1_rag.train.model import Trained, installed, load
from rankr1_rag.train.plots import write_plots
from rankr1_rag.train.settings import Training

Progress = Callable[[int, int, dict[str, Any]], None]
"""Told the step, of how many, and the newest line of the log."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run under way: what it is told, what it reads, what it trains, where it writes."""

    settings: Training
    folder: Folder
    material: Material
    trained: Trained
    progress: Progress | None = None


def train(settings: Training, trainer: Callable[[Run], Any], progress: Progress | None = None) -> Folder:
    """The folder with the finished adapter; a run that was killed goes on, a finished one is left as it is.

    FileError, ValueError, BackendError and ImportError before anything is computed.
    """
    installed()
    with opened(settings) as folder:
        if folder.done:
            return folder
        material = read(settings)
        run = Run(settings, folder, material, load(settings), progress)
        made = trainer(run)
        for callback in callbacks(run, made):
            made.add_callback(callback)
        _go(run, made)
        if made.is_world_process_zero():
            _finish(run)
    return folder


def arguments(run: Run, **further: object) -> dict[str, Any]:
    """What both trainers are told, for their classes of arguments."""
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
        **further,
    }


def shared_out(batch: int, device_batch: int | None, device: str) -> tuple[int, int]:
    """Sequences that a device computes at once, and how often until a step of `batch` is whole.

    ValueError where the batch cannot be shared out evenly.
    """
    accelerate: Any = import_module("accelerate")
    processes = accelerate.PartialState(cpu=device == "cpu").num_processes
    at_once = device_batch or max(1, batch // processes)
    if batch % (at_once * processes):
        raise ValueError(
            f"a step of {batch} sequences cannot be shared out to {processes} devices with device_batch={at_once}: "
            f"take a multiple of {at_once * processes}"
        )
    return at_once, batch // (at_once * processes)


def callbacks(run: Run, trainer: Any) -> list[Any]:
    """The log, the measuring at every checkpoint, and the progress."""
    transformers: Any = import_module("transformers")
    prompts = [asked(one, run.settings, run.trained.count) for one in run.material.held_out]

    class Course(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            done = [one["step"] for one in run.folder.records() if "held_out" in one]
            if state.global_step not in done:  # the beginning, or a run that was killed while it measured
                self._measure(state)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._measure(state)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if run.progress and state.is_world_process_zero and logs:
                run.progress(state.global_step, state.max_steps, log.record(state.global_step, logs))

        def _measure(self, state: Any) -> None:
            if prompts and state.is_world_process_zero:
                found = _measured(run, prompts)
                log.append(run.folder, {"step": state.global_step, "held_out": asdict(found)})
                if run.progress:
                    run.progress(state.global_step, state.max_steps, {"held_out": asdict(found)})

    return [log.logging_to(run.folder), Course()]


def _measured(run: Run, prompts: Sequence[Any]) -> Measured:
    settings = run.settings
    return measure(run.trained, prompts, run.material.held_out, settings.prompt_format, settings.completion_tokens)


def _go(run: Run, trainer: Any) -> None:
    checkpoint = run.folder.checkpoint()
    run.folder.cut_log(int(checkpoint.name.rpartition("-")[2]) if checkpoint else -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer.remove_callback(import_module("transformers").PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _finish(run: Run) -> None:
    """Card and plots first, the adapter last and whole: it says that the run is done."""
    write_plots(run.folder.records(), run.folder.path / "training.png")
    write_card(run.settings, run.folder, run.material)
    unfinished = run.folder.path / "unfinished"
    run.trained.model.save_pretrained(str(unfinished))
    (unfinished / "README.md").unlink(missing_ok=True)
    for file in sorted(unfinished.iterdir()):  # adapter_config.json before adapter_model.safetensors
        file.replace(run.folder.path / file.name)
    unfinished.rmdir()
