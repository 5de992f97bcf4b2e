"""vLLM in this process: its async engine, with a base model and a LoRA adapter, for hundreds of requests at once.

    VLLM("ielabgroup/Rank-R1-7B-v0.1")                       a released checkpoint: base model and format are known
    VLLM("Qwen/Qwen2.5-7B-Instruct", adapter="my-adapter/")  any model and adapter, by name or folder
    VLLM("folder/", dtype="bfloat16", tensor_parallel=2)     any model that vLLM loads

The engine computes in processes that it spawns: a script that uses this needs `if __name__ == "__main__":` around its
work, and a RuntimeError says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rankr1_rag.backends import Request, hub
from rankr1_rag.backends.chat_template import special_tokens
from rankr1_rag.backends.local_model import LocalModel
from rankr1_rag.backends.vllm.config import EngineConfig
from rankr1_rag.backends.vllm.engine import EngineWorker, RequestBuilder
from rankr1_rag.redaction import excerpt_of


class VLLM(LocalModel[EngineWorker]):
    """One engine, started at first use (half a minute), shared by everyone who awaits it, from any loop or thread.

    Making it imports vLLM and reads the model's configuration, so that wrong arguments are errors at once.

    `model` is a released checkpoint of the table, or a name of the hub or folder; `adapter` is a LoRA, likewise. `name`
    becomes `.model`, where these are a checkpoint known by another name. `context` is the longest prompt and completion
    together, in tokens. `quantization` is what vLLM calls it, "awq" or "fp8" for example; `tensor_parallel` GPUs share
    the model, each with the share `gpu_memory` of its memory, in (0, 1]. None is vLLM's own choice. `batch_invariant`
    gives the same text whatever else is computed with it, slower, on GPUs; without it, other company rounds differently
    and turns near ties. `engine` and `sampling` are further arguments of vLLM's AsyncEngineArgs and SamplingParams.

    Choices are kept exactly, whole even where `max_tokens` is less; with `logprobs` the alternatives are those that the
    choices leave, renormalised. An engine that died is a BackendUnavailable, and the next request starts a new one.

    Raises FileNotFoundError for a wrong path, ValueError for a wrong argument, BackendError for a model or an adapter
    that cannot be used, and ImportError, with the command to run, for what is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        name: str | None = None,
        context: int | None = None,
        dtype: str = "auto",
        quantization: str | None = None,
        tensor_parallel: int = 1,
        gpu_memory: float | None = None,
        max_batch: int | None = None,
        prefix_caching: bool = True,
        batch_invariant: bool = False,
        seed: int = 0,
        engine: Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> None:
        self.capacity = max_batch
        arguments = {
            "max_model_len": context,
            "dtype": dtype,
            "quantization": quantization,
            "tensor_parallel_size": tensor_parallel,
            "gpu_memory_utilization": gpu_memory,
            "max_num_seqs": max_batch,
            "enable_prefix_caching": prefix_caching,
            "seed": seed,
        }
        for option, value in (("engine", engine), ("sampling", sampling)):
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(
                    f"{option}={excerpt_of(value)}: a mapping of arguments is needed, as JSON on the command line"
                )
        self._weights = hub.weights(model, adapter, name)
        super().__init__(self._weights.name)
        self._config = EngineConfig(self._weights, arguments, dict(engine or {}), batch_invariant)
        self._builder = RequestBuilder(self._config.config, dict(sampling or {}))
        try:
            self._builder.params(Request((), 1))
        except Exception as error:  # vLLM's own kinds, and TypeErrors for unknown names
            raise ValueError(f"sampling: vLLM takes no such parameters: {error}") from error

    @cached_property
    def identity(self) -> str:
        """The weights' commit or digest, and all settings that completions depend on; reads every byte of a folder."""
        return f"vllm:{self._weights.digest}:{self._config.fingerprint}:{sorted(self._builder.own.items())!r}"

    @property
    def context(self) -> int:
        """The model's own, or less by `context`."""
        return int(self._config.config.model_config.max_model_len)

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """The control tokens of the tokenizer."""
        return special_tokens(self._builder.tokenizer)

    def count(self, text: str) -> int:
        """Tokens of this text, exactly."""
        return len(self._builder.encode(text))

    def start(self, lost: EngineWorker | None) -> EngineWorker:
        """A new engine, which its first request starts."""
        return EngineWorker(self._config, self._builder, lost)

    async def reset_prefix_cache(self) -> None:
        """Forget the prompts that were computed, as a benchmark must between its rows."""
        await asyncio.wrap_future(self.worker().ask("reset", None))

    def __repr__(self) -> str:
        return f"VLLM({self.model!r})"
