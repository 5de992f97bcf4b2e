"""Secrets are kept out of everything that leaves the process: what was read as a key is known here, and hidden here.

A value is remembered where it is read: a key, a header, a parameter of a query, a secret field of a body. `hide` and
`redact` take it out of texts, `masked` and `public` out of settings.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import pbkdf2_hmac
from threading import Lock
from typing import Any
from urllib.parse import quote, quote_plus

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
    r"|\beyJ[\w-]{8,}\.[\w.-]*|[\w-]+\*{3,}[\w-]*|\*{3,}[\w-]+|(?<=bearer )(?=\S*\d)\S{6,}",
    re.IGNORECASE,
)

PERHAPS_A_KEY = re.compile(
    r"(?<![\w/\\~.-])(?![\w.-]*\.(?:[a-z]{1,12}|[a-z]{0,3}\d[a-z]?)(?![\w.-])|[\w.-]*[/\\])"  # not in a path
    r"(?:[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}(?![\w.-])|(?=[\w.-]{20})(?=[\w.-]{0,99}?(?<![^\W_])(?=[^\W_]{10})"
    r"(?:[a-z]+\d+[a-z]+\d|\d+[a-z]+\d+[a-z]))[\w.-]+)|(?<=//)[^\s\"']+(?=@)|[^\s\"'/:@]+:[^\s\"'@]+(?=@)",
    re.IGNORECASE,
)
"""Where no such thing belongs: a long word of mixed letters and digits, a UUID, a name with a password before @."""

_lock = Lock()
_known: dict[str, bool] = {}
_NOTHING = re.compile("(?!)")
_MIXED = re.compile(r"\d.*[^\W\d]|[^\W\d].*\d", re.DOTALL)
_PRINTED = (
    r"(?<!(?i:model) [\"'`])(?:(?<=[\"'`=(])|(?<=[:=] )|(?<=(?i:key) )|(?<=(?i:token) )|(?<=(?i:bearer) )){}"
    r"(?=[\"'`\])}}.,;!]|\s*$|\s+(?:is|was|not)\b)"
)
"""A word where a value is printed, not a word of a sentence."""
_certain: list[str] = []
_exact = _strong = _weak = _NOTHING
_pieces: frozenset[str] = frozenset()


def remember(value: str, *, key: bool = True) -> str:
    """The value, which is hidden from now on, in other encodings too; pieces of it only if it is a `key`.

    Of "Bearer …" and "Basic …" the second part is secret too, and the password. Values that may be words of any message
    ("EMPTY", "test-key") are hidden in the texts of servers alone, where a value is printed. No secret is a key of less
    than 4 characters, or another value that does not look random: an address, the name of a model, a version.
    """
    global _certain, _exact, _strong, _weak, _pieces
    value = str(value)  # of a subclass
    if len(value) < 4 or _known.get(value) in (True, key):
        return value
    if not key and not _is_random(value):
        return value
    scheme, _, rest = value.partition(" ")
    if scheme.lower() in ("basic", "bearer"):
        remember(rest.strip())
    if scheme.lower() == "basic":
        with suppress(ValueError):
            login = base64.b64decode(rest + "==").decode()
            remember(login)
            remember(login.partition(":")[2])
    with _lock:
        if len(_known) >= 1_000:  # a process that gets new keys all the time
            del _known[next(iter(_known))]
        _known[value] = key
        strong = {one: is_key for one, is_key in _known.items() if _is_strong(one)}
        forms = {form: (is_key, one) for one, is_key in strong.items() for form in encoded(one)}
        long = [form for form, (is_key, _) in forms.items() if is_key and len(form) >= 2 * PIECE]
        weak = [form for one in _known.keys() - strong.keys() for form in encoded(one)]
        _certain = [form for form, (is_key, one) in forms.items() if is_key and _MIXED.search(one)]
        anywhere = [form for form in _certain if _is_random(forms[form][1])]
        _exact = re.compile(f"{_any(anywhere)}|{_words(_certain)}")
        _strong, _weak = re.compile(f"{_any(long)}|{_words(forms)}"), re.compile(_PRINTED.format(_words(weak)))
        long = [form for form in long if form in _certain]
        _pieces = frozenset([one[at : at + PIECE] for one in long for at in range(len(one) - PIECE + 1)])
    return value


def forget() -> None:
    """Forget all secrets."""
    global _certain, _exact, _strong, _weak, _pieces
    with _lock:
        _known.clear()
        _certain, _pieces = [], frozenset()
        _exact = _strong = _weak = _NOTHING


def _is_strong(value: str) -> bool:
    return (len(value) >= 8 and re.search(r"\d", value) is not None) or re.fullmatch(r"\S{16,}", value) is not None


def _is_random(value: str) -> bool:
    has_symbols = len(value) >= 8 and re.search(r"\d", value) and re.search(r"[^\w\s.:/,-]", value)
    return bool(has_symbols or re.search(RANDOM, value, re.IGNORECASE))


def _any(texts: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, texts), key=len, reverse=True)) or "(?!)"


def _words(texts: Iterable[str]) -> str:
    return rf"(?<![^\W_])(?:{_any(texts)})(?![^\W_])"


def remember_all(settings: object) -> None:
    """Remember each secret in these settings: what has a secret name, or looks like a key.

    Of what may be a header for every reader, such as a type or an address, only what looks random.
    """

    def remember_one(secret: Any) -> None:  # noqa: ANN401
        value = str(getattr(secret, "get_secret_value", lambda: secret)())
        if not is_reference(value):
            remember(value, key=not re.search("[/ ]", value) or bool(re.match("(?i:basic|bearer) ", value)))

    changed(settings, remember_one)


def encoded(value: str) -> Iterator[str]:
    """A secret as servers and libraries may print it: percent-encoded, in base64, escaped for JSON, HTML or Python."""
    percent = quote(value, safe="", errors="replace")
    yield from (value, percent, re.sub("%..", lambda one: one[0].lower(), percent), quote(value, errors="replace"))
    yield from (quote_plus(value, errors="replace"), html.escape(value), repr(value)[1:-1])
    for escaped in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield from (escaped, escaped.replace("/", r"\/"), json.dumps(escaped.replace("/", r"\/"))[1:-1])
        yield re.sub(r"[&<>+=/']", lambda one: f"\\u{ord(one[0]):04x}", escaped)
    in_base64 = base64.b64encode(value.encode("utf-8", "replace")).decode()
    yield from (in_base64, in_base64.rstrip("="), in_base64.rstrip("=").replace("+", "-").replace("/", "_"))


def hide(text: str) -> str:
    """The text without whole keys. Only those with a digit: any other text stays as it is."""
    return _exact.sub(HIDDEN, text) if any(form in text for form in _certain) else text


def redact(text: str) -> str:
    """The text without anything that was remembered and without pieces of keys, for errors and logs."""
    text = _strong.sub(HIDDEN, hide(text))
    runs: list[list[int]] = []
    for at in [at for at in range(len(text) - PIECE + 1) if text[at : at + PIECE] in _pieces] if _pieces else ():
        if runs and at <= runs[-1][1]:
            runs[-1][1] = at + PIECE
        else:
            runs.append([at, at + PIECE])
    for start, end in reversed(runs):
        if not re.fullmatch(r"[\W_]*\w?[a-z]+[\W_]*", text[start:end]):  # a plain word
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


def quoted(text: str, longest: int = 400) -> str:
    """The beginning of a server's text on one line, cut after it was redacted, without what looks like a key."""
    text = LIKE_A_KEY.sub(HIDDEN, _weak.sub(HIDDEN, redact(text[: 20 * longest])))
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else f"{line[:longest]}…"


