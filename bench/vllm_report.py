"""The table of `bench.vllm`, from its lines. Knows what was measured; measures nothing."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

NOTES = Path(__file__).with_name("vllm-notes.md")
HEAD = """# vLLM, asked as published and as here

Made by `make bench-vllm`: one engine (vLLM's build for CPUs, two cores), SmolLM2-135M-Instruct, TREC DL 2019, BM25 top
100, top 10 selected in sets of 20; passages clipped to 60 tokens, exactly 128 completion tokens in every comparison,
answers by a seeded noisy judge (`bench/judged.py`); the prefix cache is empty before every row. Rows take turns within
a repetition, and ratios are taken within it.

* a: the paper's code, one query after another, one comparison at a time, in a fresh random order.
* b: ours, all queries at once. c: ours, one query alone.
* d: the prompts of b without waiting for any answer: the engine's limit.
* e: `rankr1 rerank`, the same queries as b."""


def report(lines: list[dict[str, Any]]) -> str:
    """The table as Markdown: medians over the repetitions, and of the ratios to row a of the same repetition."""
    first = {line["repetition"]: line["seconds"] / line["queries"] for line in lines if line["row"].startswith("a")}
    limit = {line["repetition"]: line["seconds"] / line["queries"] for line in lines if line["row"].startswith("d")}
    rows = [
        "| row | queries | repetitions | seconds a query | (least, most) | comparisons a query | s a comparison "
        "| queries/s | speed, a = 1 | speed, d = 1 | prompt tokens a query: computed, cached | completion tokens |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(line["row"] for line in lines):
        found = [line for line in lines if line["row"] == name]
        each = [line["seconds"] / line["queries"] for line in found]
        count = sum(line["queries"] for line in found)
        total = {key: sum(line[key] for line in found) / count for key in found[0] if key.endswith("s")}
        pace = median(each)
        ratios = [_ratio(found, base) for base in (first, limit)]
        rows.append(
            f"| {name} | {found[0]['queries']} | {len(found)} | {pace:.1f} | {min(each):.1f}, {max(each):.1f} "
            f"| {total['comparisons']:.1f} | {pace / total['comparisons']:.2f} | {1 / pace:.3f} "
            f"| {ratios[0]} | {ratios[1]} | {total['prompt_tokens'] - total['cached_tokens']:,.0f}, "
            f"{total['cached_tokens']:,.0f} | {total['completion_tokens']:,.0f} |"
        )
    return "\n".join([HEAD, "", *rows, "", NOTES.read_text() if NOTES.exists() else ""])


def _ratio(found: list[dict[str, Any]], base: dict[int, float]) -> str:
    """How many times as fast as the base of the same repetition, the median."""
    ratios = [base[one["repetition"]] * one["queries"] / one["seconds"] for one in found if one["repetition"] in base]
    return f"{median(ratios):.2f}" if ratios else "–"
