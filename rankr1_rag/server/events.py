"""A ranking as it comes about, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from rankr1_rag.server.contract import Json
from rankr1_rag.server.guard import refusal_of
from rankr1_rag.server.service import RerankJob, Service
from rankr1_rag.types import (
    ComparisonAnswered,
    ComparisonOpened,
    ComparisonText,
    Event,
    OrderSoFar,
    Ranking,
)

HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""Nobody between keeps the events back."""

SILENCE = 15.0
"""Seconds without an event after which a comment is sent, so that nobody between takes the stream for dead."""


class EventStream(StreamingResponse):
    """The events as an answer that begins with the first of them. A client that leaves ends their query."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes]) -> None:
        super().__init__(rest, media_type="text/event-stream", headers=HEADERS)
        self.first, self.rest = first, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        async with aclosing(self.rest):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.first, "more_body": True})
            async for part in self.rest:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def events(service: Service, job: RerankJob, respond: Callable[[Ranking], Json]) -> AsyncGenerator[bytes]:
    """The events of a job; the last is "done", with the whole answer, or "error", with what a refused request gets.

    An error before the first event is raised.
    """
    loop, happened = asyncio.get_running_loop(), asyncio.Queue[Event | None]()

    def on_event(event: Event) -> None:
        loop.call_soon_threadsafe(happened.put_nowait, event)

    work = asyncio.ensure_future(service.rank(job, on_event))
    work.add_done_callback(lambda _: loop.call_soon(happened.put_nowait, None))
    is_open, has_begun = True, False
    try:
        while is_open:
            try:
                batch = [await asyncio.wait_for(happened.get(), SILENCE)]
            except TimeoutError:
                yield b": the model reasons\n\n"
                has_begun = True
                continue
            while not happened.empty():
                batch.append(happened.get_nowait())
            is_open = None not in batch
            named = [as_json_event(event) for event in batch if event is not None]
            if text := b"".join([message(*one) for one in named if one is not None]):
                yield text
                has_begun = True
        yield message("done", respond(await work))
    except Exception as error:
        if not has_begun:
            raise
        refusal = refusal_of(error, job.query.id)
        yield message("error", {**refusal.body(job.query.id), "status": refusal.status})
    finally:
        work.cancel()


def message(name: str, data: Json) -> bytes:
    """One event of the stream."""
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()


def as_json_event(event: Event) -> tuple[str, Json] | None:
    """The name and the data of an event; None for the last one, whose answer is made elsewhere."""
    match event:
        case ComparisonOpened():
            return "comparison", {
                "comparison": event.number,
                "round": event.round,
                "set": event.set,
                "known": event.known,
            }
        case ComparisonText():
            return "reasoning", {"comparison": event.number, "start": event.start, "text": event.text}
        case ComparisonAnswered(number, one):
            cost = {
                "input_tokens": one.completion.prompt_tokens,
                "output_tokens": one.completion.completion_tokens,  # those of the reasoning are counted at the end
            }
            found = {"answer": one.answer, "parsed": one.parsed, "forced": one.forced, "reasoning": one.reasoning}
            if one.scores:
                found["scores"] = one.scores
            return "answer", {"comparison": number, **found, "tokens": cost}
        case OrderSoFar():
            return "order", {"order": event.order, "selected": event.selected}
    return None
