"""That prompts computed once give what trl's own trainer computes row by row: log-probabilities, gradients, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, DynamicCache
from trl import GRPOConfig, GRPOTrainer

from bench.shared_prompts import SharedPrompts, _distinct, _drawn, _ended, _handed, _sampled

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]

PROMPTS = [[11, 12, 13, 14, 15], [21, 22, 23]]
ROWS = [0, 0, 1, 0, 1]
COMPLETIONS = [[31, 32, 33], [34, 35], [36], [37, 38, 39], [40, 41]]
PADDING = [(5 - len(PROMPTS[row]), 3 - len(completion)) for row, completion in zip(ROWS, COMPLETIONS, strict=True)]
IDS = torch.tensor(
    [
        [0] * left + PROMPTS[row] + completion + [0] * right
        for row, completion, (left, right) in zip(ROWS, COMPLETIONS, PADDING, strict=True)
    ]
)
MASK = torch.tensor([[0] * left + [1] * (8 - left - right) + [0] * right for left, right in PADDING])
"""Rows of two prompts, padded on the left, with completions of up to three tokens, padded on the right."""


@pytest.fixture
def both(thin: Path, tmp_path: Path) -> list[Any]:
    """Our trainer and trl's."""
    arguments = {
        **{"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        **{"report_to": [], "num_generations": 2, "per_device_train_batch_size": 2, "temperature": 0.7},
    }
    return [
        kind(
            model=AutoModelForCausalLM.from_pretrained(thin, dtype=torch.float32),
            args=GRPOConfig(**arguments, loss_type="grpo"),
            reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
            train_dataset=Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}]),
        )
        for kind in (SharedPrompts, GRPOTrainer)
    ]


@pytest.fixture
def model(thin: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(thin, dtype=torch.float32).eval()


def same_gradients(both: list[Any], tolerance: float) -> None:
    ours, theirs = ({name: weight.grad for name, weight in one.model.named_parameters()} for one in both)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=tolerance)


@pytest.mark.smoke
def test_log_probabilities_entropies_and_gradients_are_trl_s_own(both: list[Any]) -> None:
    real, found = MASK[:, -3:].bool(), []
    for one in both:
        logps, entropies, _ = one._get_per_token_logps_and_entropies(one.model, IDS, MASK, 3, compute_entropy=True)
        (logps * real).sum().backward()
        found.append((logps[real].detach(), entropies[real]))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    same_gradients(both, 1e-5)


@pytest.mark.parametrize("advantages", [[0.7, 0.0, -0.3, 0.0, 0.5], [0.0] * 5, [1.0, -1.0, 0.5, -0.5, 0.2]])
def test_rows_without_an_advantage_are_left_out_and_the_gradient_is_the_same(
    both: list[Any], advantages: list[float]
) -> None:
    inputs = {
        **{"prompt_ids": IDS[:, :-3], "prompt_mask": MASK[:, :-3]},
        **{"completion_ids": IDS[:, -3:], "completion_mask": MASK[:, -3:]},
        **{"advantages": torch.tensor(advantages), "num_items_in_batch": MASK[:, -3:].sum()},
    }
    for one in both:
        one.current_gradient_accumulation_steps = 1
        one._compute_loss(one.model, dict(inputs)).backward()
    same_gradients(both, 1e-6)


def test_nearly_greedy_samples_are_what_the_model_generates(model: Any) -> None:
    with torch.no_grad():
        written = _sampled(model, PROMPTS, ROWS, 6, 1e-4, torch.tensor([2]), 0)
    for row, place in zip(written.tolist(), ROWS, strict=True):
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
        alone = model.generate(torch.tensor([PROMPTS[place]]), **options)[0, len(PROMPTS[place]) :].tolist()
        assert _ended(row, [2]) == _ended(alone, [2])


def test_tokens_are_drawn_as_often_as_they_are_likely_and_never_the_impossible() -> None:
    torch.manual_seed(3)
    chances = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    drawn = _drawn(chances.expand(100, 300, -1))
    assert drawn.shape == (100, 300)
    shares = torch.bincount(drawn.flatten(), minlength=6) / drawn.numel()
    torch.testing.assert_close(shares, chances, rtol=0, atol=0.01)
    assert not shares[chances == 0].any()


def test_the_gradient_of_a_shared_prompt_is_the_same_every_time() -> None:
    """Many rows of one prompt: added up by several threads at once it would differ in its last digits."""
    torch.manual_seed(2)
    keys = torch.randn(1, 3, 400, 64, requires_grad=True)
    weights = torch.randn(64, 3, 400, 64)
    gradients = []
    for _ in range(8):
        cache = DynamicCache()
        cache.update(keys, keys, 0)
        handed = _handed(cache, torch.zeros(64, dtype=torch.long))
        gradients += torch.autograd.grad((handed.layers[0].keys * weights).sum(), keys)
    assert all(torch.equal(one, gradients[0]) for one in gradients)


def test_equal_prompts_are_one_and_a_completion_stops_at_its_end() -> None:
    assert _distinct([[1, 2], [3], [1, 2]]) == ([[1, 2], [3]], [0, 1, 0])
    assert [_ended(row, [2]) for row in ([5, 2, 0, 0], [5, 6], [2])] == [[5, 2], [5, 6], [2]]
