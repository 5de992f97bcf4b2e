"""Requests as token ids, and token ids as text; choices as a tree of the tokens that may come next.

Knows the model's tokenizer and chat template; knows nothing of tensors, threads or batches. Control tokens such as
`<|im_end|>` inside a message become real ones, as with most runtimes: neutralise them before.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rankr1_rag.backends import Request
from rankr1_rag.backends.chat_template import before_stop, check_length, render_prompt, utf8
from rankr1_rag.backends.hub import Source
from rankr1_rag.errors import BackendError

_TAIL = 64
"""Characters of the prompt that can have a say in how the text after it is tokenized."""


@dataclass(slots=True)
class Choices:
    """What may be written from here on: a next token each, and a choice that is whole already."""

    next: dict[int, Choices] = field(default_factory=dict)
    whole: str | None = None

    def add(self, tokens: Sequence[int], choice: str) -> None:
        """One more way to go on; of two that are the same tokens the first counts."""
        node = self
        for token in tokens:
            node = node.next.setdefault(token, Choices())
        node.whole = choice if node.whole is None else node.whole

    def foregone(self) -> list[int] | None:
        """The tokens up to the end of the one choice that is left; None where there is more than one."""
        node, tokens = self, []
        while node.whole is None and len(node.next) == 1:
            ((token, node),) = node.next.items()
            tokens.append(token)
        return None if node.next else tokens


@dataclass(frozen=True, slots=True)
class TokenizedRequest:
    """A request ready to be computed: the tokens of its prompt, and the most that may follow."""

    request: Request
    prompt: list[int]
    most: int
    choices: Choices | None


class ModelTokenizer:
    """The tokenizer of one model, loaded at first use (some seconds, with the library), safe from any thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._loaded: Any = None

    def load(self) -> Any:  # noqa: ANN401  # transformers is not there to import its types from
        """The tokenizer of transformers. BackendError."""
        with self._lock:
            if self._loaded is None:
                self._loaded = _tokenizer(self._source)
            return self._loaded

    def count(self, text: str) -> int:
        """Tokens, exactly."""
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        """No BOS is added: chat templates write their own. Straight to the Rust tokenizer, which keeps no state."""
        ids: list[int] = self.load().backend_tokenizer.encode(utf8(text), add_special_tokens=False).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        """The text of these tokens, without control tokens."""
        return str(self.load().decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token(self, token: int) -> str:
        """One token as text, control tokens too."""
        return str(self.load().decode([token]))

    def prepare(self, request: Request, context: int | None) -> TokenizedRequest:
        """Render, tokenize and check the length: PromptTooLong."""
        prompt_text = render_prompt(self.load(), request.messages, self._source.name)
        prompt, most, choices = self.encode(prompt_text), request.max_tokens, None
        if request.choices:
            choices = Choices()
            for choice in request.choices:
                tokens = self._after(prompt_text[-_TAIL:], choice)
                choices.add(tokens, choice)
                most = max(most, len(tokens) + 1)
        check_length(len(prompt), most, context)
        return TokenizedRequest(request, prompt, most, choices)

    def _after(self, before: str, choice: str) -> list[int]:
        """The choice as it is tokenized behind this text; by itself, where its first token reaches into the text."""
        alone, together = self.encode(before), self.encode(before + choice)
        return together[len(alone) :] if together[: len(alone)] == alone else self.encode(choice)

    def stopped(self, tokens: list[int], stops: tuple[str, ...]) -> bool:
        """Whether a stop string has been written; asked at every token, so the end is looked at first."""
        if not stops:
            return False
        end = self.decode(tokens[-max(map(len, stops)) - 8 :])
        return any(stop in end for stop in stops) and any(stop in self.decode(tokens) for stop in stops)

    def before(self, tokens: list[int], stops: tuple[str, ...]) -> str:
        """The text up to the first stop string."""
        return before_stop(self.decode(tokens), stops)


def _tokenizer(source: Source) -> Any:  # noqa: ANN401
    auto: Any = import_module("transformers").AutoTokenizer
    source.file(source.main)  # tells what is missing better than transformers does
    try:
        tokenizer = auto.from_pretrained(source.place, revision=source.commit, trust_remote_code=False)
    except Exception as error:
        raise BackendError(f"transformers cannot load the tokenizer of {source.name}: {error}") from error
    rust = getattr(tokenizer, "backend_tokenizer", None)
    if rust is None:
        raise BackendError(f"{source.name} has no tokenizer.json: a model with a fast tokenizer is needed")
    rust.no_truncation()
    rust.no_padding()
    return tokenizer
