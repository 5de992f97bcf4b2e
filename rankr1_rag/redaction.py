"""Secrets are kept out of everything that leaves the process: they are remembered where they are read.

Texts pass `hide_keys` (what a model wrote), `redact` (errors and logs) or `excerpt` (what someone else wrote, in an
error). Settings pass `without_secrets` or `with_digests`.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from hashlib import pbkdf2_hmac
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, quote_plus

Change = Callable[[Any], Any]

HIDDEN = "<key>"

PIECE = 8
"""Characters of a key that are hidden by themselves: a text may have been cut within it."""

SECRET_NAME = re.compile(
    r"secret|passw|passphrase|credential|authori[sz]ation|bearer|cookie|signature|headers?$"
    r"|^(?:auth|code|jwt|keys?|pw|pwd|sas|sig|token)$|[-_. ](?:auth|jwt|pat|pwd|sas|sig)$|(?<!cache)[-_. ]keys?$"
    r"|(?:access|account|api|license|private|subscription)[-_. ]?key|(?-i:[a-z](?:Auth|Keys?|Pwd|Sig|Token)$)"
    r"|(?<!bos|cls|eos|pad|sep|unk)(?<!mask|stop)(?<!image|start|think)[-_. ]token$",
    re.IGNORECASE,
)
"""Names of fields and parameters whose values are secret; those of special tokens and of cache keys are not."""

RANDOM = r"(?<![^\W_])(?=[^\W_]{6})(?:[^\W_]{20}|\d{10}|[^\W_]{0,19}?(?:[a-z]\d+[a-z]|\d[a-z]+\d))"
"""Letters and digits in no order of names, versions or dates."""

LIKE_A_KEY = re.compile(
    rf"\b(?:(?:sk|pk|rk|key)[-_]|hf_|gsk_|xai-|nvapi-|gh[opsu]_)(?=[\w*.-]{{0,99}}?{RANDOM})[\w*.-]{{6,}}"
    r"|\bsk-(?=[\w*-]{0,99}?\d{3})[\w*.-]{4,}|\bAIza[\w-]{20,}"
    r"|\beyJ[\w-]{8,500}\.[\w.-]*|(?<![\w-])[\w-]+\*{3,}[\w-]*|\*{3,}[\w-]+|(?<=bearer )(?=\S*\d)\S{6,}",
    re.IGNORECASE,
)

PERHAPS_A_KEY = re.compile(
    r"(?<![\w/\\~.-])(?![\w.-]*\.(?:[a-z]{1,12}|[a-z]{0,3}\d[a-z]?)(?![\w.-])|[\w.-]*[/\\])"  # not in a path
    r"(?:[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}(?![\w.-])|(?=[\w.-]{20})(?=[\w.-]{0,99}?(?<![^\W_])(?=[^\W_]{10})"
    r"(?:[a-z]+\d+[a-z]+\d|\d+[a-z]+\d+[a-z]))[\w.-]+)|(?<=//)(?<!///)[^\s\"']+(?=@)|[^\s\"'/:@]+:[^\s\"'@]+(?=@)",
    re.IGNORECASE,
)
"""Where no such thing belongs: a long word of mixed letters and digits, a UUID, a name with a password before @."""

REFERENCE = re.compile(r"\$[A-Za-z_]\w*|\$\{[A-Za-z_]\w*\}|<key [\da-f]{12}>", re.ASCII)
"""A variable of the environment, or a digest."""

PLAIN_WORD = re.compile(r"[\W_]{0,3}\w?[a-z]{4,}[\W_]{0,3}")

PRINTED = (
    r"(?<!(?i:model) [\"'`])(?:(?<=[\"'`=(])|(?<=[:=] )|(?<=(?i:key) )|(?<=(?i:token) )|(?<=(?i:bearer) )){}"
    r"(?=[\"'`\])}}.,;!]|\s*$|\s+(?:is|was|not)\b)"
)
"""A word where a value is printed, not a word of a sentence."""


class Known(NamedTuple):
    """A secret, its forms, the pattern that finds them, and the pieces that are hidden too.

    A "key" is hidden everywhere, another "value" in errors and logs. A "word" may be part of any message, "EMPTY" for
    example: it is hidden in excerpts, where a value is printed.
    """

    kind: Literal["key", "value", "word"]
    forms: list[str]
    pattern: re.Pattern[str]
    pieces: set[str]


_known: dict[tuple[str, bool], Known] = {}


def remember(value: str, *, key: bool = True) -> None:
    """Hide this value from now on, in other encodings too: that of a `key`, or one that is less certain to be secret.

    Of "Bearer …" and "Basic …" the second part is secret too, and the password. No secret is a key of less than 4
    characters, or another value that does not look random: an address, the name of a model, a version.
    """
    value = str(value)  # of a subclass
    has_digit = re.search(r"\d", value) is not None
    has_symbols = len(value) >= 8 and has_digit and re.search(r"[^\w\s.:/,-]", value)
    is_random = has_symbols or re.search(RANDOM, value, re.IGNORECASE)
    if len(value) < 4 or (value, key) in _known or not (key or is_random):
        return
    if len(_known) >= 1_000:  # a process that gets new keys all the time
        _known.pop(next(iter(list(_known))), None)
    forms = sorted(set(encoded(value)), key=len, reverse=True)
    one_of = "|".join(map(re.escape, forms))
    as_word = rf"(?<![^\W_])(?:{one_of})(?![^\W_])"
    long = [form for form in forms if len(form) >= 2 * PIECE]
    pieces = {form[at : at + PIECE] for form in long for at in range(len(form) - PIECE + 1)}
    if not (len(value) >= 8 and has_digit) and not re.fullmatch(r"\S{16,}", value):
        known = Known("word", forms, re.compile(PRINTED.format(as_word)), set())
    elif key and has_digit and re.search(r"[^\W\d]", value):
        known = Known("key", forms, re.compile(one_of if is_random else as_word), pieces)
    else:
        known = Known("value", forms, re.compile(as_word), set())
    _known[value, key] = known
    scheme, _, rest = value.partition(" ")
    if scheme.lower() in ("basic", "bearer"):
        remember(rest.strip())
    if scheme.lower() == "basic":
        with suppress(ValueError):
            login = base64.b64decode(rest + "==").decode()
            remember(login)
            remember(login.partition(":")[2])


def forget() -> None:
    """Forget all secrets."""
    _known.clear()


def encoded(value: str) -> Iterator[str]:
    """A secret as servers and libraries may print it: percent-encoded, in base64, escaped for JSON, HTML or Python."""
    percent = quote(value, safe="", errors="replace")
    yield from (value, percent, re.sub("%..", lambda one: one[0].lower(), percent), quote(value, errors="replace"))
    yield from (quote_plus(value, errors="replace"), html.escape(value), repr(value)[1:-1])
    for escaped in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        slashed = escaped.replace("/", r"\/")
        yield from (escaped, slashed, json.dumps(slashed)[1:-1])
        yield re.sub(r"[&<>+=/']", lambda one: f"\\u{ord(one[0]):04x}", escaped)
    in_base64 = base64.b64encode(value.encode("utf-8", "replace")).decode()
    yield from (in_base64, in_base64.rstrip("="), in_base64.rstrip("=").replace("+", "-").replace("/", "_"))


def hide_keys(text: str, kind: str = "key") -> str:
    """The text without whole keys; any other text stays as it is."""
    for known in list(_known.values()):
        if known.kind == kind and any(form in text for form in known.forms):
            text = known.pattern.sub(HIDDEN, text)
    return text


def possible_key(text: str) -> int:
    """The number of characters at the end of a text with which a key may begin."""
    forms = [form for known in list(_known.values()) if known.kind == "key" for form in known.forms]
    ends = (n for form in forms for n in range(1, min(len(form), len(text) + 1)) if text.endswith(form[:n]))
    return max(ends, default=0)


def redact(text: str) -> str:
    """The text without any key or value that was remembered and without pieces of keys, for errors and logs."""
    text = hide_keys(hide_keys(text), "value")
    pieces = set[str]().union(*[known.pieces for known in list(_known.values())])
    starts = "".join(["x" if text[at : at + PIECE] in pieces else " " for at in range(len(text))])
    for run in reversed([*re.finditer("x(?:.{0,7}x)*", starts)]):  # of pieces that overlap or touch
        start, end = run.start(), run.end() + PIECE - 1
        if not PLAIN_WORD.fullmatch(text, start, end):
            text = text[:start] + HIDDEN + text[end:]
    return text


def redact_error(error: BaseException) -> None:
    """Redact the texts of an error of others, and of the errors that it was raised for: tracebacks print them all."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        if (one := chain.pop()) is not None and id(one) not in seen:
            seen.add(id(one))
            one.args = tuple([redact(text) if isinstance(text, str) else text for text in one.args])
            if isinstance(one, OSError) and one.strerror:
                one.strerror = redact(str(one.strerror))
            chain += [one.__cause__, one.__context__]


