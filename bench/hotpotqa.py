"""HotpotQA in the official format, as the demo's kind of questions, its paragraphs pooled. For benchmarks and tests.

[{"_id": "…", "question": "…", "answer": "…", "type": "bridge",
  "supporting_facts": [["title", 0], …], "context": [["title", ["sentence", …]], …]}, …]
"""

from __future__ import annotations

import json
from pathlib import Path

from rankr1_rag.demo import DemoQuestion
from rankr1_rag.types import Passage, Query


def load(path: Path) -> tuple[list[DemoQuestion], list[Passage]]:
    """The questions, and every paragraph of any of them once; a passage's id is its title."""
    records = json.loads(path.read_text(encoding="utf-8"))
    pool = {(title, "".join(lines)): None for record in records for title, lines in record["context"]}
    questions = [
        DemoQuestion(
            Query(record["_id"], record["question"]),
            record["answer"],
            tuple(dict.fromkeys(title for title, _ in record["supporting_facts"])),
            record["type"],
        )
        for record in records
    ]
    return questions, [Passage(title, text, title) for title, text in pool]
