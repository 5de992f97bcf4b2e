"""A LangChain chat model as a backend."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from rankr1_rag.backends import Request
from rankr1_rag.frameworks.llm import WRAPPED, FrameworkLLM, completion_from_reply
from rankr1_rag.types import Completion

MODEL_NAMES = ("model_name", "model", "model_id")


class LangChainLLM(FrameworkLLM):
    """Any chat model of LangChain, or a runnable that answers messages as one does."""

    def __init__(self, llm: Runnable[Any, Any]) -> None:
        inner = innermost(llm)
        names = (getattr(inner, name, None) for name in MODEL_NAMES)
        profile = getattr(inner, "profile", None) or {}
        super().__init__(llm, next(filter(None, names), inner.get_name()), profile.get("max_input_tokens"))
        self.sync_only = getattr(type(inner), "_agenerate", None) is BaseChatModel._agenerate

    def chat(self, request: Request) -> Completion:
        """Complete in a thread."""
        return to_completion(self.with_limits(request).invoke([dict(message) for message in request.messages]))

    async def achat(self, request: Request) -> Completion:
        """Complete on the caller's event loop."""
        return to_completion(await self.with_limits(request).ainvoke([dict(message) for message in request.messages]))


def to_completion(reply: Any) -> Completion:  # noqa: ANN401
    """The completion of a message, or of the text of a parser."""
    if isinstance(reply, str):
        return completion_from_reply(reply, "")
    reasoning = [block.get("reasoning") or "" for block in reply.content_blocks if block["type"] == "reasoning"]
    return completion_from_reply(str(reply.text), "\n".join(reasoning), reply.usage_metadata, reply.response_metadata)


def innermost(llm: Any) -> Any:  # noqa: ANN401
    """The model inside all wrappers."""
    while (inner := next((getattr(llm, name) for name in WRAPPED if hasattr(llm, name)), None)) is not None:
        llm = inner
    return llm
