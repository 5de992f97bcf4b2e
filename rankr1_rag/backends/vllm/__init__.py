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

from rankr1_rag.backends import hub
from rankr1_rag.backends.local_model import LocalModel
from rankr1_rag.backends.vllm.config import EngineConfig, mapping
from rankr1_rag.backends.vllm.engine import EngineWorker, RequestBuilder


class VLLM(LocalModel[EngineWorker]):
    """One engine, started at first use (half a minute), shared by everyone who awaits it, from any loop or thread.

    Making it imports vLLM and reads the model's configuration, so that wrong arguments are errors at once.

    * `model`: a released checkpoint of the table, or a name of the hub or folder; `adapter`: a LoRA, likewise. `name`
      becomes `.model`, where these are a checkpoint known by another name.
    * `context`: longest prompt and completion together, in tokens; by default the model's own.
    * `dtype`: "auto", "bfloat16", "float16" or "float32"; `quantization`: as vLLM calls it, "awq" or "fp8" for example.
    * `tensor_parallel`: GPUs to split the model over; `gpu_memory`: the share of each GPU's memory to use, in (0, 1];
      `max_batch`: the most requests computed together. None is vLLM's own choice.
    * `prefix_caching`: keep what was computed of a prompt for the next one that begins alike.
    * `batch_invariant`: the same text whatever else is computed with it, slower; GPUs only, vLLM says which. Without
      it, other company rounds differently and turns near ties, even at temperature 0.
    * `engine`, `sampling`: further arguments of vLLM's AsyncEngineArgs and SamplingParams, over those that this sets.

    Choices are kept exactly, and whole even where `max_tokens` is less; with `logprobs` the alternatives are those that
    the choices leave, renormalised. A cancelled request is aborted in the engine. An engine that died is a
    BackendUnavailable, and the next request starts a new one.

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
        super().__init__()
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
        self._weights = hub.weights(model, adapter, name)
        self._config = EngineConfig(self._weights, arguments, mapping("engine", engine), batch_invariant)
        self._builder = RequestBuilder(self._config.config, mapping("sampling", sampling))
        self._builder.check()

    @property
    def model(self) -> str:
        """The name, or the checkpoint's, or the model's."""
        return self._weights.name

    @cached_property
    def identity(self) -> str:
        """The weights' commit or digest, and all settings that completions depend on; reads every byte of a folder."""
        return f"vllm:{self._weights.digest}:{self._config.fingerprint}:{sorted(self._builder.own.items())!r}"

    @property
    def context(self) -> int:
        """The model's own, or less by `context`."""
        return self._config.context

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
