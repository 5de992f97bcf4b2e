"""The routes of the server, and the process that runs them."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from types import FrameType
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from rankr1_rag import __version__
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.errors import BackendError
from rankr1_rag.explain.html import environment, read_resource
from rankr1_rag.reranker import Reranker
from rankr1_rag.server.config import ServerConfig
from rankr1_rag.server.contract import KINDS, Json, Refusal, RerankRequest, answer, info, tei_answer
from rankr1_rag.server.events import EventStream, events
from rankr1_rag.server.guard import Guard
from rankr1_rag.server.keys import Keys
from rankr1_rag.server.metrics import Metrics
from rankr1_rag.server.service import Service
from rankr1_rag.types import Ranking

RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", "/v1/v1/rerank", "/v1/v2/rerank")
"""Also where clients ask whose base_url ends in /v1."""

PLAIN = ("/", "/page.js", "/page.css", "/health", "/ready", "/metrics", "/info", "/v1/models", "/docs", "/openapi.json")

LAST = 5.0
"""Seconds that the model and its backend have to end when the server stops."""

KEEP_ALIVE = 75
"""Seconds until an idle connection is closed: longer than clients keep one, so that no request meets its end."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""What the pages of the server may load: their own script and style, nothing of others."""

RESULT = {"index": 1, "relevance_score": 0.97}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": reason, "content": {"application/json": {"example": Refusal(status, reason).body("id")}}}
    for status, (*_, reason) in KINDS.items()
    if status != 499
}
RESPONSES[200] = {
    "description": "The best documents, by their indexes in the request.",
    "content": {"application/json": {"example": {"id": "id", "model": "model", "results": [RESULT]}}},
}
"""The answers of the route that reranks, for its description."""

DESCRIPTION = """Reranks documents with a language model that reasons before it picks.

`documents` are answered in the shape of Cohere, Jina, Voyage, vLLM and Infinity, `texts` in that of
text-embeddings-inference. What only this server knows is under the key `rankr1`."""


def create_app(reranker: Reranker, config: ServerConfig, say: Callable[[str], object] = lambda _: None) -> FastAPI:
    """The ASGI application of a server. Its `state.service` is the engine; `say` is called when the model is loaded."""
    metrics = Metrics()
    service = Service(reranker, config, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async def load() -> None:
            await service.load()
            say(f"{service.model} is ready")

        hide, loggers = WithoutTexts(), [logging.getLogger(f"rankr1_rag{name}") for name in LOGGERS]
        for logger in loggers:
            logger.addFilter(hide)
        loading = asyncio.create_task(load())
        try:
            yield
        finally:
            loading.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST):
                    await asyncio.wait({loading})
                    await service.reranker.aclose()
            for logger in loggers:
                logger.removeFilter(hide)

    app = FastAPI(
        title="rankr1",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own loads a script from a network
        redoc_url=None,
    )
    app.state.service = service
    routes = {*RERANK, *PLAIN}
    app.add_middleware(
        Guard, config=config, keys=Keys(config), metrics=metrics, routes=routes, check_room=service.queue.check_room
    )
    if config.cors:
        headers = ["X-Request-Id", "Retry-After"]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=headers,
        )
    app.add_exception_handler(RequestValidationError, refuse_invalid)
    app.add_exception_handler(HTTPException, refuse_unknown)
    add_rerank(app, service)
    add_plain(app, service)
    add_pages(app, service)
    return app


def add_rerank(app: FastAPI, service: Service) -> None:
    """The route that reranks, under all its names."""

    async def rerank(request: Request, body: Annotated[RerankRequest, Body()]) -> Response:
        """Rerank documents: the best first, with a score in [0, 1] for each."""
        state = request.state
        state.is_tei = body.is_tei  # the form of errors
        service.check_ready()
        if body.is_tei and not body.texts:
            raise Refusal(400, "texts is empty: send at least one", param="texts", tei="Empty")
        if body.documents is None and body.texts is None:
            raise Refusal(422, "documents is missing: send a list of strings or objects", param="documents")
        job = await service.read(body, state.id, state.key, state.start)

        def respond(ranking: Ranking) -> Json:
            version = "2" if "v2" in request.url.path else "1"
            whole = answer(body, ranking, job.texts, id=state.id, model=service.model, version=version)
            if "page" in body.include:
                whole["rankr1"]["page"] = service.keep(ranking)
            return whole

        if body.stream and not body.is_tei:
            stream = events(service, job, respond)
            return EventStream(await anext(stream), stream)
        ranking = await service.rank(job)
        timing = ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in job.spent.items())
        whole = tei_answer(body, ranking, job.texts) if body.is_tei else respond(ranking)
        return as_json(whole, {"server-timing": timing})

    for path in RERANK:
        is_shown = path == "/v1/rerank"
        app.post(path, summary="Rerank documents", responses=RESPONSES, include_in_schema=is_shown)(rerank)


