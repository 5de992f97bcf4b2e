"""Prompts by the chat template of a model, whatever it does to system turns, begun answers and reasoning."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rankr1_rag.errors import BackendError
from rankr1_rag.types import Message

_LOOKS_SPECIAL = re.compile(r"(?!</?[a-z]+[1-6]?>\Z)[<\[|\u25c1\uff5c].*[^\W\d].*[>\]|\u25b7\uff5c]")

ApplyTemplate = Callable[[list[dict[str, str]]], object]


class RenderedPrompt(NamedTuple):
    """The text of a prompt, and `<think>` where the template opens the reasoning: the completion begins with it."""

    text: str
    opened: str = ""


def is_raw(messages: Sequence[Message]) -> bool:
    """Whether the first message is the whole prompt: it needs no template, but the tokens that begin every text."""
    return bool(messages) and messages[0]["role"] == "raw"


def render_with(apply_template: ApplyTemplate, messages: Sequence[Message]) -> RenderedPrompt:
    """The prompt, by a function that ends its text with an opened turn of the assistant.

    A final assistant message is put behind that turn, as if the model had written it. With `continue_final_message` the
    template would render it first, and many change it: they strip its spaces or drop its reasoning. The text of a
    system turn that the template refuses or drops (Gemma, early Mistral) begins the user's turn; an empty one is none.
    A turn of the role "raw" is the whole prompt, without the template.
    """
    turns = [{key: utf8(value) for key, value in message.items()} for message in messages]
    turns = [turn for turn in turns if turn["role"] != "system" or turn["content"].strip()]
    begun = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else ""
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    try:
        prompt = turns[0]["content"] if is_raw(messages) else str(apply_template(turns))
        is_whole = all(text.strip() in prompt for text in system)
    except Exception:
        if not system:
            raise
        is_whole = False
    if not is_whole:
        others = [turn for turn in turns if turn["role"] != "system"]
        first = [others.pop(0)["content"]] if others and others[0]["role"] == "user" else []
        prompt = str(apply_template([{"role": "user", "content": "\n\n".join(system + first)}, *others]))
    opens_reasoning = prompt.rstrip().endswith("<think>")
    if not begun:
        return RenderedPrompt(prompt, "<think>" if opens_reasoning else "")
    return RenderedPrompt(prompt + (behind_think(begun) if opens_reasoning else begun))


def behind_think(begun: str) -> str:
    """A begun answer behind the `<think>` that a template has written: its reasoning, or an end of it."""
    if begun.startswith("<think>"):
        return begun.removeprefix("<think>")
    return begun if "</think>" in begun else f"\n</think>\n\n{begun}"


def render_prompt(tokenizer: Any, messages: Sequence[Message], name: str) -> RenderedPrompt:  # noqa: ANN401
    """The prompt, by a tokenizer of transformers.

    BackendError where the model called `name` has no template, or one that refuses these messages.
    """
    if not (tokenizer.chat_template or is_raw(messages)):
        raise BackendError(f"{name} has no chat template: an instruct or chat model is needed")
    try:
        return render_with(
            lambda turns: tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), messages
        )
    except Exception as error:  # templates raise what they like
        raise BackendError(f"the chat template of {name} refuses these messages: {error}") from error


def special_tokens(tokenizer: Any) -> frozenset[str]:  # noqa: ANN401
    """The texts that a tokenizer of transformers makes control tokens of."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return control_tokens((str(one), one.special) for one in added).union(tokenizer.all_special_tokens)


def control_tokens(added: Iterable[tuple[str, bool]]) -> frozenset[str]:
    """Of the tokens that were added to a vocabulary, with whether as special ones, those that are control tokens.

    Some models add theirs as ordinary ones: `<|fim_prefix|>` counts, `<td>` and white space do not.
    """
    return frozenset(text for text, is_special in added if is_special or _LOOKS_SPECIAL.fullmatch(text))


def utf8(text: str) -> str:
    """Replace lone surrogates, which tokenizers refuse, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
