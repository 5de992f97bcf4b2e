"""A backend from the plain arguments that a user has (a runtime, a model, an address), and a reranker from all options.

The stack is `stored(limited(retried(backend)))`, with `load_balanced` innermost if there are several servers.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ParamSpec, get_type_hints

from rankr1_rag.backends import Backend
from rankr1_rag.backends.wrappers import limited, load_balanced, retried, stored
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import Connection, Option, no_such_option, options

P = ParamSpec("P")

CONNECTING = frozenset(options(Connection))
"""The names of the options of `connect`."""

RERANKING = frozenset(options(Reranker)) - {"backend"}
"""The names of the options of `Reranker`, except the backend."""


CLASSES = {"openai": "OpenAI", "vllm": "VLLM", "transformers": "Transformers", "openvino": "OpenVINO"}


SERVER_OPTIONS = ("server", "api_key", "api_key_env", "timeout", "headers", "query", "extra_body")


def open_backend(one: Connection) -> Backend:
    """The backend of this connection. ValueError for wrong options, FileNotFoundError for a wrong path."""
    kind = getattr(import_module(f"rankr1_rag.backends.{one.kind}"), CLASSES[one.kind])
    arguments = {**(one.options or {}), "context": one.context}
    if one.kind == "openai":
        arguments |= {name: getattr(one, name) for name in SERVER_OPTIONS}
        servers = [_construct(kind, one.model, {**arguments, "base_url": url}) for url in one.urls or (None,)]
        addresses = [getattr(server, "base_url") for server in servers]  # noqa: B009
        if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
            raise ValueError(f"base_url lists {' and '.join(twice)} more than once: list each server once")
        backend = servers[0] if len(servers) == 1 else load_balanced(servers)
    else:
        arguments["adapter"] = None if one.adapter is None else os.fspath(one.adapter)
        try:
            backend = _construct(kind, one.model, arguments)
        except FileNotFoundError as error:
            if one.kind != "openvino" or str(error).startswith("no adapter"):
                raise
            server = "For a model on a server add base_url=, or backend='openai' for api.openai.com"
            raise FileNotFoundError(f"{error}. {server}") from None
    if one.kind != "openvino":  # which restarts its process itself
        backend = retried(backend, attempts=one.attempts)
    return wrapped(backend, one.requests, one.store)


def _with_parameters(settings: Callable[P, Connection]) -> Callable[P, Backend]:
    def connect(*args: P.args, **kwargs: P.kwargs) -> Backend:
        return open_backend(settings(*args, **kwargs))

    connect.__qualname__ = connect.__name__  # importable, so picklable
    connect.__signature__ = inspect.signature(settings).replace(return_annotation=Backend)  # type: ignore[attr-defined]
    connect.__doc__ = "The backend of these options, with retries, a limit and a store.\n\n" + str(settings.__doc__)
    return connect


connect = _with_parameters(Connection)
"""`open_backend` of a `Connection` with these arguments: `connect(model="m", base_url="http://localhost:8000/v1")`."""


def wrapped(backend: Backend, requests: int | None = None, store: str | os.PathLike[str] | None = None) -> Backend:
    """The backend with a limit and a store, if they are wanted."""
    if requests is not None:
        backend = limited(backend, requests)
    return stored(backend, store) if store is not None else backend


def reranker(settings: Mapping[str, Any], around: Callable[[Backend], Backend] = lambda backend: backend) -> Reranker:
    """A reranker from the options of `connect` and of `Reranker` in one mapping; `around` wraps the backend."""
    backend = connect(**{name: value for name, value in settings.items() if name in CONNECTING})
    return Reranker(around(backend), **{name: value for name, value in settings.items() if name not in CONNECTING})


def _construct(kind: Callable[..., Backend], model: object, arguments: Mapping[str, Any]) -> Backend:
    """The backend. ValueError for an argument that its class does not have, or of another type."""
    hints = get_type_hints(getattr(kind, "__init__"))  # noqa: B009
    known = [name for name in list(inspect.signature(kind).parameters)[1:] if name != "count"]
    for name, value in arguments.items():
        if name not in known:
            problem = no_such_option(name, known, f"its options are {', '.join(known)}")
            raise ValueError(f"{kind.__qualname__}: {problem}")
        declared = Option("", "", name=name, type=hints[name], secret=name == "api_key")
        if {bool, int, float} & {*declared.kinds}:
            declared.check(value)
    try:
        return kind(None if model is None else os.fspath(model), **arguments)  # type: ignore[call-overload]
    except TypeError as error:
        raise ValueError(f"an option of {kind.__qualname__} has a wrong type: {error}") from error
