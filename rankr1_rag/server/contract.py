"""The JSON of the rerank routes: one request for all clients, and the answers and errors that each of them reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankr1_rag import __version__
from rankr1_rag.io.collection import NESTED, as_passage
from rankr1_rag.io.jsonl import ranking_to_json
from rankr1_rag.types import Passage, Ranking

RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", "/v1/v1/rerank", "/v1/v2/rerank")
"""The routes that rerank, also where clients ask whose base_url ends in /v1."""

Json = dict[str, Any]
Include = list[Literal["reasoning", "trace", "cost", "page"]]
Positive = Annotated[int, Field(ge=1)]
Texts = Annotated[list[str | Json], Field(max_length=100_000, fail_fast=True)]
"""Only the first wrong one is an error: each takes more memory than what was sent."""


LONGEST_QUERY = 200_000
"""Characters of the longest query, and of the longest instruction."""


class Own(BaseModel):
    """What only this server knows, under the key "rankr1"; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")
    include: Annotated[Include, Field(max_length=100, fail_fast=True)] | None = Field(
        default=None, description="Additions to the answer, under the same key."
    )
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds until the answer: then it is the best order so far."
    )
    k: Positive | None = Field(default=None, description="Number of passages that the model selects.")
    hops: Annotated[int, Field(ge=1, le=8)] | None = Field(
        default=None, description="Selections; later ones are shown what was selected before."
    )


class RerankRequest(BaseModel):
    """A query and its documents, in the fields of Cohere, Jina, Voyage, vLLM and Infinity, or `texts`, as TEI has them.

    `null` is absent, and unknown fields are ignored.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"query": "how long does a flea live", "documents": ["A flea …", "Fleas …"]}}
    )
    query: str | Json = Field(description='The text of the query, or an object with "text".')
    documents: Texts | None = Field(None, description="The documents: strings, or objects with a text and a title.")
    texts: Texts | None = Field(None, description="The same, of TEI: the answer is a list of all of them.")
    model: str | None = Field(None, description="Name of the model; any with 'rerank' in it is accepted by default.")
    top_n: int | None = Field(None, ge=0, description="Number of results; null or 0 is all.")
    top_k: int | None = Field(None, ge=0, description="The same, of Voyage.")
    return_documents: bool | None = Field(None, description="Whether the texts are sent back.")
    return_text: bool | None = Field(None, description="The same, of TEI.")
    max_tokens_per_doc: Positive | None = Field(None, description="Tokens of a document that the model may see.")
    max_tokens_per_query: Positive | None = Field(None, description="Tokens of the query that the model may see.")
    rank_fields: Annotated[list[str], Field(max_length=1_000, fail_fast=True)] | None = Field(
        None, description="Fields of documents that are objects, to be read."
    )
    truncation: bool | str | None = Field(None, description="false: 422 for a text that must be cut, of Voyage.")
    truncate: bool | str | None = Field(None, description="The same, of TEI.")
    instruction: str | None = Field(None, description="What is wanted beyond the query.")
    instruct: str | None = Field(None, description="The same, of vLLM.")
    stream: bool | None = Field(None, description="Server-sent events instead of one answer.")
    rankr1: Own | None = Field(None, description="What only this server knows.")

    @property
    def own(self) -> Own:
        """What only this server knows."""
        return self.rankr1 or Own()

    @property
    def is_tei(self) -> bool:
        """Whether a client of text-embeddings-inference asks: its answers and errors have a form of their own."""
        return self.documents is None and self.texts is not None

    @property
    def given(self) -> Texts:
        """The documents."""
        return (self.texts if self.documents is None else self.documents) or []

    @property
    def wish(self) -> str:
        """The instruction."""
        return self.instruction or self.instruct or ""

    @property
    def best(self) -> int:
        """How many results are wanted."""
        return len(self.given) if self.is_tei else self.top_n or self.top_k or len(self.given)

    @property
    def returns_texts(self) -> bool:
        """Whether the texts are sent back."""
        return bool(self.return_text if self.is_tei else self.return_documents)

    @property
    def must_fit(self) -> bool:
        """Whether a text that is too long is an error."""
        return any(str(one).lower() in ("false", "none") for one in (self.truncation, self.truncate) if one is not None)

    @property
    def include(self) -> set[str]:
        """What is wanted under "rankr1"."""
        return set(self.own.include or ())


class Refusal(Exception):
    """A request that gets an error: its status, and what is wrong, with the value and the remedy."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        tei: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.headers = status, param, dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)
        self.type, usual, _ = KINDS.get(status, KINDS[500 if status >= 500 else 400])
        self.tei = tei or usual

    def body(self, id: str, is_tei: bool = False) -> Json:
        """The error as clients read it: Cohere `message`, FastAPI's `detail`, OpenAI and Jina `error.message`."""
        text = str(self)
        if is_tei:
            return {"error": text, "error_type": self.tei}
        error = {"message": text, "type": self.type, "param": self.param, "code": self.status}
        return {"message": text, "detail": text, "error": error, "id": id}


KINDS = {
    400: ("invalid_request_error", "Validation", "The body is no JSON object."),
    401: ("authentication_error", "Validation", "There is no valid key."),
    403: ("permission_error", "Validation", "A page of another origin asks."),
    404: ("not_found_error", "Validation", "The model or the route is unknown."),
    408: ("timeout_error", "Validation", "The request is too slow."),
    413: ("request_too_large_error", "Validation", "The request has too many documents, bytes or brackets."),
    422: ("validation_error", "Validation", "A field is wrong, or the texts have too many tokens."),
    424: ("model_error", "Backend", "The model failed."),
    429: ("rate_limit_error", "Overloaded", "The queue is full: try again after `Retry-After` seconds."),
    499: ("cancelled_error", "Overloaded", "The client left."),
    500: ("server_error", "Backend", "The server failed."),
    503: ("unavailable_error", "Unhealthy", "The model is loading, or the server stops."),
}
"""Status → the type of the error, the one of text-embeddings-inference, and the reason."""


