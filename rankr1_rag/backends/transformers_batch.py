"""The keys and values of what is being written, side by side: prompts are read in, rows step together and leave.

A prompt is read alone, without padding, so what it says first depends on no company; rows of a batch are padded on the
left. A row's keys and values can be kept for a prompt that begins with the same tokens. Knows tensors; knows nothing of
text, requests or threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

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
