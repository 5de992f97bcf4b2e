"""`as_runnable`: a step of any chain, run in each way."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField, Runnable, RunnablePassthrough
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.component import REASONING
from tests.integrations.conftest import PASSAGES, QUERY, WANTED
from tests.integrations.with_langchain.parts import Chat, around, bm25, documents, ids

FIRST = PASSAGES[WANTED[0]][1]
INPUT: Any = {"query": QUERY, "documents": documents()}
Chain = Runnable[str, str]


@pytest.fixture
def chain(compressor: RankR1Rerank) -> Chain:
    """Retriever, reranker, prompt, a model that repeats the first line of its prompt, parser."""

    def joined(found: list[Document]) -> str:
        return "\n".join(document.page_content for document in found)

    return (
        {"query": RunnablePassthrough(), "documents": bm25()}
        | RunnablePassthrough.assign(context=compressor.as_runnable() | joined)
        | ChatPromptTemplate.from_messages([("human", "{context}\n\n{query}")])
        | Chat(backend=Scripted(lambda messages: messages[-1]["content"].splitlines()[0]))
        | StrOutputParser()
    )


async def streamed(chain: Chain) -> str:
    return "".join([piece async for piece in chain.astream(QUERY)])


RUNS: dict[str, Callable[[Chain], Any]] = {
    "invoke": lambda chain: chain.invoke(QUERY),
    "ainvoke": lambda chain: asyncio.run(chain.ainvoke(QUERY)),
    "stream": lambda chain: "".join(chain.stream(QUERY)),
    "astream": lambda chain: asyncio.run(streamed(chain)),
    "batch": lambda chain: chain.batch([QUERY] * 5),
    "abatch": lambda chain: asyncio.run(chain.abatch([QUERY] * 5)),
    "batch as completed": lambda chain: [text for _, text in chain.batch_as_completed([QUERY] * 5)],
}


@pytest.mark.parametrize("run", RUNS)
def test_a_whole_rag_chain_reads_the_best_passage_first(run: str, chain: Chain) -> None:
    assert RUNS[run](chain) == ([FIRST] * 5 if "batch" in run else FIRST)


def test_a_step_is_drawn_described_and_configured_as_any_runnable_and_follows_its_compressor(
    compressor: RankR1Rerank, chain: Chain
) -> None:
    step = compressor.as_runnable()
    assert "RankR1Rerank" in [node.name for node in chain.get_graph().nodes.values()]
    assert step.get_name() == "RankR1Rerank"
    for schema in (chain.get_input_jsonschema, step.get_input_jsonschema, step.get_output_jsonschema):
        assert isinstance(schema(), dict)
    configured = step.with_config(run_name="mine", tags=["t"]).with_retry(stop_after_attempt=2)
    assert ids(configured.invoke(INPUT)) == WANTED
    compressor.top_n = 1
    assert ids(step.invoke(INPUT)) == WANTED[:1]
    for wrong, problem in ((QUERY, "not str"), ({"query": QUERY}, r"not \['query'\]")):
        with pytest.raises(ValueError, match=f"is needed, {problem}"):
            step.invoke(wrong)


def test_each_run_may_configure_its_top_n(compressor: RankR1Rerank, chain: Chain) -> None:
    step = compressor.as_runnable().configurable_fields(top_n=ConfigurableField(id="top_n", name="Top n"))
    whole = RunnablePassthrough() | step
    for top_n, number in ((1, 1), (2, 2), (50, 6), (None, 3)):
        config: Any = {"configurable": {"top_n": top_n}} if top_n else {}
        assert ids(whole.invoke(INPUT, config))[:3] == WANTED[:number]
        assert ids(asyncio.run(whole.with_config(config).ainvoke(INPUT)))[:3] == WANTED[:number]
        assert len(whole.invoke(INPUT, config)) == number
    assert compressor.top_n == 3
    for wrong in (0, "2"):
        with pytest.raises(ValueError, match="top_n"):
            whole.invoke(INPUT, {"configurable": {"top_n": wrong}})
    assert step.get_config_jsonschema()["$defs"]["Configurable"]["properties"].keys() == {"top_n"}


def test_a_step_may_fall_back_to_the_first_stage() -> None:
    def broken(messages: object) -> str:
        raise KeyError("weights")

    step = RankR1Rerank(reranker=Reranker(Scripted(broken))).as_runnable()
    plain = step.with_fallbacks([RunnablePassthrough() | (lambda found: found["documents"][:1])])
    assert ids(plain.invoke(INPUT)) == ["stoker"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stuffed_prompt_never_has_the_added_reasoning(is_async: bool, compressor: RankR1Rerank) -> None:
    prompts: list[str] = []
    reader = Chat(backend=Scripted(lambda messages: prompts.append(str(messages)) or "Clontarf"))
    prompt = ChatPromptTemplate.from_messages([("human", "{context}\n\n{input}")])
    titled = PromptTemplate.from_template("{title}: {page_content}")
    stuff = create_stuff_documents_chain(reader, prompt, document_prompt=titled)
    chain = create_retrieval_chain(around(compressor.model_copy(update={"include_reasoning": True})), stuff)
    output = asyncio.run(chain.ainvoke({"input": QUERY})) if is_async else chain.invoke({"input": QUERY})
    assert (output["answer"], ids(output["context"])) == ("Clontarf", WANTED)
    reasons = [document.metadata[REASONING] for document in output["context"]]
    assert reasons == [f"{key} is what is wanted" for key in WANTED]
    assert "Dracula: Dracula is an 1897 Gothic horror novel" in prompts[0]
    assert "is what is wanted" not in prompts[0]
