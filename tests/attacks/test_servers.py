"""Whatever a server sends becomes a valid completion or an error of the backend, soon and in bounded memory."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
import pickle
import re
import time
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag import Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.openai.refusals import LARGEST, retry_after
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import load_balanced
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.frameworks.llm import completion_from_reply
from rankr1_rag.io.jsonl import ranking_to_json
from rankr1_rag.types import Completion, TokenLogprob
from tests.attacks.conftest import RawServer, Send, examples, http
from tests.backends.conftest import chat, environment
from tests.backends.small_model import python

pytestmark = [pytest.mark.third_party, pytest.mark.usefixtures("environment")]
__all__ = ["environment"]

USER = {"role": "user", "content": "Which?"}
REQUEST = Request([USER], 8, logprobs=2)
BEGUN = Request([USER, {"role": "assistant", "content": "<think>x</think> <answer>["}], 8, logprobs=2)
GONE, WRONG = BackendUnavailable, BackendError
REASONS = {"stop", "length", "content_filter", "tool_calls", "function_call", "unknown"}


def ask(server: RawServer, request: Request = REQUEST, /, **options: Any) -> Completion | BackendError:
    """The completion, or the error if it is one that a backend may raise; both checked."""

    async def job() -> Completion | BackendError:
        backend = OpenAI("m", **{"base_url": server.url, "timeout": 5.0, **options})
        try:
            return await asyncio.wait_for(backend.complete(request), 20)
        except BackendError as error:
            return error
        finally:
            await backend.close()

    outcome = asyncio.run(job())
    check(outcome)
    return outcome


def check(outcome: Completion | BackendError) -> None:
    """A completion is valid in every field, and can be stored and written; an error is short and can be pickled."""
    if isinstance(outcome, BackendError):
        assert type(outcome).__module__ == "rankr1_rag.errors"
        assert len(str(outcome)) < 1_000
        assert str(outcome).isprintable()
        assert pickle.loads(pickle.dumps(outcome)).args == outcome.args
        return
    counts = outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens
    assert all(type(one) is int and 0 <= one < 2**33 for one in counts)
    assert outcome.cached_tokens <= outcome.prompt_tokens
    assert outcome.finish_reason in REASONS
    tokens = [(one.token, one.logprob) for one in outcome.logprobs or ()]
    tokens += [pair for one in outcome.logprobs or () for pair in one.top]
    assert all(type(one) is TokenLogprob for one in outcome.logprobs or ())
    assert all(type(value) is float and -9999 <= value <= 0 for _, value in tokens)
    for text in (outcome.text, *(token for token, _ in tokens)):
        assert type(text) is str
        text.encode()
    json.dumps(asdict(outcome), allow_nan=False)


# ---- a good reply, changed anywhere


def with_logprobs(reply: dict[str, Any], logprobs: object) -> dict[str, Any]:
    reply["choices"][0]["logprobs"] = logprobs
    return reply


ENTRY = {"token": "1", "logprob": -0.5, "bytes": [49], "top_logprobs": [{"token": "1", "logprob": -0.5}]}
PLAIN = {"tokens": ["1", "]"], "token_logprobs": [-0.1, -2], "top_logprobs": [{"1": -0.1, "2": -3.0}, None]}
THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "[1]"}]
REPLIES: list[dict[str, Any]] = [
    with_logprobs(chat(), {"content": [ENTRY, {"token": "]", "logprob": 0}]}),
    chat("[1]", "length", reasoning="hm", reasoning_content="hm", refusal=None),
    chat(THINKING),
    {"choices": [{"text": "1]", "finish_reason": "stop", "logprobs": PLAIN}], "usage": {"prompt_tokens": 3}},
    {"tokens": [1, 2, 3], "count": 3},
    {"prompt": "<think>"},
    {"error": {"message": "no", "type": "x", "param": "stop", "code": 429}},
    {"object": "error", "message": "no", "code": 404, "detail": [{"loc": ["body", "stop"], "msg": "x"}]},
]
RAW = {"DEEP": "[" * 100_000 + "]" * 100_000, "DEEP DICT": '{"a":' * 900 + "1" + "}" * 900, "DIGITS": "9" * 5_000}
RAW |= {"MORE": "9" * 4_000, "LESS": "-" + "9" * 4_000, "INFINITE": "1e999", "NAN": "NaN", "MINUS": "-Infinity"}
RAW |= {"SURROGATE": r'"a\ud800b\u0000\u001b[2J"', "NOTHING": "", "NOT UTF-8": '"\udcff\udcc0"'}
HOSTILE = [None, True, False, 0, -1, 2**31, 2**63, 1.5, -0.5, 1e-9, 3.0, -1e300, "", "x", "stop", "abort", "-0.5", 400]
HOSTILE += [[], [[]], {}, [None], ["stop"], {"a": [1]}, {"text": {"text": "x"}}, [{"text": 1}], "x" * 5_000, *RAW]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(reply: Any, path: tuple[Any, ...], value: object) -> Any:
    """The reply with another value at this path, or without it if that is "NOTHING"."""
    if not path:
        return value
    inner = reply
    for key in path[:-1]:
        inner = inner[key]
    if value == "NOTHING":
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return reply


def to_bytes(reply: Any) -> bytes:
    text = json.dumps(reply)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode("utf-8", "surrogateescape")


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    reply = deepcopy(draw(st.sampled_from(REPLIES)))
    for _ in range(draw(st.integers(1, 3))):
        reply = changed(reply, draw(st.sampled_from(list(places(reply)))), deepcopy(draw(st.sampled_from(HOSTILE))))
    return to_bytes(reply)


@examples(60)
@given(
    st.lists(replies(), min_size=1, max_size=4),
    st.sampled_from(["200 OK"] * 8 + ["400 Bad", "422 Bad", "500 Bad", "201 Created", "307 Moved"]),
    st.sampled_from([(None, REQUEST), ("vllm", REQUEST), ("vllm", BEGUN), ("llama-server", BEGUN)]),
)
def test_a_reply_changed_anywhere_is_a_valid_completion_or_an_error(
    server: RawServer, bodies: list[bytes], status: str, asked: tuple[Any, Request]
) -> None:
    queue = chain(bodies, repeat(bodies[-1]))
    server.script = lambda path, body: http(next(queue), status)
    ask(server, asked[1], server=asked[0])


@examples(25)
@given(st.lists(st.sampled_from(HOSTILE), min_size=5, max_size=5), replies(), st.booleans())
def test_a_server_that_tokenizes_may_say_anything(
    server: RawServer, values: list[Any], body: bytes, is_good: bool
) -> None:
    def script(path: str, asked: Any) -> bytes:
        if path.endswith("chat/completions"):
            return http('{"error": {"message": "continue_final_message"}}', "400 Bad") if "add" in str(asked) else body
        if path == "/detokenize":
            return http(json.dumps({"prompt": values[0]}))
        tokens = [1, 2] if is_good else values[1:3]
        return http(json.dumps({"tokens": tokens if path == "/tokenize" else values[4]}))

    server.script = script
    ask(server, BEGUN, server="vllm")


LOGPROBS = "choices.0.logprobs.content.0"
WRONG_LOGPROBS = {"": "x", ".token": 1, ".top_logprobs": {"a": 1}, ".top_logprobs.0.logprob": "MORE"}
CHANGES: list[tuple[str, object, str | None]] = [
    ("choices.0.finish_reason", ["stop"], None),
    ("choices", {"0": 1}, "has no choices"),
    ("choices.0", "x", "has no message"),
    ("choices.0.message", ["x"], "has no message"),
    ("choices.0.message.content", 7, "content is not a text"),
    ("choices.0.message.content", {"a": 1}, "content is not a text"),
    ("choices.0.message.content", [{"text": ["x"]}], "content is not a text"),
    *((LOGPROBS + path, value, "logprobs cannot be read") for path, value in WRONG_LOGPROBS.items()),
    *((f"{LOGPROBS}.logprob", value, "logprobs cannot be read") for value in ("NAN", 0.5, True)),
    (f"{LOGPROBS}.logprob", "MINUS", None),
    *(("usage.prompt_tokens", value, None) for value in (-5, "MORE", True)),
    ("usage.prompt_tokens", "DIGITS", "no JSON"),
    ("id", "DEEP", "no JSON"),
]


@pytest.mark.parametrize(("path", "value", "message"), CHANGES)
def test_a_wrong_field_is_named_with_what_came(
    server: RawServer, path: str, value: object, message: str | None
) -> None:
    keys = tuple(int(key) if key.isdigit() else key for key in path.split("."))
    body = to_bytes(changed(deepcopy(REPLIES[0]), keys, value))
    server.script = lambda path, _: http(body)
    outcome = ask(server)
    if message is None:
        assert isinstance(outcome, Completion)
        assert outcome.text == "<answer>[1]</answer>"
    else:
        assert type(outcome) is GONE
        assert re.search(f'{message}.*: {{"', str(outcome)), outcome


@examples(30)
@given(st.lists(replies(), min_size=1, max_size=4), st.sampled_from([{"probabilities": True}, {"votes": "auto"}, {}]))
def test_a_ranking_of_such_replies_is_one_or_an_error(server: RawServer, bodies: list[bytes], settings: Any) -> None:
    queue = chain(bodies, repeat(bodies[-1]))
    server.script = lambda path, body: http(next(queue))

    async def job() -> None:
        async with Reranker(OpenAI("m", base_url=server.url, server="vllm"), k=1, **settings) as reranker:
            try:
                ranking = await reranker.arank("which?", ["a", "b", "c"])
            except BackendError as error:
                check(error)
            else:
                assert sorted(ranking.order) == [0, 1, 2]
                json.dumps(ranking_to_json(ranking), allow_nan=False)

    asyncio.run(job())


def test_wrong_counts_make_no_negative_cost(server: RawServer) -> None:
    reply = {**chat(), "usage": {"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12}}
    server.script = lambda path, body: http(json.dumps(reply))
    with Reranker(OpenAI("m", base_url=server.url), k=1) as reranker:
        cost = reranker.rank("which?", ["a", "b"]).cost
    assert (cost.prompt_tokens, cost.completion_tokens, cost.comparisons) == (0, 0, 1)


@examples(25)
@given(
    st.dictionaries(
        st.sampled_from(["usage", "prompt_tokens", "input_tokens", "output_tokens", "cached_tokens", "stop_reason"]),
        st.sampled_from([-1, True, 2**80, 1.5, "7", None, 9, ["stop"], {"input_tokens": -3, "cached_tokens": 99}]),
    )
)
def test_the_reply_of_a_framework_has_valid_counts_too(source: dict[str, Any]) -> None:
    check(completion_from_reply("x", "", source))


# ---- answers, byte for byte

GOOD = json.dumps(chat())
TEXT = "<answer>[1]</answer>"
HEAD = "HTTP/1.1 {}\r\nContent-Type: application/json\r\n{}\r\n".format


def endless(head: str, part: bytes, pause: float = 0.0, start: bytes = b"") -> Send:
    """Sends for 5 seconds, or until the client closes."""

    def send(write: Callable[[bytes], object]) -> None:
        write(head.encode() + start)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            write(part)
            time.sleep(pause)

    return send


def bomb(head: str) -> Send:
    """64 MiB of blanks in 64 KB, again and again."""
    packer = zlib.compressobj(wbits=31)
    start, again = [packer.compress(b" " * 2**26) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)]
    return endless(head, again, start=start)


BLANKS = b" " * 2**16
CHUNKS = "Transfer-Encoding: chunked\r\n"
ANSWERS: list[tuple[str, bytes | Send, type[BackendError] | None, str]] = [
    ("as it should be", http(GOOD), None, ""),
    ("a byte order mark", http("\ufeff" + GOOD), None, ""),
    ("an unknown charset", http(GOOD, Content_Type="application/json; charset=nonsense"), None, ""),
    ("a codec that is no charset", http(GOOD, Content_Type="application/json; charset=zlib_codec"), None, ""),
    ("charset idna", http(GOOD, Content_Type="application/json; charset=idna"), None, ""),
    ("a charset with NUL", http(GOOD, Content_Type='application/json; charset="\x7f"'), None, ""),
    ("invalid UTF-8", http(GOOD.encode().replace(b"<answer>", b"\xff\xc0<answer>")), None, ""),
    ("gzip", http(gzip.compress(GOOD.encode()), Content_Encoding="GZIP"), None, ""),
    ("deflate", http(zlib.compress(GOOD.encode()), Content_Encoding="deflate"), None, ""),
    ("no gzip", http(GOOD, Content_Encoding="gzip"), GONE, "returned an answer that is not gzip"),
    ("half a gzip", http(gzip.compress(GOOD.encode())[:50], Content_Encoding="gzip"), GONE, "incomplete"),
    ("brotli", http(GOOD, Content_Encoding="br"), GONE, "content-encoding 'br', which was not asked for"),
    ("an error that is no gzip", http("no", "401 No", Content_Encoding="gzip"), WRONG, "answered 401: no"),
    ("text behind the JSON", http(GOOD + "x"), GONE, "no JSON: {"),
    ("two replies in one", http(GOOD + GOOD), GONE, "no JSON: {"),
    ("bytes behind the answer", http(GOOD) + b"HTTP/1.1 200 OK\r\nContent-Le", None, ""),
    ("nothing", b"", GONE, "cannot be reached or broke off"),
    ("no HTTP", b"SSH-2.0-OpenSSH_9.6\r\n", GONE, "cannot be reached or broke off"),
    ("half a header", b"HTTP/1.1 200 OK\r\nContent-", GONE, "cannot be reached or broke off"),
    ("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", GONE, "broke off"),
    ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", GONE, "broke off"),
    ("too little", http(GOOD, Content_Length=10**6, Connection="close"), GONE, "broke off"),
    ("no length, and closed", http(GOOD, Content_Length=None), None, ""),
    ("a chunk that is none", HEAD("200 OK", CHUNKS).encode() + b"zz\r\n{}", GONE, "broke off"),
    ("a status that is none", b"HTTP/1.1 2x0 OK\r\n\r\n", GONE, "broke off"),
    ("101", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", GONE, "broke off"),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", GONE, "no JSON: nothing"),
    ("205", http("", "205 Reset"), GONE, "no JSON: nothing"),
    ("300", http("", "300 Many"), WRONG, "answered 300: nothing"),
    ("304", b"HTTP/1.1 304 Not Modified\r\n\r\n", WRONG, "answered 304: nothing"),
    ("a redirect to itself", http("", "307 Moved", Location="/v1/chat/completions"), WRONG, "redirects to '/v1"),
    ("a redirect to no address", http("", "308 Moved", Location="http://[::1/\x7f"), GONE, "Invalid URL in location"),
    ("999", http("x", "999 Odd"), GONE, "answered 999: x"),
    ("a deep error", http(RAW["DEEP"], "400 Bad"), WRONG, r"answered 400: \[\["),
    ("an error in a deep field", http(f'{{"error": {RAW["DEEP DICT"]}}}', "400 Bad"), WRONG, "answered 400: {"),
    ("an error of one text", http(json.dumps({"error": "x" * 10**6}), "400 Bad"), WRONG, "answered 400: xxx.*…$"),
    ("a code of many digits", http(f'{{"error": {{"code": {RAW["MORE"]}}}}}'), GONE, "answered 200: {"),
    ("a cookie that is none", http(GOOD, Set_Cookie="x=y; expires=99999999999999999999; max-age=x"), None, ""),
    ("headers of megabytes", endless(HEAD("200 OK", "")[:-2], b"X-A: " + b"a" * 60_000 + b"\r\n"), GONE, ""),
    ("endless 100s", endless("", b"HTTP/1.1 100 Continue\r\n\r\n" * 99), GONE, "within timeout=0.1 s"),
    ("endless, a length", endless(HEAD("200 OK", "Content-Length: 9999999999\r\n"), BLANKS), GONE, "16 MiB"),
    ("endless, none", endless(HEAD("200 OK", ""), BLANKS), GONE, "more than 16 MiB"),
    ("endless chunks", endless(HEAD("200 OK", CHUNKS), b"10000\r\n%b\r\n" % BLANKS), GONE, "16 MiB"),
    ("an endless error", endless(HEAD("401 No", ""), b"no" * 2**15), WRONG, "answered 401: nono.*…"),
    ("an endless outage", endless(HEAD("503 No", ""), b"no" * 2**15), GONE, "answered 503: nono.*…"),
    ("a bomb", bomb(HEAD("200 OK", "Content-Encoding: gzip\r\n")), GONE, "more than 16 MiB"),
    ("a drip", endless(HEAD("200 OK", ""), b" ", 0.01), GONE, "within timeout=0.1 s"),
    ("a drip of headers", endless("HTTP/1.1 200 OK\r\nX: ", b"x", 0.01), GONE, "within timeout=0.1 s"),
    ("a drip of an error", endless(HEAD("500 No", ""), b"x", 0.01), GONE, "within timeout=0.1 s"),
    ("silence", endless("", b"", 0.01), GONE, "within timeout=0.1 s"),
]


@pytest.mark.parametrize("case", ANSWERS, ids=[one[0] for one in ANSWERS])
def test_whatever_bytes_come(server: RawServer, case: tuple[Any, ...]) -> None:
    _, answer, kind, message = case
    server.script = lambda path, body: answer
    before = time.monotonic()
    outcome = ask(server, timeout=0.1 if "0.1 s" in message else 20.0)
    assert time.monotonic() - before < 10
    if kind is None:
        assert isinstance(outcome, Completion), outcome
        assert outcome.text.endswith(TEXT)
    else:
        assert type(outcome) is kind, outcome
        assert re.search(message, str(outcome)), outcome


def test_an_answer_of_any_size_takes_a_bounded_memory(server: RawServer) -> None:
    written = 0

    def send(write: Callable[[bytes], object]) -> None:
        nonlocal written
        write(HEAD("200 OK", "").encode())
        while True:
            write(BLANKS)
            written += 2**16

    server.script = lambda path, body: send
    ask(server)
    assert LARGEST <= written < 3 * LARGEST


def test_a_wrong_proxy_is_an_error_too(server: RawServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", "nonsense://me:secret@host:99999")
    assert type(error := ask(server, base_url="http://host.invalid/v1")) is WRONG
    assert "proxy" in str(error)
    assert "secret" not in str(error)


@pytest.mark.skipif(importlib.util.find_spec("huggingface_hub") is None, reason="huggingface_hub is not installed")
def test_the_hub_may_say_anything_too(server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
        from rankr1_rag.backends.hub import find
        from rankr1_rag.errors import BackendError
        for name in {list(HUB)}:
            try:
                find("me/" + name).file("config.json")
            except BackendError as error:
                print(type(error).__name__, error)
    """
    server.script = lambda path, _: HUB[path.split("/")[2]]
    monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/v1"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = python(tmp_path / "script.py", code)
    said = done.stdout.splitlines()
    assert [re.match(r"Backend\w+ .*me/(\w+)", one)[1] for one in said] == list(HUB), done.stderr


