"""A causal language model and its LoRA adapter, loaded by transformers and peft.

Knows weights, devices and what does not fit together; knows nothing of text, requests or batches. Imports torch only
inside its functions. The adapter is kept beside the weights, not merged into them: in 16 bits a merge rounds away part
of what reinforcement learning changed.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rankr1_rag.backends import hub
from rankr1_rag.backends.hub import Source
from rankr1_rag.errors import BackendError

_PLAIN = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers whose state is keys and values, one for each token, which can be put side by side and cut."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a model is loaded with; `dtype` "auto" is the checkpoint's own, `device` None the best there is."""

    base: Source
    adapter: Source | None
    dtype: str
    device: str | None
    context: int | None
    max_batch: int


def load(settings: ModelSettings) -> Any:  # noqa: ANN401  # a torch.nn.Module, and torch may not be installed
    """The model, ready to compute. BackendError that says what is wrong with it."""
    base, adapter = settings.base, settings.adapter
    for needed in (hub.ADAPTER_CONFIG, hub.ADAPTER):
        _ = adapter and adapter.file(needed)  # before minutes of loading
    base.file(base.main)
    torch: Any = import_module("torch")
    device = settings.device or _best_device(torch)
    try:
        model = _weights(base, settings.dtype)
        model = _adapted(model, base, adapter) if adapter else model
        return model.to(device).eval()
    except BackendError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise BackendError(
                f"{base.name} does not fit the memory of {device}: take a smaller model, a 16-bit dtype or another "
                "device"
            ) from error
        raise BackendError(f"transformers cannot load {base.name} on {device}: {short(error)}") from error


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of an accelerator; torch has no one class for it."""
    torch: Any = import_module("torch")
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))


def release() -> None:
    """Give memory that is no longer used back to the device."""
    torch: Any = import_module("torch")
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def ends(model: Any, tokenizer: Any) -> tuple[int, ...]:  # noqa: ANN401
    """The tokens that end a turn, the tokenizer's own first."""
    told = getattr(model.generation_config, "eos_token_id", None)
    tokens = [tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])]
    return tuple(dict.fromkeys(token for token in tokens if token is not None))


def short(error: Exception) -> str:
    """Class and first line: what follows is for whoever debugs the library."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:500]}"


def _best_device(torch: Any) -> str:  # noqa: ANN401
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _weights(base: Source, dtype: str) -> Any:  # noqa: ANN401
    """Load the weights; only a download shows a progress bar. BackendError for weights that are not whole."""
    transformers: Any = import_module("transformers")
    logging = transformers.utils.logging
    bars = base.folder is not None and logging.is_progress_bar_enabled()
    if bars:
        logging.disable_progress_bar()
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            base.place,
            revision=base.commit,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    if missing := sorted(info["missing_keys"]):
        raise BackendError(
            f"the weights of {base.name} are not whole ({len(missing)} missing: {', '.join(missing[:3])} …): "
            "download it again"
        )
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or _PLAIN)
    if kinds - _PLAIN or getattr(model, "_is_stateful", False):
        raise BackendError(
            f"{base.name} ({model.config.model_type}) keeps another state than keys and values, which this backend "
            "cannot batch: serve it with vLLM"
        )
    return model


def _adapted(model: Any, base: Source, adapter: Source) -> Any:  # noqa: ANN401
    """The same model with the layers of the adapter put into it. BackendError where they do not fit."""
    peft: Any = import_module("peft")
    folder = adapter.file(hub.ADAPTER).parent
    made_for = hub.read_json(adapter.file(hub.ADAPTER_CONFIG)).get("base_model_name_or_path")
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            raise ValueError(f"{config.peft_type} is no adapter of weights")
        config.inference_mode = True
        wrapped = peft.PeftModel(model, config, autocast_adapter_dtype=False)
        found = wrapped.load_adapter(str(folder), "default", autocast_adapter_dtype=False)
        if wrong := [*found.missing_keys, *found.unexpected_keys]:
            raise ValueError(f"{len(wrong)} weights are missing or have no place, {wrong[0]} for one")
    except Exception as error:
        if out_of_memory(error):
            raise
        raise BackendError(
            f"the adapter {adapter.name} (made for {made_for!r}) does not fit the model {base.name}: give the base "
            f"that it was trained on. {short(error)}"
        ) from error
    return wrapped.get_base_model()
