"""Against a real HTTP server, and against a real model behind a real one."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong
from rankr1_rag.types import Completion, TokenLogprob
from tests.backends import scripts
from tests.backends.scripts import python
from tests.llama_server import serving

if TYPE_CHECKING:
    from tests.backends.conftest import Server

pytestmark = [pytest.mark.third_party, pytest.mark.usefixtures("environment")]

USER = {"role": "user", "content": "Which passage?"}
STARTED = {"role": "assistant", "content": "<think>The second.</think> <answer>["}
REQUEST = Request([USER], max_tokens=8)
FORCED = Request([USER, STARTED], max_tokens=9, choices=("1]</answer>", "12]</answer>"))
GONE, WRONG = BackendUnavailable, BackendError
KEY = "sk-not-to-be-seen-0123456789"
GOOD = "<answer>[1]</answer>"


def ask(backend: Backend, request: Request = REQUEST) -> Completion:
    return scripts.ask(backend, request)[0]


def failing(backend: Backend, request: Request = REQUEST) -> BackendError:
    with pytest.raises(BackendError) as caught:
        ask(backend, request)
    return caught.value


# ---- what is sent

PATTERN = r"(1\]</answer>|12\]</answer>)"
GREEDY = {"top_p": 1.0, "min_p": 0.0}
"""Switches off the samplers of a model's own generation_config.json, with others of each server."""


@pytest.mark.parametrize(
    ("dialect", "always", "forced"),
    [
        (None, {}, {}),
        (
            "vllm",
            {**GREEDY, "top_k": 0, "repetition_penalty": 1.0},
            {"continue_final_message": True, "add_generation_prompt": False}
            | {"structured_outputs": {"choice": [*FORCED.choices]}},
        ),
        (
            "sglang",
            {**GREEDY, "top_k": -1, "repetition_penalty": 1.0, "separate_reasoning": False},
            {"continue_final_message": True, "regex": PATTERN},
        ),
        (
            "llama-server",
            {**GREEDY, "top_k": 0, "repeat_penalty": 1.0, "reasoning_format": "none"},
            {"grammar": 'root ::= "1]</answer>" | "12]</answer>"'},
        ),
        ("tgi", {}, {"response_format": {"type": "regex", "value": PATTERN}}),
    ],
)
def test_each_server_is_asked_in_its_own_dialect(
    server: Server, dialect: str | None, always: dict[str, object], forced: dict[str, object]
) -> None:
    backend = server.backend(server=dialect)
    assert backend.can_continue == (dialect is not None)
    scripts.ask(backend, REQUEST, FORCED)
    plain = {"model": "m", "messages": [USER], "max_tokens": 8, "temperature": 0.0, **always}
    begun = {**plain, **forced, "messages": [USER, STARTED], "max_tokens": 9}
    assert [(seen.path, seen.body) for seen in server.seen] == [("/v1/chat/completions", one) for one in (plain, begun)]


def test_a_raw_prompt_is_a_plain_completion(server: Server) -> None:
    raw = {"role": "raw", "content": "Passage: x\n<think>"}
    begun = {"role": "assistant", "content": "<think> so\n</think>"}
    logprobs = {"tokens": [" true"], "token_logprobs": [-0.1], "top_logprobs": [{" true": -0.1, " false": -2.5}]}
    for choice in ({"text": " so\n</think> true"}, {"text": " true", "logprobs": logprobs}):
        server.answer({"choices": [{**choice, "finish_reason": "stop"}]})
    backend = server.backend(server="vllm")
    free, held = scripts.ask(
        backend, Request([raw], 8), Request([raw, begun], 9, choices=(" true", " false"), logprobs=20)
    )
    assert [seen.path for seen in server.seen] == ["/v1/completions"] * 2
    assert [seen.body["prompt"] for seen in server.seen] == [raw["content"], "Passage: x\n<think> so\n</think>"]
    assert server.seen[1].body["structured_outputs"] == {"choice": [" true", " false"]}
    assert not {"messages", "continue_final_message", "top_logprobs"} & server.seen[1].body.keys()
    assert (free.text, held.text, held.logprobs and held.logprobs[0].top[1]) == (
        " so\n</think> true",
        " true",
        (" false", -2.5),
    )


def test_a_refused_raw_prompt_is_not_sent_another_way(server: Server) -> None:
    server.answer({"error": {"message": "no route"}}, status=404)
    failing(server.backend(server="vllm"), Request([{"role": "raw", "content": "x"}], 8))
    assert len(server.seen) == 1


