"""`rankr1 serve`: a rerank server in the shapes of Cohere, Jina, Voyage and TEI."""

from __future__ import annotations

import typer

from rankr1_rag.cli.options import CommandSettings, arguments, with_hyphens
from rankr1_rag.connect import reranker
from rankr1_rag.server.config import ServerConfig
from rankr1_rag.settings import options


def serve(*, config: ServerConfig, settings: CommandSettings) -> None:
    """Serve rerank requests of the clients of Cohere, Jina, Voyage, vLLM and TEI until SIGTERM; the API is at /docs.

    All requests share one model. Without keys only this machine may ask.
    """
    settings.check_files([], [config.keys])
    names = [*options(CommandSettings), *options(ServerConfig)]
    with arguments(lambda problem: with_hyphens(problem, names)):
        from rankr1_rag.server import serve

        engine = reranker({name: getattr(settings, name) for name in options(CommandSettings)})
        serve(engine, config, lambda line: typer.echo(line, err=True))
