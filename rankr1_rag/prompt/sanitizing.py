r"""What is neutralised in queries, titles and passages, so that a text cannot speak for the model or the template.

| in the text | in the prompt | why |
|---|---|---|
| `<think>` `</think>` `<answer>` `</answer>` `<answer/>` | `(think)` `(/think)` … | ends a thought, gives an answer |
| `<s>` `</s>` `<bos>` `<eos>` `<pad>` `<unk>` `<<SYS>>` | `(s)` … `<(SYS)>` | control tokens of Llama, Mistral, Gemma |
| `<start_of_turn>` `<end_of_turn>` | `(start_of_turn)` … | control tokens of Gemma |
| `<tool_call>` `<tool_response>` and their ends | `(tool_call)` … | control tokens of Qwen |
| `<|im_end|>`, any `<|…|>` on one line | `(im_end)` | control tokens of Qwen, Llama 3, SmolLM, DeepSeek |
| `<|turn>` `<turn|>`, any single word so | `(|turn)` `(turn|)` | control tokens of Gemma 4 |
| `[INST]` `[/INST]` `[SYSTEM_PROMPT]` `[TOOL_CALLS]` … | `(INST)` … | control tokens of Mistral: see `_SQUARE_NAME` |
| `[3]` at the start of a line | `(3)` | poses as another passage |
| NUL, lone surrogates | U+FFFD | no tokenizer takes them |

In any case; with white space and invisible characters inside, of which the latter are dropped; with what looks like
`< > | [ ] /` for them (`‹ › ⟨ ⟩ 《 》 ＜ ＞ ｜ ￨ ［ ］` …: `_OPEN` to `_SLASHES`); and in letters that compatibility
normalisation (NFKC) makes plain, as it does full-width ones. Text without such things is left untouched, to the byte.
The time grows with the length of the text and no faster. Knows nothing of formats and models.
"""

from __future__ import annotations

import re
import unicodedata

# Written as code points: most of these look like one another.
_OPEN = "<\u02c2\u2039\u2329\u276c\u276e\u2770\u27e8\u27ea\u29fc\u3008\u300a\ufe64\uff1c"
_CLOSE = ">\u02c3\u203a\u232a\u276d\u276f\u2771\u27e9\u27eb\u29fd\u3009\u300b\ufe65\uff1e"
_LEFT = "[\ufe47\uff3b"
_RIGHT = "]\ufe48\uff3d"
_BAR = "|\u00a6\u01c0\u2223\u2502\u2758\uff5c\uffe8"
_SLASHES = "/\u2044\u2215\u29f8\uff0f"
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_INVISIBLE = (  # control characters that are not white space, and Unicode's Default_Ignorable_Code_Point
    "\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)

_ANGLE_NAME = re.compile("think|answer|s|bos|eos|pad|unk|sys|start_of_turn|end_of_turn|tool_call|tool_response")
_SQUARE_NAME = re.compile(
    "inst|system_prompt|available_tools|tool_calls|tool_results|tool_content|call_id|think|img_break|img_end|gmask"
)
_LONGEST = 80
"""Characters between the bars of a control token. What is nested is tamed from the inside, and its parentheses stop it
from being one here: so the passes over a text are at most about half as many."""

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPICIOUS = re.compile(rf"[\x00\ud800-\udfff{_OPEN}\{_LEFT}]")
_ANGLE = re.compile(rf"[{_OPEN}]([^{_OPEN}{_CLOSE}]*+)[{_CLOSE}]")
_SQUARE = re.compile(rf"[\{_LEFT}]([^\{_LEFT}\{_RIGHT}]*+)[\{_RIGHT}]")
_CONTROL = re.compile(rf"[{_BAR}]\s*+([^{_BAR}\n]{{0,{_LONGEST}}}+)\s*+[{_BAR}]")
_HALF_CONTROL = re.compile(rf"[{_BAR}]\s*+\w{{1,{_LONGEST}}}+|\w{{1,{_LONGEST}}}+\s*+[{_BAR}]")
_UNSEEN = re.compile(f"[{_INVISIBLE}]")
_BLANK = re.compile(rf"[\s{_INVISIBLE}]")


def sanitise(text: str) -> str:
    """The text with everything of the table neutralised; a second time changes nothing more."""
    # Most passages hold none of these characters.
    if not ("<" in text or "[" in text or "\0" in text if text.isascii() else _SUSPICIOUS.search(text)):
        return text
    text = _UNREADABLE.sub("\ufffd", text)
    while (tamer := _ANGLE.sub(_tame_angle, _SQUARE.sub(_tame_square, text))) != text:
        text = tamer
    return text


def _tame_angle(found: re.Match[str]) -> str:
    inner = _seen(found[1])
    if control := _CONTROL.fullmatch(inner):
        return f"({control[1].strip()})"
    steers = _ANGLE_NAME.fullmatch(_name(inner)) or _HALF_CONTROL.fullmatch(inner)
    return f"({inner})" if steers else found[0]


def _tame_square(found: re.Match[str]) -> str:
    inner = _seen(found[1])
    poses = inner.isdigit() and _starts_a_line(found.string, found.start())
    return f"({inner})" if poses or _SQUARE_NAME.fullmatch(_name(inner)) else found[0]


def _seen(inner: str) -> str:
    """What one sees between two brackets."""
    return _UNSEEN.sub("", inner).strip()


def _name(inner: str) -> str:
    """The name in a tag, plain, in lower case and without its slash; "" for what is too long to be one."""
    name = "".join(inner.split())
    return unicodedata.normalize("NFKC", name).casefold().strip(_SLASHES) if len(name) <= _LONGEST else ""


def _starts_a_line(text: str, at: int) -> bool:
    """Whether nothing that one sees stands before `at` in its line."""
    while at and text[at - 1] not in _LINE_ENDS:
        at -= 1
        if not _BLANK.match(text, at):
            return False
    return True
