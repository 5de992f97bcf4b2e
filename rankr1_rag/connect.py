"""A backend from the plain arguments that a user has (a runtime, a model, an address), and a reranker from all options.

The stack is `stored(limited(retried(backend)))`, with `load_balanced` innermost if there are several servers.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
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


def open_backend(one: Connection) -> Backend:
    """The backend of this connection. ValueError for wrong options, FileNotFoundError for a wrong path."""
    arguments = {**(one.options or {}), "context": one.context}
    if one.kind == "openai":
        return wrapped(retried(_servers(one, arguments), attempts=one.attempts), one.requests, one.store)
    local = _local(one, {**arguments, "adapter": None if one.adapter is None else os.fspath(one.adapter)})
    if one.kind != "openvino":  # which restarts its process itself
        local = retried(local, attempts=one.attempts)
    return wrapped(local, one.requests, one.store)


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


def _local(one: Connection, arguments: Mapping[str, Any]) -> Backend:
    """A backend on this machine."""
    if one.kind == "vllm":
        from rankr1_rag.backends.vllm import VLLM

        return _construct(VLLM, one.model, arguments)
    if one.kind == "transformers":
        from rankr1_rag.backends.transformers import Transformers

        return _construct(Transformers, one.model, arguments)
    from rankr1_rag.backends.openvino import OpenVINO

    try:
        return _construct(OpenVINO, one.model, arguments)
    except FileNotFoundError as error:
        if str(error).startswith("no adapter"):
            raise
        raise FileNotFoundError(
            f"{error}. For a model on a server add base_url=, or backend='openai' for api.openai.com"
        ) from None


def _servers(one: Connection, arguments: Mapping[str, Any]) -> Backend:
    """The server, or all of them as one backend."""
    from rankr1_rag.backends.openai import OpenAI

    access = {name: getattr(one, name) for name in ("server", "api_key", "api_key_env", "timeout")}
    servers = [_construct(OpenAI, one.model, {**arguments, **access, "base_url": url}) for url in one.urls or (None,)]
    addresses = [getattr(server, "base_url") for server in servers]  # noqa: B009
    if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
        raise ValueError(f"base_url lists {' and '.join(twice)} more than once: list each server once")
    return servers[0] if len(servers) == 1 else load_balanced(servers)
