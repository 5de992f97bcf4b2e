"""Backends that stream: the pieces of a text as they come make the text, and the completion is the same."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from rankr1_rag.backends import Backend, Request, on_text
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.backends.wrappers import limited, retried, stored
from rankr1_rag.errors import BackendError, BackendUnavailable
from rankr1_rag.redaction import remember
from rankr1_rag.types import Completion, Message
from tests.backends.conftest import Server, chat
from tests.backends.scripts import ask, asking

STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}
USAGE = chat()["usage"]


def heard(backend: Backend, request: Request | None = None) -> tuple[Completion, list[tuple[int, str]]]:
    """A completion, and the pieces of its text."""
    pieces: list[tuple[int, str]] = []

    async def complete() -> Completion:
        on_text.set(lambda start, text: pieces.append((start, text)))
        try:
            return await backend.complete(request or asking())
        finally:
            await backend.close()

    return asyncio.run(complete()), pieces


def events(*chunks: Any, done: bool = True) -> str:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return ": a comment\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


SAID = [
    ("content alone", {"content": "<think>é</think> <answer>[1]</answer>"}),
    ("reasoning of vLLM", {"reasoning": "it is é", "content": " <answer>[1]</answer>"}),
    ("reasoning of the others", {"reasoning_content": "it is é", "content": " <answer>[1]</answer>"}),
    ("reasoning of both names", {("reasoning", "reasoning_content"): "it is é", "content": " <answer>[1]</answer>"}),
    ("reasoning alone", {"reasoning": "it is é"}),
    ("a refusal", {"refusal": "I will not say which."}),
    (
        "parts of Mistral",
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "it is é"}]},
                {"type": "text", "text": " <answer>[1]</answer>"},
            ]
        },
    ),
]


def pieces_of(said: Any) -> list[Any]:
    """A text in pieces of four characters, each piece in the part that it is of."""
    if isinstance(said, str):
        return [said[at : at + 4] for at in range(0, len(said), 4)]
    if isinstance(said, dict):
        (name,) = said.keys() & {"text", "thinking"}
        return [said | {name: piece} for piece in pieces_of(said[name])]
    return [[piece] for part in said for piece in pieces_of(part)]


@pytest.mark.parametrize(("name", "message"), SAID)
@pytest.mark.parametrize("trickle", [0, 0.0002])
def test_what_a_server_streams_is_the_completion_that_it_would_have_sent(
    server: Server, name: str, message: dict[Any, Any], trickle: float
) -> None:
    chunks, whole = [delta(role="assistant", content="")], dict[str, Any]()
    for key, said in message.items():
        names = [key] if isinstance(key, str) else key
        chunks += [delta(**dict.fromkeys(names, piece)) for piece in pieces_of(said)]
        whole |= dict.fromkeys(names, said)
    reason = "length" if "content" not in message else "stop"
    chunks += [delta(reason), {"choices": [], "usage": USAGE}]
    server.answer(events(*chunks), headers=STREAM, trickle=trickle)
    completion, pieces = heard(server.backend())
    assert server.seen[0].body["stream"] is True
    assert server.seen[0].body["stream_options"] == {"include_usage": True}
    server.answer(chat(whole.pop("content", None), reason, **whole))
    assert [completion] == ask(server.backend(), asking())
    assert "stream" not in server.seen[1].body
    assert "".join(text for _, text in pieces) == completion.text
    assert len(pieces) > 1
    assert all(start == sum(len(text) for _, text in pieces[:place]) for place, (start, _) in enumerate(pieces))


KEY = "sk-live-7Qz4mT9wXb2LcE5v"


@pytest.mark.parametrize("size", [1, 3, 10, 1000])
def test_a_key_is_hidden_however_a_server_parts_it(server: Server, size: int) -> None:
    remember(KEY)
    text = f"<think>{KEY}, not sk-live or {KEY}{KEY[:3]} {KEY[:9]}</think> <answer>[1]</answer> {KEY[:8]}"
    chunks = [delta(content=text[at : at + size]) for at in range(0, len(text), size)]
    server.answer(events(*chunks, delta("stop")), headers=STREAM)
    completion, pieces = heard(server.backend())
    said = "".join(piece for _, piece in pieces)
    assert said == completion.text == text.replace(KEY, "<key>")
    assert all(start == sum(len(one) for _, one in pieces[:place]) for place, (start, one) in enumerate(pieces))
    assert len(pieces) > len(said) / size / 4  # what begins no key comes at once


def test_a_server_that_does_not_stream_answers_at_once_and_nothing_is_heard(server: Server) -> None:
    server.answer(chat())
    completion, pieces = heard(server.backend())
    assert completion.text == "<answer>[1]</answer>"
    assert pieces == []


def test_a_field_for_streaming_that_is_refused_is_left_out_from_then_on(server: Server) -> None:
    server.answer({"error": {"message": "Unknown parameter: 'stream_options'", "param": "stream_options"}}, status=400)
    server.answer(events(delta(content="<answer>[1]</answer>"), delta("stop")), headers=STREAM)
    completion, pieces = heard(server.backend())
    assert completion.text == "<answer>[1]</answer>"
    assert len(pieces) == 1
    assert "stream_options" not in server.seen[1].body


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (events(delta(content="<think>I"), done=False), BackendUnavailable, "incomplete answer"),
        ("", BackendUnavailable, "incomplete answer"),
        ("data: {\n\ndata: 7\n\n", BackendUnavailable, "incomplete answer"),
        (events(delta(content=7), delta("stop", content="a")), BackendError, "content is not a text"),
        (events(delta(content="a"), {"error": {"message": "out of memory"}}), BackendError, "out of memory"),
    ],
)
def test_a_stream_that_breaks_off_is_an_error(server: Server, body: str, error: type[BackendError], text: str) -> None:
    server.answer(body, headers=STREAM)
    with pytest.raises(error, match=text):
        heard(server.backend())


def test_a_second_attempt_begins_at_the_beginning(server: Server) -> None:
    server.answer(events(delta(content="<think>I"), done=False), headers=STREAM)
    server.answer(events(delta("stop", content="<answer>[2]</answer>")), headers=STREAM)
    completion, pieces = heard(retried(limited(server.backend(), 1), first_wait=0.01))
    assert completion.text == "<answer>[2]</answer>"
    assert pieces == [(0, "<think>I"), (0, "<answer>[2]</answer>")]


def test_a_script_streams_its_pieces_through_a_store_once(tmp_path: Any) -> None:
    async def script(_: Sequence[Message]) -> AsyncIterator[str]:
        for piece in ("<think>", "it is", "</think>", " <answer>[1]</answer>"):
            yield piece

    backends = [stored(Scripted(script), tmp_path / "store") for _ in range(2)]
    completion, pieces = heard(backends[0])
    assert pieces == [(0, "<think>"), (7, "it is"), (12, "</think>"), (20, " <answer>[1]</answer>")]
    again, none = heard(backends[1])
    assert (again.text, none) == (completion.text, [])
