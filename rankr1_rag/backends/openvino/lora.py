"""A LoRA adapter added to the weights of a GGUF file: W + scale · B · A, without torch.

llama.cpp keeps the rows of a llama's queries and keys in another order than Hugging Face (pairs that are rotated
together stand side by side): those of B are put into it. Knows what layers are called in both worlds; knows no runtime
and nothing of where the result is kept.

A LoRA adapter as peft wrote it, read without torch and peft: for each layer two matrices and a scale.

What is more than that (DoRA, biases, whole layers beside it) cannot be added to the weights of a model here, and is
refused. Knows peft's files (github.com/huggingface/peft, `LoraConfig`); knows no model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from rankr1_rag.backends.hub import ADAPTER, ADAPTER_CONFIG, read_json
from rankr1_rag.backends.openvino.gguf_file import BLOCKS, F16, FLOATS, Q8_0, Change, Header, read, write
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


def read_lora(folder: Path) -> Lora:
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


_MOSTLY_F16, _MOSTLY_Q8_0 = 1, 7
"""Values of `general.file_type`."""

_LARGE = 1_000_000_000
"""Elements from which on a changed tensor is written as Q8_0, in half the space: large models do not mind."""

_LAYERS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_ARCHITECTURES = ("llama", "qwen2", "qwen3")


def merge(base: Path, adapter: Lora, out: BinaryIO, kind: int | None = None) -> None:
    """Write the base with the adapter in it; what that does not change stays as it is, byte for byte.

    `kind` is the type of what it changes: float16 unless the model is large. SmolLM2 is in it nearer to the model
    as it was trained than in Q8_0, and hardly slower: see bench/openvino.md. BackendError where the two do not belong
    together.
    """
    header = read(base)
    architecture = header.metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise BackendError(f"{base} is a {architecture}: adapters can be merged into {', '.join(_ARCHITECTURES)}")
    if unknown := [name for name, tensor in header.tensors.items() if tensor.kind not in BLOCKS]:
        raise BackendError(f"{base}: {unknown[0]} is of a type that is not known here: convert the model to float16")
    if adapter.everywhere:
        _check_blocks(header, adapter)
    if kind is None:
        kind = Q8_0 if sum(prod(tensor.shape) for tensor in header.tensors.values()) > _LARGE else F16
    changes = dict(_change(header, adapter, layer, kind) for layer in adapter.layers)
    write(out, header, changes, _file_type(header, changes))


def _file_type(header: Header, changes: Mapping[str, Change]) -> int:
    """What `general.file_type` must say: in a file that says "float16" the runtime looks for no scales at all."""
    matrices = {name: tensor.kind for name, tensor in header.tensors.items() if name.startswith("blk.")}
    kinds = {changes[name][0] if name in changes else kind for name, kind in matrices.items()}
    if kinds <= FLOATS:
        return _MOSTLY_F16
    own = header.metadata.get("general.file_type")
    return own if isinstance(own, int) and own > _MOSTLY_F16 else _MOSTLY_Q8_0


def _check_blocks(header: Header, adapter: Lora) -> None:
    """BackendError for a base of more blocks than the adapter was made for."""
    blocks = header.metadata.get(f"{header.metadata['general.architecture']}.block_count")
    there = {found[1] for layer in adapter.layers if (found := _LAYER.fullmatch(layer))}
    if there and isinstance(blocks, int) and len(there) < blocks:
        raise BackendError(
            f"the adapter {adapter.folder} (made for {adapter.made_for!r}) does not fit {header.path}: it is for a "
            f"model of {len(there)} blocks, not {blocks}; give the base that it was trained on"
        )


def _change(header: Header, adapter: Lora, layer: str, kind: int) -> tuple[str, Change]:
    """The tensor of a layer and what becomes of it; float16 where a row is no whole number of blocks of Q8_0."""
    name, low = tensor_name(layer), adapter.layers[layer]
    shape = (low.b.shape[0], low.a.shape[1])
    tensor = header.tensors.get(name or "")
    if name is None or tensor is None or tensor.shape[::-1] != shape:
        there = f"there the tensor {name} is {tensor.shape[::-1]}" if tensor else "it has no such layer"
        raise BackendError(
            f"the adapter {adapter.folder} (made for {adapter.made_for!r}) does not fit {header.path}: {layer} of "
            f"shape {shape}, {there}; give the base that it was trained on"
        )
    kind = F16 if kind == Q8_0 and shape[1] % BLOCKS[Q8_0][0] else kind
    return name, (kind, partial(_content, header, name, _reordered(header, name, low), kind))


def tensor_name(layer: str) -> str | None:
    """What a layer of Hugging Face is called in a GGUF file, None where it is none of the known ones."""
    if layer == "lm_head":
        return "output.weight"
    found = _LAYER.fullmatch(layer)
    known = _LAYERS.get(found[2]) if found else None
    return f"blk.{found[1]}.{known}.weight" if found and known else None


def _content(header: Header, name: str, low: Low, kind: int) -> bytes:
    summed = weights(header, name) + low.product()
    content: bytes = quants.quantize(summed, GGMLQuantizationType(kind)).tobytes()
    return content


def weights(header: Header, name: str) -> Matrix:
    """A matrix of a GGUF file, dequantised: (out, in). BackendError for a type that cannot be."""
    tensor = header.tensors[name]
    rows = np.frombuffer(header.content(name), np.uint8).reshape(tensor.shape[-1], -1)
    try:
        found: Matrix = quants.dequantize(rows, GGMLQuantizationType(tensor.kind))
    except (NotImplementedError, ValueError) as error:
        raise BackendError(f"{header.path}: {name} cannot be dequantised ({error})") from error
    return found


def _reordered(header: Header, name: str, low: Low) -> Low:
    """With the rows of B in the order of the file: (head, half, pair) there are (head, pair, half) here."""
    if header.metadata["general.architecture"] != "llama" or not name.endswith(("attn_q.weight", "attn_k.weight")):
        return low
    heads = header.metadata.get("llama.attention.head_count")
    if name.endswith("attn_k.weight"):
        heads = header.metadata.get("llama.attention.head_count_kv", heads)
    rows, rank = low.b.shape
    if not isinstance(heads, int) or rows % (2 * heads):
        raise BackendError(f"{header.path}: {name} has {rows} rows for {heads} heads: it is damaged")
    halves = low.b.reshape(heads, 2, rows // heads // 2, rank)
    return replace(low, b=halves.swapaxes(1, 2).reshape(rows, rank))
