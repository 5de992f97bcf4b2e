"""The one layer around all routes: keys, limits of a request, clients that leave, errors, figures and the log.

No body, query or document is logged, and no error of the server itself is sent with its text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from uuid import uuid4

from rankr1_rag.server.config import ServerConfig, is_loopback
from rankr1_rag.server.contract import Refusal
from rankr1_rag.server.keys import Keys
from rankr1_rag.server.metrics import Metrics

log = logging.getLogger("rankr1_rag.server")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

PUBLIC = {"/", "/health", "/ready", "/docs", "/openapi.json", "/page.js", "/page.css"}
"""Routes that need no key; an explanation page has an address that nobody can guess."""

SLOW = 30.0
"""Seconds in which a client sends its whole request, or takes the next part of its answer."""

HELD = 256 << 20
"""Bytes of all requests that are held at once, with what they take once they are parsed: more are refused."""

BRACKETS = 1_000_000
"""The most lists and objects of a request, by their brackets."""

OBJECT, VALUE = 200, 24
"""Bytes of a list or an object, and of another value, once they are parsed."""

PART = 64 << 10
"""Bytes of an answer that are sent at once: the server waits before a part for the client to take those before."""


class Guard:
    """Around the routes of a server. `check_room` raises for the key of a query for which there is no room."""

    def __init__(
        self,
        app: App,
        config: ServerConfig,
        keys: Keys,
        metrics: Metrics,
        routes: set[str],
        check_room: Callable[[str], None],
    ) -> None:
        self.app, self.config, self.keys, self.metrics, self.routes = app, config, keys, metrics, routes
        self.check_room, self.held = check_room, 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = Answer(send, scope)
        if scope["method"] == "HEAD":  # a copy: from its own the server knows to send no body
            scope = {**scope, "method": "GET"}
        path = scope["path"] = "/" + "/".join(filter(None, scope["path"].split("/")))  # addresses may end in a slash
        route = path if path in self.routes else "/rankings" if path.startswith("/rankings/") else "other"
        held = 0
        try:
            scope["state"] |= {"id": answer.id, "key": self.admit(scope, answer.headers), "start": answer.start}
            if scope["method"] in ("POST", "PUT", "PATCH"):
                body, held = await self.read(answer.headers, receive)
                if path.endswith("/rerank"):  # refused before it is parsed, which costs more than all the rest
                    # A key or a whole string: inside a string the quotes are escaped.
                    scope["state"]["is_tei"] = b'"texts"' in body and b'"documents"' not in body
                    self.check_room(scope["state"]["key"])
                await self.run(scope, body, receive, answer)
            else:
                await self.app(scope, receive, answer)
        except asyncio.CancelledError:
            if not answer.complete:  # the server stops
                await answer.refuse(Refusal(503, "the server is stopping", retry_after=1))
            raise
        except Exception as error:
            await answer.refuse(refusal_of(error, answer.id))
        finally:
            self.held -= held
            seconds = time.monotonic() - answer.start
            self.metrics.requests.labels(route, str(answer.status)).inc()
            self.metrics.seconds.labels(route).observe(seconds)
            log.info(
                "%s %s %d in %.0f ms, request %s", scope["method"], route, answer.status, 1000 * seconds, answer.id
            )

    def admit(self, scope: Message, headers: dict[bytes, bytes]) -> str:
        """Whose request it is, see `Keys.find`. Refusal without a valid key, or of a page of another origin.

        Without keys any page that a browser shows could ask a server on its machine: only pages of the server itself
        may, and only by a name of the machine, which no name server can give away.
        """
        key = self.keys.find(headers.get(b"authorization", b"").decode("latin-1"))
        if key is None and scope["path"] not in PUBLIC and not scope["path"].startswith("/rankings/"):
            raise Refusal(401, "a valid key is needed: send it as the header 'Authorization: Bearer KEY'")
        if not self.keys.needed and not self.config.insecure:
            host = headers.get(b"host", b"").decode("latin-1")
            origin = headers.get(b"origin", b"").decode("latin-1")
            if host and not is_loopback(host):
                raise Refusal(403, "without keys this server is asked at localhost or 127.0.0.1 only")
            if origin and origin.partition("://")[2] != host and origin not in self.config.cors:
                raise Refusal(403, "pages of this origin may not ask: add it with --cors")
        return key or ""

    async def read(self, headers: dict[bytes, bytes], receive: Receive) -> tuple[bytes, int]:
        """The whole body, and by how much `held` has grown. Refusal where it is too large or too slow."""
        most, body, held = self.config.max_bytes, bytearray(), 0
        too_large = Refusal(
            413, f"the request has more than {most:,} bytes, the most that is read: send fewer documents"
        )
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > most:
            raise too_large
        try:
            async with asyncio.timeout(SLOW):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(499, "the client left")
                    body += message.get("body", b"")
                    growth, more = len(message.get("body", b"")), message.get("more_body", False)
                    if len(body) > most:
                        raise too_large
                    if not more:
                        brackets = body.count(b"[") + body.count(b"{")
                        if brackets > BRACKETS:
                            raise Refusal(413, f"the request has more than {BRACKETS:,} brackets: send fewer documents")
                        growth += OBJECT * brackets + VALUE * body.count(b",")
                    self.held, held = self.held + growth, held + growth
                    if self.held > HELD:
                        raise Refusal(429, "the requests of this moment are too large: try again", retry_after=1)
        except BaseException as error:
            self.held -= held
            if isinstance(error, TimeoutError):
                raise Refusal(408, f"the request was not complete after {SLOW:.0f} s") from None
            raise
        return bytes(body), held

    async def run(self, scope: Message, body: bytes, receive: Receive, answer: Answer) -> None:
        """Run the route with this body, until its client leaves."""
        gone = asyncio.ensure_future(receive())
        rest: list[Message] = [{"type": "http.request", "body": body}]

        async def replay() -> Message:
            return rest.pop() if rest else await asyncio.shield(gone)

        work = asyncio.ensure_future(self.app(scope, replay, answer))
        work.add_done_callback(lambda one: one.cancelled() or one.exception())  # else asyncio logs one of a lost client
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not (work.done() or answer.complete):
                raise Refusal(499, "the client left")
            await work
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait({work})


class Answer:
    """The answer to a request as it is sent: an ASGI `send` that adds headers and waits for no slow client."""

    def __init__(self, send: Send, scope: Message) -> None:
        self.send, self.state, self.start = send, scope.setdefault("state", {}), time.monotonic()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        id = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = id if re.fullmatch(r"[\w.:-]{1,100}", id, re.ASCII) else uuid4().hex
        self.status, self.complete = 0, False

    async def __call__(self, message: Message) -> None:
        """Send the next part, a large one in several. Refusal if the client does not take it."""
        parts: Iterable[Message] = [message]
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(b"x-request-id", self.id.encode()), (b"x-content-type-options", b"nosniff")]
            message["headers"] = [*message.get("headers", ()), *own]
        elif len(body := message.get("body", b"")) > PART:
            more, starts = message.get("more_body", False), range(0, len(body), PART)
            parts = (
                {**message, "body": body[at : at + PART], "more_body": more or at + PART < len(body)} for at in starts
            )
        for part in parts:
            self.complete = part["type"] == "http.response.body" and not part.get("more_body")
            try:
                async with asyncio.timeout(SLOW):
                    await self.send(part)
            except TimeoutError:
                raise Refusal(499, f"the client took nothing for {SLOW:.0f} s") from None

    async def refuse(self, refusal: Refusal) -> None:
        """Send an error, unless an answer was begun or nobody is there."""
        begun, self.status = self.status, refusal.status
        if begun or refusal.status == 499:
            return
        body = json.dumps(refusal.body(self.id, self.state.get("is_tei", False))).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if refusal.status == 408:  # the rest of any other body is read and dropped: its client may still send it
            headers.append((b"connection", b"close"))
        await self({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self({"type": "http.response.body", "body": body})


def refusal_of(error: Exception, id: str) -> Refusal:
    """What the client of a request gets for an error; one of the server itself is logged and sent without its text."""
    if isinstance(error, Refusal):
        return error
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("request %s failed with %s:\n%s", id, type(error).__name__, frames)
    return Refusal(500, f"the server failed: {type(error).__name__} (request {id})")
