"""Published clients of hosted rerankers run unchanged against the server: `make test-clients`."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.server import ServerConfig
from tests.server.conftest import DOCUMENTS, Held, Running, running

pytestmark = pytest.mark.clients

QUERY = "which is least?"
KEY = "key-of-a-client-1234"
BEST = [1, 3]
"""The two best of DOCUMENTS."""


@pytest.fixture
def serving(best_label: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """Starts a server that needs KEY."""
    monkeypatch.setenv("CLIENT_KEY", KEY)
    with ExitStack() as stack:

        def start(script: Any = best_label, **config: Any) -> Running:
            return stack.enter_context(running(Scripted(script), ServerConfig(key_env=["CLIENT_KEY"], **config)))

        yield start


@pytest.fixture
def url(serving: Callable[..., Running]) -> str:
    return serving().url


@pytest.fixture
def held() -> Iterator[Held]:
    script = Held()
    yield script
    script.release.set()


def indexes(results: Any) -> list[int]:
    assert all(0 <= one.relevance_score <= 1 for one in results)
    return [one.index for one in results]


@pytest.mark.parametrize("name", ["Client", "ClientV2"])
@pytest.mark.parametrize("base", ["", "/v1"])
def test_cohere(url: str, name: str, base: str) -> None:
    cohere = import_module("cohere")
    client = getattr(cohere, name)(api_key=KEY, base_url=url + base)
    answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert indexes(answer.results) == BEST
    assert answer.id
    assert answer.meta.billed_units.search_units == 1
    limit = {"max_chunks_per_doc": 10} if name == "Client" else {"max_tokens_per_doc": 4096}
    everything = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, **limit)
    assert indexes(everything.results) == [1, 3, 2, 0]


def test_cohere_returns_documents(url: str) -> None:
    cohere = import_module("cohere")
    documents = [{"text": text} for text in DOCUMENTS]
    answer = cohere.Client(api_key=KEY, base_url=url).rerank(
        model="rerank-v3.5", query=QUERY, documents=documents, top_n=2, return_documents=True
    )
    assert [one.document.text for one in answer.results] == [DOCUMENTS[i] for i in BEST]


def test_cohere_async(url: str) -> None:
    cohere = import_module("cohere")

    async def ask() -> Any:
        async with cohere.AsyncClientV2(api_key=KEY, base_url=url) as client:
            asked = [client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=2) for _ in range(5)]
            return await asyncio.gather(*asked)

    assert [indexes(answer.results) for answer in asyncio.run(ask())] == [BEST] * 5


def test_cohere_sees_the_errors_of_the_server(serving: Callable[..., Running]) -> None:
    cohere = import_module("cohere")
    server = serving(max_documents=3)
    request: dict[str, Any] = {"model": "rerank-v3.5", "query": QUERY}
    with pytest.raises(cohere.core.ApiError) as unauthorised:
        cohere.ClientV2(api_key="another-key-1234", base_url=server.url).rerank(**request, documents=["a"])
    assert unauthorised.value.status_code == 401
    client = cohere.ClientV2(api_key=KEY, base_url=server.url)
    for changed, status in (
        ({"documents": ["a"] * 4}, 413),
        ({"documents": ["a"], "model": "none"}, 404),
        ({"documents": ["a"], "query": ""}, 422),
    ):
        with pytest.raises(cohere.core.ApiError) as refused:
            client.rerank(**{**request, **changed})
        assert refused.value.status_code == status
        assert "message" in refused.value.body


def test_cohere_tries_again_after_429(serving: Callable[..., Running], held: Held) -> None:
    cohere = import_module("cohere")
    server = serving(held, max_queries=1, max_queue=0)
    server.headers["Authorization"] = f"Bearer {KEY}"
    client = cohere.ClientV2(api_key=KEY, base_url=server.url)
    first = threading.Thread(target=server.rerank)
    first.start()
    server.until(lambda _: held.open)
    threading.Timer(0.3, held.release.set).start()
    answer = client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, request_options={"max_retries": 3})
    assert len(answer.results) == len(DOCUMENTS)
    first.join()
    assert 'rankr1_requests_total{route="/v2/rerank",status="429"}' in server.get("/metrics").text


def test_voyage(url: str) -> None:
    voyageai = import_module("voyageai")
    options: dict[str, Any] = {"api_key": KEY, "base_url": f"{url}/v1"}
    answer = voyageai.Client(**options).rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=2)
    assert indexes(answer.results) == BEST
    assert [one.document for one in answer.results] == [DOCUMENTS[i] for i in BEST]
    asked = voyageai.AsyncClient(**options).rerank(QUERY, DOCUMENTS, model="rerank-2.5")
    assert indexes(asyncio.run(asked).results) == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        *[("hosted_vllm", ""), ("infinity", ""), ("huggingface", ""), ("cohere", ""), ("cohere", "/v1")],
        *[(provider, "/v1/rerank") for provider in ("jina_ai", "voyage", "cohere")],
    ],
)
def test_litellm(url: str, provider: str, path: str) -> None:
    litellm = import_module("litellm")
    base = url + path
    options: dict[str, Any] = {"model": f"{provider}/rerank", "query": QUERY, "documents": DOCUMENTS}
    options |= {"top_n": 2, "api_base": base, "api_key": KEY}
    options["return_documents"] = provider != "infinity"  # Infinity's own documents are strings, all others' objects
    answer = litellm.rerank(**options)
    assert [one["index"] for one in answer.results][:2] == BEST
    again = asyncio.run(litellm.arerank(**options))
    assert [one["index"] for one in again.results][:2] == BEST


def haystack_documents() -> list[Any]:
    from haystack import Document

    return [Document(content=text) for text in DOCUMENTS]


def test_haystack_cohere(url: str) -> None:
    cohere = import_module("haystack_integrations.components.rankers.cohere")
    from haystack.utils import Secret

    ranker = cohere.CohereRanker(api_key=Secret.from_token(KEY), api_base_url=url, top_k=2)
    found = ranker.run(query=QUERY, documents=haystack_documents())["documents"]
    assert [one.content for one in found] == [DOCUMENTS[i] for i in BEST]


def test_haystack_jina(url: str) -> None:
    jina = import_module("haystack_integrations.components.rankers.jina")
    from haystack.utils import Secret

    ranker = jina.JinaRanker(api_key=Secret.from_token(KEY), top_k=2, base_url=f"{url}/v1/rerank")
    found = ranker.run(query=QUERY, documents=haystack_documents())["documents"]
    assert [one.content for one in found] == [DOCUMENTS[i] for i in BEST]


def test_haystack_text_embeddings_inference(url: str) -> None:
    rankers = import_module("haystack_integrations.components.rankers.huggingface_api")
    from haystack.utils import Secret

    ranker = rankers.HuggingFaceTEIRanker(url=url, top_k=2, token=Secret.from_token(KEY))
    found = ranker.run(query=QUERY, documents=haystack_documents())["documents"]
    assert [one.content for one in found] == [DOCUMENTS[i] for i in BEST]
    again = asyncio.run(ranker.run_async(query=QUERY, documents=haystack_documents()))["documents"]
    assert [one.content for one in again] == [DOCUMENTS[i] for i in BEST]


def test_langchain_cohere(url: str) -> None:
    langchain_cohere = import_module("langchain_cohere")
    from langchain_core.documents import Document

    compressor = langchain_cohere.CohereRerank(cohere_api_key=KEY, base_url=url, model="rerank-v3.5", top_n=2)
    found = compressor.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    assert [one.page_content for one in found] == [DOCUMENTS[i] for i in BEST]
    assert all(0 <= one.metadata["relevance_score"] <= 1 for one in found)


def llama_index_nodes() -> list[Any]:
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in DOCUMENTS]


def test_llama_index_cohere(url: str) -> None:
    package = import_module("llama_index.postprocessor.cohere_rerank")
    found = package.CohereRerank(api_key=KEY, top_n=2, base_url=url).postprocess_nodes(
        llama_index_nodes(), query_str=QUERY
    )
    assert [one.text for one in found] == [DOCUMENTS[i] for i in BEST]


def test_llama_index_jina(url: str) -> None:
    package = import_module("llama_index.postprocessor.jinaai_rerank")
    reranker = package.JinaRerank(api_key=KEY, top_n=2, base_url=f"{url}/v1")
    found = reranker.postprocess_nodes(llama_index_nodes(), query_str=QUERY)
    assert [one.text for one in found] == [DOCUMENTS[i] for i in BEST]


def test_llama_index_text_embeddings_inference(url: str) -> None:
    package = import_module("llama_index.postprocessor.tei_rerank")
    reranker = package.TextEmbeddingInference(base_url=url, top_n=2, auth_token=f"Bearer {KEY}")
    found = reranker.postprocess_nodes(llama_index_nodes(), query_str=QUERY)
    assert [one.text for one in found] == [DOCUMENTS[i] for i in BEST]


@pytest.fixture
def post(url: str) -> Callable[..., Any]:
    """Posts as a program with a client of its own does; the answer's attributes are its JSON and its status."""
    requests = import_module("requests")

    def ask(path: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        answer = requests.post(url + path, headers=headers, json={"query": QUERY, **body}, timeout=30)
        return SimpleNamespace(json=answer.json(), status=answer.status_code)

    return ask


def test_open_webui_and_ragflow_get_a_score_for_every_index(post: Callable[..., Any]) -> None:
    answer = post("/v1/rerank", model="rank-r1-rerank", documents=DOCUMENTS, top_n=len(DOCUMENTS))
    by_index = sorted(answer.json["results"], key=lambda one: one["index"])
    assert [one["index"] for one in by_index] == [0, 1, 2, 3]
    assert all(0 <= one["relevance_score"] <= 1 for one in by_index)


def test_dify_gets_what_it_reads(url: str, post: Callable[..., Any]) -> None:
    requests = import_module("requests")
    answer = post("/v1/rerank", model="rerank", documents=DOCUMENTS, top_n=2, return_documents=True)
    assert [one["document"]["text"] for one in answer.json["results"]] == [DOCUMENTS[i] for i in BEST]
    about = requests.get(f"{url}/info", headers={"Authorization": f"Bearer {KEY}"}, timeout=30).json()
    assert "reranker" in about["model_type"]
    assert about["max_input_length"] > 0
    texts = post("/rerank", texts=DOCUMENTS)
    assert [one["index"] for one in texts.json] == [1, 3, 2, 0]
