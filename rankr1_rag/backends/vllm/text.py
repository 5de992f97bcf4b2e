"""How a `Request` reads in vLLM's terms, and a finished output in ours: templates, tokens, sampling parameters.

Knows the tokenizer; knows nothing of engines and of who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rankr1_rag.backends import Request
from rankr1_rag.backends.chat_template import rendered, utf8
from rankr1_rag.errors import PromptTooLong
from rankr1_rag.types import Completion, Message, TokenLogprob

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.config import VllmConfig

BROKEN_OFF = ("abort", "error")
"""Reasons to finish that make no completion: what was written until then is no answer."""

_FORBIDDEN = -1e4
"""A log-probability below this is that of a token which the choices forbid."""


@dataclass(frozen=True)
class Text:
    """The texts of one model; `own` are sampling parameters over those of a request."""

    config: VllmConfig
    own: Mapping[str, Any]

    def prepared(self, request: Request) -> tuple[list[int], SamplingParams]:
        """The tokens of the prompt, and how to go on from there. PromptTooLong."""
        prompt, params = self.tokens(request.messages), self.params(request)
        most = self.config.model_config.max_model_len
        if len(prompt) + (params.max_tokens or 1) > most:
            raise PromptTooLong(
                f"a prompt of {len(prompt)} tokens and {params.max_tokens} for the completion are more than the "
                f"context of {most}: show fewer or shorter passages, or lower reasoning_tokens"
            )
        return prompt, params

    def count(self, text: str) -> int:
        """Tokens of this text, without any that a template adds."""
        return len(self._tokenizer.encode(utf8(text), add_special_tokens=False))

    def check(self) -> None:
        """ValueError where `own` are no sampling parameters of vLLM."""
        try:
            self.params(Request((), 1))
        except Exception as error:  # vLLM's own kinds, and TypeErrors for unknown names
            raise ValueError(f"sampling: vLLM takes no such parameters: {error}") from error

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The prompt: the messages in the model's chat template, a final assistant message left open."""
        text = rendered(self._tokenizer, messages, self.config.model_config.model)
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return found

    def params(self, request: Request) -> SamplingParams:
        """Everything that is not the prompt, `own` over it. Choices are kept whole."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        # A sampled choice may be spelled in more tokens than the tokenizer would take: at worst one a byte, and an end.
        longest = max((len(choice.encode()) + 1 for choice in request.choices), default=1)
        given = {
            "max_tokens": max(request.max_tokens, longest),
            "temperature": request.temperature,
            "stop": list(request.stop),
            "seed": (request.seed * 1_000 + request.sample) % 2**31 if request.temperature else None,
            "logprobs": request.logprobs or None,
            "structured_outputs": StructuredOutputsParams(choice=list(request.choices)) if request.choices else None,
            "output_kind": RequestOutputKind.FINAL_ONLY,
        }
        return SamplingParams(**{**given, **self.own})

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401  # no types there
        from vllm.tokenizers import cached_tokenizer_from_config

        return cached_tokenizer_from_config(self.config.model_config)


def completion(output: RequestOutput, request: Request) -> Completion:
    """What came out, of a request that has finished."""
    said = output.outputs[0]
    return Completion(
        text=said.text,
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        completion_tokens=len(said.token_ids),
        finish_reason=said.finish_reason or "unknown",
        logprobs=tuple(_logprobs(said.token_ids, said.logprobs)) if request.logprobs and said.logprobs else None,
    )


def _logprobs(tokens: Iterable[int], alternatives: Any) -> list[TokenLogprob]:  # noqa: ANN401  # vLLM's own
    """Out of a mapping from token to log-probability for each token; what the choices forbid is left out."""
    found = []
    for token, there in zip(tokens, alternatives, strict=True):
        top = sorted(there.values(), key=lambda one: -one.logprob)
        possible = tuple((one.decoded_token or "", one.logprob) for one in top if one.logprob > _FORBIDDEN)
        found.append(TokenLogprob(there[token].decoded_token or "", there[token].logprob, possible))
    return found
