"""A LangChain chat model as a backend."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import get_async_callback_manager_for_config

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
        # LangGraph streams no message of a call with this tag; in the events of a chain, name and tag tell it apart.
        own_name = (getattr(llm, "config", None) or {}).get("run_name")
        self.config = RunnableConfig(tags=["nostream"], run_name=own_name or "RankR1Rerank comparison")

    def chat(self, request: Request) -> Completion:
        """Complete in a thread."""
        messages = [dict(message) for message in request.messages]
        return to_completion(self.with_limits(request).invoke(messages, self.config))

    async def achat(self, request: Request) -> Completion:
        """Complete on the caller's event loop."""
        messages = [dict(message) for message in request.messages]
        runs, manager = OpenRuns(), get_async_callback_manager_for_config(ensure_config(self.config))
        manager.add_handler(runs)
        try:
            reply = await self.with_limits(request).ainvoke(messages, {**self.config, "callbacks": manager})
        except asyncio.CancelledError as error:
            all_handlers: dict[str, Any] = {
                "handlers": manager.handlers,
                "inheritable_handlers": manager.inheritable_handlers,
            }
            for run_id, parent in list(runs.open.items()):
                run = AsyncCallbackManagerForLLMRun(run_id=run_id, parent_run_id=parent, **all_handlers)
                await run.on_llm_error(error, response=LLMResult(generations=[]))
            raise
        return to_completion(reply)


class OpenRuns(AsyncCallbackHandler):
    """The runs of a model that have begun and not ended. LangChain does not end that of a call which is cancelled."""

    def __init__(self) -> None:
        self.open: dict[UUID, UUID | None] = {}

    async def on_chat_model_start(
        self, serialized: object, messages: object, *, run_id: UUID, parent_run_id: UUID | None = None, **_: object
    ) -> None:
        """Keep it."""
        self.open[run_id] = parent_run_id

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:  # noqa: ANN401
        """Drop it."""
        self.open.pop(run_id, None)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:  # noqa: ANN401
        """Drop it."""
        self.open.pop(run_id, None)


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
