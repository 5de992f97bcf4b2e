"""The tables of docs/costs.md: `python -m bench.costs` writes them again. Real selections and prompts, no model."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.selection import Setting
from rankr1_rag import Completion, Passage, Query, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.demo import passages
from rankr1_rag.prompt import FORMATS
from rankr1_rag.prompt.authors import AUTHORS
from rankr1_rag.selection import LISTWISE
from rankr1_rag.types import Cost, Message

PAGE = Path(__file__).parent.parent / "docs" / "costs.md"
FEW, MANY = Setting(20, 5, 20, 5.0), Setting(100, 10, 20, 25.0)
QUERIES = 10
REASONING = 200
QUERY = Query("q", "Where was the author of the play for which Edvard Grieg composed music born?")
WORDS = " ".join(passage.text for passage in passages()).split()
LABEL = re.compile(r"^\[(\d+)\]\S* Text (\d+)\b", re.MULTILINE)
OWN = [name for name, format in FORMATS.items() if format not in AUTHORS]
ALGORITHMS = ("tournament", "heapsort", "ahead", "bubblesort", "window")


def tokens(text: str) -> int:
    """One for four characters: about what tokenizers need for English."""
    return -(-len(text) // 4)


def measure(task: Setting, format: str = "rank-r1-v0.1", is_cut: bool = False, **settings: Any) -> Cost:
    """The summed cost of all queries with a perfect judge; `is_cut`: the reasoning never ends by itself."""
    costs = []
    for seed in range(QUERIES):
        truth = task.truth(seed)
        texts = (" ".join(WORDS[(37 * n + i) % len(WORDS)] for i in range(100)) for n in range(task.n))
        candidates = [Passage(str(n), text, f"Text {n}") for n, text in enumerate(texts)]

        def judge(messages: Sequence[Message], truth: Sequence[int] = truth) -> Completion:
            shown = LABEL.findall("\n".join(message["content"] for message in messages))
            labels = [label for label, number in sorted(shown, key=lambda pair: truth[int(pair[1])])]
            answer = " > ".join(f"[{label}]" for label in labels) if format == "listwise-v1" else f"[{labels[0]}]"
            prompt_tokens = sum(tokens(message["content"]) for message in messages)
            if messages[-1]["role"] == "assistant":  # the answer is forced
                return Completion(f"{answer.lstrip('[')}</answer>", prompt_tokens, completion_tokens=4)
            reasoning = "<think>because</think> " if FORMATS[format].reasoning else ""
            written = REASONING * FORMATS[format].reasoning + tokens(answer) + 6
            if is_cut:
                return Completion("<think>because", prompt_tokens, completion_tokens=REASONING, finish_reason="length")
            return Completion(f"{reasoning}<answer>{answer}</answer>", prompt_tokens, completion_tokens=written)

        options = {"k": task.k, "size": task.size, "reasoning_tokens": REASONING, "format": format, **settings}
        with Reranker(Scripted(judge, count=tokens), **options) as reranker:
            costs.append(reranker.rank(QUERY, candidates).cost)
    return sum(costs, Cost())


def cells(cost: Cost) -> str:
    """Means as cells: comparisons, rounds, passages read, prompt and completion tokens."""
    assert not cost.unparsed
    few = " | ".join(f"{value / QUERIES:.1f}" for value in (cost.comparisons, cost.rounds, cost.passages_read))
    return f"{few} | {cost.prompt_tokens / QUERIES:,.0f} | {cost.completion_tokens / QUERIES:,.0f}"


def table(first: str, rows: dict[str, Cost]) -> str:
    """The lines of a table."""
    head = f"| {first} | comparisons | rounds | passages read | prompt tokens | completion tokens |"
    return "\n".join([head, "|---|" + "---:|" * 5, *(f"| {name} | {cells(cost)} |" for name, cost in rows.items())])


def tables() -> dict[str, str]:
    """The tables by the heading above them."""
    by_algorithm = {
        f"{task.n} → {task.k} by algorithm": table(
            "algorithm",
            {
                f"`{name}`": measure(task, "listwise-v1" if name in LISTWISE else "rank-r1-v0.1", algorithm=name)
                for name in ALGORITHMS
            },
        )
        for task in (FEW, MANY)
    }
    by_format = {
        f"{task.n} → {task.k} by prompt format": table("format", {f"`{name}`": measure(task, name) for name in OWN})
        for task in (FEW, MANY)
    }
    settings: dict[str, Cost] = {
        "defaults": measure(MANY),
        "`k=5`": measure(MANY, k=5),
        "`size=10`": measure(MANY, size=10),
        "`passage_tokens=64`": measure(MANY, passage_tokens=64),
        "`votes=3`": measure(MANY, votes=3),
        "`hops=2`": measure(MANY, hops=2),
        "`reasoning_tokens=0`: every answer is forced": measure(MANY, reasoning_tokens=0),
        f"`reasoning_tokens={REASONING}`, always too few: every answer is forced": measure(MANY, is_cut=True),
    }
    return {**by_algorithm, **by_format, "100 → 10 by setting": table("setting", settings)}


def written(page: str) -> str:
    """The page with these tables. ValueError if a heading is missing."""
    for heading, text in tables().items():
        page, count = re.subn(rf"(## {heading}\n\n(?:[^#|\n].*\n+)*)(?:\|.*\n)*\n*", rf"\g<1>{text}\n\n", page)
        if count != 1:
            raise ValueError(f"{PAGE} has {count} headings {heading!r}: write it once")
    return page


if __name__ == "__main__":
    logging.getLogger("rankr1_rag").setLevel(logging.ERROR)  # passages are cut on purpose
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
