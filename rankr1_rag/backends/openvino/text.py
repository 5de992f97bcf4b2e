"""Requests as the tokens and settings that openvino-genai takes, and its tokens as completions.

Knows the model's tokenizer, chat template and decoding settings; knows nothing of threads, batches or files. Imports
openvino-genai, so it is itself imported only when a model is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import openvino_genai

from rankr1_rag.backends import Request
from rankr1_rag.errors import BackendError, PromptTooLong
from rankr1_rag.types import Completion, TokenLogprob

if TYPE_CHECKING:
    from openvino_genai.py_openvino_genai import GenerationOutput

_REASONS = {openvino_genai.GenerationFinishReason.STOP: "stop", openvino_genai.GenerationFinishReason.LENGTH: "length"}

_PIECE = 2_000
"""Characters that no tokenizer makes more tokens of than it takes."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to be computed."""

    request: Request
    prompt: openvino_genai.TokenizedInputs
    config: openvino_genai.GenerationConfig

    @property
    def prompt_tokens(self) -> int:
        """Tokens to read."""
        return _length(self.prompt)

    @property
    def most_tokens(self) -> int:
        """Places it may come to take in the cache."""
        return self.prompt_tokens + int(self.config.max_new_tokens)


class Text:
    """The tokenizer of one model, safe to use from any thread."""

    def __init__(self, tokenizer: openvino_genai.Tokenizer, context: int) -> None:
        self._tokenizer = tokenizer
        self._context = min(context, _length(self.encode(" a" * (context + 1))))  # it cuts off what it finds too long

    def count(self, text: str) -> int:
        """Tokens; long texts in pieces, each of which may count one too many."""
        return sum(_length(self.encode(text[at : at + _PIECE])) for at in range(0, len(text), _PIECE))

    def encode(self, text: str) -> openvino_genai.TokenizedInputs:
        """No BOS is added: chat templates write their own."""
        return self._tokenizer.encode(_utf8(text), add_special_tokens=False)

    def prepare(self, request: Request) -> Prepared:
        """Render, tokenize and check the length: PromptTooLong."""
        prepared = Prepared(request, self.encode(self._render(request)), self._config(request))
        if prepared.most_tokens > self._context:
            raise PromptTooLong(
                f"a prompt of {prepared.prompt_tokens} tokens and a completion of up to "
                f"{prepared.config.max_new_tokens} are longer than the context of {self._context}: "
                "show fewer or shorter passages, or lower max_tokens"
            )
        return prepared

    def _render(self, request: Request) -> str:
        """The prompt. A final assistant message goes behind an opened turn: every template closes one it is given."""
        messages = [{key: _utf8(value) for key, value in message.items()} for message in request.messages]
        begun = messages.pop()["content"] if messages and messages[-1]["role"] == "assistant" else ""
        return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)) + begun

    def _config(self, request: Request) -> openvino_genai.GenerationConfig:
        config = openvino_genai.GenerationConfig(max_new_tokens=request.max_tokens, apply_chat_template=False)
        config.logprobs = min(request.logprobs, 1)
        if request.stop:
            config.stop_strings = {_utf8(stop) for stop in request.stop}
            config.include_stop_str_in_output = True  # cut off below: the runtime cuts at whole tokens
        if request.choices:
            grammar = "root ::= " + " | ".join(
                json.dumps(_utf8(choice), ensure_ascii=False) for choice in request.choices
            )
            config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=grammar)
            config.max_new_tokens = max(request.max_tokens, *(len(_utf8(c).encode()) + 1 for c in request.choices))
        if request.temperature > 0:
            config.do_sample = True
            config.temperature = request.temperature
            config.rng_seed = (request.seed * 1_000_003 + request.sample) % 2**31
        return config

    def completion(self, prepared: Prepared, output: GenerationOutput) -> Completion:
        """BackendError where the runtime gave up half-way."""
        reason = _REASONS.get(output.finish_reason)
        if reason is None:
            raise BackendError(
                f"openvino-genai ran out of KV cache after {len(output.generated_ids)} tokens: raise cache_tokens"
            )
        text = self._tokenizer.decode(output.generated_ids)
        return Completion(
            text=_before(text, prepared.request.stop),
            prompt_tokens=prepared.prompt_tokens,
            completion_tokens=len(output.generated_ids),
            finish_reason=reason,
            logprobs=self._logprobs(output) if prepared.request.logprobs else None,
        )

    def _logprobs(self, output: GenerationOutput) -> tuple[TokenLogprob, ...]:
        tokens = self._tokenizer.decode([[token] for token in output.generated_ids], skip_special_tokens=False)
        return tuple(map(TokenLogprob, tokens, output.generated_log_probs))


def _length(inputs: openvino_genai.TokenizedInputs) -> int:
    return int(inputs.input_ids.shape[1])


def _before(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _utf8(text: str) -> str:
    """Lone surrogates, which the runtime refuses, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
