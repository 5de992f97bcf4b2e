"""No key leaves the process: not in an error, a log, a file, a page, a pickle or a dump, whatever a server says."""

from __future__ import annotations

import base64
import io
import json
import logging
import pickle
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rankr1_rag import Passage, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.wrappers import load_balanced, retried, stored
from rankr1_rag.cli import main
from rankr1_rag.connect import connect
from rankr1_rag.errors import BackendError
from rankr1_rag.explain import write_page
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.io.journal import Journal
from rankr1_rag.io.jsonl import ranking_to_json, to_line
from rankr1_rag.redaction import (
    PIECE,
    encoded,
    excerpt,
    excerpt_of,
    hide_keys,
    redact,
    remember,
    remember_all,
    with_digests,
    without_secrets,
)
from rankr1_rag.settings import Connection
from rankr1_rag.types import Completion
from tests.attacks.conftest import SCALE, RawServer, examples, http
from tests.backends.conftest import chat, environment

pytestmark = [pytest.mark.third_party, pytest.mark.usefixtures("environment")]
__all__ = ["environment"]

KEY = "Zq7/Wx+42=Yv&Bn8%Kd9uT3?Ms61"
"""Looks like no key that is known by its form, and is written otherwise in every encoding."""
PIECES = {form[at : at + PIECE] for form in encoded(KEY) for at in range(len(form) - PIECE + 1)}
NAMED: dict[str, Any] = {"model": "m", "base_url": "http://localhost:9/v1"}
QUERY: dict[str, Any] = {"query": "which moth?", "passages": ["a moth", "a lunar moth"]}


def leaks(*texts: object) -> list[str]:
    """The pieces of the key, in any encoding, that these texts hold."""
    whole = "\n".join(one.decode("latin-1") if isinstance(one, bytes) else str(one) for one in texts)
    return sorted(PIECES & {whole[at : at + PIECE] for at in range(len(whole) - PIECE + 1)})


def explained(error: BaseException) -> str:
    """All that an error may print: the chain of its causes, all with their variables, and its pickle."""
    found: list[str] = []
    chain: list[BaseException | None] = [error]
    while chain:
        if (one := chain.pop()) is not None:
            chain += [one.__cause__, one.__context__]
            found += traceback.TracebackException.from_exception(one, capture_locals=True).format()
            found += [repr(one), repr(vars(one))]
    return "".join(found) + str(pickle.dumps(error))


def attempt(call: Callable[[], object]) -> str:
    """What comes of a call, in print."""
    try:
        return repr(call())
    except Exception as error:
        return explained(error)


def answer(body: object = None, status: str = "200 OK", **headers: str) -> bytes:
    text = body if isinstance(body, str) else json.dumps(chat() if body is None else body)
    return http(text, status, Connection="close", **headers)


def with_choice(**fields: object) -> Any:
    return {"choices": [chat()["choices"][0] | fields]}


