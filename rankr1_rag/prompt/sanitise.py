"""What is neutralised in queries, titles and passages, so that a text cannot speak for the model or the template.

| in the text | in the prompt | why |
|---|---|---|
| `<think>` `</think>` `<answer>` `</answer>` | `(think)` `(/think)` … | ends a thought, gives an answer |
| `<s>` `</s>` `<bos>` `<eos>` | `(s)` … | control tokens of Llama, Mistral, Gemma |
| `<start_of_turn>` `<end_of_turn>` | `(start_of_turn)` … | control tokens of Gemma |
| `<|im_end|>`, any `<|…|>` | `(im_end)` | control tokens of Qwen, Llama 3, SmolLM, DeepSeek |
| `[INST]` `[/INST]` | `(INST)` … | control tokens of Mistral |
| `[3]` at the start of a line | `(3)` | poses as another passage |
| NUL, lone surrogates | U+FFFD | no tokenizer takes them |

In any case, with white space inside, and with `‹ › 〈 〉 ⟨ ⟩ 《 》 ＜ ＞ ｜ ￨ ［ ］` for `< > | [ ]`. Text without such
things is left untouched, to the byte. Knows nothing of formats and models.
"""

from __future__ import annotations

import re

_OPEN = "[<‹〈⟨《＜]"
_CLOSE = "[>›〉⟩》＞]"
_BAR = "[|｜￨]"
_TAGS = "think|answer|s|bos|eos|start_of_turn|end_of_turn"
_LINE_START = "(?:^|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"

_STEERING = re.compile(
    rf"""
      {_OPEN}\s*{_BAR}\s*(?P<control>[^<>|｜￨\n]{{0,80}}?)\s*{_BAR}\s*{_CLOSE}
    | {_OPEN}\s*(?P<tag>/?\s*(?:{_TAGS}))\s*{_CLOSE}
    | [\[［]\s*(?P<inst>/?\s*inst)\s*[\]］]
    | {_LINE_START}(?P<indent>\s*)[\[［]\s*(?P<label>\d+)\s*[\]］]
    """,
    re.IGNORECASE | re.VERBOSE,
)
_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPICIOUS = re.compile("[\x00\ud800-\udfff<‹〈⟨《＜\\[［]")


def sanitise(text: str) -> str:
    """The text with everything of the table neutralised; doing it twice changes nothing more."""
    if not _suspicious(text):
        return text
    text = _UNREADABLE.sub("\ufffd", text)
    while (tamer := _STEERING.sub(_tame, text)) != text:
        text = tamer
    return text


def _suspicious(text: str) -> bool:
    """Whether there is anything to look at closely: most passages hold none of these characters."""
    if text.isascii():
        return "<" in text or "[" in text or "\0" in text
    return _SUSPICIOUS.search(text) is not None


def _tame(found: re.Match[str]) -> str:
    inner = found["control"] or found["tag"] or found["inst"] or found["label"] or ""
    return f"{found['indent'] or ''}({inner})"