def excerpt(text: str, longest: int = 400, *, strict: bool = False) -> str:
    """The beginning of a text that someone else wrote, on one line, redacted and without what looks like a key.

    With `strict` also without what may be one, where no key belongs.
    """
    text = redact(text[: 20 * longest])
    text = PERHAPS_A_KEY.sub(HIDDEN, text) if strict else hide_keys(text, "word")
    line = " ".join("".join(c if c.isprintable() else " " for c in LIKE_A_KEY.sub(HIDDEN, text)).split())
    return line if len(line) <= longest else f"{line[:longest]}…"


def excerpt_of(value: object, longest: int = 100) -> str:
    """The beginning of a wrong value, for an error."""
    return excerpt(repr(with_digests(value)), longest, strict=True)


def replace_secrets(value: Any, change: Change, is_secret: bool = False, references: bool = False) -> Any:  # noqa: ANN401
    """Settings with each secret changed, or left out if the change is `...`.

    Secret is what has a secret name, all in a mapping that has one, and what looks like a key; a variable of the
    environment, "$NAME" or "${NAME}", only with `references`.
    """
    if isinstance(value, Mapping):
        secret = {name: is_secret or SECRET_NAME.search(str(name)) is not None for name in value}
        named = {name: replace_secrets(one, change, secret[name], references) for name, one in value.items()}
        return {name: one for name, one in named.items() if one is not ...}
    if type(value) in (list, tuple):
        changed = [replace_secrets(one, change, is_secret, references) for one in value]
        return type(value)([one for one in changed if one is not ...])
    if isinstance(value, str):
        is_secret = is_secret or LIKE_A_KEY.fullmatch(value) is not None
        is_secret = is_secret and (references or not REFERENCE.fullmatch(value))
    return change(value) if is_secret and value is not None and not isinstance(value, bool) else value