BASIC = base64.b64encode(f"me:{KEY}".encode()).decode()
WHERE: dict[str, dict[str, Any]] = {
    "key": {"api_key": KEY},
    "key in a variable": {"api_key_env": "MY_KEY"},
    "default variable": {},
    "header": {"headers": {"X-Team": KEY}},
    "header in a variable": {"headers": {"X-Team": "$MY_KEY"}},
    "bearer": {"headers": {"authorization": f"Bearer {KEY}"}},
    "basic": {"headers": {"Authorization": f"Basic {BASIC}"}},
    "query": {"query": {"k": KEY}},
    "query in a variable": {"query": {"sig": "${MY_KEY}"}},
    "body": {"extra_body": {"provider": [{"auth": {"for": KEY}}]}},
    "body in a variable": {"extra_body": {"accessToken": "$MY_KEY"}},
}
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "cut": lambda key: f"{'x' * 380} {key}",
    "part": lambda key: f"it begins with {key[:9]}",
    "percent": lambda key: f"?k={quote(key, safe='')}&x",
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "escaped": lambda key: json.dumps({"k": key}).replace("/", r"\/"),
}
HAPPENS: dict[str, Callable[[str], bytes]] = {
    "success": lambda said: answer(X_Echo=said),
    "content": lambda said: answer(chat(f"<think>{said}</think> <answer>[1]</answer>")),
    "finish reason": lambda said: answer(with_choice(finish_reason=said)),
    "401": lambda said: answer({"error": {"message": f"wrong key: {said}"}}, "401 Unauthorized", X_Echo=said),
    "400": lambda said: answer({"detail": [{"input": said}]}, "400 Bad"),
    "400 temperature": lambda said: answer({"error": f"temperature is not supported {said}"}, "400 Bad"),
    "500": lambda said: answer(said, f"500 {said}"),
    "429": lambda said: answer(said, "429 Slow", Retry_After=said),
    "redirect": lambda said: answer("", "302 Found", Location=f"http://elsewhere/{said}"),
    "logprobs": lambda said: answer(with_choice(logprobs={"content": [{"token": "a", "logprob": said}]})),
    "no JSON": lambda said: answer(f"{{{said}"),
    "page": lambda said: answer(f"<html>{said}"),
    "no choices": lambda said: answer({"choices": {said: said}}),
    "no HTTP": lambda said: said.encode(),
    "broken off": lambda said: answer(said)[:-3],
}


PAIRS = [(where, happens) for where in WHERE for happens in HAPPENS]


