"""What an integration adds to `Reranker.arank` itself: milliseconds of processor time a query of 100 nodes.

    python -m bench.integrations

A model that answers at once, 100 candidates with title and metadata, top 5, sets of 20. Both in one process, in turn,
on one event loop; the difference is taken pair by pair. Events and callbacks are sent, and nobody listens.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from typing import TypedDict

import langchain_rankr1
from langchain_core.documents import Document
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.rankr1 import RankR1Rerank

from rankr1_rag import Completion, Ranking, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.component import Component

N, TOP_N, PAIRS = 100, 5, 300
TEXT = "word " * 60
METADATA = {"source": {"file": "a.pdf", "page": 3}, "year": 1897, "tags": ["novel", "gothic"]}
SAID = Completion("<think>short</think> <answer>[1]</answer>", prompt_tokens=2_000, completion_tokens=60)

Once = Callable[[], Awaitable[object]]


class Options(TypedDict, total=False):
    include_reasoning: bool


async def added(once: Once, itself: Once) -> tuple[float, float, float]:
    """Milliseconds: of the reranker itself, and what the other adds; medians, and the 90th percentile of the added."""
    bare, more = [], []
    for _ in range(PAIRS):
        first = await _spent(itself)
        bare.append(first)
        more.append(await _spent(once) - first)
    return statistics.median(bare), statistics.median(more), statistics.quantiles(more, n=10)[-1]


async def _spent(once: Once) -> float:
    start = time.process_time()
    await once()
    return 1e3 * (time.process_time() - start)


def nodes() -> list[NodeWithScore]:
    """Nodes as a retriever gives them."""
    made = [TextNode(text=f"{TEXT}{n}", metadata={"title": f"title {n}", **METADATA}) for n in range(N)]
    return [NodeWithScore(node=node, score=1 / (n + 1)) for n, node in enumerate(made)]


def documents() -> list[Document]:
    """The same as documents."""
    return [Document(f"{TEXT}{n}", id=str(n), metadata={"title": f"title {n}", **METADATA}) for n in range(N)]


async def rows() -> list[str]:
    """The table, a line for each integration with and without reasoning in the metadata."""
    reranker = Reranker(Scripted(lambda messages: SAID), k=TOP_N)
    found, texts = nodes(), documents()
    lines = []
    for options in (Options(), Options(include_reasoning=True)):
        llama = RankR1Rerank(reranker=reranker, top_n=TOP_N, **options)
        lang = langchain_rankr1.RankR1Rerank(reranker=reranker, top_n=TOP_N, **options)
        integrations: list[tuple[str, Component, Once]] = [
            ("LlamaIndex", llama, partial(llama.apostprocess_nodes, found, query_str="which?")),
            ("LangChain", lang, partial(lang.acompress_documents, texts, "which?")),
        ]
        for name, component, once in integrations:
            told: list[Ranking] = []
            component.on_ranking = told.append
            await once()
            component.on_ranking = None
            bare, more, most = await added(once, partial(reranker.arank, "which?", told[0].candidates))
            lines.append(f"| {name} | {', '.join(options) or 'none'} | {bare:.2f} | {more:.2f} | {most:.2f} |")
    return lines


def report() -> str:
    """The figures as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("llama-index-core", "langchain-core"))
    return "\n".join(
        [
            "# What an integration costs",
            "",
            f"Made by `python -m bench.integrations` in `.venv-test` ({versions}): {N} candidates with title and "
            f"metadata, top {TOP_N}, sets of 20, a model that answers at once. Processor time of the whole process, "
            f"{PAIRS} pairs run in turn. Target: at most 1 ms added to `Reranker.arank` over the same passages.",
            "",
            "| integration | options | `arank` itself, ms | added, ms, median | added, 90th percentile |",
            "|---|---|---|---|---|",
            *asyncio.run(rows()),
            "",
        ]
    )


if __name__ == "__main__":
    print(report())
