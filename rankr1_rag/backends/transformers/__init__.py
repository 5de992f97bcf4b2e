"""The backend for whoever has no vLLM: a model computed in this process by Hugging Face transformers.

    Transformers("Qwen/Qwen2.5-3B-Instruct")       a name on the Hugging Face hub, or a folder
    Transformers("ielabgroup/Rank-R1-3B-v0.1")     a known checkpoint: its base and its LoRA adapter
    Transformers("folder/", adapter="lora/")       an adapter of your own, through peft

Knows one model and how it is shared by coroutines, threads and forks; knows nothing of queries and passages.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import weakref
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rankr1_rag.backends import Request, hub
from rankr1_rag.backends.local_model import tell_of_forks
from rankr1_rag.backends.transformers.model import Settings
from rankr1_rag.backends.transformers.text import Text
from rankr1_rag.backends.transformers.worker import Worker
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Completion


class Transformers:
    """One model, loaded at first use in a thread of its own, shared by everyone who awaits it, from any loop.

    `model` is a folder, a name on the hub or of a released checkpoint, whose base is known; `adapter` is a folder
    or name of peft's. `name` is what `.model` then says, where the files are a checkpoint known by another name.
    `context` lowers the longest prompt and completion. `dtype` is "auto" (the checkpoint's own), "float32", "bfloat16"
    or "float16"; `device` is cuda where there is one, then mps, then cpu. Only safetensors are read, and no code of
    the checkpoint is run.

    Up to `max_batch` requests are computed together; others wait. As many prompts again are kept in memory, and what a
    later one has in common with them at its beginning is not computed anew (`cached_tokens`). Choices are kept exactly,
    and whole, even where `max_tokens` is less; `logprobs` are the model's own, at temperature 1, over what the choices
    allow. Samples are drawn by seed and sample. Other company, or other kept prompts, round differently and turn near
    ties, hardly ever in float32.

    Raises FileNotFoundError for a wrong path and ImportError, with the command to run, for what is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        name: str | None = None,
        context: int | None = None,
        dtype: str = "auto",
        device: str | None = None,
        max_batch: int = 16,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"dtype is {dtype!r}: one of {', '.join(_DTYPES)} is needed")
        if max_batch < 1 or (context is not None and context < 1):
            raise ValueError(f"max_batch is {max_batch}, context {context}: at least 1 is needed")
        self._again = partial(
            Transformers,
            model,
            adapter=adapter,
            name=name,
            context=context,
            dtype=dtype,
            device=device,
            max_batch=max_batch,
        )
        self._weights = hub.weights(model, adapter, name)
        self._settings = Settings(
            base=self._weights.base,
            adapter=self._weights.adapter,
            dtype=dtype,
            device=device,
            context=context,
            max_batch=max_batch,
        )
        _check_installed("torch", "transformers", *(["peft"] if self._settings.adapter else []))
        self._lock = threading.Lock()
        self._text = Text(self._settings.base)
        self._worker: Worker | None = None
        self._closed = False
        tell_of_forks(self)

    @property
    def model(self) -> str:
        """The name given, the checkpoint's, or the path."""
        return self._weights.name

    @cached_property
    def identity(self) -> str:
        """The name, what the base and the adapter are (a digest of a folder, else the hub's commit), and the dtype.

        Reads all of a folder's files, a second for a gigabyte. BackendError where they are not to be had.
        """
        return f"transformers:{Path(self.model).name}:{self._weights.digest}:{self._settings.dtype}"

    @cached_property
    def context(self) -> int | None:
        """The model's own, or less if asked for. BackendError where there is no such model."""
        return hub.context(self._settings.base, self._settings.context)

    @property
    def can_continue(self) -> bool:
        """Yes: the text of a final assistant message is put behind the opened turn."""
        return True

    def count(self, text: str) -> int:
        """Tokens of this text, exactly. The first call loads the tokenizer; it never waits for the model."""
        return self._text.count(text)

    async def complete(self, request: Request) -> Completion:
        """Queue the request and await its turn. BackendError where the model cannot be used, PromptTooLong."""
        return await asyncio.wrap_future(self._live().ask(request))

    async def close(self) -> None:
        """Answer all who wait with a BackendError, end the thread after the step under way, and free the model."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker:
            worker.stop(_CLOSED)
            await asyncio.to_thread(worker.join)

    def _live(self) -> Worker:
        """The thread of the model, started at its first use, and anew if it was lost."""
        with self._lock:
            if self._closed:
                raise BackendError(_CLOSED)
            if self._worker is None or self._worker.lost:
                self._worker = Worker(self._settings, self._text)
                weakref.finalize(self, self._worker.stop, _CLOSED).atexit = False
            return self._worker

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        """Pickled, it is its configuration."""
        return self._again, ()

    def forked(self) -> None:
        """In the child of a fork: the thread is the parent's, and any lock may have been held."""
        self._lock = threading.Lock()
        self._text = Text(self._settings.base)
        if self._worker:
            self._worker.forget()
        self._worker = None


def _check_installed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'{package} is not installed: pip install "rankr1-rag[transformers]"')


_DTYPES = ("auto", "float32", "bfloat16", "float16")
_CLOSED = "this Transformers backend was closed: make a new one"
