"""What does reranking cost with the embedded model? Writes one line of JSON a set size.

    python bench/openvino_rerank.py [queries] [reasoning] [sizes …]      e.g. 15 64 20 10 5

Each query asks for five comparisons, one after another (the top 5 of 20); the queries run side by side. A comparison is
a prompt of `size` demo passages, `reasoning` tokens of free text, and then the same prompt with it and a label
that is one of the set's: what the engine does when a model did not answer in its format.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path

from rankr1_rag.backends import Request
from rankr1_rag.backends.openvino import OpenVINO
from rankr1_rag.types import Message

COMPARISONS = 5
DEMO = Path(__file__).parents[1] / "rankr1_rag" / "demo" / "passages.jsonl"
PASSAGES = [json.loads(line)["text"] for line in DEMO.read_text(encoding="utf-8").splitlines()]


async def comparison(backend: OpenVINO, dice: random.Random, size: int, reasoning: int) -> tuple[int, float, float]:
    """Prompt tokens, seconds of the reasoning, seconds of the label."""
    shown = "\n".join(f"[{label}] {text}" for label, text in enumerate(dice.sample(PASSAGES, size), 1))
    messages: list[Message] = [{"role": "user", "content": f"Which passage tells most about rivers?\n{shown}\nThink."}]
    begin = time.perf_counter()
    first = await backend.complete(Request(messages, reasoning, stop=("</think>",)))
    between = time.perf_counter()
    said = {"role": "assistant", "content": f"<think>{first.text}</think> <answer>["}
    labels = tuple(f"{label}]</answer>" for label in range(1, size + 1))
    label = await backend.complete(Request([*messages, said], 16, choices=labels))
    assert label.text in labels
    return first.prompt_tokens, between - begin, time.perf_counter() - between


async def query(backend: OpenVINO, number: int, size: int, reasoning: int) -> list[tuple[int, float, float]]:
    dice = random.Random(f"{number} {size}")
    return [await comparison(backend, dice, size, reasoning) for _ in range(COMPARISONS)]


async def measure(backend: OpenVINO, queries: int, size: int, reasoning: int) -> dict[str, float]:
    alone = await query(backend, -1, size, reasoning)
    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(query(backend, number, size, reasoning) for number in range(queries)))
    return {
        "size": size,
        "prompt_tokens": alone[0][0],
        "alone_reasoning_s": sum(one[1] for one in alone) / COMPARISONS,
        "alone_label_s": sum(one[2] for one in alone) / COMPARISONS,
        "all_s": time.perf_counter() - begin,
        "all_cpu_s": time.process_time() - cpu,
    }


async def main(queries: int = 15, reasoning: int = 64, *sizes: int) -> None:
    backend = OpenVINO()
    await backend.complete(Request([{"role": "user", "content": "Hello"}], 1))
    for size in sizes or (20, 10, 5):
        result = await measure(backend, queries, size, reasoning)
        print(json.dumps({key: round(value, 2) for key, value in result.items()}), flush=True)
    await backend.close()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