def test_a_raw_prompt_is_sent_again_without_a_field_that_the_server_refuses(server: Server) -> None:
    server.answer({"error": {"message": "top_k is not supported"}}, status=400)
    server.answer({"choices": [{"text": " true", "finish_reason": "stop"}]})
    backend = server.backend(server="vllm")
    assert ask(backend, Request([{"role": "raw", "content": "x"}], 8)).text == " true"
    assert [("top_k" in seen.body, seen.body["prompt"]) for seen in server.seen] == [(True, "x"), (False, "x")]
    assert [seen.path for seen in server.seen] == ["/v1/completions"] * 2


def test_an_unknown_server_gets_what_every_server_knows_and_extra_body(server: Server) -> None:
    request = Request([{"role": "user", "content": "a\udc80b é 𝄞"}], 8, stop=("</answer>",), choices=("1", "2"), seed=3)
    ask(server.backend(extra_body={"reasoning_effort": "low", "temperature": None}), request)
    messages = [{"role": "user", "content": "a?b é 𝄞"}]  # a lone surrogate is no crash
    common = {"model": "m", "messages": messages, "max_tokens": 8, "stop": ["</answer>"]}
    assert server.seen[0].body == {**common, "reasoning_effort": "low"}


def test_samples_of_one_prompt_have_a_seed_each(server: Server) -> None:
    pairs = [(0, 0), (0, 1), (1, 0), (-1, 3)]
    requests = [Request([USER], 8, temperature=0.7, seed=seed, sample=sample) for seed, sample in pairs]
    scripts.ask(server.backend(server="vllm"), *requests)
    seeds = {seen.body["seed"] for seen in server.seen}
    assert len({seed for seed in seeds if 0 <= seed < 2**31}) == 4


# ---- what comes back


@pytest.mark.parametrize(
    ("message", "finish_reason", "text"),
    [
        ({"content": "[1]"}, "stop", "[1]"),
        ({"content": ""}, "stop", ""),
        ({"content": None}, "stop", ""),  # SGLang's empty text
        ({"content": None, "refusal": "I cannot."}, "stop", "I cannot."),
        ({"content": [{"type": "text", "text": "[1]"}]}, "stop", "[1]"),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "[1]"},
                ]
            },
            "stop",
            "<think>hm</think>[1]",
        ),
        ({"content": [{"type": "thinking", "thinking": [{"text": "hm"}]}]}, "length", "<think>hm"),
        ({"content": "[1]", "reasoning": None, "reasoning_content": ""}, "stop", "[1]"),
        ({"content": " [1]", "reasoning": "hm"}, "stop", "<think>hm</think> [1]"),
        ({"content": " [1]", "reasoning_content": "hm"}, "stop", "<think>hm</think> [1]"),
        ({"content": None, "reasoning": "hm"}, "stop", "<think>hm</think>"),
        ({"content": None, "reasoning": "hm, and"}, "length", "<think>hm, and"),
        ({"content": " [1", "reasoning": "hm"}, "length", "<think>hm</think> [1"),
    ],
)
def test_the_text_is_whole_wherever_the_server_put_the_reasoning(
    server: Server, message: dict[str, object], finish_reason: str, text: str
) -> None:
    server.answer(server.chat(finish_reason=finish_reason, **message))
    completion = ask(server.backend())
    assert (completion.text, completion.finish_reason) == (text, finish_reason)


@pytest.mark.parametrize(
    ("dialect", "begun", "message", "text"),
    [
        ("vllm", "<think>a</think> <answer>[", {"content": None, "reasoning": "2]</answer>"}, "2]</answer>"),
        ("vllm", "<think>a</think> <answer>[", {"content": "2]</answer>"}, "2]</answer>"),
        ("vllm", "<think>a", {"content": " [2]", "reasoning": " b"}, " b</think> [2]"),
        ("vllm", "Well, ", {"content": " [2]", "reasoning": "b"}, "<think>b</think> [2]"),
        ("llama-server", "Well, [", {"content": "Well, [2]"}, "2]"),  # repeats what it continues
        ("llama-server", "Well, [", {"content": "2]"}, "2]"),  # older ones do not
    ],
)
def test_only_what_continues_a_message_is_returned_with_its_reasoning(
    server: Server, dialect: str, begun: str, message: dict[str, object], text: str
) -> None:
    server.answer(server.chat(**message))
    request = Request([USER, {"role": "assistant", "content": begun}], 8)
    assert ask(server.backend(server=dialect), request).text == text


