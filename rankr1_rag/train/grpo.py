"""Group-relative policy optimisation from labels alone (arXiv 2402.03300), as Rank-R1 was trained (arXiv 2503.06034).

Each prompt is answered several times; an answer is worth 1 if it keeps the form and names the right passage, else 0;
what did better than its group becomes likelier. By trl's trainer, with vLLM's rollouts on a GPU. Knows the reward and
the trainer; knows nothing of how a set was drawn.

The reward of reinforcement learning, as in arXiv 2503.06034: 1.0 where form and label are right, else 0.0.

Knows formats and texts; nothing of models and trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from rankr1_rag.prompt import Format
from rankr1_rag.train import prompts, trainer
from rankr1_rag.train.config import GRPO
from rankr1_rag.train.evaluate import Reward, reward
from rankr1_rag.train.run_dir import Folder
from rankr1_rag.train.trainer import Progress, Run

VLLM_MEMORY = 0.3
"""The part of a GPU's memory that vLLM gets beside the model that is trained."""


def grpo(settings: GRPO, progress: Progress | None = None) -> Folder:
    """Train, or go on, until the adapter is there: see `course.train`."""
    return trainer.train(settings, lambda run: _trainer(run, settings), progress)


def _trainer(run: Run, settings: GRPO) -> Any:
    trl: Any = import_module("trl")
    datasets: Any = import_module("datasets")
    vllm = _by_vllm(settings, run.trained.device)
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
        **_vllm(settings) if vllm else {},
    )
    kind = trl.GRPOTrainer if vllm or arguments.gradient_checkpointing else _shared_prompts()
    return kind(
        model=run.trained.model,
        args=arguments,
        reward_funcs=rewards(settings.prompt_format),
        train_dataset=datasets.Dataset.from_list(prompts.rewarded(run.material, settings, run.trained.count)),
        processing_class=run.trained.tokenizer,
    )


def rewards(format: Format) -> list[Any]:
    """The reward, and its two parts, which are only logged, in the shape of trl's reward functions."""

    def each(completions: Sequence[Any], n: Sequence[int], right: Sequence[int]) -> list[Reward]:
        texts = [completion[0]["content"] for completion in completions]
        return [reward(format, *one) for one in zip(texts, n, right, strict=True)]

    def value(completions: Sequence[Any], n: Sequence[int], right: Sequence[int], **_: object) -> list[float]:
        return [one.value for one in each(completions, n, right)]

    def kept(completions: Sequence[Any], n: Sequence[int], right: Sequence[int], **_: object) -> list[float]:
        return [float(one.format) for one in each(completions, n, right)]

    def named(completions: Sequence[Any], n: Sequence[int], right: Sequence[int], **_: object) -> list[float]:
        return [float(one.right) for one in each(completions, n, right)]

    named.__name__ = "right"
    return [value, kept, named]


def _by_vllm(settings: GRPO, device: str) -> bool:
    """Whether vLLM writes the samples. ImportError, ValueError where it was asked for and cannot be had."""
    if settings.vllm is False:
        return False
    there = find_spec("vllm") is not None
    if settings.vllm and not there:
        raise ImportError('vllm=True: vLLM is not installed: pip install "rankr1-rag[train,vllm]"')
    if settings.vllm and device != "cuda":
        raise ValueError("vllm=True: its rollouts need a GPU; leave it out, and prompts are shared on this CPU")
    return there and device == "cuda"


def _vllm(settings: GRPO) -> dict[str, Any]:
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": VLLM_MEMORY,
        "vllm_max_model_length": settings.context,
    }


def _shared_prompts() -> Any:
    from rankr1_rag.train.shared_prompts import SharedPrompts

    return SharedPrompts
