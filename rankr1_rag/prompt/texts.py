r"""Makes queries, titles and passages safe and short: `sanitise` and `clip`.

Text that would speak for the model or the chat template is neutralised:

| in the text | in the prompt | why |
|---|---|---|
| `<think>` `</think>` `<answer>` `</answer>` `<answer/>` | `(think)` `(/think)` … | ends reasoning, gives an answer |
| `<s>` `<eos>` `<sop>` `<EOS_TOKEN>` `<mask:1>`, see `_ANGLE_NAME` and `_ANGLE_FAMILY` | `(s)` … | control tokens |
| `<|im_end|>`, any `<|…|>` on one line | `(im_end)` | control tokens of Qwen, Llama 3, SmolLM, DeepSeek |
| `<|turn>` `<turn|>`, any single word so; `<[fim-prefix]>` | `(|turn)` `(turn|)` | of Gemma 4, Seed |
| `[INST]` `[/INST]` `[gMASK]` `[|user|]` …: see `_SQUARE_NAME`, `_SQUARE_FAMILY` | `(INST)` … | of Mistral, EXAONE |
| `[e~[` `]~b]` `>>QUESTION<<` `|||IP_ADDRESS|||`: see `_ODD` | `(e~)` … | of MiniMax, Falcon, OLMo |
| `/no_think` `/nothink` | `/ no_think` … | turn reasoning off in Qwen 3, Nemotron, GLM |
| special tokens of the tokenizer at hand | the same, or a space after the first letter | whatever it spells |
| `[3]` at the start of a line | `(3)` | poses as another passage |
| NUL, lone surrogates | U+FFFD | no tokenizer takes them |

The names also in upper case; with white space and invisible characters inside, of which the latter are dropped; with
characters that look like `< > | [ ] /` (`‹ › ⟨ ⟩ 《 》 ◁ ▷ ＜ ＞ ｜ ￨ ［ ］` …: `_OPEN` to `_SLASHES`); and in letters
that compatibility normalisation (NFKC) makes plain, such as full-width ones. Other text is left untouched, to the byte.
The time is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

Count = Callable[[str], int | None]

Special = re.Pattern[str] | None
"""Finds special tokens of the tokenizer at hand: see `special_pattern`."""

BYTES_PER_TOKEN = 3
"""The estimate without a tokenizer: careful for English (4 bytes a token), fair for Chinese (3 bytes a character)."""

# Written as code points: most of these look like one another.
_OPEN = "<\u02c2\u2039\u2329\u276c\u276e\u2770\u27e8\u25c1\u27ea\u29fc\u3008\u300a\ufe64\uff1c"
_CLOSE = ">\u02c3\u203a\u232a\u276d\u276f\u2771\u27e9\u25b7\u27eb\u29fd\u3009\u300b\ufe65\uff1e"
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

# Names, which in tags may have white space inside, then families of names, which may not.
_ANGLE_NAME = re.compile("(?i)think|answer|s|bos|eos|pad|unk|sys|start_of_turn|end_of_turn|tool_call|tool_response")
_ANGLE_FAMILY = re.compile(
    "(?i:[bes]o[acdhimpst]|(?:bos|eos|eop|pad|unk|mask|cls|sep)(?:[_-](?:token|id))?[_:-]?[0-9]*|fim[_▁-]?\\w+"
    "|(?:start|begin|end)(?:[_▁-]of[_▁-][\\w▁-]+"
    "|of(?:text|turn|prompt|chunk|piece|message|sentence|response|sequence|document))"
    "|(?:reserved|(?:tokens_)?unused|special|extra|ctrl|control|dummy|placeholder|sentinel|madeupword|loc|seg)"
    "[a-z_▁-]*[0-9]+|(?:im|img|image|audio|video|vision|patch)_(?:soft_token|token|start|end|sep|patch|placeholder"
    "|newline|context|content|[0-9]+)|image|filename|repo_?name|gh_stars|issue_(?:start|comment|closed)|jupyter_\\w+"
    "|commit_(?:before|after|msg|message)|empty_(?:output|source_file)|(?:add|delete|rename|edit)_file|pr(?:_\\w+)?"
    "|code_(?:interpreter|context|to_intermediate)|intermediate_to_code|available_tools|arg_(?:key|value)"
    "|(?:tool|function)s?_?(?:call|response|result|output|content|list|declare|definition)s?|(?:seed|mm|minimax):\\w+"
    "|longcat_\\w+|think_o(?:n|ff)|thought|role|predict|documents|citations|active_output_modes|osagent_mode"
    "|(?:cls|sep|pad|eod|mask|bos|eos|unk)[|][\\w-]+|fill_me|fake_token_around_image|global-img|row_[0-9]+_col_[0-9]+"
    "|(?:iban|email|ip)-pii|aix-span-\\w+|_(?:start|end|user|bot|system|pad)|用户|\\w+[_-](?:bos|eos|eod|sep|pad))"
    "|AI|PRE|SUF|MID|NAME|EMAIL|KEY|PASSWORD|SMILES|[BCH]_[A-Z]{1,5}"
)
_SQUARE_NAME = re.compile(
    "(?i)inst|system_prompt|available_tools|tool_calls|tool_results|tool_content|call_id|think|img_break|img_end|gmask"
)
_SQUARE_FAMILY = re.compile(
    "(?i:smask|bos|eos|eot|unk|multimodal|(?:start|end)_header_id|begin_audio|model_settings|@\\w+@"
    "|(?:unused|reserved|extra|control|special)[a-z_]*[0-9]+"
    rf"|[{_BAR}][^\W\d][\w-]*[{_BAR}])"
    "|BOT|USER|NL|IMG|AUDIO|ARGS|PAD|CLS|SEP|MASK|EOD|TRANSCRIBE|PREFIX|MIDDLE|SUFFIX|(?:START|END|STREAMING)_[A-Z_]+"
)
_ODD = re.compile(  # it begins with a class, which makes the search fast
    r"[>\[\]|\uff5c](?:(?<=>)>(?:TITLE|ABSTRACT|INTRODUCTION|SUMMARY|COMMENT|QUESTION|ANSWER|DOMAIN|PREFIX|MIDDLE|SUFFIX"
    r"|[A-Z]+_(?:ADDRESS|[0-9]+))<<|(?<=\[)e~\[|(?<=\])(?:~b\]|~!b\[|[!~][a-z]~\[|<\][\w ]{1,40}+\[>\[)"
    r"|(?<=\|)\|\|[A-Z]++_[A-Z]++[|]{3}|(?<=\uff5c)DSML\uff5c)"
)
_SWITCH = re.compile(r"/(?=no_?think)")
_LONGEST = 80
"""Characters between the bars of a control token."""

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPICIOUS = re.compile(rf"[\x00\ud800-\udfff|~\uff5c{_OPEN}\{_LEFT}]")
_ANGLE = re.compile(f"[{_OPEN}{_CLOSE}]")
_OWN_TAG = re.compile("(</?(?:think|answer)>)", re.IGNORECASE)
_TAG = re.compile(rf"[{_OPEN}]([^{_OPEN}{_CLOSE}]*+)[{_CLOSE}]")
_SQUARE = re.compile(rf"[\{_LEFT}]([^\{_LEFT}\{_RIGHT}]*+)[\{_RIGHT}]")
_CONTROL = re.compile(rf"[{_BAR}]\s*+([^{_BAR}\n]{{0,{_LONGEST}}}+)\s*+[{_BAR}]")
_HALF_CONTROL = re.compile(
    rf"[{_BAR}]\s*+\w{{1,{_LONGEST}}}+|\w{{1,{_LONGEST}}}+\s*+[{_BAR}]|\[(?:\w+[▁-][\w▁-]+|PLHD\w+)\]"
)
_MARKS = f"{_OPEN}{_CLOSE}{_LEFT}{_RIGHT}{_BAR}"
_IDEOGRAPHS = (  # and other letters that are written without spaces: Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_TERM = re.compile(rf"[{_IDEOGRAPHS}]|(?:[^\W_{_IDEOGRAPHS}][\u0300-\u036f]*+)++")
_SPACE = re.compile(r"\s++")
_WORTH = 720_720  # of a term that the text holds once; divided by its number of places, mostly a whole number
_UNSEEN = re.compile(f"[{_INVISIBLE}]")
_BLANK = re.compile(rf"[\s{_INVISIBLE}]")


def sanitise(text: str, special: Special = None) -> str:
    """The text with everything of the table neutralised; a second time changes nothing more.

    `special` finds the special tokens of the tokenizer at hand.
    """
    # Most passages hold none of these characters.
    if not (
        "<" in text or "[" in text or "|" in text or "~" in text or "/no" in text or "\0" in text
        if text.isascii()
        else "/no" in text or _SUSPICIOUS.search(text)
    ) and not (special and special.search(text)):
        return text
    return tame(text, special, labels=True)


def sanitise_reply(text: str, special: Special = None) -> str:
    """What a model wrote, before it is sent back: as by `sanitise`, but its labels, `<think>` and `<answer>` stay."""
    parts = _OWN_TAG.split(text)
    parts[::2] = [tame(part, special, labels=False) for part in parts[::2]]
    return "".join(parts)


def tame(text: str, special: Special, *, labels: bool) -> str:
    """The text with everything of the table neutralised, but labels only with `labels`."""
    plain, before = text.isascii(), ""
    text = text.replace("\0", "\ufffd") if plain else _UNREADABLE.sub("\ufffd", text)
    while text != before:  # twice, but for a token that was hidden by invisible characters inside another
        before = text
        if special:
            text = special.sub(tame_odd, text)
        if "|" in text or "~" in text or ">>" in text or "]<]" in text or "\uff5c" in text:
            text = _ODD.sub(tame_odd, text)
        if "/no" in text:
            text = _SWITCH.sub("/ ", text)
        if not plain or "[" in text:
            text = _SQUARE.sub(partial(tame_square, labels=labels), text)
        if not plain or "<" in text:
            text = tame_angles(text)
    return text


@lru_cache(maxsize=64)
def special_pattern(tokens: frozenset[str]) -> Special:
    """Finds those of the tokens that the table does not hold, with any number for a number; of a word its first letter.

    Not tokens of one or two characters, or of white space.
    """
    found = set()
    for token in tokens:
        if len(token.strip()) > 2 and sanitise(f"x{token}") == f"x{token}":  # not at the start of a line, as a label is
            head, rest = ("", token) if token.strip(_MARKS) != token else (token[0], token[1:])
            rest = re.sub("[0-9]+", "[0-9]+", re.escape(rest))
            found.add(f"{re.escape(head)}(?={rest})" if head else rest)
    return re.compile("|".join(sorted(found, key=len, reverse=True))) if found else None


def tame_odd(found: re.Match[str]) -> str:
    """A token in parentheses instead of its brackets and bars, or the first letter of a word and a space."""
    inner = found[0].strip(_MARKS)
    return f"{inner} " if inner == found[0] else f"({inner})"


def tame_square(found: re.Match[str], labels: bool) -> str:
    """A text in square brackets, in parentheses instead if it is a control token or a label that begins a line."""
    inner = visible(found[1])
    if inner.isdigit():
        steers = labels and starts_line(found.string, found.start())
    else:
        steers = is_token(inner, _SQUARE_NAME, _SQUARE_FAMILY)
    return f"({inner})" if steers else found[0]


def tame_angles(text: str) -> str:
    """The text with parentheses instead of the angle brackets of tags and control tokens, the inner ones first."""
    if not any(tame_tag(found[1]) for found in _TAG.finditer(text)):
        return text
    parts: list[str] = []
    opened: list[int] = []  # places in `parts` of the brackets that may begin a tag: only tame text follows them
    end = 0
    for found in _ANGLE.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found[0] in _OPEN:
            opened.append(len(parts))
        elif opened:
            start = opened.pop()
            if tame := tame_tag("".join(parts[start + 1 :])):
                parts[start:] = [tame]
                continue
            opened.clear()
        parts.append(found[0])
    return "".join([*parts, text[end:]])


def tame_tag(inner: str) -> str:
    """A tag or a control token, from between its angle brackets, in parentheses; "" for other text."""
    inner = visible(inner)
    if control := _CONTROL.fullmatch(inner):
        return f"({control[1].strip()})"
    steers = is_token(inner, _ANGLE_NAME, _ANGLE_FAMILY) or _HALF_CONTROL.fullmatch(inner)
    return f"({inner})" if steers else ""


def visible(inner: str) -> str:
    """The visible characters between two brackets."""
    return (inner if inner.isascii() and inner.isprintable() else _UNSEEN.sub("", inner)).strip()


def is_token(inner: str, name: re.Pattern[str], family: re.Pattern[str]) -> bool:
    """Whether a text between brackets, but for its slash, is one of the names or, without white space, of a family."""
    plain = "".join(inner.split())
    if len(plain) > _LONGEST:
        return False
    is_spaced = len(plain) < len(inner)
    plain = (plain if plain.isascii() else unicodedata.normalize("NFKC", plain)).strip(_SLASHES)
    return bool(name.fullmatch(plain) or (not is_spaced and family.fullmatch(plain)))


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
