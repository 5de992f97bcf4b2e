"""A prompt format as one frozen value: how a set is shown, how an answer is read, how an answer is had for certain.

Labels `[1]`..`[n]` exist here and nowhere else: what comes out of `parse` are places in the shown order, counted from
0. Knows nothing of algorithms, models and backends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rankr1_rag.prompt import parsing
from rankr1_rag.prompt.sanitizing import sanitise
from rankr1_rag.types import Message, Passage

_NUMBER = re.compile(r"\d+")
_BARE = re.compile(r"\s*+(?:<answer>)?\s*+\[?\s*+([0-9]{1,4})\s*+\]?\s*+(?:</answer>)?\s*+\.?\s*+", re.IGNORECASE)
"""A label and nothing else, whatever is missing around it."""

_ASK_SETWISE = (
    "Your time to think is over. Give only the label of the most relevant document, enclosed in square brackets, "
    "within the answer tags, for example <answer>[3]</answer>."
)
_ASK_LISTWISE = (
    "Your time to think is over. Give only the labels of all documents, the most relevant first, within the answer "
    "tags, for example <answer>[2] > [1] > [3]</answer>."
)


@dataclass(frozen=True, slots=True)
class Forced:
    """How to have an answer from a model that gave none: a continuation of the messages.

    `text` stands before what the model will write (already part of `messages` where it is continued), and `opened` is
    what of it belongs to the answer; `choices` are all the completions that make sense ("3]</answer>"), empty where
    they are too many to list; `max_tokens` is what they need.
    """

    messages: list[Message]
    text: str
    choices: tuple[str, ...]
    max_tokens: int
    opened: str = ""

    def meant(self, said: str) -> str:
        """What was said; of a bare label ("2", "[2]."), which nothing constrained, the whole choice."""
        if not (bare := _BARE.fullmatch(said)):
            return said
        return next((one for one in self.choices if _NUMBER.findall(one) == [bare[1].lstrip("0")]), said)


@dataclass(frozen=True)
class Format:
    """One prompt format. `kind` "setwise": the answer is one label; "listwise": all labels, best first.

    `user` holds `{docs}` once and `{query}` once or twice; `prefix` holds `{num}`, counted from 1; passages are joined
    by `separator`. `reasoning` says whether the model is asked to think; `bridge` is what the model writes between
    thought and answer.

    Passages that are known already are each shown as `known`, which holds `{line}`: all of them where `user` holds
    `{known}`, before the passages, or, in a format that has no such place, behind the query.
    """

    name: str
    kind: Literal["setwise", "listwise"]
    system: str
    user: str
    prefix: str
    separator: str
    reasoning: bool
    bridge: str
    known: str = " (already known: {line})"

    def __post_init__(self) -> None:
        if self.user.count("{docs}") != 1:
            raise ValueError(f"format {self.name!r}: the user text must hold {{docs}} exactly once")
        if self.user.count("{query}") not in (1, 2):
            raise ValueError(f"format {self.name!r}: the user text must hold {{query}} once or twice")
        if self.user.count("{known}") > 1 or "{known}" in self.user.partition("{docs}")[2]:
            raise ValueError(f"format {self.name!r}: the user text may hold {{known}} once, before {{docs}}")
        if self.known.count("{line}") != 1:
            raise ValueError(f"format {self.name!r}: the text of a known passage must hold {{line}} exactly once")
        if "{num}" not in self.prefix:
            raise ValueError(f"format {self.name!r}: the prefix {self.prefix!r} must hold {{num}}")

    @property
    def known_times(self) -> int:
        """How often a known passage is shown in one prompt: with every query, where it has no place of its own."""
        return 1 if "{known}" in self.user else self.user.count("{query}")

    def render(self, query: str, passages: Sequence[Passage], known: Sequence[Passage] = ()) -> list[Message]:
        """The messages that show a query, the passages known already and 1..n to choose from, cleaned."""
        lines, context = ([self.line(passage) for passage in some] for some in (passages, known))
        return self.messages(sanitise(query), lines, context)

    def line(self, passage: Passage) -> str:
        """A passage as it is shown, cleaned and without its label: `title text`."""
        text = sanitise(passage.text)
        return sanitise(f"{sanitise(passage.title)} {text}".strip()) if passage.title else text.strip()

    def messages(self, query: str, lines: Sequence[str], known: Sequence[str] = ()) -> list[Message]:
        """`render` for texts that are clean already: the engine cleans and clips each passage once a query."""
        context = "".join([self.known.replace("{line}", line) for line in known])
        docs = self.separator.join([head + line for head, line in zip(self._heads(len(lines)), lines, strict=True)])
        before, between, after = self._user_parts
        if between is None:
            query, context = query + context, ""
        shown = f"{query.join(before)}{context}{query.join(between or [''])}{docs}{query.join(after)}"
        return [{"role": "system", "content": self.system}, {"role": "user", "content": shown}]

    def answer_tokens(self, n: int) -> int:
        """Enough tokens for the answer of n passages, tags included."""
        return 16 if self.kind == "setwise" else 16 + 6 * n

    def parse(self, text: str, n: int) -> tuple[int, ...] | None:
        """The places named by the last `<answer>…</answer>`, counted from 0, or None.

        Setwise: exactly one label, 1..n; anything else, as another number in brackets beside it, is None. Listwise:
        all n places, best first; labels that are repeated or out of range are dropped, missing ones appended in shown
        order; None where no label of 1..n stands.
        """
        labels = parsing.labels(parsing.last_answer(text)[1])
        if self.kind == "setwise":
            return (labels[0] - 1,) if len(labels) == 1 and 1 <= labels[0] <= n else None
        named = dict.fromkeys(label - 1 for label in labels if 1 <= label <= n)
        return tuple(named | dict.fromkeys(range(n))) if named else None

    def strict(self, text: str, n: int) -> tuple[int, ...] | None:
        """What `parse` reads, where the whole text has the form of the format; None for any other. The training reward.

        With `reasoning` a thought, then one answer, and nothing else but white space around and between them; in the
        answer nothing but the label or, listwise, the labels of all n, with " > " between them.
        """
        labels = parsing.exact_labels(text, reasoning=self.reasoning)
        if labels is None:
            return None
        fits = len(labels) == 1 and labels[0] <= n if self.kind == "setwise" else sorted(labels) == [*range(1, n + 1)]
        return tuple(label - 1 for label in labels) if fits else None

    def answer(self, place: int, reasoning: str | None = None) -> str:
        """What a model is to write that picks the passage at this place, counted from 0; for a setwise format."""
        answer = f"<answer>[{place + 1}]</answer>"
        return answer if reasoning is None else f"<think> {reasoning} </think>{self.bridge}{answer}"

    def is_reasoning(self, text: str) -> bool:
        """Whether a transcript ends inside its thought: more `<think>` than `</think>`.

        Such a text gives no answer yet, whatever `parse` reads in it: a thought may quote the example of the prompt.
        """
        return parsing.ends_in_reasoning(text)

    def reasoning_of(self, text: str) -> str:
        """The reasoning in a transcript, without its tags; "" where there is none."""
        start, end = parsing.reasoning_span(text)
        return text[start:end].strip()

    def after_reasoning(self, text: str) -> str:
        """What follows the reasoning: the tag that ends it, and the answer."""
        return text[parsing.reasoning_span(text)[1] :]

    def force(self, messages: Sequence[Message], text: str, n: int, *, can_continue: bool) -> Forced:
        """What to send so that a model that wrote `text` and gave no answer gives its label now.

        A model that can continue goes on from its own words: the thought is closed and the answer opened up to the
        bracket (`… </think> <answer>[`), which is how the label would have been tokenized. Another is asked in a new
        user turn.
        """
        in_reasoning = self.is_reasoning(text) or self._untagged(text)
        text = parsing.without_begun_answer(text, in_reasoning=in_reasoning)
        if self.is_reasoning(text):
            text = f"{text} </think>"
        elif self._untagged(text):
            text = f"<think>{text} </think>"
        opened = f"{text}{self.bridge if text else ''}<answer>["
        choices = self._choices(n)
        if can_continue:
            turn: list[Message] = [{"role": "assistant", "content": opened}]
            return Forced([*messages, *turn], opened, choices, self.answer_tokens(n), "<answer>[")
        ask = _ASK_SETWISE if self.kind == "setwise" else _ASK_LISTWISE
        turn = [{"role": "assistant", "content": text}, {"role": "user", "content": ask}]
        whole = tuple(f"<answer>[{choice}" for choice in choices)
        return Forced([*messages, *turn], text + self.bridge, whole, self.answer_tokens(n))

    def reopen(self, messages: Sequence[Message], text: str, n: int) -> Forced:
        """What to send so that a model that can continue gives its label again, from where its answer stands in `text`.

        For a setwise answer that `parse` reads.
        """
        opened = text[: parsing.label_at(text)]
        turn: list[Message] = [{"role": "assistant", "content": opened}]
        return Forced([*messages, *turn], opened, self._choices(n), self.answer_tokens(n), "<answer>[")

    def _choices(self, n: int) -> tuple[str, ...]:
        """What can follow an opened bracket; none for a listwise answer."""
        return tuple(f"{label}]</answer>" for label in range(1, n + 1)) if self.kind == "setwise" else ()

    def _untagged(self, text: str) -> bool:
        """Whether a text is all thought because a model that was asked to think set no tag yet."""
        return self.reasoning and not parsing.has_reasoning_tag(text)

    def _heads(self, n: int) -> tuple[str, ...]:
        heads = self._all_heads
        return heads[:n] if n <= len(heads) else tuple(self.prefix.replace("{num}", str(i)) for i in range(1, n + 1))

    @cached_property
    def _all_heads(self) -> tuple[str, ...]:
        return tuple(self.prefix.replace("{num}", str(label)) for label in range(1, 21))

    @cached_property
    def _user_parts(self) -> tuple[list[str], list[str] | None, list[str]]:
        """The user text before what is known, from there to the passages, and after them, in pieces to put it between.

        Without a place for what is known there is nothing in between.
        """
        before, _, after = self.user.partition("{docs}")
        before, known, between = before.partition("{known}")
        return before.split("{query}"), between.split("{query}") if known else None, after.split("{query}")
