"""How a model is held while it is trained: in fewer bits where that changes nothing, faster where it need not learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rankr1_rag.train.config import SFT
from rankr1_rag.train.model import generating, load

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]

IDS = torch.tensor([[11, 12, 13, 14, 15], [21, 22, 23, 24, 25]])


def loaded(model: Path, folder: Path) -> Any:
    lengths = {"prompt_tokens": 64, "completion_tokens": 8}
    return load(SFT(model=str(model), data=("none",), out=str(folder), device="cpu", **lengths)).model


def learned(model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and the gradients of the adapter, computed as training does on a CPU."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=IDS).logits
    torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return logits.detach(), [weight.grad for weight in model.parameters() if weight.grad is not None]


@pytest.mark.smoke
def test_frozen_weights_in_16_bits_change_no_number(thin: Path, tmp_path: Path) -> None:
    ours = loaded(thin, tmp_path).eval()
    whole = AutoModelForCausalLM.from_pretrained(thin, dtype=torch.float32, attn_implementation="eager")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model(whole, lora).eval()
    theirs.load_state_dict({name: weight for name, weight in ours.state_dict().items() if "lora" in name}, strict=False)
    linear = [layer.weight for layer in ours.modules() if isinstance(layer, torch.nn.Linear)]
    assert {weight.dtype for weight in linear if not weight.requires_grad} == {torch.bfloat16}
    assert {weight.dtype for weight in linear if weight.requires_grad} == {torch.float32}
    assert ours.get_input_embeddings().weight.dtype == torch.float32
    (logits, gradients), (expected, due) = learned(ours), learned(theirs)
    assert torch.equal(logits, expected)
    assert len(gradients) == len(due) > 0
    assert all(torch.equal(one, other) for one, other in zip(gradients, due, strict=True))


def test_a_model_that_writes_learns_nothing_and_learns_on_afterwards(thin: Path, tmp_path: Path) -> None:
    model = loaded(thin, tmp_path).eval()
    with torch.autocast("cpu", torch.bfloat16):
        before = model(input_ids=IDS).logits
        with generating(model):
            within = model(input_ids=IDS).logits
            assert model.config._attn_implementation == "sdpa"
        after = model(input_ids=IDS).logits
    assert not within.requires_grad
    torch.testing.assert_close(within, before, rtol=0.1, atol=0.1)
    assert after.requires_grad
    assert torch.equal(after, before)
    with pytest.raises(KeyError), generating(model):
        raise KeyError
    assert model.config._attn_implementation == "eager"