def query_text(request: RerankRequest) -> str:
    """The text of the query. Refusal for an empty one, or an image, and for one or an instruction that is too long."""
    text = request.query if isinstance(request.query, str) else request.query.get("text")
    if not isinstance(text, str) or not text.strip():
        raise Refusal(422, "the query is empty: send the text of the query", param="query")
    for param, one in (("query", text), ("instruction", request.wish)):
        if len(one) > LONGEST_QUERY:
            raise Refusal(422, f"the {param} has {len(one):,} characters: the most is {LONGEST_QUERY:,}", param=param)
    return text


def passages_of(request: RerankRequest) -> list[Passage]:
    """The documents as passages; the id is the index. Refusal where one has no text."""
    passages = []
    for index, one in enumerate(request.given):
        if isinstance(one, str):
            passages.append(Passage(str(index), one))
            continue
        fields = request.rank_fields or one
        lines = [f"{name}: {one[name]}" for name in fields if isinstance(one.get(name), (str, int, float))]
        title = ""
        if not request.rank_fields:
            readable = texts_of(one) | {name: texts_of(one[name]) for name in NESTED if isinstance(one.get(name), dict)}
            try:
                found = as_passage(readable, "")
                title, lines = found.title, [found.text]
            except ValueError:  # none of the usual names: all of it is the text, but no image
                lines = [line for line in lines if ": data:" not in line[:200]]
        if not lines:
            name = f"{'texts' if request.is_tei else 'documents'}[{index}]"
            raise Refusal(422, f'{name} has no text: send a string, or an object with "text"', param=name)
        passages.append(Passage(str(index), "\n".join(lines), title))
    return passages


def texts_of(fields: Json) -> Json:
    """The fields that are texts."""
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def answer(
    request: RerankRequest, ranking: Ranking, texts: Sequence[str], *, id: str, model: str, version: str
) -> Json:
    """The answer to `documents`, best first: `results` for most clients, `data` for Voyage's."""
    results, data, cost = list[Json](), list[Json](), ranking.cost
    for position, score in zip(ranking.order[: request.best], ranking.scores, strict=False):
        one = {"index": position, "relevance_score": score}
        results.append({**one, "document": {"text": texts[position]}} if request.returns_texts else one)
        data.append({**one, "document": texts[position]} if request.returns_texts else one)
    whole: Json = {"id": id, "object": "list", "model": model, "results": results, "data": data}
    whole["usage"] = {
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "total_tokens": cost.prompt_tokens + cost.completion_tokens,
    }
    whole["meta"] = {
        "api_version": {"version": version},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": cost.prompt_tokens, "output_tokens": cost.completion_tokens},
    }
    if warnings := warnings_of(ranking):
        whole["meta"]["warnings"] = warnings
    if include := request.include:
        own = ranking_to_json(ranking, trace="trace" in include)["rankr1"]
        wanted = {"version", "order", "k", "score_meaning", "truncated", *include}
        kept = {name: value for name, value in own.items() if name in wanted}
        if "reasoning" in include:
            kept["reasoning"] = reasoning_of(ranking, request.best)
        whole["rankr1"] = kept
    return whole


def tei_answer(request: RerankRequest, ranking: Ranking, texts: Sequence[str]) -> list[Json]:
    """The answer to `texts`: all of them, best first."""
    return [
        {"index": position, "score": score, **({"text": texts[position]} if request.returns_texts else {})}
        for position, score in zip(ranking.order, ranking.scores, strict=True)
    ]


def reasoning_of(ranking: Ranking, best: int) -> list[Json]:
    """The reasoning that put each of the best documents at its rank."""
    whys = [ranking.explain(rank) for rank in range(1, min(best, len(ranking)) + 1)]
    return [
        {"index": why.position, "reasoning": why.reasoning, "won": why.won, "lost": why.lost, "selected": why.selected}
        | ({} if why.score is None else {"score": why.score})
        for why in whys
    ]


def warnings_of(ranking: Ranking) -> list[str]:
    """Why the order is less than it could be."""
    warnings = []
    if ranking.truncated is not None:
        warnings.append(f"the order is the best so far: {ranking.truncated}")
    if ranking.failure is not None:
        warnings.append(f"the model failed, so this is the order of the request: {ranking.failure}")
    if 2 * ranking.cost.unparsed >= max(1, ranking.cost.comparisons):
        counts = f"{ranking.cost.unparsed} of {ranking.cost.comparisons}"
        warnings.append(f"{counts} answers of the model name no document, so the order of the request decided")
    return warnings


def info(model: str, context: int | None, documents: int, queries: int) -> Mapping[str, Any]:
    """`GET /info` of text-embeddings-inference, from which clients learn that this is a reranker."""
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return {
        "model_id": model,
        "model_type": {"reranker": labels},
        "model_dtype": "float32",
        "max_input_length": context or 8_192,
        "max_batch_tokens": (context or 8_192) * queries,
        "max_client_batch_size": documents,
        "max_concurrent_requests": queries,
        "tokenization_workers": 1,
        "version": __version__,
    }
