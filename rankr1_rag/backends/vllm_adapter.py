"""Whether a LoRA adapter fits the model it is put on, and with which rank vLLM must be started for it.

vLLM copies matrices that are too small into the larger ones it has kept room for, and says nothing: what comes out is
neither the base nor the adapter. So the header of the adapter's file is read first. Knows files and shapes; no engine.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rankr1_rag.backends.hub import ADAPTER, Weights
from rankr1_rag.errors import BackendError

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM has kernels for."""

_READS = re.compile(r"\.layers\.\d+\..*\b[qkv]_proj\.lora_A\b|\.layers\.\d+\..*\b(?:gate|up)_proj\.lora_A\b")
_WRITES = re.compile(r"\.layers\.\d+\..*\b(?:o|down)_proj\.lora_B\b")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def rank(weights: Weights, most: int | None) -> int:
    """The rank to start vLLM with, at least the adapter's; `most` is what was asked for instead. BackendError."""
    if most is not None and weights.rank > most:
        raise BackendError(
            f"the adapter {weights.lora} has rank {weights.rank}, above the engine's max_lora_rank={most}: leave that "
            "out, and it follows the adapter"
        )
    if weights.rank > _RANKS[-1]:
        raise BackendError(f"the adapter {weights.lora} has rank {weights.rank}, vLLM takes up to {_RANKS[-1]}")
    return next(one for one in _RANKS if one >= weights.rank)


def check(weights: Weights, config: Any) -> None:  # noqa: ANN401  # of transformers, one class for each model
    """BackendError where the adapter was made for a model of another width or of more layers than `config` tells."""
    if weights.adapter is None:
        return
    width, layers = int(config.hidden_size), int(config.num_hidden_layers)
    for name, shape in _shapes(weights.adapter.file(ADAPTER)).items():
        if "visual" in name or "vision" in name:
            continue
        found = shape[1] if _READS.search(name) else shape[0] if _WRITES.search(name) else width
        layer = int(numbered[1]) if (numbered := _LAYER.search(name)) else 0
        if found != width or layer >= layers:
            what = f"width {found}, not {width}" if found != width else f"more than {layer} layers, not {layers}"
            raise BackendError(
                f"the adapter {weights.lora} does not fit {weights.base.name}: {name} belongs to a model of {what}; "
                "give the base that it was trained on"
            )


def _shapes(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a safetensors file, from its header."""
    try:
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, OverflowError, MemoryError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"{path} is no safetensors file ({type(error).__name__}): download it again") from error
