"""A causal language model with a LoRA adapter that is trained, its tokenizer, and what both must fit.

Knows transformers, peft and devices; knows nothing of examples and trainers. Imports torch only inside its functions.
"""

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
from rankr1_rag.train import memory
from rankr1_rag.train.config import Training
from rankr1_rag.types import Message

INSTALL = 'training needs torch, trl and peft: pip install "rankr1-rag[train]"'


@dataclass(frozen=True, slots=True)
class Trained:
    """The model with its adapter, on its device; `context` tokens is the longest that it was made for."""

    model: Any
    tokenizer: Any
    device: str
    context: int | None

    def count(self, text: str) -> int:
        """Tokens of a text, without those that a template adds."""
        return len(self.tokenizer(text, add_special_tokens=False).input_ids)

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a prompt, up to where the model begins to write: as the backends render it."""
        text = render_prompt(self.tokenizer, messages, "the model")
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def installed() -> None:
    """ImportError with the command that mends it."""
    try:
        for name in ("torch", "peft", "trl", "datasets", "matplotlib"):
            import_module(name)
    except ImportError as error:
        raise ImportError(f"{INSTALL} ({error})") from error


def load(settings: Training) -> Trained:
    """The model in bfloat16 on a GPU; on a CPU embeddings and norms in 32 bits; the adapter always in 32 bits.

    BackendError for a model without a chat template, a context that is too short, an adapter of another model.
    """
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(settings.seed)  # a new adapter begins at random
    weights = hub.weights(settings.model, settings.adapter)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda': torch sees no GPU here")
    if device == "cpu":
        memory.keep()
    context = hub.context(weights.base, None)
    if context is not None and settings.context > context:
        raise ValueError(
            f"prompt_tokens={settings.prompt_tokens} and completion_tokens={settings.completion_tokens} are more than "
            f"the {context:,} tokens that {settings.model} was made for"
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights.base.place, revision=weights.base.commit)
    if not tokenizer.chat_template:
        raise BackendError(f"{settings.model} has no chat template: an instruct or chat model is needed")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights.base.place,
        revision=weights.base.commit,
        dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        attn_implementation="sdpa" if device == "cuda" else "eager",
        use_safetensors=True,
        trust_remote_code=False,
    ).to(device)
    adapted = _adapted(model, weights, settings)
    _rounded(adapted)
    if settings.compile:
        for layer in model.get_decoder().layers:
            layer.compile()
    return Trained(adapted, tokenizer, device, context)


def _adapted(model: Any, weights: hub.Weights, settings: Training) -> Any:
    """The model with a new adapter on all linear layers, or with the one given, to be trained on."""
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
            f"the adapter {weights.adapter.name} does not fit the model {settings.model}: give the base that it was "
            f"trained on. {transformers_model.short(error)}"
        ) from error
    return wrapped


def _rounded(model: Any) -> None:
    """What is frozen of linear layers in the 16 bits that they are computed in: else every pass rounds it anew."""
    torch: Any = import_module("torch")
    for layer in model.modules():
        if not isinstance(layer, torch.nn.Linear) or layer.weight.requires_grad or layer.weight.dtype != torch.float32:
            continue  # a new weight, not a new type of the old one: an output layer is often the embeddings too
        layer.weight = torch.nn.Parameter(layer.weight.detach().to(torch.bfloat16), requires_grad=False)


@contextmanager
def writing(model: Any) -> Iterator[None]:
    """No gradients, and torch's own kernel of attention where the model has it: the faster one without them."""
    torch: Any = import_module("torch")
    before = model.config._attn_implementation
    if model._supports_sdpa:
        model.set_attn_implementation("sdpa")
    try:
        with torch.no_grad():
            yield
    finally:
        model.set_attn_implementation(before)
