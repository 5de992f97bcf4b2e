"""A LoRA adapter added to the weights of a GGUF file: W + scale · B · A, without torch.

llama.cpp keeps the rows of a llama's queries and keys in another order than Hugging Face (pairs that are rotated
together stand side by side): those of B are put into it. Knows what layers are called in both worlds; knows no runtime
and nothing of where the result is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType, quants

from rankr1_rag.backends.gguf_file import BLOCKS, F16, FLOATS, Q8_0, Change, Header, read, write
from rankr1_rag.backends.lora import Lora, Low, Matrix
from rankr1_rag.errors import BackendError

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
