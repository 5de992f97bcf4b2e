"""The routes answer as the clients of Cohere, Jina, Voyage, vLLM and text-embeddings-inference read it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendError
from tests.server.conftest import DOCUMENTS, Running

BEST_FIRST = [1, 3, 2, 0]
Serving = Callable[..., Running]
pytestmark = pytest.mark.third_party


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/v1/v1/rerank", "/v1/v2/rerank"])
def test_every_route_answers_with_all_fields_of_all_clients(server: Running, path: str) -> None:
    answer = server.rerank(path=path, model="rerank-v3.5", top_n=3, return_documents=True)
    body = answer.json()
    assert answer.status_code == 200
    assert [one["index"] for one in body["results"]] == BEST_FIRST[:3]
    assert [one["document"] for one in body["results"]] == [{"text": DOCUMENTS[i]} for i in BEST_FIRST[:3]]
    assert [one["document"] for one in body["data"]] == [DOCUMENTS[i] for i in BEST_FIRST[:3]]
    scores = [one["relevance_score"] for one in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert body["object"] == "list"
    assert body["model"] == "scripted"
    assert body["id"] == answer.headers["x-request-id"]
    assert body["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert body["meta"]["api_version"] == {"version": "2" if "v2" in path else "1"}
    assert body["meta"]["billed_units"] == {"search_units": 1}
    assert "warnings" not in body["meta"]
    assert "rankr1" not in body
    assert "engine;dur=" in answer.headers["server-timing"]


@pytest.mark.parametrize("path", ["//rerank", "/v1//rerank", "/v1/rerank/"])
def test_addresses_that_end_in_a_slash_work_too(server: Running, path: str) -> None:
    assert server.post(server.url + path, json={"query": "least?", "documents": DOCUMENTS}).status_code == 200


@pytest.mark.parametrize("name", ["top_n", "top_k"])
@pytest.mark.parametrize(("value", "n"), [(None, 4), (0, 4), (1, 1), (4, 4), (99, 4), ("2", 2)])
def test_null_and_0_are_all(server: Running, name: str, value: object, n: int) -> None:
    assert server.order(**{name: value}) == BEST_FIRST[:n]


def test_every_document_that_is_asked_for_has_a_score_though_few_are_selected(serving: Serving) -> None:
    server = serving(settings={"k": 2})
    documents = [f"number {(7 * i) % 30}" for i in range(30)]
    body = server.rerank(documents=documents, top_n=30, rankr1={"include": ["cost"]}).json()
    assert sorted(one["index"] for one in body["results"]) == [*range(30)]
    assert [documents[one["index"]] for one in body["results"][:2]] == ["number 0", "number 1"]
    assert body["rankr1"]["k"] == 2
    few = server.rerank(documents=documents, top_n=1, rankr1={"include": ["cost"]}).json()
    assert few["rankr1"]["k"] == 1
    more = server.rerank(documents=documents, rankr1={"k": 5, "include": ["cost"]}).json()
    assert more["rankr1"]["k"] == 5
    assert [documents[one["index"]] for one in more["results"][:5]] == [f"number {i}" for i in range(5)]


def test_texts_are_answered_as_text_embeddings_inference_does(server: Running) -> None:
    fields = {"raw_scores": False, "return_text": "true", "truncate": True, "truncation_direction": "Right"}
    answer = server.post("/rerank", json={"query": "least?", "texts": DOCUMENTS, **fields}).json()
    assert [one["index"] for one in answer] == BEST_FIRST
    assert [one["text"] for one in answer] == [DOCUMENTS[i] for i in BEST_FIRST]
    assert all(0 <= one["score"] <= 1 for one in answer)
    assert "text" not in server.post("/rerank", json={"query": "least?", "texts": DOCUMENTS}).json()[0]


def test_unknown_fields_are_ignored_and_null_is_absent(server: Running) -> None:
    names = ["model", "return_documents", "max_tokens_per_doc", "rank_fields", "truncation", "instruction", "rankr1"]
    nulls = dict.fromkeys([*names, "top_n", "stream", "user", "priority", "max_chunks_per_doc", "texts"])
    assert server.order(**nulls, unheard_of={"a": [1]}, request_id=5) == BEST_FIRST
    assert server.order(rankr1=dict.fromkeys(["include", "deadline", "k", "hops"])) == BEST_FIRST


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"text": "number 0"}, "number 0"),
        ({"text": "number 0", "title": "zero", "url": "u"}, "number 0"),
        ({"content": "number 0"}, "number 0"),
        ({"value": "number 0"}, "value: number 0"),
        ({"score": 1, "value": "number 0"}, "score: 1\nvalue: number 0"),
        ({"a": 1, "b": 0}, "a: 1\nb: 0"),
        ({"text": "number 0", "title": ["a"], "id": 1.5, "content": {}}, "number 0"),
        ({"title": None, "document": {"text": "number 0", "title": ["a"]}}, "number 0"),
        ({"text": ["a"], "content": "number 0"}, "number 0"),
    ],
)
def test_documents_may_be_objects(server: Running, document: dict[str, Any], text: str) -> None:
    documents = ["number 3", document, "number 20"]
    body = server.rerank(documents=documents, top_n=1, return_documents=True).json()
    assert body["results"][0] == body["results"][0] | {"index": 1, "document": {"text": text}}
    assert body["data"][0]["document"] == text


def test_only_the_text_of_a_document_is_sent_back(server: Running) -> None:
    body = b'{"query": "q", "documents": [{"text": "number 1", "x": NaN}, {"text": "number 0", "x": Infinity}], '
    for more in (b'"return_documents": true}', b'"return_documents": true, "stream": true}'):
        answer = server.post("/v1/rerank", content=body + more, headers={"Content-Type": "application/json"})
        assert '"document": {"text": "number 0"}' in answer.text
        assert '"x"' not in answer.text


def test_text_that_is_no_unicode_survives(server: Running) -> None:
    body = b'{"query": "q", "documents": ["\\ud800 1", "number 0"], "return_documents": true}'
    answer = server.post("/v1/rerank", content=body, headers={"Content-Type": "application/json"})
    assert [one["document"]["text"] for one in answer.json()["results"]] == ["number 0", "\ud800 1"]


def test_rank_fields_choose_what_is_read(server: Running) -> None:
    documents = [{"a": "number 5", "b": "number 0"}, {"a": "number 2", "b": "number 9"}]
    assert server.order(documents=documents, rank_fields=["a"]) == [1, 0]
    assert server.order(documents=documents, rank_fields=["b"]) == [0, 1]


def test_an_instruction_is_a_line_behind_the_query(serving: Serving) -> None:
    seen = []

    def first(messages: Any) -> str:
        seen.append(messages[-1]["content"])
        return "<answer>[1]</answer>"

    serving(first).rerank(instruct="Prefer small numbers.")
    assert "which is least?\nInstruction: Prefer small numbers." in seen[-1]
    refused = serving(first).rerank(instruction="long " * 50_000)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "instruction")


def test_documents_and_the_query_are_cut_on_request(serving: Serving) -> None:
    seen = []

    def first(messages: Any) -> str:
        seen.append(messages[-1]["content"])
        return "<answer>[1]</answer>"

    words = " ".join(f"word{i}" for i in range(400))
    limits: dict[str, Any] = {"max_tokens_per_doc": 50, "max_tokens_per_query": 20, "return_documents": True}
    body = serving(first).rerank(documents=[words, "short"], query=words, **limits).json()
    assert "word5 " in seen[-1]
    assert "word50 " not in seen[-1]
    assert body["results"][0]["document"]["text"] == body["data"][0]["document"] == words


def test_reasoning_trace_and_cost_are_sent_on_request(server: Running) -> None:
    own = server.rerank(top_n=2, rankr1={"include": ["reasoning", "trace", "cost"]}).json()["rankr1"]
    assert [(one["index"], one["reasoning"]) for one in own["reasoning"]] == [
        (1, "0 is the lowest"),
        (3, "1 is the lowest"),
    ]
    assert own["cost"]["comparisons"] == len(own["trace"]) > 0
    assert own["order"][:2] == [1, 3]


def test_hops_are_an_option_of_a_request(server: Running) -> None:
    own = server.rerank(rankr1={"hops": 2, "include": ["trace"]}).json()["rankr1"]
    assert own["order"] == BEST_FIRST
    assert any(comparison.get("known") for comparison in own["trace"])


def test_hops_that_do_not_fit_the_other_options_are_422(serving: Serving) -> None:
    server = serving(settings={"hops": 2, "retrieve": lambda _: []})
    assert server.order() == BEST_FIRST
    refused = server.rerank(rankr1={"hops": 1})
    assert refused.status_code == 422
    assert "needs hops >= 2" in refused.json()["message"]


def test_one_document_and_none_ask_nothing(serving: Serving) -> None:
    asked = []
    server = serving(lambda messages: asked.append(messages) or "<answer>[1]</answer>")
    assert len(asked) == 1  # when it was loaded
    assert server.order(documents=["only"]) == [0]
    assert server.order(documents=[]) == []
    assert len(asked) == 1
    assert server.order(documents=["one", "two"]) == [0, 1]
    assert len(asked) == 2


def test_a_model_that_fails_is_424_or_a_warning(serving: Serving) -> None:
    def fails(messages: Any) -> str:
        if "less?" not in str(messages):
            raise OSError("the disk of a secret path is full")
        return "<answer>[1]</answer>"

    refused = serving(fails).rerank()
    assert refused.status_code == 424
    assert "the model failed: BackendError" in refused.json()["message"]
    server = serving(fails, settings={"on_failure": "first_stage"})
    kept = server.rerank(rankr1={"include": ["reasoning", "trace", "cost", "page"]})
    assert [one["index"] for one in kept.json()["results"]] == [0, 1, 2, 3]
    assert kept.json()["meta"]["warnings"][0].endswith("the order of the request: BackendError")
    stream = server.rerank(stream=True)
    page = server.get(kept.json()["rankr1"]["page"])
    assert "BackendError" in page.text
    assert not any("secret" in answer.text for answer in (refused, kept, stream, page))


def test_answers_that_name_nothing_are_a_warning(serving: Serving) -> None:
    body = serving(lambda _: "none of them", settings={"force": "never"}).rerank().json()
    assert "name no document" in body["meta"]["warnings"][0]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "no JSON object"),
        (b"{", 400, "no JSON"),
        (b"[" * 100_000, 400, "no JSON that can be read"),
        (b'{"query": "q", "documents": [' + b"9" * 5_000 + b"]}", 400, "no JSON that can be read"),
        (b"[1]", 400, "no JSON object"),
        (b"{}", 422, "query"),
        (b'{"query": "q"}', 422, "documents is missing"),
        (b'{"query": "q", "documents": "d"}', 422, "documents"),
        (b'{"query": "q", "documents": [1]}', 422, "documents.0"),
        (
            b'{"query": "q", "documents": ["a", {"image": "data:image/png;base64,AAAA"}]}',
            422,
            "documents[1] has no text",
        ),
        (b'{"query": "q", "documents": ["a", {}]}', 422, "documents[1] has no text"),
        (b'{"query": " ", "documents": ["a"]}', 422, "query is empty"),
        (b'{"query": {"image": "x"}, "documents": ["a"]}', 422, "query is empty"),
        (b'{"query": "q", "documents": ["a"], "top_n": -1}', 422, "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": "many"}', 422, "top_n"),
        (b'{"query": "q", "documents": ["a"], "rankr1": {"include": ["all"]}}', 422, "rankr1.include.0"),
        (b'{"query": "q", "documents": ["a"], "rankr1": {"deadline": NaN}}', 422, "rankr1.deadline"),
        (b'{"query": "q", "documents": ["a"], "rankr1": {"deadline": 0}}', 422, "rankr1.deadline"),
        (b'{"query": "q", "documents": ["a"], "model": "gpt-none"}', 404, "no model 'gpt-none'"),
        (b'\xff{"query": "q"}', 400, "no JSON that can be read"),
        (b'{"query": "' + b"q" * 200_001 + b'", "documents": ["a"]}', 422, "200,001 characters: the most is 200,000"),
    ],
)
def test_a_wrong_body_is_an_error_that_says_what_is_wrong(
    server: Running, body: bytes, status: int, words: str
) -> None:
    answer = server.post("/v1/rerank", content=body, headers={"Content-Type": "application/json"})
    error = answer.json()
    assert (answer.status_code, error["error"]["code"]) == (status, status), error
    assert error["message"] == error["detail"] == error["error"]["message"]
    assert error["id"] == answer.headers["x-request-id"]
    assert words in error["message"]


def test_what_only_this_server_knows_must_be_known_to_it(server: Running) -> None:
    refused = server.rerank(rankr1={"dead_line": 3})
    assert refused.status_code == 422
    assert "rankr1.dead_line" in refused.json()["message"]
    assert server.rerank(unheard_of=3).status_code == 200
    stream = server.post("/rerank", json={"query": "q", "texts": ["a"], "stream": True})
    assert (stream.status_code, stream.json()["error_type"]) == (422, "Validation")


def test_errors_of_texts_are_those_of_text_embeddings_inference(serving: Serving) -> None:
    server = serving(max_documents=3)
    empty = server.post("/rerank", json={"query": "q", "texts": []})
    assert (empty.status_code, empty.json()["error_type"]) == (400, "Empty")
    many = server.post("/rerank", json={"query": "q", "texts": ["a"] * 4})
    assert (many.status_code, many.json()["error_type"]) == (413, "Validation")
    assert isinstance(many.json()["error"], str)
    for wrong in ({"texts": ["a"], "top_n": -1}, {"texts": "a"}, {"texts": [1], "documents": None}):
        refused = server.post("/rerank", json={"query": "q", **wrong})
        assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
        assert isinstance(refused.json()["error"], str)
    assert isinstance(server.post("/rerank", json={"query": "q", "documents": 1, "texts": []}).json()["error"], dict)


def test_a_request_beyond_the_limits_is_413_or_422(serving: Serving) -> None:
    server = serving(max_documents=3, max_bytes=2_000, max_tokens=100)
    assert server.rerank(documents=["a"] * 4).status_code == 413
    assert server.rerank(documents=["a" * 3_000]).status_code == 413
    chunks = (
        json.dumps({"query": "q", "documents": ["a" * 9_000]}).encode()[i : i + 500] for i in range(0, 9_000, 500)
    )
    assert server.post("/rerank", content=chunks, headers={"Content-Type": "application/json"}).status_code == 413
    tokens = server.rerank(documents=["word " * 200])
    assert (tokens.status_code, tokens.json()["error"]["type"]) == (422, "validation_error")
    assert server.order(documents=["number 1", "number 0"]) == [1, 0]


def test_ten_thousand_documents_are_ranked_and_one_more_is_413(serving: Serving) -> None:
    server, documents = serving(), [f"number {(7 * i) % 10_000 + 1}" for i in range(10_000)]
    documents[9_876] = "number 0"
    order = server.order(documents=documents, rankr1={"k": 1})
    assert order[0] == 9_876
    assert sorted(order) == [*range(10_000)]
    assert server.rerank(documents=[*documents, "number 1"]).status_code == 413


def test_a_body_of_ten_megabytes_is_ranked_and_one_beyond_the_limit_is_413(serving: Serving) -> None:
    server = serving()
    for megabytes, status in ((5, 200), (9, 413)):
        long = [f"{'word ' * 200_000 * megabytes}number {i}" for i in (1, 0)]
        assert server.rerank(documents=long).status_code == status


@pytest.mark.parametrize("name", ["truncation", "truncate"])
@pytest.mark.parametrize("value", [False, "false", "NONE"])
def test_texts_that_must_not_be_cut_are_422_if_they_are_too_long(serving: Serving, name: str, value: object) -> None:
    server = serving(settings={"passage_tokens": 20})
    long = ["number 1 " * 50, "number 0"]
    assert server.rerank(documents=long, **{name: value}).status_code == 422
    assert server.rerank(**{name: value}).status_code == 200
    assert server.rerank(documents=long, **{name: True}).status_code == 200


def test_texts_for_which_the_context_is_too_small_are_422(serving: Serving) -> None:
    backend = Scripted(lambda _: "<answer>[1]</answer>", context=1_300, count=len)
    server = serving(backend, settings={"reasoning_tokens": 8, "size": 4})
    for options in ({}, {"truncation": False}):
        refused = server.rerank(query="word " * 1_000, **options)
        assert refused.status_code == 422
        assert "a context of 1300 tokens leaves" in refused.json()["message"]


def test_tokens_are_counted_only_where_bytes_do_not_say_enough(serving: Serving) -> None:
    def count(text: str) -> int:
        raise BackendError(f"the tokenizer at http://inner/ failed at {text!r}")

    server = serving(Scripted(lambda _: "<answer>[1]</answer>", count=count), max_tokens=1_000)
    limits: dict[str, Any] = {"max_tokens_per_doc": 100, "max_tokens_per_query": 100}
    assert server.order(**limits) == [0, 1, 2, 3]
    for refused in (server.rerank(documents=["a" * 101, "b"], **limits), server.rerank(documents=["a" * 1_000, "b"])):
        assert refused.status_code == 424
        assert refused.json()["message"].startswith("the model failed: BackendError")
        assert "inner" not in refused.text


def test_unknown_routes_and_methods_are_errors_of_the_same_form(server: Running) -> None:
    assert server.get("/v3/rerank").json()["error"]["code"] == 404
    wrong = server.get("/v1/rerank")
    assert (wrong.json()["error"]["code"], wrong.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/health", "/ready", "/", "/docs", "/v1/models"])
def test_head_is_get_without_a_body(server: Running, path: str) -> None:
    answer, whole = server.head(path), server.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(whole.content))


def test_models_and_info_name_the_model(serving: Serving) -> None:
    server = serving()
    assert server.get("/v1/models").json()["data"][0]["id"] == "scripted"
    assert server.get("/info").json()["model_type"] == {
        "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    }
    assert server.get("/info").json()["max_input_length"] > 0
    named = serving(model_name=["mine"])
    assert named.order(model="mine") == BEST_FIRST
    assert named.rerank(model="rerank-v3.5").status_code == 404
    assert named.get("/v1/models").json()["data"][0]["id"] == "mine"


def test_the_page_of_a_ranking_is_kept_on_request(server: Running) -> None:
    address = server.rerank(rankr1={"include": ["page"]}).json()["rankr1"]["page"]
    page = server.get(address)
    assert page.headers["content-type"].startswith("text/html")
    assert "which is least?" in page.text
    assert server.get("/rankings/none").status_code == 404


def test_pages_are_kept_within_a_limit_of_bytes(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankr1_rag.server.service.PAGE_BYTES", 20_000)
    documents = [{"text": "number 1", "title": "t" * 8_000}, {"text": "number 0"}]
    pages = [server.rerank(documents=documents, rankr1={"include": ["page"]}).json()["rankr1"]["page"] for _ in "1234"]
    assert [server.get(page).status_code for page in pages] == [404, 404, 200, 200]
    assert server.service.page_bytes == sum(size for _, size in server.service.pages.values()) < 20_000
