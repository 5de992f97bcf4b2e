"""What the replies of other libraries' models tell, in the words of all of them: the tokens, and why the text ended.

Knows mappings and objects with fields, and how OpenAI, Anthropic, Google, Ollama and the frameworks around them call
things; imports none of them. What is not told is 0, and "stop".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rankr1_rag.types import Completion

_CUT_OFF = {"length", "max_tokens", "max_output_tokens", "model_length"}
_REASON = ("finish_reason", "stop_reason", "done_reason", "stopReason", "reason")
_INSIDE = (
    *("choices", "candidates", "incomplete_details", "usage", "usage_metadata", "token_usage"),
    *("prompt_tokens_details", "input_tokens_details", "input_token_details"),
)
_PROMPT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_CACHED = ("cached_tokens", "cache_read", "cache_read_input_tokens", "cached_content_token_count")
_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")
"""Parts of the prompt that Anthropic counts beside its `input_tokens`, as nobody else does."""
_COMPLETION = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
_DEPTH = 4


def completion(text: str | None, thought: str, *told: object) -> Completion:
    """The completion of a reply: its text, its thought where that is had apart, and whatever objects tell of it.

    The first that tells a thing counts. A thought that was cut off before any text stays open.
    """
    places = [place for one in told for place in _places(one)]
    reason = _first(places, _REASON)
    reason = getattr(reason, "name", reason)
    cut = isinstance(reason, str) and reason.lower() in _CUT_OFF
    text = text or ""
    if thought:
        text = f"<think>{thought}" if cut and not text else f"<think>{thought}</think>{text}"
    return Completion(
        text=text,
        prompt_tokens=_number(places, _PROMPT, _BESIDE),
        cached_tokens=_number(places, _CACHED),
        completion_tokens=_number(places, _COMPLETION),
        finish_reason="length" if cut else "stop",
    )


def _places(one: object, depth: int = _DEPTH) -> Iterator[Mapping[str, Any]]:
    """An object's fields, and those of the objects in it where replies keep such things."""
    fields = one if isinstance(one, Mapping) else getattr(one, "__dict__", {})
    yield fields
    for inner in (fields.get(name) for name in _INSIDE if depth):
        yield from _places(inner[0] if isinstance(inner, list) and inner else inner, depth - 1)


def _first(places: list[Mapping[str, Any]], names: tuple[str, ...]) -> object:
    return next((place[name] for place in places for name in names if place.get(name) is not None), None)


def _number(places: list[Mapping[str, Any]], names: tuple[str, ...], beside: tuple[str, ...] = ()) -> int:
    """The first of these that is told, with what stands beside it."""
    for place in places:
        for name in names:
            if isinstance(number := place.get(name), int):
                others = (place.get(other) for other in beside if name == "input_tokens")
                return number + sum(other for other in others if isinstance(other, int))
    return 0
