r"""Reads an answer in another form than that of a format: the one label that a text names after its reasoning.

| text after the reasoning | label |
|---|---|
| `[2]`, `2`, `**Answer:** [2]`, `\boxed{2}`, `<answer>2</answer>`, `<answer>[2]`, `The best is passage 2.` | 2 |
| `{"answer": 2, "confidence": 0.9}`, `Antwort: 2`, `答案是2。`, `\[2\]`, `<result>2</result>` | 2 |
| `[2] or [3]`, `[2], not 3`, `[2] is not relevant`, `I found 2 passages`, `2.5`, `2-4`, `[99]` of 20 | none |
"""

from __future__ import annotations

import json
import re
from contextlib import suppress

_ANSWER_BEGUN = re.compile("<answer>", re.IGNORECASE)
_ANSWER_TAG = re.compile("</?answer>", re.IGNORECASE)
_REASONING_END = re.compile(
    r"</think>|</(?:thinking|thought|reasoning|seed:think)>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
"""Also as Magistral, Kimi, Seed, gpt-oss and prompted models write it."""
_REASONING_BEGUN = re.compile(
    r"<(?:thinking|thought|reasoning|seed:think)>|\[THINK\]|◁think▷|<\|channel\|>analysis", re.IGNORECASE
)
_NAME = r"(?:passage|document|doc|label|option|candidate)\b"
_GAP = r"[\s#:*_`\"'(\\{]"
_MENTION = re.compile(
    rf"\[([^\[\]]*+)\]|(?:\b{_NAME}|文档|文件|段落){_GAP}{{0,4}}([0-9]{{1,4}})\b(?![.,:/\u2013-][0-9])", re.IGNORECASE
)
_LABEL = re.compile(
    rf"{_GAP}*+(?:(?:{_NAME}|id\b|no\b\.?|number\b|boxed|text){_GAP}*+)*+([0-9]{{1,4}})[\s*_`\"')\\}}]*+", re.IGNORECASE
)
_ORDER = re.compile(r"\[?[0-9]{1,4}\]?(?:\s*+[>,]\s*+\[?[0-9]{1,4}\]?)++")
_MARKER = re.compile(r"\banswer\b[\s\"'*_`]*+(?:is\b|:|=)", re.IGNORECASE)
_PLAIN = str.maketrans("\uff3b\uff3d\u3010\u3011" + "".join(map(chr, range(0xFF10, 0xFF1A))), "[][]0123456789")
_JSON = re.compile(r"(?:```\w*+)?[\s\[]*+(\{.*\})[\s\]]*+(?:```)?\s*+", re.DOTALL)
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_NO_SPACE = re.compile(rf"(?<=[{_IDEOGRAPH}])(?=[0-9])|(?<=[0-9])(?=[{_IDEOGRAPH}])")
_END = re.compile(r"</\w++>|\[/\w++\]|<\|[^<>|\n]*+\|>|\bno\b[. ]{0,2}(?=[0-9])", re.IGNORECASE)
_LONGEST = 10_000
"""Characters of an answer with its explanation."""
_NEAR = 40
"""Characters before and behind a label in which a word takes it back."""
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|nor|never|neither|except|unlike|without|(?<!at )least|nicht|kein\w*|weder|pas|не|no es)|"
    r"n['\u2019]t)\W++(?:\w++\W++){0,2}\Z|\b(?:ruled? out|reject\w*|exclude\w*|discard\w*)\W++\Z"
    r"|\bno (?:relevant )?\Z|(?:不|非(?!常))\w?\W{0,3}\Z",
    re.IGNORECASE,
)
_NOT_BEHIND = re.compile(
    r"\W*+(?:(?:\w++[^\w.!?]++){0,2}(?:not|never|cannot|neither|irrelevant|wrong|incorrect|(?<!at )least|off.topic|"
    r"fails|lacks|nicht|falsch|pas|не|\w+n['\u2019]t)\b|[不无無没沒])",
    re.IGNORECASE,
)
_ANOTHER = re.compile(
    rf"(?:\s*+(?:[,/&>]|or\b|and\b|to\b)\s*+|[ \t]++)(?:{_NAME}\s*+)?\[?\s*+([0-9]{{1,2}})\b", re.IGNORECASE
)
_NO_LABEL = re.compile(
    r"[-\u2212][0-9]|[0-9][.,:/][0-9]|[0-9]\s*+[%\u00b0$\u20ac]|[$\u20ac]\s*+[0-9]|\A\s*+[0-9]++[.)]\s*+\w"
)
_WORD = re.compile(r"[^\W_]+")
_ANSWER_WORD = re.compile(
    "a|answer|be|best|boxed|candidate|choice|choose|chosen|correct|doc|document|final|hence|i|id|index|is|it|label|most|"
    "my|number|one|option|output|passage|pick|query|relevant|result|select|selected|should|so|text|the|therefore|thus|"
    "to|winner|would|antwort|réponse|respuesta|risposta|resposta|antwoord|odpowiedź|cevap|svar|ответ|الإجابة|trả|lời|답변|정답|"
    "[最终終的正确確回答案应應该該选選择擇是为為相关關え文档件段落编編号號]+",
    re.IGNORECASE,
)
"""The words next to which a number without brackets is an answer."""


