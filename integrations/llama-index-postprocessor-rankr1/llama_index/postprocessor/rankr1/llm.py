"""A LlamaIndex LLM as a backend. Knows messages and responses; knows nothing of nodes and rankings."""

from __future__ import annotations

from inspect import getattr_static

from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CustomLLM

from rankr1_rag.backends import Request
from rankr1_rag.frameworks.llm import Borrowed, completion
from rankr1_rag.types import Completion


class LlamaIndexLLM(Borrowed):
    """Any LLM of LlamaIndex, with the name and the context window that its metadata tell."""

    def __init__(self, llm: LLM) -> None:
        super().__init__(llm, llm.metadata.model_name.replace("unknown", llm.class_name()), llm.metadata.context_window)
        # A CustomLLM runs in this process, and its `achat` is its `chat`.
        self.sync_only = getattr_static(llm, "achat") is getattr_static(CustomLLM, "achat")
        self.at_once = 1 if self.sync_only else None

    def chat(self, request: Request) -> Completion:
        """Complete in a thread."""
        return _completion(self.limited(request).chat(_messages(request)))

    async def achat(self, request: Request) -> Completion:
        """Complete on the caller's event loop."""
        return _completion(await self.limited(request).achat(_messages(request)))


def _messages(request: Request) -> list[ChatMessage]:
    return [ChatMessage(role=message["role"], content=message["content"]) for message in request.messages]


def _completion(response: ChatResponse) -> Completion:
    thought = "\n".join(block.content or "" for block in response.message.blocks if block.block_type == "thinking")
    return completion(response.message.content, thought, response.raw, response.additional_kwargs)
