"""How many tokens the demo asks, by its settings: counted with the model's tokenizer, without asking the model.

    python -m bench.demo_tokens TOKENIZER.json > bench/demo_tokens.md

A perfect judge answers; passages are whole. Only the cost is looked at, not what is found.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache

from tokenizers import Tokenizer

from rankr1_rag import Completion, Cost, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.checkpoints import CHECKPOINTS, EMBEDDED
from rankr1_rag.cli.demo import CANDIDATES, FOUND, HOPS, K
from rankr1_rag.demo import BM25, DemoQuestion, passages, questions
from rankr1_rag.types import Message

SETTINGS = (
    (20, 5, 20),
    (20, 5, 10),
    (20, 2, 10),
    (10, 5, 5),
    (10, 3, 5),
    (10, 2, 5),
    (CANDIDATES, K, FOUND),
    (6, 2, 3),
)
"""BM25's first ones, passages selected, passages that the second search finds; the first row is the study's."""

PER_SECOND, LIMIT = 1_400, 90
"""Prompt tokens a second on two cores (bench/openvino.md), and the seconds that reranking may take."""

LINE = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)


def asked(n: int, k: int, found: int, chosen: Sequence[DemoQuestion], tokenizer: Tokenizer) -> Cost:
    """The cost of these questions."""
    first_stage, texts = BM25(passages()), {one.id: one for one in passages()}

    @cache
    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    cost = Cost()
    for question in chosen:
        supports = [f"{texts[id].title} " for id in question.supports]

        def judge(messages: Sequence[Message], supports: Sequence[str] = supports) -> Completion:
            shown = LINE.findall(messages[-1]["content"])
            label = next((label for label, line in shown if line.startswith(tuple(supports))), "1")
            text = "".join(f"<|im_start|>{one['role']}\n{one['content']}<|im_end|>\n" for one in messages)
            answer = f"<answer>[{label}]</answer>"
            return Completion(answer, count(f"{text}<|im_start|>assistant\n"), count(answer))

        backend = Scripted(judge, model=EMBEDDED, count=count, context=8192)
        search = lambda text: first_stage.search(text, found)  # noqa: E731
        with Reranker(backend, k=k, hops=HOPS, retrieve=search, passage_tokens=96) as reranker:
            cost += reranker.rank(question.query, first_stage.search(question.query.text, n)).cost
    return cost


def main() -> None:
    """Print the table."""
    known, tokenizer = CHECKPOINTS[EMBEDDED], Tokenizer.from_file(sys.argv[1])
    chosen = [question for question in questions() if len(question.supports) == HOPS]
    print("# The cost of the demo\n\nMade by `python -m bench.demo_tokens TOKENIZER.json > bench/demo_tokens.md`:")
    print(f"{len(chosen)} questions in {HOPS} hops, a second retrieval between them, format `{known.format.name}`,")
    print(f"sets of {known.size}, whole passages, a judge that knows the supports. Seconds: the prompts, read at")
    print(f"{PER_SECOND:,} tokens a second (openvino.md); at most {LIMIT} are wanted, with loading and writing.\n")
    print("| BM25's first | selected | found again | comparisons a question | prompt tokens | seconds |")
    print("|---|---|---|---|---|---|")
    for n, k, found in SETTINGS:
        cost = asked(n, k, found, chosen, tokenizer)
        seconds, mark = cost.prompt_tokens / PER_SECOND, "**" if (n, k, found) == (CANDIDATES, K, FOUND) else ""
        row = [n, k, found, f"{cost.comparisons / len(chosen):.1f}", f"{cost.prompt_tokens:,}", f"{seconds:.0f}"]
        print("| " + " | ".join(f"{mark}{cell}{mark}" for cell in row) + " |")


if __name__ == "__main__":
    main()