def test_tokens_and_logprobs_are_read(server: Server) -> None:
    reply = server.chat()
    reply["choices"][0]["logprobs"] = {
        "content": [
            {"token": "1", "logprob": -0.5, "top_logprobs": [{"token": "1", "logprob": -0.5}]},
            {"token": "]", "logprob": 0},
        ]
    }
    server.answer(reply)
    logprobs = (TokenLogprob("1", -0.5, (("1", -0.5),)), TokenLogprob("]", 0.0))
    assert ask(server.backend(), Request([USER], 8, logprobs=2)) == Completion(GOOD, 12, 8, 3, "stop", logprobs)
    assert (server.seen[0].body["logprobs"], server.seen[0].body["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "prompt_tokens_details": None}, []])
def test_a_server_that_counts_nothing_is_no_error(server: Server, usage: object) -> None:
    server.answer({**server.chat(), "usage": usage})
    assert ask(server.backend(), Request([USER], 8, logprobs=1)) == Completion(GOOD)


# ---- what is no answer

TOO_LONG = [
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
    "request (3031 tokens) exceeds the available context size (1024 tokens), try increasing it",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000",
]
UNREADABLE = {"choices": [{"message": {"content": "1"}, "logprobs": {"content": [{"token": "1"}]}}]}


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ({"status": 500, "body": "boom"}, GONE, "answered 500: boom"),
        ({"status": 502, "body": "<html>Bad gateway</html>"}, GONE, "502: <html>"),
        ({"status": 503, "body": {"error": {"message": "loading"}}}, GONE, "503: loading$"),
        ({"status": 429, "body": {"error": "slow"}}, GONE, "429: slow"),
        ({"status": 429, "body": {"error": {"code": "insufficient_quota"}}}, WRONG, "no credit left"),
        ({"status": 400, "body": {"error": {"message": "bad"}}}, WRONG, "400: bad$"),
        ({"status": 422, "body": {"detail": [{"loc": "seed"}]}}, WRONG, "422: .*seed"),
        ({"status": 401, "body": {"error": {"message": "who?"}}}, WRONG, "who.* a dummy, as RANKR1_API_KEY is not"),
        ({"status": 404, "body": {"error": {"message": "none"}}}, WRONG, "model 'm' at http.*/v1/models; .*/v1"),
        ({"status": 307, "body": "", "headers": {"Location": "http://x/?k=1"}}, WRONG, "redirects to 'http://x/'"),
        ({"sent": 0}, GONE, "cannot be reached or broke off"),
        ({"sent": 0.5}, GONE, "cannot be reached or broke off"),
        ({"body": '{"choices": [{"mess'}, GONE, "incomplete answer"),
        ({"body": ""}, GONE, "incomplete answer"),
        ({"body": "<!doctype html><p>hello"}, WRONG, "web page.*end in /v1"),
        ({"body": {"error": {"message": "overloaded"}}}, GONE, "200: overloaded"),
        ({"body": {"error": {"message": "busy", "code": 429}}}, GONE, "429: busy"),
        ({"body": {"error": {"message": "no", "code": 400}}}, WRONG, "400: no"),
        ({"body": {"object": "error", "message": "gone", "code": 404}}, WRONG, "404: gone"),
        ({"body": {"error": "The model is overloaded [2]"}}, GONE, "overloaded"),
        ({"body": []}, GONE, "no choices"),
        ({"body": {"choices": []}}, GONE, "no choices"),
        ({"body": {"choices": None}}, GONE, "no choices"),
        ({"body": {"choices": [{"text": "[1]"}]}}, GONE, "no message"),
        ({"body": {"choices": [{"message": {"role": "assistant"}, "finish_reason": "stop"}]}}, GONE, "no content"),
        ({"body": {"choices": [{"message": {"content": None}}]}}, GONE, "no content"),
        ({"body": {"choices": [{"message": {"content": [1]}}]}}, GONE, "not a text"),
        ({"body": {"choices": [{"message": {"content": "[1"}, "finish_reason": "abort"}]}}, GONE, "abort"),
        ({"body": UNREADABLE}, GONE, "logprobs cannot be read"),
        *[
            ({"status": status, "body": {"error": {"message": text}}}, PromptTooLong, f"{re.escape(text)}.*context=")
            for status, text in zip((400, 400, 400, 422), TOO_LONG, strict=True)
        ],
    ],
)
def test_what_is_no_answer_is_an_error(
    server: Server, answer: dict[str, object], kind: type[BackendError], message: str
) -> None:
    server.answer(**answer)
    error = failing(server.backend(), Request([USER], 8, logprobs=1))
    assert type(error) is kind
    assert re.search(message, str(error))
    assert server.url.removesuffix("/v1") in str(error)
    assert len(server.seen) == 1  # nothing was retried


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "7"}, 0.25),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        ({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)}, 60.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
    ],
)
def test_retry_after_is_read(server: Server, headers: dict[str, str], seconds: float | None) -> None:
    server.answer("", status=429, headers=headers)
    error = failing(server.backend())
    assert isinstance(error, BackendUnavailable)
    assert error.retry_after == (seconds and pytest.approx(seconds, rel=0.01))


