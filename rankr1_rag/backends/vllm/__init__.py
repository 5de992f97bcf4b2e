"""vLLM in this process: its async engine, with a base model and a LoRA adapter, asked for hundreds of things at once.

    VLLM("ielabgroup/Rank-R1-7B-v0.1")                       a released checkpoint: base model and format are known
    VLLM("Qwen/Qwen2.5-7B-Instruct", adapter="my-adapter/")  any model and adapter, by name or folder
    VLLM("folder/", dtype="bfloat16", tensor_parallel=2)     any model that vLLM loads

The engine computes in processes that it spawns: a script that uses this needs `if __name__ == "__main__":` around what
it does, and is told so. Knows requests and one engine; how that is built is the business of `vllm_engine`. Knows no
queries and no passages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rankr1_rag.backends import Request, hub
from rankr1_rag.backends.local_model import tell_of_forks
from rankr1_rag.backends.vllm import engine as vllm_engine
from rankr1_rag.backends.vllm.text import BROKEN_OFF, Text, completion
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.types import Completion

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

_CLOSED = "this vLLM backend was closed: make a new one"


class VLLM:
    """One engine, started at first use (half a minute), shared by everyone who awaits it, from any loop or thread.

    Making it imports vLLM and reads the model's configuration, so that wrong arguments are told at once.

    * `model`: a released checkpoint of the table, or a name of the hub or folder; `adapter`: a LoRA, likewise. `name`
      is what `.model` then says, where these are a checkpoint known by another name.
    * `context`: longest prompt and completion together, in tokens; by default the model's own.
    * `dtype`: "auto", "bfloat16", "float16" or "float32"; `quantization`: as vLLM calls it, "awq" or "fp8" for example.
    * `tensor_parallel`: GPUs to split the model over; `gpu_memory`: the share of each GPU's memory to use, in (0, 1];
      `max_batch`: the most requests computed together. None is vLLM's own choice.
    * `prefix_caching`: keep what was computed of a prompt for the next one that begins alike.
    * `batch_invariant`: the same text whatever else is computed beside it, slower; GPUs only, vLLM says which. Without
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
        self._again = partial(VLLM, **{name: value for name, value in locals().items() if name != "self"})
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
        self._built = vllm_engine.Built(
            self._weights, arguments, vllm_engine.mapping("engine", engine), batch_invariant
        )
        self._text = Text(self._built.config, vllm_engine.mapping("sampling", sampling))
        self._text.check()
        self._ids = count()
        self._texts = ThreadPoolExecutor(1, "rankr1-vllm-text")  # templates and tokens, beside the loop
        self._start: asyncio.Task[AsyncLLM] | None = None
        self._closed = False
        tell_of_forks(self)

    @property
    def model(self) -> str:
        """The name given, or the checkpoint's, or the model's."""
        return self._weights.name

    @cached_property
    def identity(self) -> str:
        """The weights' commit or digest, and all settings that completions depend on; reads every byte of a folder."""
        return f"vllm:{self._weights.digest}:{self._built.telling}:{sorted(self._text.own.items())!r}"

    @property
    def context(self) -> int:
        """The model's own, or less if asked for."""
        return self._built.context

    @property
    def can_continue(self) -> bool:
        """Yes: through the model's chat template."""
        return True

    def count(self, text: str) -> int:
        """Tokens of this text, exactly."""
        return self._text.count(text)

    async def complete(self, request: Request) -> Completion:
        """Queue the request and await its completion. PromptTooLong, BackendUnavailable, BackendError."""
        return await _at_home(self._complete(request))

    async def reset_prefix_cache(self) -> None:
        """Forget the prompts that were computed, as a benchmark must between its rows."""
        await _at_home(self._reset())

    async def close(self) -> None:
        """Answer all who wait with a BackendError and end the engine's processes."""
        await _at_home(self._close())

    async def _complete(self, request: Request) -> Completion:
        loop = asyncio.get_running_loop()
        prompt, params = await loop.run_in_executor(self._texts, self._text.prepared, request)
        engine = await self._engine()
        try:
            output = await self._generated(engine, prompt, params)
        except Exception as error:
            if self._closed:
                raise BackendError(_CLOSED) from error
            if engine.errored:
                raise BackendUnavailable(
                    f"the vLLM engine of {self.model} died ({error}): ask again, and it is started anew"
                ) from error
            cause = error.__cause__ or error
            raise BackendError(f"vLLM refused a request to {self.model}: {type(cause).__name__}: {cause}") from error
        if output is None or output.outputs[0].finish_reason in BROKEN_OFF:
            raise BackendUnavailable(f"vLLM broke a completion of {self.model} off: ask again")
        return completion(output, request)

    async def _generated(self, engine: AsyncLLM, prompt: list[int], params: SamplingParams) -> RequestOutput | None:
        """The last that the engine says, which is all of it."""
        tokens: Any = {"type": "token", "prompt_token_ids": prompt}
        stream = engine.generate(tokens, params, str(next(self._ids)), lora_request=self._built.lora)
        output = None
        async for said in stream:
            output = said
        return output

    async def _engine(self) -> AsyncLLM:
        """The engine, started at its first use, and anew if it died. All on one loop: no lock is needed."""
        if self._closed:
            raise BackendError(_CLOSED)
        if self._start is None or _over(self._start):
            self._start = asyncio.create_task(self._started(self._start))
        return await asyncio.shield(self._start)

    async def _started(self, before: asyncio.Task[AsyncLLM] | None) -> AsyncLLM:
        """A new engine, once the one before has ended. What keeps that from starting again may pass."""
        if (dead := _given(before)) is not None:
            await vllm_engine.end(dead)
        if self._closed:
            raise BackendError(_CLOSED)
        try:
            return await self._built.start()
        except BackendError as error:
            if before is None:
                raise
            raise BackendUnavailable(str(error)) from error

    async def _reset(self) -> None:
        engine = await self._engine()
        if not await engine.reset_prefix_cache():
            raise BackendError("the prefix cache cannot be reset while requests are under way")

    async def _close(self) -> None:
        self._closed = True
        start, self._start = self._start, None
        if start is not None:
            engine = (await asyncio.gather(start, return_exceptions=True))[0]
            if not isinstance(engine, BaseException):
                await vllm_engine.end(engine)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Pickled, it is its configuration."""
        return self._again, ()

    def __repr__(self) -> str:
        return f"VLLM({self.model!r})"

    def forked(self) -> None:
        """In the child of a fork: the engine is the parent's, and must not be ended from here."""
        if (engine := _given(self._start)) is not None:
            _INHERITED.append(vllm_engine.disown(engine))
        self._start = None
        self._texts = ThreadPoolExecutor(1, "rankr1-vllm-text")


def _over(start: asyncio.Task[AsyncLLM]) -> bool:
    """Whether there must be another engine: this one died, or could not be started again, which may pass."""
    if (engine := _given(start)) is not None:
        return bool(engine.errored)
    return start.done() and (start.cancelled() or isinstance(start.exception(), BackendUnavailable))


def _given(start: asyncio.Task[AsyncLLM] | None) -> AsyncLLM | None:
    """The engine that a start gave; None where there was none, or it gave none, or not yet."""
    if start is None or not start.done() or start.cancelled() or start.exception():
        return None
    return start.result()


async def _at_home(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run where the engine lives: on the private loop, whichever loop this is awaited on."""
    home = private_loop()
    return await (coroutine if home.here else home.wait(coroutine))


_INHERITED: list[object] = []
