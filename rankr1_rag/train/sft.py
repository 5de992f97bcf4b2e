"""Supervised training on labels: the label alone, or a cold start that names the passage before its label.

Only the completion is learned, and only its logits are computed. Uses transformers' trainer on tokenized rows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import chain
from typing import Any

from rankr1_rag.train import prompts, trainer
from rankr1_rag.train.config import SFT, ReaderTraining
from rankr1_rag.train.run_dir import RunDir
from rankr1_rag.train.trainer import Progress, Run

WINDOW = 16
"""Batches that are sorted by length together, so that rows of a batch have similar lengths and little padding."""

WIDTHS = 32
"""Batches are padded to a multiple of this many tokens: few shapes suit a compiled model."""

_IGNORED = -100


def sft(settings: SFT | ReaderTraining, progress: Progress | None = None) -> RunDir:
    """Train a reranker or a reader, or resume, until the adapter is written: see `trainer.train`."""
    return trainer.train(settings, lambda run: make_trainer(run, settings), progress)


def make_trainer(run: Run, settings: SFT | ReaderTraining) -> Any:
    """The trainer of a run, ready to train."""
    transformers: Any = import_module("transformers")
    needed = None if settings.steps is None else -(-settings.steps // WINDOW) * WINDOW * settings.batch
    rows = prompts.supervised(run.material.sets[:needed], settings, run.trained)
    rows = group_by_length(rows, settings.batch, settings.seed)
    at_once, accumulated = trainer.shared_out(settings.batch, settings.device_batch, run.processes)
    arguments = trainer.arguments(
        run,
        transformers.TrainingArguments,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=accumulated,
        train_sampling_strategy="sequential",
    )
    pad = run.trained.tokenizer.pad_token_id

    class Completions(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(
            self, model: Any, inputs: Any, *_: object, num_items_in_batch: Any = None, **__: object
        ) -> Any:
            each = None if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
            return completion_loss(model, inputs, each)  # gradients are averaged over processes, tokens summed

    return Completions(
        model=run.trained.model,
        args=arguments,
        train_dataset=rows,
        data_collator=lambda batch: padded(batch, pad),
        processing_class=run.trained.tokenizer,
    )


def group_by_length(rows: Sequence[dict[str, Any]], batch: int, seed: int) -> list[dict[str, Any]]:
    """All rows in an order drawn by the seed: batches of similar lengths, each from neighbouring rows."""
    ordered: list[dict[str, Any]] = []
    for start in range(0, len(rows), WINDOW * batch):
        window = sorted(rows[start : start + WINDOW * batch], key=lambda row: len(row["input_ids"]))
        batches = [window[at : at + batch] for at in range(0, len(window), batch)]
        random.Random(f"{seed} {start}").shuffle(batches)
        batches.sort(key=len, reverse=True)  # an incomplete one last
        ordered += chain.from_iterable(batches)
    return ordered


def padded(rows: Sequence[Mapping[str, Sequence[int]]], pad: int) -> dict[str, Any]:
    """A batch, [rows, width], padded on the left so that completions are at its end; labels for completions only.

    The first label of a row is ignored: transformers counts tokens as for models that shift labels.
    """
    torch: Any = import_module("torch")
    width = -(-max(len(row["input_ids"]) for row in rows) // WIDTHS) * WIDTHS
    longest = max(sum(row["completion_mask"]) for row in rows)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        ids, learned = list(row["input_ids"]), sum(row["completion_mask"])
        gap = width - len(ids)
        batch["input_ids"].append([pad] * gap + ids)
        batch["attention_mask"].append([0] * gap + [1] * len(ids))
        batch["labels"].append([_IGNORED] * (1 + longest - learned) + ids[len(ids) - learned :])
    return {name: torch.tensor(values) for name, values in batch.items()}


def completion_loss(model: Any, inputs: Mapping[str, Any], tokens: Any) -> Any:
    """Mean cross-entropy of the learned tokens, over a whole step that is computed in parts."""
    functional: Any = import_module("torch.nn.functional")
    labels = inputs["labels"]
    output = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_to_keep=labels.shape[1],
        use_cache=False,
    )
    summed = functional.cross_entropy(
        output.logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED, reduction="sum"
    )
    return summed / (tokens if tokens is not None else (labels != _IGNORED).sum())
