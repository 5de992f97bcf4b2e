"""The backend for machines without vLLM: a model computed in this process by Hugging Face transformers.

Transformers("Qwen/Qwen2.5-3B-Instruct")       a name on the Hugging Face hub, or a folder
Transformers("ielabgroup/Rank-R1-3B-v0.1")     a known checkpoint: its base and its LoRA adapter
Transformers("folder/", adapter="lora/")       an adapter of your own, through peft
"""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path

from rankr1_rag.backends import hub
from rankr1_rag.backends.chat_template import special_tokens
from rankr1_rag.backends.local_model import LocalModel
from rankr1_rag.backends.transformers.model import ModelSettings, ModelTokenizer
from rankr1_rag.backends.transformers.worker import ModelThread


class Transformers(LocalModel[ModelThread]):
    """One model, loaded at first use in a thread of its own, shared by everyone who awaits it, from any loop.

    `model` is a folder, a name on the hub or of a released checkpoint, whose base is known; `adapter` is a folder
    or name of peft's. `name` becomes `.model`, where the files are a checkpoint known by another name.
    `context` lowers the longest prompt and completion. `dtype` is "auto" (the checkpoint's own), "float32", "bfloat16"
    or "float16"; `device` is cuda where there is one, then mps, then cpu. Only safetensors are read, and no code of
    the checkpoint is run.

    Up to `max_batch` requests are computed together; others wait. As many prompts again are kept in memory, and what a
    later one has in common with their beginning is not computed again (`cached_tokens`). Choices are kept exactly,
    whole even where `max_tokens` is less; `logprobs` are the model's own, at temperature 1, over what the choices
    allow. Other company, or other kept prompts, round differently and turn near ties, hardly ever in float32.

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
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype is {dtype!r}: one of auto, float32, bfloat16, float16 is needed")
        if max_batch < 1 or (context is not None and context < 1):
            raise ValueError(f"max_batch is {max_batch}, context {context}: at least 1 is needed")
        self._weights = hub.weights(model, adapter, name)
        self._settings = ModelSettings(self._weights.base, self._weights.adapter, dtype, device, context, max_batch)
        for package in ("torch", "transformers", *(["peft"] if self._settings.adapter else [])):
            if importlib.util.find_spec(package) is None:
                raise ImportError(f'{package} is not installed: pip install "rankr1-rag[transformers]"')
        self._tokenizer = ModelTokenizer(self._settings.base)
        super().__init__(self._weights.name)  # last: from now on forks are reported to it

    @cached_property
    def identity(self) -> str:
        """The name, what the base and the adapter are (a digest of a folder, else the hub's commit), and the dtype.

        Reads all of a folder's files, a second for a gigabyte. BackendError where they cannot be read.
        """
        return f"transformers:{Path(self.model).name}:{self._weights.digest}:{self._settings.dtype}"

    @cached_property
    def context(self) -> int | None:
        """The model's own, or less by `context`. BackendError where there is no such model."""
        return hub.context(self._settings.base, self._settings.context)

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """The control tokens of the tokenizer, which is loaded."""
        return special_tokens(self._tokenizer.load())

    @property
    def capacity(self) -> int:
        """`max_batch`."""
        return self._settings.max_batch

    def count(self, text: str) -> int:
        """Tokens of this text, exactly. The first call loads the tokenizer; it never waits for the model."""
        return self._tokenizer.count(text)

    def start(self, lost: ModelThread | None) -> ModelThread:
        """A new thread that loads the model."""
        return ModelThread(self._settings, self._tokenizer)

    def forked(self) -> None:
        """In the child of a fork: the tokenizer is the parent's too."""
        super().forked()
        self._tokenizer = ModelTokenizer(self._settings.base)
