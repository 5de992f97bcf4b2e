r"""Makes queries, titles and passages safe and short: `sanitise` and `clip`.

Text that would speak for the model or the chat template is neutralised:

| in the text | in the prompt | why |
|---|---|---|
| `<think>` `</think>` `<answer>` `</answer>` `<answer/>` | `(think)` `(/think)` … | ends reasoning, gives an answer |
| `<s>` `</s>` `<bos>` `<eos>` `<pad>` `<unk>` `<<SYS>>` | `(s)` … `<(SYS)>` | control tokens of Llama, Mistral, Gemma |
| `<start_of_turn>` `<end_of_turn>` | `(start_of_turn)` … | control tokens of Gemma |
| `<tool_call>` `<tool_response>` and their ends | `(tool_call)` … | control tokens of Qwen |
| `<|im_end|>`, any `<|…|>` on one line | `(im_end)` | control tokens of Qwen, Llama 3, SmolLM, DeepSeek |
| `<|turn>` `<turn|>`, any single word so | `(|turn)` `(turn|)` | control tokens of Gemma 4 |
| `[INST]` `[/INST]` `[SYSTEM_PROMPT]` `[TOOL_CALLS]` … | `(INST)` … | control tokens of Mistral: see `_SQUARE_NAME` |
| `[3]` at the start of a line | `(3)` | poses as another passage |
| NUL, lone surrogates | U+FFFD | no tokenizer takes them |

Also in upper case; with white space and invisible characters inside, of which the latter are dropped; with characters
that look like `< > | [ ] /` (`‹ › ⟨ ⟩ 《 》 ＜ ＞ ｜ ￨ ［ ］` …: `_OPEN` to `_SLASHES`); and in letters that
compatibility normalisation (NFKC) makes plain, such as full-width ones. Other text is left untouched, to the byte.
The time is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

Count = Callable[[str], int | None]

BYTES_PER_TOKEN = 3
"""The estimate without a tokenizer: careful for English (4 bytes a token), fair for Chinese (3 bytes a character)."""

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
"""Characters between the bars of a control token. Nested tokens are neutralised from the inside, and their parentheses
end the match here: so the passes over a text are at most about half as many."""

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPICIOUS = re.compile(rf"[\x00\ud800-\udfff{_OPEN}\{_LEFT}]")
_ANGLE = re.compile(rf"[{_OPEN}]([^{_OPEN}{_CLOSE}]*+)[{_CLOSE}]")
_SQUARE = re.compile(rf"[\{_LEFT}]([^\{_LEFT}\{_RIGHT}]*+)[\{_RIGHT}]")
_CONTROL = re.compile(rf"[{_BAR}]\s*+([^{_BAR}\n]{{0,{_LONGEST}}}+)\s*+[{_BAR}]")
_HALF_CONTROL = re.compile(rf"[{_BAR}]\s*+\w{{1,{_LONGEST}}}+|\w{{1,{_LONGEST}}}+\s*+[{_BAR}]")
_IDEOGRAPHS = (  # and other letters that are written without spaces: Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_TERM = re.compile(rf"[{_IDEOGRAPHS}]|(?:[^\W_{_IDEOGRAPHS}][\u0300-\u036f]*+)++")
_SPACE = re.compile(r"\s++")
_WORTH = 720_720  # of a term that the text holds once; divided by its number of places, mostly a whole number
_UNSEEN = re.compile(f"[{_INVISIBLE}]")
_BLANK = re.compile(rf"[\s{_INVISIBLE}]")


def sanitise(text: str) -> str:
    """The text with everything of the table neutralised; a second time changes nothing more."""
    # Most passages hold none of these characters.
    if not ("<" in text or "[" in text or "\0" in text if text.isascii() else _SUSPICIOUS.search(text)):
        return text
    text = _UNREADABLE.sub("\ufffd", text)
    while (tamer := _ANGLE.sub(tame_angle, _SQUARE.sub(tame_square, text))) != text:
        text = tamer
    return text


def tame_angle(found: re.Match[str]) -> str:
    """A text in angle brackets, in parentheses instead if it is a tag or a control token."""
    inner = visible(found[1])
    if control := _CONTROL.fullmatch(inner):
        return f"({control[1].strip()})"
    steers = _ANGLE_NAME.fullmatch(tag_name(inner)) or _HALF_CONTROL.fullmatch(inner)
    return f"({inner})" if steers else found[0]


def tame_square(found: re.Match[str]) -> str:
    """A text in square brackets, in parentheses instead if it is a control token or a label that begins a line."""
    inner = visible(found[1])
    poses = inner.isdigit() and starts_line(found.string, found.start())
    return f"({inner})" if poses or _SQUARE_NAME.fullmatch(tag_name(inner)) else found[0]


def visible(inner: str) -> str:
    """The visible characters between two brackets."""
    return _UNSEEN.sub("", inner).strip()


def tag_name(inner: str) -> str:
    """The name in a tag, plain, in lower case and without its slash; "" if it is too long for one."""
    name = "".join(inner.split())
    return unicodedata.normalize("NFKC", name).casefold().strip(_SLASHES) if len(name) <= _LONGEST else ""


def starts_line(text: str, at: int) -> bool:
    """Whether nothing visible comes before `at` in its line."""
    while at and text[at - 1] not in _LINE_ENDS:
        at -= 1
        if not _BLANK.match(text, at):
            return False
    return True


def tokens(text: str, count: Count) -> int:
    """Tokens of a text: counted, or estimated (rounded up) if `count` returns None."""
    counted = count(text)
    return counted if counted is not None else -(-size(text) // BYTES_PER_TOKEN)


def clip(text: str, limit: int, count: Count) -> str:
    """A beginning of the text with at most `limit` ≥ 0 tokens, cut between words; the text itself if it fits.

    Close to the longest such beginning, not always it: a few calls of `count`, whatever the length.
    """
    if size(text) <= limit:  # no tokenizer in use spells a byte with more than one token
        return text
    while text and (length := tokens(text, count)) > limit:
        end = min(len(text) * limit // length, len(text) - 1)
        cut = text[:end]
        if not text[end].isspace():  # back to the last space, unless that takes over a fifth
            space = max(cut.rfind(" "), cut.rfind("\n"))
            cut = cut[:space] if space > 0.8 * end else cut
        text = cut.rstrip()
    return text


def clip_to_window(text: str, limit: int, query: str, count: Count) -> str:
    """The part of the text with at most `limit` ≥ 0 tokens that shares most with the query; the text itself if it fits.

    "…" is where text is missing. A word of the query counts the more, the fewer times the text holds it. Of equal parts
    the first is taken; the words of the query are in its middle, or it is the beginning or the end of the text.
    """
    if size(text) <= limit or (length := tokens(text, count)) <= limit:
        return text
    wanted = {plain_term(term) for term in _TERM.findall(query)}
    found = [(one.start(), one.end(), plain_term(one[0])) for one in _TERM.finditer(text)]
    hits = [hit for hit in found if hit[2] in wanted]
    most = len(text) * limit // length  # characters
    while most > 0:
        start, end = best_span(hits, most)
        first = 0 if end <= most else max(0, min(start - (most - end + start) // 2, len(text) - most))
        last = min(len(text), first + most)
        if first and (space := _SPACE.search(text, first, start)):
            first = space.end()
        if last < len(text) and not text[last].isspace():
            blank = max(text.rfind(" ", max(first, end), last), text.rfind("\n", max(first, end), last))
            last = blank if blank > 0 else last
        part = f"{'… ' if first else ''}{text[first:last].strip()}{' …' if last < len(text) else ''}"
        if (length := tokens(part, count)) <= limit:
            return part
        most = min(most - 1, most * limit // length)
    return clip(text, limit, count)


def plain_term(term: str) -> str:
    """The term in lower case and without accents, which some texts write as characters of their own."""
    folded = term.casefold()
    if folded.isascii():
        return folded
    return "".join([one for one in unicodedata.normalize("NFKD", folded) if not unicodedata.combining(one)]) or folded


def best_span(hits: Sequence[tuple[int, int, str]], most: int) -> tuple[int, int]:
    """Start and end of the first span of at most `most` characters with most of these hits (start, end, term); 0, 0."""
    many, inside, score, end = Counter(term for *_, term in hits), Counter[str](), 0, 0
    best, span = 0, (0, 0)
    for at, (start, _, term) in enumerate(hits):
        end = max(end, at)
        while end < len(hits) and hits[end][1] - start <= most:
            score += _WORTH // many[hits[end][2]] if not inside[hits[end][2]] else 0
            inside[hits[end][2]] += 1
            end += 1
        if score > best:
            best, span = score, (start, hits[end - 1][1])
        if end > at:
            inside[term] -= 1
            score -= _WORTH // many[term] if not inside[term] else 0
    return span


def size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