FOUND = b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 2\r\nX-Repo-Commit: '
HUB = {
    "other": b"SSH-2.0-OpenSSH_9.6\r\n",
    "moved": b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n",
    "path": FOUND + b"../../../../evil\r\n\r\n",
}


# ---- its wishes

FAR = ["1000000000", "9" * 5_000, "60.5", "1e9", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 99999 23:59:59 GMT"]
FAR += ["Fri, 31 Dec 9999 23:59:59 -9999", "Fri, 31 Dec 0000 00:00:00 +2359", "1 Jan 9999999999999999999 00:00:00 GMT"]
FAR += ["-5", "nan", "inf", "-inf", "", " ", ",", "5, 1000000000", "\xff", "१०", "Mon, 99 Foo 2030 99:99:99 GMT"]
FAR += ["0x10", "Thu, 01 Jan 1970 00:00:00", "Thu, 01 Jan 1970 00:00:00 GMT, 7"]


def check_wish(headers: Any) -> None:
    wish = BackendUnavailable("429", retry_after(headers)).retry_after
    assert wish is None or 0 <= wish <= 60, headers


@pytest.mark.parametrize("name", ["Retry-After", "retry-after-ms"])
def test_a_wish_is_read_or_left_and_never_more_than_a_minute(name: str) -> None:
    for value in FAR:
        check_wish(httpx.Headers([(name, value.encode())]))


NUMBERS, ZONES = st.integers(0, 10**20), st.sampled_from(["GMT", "", "+2359", "-9999"])
DATES = st.builds("Fri, {} Dec {} {}:00:{} {}".format, st.integers(0, 40), NUMBERS, st.integers(0, 30), NUMBERS, ZONES)


@examples(30)
@given(st.text() | DATES)
def test_no_wish_is_an_exception(value: str) -> None:
    check_wish({"retry-after": value})


@pytest.mark.parametrize("wish", [1e9, float("inf"), float("nan"), -1e9, 10**400])
def test_the_wish_of_any_backend_is_capped(wish: float) -> None:
    error = BackendUnavailable("429", wish)
    assert 0 <= error.retry_after <= 60
    assert pickle.loads(pickle.dumps(error)).retry_after == error.retry_after


def test_several_wishes_in_one_answer(server: RawServer) -> None:
    wishes = "7\r\nRetry-After: 1000000000\r\nRetry-After: x"
    server.script = lambda path, body: http("", "429 Slow", retry_after=wishes)
    error = ask(server)
    assert isinstance(error, BackendUnavailable)
    assert error.retry_after == 7


def test_the_wish_of_one_server_stops_no_other_and_that_of_all_only_a_minute() -> None:
    def script(name: str) -> Callable[[Any], str]:
        def answer(messages: object) -> str:
            if name in broken:
                raise BackendUnavailable("429", retry_after=1e9)
            return name

        return answer

    async def job() -> None:
        assert {(await backend.complete(REQUEST)).text for _ in range(9)} == {"b"}
        broken.append("b")
        for _ in range(2):
            with pytest.raises(BackendUnavailable) as caught:
                await backend.complete(REQUEST)
            assert 50 < caught.value.retry_after <= 60
        assert all(endpoint.barred_until - time.monotonic() <= 60 for endpoint in backend._endpoints.get())

    broken = ["a"]
    backend = load_balanced([Scripted(script(name), identity=name) for name in "ab"])
    asyncio.run(job())


# ---- addresses

REPAIRED = {
    " \t\nhttp://host:8000/v1\r\n ": "http://host:8000/v1",
    "http://host//v1//": "http://host/v1",
    "http://host:8000//v1//chat/completions": "http://host:8000/v1",
    "HTTP://Host/v1": "http://Host/v1",
    "http://[::1]:8000/v1": "http://[::1]:8000/v1",
    "http://[fe80::1%eth0]:8000/v1": "http://[fe80::1%eth0]:8000/v1",
    "http://a_b-c.example/v1?x=1#y": "http://a_b-c.example/v1",
    "http://bücher.example/v1": "http://bücher.example/v1",
    "http://127.0.0.1/@v1": "http://127.0.0.1/@v1",
}
HOSTS = "/host/v1 ///v1 ////host/v1 //http://host/v1 //:8000/v1 //[::1/v1 //::1]/v1 //::1/v1 //[]/v1 //[host]/v1 "
HOSTS += "//[::1%25eth0]/v1 //[::1%]/v1 //host:99999/v1 //host:abc/v1 //host:-1/v1 //host:/v1 //host:0/v1 //host./v1 "
HOSTS += "//host:\uff18\uff10/v1 //host:8000v1 //.host/v1 //a..b/v1 //999.1.1.1/v1 //ex%61mple/v1 //host\\evil/v1 "
HOSTS += f"//☃️.example/v1 //{'a' * 64}.example/v1 //{'a.' * 200}example/v1"
BLANKS_IN = ["ho st/v1", "ho\nst/v1", "host/v\t1", "host/v1\x00", "host/\x1b[2Jv1", "host/\u202ev1"]
SCHEMES = ["\ufeffhttp://host/v1", "host:8000/v1", "//host/v1", "htp://host/v1", "file:///etc/passwd"]
REFUSED = [(f"http:{one}", "its host or its port is malformed") for one in HOSTS.split()]
REFUSED += [(f"http://{one}", "it contains a blank or a control character") for one in BLANKS_IN]
REFUSED += [(one, "it does not begin with http:// or https://") for one in SCHEMES]


@pytest.mark.parametrize("url", REPAIRED)
def test_an_address_is_repaired_where_its_meaning_is_certain(url: str) -> None:
    assert OpenAI("m", base_url=url).base_url == REPAIRED[url]


@pytest.mark.parametrize(("url", "problem"), REFUSED)
def test_any_other_is_refused_at_once_with_fault_value_and_remedy(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match="use one like http://localhost:8000/v1") as caught:
        OpenAI("m", base_url=url)
    message = str(caught.value)
    assert problem in message
    assert message.isprintable()
    assert re.sub(r"[^!-~]+", "", url)[:12] in re.sub(r"[^!-~]+", "", message)


@pytest.mark.parametrize(
    "url",
    [
        *("http://me:{}@host/v1", "ftp://me:{}@host", "http://{}@[::1", "me:{}@host", "http://a:{}#b@h"),
        *("host/v1?api_key={}", "http://host:abc/v1?x=a@b&key={}", "http://ho st/#{}", "http://x:{}@h:99999"),
    ],
)
def test_no_secret_of_a_refused_address_is_shown(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        OpenAI("m", base_url=url.format("Geheim1"))
    assert "Geheim1" not in str(caught.value)


@examples(100)
@given(
    st.one_of(
        st.text(),
        st.builds(
            "{}://{}{}{}".format,
            st.sampled_from(["http", "https", "HTTP", "ftp", ""]),
            st.text("ab.-_:[]%@ü1\uff19\\\n \x00", max_size=12) | st.text(max_size=6) | st.just("host"),
            st.sampled_from(["", ":80", ":", ":x", ":99999"]),
            st.text("/av1?#&=%@ \n", max_size=8),
        ),
    )
)
def test_an_address_is_refused_or_usable(url: str) -> None:
    try:
        base_url = OpenAI("m", base_url=url).base_url
    except ValueError as error:
        assert re.match("base_url=|the query of", str(error))  # noqa: PT017
        return
    if url:
        httpx.Request("POST", base_url + "/chat/completions")
        assert not re.search(r"\s", base_url)
        assert "//" not in base_url.partition("://")[2]
