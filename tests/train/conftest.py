"""A llama of two thin layers with SmolLM2's tokenizer, and examples that it can learn in seconds."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from rankr1_rag.train.data import Example, write_examples
from rankr1_rag.types import Passage, Query

SMOLLM2 = Path(os.environ.get("RANKR1_SMOLLM2", Path(__file__).parents[2] / ".venv-test" / "smollm2"))
NEEDED = ("torch", "trl", "peft", "datasets", "matplotlib")

collect_ignore = (
    [] if all(map(find_spec, NEEDED)) else ["test_model.py", "test_training.py", "test_bench_shared_prompts.py"]
)
"""Tests that need the libraries of training, which `.venv-lowest` and `.venv-vllm` lack."""


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face checkpoint."""
    if not (SMOLLM2 / "config.json").is_file():
        pytest.skip(f"no SmolLM2 at {SMOLLM2}: set RANKR1_SMOLLM2")
    return SMOLLM2


@pytest.fixture(scope="session")
def thin(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights from a seed."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("thin")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made(count: int, first: int = 0) -> list[Example]:
    """Queries that name a number, whose right passage has it as its title."""
    return [
        Example(
            Query(f"q{n}", f"What is told of number {n}?"),
            (Passage(f"p{n}", f"The number {n} is told of here.", f"Number {n}"),),
            tuple(Passage(f"n{n}-{m}", f"Nothing is told of number {m}.", f"Letter {m}") for m in range(4)),
            "made",
            answer=f"number {n}",
        )
        for n in range(first, first + count)
    ]


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of twelve."""
    path = tmp_path_factory.mktemp("examples") / "train.jsonl"
    write_examples(path, made(12))
    return path


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of four others."""
    path = tmp_path_factory.mktemp("held") / "held.jsonl"
    write_examples(path, made(4, first=100))
    return path
