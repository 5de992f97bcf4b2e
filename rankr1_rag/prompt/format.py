"""A prompt format as one frozen value: how a set is shown, how an answer is read and how an answer is forced.

Labels `[1]`..`[n]` exist here and nowhere else: `parse` returns places in the shown order, counted from 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rankr1_rag.prompt.texts import Special, sanitise, sanitise_reply
from rankr1_rag.types import Message, Passage

_SLOT = re.compile(r"\{(docs|query|known|instruction|n)\}")
_TAG = re.compile("</?(?:think|answer)>", re.IGNORECASE)
_ANSWER_TAG = re.compile("<(/?)answer>", re.IGNORECASE)
_REASONING_TAGS = {  # a model may repeat the template's
    tag: re.compile(rf"<(/){tag}>|<{tag}>(?:\s*+<{tag}>)*+", re.IGNORECASE) for tag in ("think", "reason")
}
_END_TAG = re.compile("</(?:answer|think)>", re.IGNORECASE)
_ANSWER_BEGUN = re.compile("<answer>", re.IGNORECASE)
_CUT_TAG = re.compile(r"</?[a-z]{0,6}\Z", re.IGNORECASE)
_LONGEST_CUT_TAG = 8
_GROUP = re.compile(r"\[([^\[\]]*+)\]")
_DIGIT = re.compile(r"\d")
_LABEL = re.compile(r"\s*+([0-9]{1,4})\s*+")
_EXACT_LABEL = re.compile(r"\[([1-9][0-9]{0,3})\]")
_EXACT_ANSWER = re.compile(rf"<answer>({_EXACT_LABEL.pattern}(?: > {_EXACT_LABEL.pattern})*+)</answer>")
_EXAMPLE = re.compile(r"<answer>[^<]*+(?<=\])</answer>")
_NEAR_EXAMPLE = 80
_NUMBER = re.compile(r"\d+")
_BARE = re.compile(r"\s*+(?:<answer>)?\s*+\[?\s*+([0-9]{1,4})\s*+\]?\s*+(?:</answer>)?\s*+\.?\s*+", re.IGNORECASE)
"""A label and nothing else, with or without brackets and tags."""

_BEGUN_ANSWER = 48
"""Characters at the end of the reasoning in which `<answer>` begins an answer; before them it is only a mention."""

_ASK_SETWISE = (
    "Your time to think is over. Give only the label of the most relevant document, enclosed in square brackets, "
    "within the answer tags, for example <answer>[3]</answer>."
)
_ASK_LISTWISE = (
    "Your time to think is over. Give only the labels of all documents, the most relevant first, within the answer "
    "tags, for example <answer>[2] > [1] > [3]</answer>."
)
_ASK_AGAIN = "Your time to think is over. Give only the answer, in the form that was asked for."


@dataclass(frozen=True, slots=True)
class Forced:
    """Messages that force an answer from a model that gave none.

    `text` comes before the model's new words (if it can continue, `messages` end with it); `opened` is the part of it
    that belongs to the answer. `choices` are all valid completions ("3]</answer>"), empty if they are too many to list;
    `max_tokens` is enough for any of them.
    """

    messages: list[Message]
    text: str
    choices: tuple[str, ...]
    max_tokens: int
    opened: str = ""

    def meant(self, text: str) -> str:
        """The completion; for a bare label ("2", "[2]."), written without constraint, the whole choice."""
        if not (bare := _BARE.fullmatch(text)):
            return text
        return next((one for one in self.choices if _NUMBER.findall(one) == [bare[1].lstrip("0")]), text)

    def after(self, begun: str) -> Forced:
        """The same for a model that can continue, with the beginning of some choices written already."""
        last = {**self.messages[-1], "content": self.messages[-1]["content"] + begun}
        rest = tuple(choice[len(begun) :] for choice in self.choices if choice.startswith(begun))
        return replace(self, messages=[*self.messages[:-1], last], choices=rest)


_blanked: Callable[[re.Match[str]], str] = lambda found: " " * len(found[0])  # noqa: E731


@dataclass(frozen=True)
class Format:
    """One prompt format. `kind` is the kind of its answers: "setwise", "listwise" or "scored".

    They are one label, all labels, best first, or a number from 0 to 1 for each passage.

    `user` holds `{docs}` once and `{query}` once or twice; `prefix` holds `{num}`, counted from 1; `suffix`, behind
    each passage, may hold it again; passages are joined by `separator`; `{n}` is their number. `reasoning`: whether the
    model is asked to reason; `bridge`: the text between reasoning and answer.

    Each known passage is shown as `known`, which holds `{line}`: all of them in place of `{known}` in `user`, before
    the passages, or behind the query if `user` has no such place.

    An instruction is shown as `instruction`, which holds `{line}`, in place of `{instruction}` in `user`, or behind the
    query if `user` has no such place; `no_instruction` is shown there if there is none.

    The rest is for formats of other models:
    `max_passages` is the most passages of a prompt; a format for one needs no `{num}`.
    `opening`: pairs of a role and a text, turns before that of `user`; they hold slots, too.
    `reply`: each passage has a turn, and the model answers it with this text; then there is no `{docs}`.
    `prefill`: the beginning of the model's turn. `raw`: the user text is the whole prompt, without a chat template.
    `tag`: the name of the tags of reasoning. `forced_prefix`: the beginning of an answer that is forced.
    `passage_text` makes the text that is shown of a title and a text, `query_text` that of a query; then they are
    sanitised.
    `read_labels` reads the labels of an answer to n passages, best first, with their scores if there are any.
    `choices`: the score is the probability of the first of these two answers, measured against the second.
    """

    name: str
    kind: Literal["setwise", "listwise", "scored"]
    system: str
    user: str
    prefix: str
    separator: str
    reasoning: bool
    bridge: str
    known: str = " (already known: {line})"
    instruction: str = "\nInstruction: {line}"
    no_instruction: str = ""
    suffix: str = ""
    max_passages: int = 20
    opening: tuple[tuple[str, str], ...] = ()
    reply: str = ""
    prefill: str = ""
    raw: bool = False
    tag: Literal["think", "reason"] = "think"
    forced_prefix: str = "<answer>["
    passage_text: Callable[[str, str], str] | None = None
    query_text: Callable[[str], str] | None = None
    read_labels: Callable[[str, int], Mapping[int, float]] | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.user.count("{docs}") != (not self.reply):
            raise ValueError(f"format {self.name!r}: the user text must hold {{docs}} exactly once, or none with reply")
        if sum(text.count("{query}") for text in (self.user, *[text for _, text in self.opening])) not in (1, 2):
            raise ValueError(f"format {self.name!r}: the user text must hold {{query}} once or twice")
        if self.user.count("{known}") > 1 or "{known}" in self.user.partition("{docs}")[2]:
            raise ValueError(f"format {self.name!r}: the user text may hold {{known}} once, before {{docs}}")
        if self.known.count("{line}") != 1:
            raise ValueError(f"format {self.name!r}: the text of a known passage must hold {{line}} exactly once")
        if self.instruction.count("{line}") != 1:
            raise ValueError(f"format {self.name!r}: the text of an instruction must hold {{line}} exactly once")
        if "{num}" not in self.prefix and self.max_passages > 1:
            raise ValueError(f"format {self.name!r}: the prefix {self.prefix!r} must hold {{num}}")

    @property
    def known_times(self) -> int:
        """How often a known passage is shown in one prompt: with every query, if it has no place of its own."""
        if "{known}" in self.user:
            return 1
        return sum(text.count("{query}") for text in (self.user, *[text for _, text in self.opening]))

    def render(
        self, query: str, passages: Sequence[Passage], known: Sequence[Passage] = (), instruction: str = ""
    ) -> list[Message]:
        """The messages that show a query, an instruction, the known passages and 1..n to choose from, sanitised."""
        lines, context = ([self.line(passage) for passage in some] for some in (passages, known))
        asked = sanitise(self.query_text(query) if self.query_text else query)
        return self.messages(asked, lines, context, sanitise(instruction))

    def line(self, passage: Passage, special: Special = None) -> str:
        """A passage as it is shown, sanitised and without its label: `title text`; `special` as in `sanitise`."""
        if self.passage_text is not None:
            return sanitise(self.passage_text(passage.title, passage.text), special)
        shown = f"{passage.title} {passage.text}".strip() if passage.title else passage.text.strip()
        if "[" not in shown and shown.isascii() and sanitise(shown, special) is shown:
            return shown  # as most are
        text = sanitise(passage.text, special)
        if not passage.title:
            return text.strip()
        return sanitise(f"{sanitise(passage.title, special)} {text}".strip(), special)

    def messages(
        self, query: str, lines: Sequence[str], known: Sequence[str] = (), instruction: str = ""
    ) -> list[Message]:
        """`render` for sanitised texts: the engine sanitises and clips each passage once a query."""
        context = "".join([self.known.replace("{line}", line) for line in known])
        wish = self.instruction.replace("{line}", instruction) if instruction else self.no_instruction
        heads, parts, _ = self._parts
        if len(lines) > len(heads):
            heads = tuple(self.prefix.replace("{num}", str(label)) for label in range(1, len(lines) + 1))
        docs = [head + line for head, line in zip(heads, lines, strict=False)]
        if self.suffix:
            docs = [doc + self.suffix.replace("{num}", str(label)) for label, doc in enumerate(docs, 1)]
        asked = query + ("" if "instruction" in parts else wish) + ("" if "known" in parts else context)
        values = {"docs": self.separator.join(docs), "query": asked, "known": context, "n": str(len(lines))}
        values["instruction"] = wish
        shown = "".join([values[part] if place % 2 else part for place, part in enumerate(parts)])
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        last: Message = {"role": "raw" if self.raw else "user", "content": shown}
        if not (self.opening or self.reply or self.prefill):
            return [*system, last]
        for role, text in self.opening:
            whole = "".join([values[part] if place % 2 else part for place, part in enumerate(_SLOT.split(text))])
            system.append({"role": role, "content": whole})
        for label, doc in enumerate(docs if self.reply else (), 1):
            reply = self.reply.replace("{num}", str(label))
            system += [{"role": "user", "content": doc}, {"role": "assistant", "content": reply}]
        return [*system, last, *([{"role": "assistant", "content": self.prefill}] if self.prefill else [])]

    def answer_tokens(self, n: int) -> int:
        """Enough tokens for the answer of n passages, tags included."""
        if self.kind == "scored" and not self.choices:
            return 48 + 12 * n
        return 16 + 6 * n if self.kind == "listwise" else 16

    def parse(self, text: str, n: int) -> tuple[int, ...] | None:
        """The places named by the last `<answer>…</answer>` that is not the prompt's example, counted from 0, or None.

        Setwise: exactly one label, 1..n; anything else, such as a second number in brackets, is None. Listwise: all n
        places, best first; labels that are repeated or out of range are dropped, missing ones appended in shown order;
        None if there is no label of 1..n. Scored: all n places, the highest score first, those without one last.
        """
        if self.kind == "scored":
            if (scores := self.scores(text, n)) is None:
                return None
            return tuple(sorted(range(n), key=[1 if one is None else -one for one in scores].__getitem__))
        if self.read_labels is not None:
            return self._places([*self.read_labels(text, n)], n)
        groups = [
            group
            for group in _GROUP.findall(last_answer(self._parts[2].sub(_blanked, text))[1])
            if _DIGIT.search(group)
        ]
        # 0 for a number that cannot be a label ("-1", "3.5", "1, 2")
        labels = [int(label[1]) if (label := _LABEL.fullmatch(group)) else 0 for group in groups]
        return self._places(labels, n)

    def scores(self, text: str, n: int) -> tuple[float | None, ...] | None:
        """The score of each place in a scored answer, None for one that it leaves out; None if it gives none."""
        found = {} if self.read_labels is None else self.read_labels(text, n)
        return tuple([found.get(label) for label in range(1, n + 1)]) if found.keys() & {*range(1, n + 1)} else None

    def lenient(self, text: str, n: int) -> tuple[int, ...] | None:
        """The places that a text without the form that `parse` reads names after its reasoning, or None.

        Setwise: one label, as often as it likes; two different labels are no answer, nor is a number in a sentence
        about something else: see `prompt.answers`. Listwise: one label, or labels in an order and no other.
        None for a scored format.
        """
        if self.kind == "scored":
            return None
        from rankr1_rag.prompt.answers import lenient_labels  # here: its patterns take a while to compile

        in_reasoning, listwise = self.is_reasoning(text), self.kind == "listwise"
        return self._places(
            lenient_labels(self._parts[2].sub(_blanked, text), in_reasoning=in_reasoning, listwise=listwise), n
        )

    def _places(self, labels: Sequence[int], n: int) -> tuple[int, ...] | None:
        if self.kind == "setwise":
            return (labels[0] - 1,) if len(labels) == 1 and 1 <= labels[0] <= n else None
        named = dict.fromkeys(label - 1 for label in labels if 1 <= label <= n)
        return tuple(named | dict.fromkeys(range(n))) if named else None

    @cached_property
    def _parts(self) -> tuple[tuple[str, ...], list[str], re.Pattern[str]]:
        """The labels 1..20; the user text, by turns a text and the name of a slot; the examples of the prompt.

        An example is an answer, which a model may repeat, with its reasoning or else the words before it.
        """
        heads, parts = tuple(self.prefix.replace("{num}", str(label)) for label in range(1, 21)), _SLOT.split(self.user)
        examples = []
        for part in (self.system, *parts[::2], _ASK_SETWISE, _ASK_LISTWISE):
            for answer in _EXAMPLE.finditer(part):
                near = max(0, answer.start() - _NEAR_EXAMPLE)
                start = part.find("<think>", near, answer.start())
                words = part[near if start < 0 else start : answer.end()].split()
                examples.append(r"(?:[\s>]|\\n)+".join(map(re.escape, words)))
        return heads, parts, re.compile("|".join(examples), re.IGNORECASE)

    def strict(self, text: str, n: int) -> tuple[int, ...] | None:
        """The places that `parse` reads if the whole text has the exact form of the format, else None.

        The exact form is reasoning (with `reasoning`), then one answer, with white space around and between them; in
        the answer only the label or, listwise, the labels of all n with " > " between them. The training reward.
        None for a scored format.
        """
        text = text.strip()
        if self.reasoning:
            opened, closed, text = text.partition("</think>")
            if not (closed and opened.startswith("<think>")) or _TAG.search(opened, len("<think>")):
                return None
            text = text.lstrip()
        if (answer := _EXACT_ANSWER.fullmatch(text)) is None or self.kind == "scored":
            return None
        labels = [int(label) for label in _EXACT_LABEL.findall(answer[1])]
        fits = len(labels) == 1 and labels[0] <= n if self.kind == "setwise" else sorted(labels) == [*range(1, n + 1)]
        return tuple(label - 1 for label in labels) if fits else None

    def answer(self, place: int, reasoning: str | None = None) -> str:
        """The text with which a model picks the passage at this place, counted from 0; for a setwise format."""
        answer = f"<answer>[{place + 1}]</answer>"
        return answer if reasoning is None else f"<think> {reasoning} </think>{self.bridge}{answer}"

    def is_reasoning(self, text: str) -> bool:
        """Whether a transcript ends inside its reasoning: more `<think>` than `</think>`.

        Such a text holds no answer, whatever `parse` reads in it: reasoning may quote the example of the prompt.
        """
        return sum(-1 if tag[1] else 1 for tag in _REASONING_TAGS[self.tag].finditer(text)) > 0

    def reasoning_of(self, text: str) -> str:
        """The reasoning in a transcript, without its tags; "" if there is none."""
        start, end = reasoning_span(text, self.tag)
        return text[start:end].strip()

    def after_reasoning(self, text: str) -> str:
        """What follows the reasoning: the tag that ends it, and the answer."""
        return text[reasoning_span(text, self.tag)[1] :]

    def force(
        self, messages: Sequence[Message], text: str, n: int, special: Special = None, *, can_continue: bool
    ) -> Forced:
        """The request that forces a label from a model that wrote `text` without an answer.

        A model that can continue continues its own words: the reasoning is closed and the answer opened up to the
        bracket (`… </think> <answer>[`), which is how the label would have been tokenized. Another model is asked in a
        new user turn. In the messages its words are sanitised: it may have been made to spell a control token.

        With `choices` the reasoning ends with its tag, or else with its last whole sentence, and a choice follows.
        """
        tags, choices = _REASONING_TAGS[self.tag], self._choices(n)
        if self.choices:
            opened = _to_last_sentence(text, f"</{self.tag}>") if self.reasoning else ""
        else:
            untagged = self.reasoning and not tags.search(text)  # all of it is reasoning, without a tag so far
            text = without_begun_answer(text, in_reasoning=untagged or self.is_reasoning(text))
            if self.is_reasoning(text):
                text = f"{text} </{self.tag}>"
            elif self.reasoning and not tags.search(text):
                text = f"<{self.tag}>{text} </{self.tag}>"
            opened = f"{text}{self.bridge if text else ''}{self.forced_prefix}"
        if can_continue:
            before = messages[:-1] if self.prefill else messages
            said = self.prefill + sanitise_reply(opened, special)
            turn: list[Message] = [{"role": "assistant", "content": said}] if said else []
            answer = "" if self.choices else self.forced_prefix
            return Forced([*before, *turn], opened, choices, self.answer_tokens(n), answer)
        ask = _ASK_SETWISE if self.kind == "setwise" else _ASK_LISTWISE
        if self.kind == "scored" or "<answer>" not in self.forced_prefix:
            ask = _ASK_AGAIN
        said = sanitise_reply(text, special)
        turn = [{"role": "assistant", "content": said}, {"role": "user", "content": ask}]
        whole = tuple(f"<answer>[{choice}" for choice in choices)
        return Forced([*messages, *turn], text + self.bridge, whole, self.answer_tokens(n))

    def reopen(self, messages: Sequence[Message], text: str, n: int, special: Special = None) -> Forced:
        """The request that makes a model that can continue give its label again, from its place in `text`.

        For a setwise answer that `parse` reads. The words are sanitised as in `force`.
        """
        start, answer = last_answer(self._parts[2].sub(_blanked, text))
        label = next(group for group in _GROUP.finditer(answer) if _DIGIT.search(group[1]))
        opened = text[: start + label.start(1)]
        turn: list[Message] = [{"role": "assistant", "content": sanitise_reply(opened, special)}]
        return Forced([*messages, *turn], opened, self._choices(n), self.answer_tokens(n), "<answer>[")

    def _choices(self, n: int) -> tuple[str, ...]:
        """The texts that can follow an opened bracket, or the `choices`; none for a listwise answer."""
        return tuple(f"{label}]</answer>" for label in range(1, n + 1)) if self.kind == "setwise" else self.choices


def last_answer(text: str) -> tuple[int, str]:
    """The start and the content of the last complete answer of a text; "" if there is none."""
    start: int | None = None
    answer = (0, "")
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            answer = start, text[start : tag.start()]
            start = None
    return answer


def reasoning_span(text: str, tag: str = "think") -> tuple[int, int]:
    """The start and the end of the reasoning of a text; a label alone is an answer without any."""
    start, end, depth = 0, None, 0
    for found in _REASONING_TAGS[tag].finditer(text):
        if found[1]:
            end, depth = found.start(), depth - 1
        else:
            start, depth = (start if depth else found.end()), depth + 1
        if depth <= 0:
            break
    if end is None:
        begun = _ANSWER_BEGUN.search(text, start)
        end = begun.start() if begun else 0 if not start and _BARE.fullmatch(text) else len(text)
    return start, end


def without_begun_answer(text: str, *, in_reasoning: bool) -> str:
    """The text up to an unfinished answer or tag; with `in_reasoning` only if it is near the end."""
    start = max((tag.end() for tag in _END_TAG.finditer(text)), default=0)
    if in_reasoning:
        start = max(start, len(text) - _BEGUN_ANSWER)
    begun = _ANSWER_BEGUN.search(text, start)
    text = text[: begun.start()].rstrip() if begun else text
    cut = _CUT_TAG.search(text, max(0, len(text) - _LONGEST_CUT_TAG))
    return (text[: cut.start()] if cut else text).rstrip()


def _to_last_sentence(text: str, end: str) -> str:
    """Reasoning up to the tag that ends it; without one, its whole sentences on lines of their own, and the tag."""
    reasoning, ended, _ = text.partition(end)
    if ended:
        return reasoning + ended
    body = text.removeprefix("<think>")
    whole = body.rstrip()
    whole = whole[: max(map(whole.rfind, ".!?")) + 1] or whole
    return f"{text[: len(text) - len(body)]}\n{whole.strip()}\n{end}"