@pytest.mark.parametrize(("where", "happens"), PAIRS if SCALE > 1 else PAIRS[::4])  # 4 and 15 have no common divisor
def test_a_key_that_a_server_sends_back_reaches_nothing(
    server: RawServer,
    where: str,
    happens: str,
    environment: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    server.bodies.clear()
    environment.setenv("MY_KEY", KEY)
    environment.setenv("RANKR1_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    backend = OpenAI("m", base_url=server.url, timeout=5, **WHERE[where])
    store = stored(load_balanced([retried(backend, attempts=1)]), tmp_path / "store.sqlite")
    rankings = []
    with Reranker(store, k=1, on_failure="first_stage", probabilities=False) as reranker:
        number = [*WHERE].index(where) + [*HAPPENS].index(happens)  # another form for each pair
        for form in [*FORMS.values()][number % 5 :: 5 - number % 5] if happens != "content" else [str]:
            sent = HAPPENS[happens](form(KEY))
            server.script = partial(lambda sent, path, body: sent, sent)
            rankings.append(reranker.rank(QUERY["query"], [Passage("1", "a moth"), Passage("2", "a lunar moth")]))
    write_page(rankings[0], tmp_path / "page.html")
    found: list[Any] = [path.read_bytes() for path in tmp_path.iterdir()]
    found += [to_line(ranking_to_json(ranking)) for ranking in rankings] + [repr(rankings), caplog.text]
    found += [attempt(lambda: Reranker(backend, k=1).rank(QUERY["query"], QUERY["passages"]))]
    found += [backend.identity, repr(backend), repr({**vars(backend), "_query": {}})]
    found += [attempt(lambda: pickle.dumps(backend))] if where != "query" else []
    assert [leaks(one) for one in found] == [[]] * len(found)
    assert any(KEY.encode() in body for body in server.bodies) == where.startswith("body")


@pytest.mark.parametrize("where", WHERE)
def test_nothing_shows_a_key_where_no_server_answers(
    where: str, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("MY_KEY", KEY)
    environment.setenv("HTTP_PROXY", f"http://me:{KEY[:3]}{KEY[4:]}@[::1/")  # a proxy with a password, and malformed
    caplog.set_level(logging.DEBUG)
    backends: list[Any] = [OpenAI("m", base_url="http://127.0.0.1:9/v1", **WHERE[where])]
    assert not leaks(attempt(lambda: Reranker(backends[0], k=1).rank("q", ["a", "b"])), caplog.text)
    environment.delenv("HTTP_PROXY")
    for seconds in (5, 0.000_001):
        backends[:] = [OpenAI("m", base_url="http://127.0.0.1:9/v1", timeout=seconds, **WHERE[where])]
        assert not leaks(attempt(lambda: Reranker(backends[0], k=1).rank("q", ["a", "b"])), caplog.text)


class FrameworkModel:
    """A model of a framework, whose errors show its key."""

    api_key: str

    def __init__(self) -> None:
        self.api_key = KEY


class Refused(FrameworkLLM):
    def chat(self, request: Request) -> Completion:
        try:
            raise ConnectionError("401", f"Authorization: Bearer {KEY}")
        except ConnectionError as error:
            raise ValueError(f"wrong key {KEY}") from error

    async def achat(self, request: Request) -> Completion:
        return self.chat(request)


def test_no_error_of_a_framework_s_model_shows_its_key_in_a_traceback() -> None:
    with pytest.raises(BackendError, match="ValueError: wrong key <key>") as caught:
        Reranker(Refused(FrameworkModel(), "m"), k=1).rank("q", ["a", "b"])
    shown = "".join(traceback.format_exception(caught.value)) + str(pickle.dumps(caught.value))
    assert "ConnectionError: [Errno 401] Authorization: Bearer <key>" in shown
    assert not leaks(shown)


# ---- a key in a wrong place

WRONG: list[dict[str, Any]] = [
    *(
        {"api_key_env": key}
        for key in (KEY, "sk-Zq7Wx42Yv", "Bearer x", "hf_" + "a1" * 17, "a8f5f167f44f4964e6c998dee8271")
    ),
    {"api_key": KEY, "timeout": "x"},
    {"api_key": KEY, "base_url": "ftp://h"},
    {"headers": {f"X: {KEY}": ""}},
    {"headers": {"X-Key": f"${KEY}"}},
    {"headers": KEY},
    {"headers": [KEY]},
    {"query": f"key={KEY}"},
    {"query": {"api_key": KEY}},
    {"query": {"clientSecret": KEY}},
    {"extra_body": KEY},
    {"extra_body": {"x": {1}, "secret": KEY}},
    {"options": KEY},
    {"options": {"api_key": KEY}},
    {"options": {"hf_token": KEY}},
    *({"base_url": f"{start}me:{quote(KEY)}@host/v1"} for start in ("http://", "", "htp://", "http:")),
    *({"base_url": f"http://host/v1{mark}api_key={quote(KEY)}"} for mark in "?#"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda one: ",".join(one))
def test_a_refused_option_does_not_show_its_value(wrong: dict[str, Any]) -> None:
    from tests.test_settings import Mine

    for make in (Connection, connect, Mine, OpenAI):
        arguments = {**NAMED, "backend": "openai", **wrong}
        if make is OpenAI:
            arguments.pop("backend")
            arguments.pop("options", None)
        try:
            shown: list[object] = [pickle.dumps(make(**arguments))]
            assert make is OpenAI, "nothing refused it"
        except (ValueError, TypeError, AttributeError) as error:
            shown = [error, repr(error)]
            if isinstance(error, ValidationError):
                shown += [error.errors(), error.json()]
        assert not leaks(*shown)
        value = str(wrong.get("api_key_env", KEY))
        assert value not in str(shown) or len(value) < 12


def test_the_name_of_a_variable_is_shown_and_a_key_in_its_place_is_not(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("odd8name8with8digits8", "x")
    backend = OpenAI(**NAMED, api_key_env="odd8name8with8digits8")
    assert backend._destination().key_name == "that in odd8name8with8digits8"
    for name in ("MY_KEY", "OPENROUTER_API_KEY_2", "hunter2hunter", "Zq7Wx42YvBn8"):
        shown = name if name.isupper() else f"{name[:3]}…"
        assert OpenAI(**NAMED, api_key_env=name)._destination().key_name == f"a dummy, as {shown} is not set"
        with pytest.raises(BackendError, match=f"variable {shown}, which is not set"):
            OpenAI(**NAMED, headers={"X-Key": f"${name}"})._destination()


# ---- settings, identities and journals


def test_secrets_of_settings_become_a_digest_and_nothing_else_changes(tmp_path: Path) -> None:
    plain = {
        "top_p": 0.9,
        "stop_token_ids": [1],
        "max_tokens": 5,
        "eos_token": "</s>",
        "prompt_cache_key": "a",
        "x": ("y",),
    }
    assert with_digests(plain) == without_secrets(plain) == plain
    identity = OpenAI(**NAMED, extra_body={"top_p": 0.9}).identity
    assert identity == 'openai:{"base_url": "http://localhost:9/v1", "extra_body": {"top_p": 0.9}, "model": "m"}'
    one, same, other = (OpenAI(**NAMED, extra_body={"a": {"api_key": key}}).identity for key in (KEY, KEY, KEY + "x"))
    assert one == same != other
    assert not leaks(one)
    for _ in range(2):  # resumed, with the same settings
        settings = {"options": {"engine": {"hf_token": KEY}}, "extra_body": {"password": 12345678, "user": "me"}}
        with Journal(tmp_path / "journal", "test", settings, {}, remedy="move it") as journal:
            journal.add("1", {})
    text = (tmp_path / "journal").read_text()
    assert not leaks(text)
    assert "12345678" not in text
    assert '"user": "me"' in text


@examples(60)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60), st.data())
def test_no_form_and_no_part_of_a_key_is_left(key: str, data: st.DataObject) -> None:
    key = f"{key}7Q"
    remember(key)
    form = data.draw(st.sampled_from(sorted(set(encoded(key)))))
    start = data.draw(st.integers(0, len(form)))
    part = form[start : data.draw(st.integers(start, len(form)))]
    left = redact(f"wrong: {part}").removeprefix("wrong: ").replace("<key>", " ")
    pieces = [part[at : at + PIECE] for at in range(len(part) - PIECE + 1)]
    assert not [one for one in pieces if one in left and not re.search(r"[a-z]{4}|^\d+$", one)]
    assert redact(redact(part)) == redact(part)
    assert key not in hide_keys(f"a {key} b")


def test_texts_of_users_stay_as_they_are() -> None:
    for value in ("localhost-key", "anything", "not-needed", "EMPTY", "search and find"):
        remember(value)
    text = "anything that localhost may search and find, EMPTY or not-needed, sk-1234567890 and Bearer x1y2z3"
    assert hide_keys(text) == text


ORDINARY = r"""
    Qwen2.5-7B-Instruct-AWQ-w4a16 deepseek_r1_distill_qwen_32b_awq gpt-4o-mini-2024-07-18 model@v1.0 hf_models
    runs/run_20260301_final_v2.jsonl trec_dl_2019_passages_top100_bm25.jsonl C:\a8f5f167f44f4964e6c99.db xai-grok-2-mini
    /data/5ab92dba554299753720f72d/x 3f2504e0-4f89-11d3-9a0c-0305e82c3301.jsonl --nonsense-option-with-2-digits **bold**
    clueweb22-en0033-60-07806-12 key-value-store-1 key_frames_2024 sk_wiki_2024 sk-learn-1.4.2 me@example.org
    git@host:me/x hf_cache_2024
"""
FALSE_ALARMS = {
    "EMPTY": "the cache is EMPTY",
    "test": "test failed, this is a test: no test of the model 'test'",
    "local": "error: local cache is full at http://local:80/v1",
    "token": "maximum token count exceeded by a token",
    "sk-no-key-required": "a key-required header, use no-key-reading",
    "local-development-only": "a local-development setup",
    "12345678": '{"logprob": -0.1234567891}',
    "00000000": '{"logprob": -0.00000000123}',
}


def test_ordinary_values_stay_in_errors() -> None:
    for value in ORDINARY.split():
        assert {excerpt(value), excerpt(value, strict=True)} == {value}
        assert excerpt_of(value) == repr(value)
    for value in ("http://localhost:8000", "Qwen2.5-7B-Instruct", "My Application 2", "2024-10-21-preview"):
        remember(value, key=False)
        assert excerpt(f"the {value}/v1 is") == f"the {value}/v1 is"
    headers = {"Content-Type": "application/json", "HTTP-Referer": "http://localhost:8000", "X-Title": "my app 2"}
    remember_all({"default_headers": {**headers, "Authorization": "Bearer abc123def"}})
    assert redact(f"{headers} Bearer abc123def") == f"{headers} <key>"
    for value, text in FALSE_ALARMS.items():
        remember(value)
        assert excerpt(text) == hide_keys(text) == text
        assert excerpt(f"wrong key: {value}. Use '{value}'") == "wrong key: <key>. Use '<key>'"
    for value in f"sk-Zq7Wx42Yv sk-test-12345 hf_{'a1' * 17} AIzaSyD-9tSrke72PouQMnMX-a7eZSW0 sk-a***z".split():
        assert excerpt(value) == excerpt(value, strict=True) == "<key>"
    for value in ("a8f5f167f44f4964e6c998dee8271", "Zq7Wx_42YvBn8-Kd9uT3Ms61", f"{'a8f5' * 8}.Zq7Wx42YvBn8Kd9u"):
        assert excerpt(f"no {value}", strict=True) == "no <key>"


# ---- the command line

COMMANDS: dict[str, tuple[list[str], str, str]] = {
    "header": (["--header", f"X-Auth={KEY}"], "401", ""),
    "body, refused": (["--extra-body", f"secret={KEY}"], "400", ""),
    "body": (["--extra-body", json.dumps({"token": KEY})[1:-1].replace('"', "").replace(": ", "=", 1)], "success", ""),
    "redirect": (["--api-key-env", "MY_KEY"], "redirect", ""),
    "finish reason": (["--api-key-env", "MY_KEY"], "finish reason", ""),
    "logprobs": (["--header", "x-key=$MY_KEY"], "logprobs", ""),
    "no variable": (["--api-key-env", KEY], "success", "the name of that"),
    "no name=value": (["--option", KEY.replace("=", "")], "success", "NAME=VALUE"),
    "no header": (["--header", f"X-Key: {KEY}".replace("=", "")], "success", "NAME=VALUE"),
    "query": (["--query", f"api_key={KEY}"], "success", "variable"),
    "no such option": (["--option", f"api-token={KEY}"], "success", "no option"),
    "password": (["--base-url", f"http://me:{quote(KEY)}@host/v1"], "success", "password"),
    "unexpected": (["a8f5f167f44f4964e6c998dee827110c", "Zq7Wx42YvBn8Kd9uT3Ms61"], "success", "unexpected"),
    "backend": (["--backend", "Zq7Wx42YvBn8Kd9uT3Ms61aa"], "success", "is not"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_and_writes_no_key(
    server: RawServer, command: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("MY_KEY", KEY)
    more, happens, problem = COMMANDS[command]
    server.script = lambda path, body: HAPPENS[happens](KEY)
    (tmp_path / "in.jsonl").write_text(to_line(QUERY))
    out, errors = io.StringIO(), io.StringIO()
    base = [] if "--base-url" in more else ["--base-url", server.url]
    job = ["rankr1", "rerank", "in.jsonl", "-o", "out.jsonl", *base, "--model", "m", "--attempts", "1", *more]
    environment.setattr(sys, "argv", job)
    with chdir(tmp_path), redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit):
        main()
    assert problem in " ".join(errors.getvalue().split())
    assert (tmp_path / "out.jsonl").exists() == (not problem and happens in ("success", "finish reason", "logprobs"))
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert not leaks(out.getvalue(), errors.getvalue(), *files)
    assert "Zq7Wx42YvBn8" not in errors.getvalue()


def test_a_bug_shows_its_traceback_without_a_key(environment: pytest.MonkeyPatch) -> None:
    from rankr1_rag.cli.app import RedactedStream

    remember(KEY)
    errors = io.StringIO()
    try:
        raise KeyError(f"wrong {KEY}")
    except KeyError:
        traceback.print_exc(file=RedactedStream(errors))
    assert "KeyError: 'wrong <key>'" in errors.getvalue()