def add_plain(app: FastAPI, service: Service) -> None:
    """The routes that ask no model."""
    created, model = int(time.time()), service.model

    @app.get("/health")
    async def health() -> Response:
        """Whether the server runs."""
        return as_json({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        """Whether the model is loaded: 503 until then, and while the server stops."""
        service.check_ready()
        return as_json({"status": "ready"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """The figures of the server for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/info")
    async def about() -> Response:
        """The model and the limits, in the shape of text-embeddings-inference."""
        plan, limit = service.reranker.plan, service.config.max_documents
        return as_json(info(model, plan.backend.context, limit, service.queue.most))

    @app.get("/v1/models")
    async def models() -> Response:
        """The names that requests may have."""
        names = service.config.model_name or (model,)
        one = {"object": "model", "created": created, "owned_by": "rankr1"}
        return as_json({"object": "list", "data": [{"id": name, **one} for name in names]})


def add_pages(app: FastAPI, service: Service) -> None:
    """The page of the server, and those of its rankings."""
    values = {"model": service.model, "needs_key": service.config.has_keys}
    page = environment().get_template("rankr1_rag.server/page/page.html").render(**values)
    manual = environment().get_template("rankr1_rag.server/page/docs.html")
    headers = {"content-security-policy": POLICY, "referrer-policy": "no-referrer"}
    script = read_resource("rankr1_rag.server/page/page.js")
    styles = "rankr1_rag.explain/base.css", "rankr1_rag.explain/page.css", "rankr1_rag.server/page/page.css"
    style = "".join(map(read_resource, styles))

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page, headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(manual.render(api=app.openapi(), url=str(request.base_url), **values), headers=headers)

    @app.get("/page.js", include_in_schema=False)
    async def page_script() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/page.css", include_in_schema=False)
    async def page_style() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/rankings/{id}", response_class=HTMLResponse)
    async def ranking(id: str) -> Response:
        """How a ranking came about, as a page; its address is under "rankr1" with `include: ["page"]`."""
        return HTMLResponse(await service.page(id), headers={"referrer-policy": "no-referrer"})


def as_json(value: object, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(json.dumps(value, allow_nan=False), media_type="application/json", headers=headers)


async def refuse_invalid(request: Request, error: Exception) -> Response:
    """Raise the Refusal of a body that is no JSON, or another one than RerankRequest."""
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, dict):
        request.state.is_tei = error.body.get("documents") is None and error.body.get("texts") is not None
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:] if not re.search(r"[^\w-]|^(str|dict|bool)$", str(part)))
    if first["type"] == "json_invalid":
        raise Refusal(400, f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}")
    if not place and first["type"] in ("model_attributes_type", "missing"):
        raise Refusal(400, "the body is no JSON object: send one, with the header 'Content-Type: application/json'")
    raise Refusal(
        413 if first["type"] == "too_long" else 422, f"{place or 'the body'}: {first['msg']}", param=place or None
    )


async def refuse_unknown(_: Request, error: Exception) -> Response:
    """Raise the Refusal of an unknown route or method, or of a body that cannot be parsed."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        raise Refusal(400, "the body is no JSON that can be read: it is no UTF-8, too deep, or has too long a number")
    raise Refusal(error.status_code, f"{error.detail}: the routes are listed at /docs", headers=error.headers)


class WithoutTexts(logging.Filter):
    """Takes queries and the texts of models and of their servers out of log records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; it is always kept."""
        hides = record.msg.startswith("query %") if isinstance(record.msg, str) else True
        args = record.args if isinstance(record.args, tuple) else ()
        record.args = tuple([shortened(one, hides and record.name == "rankr1_rag") for one in args]) or record.args
        return True


def shortened(arg: object, hides: bool) -> object:
    """An argument of a log record without text of others."""
    if isinstance(arg, Exception):
        name = type(arg).__name__
        return f"{name}: {str(arg).partition(': ')[0]}" if isinstance(arg, BackendError) else name
    if isinstance(arg, str):
        return "…" if hides else re.sub(r"( answered \d+): .*", r"\1", arg, flags=re.DOTALL)
    return arg


LOGGERS = ("", ".server", ".retried", ".load_balancer", ".openai")


class GracefulServer(uvicorn.Server):
    """A uvicorn server that ends open queries with their order so far, shortly before its time to stop is over."""

    service: Service

    def run_on_private_loop(self, bound: socket.socket) -> None:
        """Serve until a signal, which then has its usual effect, on the event loop of the engine.

        A second signal ends the process at once. On a loop of its own the server would wait for the engine's thread,
        and the engine for the server's, at each request: the slowest answers took twice as long.
        """
        stopped, handled = list[int](), (signal.SIGINT, signal.SIGTERM)

        def stop(number: int, frame: FrameType | None) -> None:
            if stopped:
                os._exit(128 + number)
            stopped.append(number)
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, stop) for number in handled}
        try:
            private_loop().call(self.serve(sockets=[bound]))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if stopped:
            signal.raise_signal(stopped[-1])

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Stop accepting requests, wait for the open ones, then end."""
        ending = asyncio.create_task(self.service.stop())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            with suppress(asyncio.CancelledError):
                await ending


def serve(reranker: Reranker, config: ServerConfig, say: Callable[[str], object] = lambda _: None) -> None:
    """Serve until SIGTERM or Ctrl-C. OSError for an address or a port that is taken; ValueError, see `Keys`."""

    def say_ready(line: str) -> None:
        gc.freeze()  # what is loaded is never garbage, and looking through it stops every query for a tenth of a second
        say(line)

    app = create_app(reranker, config, say_ready)
    options: Any = {"log_config": None, "access_log": False, "server_header": False, "ws": "none"}
    options["timeout_keep_alive"] = KEEP_ALIVE
    server = GracefulServer(uvicorn.Config(app, timeout_graceful_shutdown=math.ceil(config.grace) + 2, **options))
    server.service = app.state.service
    with listening(config.host, config.port) as bound:
        host = f"[{config.host}]" if ":" in config.host else config.host
        say(f"listening at http://{host}:{bound.getsockname()[1]}")
        server.run_on_private_loop(bound)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, on the IPv4 address of a name that has several. OSError with the address."""
    with ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
            # With the protocol, without which asyncio keeps Nagle's delay of 40 ms.
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(2_048)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise OSError(f"{host}:{port} cannot be listened on ({why}): use another address or port") from None
        stack.pop_all()
        return bound
