"""What all local models do with text: the chat template, a begun answer, stop strings, and the check of the length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rankr1_rag.errors import BackendError, PromptTooLong
from rankr1_rag.types import Message


def render_with(apply_template: Callable[[list[dict[str, str]]], object], messages: Sequence[Message]) -> str:
    """The prompt, by a function that ends its text with an opened turn of the assistant.

    A final assistant message is put behind that turn, as if the model had written it. With `continue_final_message` the
    template would render it first, and many change it: they strip its spaces or drop its reasoning.
    """
    turns = [{key: utf8(value) for key, value in message.items()} for message in messages]
    begun = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else ""
    return f"{apply_template(turns)}{begun}"


def render_prompt(tokenizer: Any, messages: Sequence[Message], name: str) -> str:  # noqa: ANN401  # no types there
    """The prompt, by a tokenizer of transformers.

    BackendError where the model called `name` has no template, or one that refuses these messages.
    """
    if not tokenizer.chat_template:
        raise BackendError(f"{name} has no chat template: an instruct or chat model is needed")
    try:
        return render_with(
            lambda turns: tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), messages
        )
    except Exception as error:  # templates raise what they like
        raise BackendError(f"the chat template of {name} refuses these messages: {error}") from error


def utf8(text: str) -> str:
    """Replace lone surrogates, which tokenizers refuse, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def check_length(prompt_tokens: int, max_tokens: int, context: int | None) -> None:
    """PromptTooLong where prompt and completion together are longer than the context."""
    if context is not None and prompt_tokens + max_tokens > context:
        raise PromptTooLong(
            f"a prompt of {prompt_tokens} tokens and a completion of up to {max_tokens} are longer than the context of "
            f"{context}: show fewer or shorter passages, or lower max_tokens"
        )
