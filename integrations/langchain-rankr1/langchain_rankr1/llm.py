"""A LangChain chat model as a backend. Knows messages and replies; knows nothing of documents and rankings."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from rankr1_rag.backends import Request
from rankr1_rag.frameworks.llm import Borrowed, completion, innermost
from rankr1_rag.types import Completion

_NAMES = ("model_name", "model", "model_id")


class LangChainLLM(Borrowed):
    """Any chat model of LangChain, or a runnable that answers messages as one does."""

    def __init__(self, llm: Runnable[Any, Any]) -> None:
        inner = innermost(llm)
        named = (getattr(inner, name, None) for name in _NAMES)
        profile = getattr(inner, "profile", None) or {}
        super().__init__(llm, next(filter(None, named), inner.get_name()), profile.get("max_input_tokens"))
        self.sync_only = getattr(type(inner), "_agenerate", None) is BaseChatModel._agenerate

    def chat(self, request: Request) -> Completion:
        """Complete in a thread."""
        return _completion(self.limited(request).invoke([dict(message) for message in request.messages]))

    async def achat(self, request: Request) -> Completion:
        """Complete on the caller's event loop."""
        return _completion(await self.limited(request).ainvoke([dict(message) for message in request.messages]))


def _completion(reply: Any) -> Completion:  # noqa: ANN401
    if isinstance(reply, str):
        return completion(reply, "")
    thoughts = [block.get("reasoning") or "" for block in reply.content_blocks if block["type"] == "reasoning"]
    return completion(str(reply.text), "\n".join(thoughts), reply.usage_metadata, reply.response_metadata)
