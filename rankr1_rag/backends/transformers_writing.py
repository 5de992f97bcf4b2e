"""One completion under way: takes the scores of the next token, picks it, and knows when the text has ended.

The model's scores are taken as they are, at the temperature asked for: top_p, top_k and repetition penalties of the
checkpoint's generation_config are not applied. Knows scores and one request; knows nothing of caches or threads.
"""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any

from rankr1_rag.backends.transformers_text import Choices, Prepared, Text
from rankr1_rag.types import Completion, TokenLogprob


class Writing:
    """Written token by token with `take`; done once `reason` says why. `ends` are the tokens that end a turn."""

    def __init__(self, prepared: Prepared, text: Text, ends: tuple[int, ...]) -> None:
        self.prepared = prepared
        self.tokens: list[int] = []
        self.reason = ""
        self.cached = 0
        self._text = text
        self._ends = ends
        self._choices = prepared.choices
        self._logprobs: list[TokenLogprob] = []
        request = prepared.request
        self._random = random.Random(f"{request.seed}/{request.sample}")
        self._look_for_the_end()

    @property
    def all(self) -> list[int]:
        """Prompt and completion; the model has not read the last token, or not the last few."""
        return [*self.prepared.prompt, *self.tokens]

    @property
    def plain(self) -> bool:
        """Whether the token with the best score is all that is wanted."""
        request = self.prepared.request
        return not (self._choices or request.logprobs or request.temperature > 0)

    def take(self, scores: Any) -> None:  # noqa: ANN401
        """Pick the next token by the scores of all, a tensor of one dimension, or take the one given as an int."""
        self._follow(scores if isinstance(scores, int) else self._pick(scores))
        self._look_for_the_end()

    def completion(self) -> Completion:
        """What was written: a choice as it was given, or the text up to the first stop string."""
        request, choices = self.prepared.request, self._choices
        text = self._text.before(self.tokens, request.stop) if choices is None else choices.whole
        return Completion(
            text=text or "",
            prompt_tokens=len(self.prepared.prompt),
            cached_tokens=self.cached,
            completion_tokens=len(self.tokens),
            finish_reason=self.reason,
            logprobs=tuple(self._logprobs) if request.logprobs else None,
        )

    def _pick(self, scores: Any) -> int:  # noqa: ANN401
        torch: Any = import_module("torch")
        allowed = self._allowed()
        if allowed:
            scores = scores[torch.tensor(allowed, device=scores.device)]
        scores = scores.float().cpu().double()
        temperature = self.prepared.request.temperature
        at = int(scores.argmax())
        if temperature > 0:
            sums = ((scores - scores.max()) / temperature).exp().cumsum(0)
            drawn = torch.searchsorted(sums, self._random.random() * sums[-1], right=True)
            at = min(int(drawn), len(sums) - 1)
        if self.prepared.request.logprobs:
            self._tell(torch, scores.log_softmax(0), at, allowed)
        return allowed[at] if allowed else at

    def _allowed(self) -> list[int]:
        """Tokens that go on with a choice, or end one that is whole while another goes on; empty where all are."""
        if self._choices is None:
            return []
        return [*self._choices.next, *(self._ends[:1] if self._choices.whole is not None else ())]

    def _tell(self, torch: Any, logprobs: Any, at: int, allowed: list[int]) -> None:  # noqa: ANN401
        """Log-probabilities at temperature 1, over what is allowed."""
        values, places = torch.topk(logprobs, min(self.prepared.request.logprobs, len(logprobs)))

        def token(place: int) -> str:
            return self._text.token(allowed[place] if allowed else place)

        top = tuple((token(place), value) for place, value in zip(places.tolist(), values.tolist(), strict=True))
        self._logprobs.append(TokenLogprob(token(at), float(logprobs[at]), top))

    def _follow(self, token: int) -> None:
        self.tokens.append(token)
        if self._choices is not None and token in self._choices.next:
            self._choices = self._choices.next[token]
        elif token in self._ends or self._choices is not None:
            self.reason = "stop"

    def _look_for_the_end(self) -> None:
        if self.reason:
            return
        if self._choices is not None:
            self._skip_to_the_end(self._choices)
        elif self._text.stopped(self.tokens, self.prepared.request.stop):
            self.reason = "stop"
        elif len(self.tokens) >= self.prepared.most:
            self.reason = "length"

    def _skip_to_the_end(self, choices: Choices) -> None:
        """What is certain needs no model."""
        for token in choices.foregone() or []:
            self._follow(token)
            if self.prepared.request.logprobs:
                said = self._text.token(token)
                self._logprobs.append(TokenLogprob(said, 0.0, ((said, 0.0),)))
        self.reason = self.reason or ("" if self._choices and self._choices.next else "stop")
