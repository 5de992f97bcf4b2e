"""Messages as one text, by the chat template of a tokenizer of transformers. Knows no model and no request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankr1_rag.errors import BackendError
from rankr1_rag.types import Message


def rendered(tokenizer: Any, messages: Sequence[Message], name: str) -> str:  # noqa: ANN401  # no types there
    """The prompt. A final assistant message stands behind the opened turn, as if the model had written it.

    With `continue_final_message` the template would render it first, and many change it: strip its spaces, drop its
    thought. BackendError where the model called `name` has no template, or one that refuses these messages.
    """
    turns = [{key: utf8(value) for key, value in message.items()} for message in messages]
    begun = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else ""
    if not tokenizer.chat_template:
        raise BackendError(f"{name} has no chat template: an instruct or chat model is needed")
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)) + begun
    except Exception as error:  # templates raise what they like
        raise BackendError(f"the chat template of {name} refuses these messages: {error}") from error


def utf8(text: str) -> str:
    """Lone surrogates, which tokenizers refuse, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
