"""A LoRA adapter as peft wrote it, read without torch and peft: for each layer two matrices and a scale.

What is more than that (DoRA, biases, whole layers beside it) cannot be added to the weights of a model here, and is
refused. Knows peft's files (github.com/huggingface/peft, `LoraConfig`); knows no model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from rankr1_rag.backends.hub import ADAPTER, ADAPTER_CONFIG, read_json
from rankr1_rag.errors import BackendError

Matrix = NDArray[np.float32]

_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}

_REFUSED = (
    "alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication", "lora_bias",
    "megatron_config", "modules_to_save", "monteclora_config", "target_parameters", "trainable_token_indices",
    "use_bdlora", "use_dora", "use_qalora",
)  # fmt: skip
"""Settings that make of an adapter more, or something else, than two matrices for each layer."""

_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base as it is: others take something from its weights at the start."""


@dataclass(frozen=True, slots=True)
class Low:
    """What is added to the weights of one layer: `scale` · `b` · `a`, of shapes (out, r) and (r, in)."""

    a: Matrix
    b: Matrix
    scale: float

    def product(self) -> Matrix:
        """The sum's second part, (out, in)."""
        product: Matrix = np.float32(self.scale) * (self.b @ self.a)
        return product


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter: by the name of the layer in its model, like "model.layers.0.mlp.up_proj", what is added there.

    `everywhere`: it says that what it changes in one block it changes in all.
    """

    folder: Path
    made_for: str
    layers: dict[str, Low]
    everywhere: bool


def read(folder: Path) -> Lora:
    """The adapter in a folder. BackendError where it is damaged, or more than can be added to weights."""
    config = read_json(folder / ADAPTER_CONFIG)
    _check(folder, config)
    halves: dict[str, dict[str, Matrix]] = {}
    for name, tensor in _tensors(folder / ADAPTER).items():
        if not (found := _TENSOR.fullmatch(name)):
            raise BackendError(
                f"the adapter {folder} holds {name}: only lora_A and lora_B of linear layers can be merged; use the "
                "backend 'transformers' or 'vllm'"
            )
        halves.setdefault(found[1], {})[found[2]] = tensor
    if not halves:
        raise BackendError(f"the adapter {folder} holds no tensor: it is damaged, or was never trained")
    layers = {name: _low(folder, config, name, half) for name, half in halves.items()}
    return Lora(folder, str(config.get("base_model_name_or_path")), layers, _everywhere(config))


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise BackendError(f"the adapter {folder} is of the kind {kind!r}: only LORA can be merged")
    found = [name for name in _REFUSED if config.get(name)]
    found += ["bias"] * (config.get("bias", "none") != "none")
    found += ["init_lora_weights"] * (config.get("init_lora_weights", True) not in _BEGINNINGS)
    if found:
        told = ", ".join(f"{name}={config[name]!r:.50}" for name in found)
        raise BackendError(
            f"the adapter {folder} has {told}: it is more than matrices that can be merged into the weights; use the "
            "backend 'transformers' or 'vllm'"
        )


def _everywhere(config: Mapping[str, Any]) -> bool:
    targets = config.get("target_modules")
    chosen = config.get("layers_to_transform") is not None or config.get("exclude_modules")
    return not chosen and isinstance(targets, list) and all(str(name).isidentifier() for name in targets)


def _tensors(path: Path) -> dict[str, Matrix]:
    deserialize: Any = safetensors.deserialize  # its numpy reader knows no bfloat16
    try:
        found = deserialize(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise BackendError(f"{path} is no safetensors file ({error}): it is damaged; fetch it again") from error
    return {name: _matrix(path, name, tensor) for name, tensor in found}


def _matrix(path: Path, name: str, tensor: Mapping[str, Any]) -> Matrix:
    kind, data = tensor["dtype"], tensor["data"]
    if kind == "BF16":
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif kind in _TYPES:
        values = np.frombuffer(data, _TYPES[kind]).astype(np.float32)
    else:
        raise BackendError(f"{path}: {name} is of the type {kind}; one of BF16, {', '.join(_TYPES)} is needed")
    if not np.isfinite(values).all():
        raise BackendError(f"{path}: {name} holds values that are not finite: its training failed, or it is damaged")
    return values.reshape(tensor["shape"])


def _low(folder: Path, config: Mapping[str, Any], layer: str, half: Mapping[str, Matrix]) -> Low:
    """BackendError for halves that do not belong together."""
    a, b = half.get("A"), half.get("B")
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        shapes = {name: matrix.shape for name, matrix in half.items()}
        raise BackendError(f"the adapter {folder} is damaged: for {layer} it holds {shapes}, not (r, in) and (out, r)")
    try:
        return Low(a, b, _scale(config, layer, len(a)))
    except (LookupError, TypeError, ValueError, re.error) as error:
        raise BackendError(
            f"{folder / ADAPTER_CONFIG} is damaged, at {layer}: {type(error).__name__}: {error}"
        ) from error


def _scale(config: Mapping[str, Any], layer: str, rank: int) -> float:
    if (told := _of(config, "rank_pattern", layer, "r")) != rank:
        raise ValueError(f"rank {told:g}, not {rank}")
    return _of(config, "alpha_pattern", layer, "lora_alpha") / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of(config: Mapping[str, Any], patterns: str, layer: str, otherwise: str) -> float:
    """A number of the first pattern that this layer ends with, as peft has it, else that of all layers."""
    for pattern, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return float(value)
    return float(config[otherwise])
