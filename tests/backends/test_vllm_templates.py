"""Forced answers on a real vLLM, in process and served, by templates that open, drop or rewrite the reasoning."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankr1_rag import Comparison, Reranker
from rankr1_rag.backends import Backend
from rankr1_rag.backends.openai import OpenAI
from rankr1_rag.backends.wrappers import limited
from tests.backends.chat_templates import GEMMA, QWEN3, R1, with_template
from tests.backends.vllm_server import NAME, SMOLLM2, needs_vllm, on_two_cores, serving

pytestmark = [*needs_vllm, pytest.mark.slow]

OPTIONS: list[dict[str, Any]] = [
    {"reasoning_tokens": 0},
    {"reasoning_tokens": 12},
    {"reasoning_tokens": 12, "votes": "auto"},
    {"reasoning_tokens": 0, "probabilities": True},
]


def comparisons(backend: Backend) -> list[Comparison]:
    """All that were made with these options, of which none may be lost."""

    async def ask() -> list[Comparison]:
        passages = [f"In {year} the bridge was described in chapter {year % 7}." for year in range(1900, 1906)]
        made = []
        for options in OPTIONS:
            reranker = Reranker(limited(backend, 1), k=2, size=4, force="unparsed", **options)
            ranking = await reranker.arank("when was the bridge described in chapter 5?", passages)
            assert (ranking.cost.unparsed, sorted(ranking.order)) == (0, list(range(6)))
            made += ranking.trace
        await backend.close()
        return made

    return asyncio.run(ask())


@pytest.fixture(params=[R1, QWEN3, GEMMA], ids=["r1", "qwen3", "gemma"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    with on_two_cores():
        yield with_template(SMOLLM2, request.param, tmp_path / "model")
    gc.collect()


def test_no_answer_is_lost_in_process_or_served(
    model: Path, tmp_path: Path, environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from rankr1_rag.backends.vllm import VLLM

    with caplog.at_level(logging.INFO, "rankr1_rag"):
        here = comparisons(VLLM(model, context=1_536, engine={"enforce_eager": True}))
    assert f"starting a vLLM engine with {model} took " in caplog.text
    assert all(one.completion.text.count("<think>") == 1 for one in here)
    template = str(model / "chat_template.jinja")
    with serving(tmp_path / "server.log", "--max-model-len", "1536", "--chat-template", template) as server:
        there = comparisons(OpenAI(NAME, base_url=server.url, server="vllm", context=1_536))
    assert [one.completion.text for one in there] == [one.completion.text for one in here]
    assert [one.probabilities is None for one in there] == [one.probabilities is None for one in here]
