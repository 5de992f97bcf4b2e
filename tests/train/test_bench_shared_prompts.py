"""That prompts computed once give what trl's own trainer computes row by row: log-probabilities, gradients, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from trl import GRPOConfig, GRPOTrainer

from bench.shared_prompts import SharedPrompts, _distinct, _ended, _handed, _sampled

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]

PROMPTS = [[11, 12, 13, 14, 15], [21, 22, 23]]
ROWS = [0, 0, 1, 0, 1]


def trainer(kind: Any, model: Path, folder: Path) -> Any:
    arguments = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        num_generations=2,
        per_device_train_batch_size=2,
        temperature=0.7,
        loss_type="grpo",
    )
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    data = [{"prompt": "a"}, {"prompt": "b"}]
    from datasets import Dataset

    return kind(
        model=weights,
        args=arguments,
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        train_dataset=Dataset.from_list(data),
    )


def batch() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Rows of two prompts, padded on the left, with completions of different lengths, padded on the right."""
    completions = [[31, 32, 33], [34, 35], [36], [37, 38, 39], [40, 41]]
    ids, mask = [], []
    for row, completion in zip(ROWS, completions, strict=True):
        prompt = PROMPTS[row]
        ids.append([0] * (5 - len(prompt)) + prompt + completion + [0] * (3 - len(completion)))
        mask.append([0] * (5 - len(prompt)) + [1] * (len(prompt) + len(completion)) + [0] * (3 - len(completion)))
    return torch.tensor(ids), torch.tensor(mask), 3


def passes(kind: Any, model: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    made = trainer(kind, model, folder)
    ids, mask, keep = batch()
    logps, entropies, _ = made._get_per_token_logps_and_entropies(made.model, ids, mask, keep, compute_entropy=True)
    real = mask[:, -keep:].bool()
    (logps * real).sum().backward()
    gradients = {name: weight.grad for name, weight in made.model.named_parameters()}
    return logps[real].detach(), entropies[real], gradients


@pytest.mark.smoke
def test_log_probabilities_entropies_and_gradients_are_trl_s_own(thin: Path, tmp_path: Path) -> None:
    ours, theirs = (passes(kind, thin, tmp_path) for kind in (SharedPrompts, GRPOTrainer))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-5)
    assert ours[2].keys() == theirs[2].keys()
    for name, gradient in theirs[2].items():
        torch.testing.assert_close(ours[2][name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("advantages", [[0.7, 0.0, -0.3, 0.0, 0.5], [0.0] * 5, [1.0, -1.0, 0.5, -0.5, 0.2]])
def test_rows_without_an_advantage_are_left_out_and_the_gradient_is_the_same(
    thin: Path, tmp_path: Path, advantages: list[float]
) -> None:
    gradients = []
    for kind in (SharedPrompts, GRPOTrainer):
        made = trainer(kind, thin, tmp_path)
        made.current_gradient_accumulation_steps = 1
        ids, mask, keep = batch()
        inputs = {
            "prompt_ids": ids[:, :-keep],
            "prompt_mask": mask[:, :-keep],
            "completion_ids": ids[:, -keep:],
            "completion_mask": mask[:, -keep:],
            "advantages": torch.tensor(advantages),
            "num_items_in_batch": mask[:, -keep:].sum(),
        }
        made._compute_loss(made.model, inputs).backward()
        gradients.append({name: weight.grad for name, weight in made.model.named_parameters()})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-6)


def test_nearly_greedy_samples_are_what_the_model_generates(thin: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(thin, dtype=torch.float32).eval()
    with torch.no_grad():
        written = _sampled(model, PROMPTS, ROWS, 6, 1e-4, torch.tensor([2]), 0)
        for row, place in zip(written.tolist(), ROWS, strict=True):
            alone = model.generate(
                torch.tensor([PROMPTS[place]]), max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=0
            )[0, len(PROMPTS[place]) :].tolist()
            assert _ended(row, [2]) == _ended(alone, [2])


def test_samples_are_drawn_from_the_model_s_distribution(thin: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(thin, dtype=torch.float32).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        written = _sampled(model, PROMPTS[:1], [0] * 4000, 1, 0.05, torch.tensor([2]), 0)
        chances = torch.softmax(model(torch.tensor(PROMPTS[:1])).logits[0, -1] / 0.05, dim=-1)
    best = int(chances.argmax())
    seen = (written == best).float().mean().item()
    assert seen == pytest.approx(float(chances[best]), abs=0.04)


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


def test_equal_prompts_are_one() -> None:
    assert _distinct([[1, 2], [3], [1, 2]]) == ([[1, 2], [3]], [0, 1, 0])


@pytest.mark.parametrize(("row", "ended"), [([5, 2, 0, 0], [5, 2]), ([5, 6], [5, 6]), ([2], [2])])
def test_a_completion_stops_at_its_end(row: list[int], ended: list[int]) -> None:
    assert _ended(row, [2]) == ended
