"""What supervised training and GRPO share: the trainers' arguments, measuring, going on where a killed run stopped.

Of several processes each goes this way, and the main one alone writes. Knows transformers' trainer and the run's
folder; knows nothing of rewards and targets.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from rankr1_rag.train import chain, log
from rankr1_rag.train.card import write_card
from rankr1_rag.train.folder import Folder, opened
from rankr1_rag.train.held_out import Measured, measure
from rankr1_rag.train.material import Material, asked, read
from rankr1_rag.train.model import Trained, installed, load
from rankr1_rag.train.plots import write_plots
from rankr1_rag.train.processes import ALONE, Processes, joined
from rankr1_rag.train.settings import Training

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
    before: Sequence[chain.Record] = ()


def train(settings: Training, trainer: Callable[[Run], Any], progress: Progress | None = None) -> Folder:
    """The folder with the finished adapter; a run that was killed goes on, a finished one is left as it is.

    FileError, ValueError, BackendError and ImportError before anything is computed.
    """
    installed()
    processes = joined(settings.device)
    with opened(settings, processes) as folder:
        if processes.told(lambda: folder.done):
            return folder
        before = processes.told(lambda: chain.before(settings))
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
                run.progress(state.global_step, state.max_steps, log.record(state.global_step, logs))

        def _measure(self, state: Any) -> None:
            found = _measured(run, prompts) if prompts else None  # by all of them
            if found and state.is_world_process_zero:
                log.append(run.folder, {"step": state.global_step, "held_out": asdict(found)})
                if run.progress:
                    run.progress(state.global_step, state.max_steps, {"held_out": asdict(found)})

    return [log.logging_to(run.folder), Course()]


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
    write_card(run.settings, run.folder, [*run.before, chain.own(run.folder, run.material)])
    unfinished = run.folder.path / "unfinished"
    run.trained.model.save_pretrained(str(unfinished))
    (unfinished / "README.md").unlink(missing_ok=True)
    for file in sorted(unfinished.iterdir()):  # adapter_config.json before adapter_model.safetensors
        file.replace(run.folder.path / file.name)
    unfinished.rmdir()
