"""One interface to the components of both frameworks, so that a test runs over both."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from tests.integrations.conftest import PASSAGES, QUERY, knows_best

NAMES = ("langchain", "llama_index")


class Framework:
    """The component, its items, and its retrievers. `item` is the class of what goes in and comes out."""

    def __init__(self) -> None:
        self.items = [self.new(name, text, title=title) for name, (title, text) in PASSAGES.items()]
        self.first = [one for one in self.items if self.id(one) in ("whitby", "dracula", "shelley")]

    def component(self, retrieve: Any, script: Any = knows_best, **settings: Any) -> Any:
        hops = settings.pop("hops", 2)
        return self.kind(reranker=Reranker(Scripted(script), hops=hops), retrieve=retrieve, **settings)

    def rerank(self, way: str, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        """By the way "sync", "async", or "sync in a running loop"."""

        async def cell() -> list[Any]:
            return self.sync(component, items, query)

        if way == "sync":
            return self.sync(component, items, query)
        return asyncio.run(self.awaited(component, items, query) if way == "async" else cell())

    def ids(self, items: Iterable[Any]) -> list[Any]:
        return [self.id(one) for one in items]

    def titled(self, text: str) -> list[Any]:
        """The items whose title a text names."""
        return [one for one in self.items if self.metadata(one)["title"] in text]

    def retriever(self, kind: str, find: Any = None) -> Any:
        """One that finds by title and records its calls in `asked`.

        `kind` is "sync" (the async method is the framework's own), "native", "only sync" or "only async".
        """
        asked: list[tuple[str, str, str, Any]] = []

        def found(how: str, text: str) -> list[Any]:
            asked.append((how, text, threading.current_thread().name, asyncio._get_running_loop()))
            return (find or self.titled)(text)

        def sync(_: Any, *query: Any, **named: Any) -> list[Any]:
            bundle = query[0] if query else named["query_bundle"]
            return found("sync", getattr(bundle, "query_str", bundle))

        async def native(_: Any, *query: Any, **named: Any) -> list[Any]:
            await asyncio.sleep(0)
            bundle = query[0] if query else named["query_bundle"]
            return found("async", getattr(bundle, "query_str", bundle))

        async def no_async(*_: Any, **__: Any) -> list[Any]:
            raise NotImplementedError

        def no_sync(*_: Any, **__: Any) -> list[Any]:
            raise NotImplementedError

        methods: dict[str, list[Any]] = {
            "sync": [sync],
            "native": [sync, native],
            "only sync": [sync, no_async],
            "only async": [no_sync, native],
        }
        made = type("Titles", (self.base,), dict(zip(self.methods, methods[kind], strict=False)))()
        object.__setattr__(made, "asked", asked)
        return made


class LangChain(Framework):
    def __init__(self) -> None:
        from langchain_core.documents import Document
        from langchain_core.retrievers import BaseRetriever
        from langchain_rankr1 import RankR1Rerank

        self.kind, self.item, self.base = RankR1Rerank, Document, BaseRetriever
        self.methods = ("_get_relevant_documents", "_aget_relevant_documents")
        super().__init__()

    def new(self, id: str | None, text: str, **metadata: Any) -> Any:
        return self.item(text, id=id, metadata=metadata)

    def sync(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return list(component.compress_documents(items, query))

    async def awaited(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return list(await component.acompress_documents(items, query))

    def id(self, item: Any) -> Any:
        return item.id

    def text(self, item: Any) -> str:
        return item.page_content

    def metadata(self, item: Any) -> dict[str, Any]:
        return item.metadata

    def score(self, item: Any) -> float:
        return item.metadata["relevance_score"]


class LlamaIndex(Framework):
    def __init__(self) -> None:
        from llama_index.core.base.base_retriever import BaseRetriever
        from llama_index.core.schema import NodeWithScore, TextNode
        from llama_index.postprocessor.rankr1 import RankR1Rerank

        self.kind, self.item, self.base, self.node = RankR1Rerank, NodeWithScore, BaseRetriever, TextNode
        self.methods = ("_retrieve", "_aretrieve")
        super().__init__()

    def new(self, id: str | None, text: str, **metadata: Any) -> Any:
        hidden = [name for name in metadata if name != "title"]
        node = self.node(
            text=text, metadata=metadata, excluded_embed_metadata_keys=hidden, **({"id_": id} if id else {})
        )
        return self.item(node=node, score=0.5)

    def sync(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return component.postprocess_nodes(list(items), query_str=query)

    async def awaited(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return await component.apostprocess_nodes(list(items), query_str=query)

    def id(self, item: Any) -> Any:
        return item.node_id

    def text(self, item: Any) -> str:
        return item.text

    def metadata(self, item: Any) -> dict[str, Any]:
        return item.node.metadata

    def score(self, item: Any) -> float:
        return item.score


def framework(name: str) -> Framework | None:
    """The framework of this name; None where it is not installed."""
    if importlib.util.find_spec({"langchain": "langchain_rankr1", "llama_index": "llama_index"}[name]) is None:
        return None
    return LangChain() if name == "langchain" else LlamaIndex()
