"""Decoding: the next token of a request picked by the model's scores, and the keys and values of a running batch.

The scores are taken as they are, at the request's temperature: top_p, top_k and repetition penalties of the
checkpoint's generation_config are not applied. A prompt is read alone, without padding, so its first token depends on
no other request; rows of a batch are padded on the left. A row's keys and values can be kept for a prompt that begins
with the same tokens.
"""

from __future__ import annotations

import inspect
import random
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rankr1_rag.backends.local_model import before_stop
from rankr1_rag.backends.transformers.model import ModelTokenizer, TokenizedRequest
from rankr1_rag.types import Completion, TokenLogprob

State = list[tuple[Any, Any]]
"""Keys and values of each layer, tensors of (rows, heads, tokens, size)."""

_PIECE = 512
"""Tokens of a prompt that are read at once: the most that a cancelled one costs, and a bound of the memory."""

_SHORTEST = 16
"""Tokens that two prompts must begin with in common to be compared further."""


class PrefixCache:
    """The states of the last few prompts with their completions, by their tokens."""

    def __init__(self, size: int) -> None:
        self._states: deque[tuple[list[int], State]] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._states)

    def add(self, tokens: list[int], state: State) -> None:
        """Keep one, in place of the oldest. The state may lack the last few tokens."""
        self._states.append((tokens[: state[0][0].shape[2]], state))

    def find(self, prompt: list[int]) -> tuple[int, State]:
        """How many tokens of this prompt need not be read, at least one less than all, and the state after them."""
        length, found = 0, None
        for tokens, state in self._states:
            if tokens[:_SHORTEST] == prompt[:_SHORTEST]:
                pairs = enumerate(zip(tokens, prompt, strict=False))
                common = next((at for at, (a, b) in pairs if a != b), min(len(tokens), len(prompt)))
                if common > length:
                    length, found = common, state
        length = min(length, len(prompt) - 1)
        if found is None or length < _SHORTEST:
            return 0, []
        return length, [(keys[:, :, :length], values[:, :, :length]) for keys, values in found]

    def clear(self) -> None:
        """Forget them all."""
        self._states.clear()