@pytest.mark.parametrize("slow", [{"hang": 20}, {"trickle": 0.05}], ids=["hangs", "trickles"])
def test_a_slow_answer_is_abandoned_after_the_timeout(server: Server, slow: dict[str, float]) -> None:
    server.answer(**slow)
    error = failing(server.backend(timeout=1))
    assert isinstance(error, BackendUnavailable)
    assert "no answer within timeout=1 s" in str(error)
    assert "trickle" in slow or server.hung_up.wait(60)


def test_cancelling_closes_the_request_and_the_next_one_works(server: Server) -> None:
    async def job() -> None:
        backend = server.backend()
        server.answer(hang=20)
        task = asyncio.create_task(backend.complete(REQUEST))
        while not server.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        assert await asyncio.to_thread(server.hung_up.wait, 5)
        assert (await backend.complete(REQUEST)).text == GOOD
        await backend.close()

    scripts.run(job())


# ---- keys


@pytest.mark.parametrize(
    ("arguments", "variables", "sent"),
    [
        ({}, {}, "none"),
        ({}, {"RANKR1_API_KEY": "mine"}, "mine"),
        ({}, {"RANKR1_API_KEY": " mine\n"}, "mine"),
        ({"api_key_env": "OTHER_KEY"}, {"RANKR1_API_KEY": "mine", "OTHER_KEY": "other"}, "other"),
        ({"api_key": "explicit", "api_key_env": "OTHER_KEY"}, {"OTHER_KEY": "other"}, "explicit"),
    ],
)
def test_no_key_of_openai_goes_to_another_host(
    server: Server, environment: pytest.MonkeyPatch, arguments: dict[str, str], variables: dict[str, str], sent: str
) -> None:
    leaks = ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET")
    for name, value in [*((f"OPENAI_{name}", f"leak-{name}") for name in leaks), *variables.items()]:
        environment.setenv(name, value)
    environment.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: leak\nAuthorization: Bearer leak\nCookie: leak")
    environment.setenv("OPENAI_BASE_URL", server.url)
    ask(server.backend(base_url=None, **arguments))
    headers = server.seen[0].headers
    assert "leak" not in str(headers)
    assert headers["Authorization"] == f"Bearer {sent}"


@pytest.mark.parametrize(
    ("url", "official"),
    [
        (None, True),
        ("https://api.openai.com/v1", True),
        ("https://api.openai.com:443/v1/", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com:8443/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://evil.example/api.openai.com/v1", False),
        ("https://API.openai.com/v1", True),
    ],
)
def test_only_openais_own_address_wants_openais_key(
    environment: pytest.MonkeyPatch, url: str | None, official: bool
) -> None:
    environment.setenv("RANKR1_API_KEY", "for others")
    backend = OpenAI("gpt", base_url=url)
    assert (backend.server == "openai") == official
    if official:
        assert str(failing(backend)) == f"{backend.base_url} needs a key: set OPENAI_API_KEY"


def test_an_address_of_openai_is_where_a_request_goes(server: Server, environment: pytest.MonkeyPatch) -> None:
    # Over a proxy that refuses: no test sends a key, not even a false one, to the real address.
    environment.setenv("OPENAI_API_KEY", KEY)
    environment.setenv("HTTPS_PROXY", server.url)
    error = failing(OpenAI("gpt"))
    assert isinstance(error, BackendUnavailable)
    assert "https://api.openai.com/v1 cannot be reached" in str(error)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
def test_a_key_that_the_server_echoes_is_in_no_error_and_no_log(
    server: Server, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    environment.setenv("RANKR1_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    for text in (f"Incorrect API key: {KEY}", f"got Bearer {KEY}", "Incorrect key sk-not-t****6789"):
        server.answer({"error": {"message": text}}, status=status)
        error = failing(server.backend())
        text = "".join(traceback.format_exception(error))
        assert KEY not in text + caplog.text
        assert "6789" not in text
        assert pickle.loads(pickle.dumps(error)).args == error.args


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"api_key_env": "MY_KEY"}, "that in MY_KEY"), ({"api_key": KEY}, "the one passed as api_key=")],
)
def test_a_refused_key_is_named_but_not_shown(
    server: Server, environment: pytest.MonkeyPatch, arguments: dict[str, str], name: str
) -> None:
    environment.setenv("MY_KEY", KEY)
    server.answer({"error": {"message": "no"}}, status=401)
    assert str(failing(server.backend(**arguments))).endswith(f"(the key sent was {name})")


