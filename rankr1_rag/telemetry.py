"""Spans of OpenTelemetry for queries and for the requests to their model, with the attributes of OpenInference too.

Only where a program has imported and configured `opentelemetry`; else nothing of this runs. Texts are in the spans only
if OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT is true.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rankr1_rag.backends import Backend, Request
from rankr1_rag.types import Completion, Passage, Query, Ranking

PROVIDER = "rankr1"

MOST = 20
"""Documents of a query in its span, of each side: a span has 128 attributes, and the first ones would be lost."""

chat: ContextVar[Callable[[Backend, Request], Coroutine[Any, Any, Completion]] | None] = ContextVar(
    "chat", default=None
)
"""Inside a traced query: the function that sends a request of its comparisons; None in any other query."""


async def traced(model: str, query: Query, k: int, work: Callable[[], Coroutine[Any, Any, Ranking]]) -> Ranking:
    """Await the ranking of a query in a span `rerank {model}`."""
    chat.set(traced_chat)
    attributes: dict[str, Any] = {"gen_ai.operation.name": "rerank", "gen_ai.rerank.top_n": k}
    attributes |= {"openinference.span.kind": "RERANKER", "reranker.model_name": model, "reranker.top_k": k}
    if captures():
        attributes["reranker.query"] = query.text
    with span("rerank", model, attributes) as opened:
        ranking = await work()
        cost = ranking.cost
        opened.set_attributes(
            {
                "gen_ai.rerank.candidate.count": len(ranking),
                "gen_ai.usage.input_tokens": cost.prompt_tokens,
                "gen_ai.usage.output_tokens": cost.completion_tokens,
                "gen_ai.usage.reasoning.output_tokens": cost.reasoning_tokens,
                "rankr1.comparisons": cost.comparisons,
                "rankr1.rounds": cost.rounds,
                **({"rankr1.truncated": ranking.truncated.reason} if ranking.truncated else {}),
                **documents(ranking),
            }
        )
        return ranking


async def traced_chat(backend: Backend, request: Request) -> Completion:
    """Complete in a span `chat {model}`."""
    attributes: dict[str, Any] = {"gen_ai.operation.name": "chat", "openinference.span.kind": "LLM"}
    attributes |= {"gen_ai.request.max_tokens": request.max_tokens, "gen_ai.request.temperature": request.temperature}
    attributes["llm.model_name"] = backend.model
    if captures():
        for place, message in enumerate(request.messages):
            for name in ("role", "content"):
                attributes[f"llm.input_messages.{place}.message.{name}"] = message[name]
    with span("chat", backend.model, attributes) as opened:
        completion = await backend.complete(request)
        used = completion.prompt_tokens, completion.completion_tokens
        opened.set_attributes(
            {
                "gen_ai.usage.input_tokens": used[0],
                "gen_ai.usage.output_tokens": used[1],
                "gen_ai.response.finish_reasons": [completion.finish_reason],
                "llm.token_count.prompt": used[0],
                "llm.token_count.completion": used[1],
                "llm.token_count.total": sum(used),
            }
        )
        if captures():
            opened.set_attribute("llm.output_messages.0.message.role", "assistant")
            opened.set_attribute("llm.output_messages.0.message.content", completion.text)
        return completion


@contextmanager
def span(operation: str, model: str, attributes: Mapping[str, Any]) -> Iterator[Any]:
    """The current span; of an error it has the type alone, whose text may hold those of the query."""
    from opentelemetry import trace

    common = {"gen_ai.provider.name": PROVIDER, "gen_ai.request.model": model}
    with trace.get_tracer("rankr1_rag").start_as_current_span(
        f"{operation} {model}",
        kind=trace.SpanKind.CLIENT if operation == "chat" else trace.SpanKind.INTERNAL,
        attributes={**common, **attributes},
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__name__)
            if not isinstance(error, asyncio.CancelledError):
                opened.set_status(trace.Status(trace.StatusCode.ERROR))
            raise


def documents(ranking: Ranking) -> dict[str, Any]:
    """The first candidates and the best of the ranking."""
    found: dict[str, Any] = {}
    scores: tuple[float | None, ...] = ranking.scores
    sides: dict[str, list[tuple[Passage, float | None]]] = {
        "input": [(passage, None) for passage in ranking.candidates[:MOST]],
        "output": [*zip(ranking.passages, scores, strict=True)][: min(MOST, ranking.k)],
    }
    for side, passages in sides.items():
        for place, (passage, score) in enumerate(passages):
            name = f"reranker.{side}_documents.{place}.document"
            found[f"{name}.id"] = passage.id
            if captures():
                found[f"{name}.content"] = f"{passage.title}\n{passage.text}".strip()
            if score is not None:
                found[f"{name}.score"] = score
    return found


def captures() -> bool:
    """Whether texts are wanted in spans."""
    return os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").lower() == "true"