class RunningBatch:
    """Rows of one model, each with its number of tokens in `lengths`. A call that fails leaves all as it was."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._torch: Any = import_module("torch")
        self._cache_class: Any = import_module("transformers").DynamicCache
        self._model = model
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"  # transformers before 5.24
        self._state: State = []
        self.lengths: list[int] = []

    def read(self, prompt: list[int], begun: State, is_wanted: Callable[[], bool]) -> tuple[State, Any] | None:
        """The state after a prompt, whose beginning `begun` was read, and scores of the next token.

        None as soon as it is not wanted any more.
        """
        cache, scores = self._cache(begun), None
        at = int(begun[0][0].shape[2]) if begun else 0
        while at < len(prompt):
            if not is_wanted():
                return None
            scores = self._forward(cache, [prompt[at : at + _PIECE]])
            at += _PIECE
        return [(layer.keys, layer.values) for layer in cache.layers], self._torch.as_tensor(scores)[0]

    def join(self, state: State) -> None:
        """Add a row below the others, all padded on the left to the longest."""
        length = int(state[0][0].shape[2])
        if self._state:
            pad = self._torch.nn.functional.pad
            longest = max(int(self._state[0][0].shape[2]), length)
            joined = []
            for layers in zip(self._state, state, strict=True):
                # Keys above keys, values above values.
                padded = [[pad(one, (0, 0, longest - one.shape[2], 0)) for one in pair] for pair in layers]
                keys, values = (self._torch.cat(tensors) for tensors in zip(*padded, strict=True))
                joined.append((keys, values))
            state = joined
        self._state = state
        self.lengths.append(length)

    def step(self, tokens: list[int]) -> Any:  # noqa: ANN401
        """Append one token to each row. Scores of the next ones: a tensor of (rows, vocabulary)."""
        torch, device = self._torch, self._model.device
        lengths = torch.tensor(self.lengths, device=device)
        longest = max(self.lengths) + 1
        padding = {}
        if min(self.lengths) + 1 < longest:
            columns = torch.arange(longest, device=device)[None]
            padding["attention_mask"] = (columns >= (longest - 1 - lengths)[:, None]).long()
        cache = self._cache(self._state)
        scores = self._forward(cache, [[token] for token in tokens], position_ids=lengths[:, None], **padding)
        self._state = [(layer.keys, layer.values) for layer in cache.layers]
        self.lengths = [length + 1 for length in self.lengths]
        return scores

    def row(self, row: int) -> State:
        """The state of one row, as a copy without padding."""
        length = self.lengths[row]
        return [(k[row : row + 1, :, -length:].clone(), v[row : row + 1, :, -length:].clone()) for k, v in self._state]

    def leave(self, rows: set[int]) -> None:
        """Remove rows, and the padding that only they needed."""
        stay = [row for row in range(len(self.lengths)) if row not in rows]
        self.lengths = [self.lengths[row] for row in stay]
        longest = max(self.lengths, default=0)
        self._state = [(k[stay, :, -longest:], v[stay, :, -longest:]) for k, v in self._state] if stay else []

    def _cache(self, state: State) -> Any:  # noqa: ANN401
        """A cache of plain layers, in place of sliding ones too: those that forget cannot be put side by side."""
        cache = self._cache_class()
        for layer, (keys, values) in enumerate(state):
            cache.update(keys[:, :, :0], values[:, :, :0], layer)
            cache.layers[layer].keys, cache.layers[layer].values = keys, values
        return cache

    def _forward(self, cache: Any, tokens: list[list[int]], **arguments: Any) -> Any:  # noqa: ANN401
        ids = self._torch.tensor(tokens, device=self._model.device)
        arguments |= {self._cache_name: cache, "use_cache": True, "logits_to_keep": 1}
        with self._torch.inference_mode():
            return self._model(ids, **arguments).logits[:, -1]


class Decoding:
    """A completion that grows with each `take`, until `reason` is its finish reason. `ends` are tokens that end a turn.

    `cached` is the number of prompt tokens that were not read again.
    """

    def __init__(self, tokenized: TokenizedRequest, tokenizer: ModelTokenizer, ends: tuple[int, ...]) -> None:
        self.prompt = tokenized.prompt
        self.tokens: list[int] = []
        self.reason = ""
        self.cached = 0
        self._request = tokenized.request
        self._most = tokenized.most
        self._choices = tokenized.choices
        self._opened = tokenized.opened
        self._tokenizer = tokenizer
        self._ends = ends
        self._logprobs: list[TokenLogprob] = []
        self._random = random.Random(f"{self._request.seed}/{self._request.sample}")
        self._check_end()

    @property
    def is_plain(self) -> bool:
        """Whether it needs only the token with the best score."""
        return not (self._choices or self._request.logprobs or self._request.temperature > 0)

    def take(self, scores: Any) -> None:  # noqa: ANN401
        """Pick the next token by the scores of all, a tensor of one dimension, or take the one that is an int."""
        self._append(scores if isinstance(scores, int) else self._pick(scores))
        self._check_end()

    def completion(self) -> Completion:
        """The choice as it is in the request, or the text up to the first stop string."""
        request, choices = self._request, self._choices
        text = before_stop(self._tokenizer.decode(self.tokens), request.stop) if choices is None else choices.whole
        return Completion(
            text=self._opened + (text or ""),
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
            completion_tokens=len(self.tokens),
            finish_reason=self.reason,
            logprobs=tuple(self._logprobs) if request.logprobs else None,
        )

    def _pick(self, scores: Any) -> int:  # noqa: ANN401
        torch: Any = import_module("torch")
        allowed = None
        if self._choices is not None:
            # Tokens that continue a choice, or end one that is whole while another continues.
            allowed = [*self._choices.next, *(self._ends[:1] if self._choices.whole is not None else ())]
            scores = scores[torch.tensor(allowed, device=scores.device)]
        scores = scores.float().cpu().double()
        at = int(scores.argmax())
        if self._request.temperature > 0:
            sums = ((scores - scores.max()) / self._request.temperature).exp().cumsum(0)
            drawn = torch.searchsorted(sums, self._random.random() * sums[-1], right=True)
            at = min(int(drawn), len(sums) - 1)
        if self._request.logprobs:  # at temperature 1, over all that is allowed
            logprobs = scores.log_softmax(0)
            values, places = torch.topk(logprobs, min(self._request.logprobs, len(logprobs)))
            ids = [allowed[place] if allowed else place for place in (at, *places.tolist())]
            chosen, *texts = map(self._tokenizer.token, ids)
            top = tuple(zip(texts, values.tolist(), strict=True))
            self._logprobs.append(TokenLogprob(chosen, float(logprobs[at]), top))
        return allowed[at] if allowed else at

    def _append(self, token: int) -> None:
        self.tokens.append(token)
        if self._choices is not None and token in self._choices.next:
            self._choices = self._choices.next[token]
        elif token in self._ends or self._choices is not None:
            self.reason = "stop"

    def _check_end(self) -> None:
        if self.reason:
            return
        if self._choices is not None:
            for token in self._choices.only_rest() or []:  # it is certain, and needs no model
                self._append(token)
                if self._request.logprobs:
                    text = self._tokenizer.token(token)
                    self._logprobs.append(TokenLogprob(text, 0.0, ((text, 0.0),)))
            if not self._choices.next:
                self.reason = "stop"
        elif self._tokenizer.has_stopped(self.tokens, self._request.stop):
            self.reason = "stop"
        elif len(self.tokens) >= self._most:
            self.reason = "length"