@pytest.mark.parametrize("key", ["two words", "é", "a\nb"])
def test_a_key_that_no_header_can_carry_is_not_shown(server: Server, key: str) -> None:
    error = failing(server.backend(api_key=key))
    assert "a character that no key has" in str(error)
    assert key not in str(error)


def test_a_key_is_in_no_repr_identity_or_pickle(server: Server, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("RANKR1_API_KEY", KEY)
    assert KEY.encode() not in pickle.dumps(server.backend())
    explicit = server.backend(api_key=KEY)
    assert KEY not in f"{explicit!r} {explicit.identity} {vars(explicit)}"
    with pytest.raises(TypeError, match="use api_key_env="):
        pickle.dumps(explicit)
    ask(deepcopy(explicit))
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"


# ---- what it is


def test_it_is_a_backend() -> None:
    backend = OpenAI("m", base_url="http://localhost:8000/v1", server="vllm", context=4096, count=len)
    assert isinstance(backend, Backend)
    assert (backend.model, backend.context, backend.can_continue, backend.count("four")) == ("m", 4096, True, 4)
    assert OpenAI("m", base_url="http://localhost:8000/v1").count("four") is None
    assert repr(backend) == "OpenAI('m', base_url='http://localhost:8000/v1', server='vllm')"


def test_identities_differ_by_address_unless_there_is_a_revision() -> None:
    def identity(address: str, **arguments: Any) -> str:
        return OpenAI("m", base_url=address, **arguments).identity

    here, there = "http://a:8000/v1", "http://b:8000/v1"
    assert identity(here) == identity(here + "/") == identity(f" {here}/chat/completions?a=b ") != identity(there)
    assert identity(here, revision="r1") == identity(there, revision="r1")
    settings = {}, {"server": "vllm"}, {"revision": "r1"}, {"revision": "r2"}, {"extra_body": {"top_p": 0.9}}
    assert len({identity(here, **arguments) for arguments in settings}) == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"base_url": "localhost:8000/v1"}, "use one like http://localhost:8000/v1"),
        ({"base_url": "ftp://host/v1"}, "no address"),
        ({"base_url": "http:///v1"}, "no address"),
        ({"base_url": r"https://evil.example\.api.openai.com/v1"}, "no address"),
        ({"base_url": "http://host:port/v1"}, "port"),
        ({"base_url": f"http://me:{KEY}@host/v1"}, "host it contains a user name or password, use api_key_env="),
        (
            {"headers": {"Authorization": "Bearer $KEY"}},
            "variable behind other text in 'Authorization': .* api_key_env=",
        ),
        ({"headers": {"x y": "1"}}, "the name 'x y', which no header can have: use one like api-key"),
        (
            {"base_url": f"http://host/v1?key={KEY}"},
            "the query of host shows the value of 'key': use .* in query=",
        ),
        ({"query": {"subscription-key": KEY}}, "shows the value of 'subscription-key'"),
        ({"server": "ollama"}, "'ollama' is none of openai, vllm, sglang, llama-server, tgi"),
        ({"base_url": "http://host/v1", "api_key_env": "OPENAI_API_KEY"}, r"KEY goes only to api\.openai\.com"),
    ],
)
def test_a_wrong_argument_is_an_error_at_once(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        OpenAI("m", **arguments)
    assert KEY not in str(caught.value)


def test_httpx_is_imported_by_the_first_backend_and_named_if_it_is_missing() -> None:
    script = """
        from rankr1_rag.backends.openai import OpenAI
        print("httpx" in sys.modules)
        try:
            OpenAI("m")
        except ImportError as error:
            print(error, error.__cause__)
    """
    assert python(script) == "False\n"
    assert 'pip install "rankr1-rag[openai]" None' in python(script, "-S")  # without site-packages


# ---- loops, threads, processes


def test_connections_are_kept_for_the_next_request_and_the_backend_works_after_a_close(server: Server) -> None:
    backend = server.backend()
    assert len(scripts.ask(backend, REQUEST, REQUEST)) == 2
    scripts.run(backend.close())
    assert len({seen.port for seen in server.seen}) == 1
    assert ask(backend).text == GOOD


def test_several_loops_at_once_and_close_from_one_of_them(server: Server) -> None:
    backend = server.backend()
    asked, closed = threading.Barrier(4), threading.Event()

    async def work(closes: bool) -> None:
        await backend.complete(REQUEST)
        await asyncio.to_thread(asked.wait, 10)
        if closes:
            await backend.close()
            closed.set()
        await asyncio.to_thread(closed.wait, 10)

    threads = [threading.Thread(target=asyncio.run, args=(work(closes),)) for closes in (False, False, False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(server.seen) == 4


def test_pickles_and_copies_ask_for_themselves(server: Server, copied: Callable[[Any], Any]) -> None:
    backend = server.backend(server="vllm", context=9, revision="r", extra_body={"top_k": 3})
    ask(backend)
    copy = copied(backend)
    assert (copy.identity, copy.context, repr(copy)) == (backend.identity, 9, repr(backend))
    assert ask(copy).text == GOOD


@pytest.mark.parametrize("running", [False, True])
def test_a_forked_child_has_connections_of_its_own_and_closes_only_those(server: Server, running: bool) -> None:
    python(f"""
        from rankr1_rag.backends.openai import OpenAI

        backend = OpenAI("m", base_url={server.url!r})
        async def whole():
            await backend.complete(asking())
            await backend.close()

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        def wait_for(coroutine):
            if not {running}:
                return loop.run_until_complete(coroutine)
            thread.is_alive() or thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        wait_for(backend.complete(asking()))  # and the connection stays open
        pid = os.fork()
        if not pid:
            asyncio.run(asyncio.wait_for(whole(), 60))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        wait_for(whole())
        if {running}:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
        loop.close()
    """)
    parent, child, again = (seen.port for seen in server.seen)
    assert parent == again != child


# ---- a real model


@pytest.fixture(scope="module")
def llama() -> Iterator[OpenAI]:
    """llama.cpp's own server with SmolLM2-135M."""
    with serving(context=1024) as url:
        yield OpenAI("smollm2", base_url=url, server="llama-server")


@pytest.mark.slow
def test_a_real_model_completes_and_its_tokens_are_counted(llama: OpenAI) -> None:
    request = Request([{"role": "user", "content": "Name a colour."}], 6, logprobs=2)
    first, again = scripts.ask(llama, request, request)
    assert first.text == again.text != ""
    assert first.completion_tokens == len(first.logprobs) == 6
    assert "".join(token.token for token in first.logprobs) == first.text
    assert all(len(token.top) == 2 and token.logprob <= 0 for token in first.logprobs)
    assert first.finish_reason == "length"
    assert again.cached_tokens > 0
    assert again.prompt_tokens == first.prompt_tokens >= 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "choices"),
    [
        (STARTED["content"], ('"\\ é]', "𝄞")),
        (STARTED["content"], ("7]</answer>",)),
        (STARTED["content"], tuple(f"{n}]</answer>" for n in range(1, 21))),
        ("<think>The", (" end</think> x",)),  # reasoning is not split off
    ],
    ids=["quotes", "one", "labels", "reasoning"],
)
def test_a_real_model_is_held_to_the_choices(llama: OpenAI, begun: str, choices: tuple[str, ...]) -> None:
    completion = ask(llama, Request([USER, {"role": "assistant", "content": begun}], 20, choices=choices))
    assert completion.text in choices
    assert completion.finish_reason == "stop"


@pytest.mark.slow
def test_a_real_model_continues_a_message_up_to_a_stop_string_and_refuses_a_prompt_too_long(llama: OpenAI) -> None:
    user, begun = (
        {"role": "user", "content": "Count to nine."},
        {"role": "assistant", "content": "one, two, three, four,"},
    )
    stopped = ask(llama, Request([user, begun], 40, stop=("six",))).text
    assert stopped.lstrip().startswith("five")
    assert "six" not in stopped
    with pytest.raises(PromptTooLong, match="1024"):
        ask(llama, Request([{"role": "user", "content": "word " * 2_000}], 4))
