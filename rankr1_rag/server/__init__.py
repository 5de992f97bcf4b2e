"""`rankr1 serve`: a rerank server in the shapes of Cohere, Jina, Voyage and TEI, on one reranker.

    create_app(Reranker(backend), ServerConfig())    the ASGI application, for tests and servers of your own
    serve(Reranker(backend), ServerConfig())         runs it until SIGTERM

Must not know models, prompts or algorithms: it turns requests into calls of `Reranker.arank`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankr1_rag.server.config import ServerConfig

if TYPE_CHECKING:
    from rankr1_rag.server.app import create_app, serve

__all__ = ["ServerConfig", "create_app", "serve"]


def __getattr__(name: str) -> object:
    """Import the server when it is used: the command line must not need it."""
    if name not in ("create_app", "serve"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from rankr1_rag.server import app
    except ModuleNotFoundError as error:
        problem = f"the server needs fastapi, uvicorn and prometheus-client ({error})"
        raise ImportError(f'{problem}: pip install "rankr1-rag[server]"') from None
    return getattr(app, name)
