"""`as_runnable`: a step of any chain, in whichever way the chain is run."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.component import REASONING
from tests.integrations.conftest import PASSAGES, QUERY, WANTED
from tests.integrations.with_langchain.parts import BM25Retriever, Chat, documents, ids

FIRST = PASSAGES[WANTED[0]][1]
Chain = Runnable[str, str]


def _first_line(messages: list[dict[str, str]]) -> str:
    """A reader that repeats the first line it was given."""
    return messages[-1]["content"].splitlines()[0]


@pytest.fixture
def chain(compressor: RankR1Rerank, first_stage: BM25Retriever) -> Chain:
    """Retriever, reranker, prompt, model, parser."""

    def joined(found: list[Document]) -> str:
        return "\n".join(document.page_content for document in found)

    return (
        {"query": RunnablePassthrough(), "documents": first_stage}
        | RunnablePassthrough.assign(context=compressor.as_runnable() | joined)
        | ChatPromptTemplate.from_messages([("human", "{context}\n\n{query}")])
        | Chat(backend=Scripted(_first_line))
        | StrOutputParser()
    )


def _invoked(chain: Runnable[Any, Any], given: Any) -> Any:
    return chain.invoke(given)


def _ainvoked(chain: Runnable[Any, Any], given: Any) -> Any:
    return asyncio.run(chain.ainvoke(given))


async def _streamed(chain: Chain) -> str:
    return "".join([piece async for piece in chain.astream(QUERY)])


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda chain: chain.invoke(QUERY), id="invoke"),
        pytest.param(lambda chain: asyncio.run(chain.ainvoke(QUERY)), id="ainvoke"),
        pytest.param(lambda chain: "".join(chain.stream(QUERY)), id="stream"),
        pytest.param(lambda chain: asyncio.run(_streamed(chain)), id="astream"),
    ],
)
def test_a_whole_rag_chain_reads_the_best_passage_first(run: Callable[[Chain], str], chain: Chain) -> None:
    assert run(chain) == FIRST


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda chain: chain.batch([QUERY] * 5), id="batch"),
        pytest.param(lambda chain: asyncio.run(chain.abatch([QUERY] * 5)), id="abatch"),
        pytest.param(lambda chain: [said for _, said in chain.batch_as_completed([QUERY] * 5)], id="as-completed"),
    ],
)
def test_a_whole_rag_chain_may_be_run_many_at_once(run: Callable[[Chain], list[str]], chain: Chain) -> None:
    assert run(chain) == [FIRST] * 5


def test_a_chain_with_it_can_be_drawn_and_described(compressor: RankR1Rerank, chain: Chain) -> None:
    step = compressor.as_runnable()
    assert "RankR1Rerank" in [node.name for node in chain.get_graph().nodes.values()]
    assert step.get_name() == "RankR1Rerank"
    assert isinstance(chain.get_input_jsonschema(), dict)
    assert isinstance(step.get_input_jsonschema(), dict)
    assert isinstance(step.get_output_jsonschema(), dict)


def test_a_step_follows_what_is_changed_on_its_compressor(compressor: RankR1Rerank) -> None:
    step = compressor.as_runnable()
    compressor.top_n = 1
    assert ids(step.invoke({"query": QUERY, "documents": documents()})) == WANTED[:1]


def test_a_step_may_be_configured_as_any_runnable(compressor: RankR1Rerank) -> None:
    step = compressor.as_runnable().with_config(run_name="mine", tags=["t"]).with_retry(stop_after_attempt=2)
    assert ids(step.invoke({"query": QUERY, "documents": documents()})) == WANTED


def test_a_step_may_fall_back_to_the_first_stage() -> None:
    def broken(messages: object) -> str:
        raise KeyError("weights")

    step = RankR1Rerank(reranker=Reranker(Scripted(broken))).as_runnable()
    plain = step.with_fallbacks([RunnablePassthrough() | (lambda given: given["documents"][:1])])
    assert ids(plain.invoke({"query": QUERY, "documents": documents()})) == ["stoker"]


@pytest.mark.parametrize("run", [_invoked, _ainvoked])
def test_a_stuffed_prompt_never_holds_the_reasoning_we_added(run: Any, compressor: RankR1Rerank, around: Any) -> None:
    prompts = []

    def reader(messages: list[dict[str, str]]) -> str:
        prompts.append(str(messages))
        return "Clontarf"

    prompt = ChatPromptTemplate.from_messages([("human", "{context}\n\n{input}")])
    titled = PromptTemplate.from_template("{title}: {page_content}")
    stuff = create_stuff_documents_chain(Chat(backend=Scripted(reader)), prompt, document_prompt=titled)
    explaining = compressor.model_copy(update={"include_reasoning": True})
    told = run(create_retrieval_chain(around(explaining), stuff), {"input": QUERY})
    assert told["answer"] == "Clontarf"
    assert ids(told["context"]) == WANTED
    assert [document.metadata[REASONING] for document in told["context"]] == [
        f"{key} is what is wanted" for key in WANTED
    ]
    assert "Dracula: Dracula is an 1897 Gothic horror novel" in prompts[0]
    assert "is what is wanted" not in prompts[0]
