"""GRPO on a CPU that computes each prompt once for all its completions: `rankr1 train`, with another trainer.

    .venv-test/bin/python -m bench.shared_prompts grpo --model … (the options of `rankr1 train`)

trl's trainer runs every row of a group through the model. A prompt has hundreds of tokens and its completion a few
dozen, so most of that work repeats the same prompt. Here each distinct prompt of a batch is computed once, and its
completions use its keys and values, gradients included: the same numbers up to rounding. Rows without an advantage
(groups that are all right or all wrong) are left out of the loss. This replaces three private methods of trl 1.16's
trainer, so it is here and not in the package. It also keeps freed memory in the process (glibc), which saves up to a
fifth of a step.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from rankr1_rag.train.model import generating, round_frozen_weights


class SharedPrompts(GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` for a decoder whose state is keys and values, without gradient checkpointing."""

    def __init__(self, *args: Any, model: Any, **kwargs: Any) -> None:
        round_frozen_weights(model)
        super().__init__(*args, model=model, **kwargs)

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: object,
        multimodal_fields: object,
        num_generations: int,
        has_tool_images: bool = False,
    ) -> tuple[list[list[int]], None]:
        distinct, places = _distinct(prompt_ids)
        with (
            unwrap_model_for_generation(self.model_wrapped, self.accelerator) as model,
            generating(model),
            self.accelerator.autocast(),
        ):
            ends = torch.tensor(self.eos_token_ids, device=self.accelerator.device)
            pad = self._tokenizer.pad_token_id
            written = _sampled(model, distinct, places, self.max_completion_length, self.temperature, ends, pad)
        return [_ended(row, self.eos_token_ids) for row in written.tolist()], None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: object,
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        with self.accelerator.autocast():
            logits = _logits(model, input_ids, attention_mask, logits_to_keep)
        logps = torch.log_softmax(logits.float() / self.temperature, dim=-1)
        chosen = logps.gather(-1, input_ids[:, -logits_to_keep:].unsqueeze(-1)).squeeze(-1)
        entropy = -(logps.exp() * logps).sum(-1).detach() if compute_entropy else None
        return chosen, entropy, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self.beta or self.accelerator.num_processes > 1:  # processes gather a figure of every row
            return super()._compute_loss(model, inputs)
        rows, share = _moving(inputs)
        return super()._compute_loss(model, rows) * share


def _moving(inputs: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The rows that have an advantage, one at least, and their share."""
    advantages = inputs["advantages"]
    moving = advantages.nonzero().flatten() if advantages.any() else torch.zeros_like(advantages[:1], dtype=torch.long)
    rows = {
        name: value[moving] if isinstance(value, torch.Tensor) and value.shape[:1] == advantages.shape else value
        for name, value in inputs.items()
    }
    return rows, len(moving) / len(advantages)


def _distinct(prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """The prompts without repetition, and for each row which one is its."""
    found: dict[tuple[int, ...], int] = {}
    places = [found.setdefault(tuple(prompt), len(found)) for prompt in prompts]
    return [list(prompt) for prompt in found], places


def _handed(cache: DynamicCache, places: torch.Tensor) -> DynamicCache:
    """Keys and values of prompts, one copy for each row that goes on from them.

    Selected, not indexed: on a CPU the gradients of an index are added up by several threads in any order.
    """
    handed = DynamicCache()
    for index, layer in enumerate(cache.layers):
        handed.update(layer.keys.index_select(0, places), layer.values.index_select(0, places), index)
    return handed


def _read(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> DynamicCache:
    """The state after these prompts, padded on the left; no logits."""
    cache = DynamicCache()
    model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _logits(model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int) -> torch.Tensor:
    """Logits of the last `keep` tokens of each row, [rows, keep, vocabulary]; what stands before is computed once.

    The last token of the prompt goes with the completions: its logits are those of the first of them.
    """
    read = ids.shape[1] - keep - 1
    _, first, places = _unique(torch.cat([ids[:, :read], mask[:, :read]], dim=1))
    cache = _handed(_read(model, ids[first, :read], mask[first, :read]), places)
    positions = torch.arange(read, ids.shape[1] - 1, device=ids.device).unsqueeze(0)
    told = model(
        input_ids=ids[:, read:-1],
        attention_mask=mask[:, :-1],
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return told.logits


def _unique(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The distinct rows, the index of the first of each, and for each row which one it is."""
    distinct, places = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(rows), device=rows.device)
    first = first.scatter_reduce(0, places, torch.arange(len(rows), device=rows.device), "amin")
    return distinct, first, places


