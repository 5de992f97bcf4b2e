"""A LlamaIndex LLM as a backend."""

from __future__ import annotations

from inspect import getattr_static

from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CustomLLM

from rankr1_rag.backends import Request
from rankr1_rag.frameworks.llm import FrameworkLLM, completion_from_reply
from rankr1_rag.types import Completion


class LlamaIndexLLM(FrameworkLLM):
    """Any LLM of LlamaIndex, with the name and the context window of its metadata."""

    def __init__(self, llm: LLM) -> None:
        super().__init__(llm, llm.metadata.model_name.replace("unknown", llm.class_name()), llm.metadata.context_window)
        # A CustomLLM runs in this process, and its `achat` is its `chat`.
        self.sync_only = getattr_static(llm, "achat") is getattr_static(CustomLLM, "achat")
        self.max_concurrent_calls = 1 if self.sync_only else None

    def chat(self, request: Request) -> Completion:
        """Complete in a thread."""
        return to_completion(self.with_limits(request).chat(to_messages(request)))

    async def achat(self, request: Request) -> Completion:
        """Complete on the caller's event loop."""
        return to_completion(await self.with_limits(request).achat(to_messages(request)))


def to_messages(request: Request) -> list[ChatMessage]:
    """The messages of a request."""
    return [ChatMessage(role=message["role"], content=message["content"]) for message in request.messages]


def to_completion(response: ChatResponse) -> Completion:
    """The completion of a response."""
    reasoning = "\n".join(block.content or "" for block in response.message.blocks if block.block_type == "thinking")
    return completion_from_reply(response.message.content, reasoning, response.raw, response.additional_kwargs)
