"""LoRA adapters of peft merged into GGUF files, without torch and peft: W + scale · B · A, kept in the user's cache.

OpenVINO GenAI applies an adapter itself at 1.5 to 2.4 times the time, from a renamed copy of the model: see
bench/openvino_adapter.md. In a merged file everything but the adapted tensors is the same byte for byte.
"""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
import safetensors
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from rankr1_rag.backends.hub import ADAPTER, ADAPTER_CONFIG, read_json
from rankr1_rag.backends.local_model import log, logged
from rankr1_rag.backends.openvino.weights import BLOCK_SIZES, GGUFHeader, adapter_digest, digest, read_header
from rankr1_rag.errors import BackendError, FileError
from rankr1_rag.io.files import locked

Matrix = NDArray[np.float32]

F16, Q8_0 = 1, 8
_FLOATS = {0, F16, 30}
"""Types of tensors."""

_MOSTLY_F16, _MOSTLY_Q8_0 = 1, 7
"""Values of `general.file_type`."""

_LARGE = 1_000_000_000
"""Elements from which on an adapted tensor is written as Q8_0, in half the space: large models do not mind."""

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
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}

_REFUSED = (
    "alora_invocation_tokens", "arrow_config", "fan_in_fan_out", "kasa_config", "layer_replication", "lora_bias",
    "megatron_config", "modules_to_save", "monteclora_config", "target_parameters", "trainable_token_indices",
    "use_bdlora", "use_dora", "use_qalora",
)  # fmt: skip
"""Settings that make of an adapter more, or something else, than two matrices for each layer."""