def _sampled(
    model: Any,
    prompts: list[list[int]],
    places: list[int],
    most: int,
    temperature: float,
    ends: torch.Tensor,
    pad: int,
) -> torch.Tensor:
    """One sampled completion a row, [rows, ≤ most], padded after its end.

    The completions of a prompt stand side by side in one sequence, a token of each at every step, and see the prompt
    and themselves: so the keys and values of a prompt are neither copied nor read for each of them.
    """
    device, width = ends.device, max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    slots, m = _slots(places)
    cache = DynamicCache()
    logits = model(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1
    ).logits.expand(-1, m, -1)
    running = torch.ones(len(prompts), m, dtype=torch.bool, device=device)
    written: list[torch.Tensor] = []
    for step in range(most):
        last = _drawn(torch.softmax(logits.float() / temperature, dim=-1))
        written.append(last.where(running, torch.full_like(last, pad)))
        running = running & ~torch.isin(last, ends)
        if step + 1 == most or not running.any():
            break
        seen = _seen(mask, m, step + 1, logits.dtype)
        positions = torch.full((1, m), width + step, device=device)
        logits = model(
            input_ids=written[-1], attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True
        ).logits
    return torch.stack(written, dim=-1)[places, slots]


def _drawn(chances: torch.Tensor) -> torch.Tensor:
    """A token for each distribution over the last dimension, by one random number each: torch draws one a token."""
    reached = chances.cumsum(-1)
    most = reached[..., -1:]
    below = torch.nextafter(most, torch.zeros_like(most))
    at = torch.minimum(torch.rand(most.shape, device=most.device) * most, below)
    return torch.searchsorted(reached, at, right=True).squeeze(-1)


def _slots(places: list[int]) -> tuple[list[int], int]:
    """For each row its number among those of its prompt, and the most rows that a prompt has."""
    counts: Counter[int] = Counter()
    slots = []
    for place in places:
        slots.append(counts[place])
        counts[place] += 1
    return slots, max(counts.values())


def _seen(mask: torch.Tensor, m: int, steps: int, dtype: torch.dtype) -> torch.Tensor:
    """What each of m completions side by side sees after so many steps, [prompts, 1, m, width + m · steps].

    To be added to the scores of attention.
    """
    prompt = mask.bool()[:, None, None, :].expand(-1, -1, m, -1)
    own = torch.eye(m, dtype=torch.bool, device=mask.device).repeat(1, steps).expand(len(mask), 1, -1, -1)
    seen = torch.cat([prompt, own], dim=-1)
    return torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill(~seen, torch.finfo(dtype).min)


def _ended(row: list[int], ends: list[int]) -> list[int]:
    """A completion up to its end token, that included."""
    return row[: next((place for place, token in enumerate(row) if token in ends), len(row) - 1) + 1]


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Options of mallopt(3), from glibc's malloc.h."""

PAD = 64 * 2**20
"""Bytes to request in addition to what is needed."""


def keep_memory() -> None:
    """Return no memory to the system until this process ends. Does nothing without glibc."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return
    for option, value in ((_TRIM_THRESHOLD, -1), (_TOP_PAD, PAD), (_MMAP_MAX, 0)):
        library.mallopt(option, value)


if __name__ == "__main__":
    from rankr1_rag.cli.train import app
    from rankr1_rag.train import grpo as module

    keep_memory()
    vars(module)["grpo"] = partial(module.grpo, trainer_class=SharedPrompts)
    app()
