"""Group-relative policy optimisation from labels alone (arXiv 2402.03300), as Rank-R1 was trained (arXiv 2503.06034).

The model answers each prompt several times. An answer earns 1 if it keeps the format and names the right passage, else
0; answers above the mean of their group become more likely. Uses trl's trainer, with vLLM's rollouts on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rankr1_rag.prompt import Format
from rankr1_rag.train import prompts, trainer
from rankr1_rag.train.config import GRPO
from rankr1_rag.train.evaluate import Reward, reward
from rankr1_rag.train.run_dir import RunDir
from rankr1_rag.train.trainer import Progress, Run

VLLM_MEMORY = 0.3
"""Fraction of a GPU's memory for vLLM; the rest is for the model in training."""


def grpo(settings: GRPO, progress: Progress | None = None, trainer_class: Any = None) -> RunDir:
    """Train or resume until the adapter is written: see `trainer.train`. `trainer_class` replaces trl's GRPOTrainer."""
    return trainer.train(settings, lambda run: make_trainer(run, settings, trainer_class), progress)


def make_trainer(run: Run, settings: GRPO, trainer_class: Any = None) -> Any:
    """The trainer of a run, ready to train."""
    trl: Any = import_module("trl")
    datasets: Any = import_module("datasets")
    vllm = uses_vllm(settings, run.trained.device)
    sequences = settings.batch * settings.generations
    at_once, accumulated = trainer.shared_out(sequences, settings.device_batch, run.processes)
    arguments = trainer.arguments(
        run,
        trl.GRPOConfig,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=accumulated,
        generation_batch_size=sequences,
        num_generations=settings.generations,
        max_completion_length=settings.completion_tokens,
        temperature=settings.temperature,
        beta=settings.kl,
        loss_type="grpo",
        reward_weights=[1.0, 0.0, 0.0],
        shuffle_dataset=False,
        use_vllm=vllm,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=VLLM_MEMORY,
        vllm_max_model_length=settings.context,
    )
    return (trainer_class or trl.GRPOTrainer)(
        model=run.trained.model,
        args=arguments,
        reward_funcs=rewards(settings.prompt_format),
        train_dataset=datasets.Dataset.from_list(prompts.rewarded(run.material, settings, run.trained.count)),
        processing_class=run.trained.tokenizer,
    )


def rewards(format: Format) -> list[Any]:
    """The reward and its two parts as trl's reward functions; the parts are logged and have no weight."""

    def function(name: str, part: Callable[[Reward], float]) -> Any:
        def of(completions: Sequence[Any], n: Sequence[int], right: Sequence[int], **_: object) -> list[float]:
            texts = [completion[0]["content"] for completion in completions]
            return [part(reward(format, *one)) for one in zip(texts, n, right, strict=True)]

        of.__name__ = name
        return of

    parts: dict[str, Callable[[Reward], float]] = {
        "value": lambda one: one.value,
        "kept": lambda one: float(one.format),
        "right": lambda one: float(one.right),
    }
    return [function(name, part) for name, part in parts.items()]


def uses_vllm(settings: GRPO, device: str) -> bool:
    """Whether vLLM generates the samples. ImportError or ValueError if vllm=True cannot be fulfilled."""
    if settings.vllm is False:
        return False
    installed = find_spec("vllm") is not None
    if settings.vllm and not installed:
        raise ImportError('vllm=True: vLLM is not installed; install it with pip install "rankr1-rag[train,vllm]"')
    if settings.vllm and device != "cuda":
        raise ValueError(f"vllm=True needs a GPU (got device={device!r}): leave it out")
    return installed and device == "cuda"