_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base as it is: others take something from its weights at the start."""

KEPT = 4
"""Merged files that are kept: of more, the least recently used are removed when one is made."""

PATIENCE = 600.0
"""Seconds to wait for another process that makes the same file."""


@dataclass(frozen=True, slots=True)
class LowRankUpdate:
    """What is added to the weights of one layer: `scale` · `b` · `a`, of shapes (out, r) and (r, in)."""

    a: Matrix
    b: Matrix
    scale: float


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """An adapter: updates by the name of the layer in its model, like "model.layers.0.mlp.up_proj".

    `everywhere`: its configuration adapts the same layers in all blocks.
    """

    folder: Path
    made_for: str
    layers: dict[str, LowRankUpdate]
    everywhere: bool


def read_adapter(folder: Path) -> LoraAdapter:
    """The adapter in a folder. BackendError where it is damaged, or more than can be added to weights."""
    config = read_json(folder / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise BackendError(f"the adapter {folder} is of the kind {config.get('peft_type')!r}: only LORA can be merged")
    refused = [name for name in _REFUSED if config.get(name)]
    refused += ["bias"] * (config.get("bias", "none") != "none")
    refused += ["init_lora_weights"] * (config.get("init_lora_weights", True) not in _PLAIN_STARTS)
    if refused:
        settings = ", ".join(f"{name}={config[name]!r:.50}" for name in refused)
        raise BackendError(
            f"the adapter {folder} has {settings}: it is more than matrices that can be merged into the weights; use "
            "the backend 'transformers' or 'vllm'"
        )
    halves: dict[str, dict[str, Matrix]] = {}
    for name, matrix in read_matrices(folder / ADAPTER):
        if not (match := _TENSOR.fullmatch(name)):
            raise BackendError(
                f"the adapter {folder} holds {name}: only lora_A and lora_B of linear layers can be merged; use the "
                "backend 'transformers' or 'vllm'"
            )
        halves.setdefault(match[1], {})[match[2]] = matrix
    if not halves:
        raise BackendError(f"the adapter {folder} holds no tensor: it is damaged, or was never trained")
    layers = {}
    for layer, half in halves.items():
        a, b = half.get("A"), half.get("B")
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            shapes = {name: matrix.shape for name, matrix in half.items()}
            raise BackendError(
                f"the adapter {folder} is damaged: for {layer} it holds {shapes}, not (r, in) and (out, r)"
            )
        layers[layer] = LowRankUpdate(a, b, scale_of(folder, config, layer, len(a)))
    targets = config.get("target_modules")
    some_blocks = config.get("layers_to_transform") is not None or config.get("exclude_modules")
    named = isinstance(targets, list) and all(str(name).isidentifier() for name in targets)
    return LoraAdapter(folder, str(config.get("base_model_name_or_path")), layers, named and not some_blocks)


def read_matrices(path: Path) -> Iterator[tuple[str, Matrix]]:
    """The tensors of a safetensors file as float32; numpy's own reader of them knows no bfloat16."""
    deserialize: Any = safetensors.deserialize
    try:
        tensors = deserialize(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise BackendError(f"{path} is no safetensors file ({error}): it is damaged; download it again") from error
    for name, tensor in tensors:
        kind, data = tensor["dtype"], tensor["data"]
        if kind == "BF16":
            values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif kind in _DTYPES:
            values = np.frombuffer(data, _DTYPES[kind]).astype(np.float32)
        else:
            raise BackendError(f"{path}: {name} is of the type {kind}; one of BF16, {', '.join(_DTYPES)} is needed")
        if not np.isfinite(values).all():
            raise BackendError(f"{path}: {name} holds values that are not finite: train it again, or download it again")
        yield name, values.reshape(tensor["shape"])


def scale_of(folder: Path, config: Mapping[str, Any], layer: str, rank: int) -> float:
    """The factor of a layer's update, as in peft. BackendError where the configuration is not of this rank."""

    def setting(patterns: str, default: str) -> float:
        """The number of the first pattern that this layer ends with, else that of all layers."""
        for pattern, value in (config.get(patterns) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", layer):
                return float(value)
        return float(config[default])

    try:
        if (configured := setting("rank_pattern", "r")) != rank:
            raise ValueError(f"rank {configured:g}, not {rank}")
        return setting("alpha_pattern", "lora_alpha") / (math.sqrt(rank) if config.get("use_rslora") else rank)
    except (LookupError, TypeError, ValueError, re.error) as error:
        raise BackendError(
            f"{folder / ADAPTER_CONFIG} is damaged, at {layer}: {type(error).__name__}: {error}"
        ) from error


def merge(base: Path, adapter: LoraAdapter, out: BinaryIO, kind: int | None = None) -> None:
    """Write the base with the adapter in it.

    `kind` is the type of the adapted tensors: float16 unless the model is large. SmolLM2 is in it nearer to the model
    as it was trained than in Q8_0, and hardly slower: see bench/openvino.md. BackendError where the two do not belong
    together.
    """
    header = read_header(base)
    architecture = header.metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise BackendError(f"{base} is a {architecture}: adapters can be merged into {', '.join(_ARCHITECTURES)}")
    if unknown := [name for name, tensor in header.tensors.items() if tensor.kind not in BLOCK_SIZES]:
        raise BackendError(f"{base}: {unknown[0]} is of a type that is not known here: convert the model to float16")
    does_not_fit = f"the adapter {adapter.folder} (made for {adapter.made_for!r}) does not fit {base}"
    remedy = "give the base that it was trained on"
    adapted = {match[1] for layer in adapter.layers if (match := _LAYER.fullmatch(layer))}
    blocks = header.metadata.get(f"{architecture}.block_count")
    if adapter.everywhere and adapted and isinstance(blocks, int) and len(adapted) < blocks:
        raise BackendError(f"{does_not_fit}: it is for a model of {len(adapted)} blocks, not {blocks}; {remedy}")
    if kind is None:
        kind = Q8_0 if sum(prod(tensor.shape) for tensor in header.tensors.values()) > _LARGE else F16
    replacements = {}
    for layer, update in adapter.layers.items():
        name = "output.weight" if layer == "lm_head" else ""
        if match := _LAYER.fullmatch(layer):
            name = f"blk.{match[1]}.{_LAYERS.get(match[2])}.weight"
        tensor, shape = header.tensors.get(name), (update.b.shape[0], update.a.shape[1])
        if tensor is None or tensor.shape[::-1] != shape:
            there = f"there the tensor {name} is {tensor.shape[::-1]}" if tensor else "it has no such layer"
            raise BackendError(f"{does_not_fit}: {layer} of shape {shape}, {there}; {remedy}")
        fits = kind != Q8_0 or shape[1] % BLOCK_SIZES[Q8_0][0] == 0  # else a row is no whole number of blocks
        replacements[name] = (kind if fits else F16, in_file_order(header, name, update))
    write_gguf(out, header, replacements)


def in_file_order(header: GGUFHeader, name: str, update: LowRankUpdate) -> LowRankUpdate:
    """The rows of B in the order of the file.

    llama.cpp keeps the rows of a llama's queries and keys in another order than Hugging Face, pairs that are rotated
    together side by side: (head, half, pair) there are (head, pair, half) here.
    """
    if header.metadata["general.architecture"] != "llama" or not name.endswith(("attn_q.weight", "attn_k.weight")):
        return update
    heads = header.metadata.get("llama.attention.head_count")
    if name.endswith("attn_k.weight"):
        heads = header.metadata.get("llama.attention.head_count_kv", heads)
    rows, rank = update.b.shape
    if not isinstance(heads, int) or rows % (2 * heads):
        raise BackendError(f"{header.path}: {name} has {rows} rows for {heads} heads: it is damaged")
    halves = update.b.reshape(heads, 2, rows // heads // 2, rank)
    return replace(update, b=halves.swapaxes(1, 2).reshape(rows, rank))


def write_gguf(out: BinaryIO, header: GGUFHeader, replacements: Mapping[str, tuple[int, LowRankUpdate]]) -> None:
    """Write the file of this header with these updates in these tensors, and those in these types."""
    with header.path.open("rb") as base:
        begin = bytearray(base.read(header.metadata_end))
    tensors = {
        name: replace(tensor, kind=replacements[name][0]) if name in replacements else tensor
        for name, tensor in header.tensors.items()
    }
    if header.file_type is not None:
        # In a file that is said to be float16 the runtime looks for no scales at all.
        file_type = header.metadata.get("general.file_type")
        if {tensor.kind for name, tensor in tensors.items() if name.startswith("blk.")} <= _FLOATS:
            file_type = _MOSTLY_F16
        elif not isinstance(file_type, int) or file_type <= _MOSTLY_F16:
            file_type = _MOSTLY_Q8_0
        struct.pack_into("<I", begin, header.file_type, file_type)
    offset = 0
    for name, tensor in tensors.items():
        encoded, dimensions = name.encode("utf-8", "surrogateescape"), len(tensor.shape)
        layout = f"<Q{len(encoded)}sI{dimensions}QIQ"
        begin += struct.pack(layout, len(encoded), encoded, dimensions, *tensor.shape, tensor.kind, offset)
        offset += tensor.size + -tensor.size % header.alignment
    out.write(begin + bytes(-len(begin) % header.alignment))
    for name, tensor in tensors.items():
        content = header.content(name)
        if name in replacements:
            update, before = replacements[name][1], header.tensors[name]
            rows = np.frombuffer(content, np.uint8).reshape(before.shape[-1], -1)
            try:
                weights: Matrix = quants.dequantize(rows, GGMLQuantizationType(before.kind))
            except (NotImplementedError, ValueError) as error:
                raise BackendError(f"{header.path}: {name} cannot be dequantised ({error})") from error
            weights = weights + np.float32(update.scale) * (update.b @ update.a)
            content = quants.quantize(weights, GGMLQuantizationType(tensor.kind)).tobytes()
        out.write(content + bytes(-tensor.size % header.alignment))


@contextmanager
def merged_model(base: Path, adapter: Path) -> Iterator[Path]:
    """The file of this model with this adapter, there until this ends.

    It is kept in the user's cache folder under the digests of base, adapter and itself: a damaged one is made again,
    and of several processes one makes it and the others wait. Where nothing can be kept it is made for this process
    alone, with a warning in the log. BackendError where the two do not belong together, or where there is no room.
    """
    key = f"{digest(base)}-{adapter_digest(adapter)}"
    with ExitStack() as stack:
        try:
            path = kept_file(cache_folder(), key, base, adapter)
        except OSError as problem:
            try:
                once = tempfile.TemporaryDirectory(prefix="rankr1-", ignore_cleanup_errors=True)
                path = make_file(Path(stack.enter_context(once)), key, base, adapter)
            except OSError as error:
                raise BackendError(
                    f"the model cannot be merged with its adapter: neither the cache folder ({problem}) nor the "
                    f"temporary one ({error}) can be written: make room, or name others in XDG_CACHE_HOME and TMPDIR"
                ) from error
            log.warning(
                "the model with its adapter cannot be kept (%s): it is made again each time one is loaded. Make that "
                "folder writable, or name another in XDG_CACHE_HOME",
                problem,
            )
        yield path


def cache_folder() -> Path:
    """The user's cache folder for merged models. OSError where there is none."""
    path = platformdirs.user_cache_path("rankr1-rag", appauthor=False) / "models"
    if not path.is_absolute():
        raise FileNotFoundError(f"no home folder: {path} is a path in whatever folder this is")
    return path


def kept_file(folder: Path, key: str, base: Path, adapter: Path) -> Path:
    """The file in the cache, made if it is not there; then the least recently used ones are removed."""
    if path := whole_file(folder, key):
        return path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = folder / f"{key}.lock"
    end = time.monotonic() + PATIENCE
    while True:
        try:
            mine = locked(lock)
            break
        except FileError as error:
            if time.monotonic() > end:
                raise TimeoutError(f"{lock}: another process has had it for {PATIENCE:.0f} s") from error
            time.sleep(0.05)
    with mine:
        try:
            path = whole_file(folder, key) or make_file(folder, key, base, adapter)
        finally:
            lock.unlink(missing_ok=True)
    with suppress(OSError):
        used = {file: file.stat().st_mtime for file in folder.iterdir()}
        models = sorted((file for file in used if file.suffix == ".gguf"), key=used.__getitem__)
        # A process that was killed while it merged left a part.
        parts = [file for file in used if file.suffix == ".part" and time.time() - used[file] > 2 * PATIENCE]
        for file in models[:-KEPT] + parts:
            file.unlink(missing_ok=True)
    return path


def whole_file(folder: Path, key: str) -> Path | None:
    """The file, marked as used now, if its digest is right."""
    for path in folder.glob(f"{key}.*.gguf"):
        if path.suffixes[-2] == f".{digest(path)}":
            with suppress(OSError):
                os.utime(path)
            return path
    return None


def make_file(folder: Path, key: str, base: Path, adapter: Path) -> Path:
    """A new file, whole or not at all; a damaged old one is removed."""
    part = folder / f"{key}.part"
    try:
        with logged(f"merging the adapter {adapter} into {base}"), part.open("wb") as out:
            merge(base, read_adapter(adapter), out)
            out.flush()
            os.fsync(out.fileno())
        for damaged in folder.glob(f"{key}.*.gguf"):
            damaged.unlink(missing_ok=True)
        return part.replace(folder / f"{key}.{digest(part)}.gguf")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
