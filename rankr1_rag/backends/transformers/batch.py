"""One completion under way: takes the scores of the next token, picks it, and knows when the text has ended.

The model's scores are taken as they are, at the temperature asked for: top_p, top_k and repetition penalties of the
checkpoint's generation_config are not applied. Knows scores and one request; knows nothing of caches or threads.

The keys and values of what is being written, side by side: prompts are read in, rows step together and leave.

A prompt is read alone, without padding, so what it says first depends on no company; rows of a batch are padded on the
left. A row's keys and values can be kept for a prompt that begins with the same tokens. Knows tensors; knows nothing of
text, requests or threads.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rankr1_rag.backends.transformers.text import Choices, ModelTokenizer, TokenizedRequest
from rankr1_rag.types import Completion, TokenLogprob

State = list[tuple[Any, Any]]
"""Keys and values of each layer, tensors of (rows, heads, tokens, size)."""

_PIECE = 512
"""Tokens of a prompt that are read at once: what a cancelled one costs at most, and what bounds the memory."""

_WORTH = 16
"""Tokens that two prompts must begin with in common to be worth a look."""


class Kept:
    """The last few prompts that were read and gone on with, by their tokens."""

    def __init__(self, most: int) -> None:
        self._states: deque[tuple[list[int], State]] = deque(maxlen=most)

    def __len__(self) -> int:
        return len(self._states)

    def add(self, tokens: list[int], state: State) -> None:
        """Keep one, in place of the oldest; of the tokens the first were read."""
        self._states.append((tokens[: state[0][0].shape[2]], state))

    def find(self, prompt: list[int]) -> tuple[int, State]:
        """How many of its tokens need not be read, at least one less than all, and the state after them."""
        best, found = 0, None
        for tokens, state in self._states:
            if tokens[:_WORTH] == prompt[:_WORTH] and (common := _common(tokens, prompt)) > best:
                best, found = common, state
        best = min(best, len(prompt) - 1)
        return (best, [(k[:, :, :best], v[:, :, :best]) for k, v in found]) if found and best >= _WORTH else (0, [])

    def clear(self) -> None:
        """Forget them all."""
        self._states.clear()


class Batch:
    """Rows of one model, each with as many tokens as `lengths` says; a call that fails leaves all as it was."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._torch: Any = import_module("torch")
        self._cache_class: Any = import_module("transformers").DynamicCache
        self._model = model
        self._state: State = []
        self.lengths: list[int] = []

    def read(self, prompt: list[int], begun: State, wanted: Callable[[], bool]) -> tuple[State, Any] | None:
        """The state after a prompt, whose beginning `begun` is read, and scores of the next token.

        None as soon as it is not wanted any more.
        """
        cache, scores = self._cache(begun), None
        at = int(begun[0][0].shape[2]) if begun else 0
        while at < len(prompt):
            if not wanted():
                return None
            scores = self._forward(cache, [prompt[at : at + _PIECE]])
            at += _PIECE
        return _state(cache), self._torch.as_tensor(scores)[0]

    def join(self, state: State) -> None:
        """Put a row beside the others."""
        length = int(state[0][0].shape[2])
        self._state = _beside(self._torch, self._state, state) if self._state else state
        self.lengths.append(length)

    def step(self, tokens: list[int]) -> Any:  # noqa: ANN401
        """Write one token in each row. Scores of the next ones: a tensor of (rows, vocabulary)."""
        torch, device = self._torch, self._model.device
        lengths = torch.tensor(self.lengths, device=device)
        longest = max(self.lengths) + 1
        padding = {}
        if min(self.lengths) + 1 < longest:
            padding["attention_mask"] = (
                torch.arange(longest, device=device)[None] >= (longest - 1 - lengths)[:, None]
            ).long()
        cache = self._cache(self._state)
        scores = self._forward(cache, [[token] for token in tokens], position_ids=lengths[:, None], **padding)
        self._state = _state(cache)
        self.lengths = [length + 1 for length in self.lengths]
        return scores

    def row(self, row: int) -> State:
        """The state of one row, as a copy without padding."""
        length = self.lengths[row]
        return [(k[row : row + 1, :, -length:].clone(), v[row : row + 1, :, -length:].clone()) for k, v in self._state]

    def leave(self, rows: set[int]) -> None:
        """Take rows out, and the padding that only they needed."""
        stay = [row for row in range(len(self.lengths)) if row not in rows]
        self.lengths = [self.lengths[row] for row in stay]
        longest = max(self.lengths, default=0)
        self._state = [(k[stay, :, -longest:], v[stay, :, -longest:]) for k, v in self._state] if stay else []

    def _cache(self, state: State) -> Any:  # noqa: ANN401
        """A cache of plain layers, sliding ones too: those that forget cannot be put side by side."""
        cache = self._cache_class()
        for layer, (keys, values) in enumerate(state):
            cache.update(keys[:, :, :0], values[:, :, :0], layer)
            cache.layers[layer].keys, cache.layers[layer].values = keys, values
        return cache

    def _forward(self, cache: Any, tokens: list[list[int]], **more: Any) -> Any:  # noqa: ANN401
        ids = self._torch.tensor(tokens, device=self._model.device)
        with self._torch.inference_mode():
            return self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **more).logits[:, -1]


def _state(cache: Any) -> State:  # noqa: ANN401
    return [(layer.keys, layer.values) for layer in cache.layers]


def _beside(torch: Any, state: State, other: State) -> State:  # noqa: ANN401
    """Rows below rows, all padded on the left to the longest."""
    longest = max(int(state[0][0].shape[2]), int(other[0][0].shape[2]))

    def padded(tensor: Any) -> Any:  # noqa: ANN401
        return torch.nn.functional.pad(tensor, (0, 0, longest - tensor.shape[2], 0))

    pairs = zip(state, other, strict=True)
    return [(torch.cat([padded(a), padded(c)]), torch.cat([padded(b), padded(d)])) for (a, b), (c, d) in pairs]


def _common(one: list[int], other: list[int]) -> int:
    """Tokens that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


class Writing:
    """Written token by token with `take`; done once `reason` says why. `ends` are the tokens that end a turn."""

    def __init__(self, prepared: TokenizedRequest, text: ModelTokenizer, ends: tuple[int, ...]) -> None:
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