def shown(value: object, longest: int = 100) -> str:
    """A wrong value in an error, without anything that may be a key in the wrong place."""
    return unsuspicious(f"{masked(value)!r:.{4 * longest}}")[:longest]


def unsuspicious(text: str) -> str:
    """The text without anything that may be a key."""
    return redact(LIKE_A_KEY.sub(HIDDEN, PERHAPS_A_KEY.sub(HIDDEN, text)))


def changed(value: Any, change: Callable[[Any], Any], is_secret: bool = False) -> Any:  # noqa: ANN401
    """Settings with each secret changed, or left out if the change is `...`.

    Secret is what has a secret name, all in a mapping that has one, and what looks like a key.
    """
    if isinstance(value, Mapping):
        named = {
            name: changed(one, change, is_secret or bool(SECRET_NAME.search(str(name)))) for name, one in value.items()
        }
        return {name: one for name, one in named.items() if one is not ...}
    if type(value) in (list, tuple):
        return type(value)([one for one in (changed(one, change, is_secret) for one in value) if one is not ...])
    if (
        value is None
        or isinstance(value, bool)
        or not (is_secret or (isinstance(value, str) and LIKE_A_KEY.fullmatch(value)))
    ):
        return value
    return change(value)


def masked(value: Any) -> Any:  # noqa: ANN401
    """Settings with a digest in place of each secret: the same for the same settings, and slow to guess from."""

    def digest(secret: Any) -> Any:  # noqa: ANN401
        raw = str(secret).encode("utf-8", "surrogatepass")
        if is_reference(secret) or re.fullmatch(rb"<key [\da-f]{12}>", raw):  # masked before
            return secret
        return f"<key {pbkdf2_hmac('sha256', raw, b'rankr1', 50_000).hex()[:12]}>"

    return changed(value, digest)


def public(value: Any, is_secret: bool = False) -> Any:  # noqa: ANN401
    """Settings without their secrets; "$NAME", a variable of the environment, is none."""
    return changed(value, lambda one: one if is_reference(one) else ..., is_secret)


def is_reference(value: object) -> bool:
    """Whether this is "$NAME" or "${NAME}", a variable of the environment."""
    return isinstance(value, str) and re.fullmatch(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})", value, re.ASCII) is not None


def check_variable(option: str, name: str) -> None:
    """ValueError for what is no name of a variable of the environment, or looks like a key itself."""
    is_name = re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) and len(name) <= 100
    if not is_name or (shown_variable(name) != name and unsuspicious(name) != name):
        raise ValueError(
            f"{option} is no name of an environment variable (got {len(name)} characters, not shown as they may be the "
            "key itself): put the key into a variable, and use the name of that, MY_API_KEY for example"
        )


def shown_variable(name: str) -> str:
    """The name of a variable in an error: only its beginning if it may be a key, given in place of a name."""
    is_usual = name in os.environ or (re.fullmatch(r"[A-Z][A-Z\d_]*", name) and len(re.sub(r"\D", "", name)) < 6)
    return name if is_usual else f"{name[:3]}…"
