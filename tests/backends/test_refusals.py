"""What servers refuse is sent another way, and no query is lost."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rankr1_rag import Ranking, Reranker
from rankr1_rag.backends import Request
from rankr1_rag.errors import BackendError, BackendUnavailable
from tests.backends.scripts import ask, run

if TYPE_CHECKING:
    from tests.backends.conftest import Server

pytestmark = [pytest.mark.third_party, pytest.mark.usefixtures("environment")]

PASSAGES = ["a moth", "a lunar moth", "the moon", "a lamp"]
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}


def rank(backend: Any, **settings: Any) -> Ranking:
    with Reranker(backend, **{"k": 1, "reasoning_tokens": 64, **settings}) as reranker:
        return reranker.rank("which moth?", PASSAGES)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "rankr1_rag.openai"]


def refusal(message: str, status: int = 400, **error: object) -> dict[str, Any]:
    return {"status": status, "body": {"error": {"message": message, "type": "BadRequestError", **error}}}


# ---- a begun answer, and templates that change it


def r1(role: str, text: str) -> str:
    """R1 distillates drop the reasoning of earlier turns."""
    return text.rpartition("</think>")[2] if role == "assistant" else text


def qwen3(role: str, text: str) -> str:
    """Qwen3 gives the reasoning of the last turn a layout of its own."""
    begun = re.fullmatch(r"<think>(.*)</think>\s*(.*)", text, re.DOTALL)
    return f"<think>\n{begun[1].strip()}\n</think>\n\n{begun[2]}" if begun and role == "assistant" else text


def plain(role: str, text: str) -> str:
    return text


class VLLM:
    """Answers as vLLM does, with a token for each character. It reasons without end unless it is held to choices."""

    def __init__(self, template: Any, missing: str) -> None:
        self.template, self.missing = template, missing
        self.opening = "<assistant><think>\n" if template is r1 else "<assistant>"
        self.prompts: list[str] = []

    def rendered(self, messages: list[dict[str, str]]) -> str:
        return "".join(f"<{one['role']}>{self.template(one['role'], one['content'])}" for one in messages)

    def __call__(self, seen: Any) -> dict[str, Any]:
        body = seen.body
        if seen.path == self.missing:
            return {"status": 404, "body": {"detail": "Not Found"}}
        if seen.path == "/tokenize":
            text = self.rendered(body["messages"]) + self.opening if "messages" in body else body["prompt"]
            return {"body": {"tokens": [*map(ord, text)], "count": len(text), "max_model_len": 4096}}
        if seen.path == "/detokenize":
            return {"body": {"prompt": "".join(map(chr, body["tokens"]))}}
        if seen.path == "/v1/completions":
            return self.answer("".join(map(chr, body["prompt"])), body)
        prompt = self.rendered(body["messages"])
        if not body.get("continue_final_message"):
            return self.answer(prompt + self.opening, body)
        if (begun := body["messages"][-1]["content"]).strip() not in prompt:
            problem = "continue_final_message is set but the final message does not appear in the chat after applying"
            return refusal(f"{problem} the chat template!Final message to continue: {begun}\nRendered chat:\n{prompt}")
        return self.answer(prompt, body)

    def answer(self, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        self.prompts.append(prompt)
        choices = body.get("structured_outputs", {}).get("choice")
        text = next(one for one in choices if one.startswith("2")) if choices else "<think>a moth, a"
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(text)}
        top = {"2": -0.1, "1": -3.0, "3": -4.0, "4": -5.0}
        if "prompt" in body:
            logprobs = (
                {"tokens": ["2"], "token_logprobs": [-0.1], "top_logprobs": [top]} if body.get("logprobs") else None
            )
            choice: dict[str, Any] = {"text": text, "logprobs": logprobs}
        else:
            alternatives = [{"token": token, "logprob": logprob} for token, logprob in top.items()]
            content = [{"token": "2", "logprob": -0.1, "top_logprobs": alternatives}]
            choice = {"message": {"role": "assistant", "content": text}, "logprobs": {"content": content}}
        return {"body": {"choices": [{**choice, "finish_reason": "stop" if choices else "length"}], "usage": usage}}


@pytest.mark.parametrize(
    ("template", "missing"),
    [(r1, ""), (r1, "/tokenize"), (r1, "/v1/completions"), (qwen3, ""), (qwen3, "/tokenize"), (plain, "")],
)
@pytest.mark.parametrize(
    "settings",
    [{"reasoning_tokens": 0}, {"force": "unparsed"}, {"votes": "auto"}, {"probabilities": True}],
    ids=lambda one: "-".join(one),
)
def test_a_forced_answer_is_had_whatever_the_template_does_with_reasoning(
    server: Server, template: Any, missing: str, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.script = vllm = VLLM(template, missing)
    backend = server.backend(server="vllm")
    for _ in range(2):
        ranking = rank(backend, **settings)
        assert ranking.order[0] == 1
        assert [(one.parsed, one.forced, one.answer) for one in ranking.trace] == [(True, True, (1,))]
        assert ranking.score_meaning == ("probability" if {"votes", "probabilities"} & {*settings} else "ordinal")
    begun = "<think> </think>" if "reasoning_tokens" in settings else "<think>a moth, a </think>"
    asked = vllm.prompts[-1]
    if missing and template is not plain:
        assert f"Your answer has begun:\n\n{begun} <answer>[\n\nContinue exactly" in asked
    else:
        assert asked.endswith("</think> <answer>[")
        assert asked.count("<think><think>") == asked.count("<think>\n<think>") == 0
    refused = [seen for seen in server.seen if seen.body.get("continue_final_message")]
    assert len(refused) == (2 if template is plain else 1)  # once for the model, not once a request
    assert len(logged(caplog)) == (0 if template is plain else 2 if missing == "/v1/completions" else 1)


@pytest.mark.parametrize(
    "message",
    [
        "Assistant response prefill is incompatible with enable_thinking.",
        "Jinja Exception: the last message must be of the user",
        "Expected last role User or Tool for serving but got assistant",
    ],
)
def test_a_server_that_refuses_a_begun_answer_is_asked_in_the_users_turn(server: Server, message: str) -> None:
    server.answer(**refusal(message, 500))
    server.answer(server.chat("I go on: <answer>[2]</answer>"))
    begun = [SYSTEM, USER, {"role": "assistant", "content": "<think>x</think> <answer>["}]
    completion = ask(server.backend(server="llama-server"), Request(begun, 9, choices=("1]</answer>", "2]</answer>")))
    assert [one.text for one in completion] == ["2]</answer>"]
    assert [one["role"] for one in server.seen[1].body["messages"]] == ["system", "user"]


# ---- fields that a model does not take, and reasoning that is not shown


class Hidden:
    """A hosted reasoning model: some fields are refused, and `needed` tokens are spent out of sight."""

    def __init__(self, refusals: dict[str, str], needed: int = 0, limit: str = "max_completion_tokens") -> None:
        self.refusals, self.needed, self.limit = refusals, needed, limit

    def __call__(self, seen: Any) -> dict[str, Any]:
        for name, message in self.refusals.items():
            if name in seen.body:
                return refusal(message, param=name, code="unsupported_parameter")
        if (room := seen.body[self.limit]) < self.needed:
            text, reason, spent = "", "length", room
        else:
            text, reason, spent = "<answer>[2]</answer>", "stop", self.needed + 8
        usage = {"prompt_tokens": 100, "completion_tokens": spent}
        message = {"role": "assistant", **({"content": text} if text else {})}  # Gemini leaves it out
        return {"body": {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}}


OPENAI = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
    "instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value "
    "is supported.",
}


def test_a_model_that_reasons_out_of_sight_gets_room_and_no_field_that_it_refuses(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = Hidden(OPENAI, needed=1_500)
    backend = server.backend()
    first, again = (rank(backend, force="unparsed") for _ in range(2))
    assert [one.order[0] for one in (first, again)] == [1, 1]
    assert (first.cost.unparsed, first.cost.forced) == (0, 0)
    assert (first.cost.completion_tokens, again.cost.completion_tokens) == (80 + 1_508, 1_508)
    assert [seen.body.get("max_completion_tokens") for seen in server.seen] == [None, 80, 80, 2_128, 2_128]
    assert "temperature" not in server.seen[-1].body
    limit, temperature, room = logged(caplog)
    assert limit.endswith("For 'm', from now on max_tokens is called max_completion_tokens")
    assert temperature.endswith("from now on temperature is left out")
    assert "reasoning_tokens=" in room
    assert "'reasoning_effort': 'low'" in room


def test_a_model_without_enough_room_for_its_reasoning_is_unparsed_and_the_setting_is_named(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = Hidden({}, needed=10**6, limit="max_tokens")
    ranking = rank(server.backend(), force="unparsed")
    ranking.log_problems()
    assert (ranking.cost.unparsed, ranking.order[0]) == (1, 0)
    assert max(seen.body["max_tokens"] for seen in server.seen) > 30_000
    assert "force='unparsed' requests" not in caplog.text
    assert "reasoning_tokens=" in caplog.records[-1].getMessage()


def test_more_room_than_the_model_has_is_not_asked_for(server: Server) -> None:
    server.script = Hidden({}, needed=10**6, limit="max_tokens")
    rank(server.backend(context=4_096), force="unparsed")
    assert max(seen.body["max_tokens"] for seen in server.seen) < 4_096


@pytest.mark.parametrize(
    "message",
    ["This model's maximum context length is 4096 tokens.", "max_tokens is too large: this model writes at most 4096"],
)
def test_room_that_the_server_refuses_loses_no_query_and_is_not_asked_for_again(server: Server, message: str) -> None:
    hidden = Hidden({}, 10**6, "max_tokens")
    server.script = lambda seen: refusal(message) if seen.body["max_tokens"] > 4_096 else hidden(seen)
    backend = server.backend()
    assert [rank(backend, force="never").cost.unparsed for _ in range(2)] == [1, 1]
    assert [seen.body["max_tokens"] for seen in server.seen] == [80, 2_128, 8_272, 2_128]


@pytest.mark.parametrize(
    ("status", "body", "left_out"),
    [
        (400, {"error": {"message": OPENAI["temperature"], "param": "temperature"}}, {"temperature"}),
        (
            400,
            {"error": {"message": "gpt-5 models don't support temperature=0.0. Only temperature=1"}},
            {"temperature"},
        ),
        (400, {"error": {"message": "property 'logprobs' is unsupported"}}, {"logprobs", "top_logprobs"}),
        (400, {"error": {"message": "deepseek-reasoner does not support top_logprobs"}}, {"top_logprobs"}),
        (400, {"error": "Argument not supported on this model: stop"}, {"stop"}),
        (400, {"error": {"message": "invalid temperature: only 1 is allowed for this model"}}, {"temperature"}),
        (400, {"message": "extraneous key [stop] is not permitted"}, {"stop"}),
        (400, [{"error": {"message": 'Unknown name "stop": Cannot find field.'}}], {"stop"}),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stop"], "msg": "Extra inputs"}]}, {"stop"}),
        (200, {"error": {"message": "temperature is not supported", "code": 400}}, {"temperature"}),
        (400, {"error": {"message": "temperature: Input should be greater than 0"}}, {"temperature"}),
        (400, {"error": {"message": "Parameter 'stop' is not recognized"}}, {"stop"}),
        (400, {"error": {"message": "bad stop"}}, None),
        (400, {"error": {"message": "this model is not supported"}}, None),
        (400, {"error": {"message": "unknown parameter: 'mine'", "param": "mine"}}, None),
    ],
)
def test_a_refused_field_is_left_out_if_it_is_understood(
    server: Server, status: int, body: Any, left_out: set[str] | None
) -> None:
    server.answer(body, status=status)
    backend = server.backend(extra_body={"mine": 1})
    request = Request([USER], 8, stop=("x",), logprobs=2)
    if left_out is None:
        with pytest.raises(BackendError):
            ask(backend, request)
        assert len(server.seen) == 1
        return
    ask(backend, request, request)
    first, *others = (set(seen.body) for seen in server.seen)
    assert others == [first - left_out] * 2


# ---- a system role that a model does not take


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "System role not supported"),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
        (400, "Unsupported value: 'messages[0].role' does not support 'system' with this model."),
        (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (500, "Error: Jinja Exception: System role not supported at row 1"),
        (422, "Only user and assistant roles are supported!"),
        (400, "role 'system' is not allowed"),
        (422, "messages.0.role: Input should be 'user' or 'assistant'"),
        (400, "This model does not accept system messages"),
        (400, "Expected the first message to be a user message"),
    ],
)
def test_a_system_text_goes_into_the_users_turn_where_it_is_refused(
    server: Server, status: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = lambda seen: refusal(message, status) if seen.body["messages"][0]["role"] == "system" else {}
    ask(server.backend(), *[Request([SYSTEM, USER], 8)] * 2)
    assert [seen.body["messages"] for seen in server.seen[1:]] == [
        [{"role": "user", "content": "Be brief.\n\nWhich?"}]
    ] * 2
    assert len(logged(caplog)) == 1


def test_a_format_without_a_system_text_sends_no_empty_system_turn(server: Server) -> None:
    messages = [{"role": "system", "content": ""}, USER]
    ask(server.backend(), Request(messages, 8))
    assert server.seen[0].body["messages"] == [USER]


# ---- gateways


def test_azure_is_asked_as_the_guide_says(server: Server, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AZURE_OPENAI_API_KEY", "azure-secret-0123")
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "azure" in block)
    server.script = lambda seen: {"body": server.chat("<answer>[2]</answer>")}
    names: dict[str, Any] = {}
    exec(code.replace("https://RESOURCE.openai.azure.com", server.url.removesuffix("/v1")), names)
    run(names["backend"].close())
    assert names["ranking"].order == (1, 0)
    (seen,) = server.seen
    assert seen.path == "/openai/deployments/DEPLOYMENT/chat/completions?api-version=2024-10-21"
    assert (seen.headers["api-key"], seen.headers["Authorization"]) == ("azure-secret-0123", None)


def test_headers_and_query_are_sent_and_kept_secret(
    server: Server, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("AZURE_OPENAI_API_KEY", "azure-secret-0123")
    caplog.set_level(logging.DEBUG)
    backend = server.backend(
        base_url=server.url.removesuffix("/v1") + "/judge?api-version=2024-10-21",
        headers={"api-key": "$AZURE_OPENAI_API_KEY", "X-Team": "search"},
        query={"subscription": "s 1", "key": "${AZURE_OPENAI_API_KEY}"},
        extra_body={"user": "me"},
    )
    ask(backend)
    (seen,) = server.seen
    assert seen.path.partition("&key=")[0] == "/judge/chat/completions?api-version=2024-10-21&subscription=s+1"
    assert (seen.headers["api-key"], seen.headers["X-Team"]) == ("azure-secret-0123", "search")
    assert seen.headers["Authorization"] is None
    assert seen.body["user"] == "me"
    server.answer({"error": {"message": "no access for azure-secret-0123"}}, status=401)
    with pytest.raises(BackendError, match=r"no access for <key> \(the key sent was in headers= \(api-key, X-Team\)\)"):
        ask(backend)
    assert "azure-secret" not in f"{backend!r} {vars(backend)} {backend.identity} {caplog.text}"
    ask(server.backend(headers={"authorization": "Basic abc"}, api_key="unused"))
    assert server.seen[-1].headers.get_all("Authorization") == ["Basic abc"]
    environment.delenv("AZURE_OPENAI_API_KEY")
    with pytest.raises(BackendError, match="headers= needs the environment variable AZURE_OPENAI_API_KEY, which is"):
        ask(backend)


# ---- an address where nobody is


def test_an_unreachable_address_is_said_at_the_first_failure_and_retries_with_their_reason(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    from rankr1_rag.backends.wrappers import retried

    caplog.set_level(logging.INFO)
    backend = retried(server.backend(base_url="http://127.0.0.1:9/v1"), attempts=3, first_wait=0.001)
    with pytest.raises(
        BackendUnavailable, match=r"http://127\.0\.0\.1:9/v1 cannot be reached .*gave up after 3 attempts"
    ):
        ask(backend)
    names = [(one.name, one.levelname, one.getMessage()[:22]) for one in caplog.records if one.name != "httpx"]
    assert names == [
        ("rankr1_rag.openai", "WARNING", "http://127.0.0.1:9/v1 "),
        ("rankr1_rag.retried", "INFO", "attempt 1 of 3 failed,"),
        ("rankr1_rag.retried", "INFO", "attempt 2 of 3 failed,"),
    ]
