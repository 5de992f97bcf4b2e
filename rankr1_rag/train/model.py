"""A causal language model with a LoRA adapter in training, and its tokenizer. Functions import torch when called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rankr1_rag.backends import hub
from rankr1_rag.backends.chat_template import render_prompt
from rankr1_rag.backends.transformers import model as transformers_model
from rankr1_rag.errors import BackendError
from rankr1_rag.train.config import GRPO, Training
from rankr1_rag.types import Message


@dataclass(frozen=True, slots=True)
class Trained:
    """The model with its adapter on its device; `context` is its longest sequence in tokens."""

    model: Any
    tokenizer: Any
    device: str
    context: int | None

    def count(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a prompt up to the start of the completion, rendered as the backends render it.

        Where the template opens the reasoning, the model has to do it: the reward is for the whole form.
        """
        text, opened = render_prompt(self.tokenizer, messages, "the model")
        text = text.rstrip().removesuffix(opened) if opened else text
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def load(settings: Training) -> Trained:
    """Load the model: bfloat16 on a GPU; float32 embeddings and norms on a CPU; the adapter always in float32.

    BackendError for a model without a chat template or an adapter of another model; ValueError for a short context.
    """
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(settings.seed)  # a new adapter begins at random
    weights = hub.weights(settings.model, settings.adapter)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda': torch finds no GPU; use device='cpu'")
    context = hub.context(weights.base, None)
    if context is not None and settings.context > context:
        raise ValueError(
            f"prompt_tokens={settings.prompt_tokens} and completion_tokens={settings.completion_tokens} exceed the "
            f"context of {settings.model}, {context:,} tokens: lower one of them"
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights.base.place, revision=weights.base.commit)
    if not tokenizer.chat_template:
        raise BackendError(f"{settings.model} has no chat template: use an instruct or chat model")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights.base.place,
        revision=weights.base.commit,
        dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        attn_implementation="sdpa" if device == "cuda" else "eager",
        use_safetensors=True,
        trust_remote_code=False,
    ).to(device)
    adapted = with_adapter(model, weights, settings)
    if not isinstance(settings, GRPO):  # trl's trainer samples without autocast, where types must agree
        round_frozen_weights(adapted)
    if settings.compile:
        for layer in model.get_decoder().layers:
            layer.compile()
    return Trained(adapted, tokenizer, device, context)


def with_adapter(model: Any, weights: hub.Weights, settings: Training) -> Any:
    """The model with a new adapter on all linear layers, or with the adapter of `weights`, ready to train."""
    peft: Any = import_module("peft")
    if weights.adapter is None:
        lora = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        return peft.get_peft_model(model, lora)
    folder = weights.adapter.file(hub.ADAPTER).parent
    try:
        wrapped = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except Exception as error:
        raise BackendError(
            f"the adapter {weights.adapter.name} does not fit the model {settings.model}: use the base it was "
            f"trained on. {transformers_model.short(error)}"
        ) from error
    return wrapped


def round_frozen_weights(model: Any) -> None:
    """Keep frozen linear weights in the 16 bits they are computed in; else every forward pass rounds them again."""
    torch: Any = import_module("torch")
    for layer in model.modules():
        if not isinstance(layer, torch.nn.Linear) or layer.weight.requires_grad or layer.weight.dtype != torch.float32:
            continue  # replaced, not converted: the output layer often shares the embeddings
        layer.weight = torch.nn.Parameter(layer.weight.detach().to(torch.bfloat16), requires_grad=False)


@contextmanager
def generating(model: Any) -> Iterator[None]:
    """No gradients, and torch's attention kernel if the model supports it: it is faster without gradients."""
    torch: Any = import_module("torch")
    before = model.config._attn_implementation
    if model._supports_sdpa:
        model.set_attn_implementation("sdpa")
    try:
        with torch.no_grad():
            yield
    finally:
        model.set_attn_implementation(before)