def remember_all(settings: object) -> None:
    """Remember each secret in these settings; a header with blanks or slashes, such as a type, only if it is random."""

    def remember_one(secret: Any) -> None:  # noqa: ANN401
        value = str(getattr(secret, "get_secret_value", lambda: secret)())
        remember(value, key=not re.search("[/ ]", value) or bool(re.match("(?i:basic|bearer) ", value)))

    replace_secrets(settings, remember_one)


def with_digests(settings: Any) -> Any:  # noqa: ANN401
    """Settings with a digest in place of each secret: the same for the same settings, and slow to guess from."""

    def digest(secret: object) -> str:
        raw = str(secret).encode("utf-8", "surrogatepass")
        return f"<key {pbkdf2_hmac('sha256', raw, b'rankr1', 50_000).hex()[:12]}>"

    return replace_secrets(settings, digest)


def without_secrets(settings: Any) -> Any:  # noqa: ANN401
    """Settings without their secrets."""
    return replace_secrets(settings, lambda _: ...)


def has_secret(settings: object) -> bool:
    """Whether settings hold a secret."""
    return bool(without_secrets(settings) != settings)


def check_variable(option: str, name: str) -> None:
    """ValueError for what is no name of a variable of the environment, or looks like a key itself."""
    is_name = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and len(name) <= 100
    if not is_name or name not in (shown_variable(name), excerpt(name, strict=True)):
        raise ValueError(
            f"{option} is no name of an environment variable (got {len(name)} characters, not shown as they may be the "
            "key itself): put the key into a variable, and use the name of that, MY_API_KEY for example"
        )


def shown_variable(name: str) -> str:
    """The name of a variable in an error: only its beginning if it may be a key in place of a name."""
    is_usual = name in os.environ or (re.fullmatch(r"[A-Z][A-Z\d_]*", name) and len(re.sub(r"\D", "", name)) < 6)
    return name if is_usual else f"{name[:3]}…"
