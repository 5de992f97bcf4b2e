"""Spans of OpenTelemetry: one a query, one a request of it, without texts unless they are wanted; nothing if absent."""

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from typing import Any

import pytest

from rankr1_rag import BackendError, Passage, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.types import Completion

trace = pytest.importorskip("opentelemetry.trace")


class Recorded:
    """A span that keeps what it is given."""

    def __init__(self, name: str, parent: "Recorded | None", attributes: Any, kind: Any) -> None:
        self.name, self.parent, self.kind = name, parent, kind
        self.attributes = dict(attributes or {})
        self.ended, self.status = False, None

    def set_attribute(self, name: str, value: object) -> None:
        self.attributes[name] = value

    def set_attributes(self, attributes: Any) -> None:
        self.attributes |= attributes

    def set_status(self, status: Any) -> None:
        self.status = status.status_code


class Provider(trace.TracerProvider):  # type: ignore[misc,name-defined]
    """A provider, and its tracer, that keeps its spans; the current one is known by a variable of the context."""

    def __init__(self) -> None:
        import contextvars

        self.spans = list[Recorded]()
        self.current: Any = contextvars.ContextVar("span", default=None)

    def get_tracer(self, *_: Any, **__: Any) -> "Provider":
        return self

    @contextmanager
    def start_as_current_span(self, name: str, *, kind: Any, attributes: Any, **options: Any) -> Any:
        assert options == {"record_exception": False, "set_status_on_exception": False}
        span = Recorded(name, self.current.get(), attributes, kind)
        self.spans.append(span)
        token = self.current.set(span)
        try:
            yield span
        finally:
            span.ended = True
            self.current.reset(token)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    provider = Provider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider.spans


def judge(messages: Any) -> Completion:
    return Completion("<think>why</think> <answer>[2]</answer>", prompt_tokens=100, completion_tokens=10)


PASSAGES = [Passage("a", "SECRET a"), Passage("b", "SECRET b"), Passage("c", "SECRET c")]


def test_a_query_is_a_span_with_one_for_each_request(spans: list[Recorded]) -> None:
    ranking = Reranker(Scripted(judge, model="m"), k=2, size=2).rank("SECRET query", PASSAGES)
    query, *requests = spans
    assert query.name == "rerank m"
    assert query.parent is None
    assert len(requests) == ranking.cost.comparisons > 1
    assert {span.name for span in requests} == {"chat m"}
    assert all(span.parent is query and span.ended for span in requests)
    expected = {
        "gen_ai.operation.name": "rerank",
        "gen_ai.provider.name": "rankr1",
        "gen_ai.request.model": "m",
        "gen_ai.usage.input_tokens": 100 * len(requests),
        "gen_ai.usage.output_tokens": 10 * len(requests),
        "gen_ai.rerank.candidate.count": 3,
        "gen_ai.rerank.top_n": 2,
        "openinference.span.kind": "RERANKER",
        "reranker.model_name": "m",
        "reranker.top_k": 2,
        "reranker.input_documents.0.document.id": "a",
        "reranker.output_documents.0.document.id": ranking.passages[0].id,
        "reranker.output_documents.0.document.score": ranking.scores[0],
    }
    assert expected.items() <= query.attributes.items()
    assert requests[0].attributes["llm.token_count.total"] == 110
    assert requests[0].attributes["openinference.span.kind"] == "LLM"
    assert "SECRET" not in str([span.attributes for span in spans])


def test_texts_are_in_spans_on_request(spans: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "True")
    Reranker(Scripted(judge), k=1).rank("SECRET query", PASSAGES)
    query, request = spans
    assert query.attributes["reranker.query"] == "SECRET query"
    assert query.attributes["reranker.input_documents.1.document.content"] == "SECRET b"
    assert "SECRET a" in request.attributes["llm.input_messages.1.message.content"]
    assert request.attributes["llm.output_messages.0.message.content"].endswith("[2]</answer>")


def test_an_error_has_a_type_and_no_text(spans: list[Recorded]) -> None:
    def fails(_: Any) -> str:
        raise OSError("SECRET")

    with pytest.raises(BackendError):
        Reranker(Scripted(fails)).rank("q", PASSAGES)
    assert [span.attributes["error.type"] for span in spans] == ["BackendError", "OSError"]
    assert all(span.ended and span.status == trace.StatusCode.ERROR for span in spans)
    assert "SECRET" not in str([span.attributes for span in spans])


def test_queries_at_once_have_spans_of_their_own(spans: list[Recorded]) -> None:
    async def slow(_: Any) -> str:
        await asyncio.sleep(0.01)
        return "<answer>[1]</answer>"

    reranker = Reranker(Scripted(slow), k=1)
    assert len(list(reranker.rank_many([("q", PASSAGES)] * 5))) == 5
    reranker.rank("q", PASSAGES, deadline=60)
    queries = [span for span in spans if span.parent is None]
    assert len(queries) == 6
    assert sorted(map(id, queries)) == sorted(id(span.parent) for span in spans if span.parent)


def test_many_documents_leave_room_for_the_other_attributes(spans: list[Recorded]) -> None:
    Reranker(Scripted(judge), k=50).rank("q", [f"passage {i}" for i in range(100)], deadline=60)
    assert len(spans[0].attributes) < 128


def test_without_opentelemetry_nothing_is_imported() -> None:
    code = (
        "import sys, json; from rankr1_rag import Reranker; from rankr1_rag.backends.scripted import Scripted; "
        "Reranker(Scripted(lambda _: '<answer>[1]</answer>')).rank('q', ['a', 'b']); "
        "print(json.dumps([name for name in sys.modules if name.startswith('opentelemetry')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=100)
    assert json.loads(done.stdout) == []
