"""The child process of a model, from inside: a running batch that requests join and leave at every step.

One thread does everything. Adding a request while a step is computed, from a streamer say, races with the scheduler's
prefix cache and brings the process down, now and then. This module imports openvino-genai: only the child imports it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import openvino_genai
from openvino_genai import ContinuousBatchingPipeline, GenerationStatus, SchedulerConfig

from rankr1_rag.backends import Request
from rankr1_rag.backends.chat_template import is_raw, render_with, utf8
from rankr1_rag.backends.local_model import TextPiece, before_stop, check_length, log, logged
from rankr1_rag.backends.openvino import PipelineSettings
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Completion, TokenLogprob

_BLOCK = 32
"""Tokens in one block of the KV cache on a CPU."""

_PIECE = 2_000
"""Characters that no tokenizer makes more tokens of than it takes."""

_REASONS = {openvino_genai.GenerationFinishReason.STOP: "stop", openvino_genai.GenerationFinishReason.LENGTH: "length"}


def main(fd: int) -> None:
    """Answer questions until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    pipe: Connection[Any, Any] = Connection(fd)
    try:
        _, number, settings = pipe.recv()
        log.addHandler(PipeHandler(pipe))
        log.setLevel(logging.INFO)
        try:
            with logged(f"loading {settings.path}"), ExitStack() as stack:
                path = settings.path
                if settings.adapter is not None:
                    from rankr1_rag.backends.openvino.lora import merged_model

                    path = stack.enter_context(merged_model(settings.path, settings.adapter))
                worker = PipelineLoop(pipe, settings, path)
        except Exception as error:
            merged = f" with the adapter {settings.adapter}" if settings.adapter else ""
            text = f"openvino-genai cannot load {settings.path}{merged}: {last_line(error)}"
            pipe.send((number, error if isinstance(error, BackendError) else BackendError(text)))
            pipe.recv()  # nobody asks any more: wait for the end
            return
        pipe.send((number, None))
        worker.run()
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)  # at once: there is nothing to tidy


class PipeHandler(logging.Handler):
    """Lets the parent log what is logged here."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send the level and the text."""
        self._pipe.send((None, (record.levelno, "%s", record.getMessage())))


class PromptEncoder:
    """The tokenizer and the chat template of the model."""

    def __init__(self, tokenizer: openvino_genai.Tokenizer, context: int) -> None:
        self._tokenizer = tokenizer
        # It cuts off what it finds too long.
        self._context = min(context, token_count(self._encode(" a" * (context + 1))))

    def count(self, text: str) -> int:
        """Tokens; long texts in pieces, each of which may count one too many."""
        return sum(token_count(self._encode(text[at : at + _PIECE])) for at in range(0, len(text), _PIECE))

    def _encode(self, text: str, *, is_whole: bool = False) -> Any:  # noqa: ANN401
        """BOS is added to a whole prompt: chat templates write their own."""
        return self._tokenizer.encode(utf8(text), add_special_tokens=is_whole).input_ids

    def encode(self, number: int, request: Request) -> EncodedRequest:
        """Render, tokenize and check the length: PromptTooLong."""
        text, opened = render_with(
            lambda turns: self._tokenizer.apply_chat_template(turns, add_generation_prompt=True), request.messages
        )
        prompt, config = self._encode(text, is_whole=is_raw(request.messages)), generation_config(request)
        check_length(token_count(prompt), config.max_new_tokens, self._context)
        return EncodedRequest(number, request, prompt, config, "" if request.choices else opened)

    def piece(self, encoded: EncodedRequest) -> TextPiece | None:
        """What a streamed request has that was not sent yet; None if that is little, or ends within a character.

        After the last token it is all the rest.
        """
        is_over = encoded.handle.get_status() != GenerationStatus.RUNNING
        while encoded.handle.can_read():
            (output,) = encoded.handle.read().values()
            encoded.tokens += output.generated_ids
            encoded.reason = output.finish_reason
        few = len(encoded.tokens) // 64  # as all of them are decoded each time
        if not is_over and len(encoded.tokens) - encoded.sent_tokens <= few:
            return None
        text = encoded.opened + self._tokenizer.decode(encoded.tokens)
        start, encoded.sent_tokens = encoded.sent, len(encoded.tokens)
        if (text.endswith("\ufffd") and not is_over) or len(text) <= start:
            return None
        encoded.sent = len(text)
        return TextPiece(start, text[start:])

    def completion(self, encoded: EncodedRequest) -> Completion:
        """What the runtime generated. BackendError where it gave up half-way."""
        if encoded.streams:
            tokens, reason = encoded.tokens, _REASONS.get(encoded.reason)
        else:
            (output,) = encoded.handle.read_all()
            tokens, reason = output.generated_ids, _REASONS.get(output.finish_reason)
        if reason is None:
            raise BackendError(f"openvino-genai ran out of KV cache after {len(tokens)} tokens: raise cache_tokens")
        logprobs = None
        if encoded.request.logprobs:
            texts = self._tokenizer.decode([[token] for token in tokens], skip_special_tokens=False)
            logprobs = tuple(map(TokenLogprob, texts, output.generated_log_probs))
        return Completion(
            text=encoded.opened + before_stop(self._tokenizer.decode(tokens), encoded.request.stop),
            prompt_tokens=token_count(encoded.prompt),
            completion_tokens=len(tokens),
            finish_reason=reason,
            logprobs=logprobs,
        )