def lenient_labels(text: str, *, in_reasoning: bool, listwise: bool) -> list[int]:
    """The label that a text names after its reasoning, whatever its form; listwise the labels, if they are in an order.

    [] if there is none, or if two labels differ. With `in_reasoning`, for a text that ends inside its reasoning, only
    an `<answer>` counts.
    """
    *reasoning, tail = _REASONING_END.split(_NO_SPACE.sub(" ", text.translate(_PLAIN)))
    if (found := _JSON.fullmatch(_ANSWER_TAG.sub(" ", tail))) and len(tail) <= _LONGEST:
        with suppress(ValueError, RecursionError):
            values = {name: json.dumps(value) for name, value in json.loads(found[1]).items()}
            tail = "\n".join([values[name] for name in values if all(map(_ANSWER_WORD.fullmatch, _WORD.findall(name)))])
    before, *answers = _ANSWER_BEGUN.split(tail)
    in_reasoning = in_reasoning or bool(_REASONING_BEGUN.search(tail))
    if answers:
        tail = tail if reasoning else tail[len(before) :]
        answers = [_ANSWER_TAG.split(answer)[0] for answer in answers]
    elif in_reasoning:
        return []
    else:  # what comes before "Answer:" is reasoning without tags
        tail = tail if reasoning else _MARKER.split(tail)[-1]
        answers = [_ANSWER_TAG.sub(" ", tail)]
    if len(tail) > _LONGEST:
        return []
    if listwise and len(answers) == 1 and len(orders := _ORDER.findall(answers[0])) == 1:
        labels = [int(label) for label in re.findall("[0-9]+", orders[0])]
        return [] if mentions(_ORDER.sub(" ", answers[0])) else labels
    named = [mentions(answer) for answer in answers]
    return [*named[0]] if all(len(one) == 1 and one == named[0] for one in [*named, mentions(tail) or named[0]]) else []


def mentions(text: str) -> set[int]:
    """The labels that a text names: in brackets, after a word such as "passage", or alone on a line.

    0 for one that is taken back or cannot be a label.
    """
    found = {number for line in text.splitlines() if (number := lone_number(line))}
    for one in _MENTION.finditer(text):
        if one[2] is None and not re.search("[0-9]", one[1]):
            continue
        label = one[2] or ((inner := _LABEL.fullmatch(one[1])) and inner[1]) or "0"
        before, behind = text[max(0, one.start() - _NEAR) : one.start()], text[one.end() : one.end() + _NEAR]
        found.add(0 if _NOT_BEFORE.search(before) or _NOT_BEHIND.match(behind) else int(label))
        if another := _ANOTHER.match(text, one.end()):
            found.add(int(another[1]))
    return found


def lone_number(line: str) -> int:
    """The number of a line that holds no other, and besides only words such as "the answer is"; 0 for another line."""
    words = _WORD.findall(_END.sub(" ", line))
    numbers = {word for word in words if word.isdecimal()}
    if len(numbers) != 1 or not {words[0], words[-1]} & numbers or _NO_LABEL.search(line):
        return 0
    number = numbers.pop()
    if not (number.isascii() and len(number) <= 4):
        return 0
    return int(number) if all(word == number or _ANSWER_WORD.fullmatch(word) for word in words) else 0
