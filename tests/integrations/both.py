"""One interface to the components of both frameworks, so that a test runs over both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import pytest

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.settings import Settings, options
from tests.integrations.conftest import PASSAGES, QUERY, knows_best


class Framework:
    """The component, its items, LLMs and retrievers. `item` is the class of what is reranked, `model` that of LLMs."""

    def __init__(self) -> None:
        self.loop: Any = None
        self.items = [self.new(name, text, title=title) for name, (title, text) in PASSAGES.items()]
        self.first = [one for one in self.items if self.id(one) in ("whitby", "dracula", "shelley")]

    def component(self, script: Any = knows_best, bring: str = "reranker", **settings: Any) -> Any:
        """A component around a reranker, or around the framework's LLM (`bring="llm"`)."""
        settings |= {"hops": settings.get("hops", 2)} if "retrieve" in settings else {}
        if bring == "llm":
            return self.kind(llm=self.llm(script), **settings)
        own = {name: settings.pop(name) for name in settings.keys() & options(Settings).keys()}
        return self.kind(reranker=Reranker(Scripted(script, model="scripted"), **own), **settings)

    def llm(self, script: Any = knows_best, kind: str = "native", **fields: Any) -> Any:
        """An LLM of the framework; `calls` has the method, thread, event loop and limits of each call.

        `kind` is "native" (sync and async methods), "only sync" or "only async".
        """
        backend = Scripted(script, model=fields.pop("model", "scripted"))
        return self.model(backend=backend, only=kind.removeprefix("only "), **fields)

    def rerank(self, way: str, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        """Rerank "sync", "async", or "sync in a running loop"; `loop` is then the event loop of the caller."""

        async def run() -> list[Any]:
            self.loop = asyncio.get_running_loop()
            return await self.awaited(component, items, query) if way == "async" else self.sync(component, items, query)

        return self.sync(component, items, query) if way == "sync" else asyncio.run(run())

    def ids(self, items: Iterable[Any]) -> list[Any]:
        return [self.id(one) for one in items]

    def titled(self, text: str) -> list[Any]:
        """The items whose title a text names."""
        return [one for one in self.items if self.metadata(one)["title"] in text]

    def retriever(self, kind: str, find: Any = None) -> Any:
        """A retriever that finds by title and records its calls in `calls`.

        `kind` is "sync" (the async method is the framework's own), "native", "only sync" or "only async".
        """
        calls: list[tuple[str, str, str, Any]] = []

        def search(how: str, query: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
            bundle = query[0] if query else named["query_bundle"]
            text = getattr(bundle, "query_str", bundle)
            calls.append((how, text, threading.current_thread().name, asyncio._get_running_loop()))
            return (find or self.titled)(text)

        def sync(_: Any, *query: Any, **named: Any) -> list[Any]:
            if kind == "only async":
                raise NotImplementedError
            return search("sync", query, named)

        async def native(_: Any, *query: Any, **named: Any) -> list[Any]:
            await asyncio.sleep(0)
            if kind == "only sync":
                raise NotImplementedError
            return search("async", query, named)

        methods = dict(zip(self.methods, [sync] if kind == "sync" else [sync, native], strict=False))
        retriever = type("Titles", (self.base,), methods)()
        object.__setattr__(retriever, "calls", calls)
        return retriever


class LangChain(Framework):
    methods = ("_get_relevant_documents", "_aget_relevant_documents")
    id, text, metadata = attrgetter("id"), attrgetter("page_content"), attrgetter("metadata")

    def __init__(self) -> None:
        from langchain_core.documents import Document
        from langchain_core.retrievers import BaseRetriever
        from langchain_rankr1 import RankR1Rerank

        from tests.integrations.with_langchain.parts import Chat

        self.kind, self.item, self.base, self.model = RankR1Rerank, Document, BaseRetriever, Chat
        super().__init__()

    def new(self, id: str | None, text: str, **metadata: Any) -> Any:
        return self.item(text, id=id, metadata=metadata)

    def scored(self, id: str, text: str, score: float) -> Any:
        return self.new(id, text, score=score)

    def sync(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return list(component.compress_documents(items, query))

    async def awaited(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return list(await component.acompress_documents(items, query))

    def score(self, item: Any) -> float:
        return item.metadata["relevance_score"]

    def views(self, component: Any) -> list[Any]:
        from tests.integrations.with_langchain.parts import Traces

        traces = Traces()
        component.compress_documents(self.items, QUERY, callbacks=[traces])
        return [component.as_runnable(), traces.runs]

    def real_retrievers(self) -> list[Any]:
        from tests.integrations.with_langchain.parts import bm25, vectors

        return [bm25(self.items), vectors()]

    def hosted(self, name: str) -> tuple[Any, Callable[[Any], Any]]:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=name, api_key="none"), lambda llm: llm._get_request_payload("?")


class LlamaIndex(Framework):
    methods = ("_retrieve", "_aretrieve")
    id, text, metadata, score = (attrgetter(name) for name in ("node_id", "text", "node.metadata", "score"))

    def __init__(self) -> None:
        from llama_index.core.base.base_retriever import BaseRetriever
        from llama_index.core.schema import NodeWithScore, TextNode
        from llama_index.postprocessor.rankr1 import RankR1Rerank

        from tests.integrations.with_llama_index.conftest import Served

        self.kind, self.item, self.base, self.model = RankR1Rerank, NodeWithScore, BaseRetriever, Served
        self.node = TextNode
        super().__init__()

    def new(self, id: str | None, text: str, **metadata: Any) -> Any:
        return self.item(node=self.node(text=text, metadata=metadata, **({"id_": id} if id else {})), score=0.5)

    def scored(self, id: str, text: str, score: float) -> Any:
        return self.item(node=self.node(text=text, id_=id), score=score)

    def sync(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return component.postprocess_nodes(list(items), query_str=query)

    async def awaited(self, component: Any, items: Sequence[Any], query: str = QUERY) -> list[Any]:
        return await component.apostprocess_nodes(list(items), query_str=query)

    def views(self, component: Any) -> list[Any]:
        return [component.to_json(), component.to_dict()]

    def real_retrievers(self) -> list[Any]:
        from llama_index.retrievers.bm25 import BM25Retriever

        return [BM25Retriever.from_defaults(nodes=[one.node for one in self.items], similarity_top_k=6)]

    def hosted(self, name: str) -> tuple[Any, Callable[[Any], Any]]:
        from llama_index.llms.openai import OpenAI

        return OpenAI(model=name, api_key="none"), lambda llm: llm._get_model_kwargs()


def framework(name: str) -> Framework:
    """The framework of this name; the test is skipped if it is not installed."""
    pytest.importorskip({"langchain": "langchain_rankr1", "llama_index": "llama_index"}[name])
    return LangChain() if name == "langchain" else LlamaIndex()