def generation_config(request: Request) -> openvino_genai.GenerationConfig:
    """Everything that is not the prompt."""
    config = openvino_genai.GenerationConfig(max_new_tokens=request.max_tokens, apply_chat_template=False)
    config.logprobs = min(request.logprobs, 1)
    if request.stop:
        config.stop_strings = {utf8(stop) for stop in request.stop}
        config.include_stop_str_in_output = True  # cut off later: the runtime cuts at whole tokens
    if request.choices:
        choices = [utf8(choice) for choice in request.choices]
        grammar = "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
        config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=grammar)
        config.max_new_tokens = max(request.max_tokens, *(len(choice.encode()) + 1 for choice in choices))
    if request.temperature > 0:
        config.do_sample = True
        config.temperature = request.temperature
        config.rng_seed = (request.seed * 1_000_003 + request.sample) % 2**31
    return config


@dataclass(slots=True)
class EncodedRequest:
    """A request in the runtime's terms, and the runtime's handle on it once it is being computed."""

    number: int
    request: Request
    prompt: Any
    config: openvino_genai.GenerationConfig
    opened: str
    streams: bool = False
    handle: Any = None
    tokens: list[int] = field(default_factory=list)
    reason: Any = None
    sent: int = 0
    sent_tokens: int = 0

    @property
    def most_tokens(self) -> int:
        """Places that it can take in the cache."""
        return token_count(self.prompt) + int(self.config.max_new_tokens)


class PipelineLoop:
    """First come, first served; but requests that continue an assistant message go before the others.

    The prompt that they continue has most likely just been computed and is in the cache: later it would not be.
    """

    def __init__(self, pipe: Connection[Any, Any], settings: PipelineSettings, path: Path) -> None:
        scheduler = SchedulerConfig()
        scheduler.num_kv_blocks = -(-settings.cache_tokens // _BLOCK)
        scheduler.enable_prefix_caching = True
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if settings.device == "CPU" and 1 in (settings.threads, cores):
            # The runtime dies of a single thread in 16 bits (SIGFPE, openvino issue 33300).
            properties["INFERENCE_PRECISION_HINT"] = "f32"
        self._pipeline = ContinuousBatchingPipeline(str(path), scheduler, settings.device, properties)
        self._encoder = PromptEncoder(self._pipeline.get_tokenizer(), settings.context)
        self._pipe = pipe
        self._settings = settings
        self._continuing: deque[EncodedRequest] = deque()
        self._waiting: deque[EncodedRequest] = deque()
        self._running: list[EncodedRequest] = []

    def run(self) -> None:
        """Step for ever; EOFError when nobody is left to ask."""
        while True:
            while self._pipe.poll(None if self._is_idle() else 0):
                self._receive(*self._pipe.recv())
            self._admit()
            if not self._is_idle():
                self._pipeline.step()
                for one in [one for one in self._running if one.streams]:
                    self._answer(one.number, self._encoder.piece, one)
                for one in [one for one in self._running if one.handle.get_status() != GenerationStatus.RUNNING]:
                    self._running.remove(one)
                    self._answer(one.number, self._encoder.completion, one)

    def _is_idle(self) -> bool:
        waits = self._running or self._continuing or self._waiting
        return not (waits or self._pipeline.has_non_finished_requests())

    def _receive(self, kind: str, number: int, content: Any) -> None:  # noqa: ANN401
        if kind in ("complete", "stream"):
            self._answer(number, self._enqueue, number, content, kind == "stream")
        elif kind == "count":
            self._answer(number, self._encoder.count, content)
        else:
            for requests in (self._running, self._continuing, self._waiting):
                for one in [one for one in requests if one.number == number]:
                    requests.remove(one)
                    if one.handle is not None:
                        one.handle.cancel()

    def _enqueue(self, number: int, request: Request, streams: bool) -> None:
        line = self._continuing if request.messages[-1]["role"] == "assistant" else self._waiting
        encoded = self._encoder.encode(number, request)
        encoded.streams = streams and not request.logprobs
        line.append(encoded)

    def _answer(self, number: int, compute: Callable[..., object], *arguments: object) -> None:
        """Send what it returns, or its error; None is no answer yet."""
        try:
            outcome = compute(*arguments)
        except BackendError as error:
            outcome = error
        except Exception as error:
            outcome = BackendError(f"openvino-genai: {last_line(error)}")
        if outcome is not None:
            self._pipe.send((number, outcome))

    def _admit(self) -> None:
        """Start waiting requests, while the batch and the cache have room for all that they can take.

        Then nothing running ever has to be thrown out and computed again.
        """
        taken = sum(one.most_tokens for one in self._running)
        while (line := self._continuing or self._waiting) and len(self._running) < self._settings.max_batch:
            taken += line[0].most_tokens
            if taken > self._settings.cache_tokens:
                return
            one = line.popleft()
            one.handle = self._pipeline.add_request(one.number, one.prompt, one.config)
            self._running.append(one)


def last_line(error: Exception) -> str:
    """The last line of a C++ message: those before it name files of the machine it was built on."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), repr(error)).strip()


def token_count(tokens: Any) -> int:  # noqa: ANN401  # of openvino
    """Tokens of a prompt."""
    return int(tokens.shape[1])
