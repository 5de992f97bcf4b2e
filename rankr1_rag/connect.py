"""A backend from the simple arguments that a user has (a kind, a model, an address), and a reranker from them all.

The stack is `stored(limited(retried(backend)))`, with `load_balanced` innermost for several servers. For the
command line and the integrations; knows nothing of either.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args

from rankr1_rag.backends import Backend
from rankr1_rag.backends.wrappers import limited, load_balanced, retried, stored
from rankr1_rag.reranker import Reranker

B = TypeVar("B", bound=Backend)

Kind = Literal["openvino", "openai", "vllm", "transformers"]


def connect(
    kind: Kind | None = None,
    model: str | None = None,
    *,
    adapter: str | None = None,
    base_url: str | Sequence[str] | None = None,
    server: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    context: int | None = None,
    timeout: float = 600.0,
    attempts: int = 6,
    requests: int | None = None,
    store: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backend:
    """The backend of this kind, with retries, at most `requests` at once, and a store where they are asked for.

    "openvino": `model` is a GGUF file and, if wanted, the LoRA `adapter` on it, a folder; or an OpenVINO folder, or
    None for the embedded default. "vllm" and "transformers": a released checkpoint, or a name of the hub or folder,
    and the `adapter` likewise. "openai": `model` as the server calls it; `server` is its dialect, see
    `backends.openai`; several addresses in `base_url` are servers with one model, see `wrappers.load_balanced`. None is
    "openai" where there is a `base_url`, else "openvino".

    `options` are further arguments of the backend's class, `{"tensor_parallel": 2}` for example. What does not belong
    to a kind is a ValueError.
    """
    kind = kind or ("openvino" if base_url is None else "openai")
    if context is not None and context < 1:
        raise ValueError(f"context={context}: a number of tokens, at least 1, is needed")
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout={timeout}: a number of seconds above 0 is needed")
    access = {"base_url": base_url, "server": server, "api_key": api_key, "api_key_env": api_key_env}
    given = {**_further(options), "context": context}
    backend: Backend
    if kind == "openai":
        if adapter is not None:
            raise ValueError("adapter: a server has loaded its adapters itself, name the one to ask as the model")
        backend = _openai(model, base_url, given | access | {"timeout": timeout})
    else:
        _refuse(kind, access)
        backend = _local(kind, model, adapter, given)
    if kind != "openvino":  # which starts its process anew itself
        backend = retried(backend, attempts=attempts)
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


def _further(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """ValueError for options that `connect` has an argument for."""
    further = dict(options or {})
    if twice := sorted(further.keys() & CONNECTING):
        raise ValueError(f"options: {', '.join(twice)} has an argument of its own, give it there")
    return further


def _local(kind: str, model: str | None, adapter: str | None, given: Mapping[str, Any]) -> Backend:
    """What runs on this machine."""
    if kind == "openvino":
        return _openvino(model, {**given, "adapter": adapter})
    if kind in ("vllm", "transformers"):
        return _engine(kind, model, {**given, "adapter": adapter})
    raise ValueError(f"backend {kind!r}: one of {', '.join(map(repr, get_args(Kind)))} is needed")


def _refuse(kind: str, access: Mapping[str, object]) -> None:
    """ValueError for what says how to reach a server, where none is asked."""
    if asked := [name for name, value in access.items() if value is not None]:
        belong = "belongs" if len(asked) == 1 else "belong"
        raise ValueError(
            f"{' and '.join(asked)} {belong} to the backend 'openai', not to {kind!r}: say which server with "
            "base_url, or the backend 'openai' for api.openai.com"
        )


def _made(kind: Callable[..., B], model: str | None, arguments: Mapping[str, Any]) -> B:
    """The backend. ValueError for an argument that its class does not have."""
    known = [name for name in list(inspect.signature(kind).parameters)[1:] if name != "count"]
    if unknown := [name for name in arguments if name not in known]:
        raise ValueError(f"{kind.__qualname__} has no option {unknown[0]!r}: it has {', '.join(known)}")
    try:
        return kind(model, **arguments)
    except TypeError as error:
        raise ValueError(f"an option of {kind.__qualname__} is of the wrong kind: {error}") from error


def _openvino(model: str | None, arguments: Mapping[str, Any]) -> Backend:
    from rankr1_rag.backends.openvino import OpenVINO

    try:
        return _made(OpenVINO, model, arguments)
    except FileNotFoundError as error:
        if str(error).startswith("no adapter"):
            raise
        raise FileNotFoundError(
            f"{error}. If it is on a server, say where with base_url, or the backend 'openai' for api.openai.com"
        ) from None


def _engine(kind: str, model: str | None, arguments: Mapping[str, Any]) -> Backend:
    if model is None:
        raise ValueError(f"the backend {kind!r} needs a model: 'ielabgroup/Rank-R1-7B-v0.1' for example, or a folder")
    if kind == "vllm":
        from rankr1_rag.backends.vllm import VLLM

        return _made(VLLM, model, arguments)
    from rankr1_rag.backends.transformers import Transformers

    return _made(Transformers, model, arguments)


def _openai(model: str | None, base_url: str | Sequence[str] | None, arguments: Mapping[str, Any]) -> Backend:
    from rankr1_rag.backends.openai import OpenAI

    if model is None:
        raise ValueError("the backend 'openai' needs a model: the name by which the server calls it")
    urls = [base_url] if base_url is None or isinstance(base_url, str) else list(base_url)
    if base_url is not None and not all(urls or [""]):
        raise ValueError(
            "base_url is empty, or one of its addresses is: http://localhost:8000/v1 for example is needed"
        )
    servers = [_made(OpenAI, model, {**arguments, "base_url": url}) for url in urls]
    addresses = [one.base_url for one in servers]
    if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
        raise ValueError(f"base_url names {' and '.join(twice)} more than once: once is enough for each server")
    return servers[0] if len(servers) == 1 else load_balanced(servers)
