"""A running vLLM engine on the private event loop, and requests and completions in its terms."""

from __future__ import annotations

import asyncio
import multiprocessing.process
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from rankr1_rag.backends import Request, on_text
from rankr1_rag.backends.chat_template import is_raw, render_prompt, utf8
from rankr1_rag.backends.local_model import Listen, ModelWorker, check_length, end_workers_first, logged
from rankr1_rag.backends.vllm.config import EngineConfig, environment_of, one_line
from rankr1_rag.backends.vllm.process import ProcessWatcher, deaf_to_ctrl_c
from rankr1_rag.concurrency.event_loop import Threads, private_loop
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.types import Completion, TokenLogprob

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM

_BROKEN_OFF = ("abort", "error")
"""Reasons to finish that make no completion: the text until then is no answer."""

_FORBIDDEN = -1e4
"""A log-probability below this is that of a token which the choices forbid."""


@dataclass(frozen=True)
class RequestBuilder:
    """Requests as tokens and sampling parameters; `own` are sampling parameters over those of a request."""

    config: VllmConfig
    own: Mapping[str, Any]

    @cached_property
    def tokenizer(self) -> Any:  # noqa: ANN401  # no types there
        """VLLM's own tokenizer of the model."""
        from vllm.tokenizers import cached_tokenizer_from_config

        return cached_tokenizer_from_config(self.config.model_config)

    def encode(self, text: str, *, is_whole: bool = False) -> list[int]:
        """The tokens of this text, without any that a template adds; of a whole prompt with the model's BOS."""
        tokens: list[int] = self.tokenizer.encode(utf8(text), add_special_tokens=is_whole)
        return tokens

    def build(self, request: Request) -> tuple[list[int], SamplingParams, str]:
        """The tokens of the prompt, how to complete it, and what begins the completion. PromptTooLong."""
        model = self.config.model_config
        text, opened = render_prompt(self.tokenizer, request.messages, model.model)
        prompt = self.encode(text, is_whole=is_raw(request.messages))
        params = self.params(request)
        check_length(len(prompt), params.max_tokens or 1, model.max_model_len)
        return prompt, params, "" if request.choices else opened

    def params(self, request: Request) -> SamplingParams:
        """Everything that is not the prompt, `own` over it. Choices are kept whole."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        # A sampled choice may be spelled in more tokens than the tokenizer would take: at worst one a byte, and an end.
        longest = max((len(choice.encode()) + 1 for choice in request.choices), default=1)
        params = {
            "max_tokens": max(request.max_tokens, longest),
            "temperature": request.temperature,
            "stop": [utf8(stop) for stop in request.stop],
            "seed": (request.seed * 1_000 + request.sample) % 2**31 if request.temperature else None,
            "logprobs": request.logprobs or None,
            "structured_outputs": StructuredOutputsParams(choice=list(request.choices)) if request.choices else None,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        return SamplingParams(**{**params, **self.own})


class EngineWorker(ModelWorker):
    """An engine that its first request starts, in half a minute. All of it runs on the private event loop.

    `lost` is the worker in whose place it is: its engine is ended first, and whatever keeps the new one from starting
    may pass.
    """

    def __init__(self, config: EngineConfig, builder: RequestBuilder, lost: EngineWorker | None) -> None:
        super().__init__()
        self.engine: AsyncLLM | None = None
        self._config = config
        self._builder = builder
        self._before = lost
        self._ids = count()
        self._texts = Threads(1, "rankr1-vllm-text")  # templates and tokens, off the loop
        self._starting: asyncio.Task[AsyncLLM] | None = None
        # Last: attributes go in this order, and a watcher that goes before the engine kills its processes.
        self._watcher: ProcessWatcher | None = None

    @property
    def lost(self) -> bool:
        """Whether the engine died, or could not be started for a reason that may pass."""
        start = self._starting
        if start is None or not start.done():
            return False
        if start.cancelled() or start.exception():
            return start.cancelled() or isinstance(start.exception(), BackendUnavailable)
        return bool(start.result().errored)

    def ask(self, kind: str, content: Any, listen: Listen | None = None) -> Future[Any]:  # noqa: ANN401
        """The completion of a request, or for "reset" an empty prefix cache. Cancelling it aborts it in the engine."""
        self.check()
        return private_loop().submit(self._complete(content) if kind == "complete" else self._reset())

    async def _complete(self, request: Request) -> Completion:
        loop = asyncio.get_running_loop()
        prompt, params, opened = await loop.run_in_executor(self._texts, self._builder.build, request)
        written = ""
        if (listen := on_text.get()) is not None:
            from vllm.sampling_params import RequestOutputKind

            params.output_kind = RequestOutputKind.CUMULATIVE
        engine = await self._started()
        tokens: Any = {"type": "token", "prompt_token_ids": prompt}
        name = self._config.weights.name
        output: RequestOutput | None = None
        try:
            stream = engine.generate(tokens, params, str(next(self._ids)), lora_request=self._config.lora)
            async for last in stream:
                output = last
                if listen is not None and len(text := opened + last.outputs[0].text) > len(written):
                    listen(len(written), text[len(written) :])
                    written = text
        except Exception as error:
            self.check()
            if engine.errored:
                raise BackendUnavailable(
                    f"the vLLM engine of {name} died ({error}): ask again, and it is started again"
                ) from error
            cause = error.__cause__ or error
            raise BackendError(f"vLLM refused a request to {name}: {type(cause).__name__}: {cause}") from error
        if output is None or output.outputs[0].finish_reason in _BROKEN_OFF:
            raise BackendUnavailable(f"vLLM broke a completion of {name} off: ask again")
        return completion(output, request, opened)

    async def _reset(self) -> None:
        engine = await self._started()
        if not await engine.reset_prefix_cache():
            raise BackendError("the prefix cache cannot be reset while requests are under way")

    async def _started(self) -> AsyncLLM:
        """The engine. All on one loop: no lock is needed."""
        self.check()
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> AsyncLLM:
        """An engine with its adapter loaded."""
        before, self._before = self._before, None
        if before is not None:
            await before.shut_down()
        self.check()
        weights = self._config.weights
        kind = BackendError if before is None else BackendUnavailable
        try:
            with logged(f"starting a vLLM engine with {weights.name}"):
                engine = await asyncio.to_thread(self._make)
        except Exception as error:
            raise kind(
                f"the vLLM engine of {weights.name} did not start: {one_line(error)} (the output of its process is "
                "above, on standard error)"
            ) from error
        if self._config.lora is not None:
            try:
                await engine.add_lora(self._config.lora)
            except Exception as error:
                await self._end(engine)
                raise kind(f"the adapter {weights.lora} does not fit {weights.base.name}: {one_line(error)}") from error
        return engine

    def _make(self) -> AsyncLLM:
        from vllm.v1.engine.async_llm import AsyncLLM

        watcher = ProcessWatcher()
        try:
            with environment_of({**self._config.environment, **watcher.mark}), deaf_to_ctrl_c():
                engine = AsyncLLM.from_vllm_config(self._config.config, disable_log_stats=True)
        except BaseException:
            watcher.over()
            raise
        self.engine, self._watcher = engine, watcher
        end_workers_first()  # before the finalizers of vLLM, which its own tasks would report as a fault
        return engine

    def join(self, seconds: float | None = None) -> None:
        """Wait until the engine's processes are gone; all requests that wait for it fail."""
        private_loop().submit(self.shut_down()).result(seconds)

    async def shut_down(self) -> None:
        """End the engine, once its start is over."""
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if self.engine is not None:
            await self._end(self.engine)

    async def _end(self, engine: AsyncLLM) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        if engine.output_handler is not None:  # first, or it would report the death of the engine as a fault
            engine.output_handler.cancel()
            await asyncio.gather(engine.output_handler, return_exceptions=True)
        engine.output_processor.propagate_error(EngineDeadError())
        await asyncio.to_thread(self._end_processes, engine)

    def _end_processes(self, engine: AsyncLLM) -> None:
        self.engine = None
        engine.shutdown()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.over()
        # It would call it again when it is collected, half of Python gone.
        engine.__dict__["shutdown"] = lambda *_, **__: None

    def leave(self) -> None:
        """End the engine without the help of the loop, which starts no thread any more when Python exits."""
        self.stop("Python is leaving")
        engine = self.engine
        if engine is not None:
            if engine.output_handler is not None:
                engine.output_handler.get_loop().call_soon_threadsafe(engine.output_handler.cancel)
            self._end_processes(engine)

    def forget(self) -> None:
        """In the child of a fork: let nothing end what is the parent's.

        Three would, when the child ends: vLLM's two finalizers, and multiprocessing, which ends all children it knows.
        """
        super().forget()
        engine, watcher = self.engine, self._watcher
        if engine is None:
            return
        manager = getattr(getattr(engine.engine_core, "resources", None), "engine_manager", None)
        for owner in (engine.engine_core, manager):
            finalizer = getattr(owner, "_finalizer", None)
            if finalizer is not None:
                finalizer.detach()
        if watcher is not None:
            watcher.forget()
        getattr(multiprocessing.process, "_children", set()).difference_update(getattr(manager, "processes", ()))
        engine.__dict__["shutdown"] = lambda *_, **__: None
        _inherited.append(self)


_inherited: list[EngineWorker] = []
"""Kept for life in the child of a fork, so that nothing of them is finalised there."""


def completion(output: RequestOutput, request: Request, opened: str) -> Completion:
    """The completion of a request that has finished; what the choices forbid is left out of the alternatives."""
    result = output.outputs[0]
    logprobs = []
    for token, there in zip(result.token_ids, result.logprobs or (), strict=False):
        top = sorted(there.values(), key=lambda one: -one.logprob)
        possible = tuple((one.decoded_token or "", one.logprob) for one in top if one.logprob > _FORBIDDEN)
        value = min(0.0, max(_FORBIDDEN, there[token].logprob))  # in this order NaN becomes the least
        logprobs.append(TokenLogprob(there[token].decoded_token or "", value, possible))
    return Completion(
        text=opened + result.text,
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        completion_tokens=len(result.token_ids),
        finish_reason=result.finish_reason or "unknown",
        logprobs=tuple(logprobs) if request.logprobs and result.logprobs else None,
    )
