"""A backend from the simple arguments that a user has (a kind, a model, an address), and a reranker from them all.

The stack is `stored(limited(retried(backend)))`. For the command line and the integrations; knows nothing of either.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal

from rankr1_rag.backends import Backend
from rankr1_rag.backends.wrappers import limited, retried, stored
from rankr1_rag.reranker import Reranker

Kind = Literal["openvino", "openai"]


def connect(
    kind: Kind | None = None,
    model: str | None = None,
    *,
    base_url: str | None = None,
    server: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    context: int | None = None,
    timeout: float = 600.0,
    attempts: int = 6,
    requests: int | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Backend:
    """The backend of this kind, with retries, at most `requests` at once, and a store where they are asked for.

    "openvino": `model` is a GGUF file, an OpenVINO folder, or None for the embedded default; the arguments of a server
    are then a ValueError. "openai": `model` as the server calls it; `server` is its dialect, see `backends.openai`.
    None is "openai" where there is a `base_url`, else "openvino".
    """
    kind = kind or ("openvino" if base_url is None else "openai")
    if context is not None and context < 1:
        raise ValueError(f"context={context}: a number of tokens, at least 1, is needed")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout={timeout}: a number of seconds above 0 is needed")
    if kind == "openvino":
        given = {"base_url": base_url, "server": server, "api_key": api_key, "api_key_env": api_key_env}
        if asked := [name for name, value in given.items() if value is not None]:
            belong = "belongs" if len(asked) == 1 else "belong"
            raise ValueError(
                f"{' and '.join(asked)} {belong} to the backend 'openai', not to 'openvino': say which server with "
                "base_url, or the backend 'openai' for api.openai.com"
            )
        backend = _openvino(model, context)
    elif kind == "openai":
        backend = retried(_openai(model, base_url, server, api_key, api_key_env, context, timeout), attempts=attempts)
    else:
        raise ValueError(f"backend {kind!r}: 'openvino' or 'openai' is needed")
    return wrapped(backend, requests, store)


def wrapped(backend: Backend, requests: int | None = None, store: str | os.PathLike[str] | None = None) -> Backend:
    """The backend, at most `requests` at once, with a store, where they are asked for."""
    if requests is not None:
        backend = limited(backend, requests)
    return stored(backend, store) if store is not None else backend


def reranker(given: Mapping[str, Any], around: Callable[[Backend], Backend] | None = None) -> Reranker:
    """A reranker from the arguments of `connect` (its `kind` is called `backend`) and of `Reranker`, in one mapping.

    `around` is what else stands between the backend and the reranker.
    """
    connecting = {name: value for name, value in given.items() if name in CONNECTING}
    backend = connect(given.get("backend"), **connecting)
    own = {name: value for name, value in given.items() if name not in CONNECTING and name != "backend"}
    return Reranker(around(backend) if around else backend, **own)


CONNECTING = frozenset(inspect.signature(connect).parameters) - {"kind"}
"""The arguments that say what is asked, as `RERANKING` say how."""

RERANKING = frozenset(field.name for field in fields(Reranker)) - {"backend"}


def _openvino(model: str | None, context: int | None) -> Backend:
    from rankr1_rag.backends.openvino import OpenVINO

    try:
        return OpenVINO(model, context=context)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}. If it is on a server, say where with base_url, or the backend 'openai' for api.openai.com"
        ) from None


def _openai(
    model: str | None,
    base_url: str | None,
    server: str | None,
    api_key: str | None,
    api_key_env: str | None,
    context: int | None,
    timeout: float,
) -> Backend:
    from rankr1_rag.backends.openai import OpenAI

    if model is None:
        raise ValueError("the backend 'openai' needs a model: the name by which the server calls it")
    return OpenAI(
        model,
        base_url=base_url,
        server=server,  # type: ignore[arg-type]  # checked there
        api_key=api_key,
        api_key_env=api_key_env,
        context=context,
        timeout=timeout,
    )
