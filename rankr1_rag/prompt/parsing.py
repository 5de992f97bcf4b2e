"""What a model wrote, taken apart: its thought, its last answer, the labels in it; kindly, or to the letter.

Labels are numbers here, as they were written. Knows nothing of formats, passages and models.
"""

from __future__ import annotations

import re

_TAG = re.compile("</?(?:think|answer)>", re.IGNORECASE)
_ANSWER_TAG = re.compile("<(/?)answer>", re.IGNORECASE)
_THINK_TAG = re.compile(r"<(/)think>|<think>(?:\s*+<think>)*+", re.IGNORECASE)  # a model may repeat the template's
_END_TAG = re.compile("</(?:answer|think)>", re.IGNORECASE)
_ANSWER_BEGUN = re.compile("<answer>", re.IGNORECASE)
_CUT_TAG = re.compile(r"</?[a-z]{0,6}\Z", re.IGNORECASE)
_LONGEST_CUT_TAG = 8
_GROUP = re.compile(r"\[([^\[\]]*+)\]")
_DIGIT = re.compile(r"\d")
_LABEL = re.compile(r"\s*+([0-9]{1,4})\s*+")
_EXACT_LABEL = re.compile(r"\[([1-9][0-9]{0,3})\]")
_EXACT_ANSWER = re.compile(rf"<answer>({_EXACT_LABEL.pattern}(?: > {_EXACT_LABEL.pattern})*+)</answer>")

_BEGUN_ANSWER = 48
"""Characters at the end of a thought in which `<answer>` begins an answer; further up it is only spoken of."""


def last_answer(text: str) -> tuple[int, str]:
    """Where the last whole answer of a text starts, and what stands in it; "" where there is none."""
    start: int | None = None
    answer = (0, "")
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            answer = start, text[start : tag.start()]
            start = None
    return answer


def labels(answer: str) -> list[int]:
    """Every number in brackets, 0 for one that cannot be a label ("-1", "3.5", "1, 2")."""
    groups = [group for group in _GROUP.findall(answer) if _DIGIT.search(group)]
    return [int(label[1]) if (label := _LABEL.fullmatch(group)) else 0 for group in groups]


def label_at(text: str) -> int:
    """Where the first number in brackets of the last answer starts; for a text that has one."""
    start, answer = last_answer(text)
    return start + next(group for group in _GROUP.finditer(answer) if _DIGIT.search(group[1])).start(1)


def exact_labels(text: str, *, reasoning: bool) -> list[int] | None:
    """The labels of a text that is a thought (with `reasoning`), one answer and nothing else; None for any other."""
    text = text.strip()
    if reasoning:
        opened, closed, text = text.partition("</think>")
        if not (closed and opened.startswith("<think>")) or _TAG.search(opened, len("<think>")):
            return None
        text = text.lstrip()
    answer = _EXACT_ANSWER.fullmatch(text)
    return [int(label) for label in _EXACT_LABEL.findall(answer[1])] if answer else None


def ends_in_reasoning(text: str) -> bool:
    """Whether a text ends inside its thought: more `<think>` than `</think>`."""
    return sum(-1 if tag[1] else 1 for tag in _THINK_TAG.finditer(text)) > 0


def has_reasoning_tag(text: str) -> bool:
    """Whether a text opens or ends a thought."""
    return _THINK_TAG.search(text) is not None


def reasoning_span(text: str) -> tuple[int, int]:
    """Where the reasoning of a text starts and ends."""
    start, end, depth = 0, None, 0
    for tag in _THINK_TAG.finditer(text):
        if tag[1]:
            end, depth = tag.start(), depth - 1
        else:
            start, depth = (start if depth else tag.end()), depth + 1
        if depth <= 0:
            break
    if end is None:
        begun = _ANSWER_BEGUN.search(text, start)
        end = begun.start() if begun else len(text)
    return start, end


def without_begun_answer(text: str, *, in_reasoning: bool) -> str:
    """The text up to an answer, or a tag, that it begins and does not end; `in_reasoning` only near its end."""
    start = max((tag.end() for tag in _END_TAG.finditer(text)), default=0)
    if in_reasoning:
        start = max(start, len(text) - _BEGUN_ANSWER)
    begun = _ANSWER_BEGUN.search(text, start)
    text = text[: begun.start()].rstrip() if begun else text
    cut = _CUT_TAG.search(text, max(0, len(text) - _LONGEST_CUT_TAG))
    return (text[: cut.start()] if cut else text).rstrip()
