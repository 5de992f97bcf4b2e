"""How results are written: JSON lines, or a TREC run. Knows the two forms; nothing of where they go."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TextIO

from rankr1_rag.cli.usage import arguments
from rankr1_rag.jsonlines import ranking_from_json, to_line
from rankr1_rag.trec import run_entry, write_run

Form = StrEnum("Form", ["jsonl", "trec"])


@dataclass(frozen=True, slots=True)
class Result:
    """The form of the results; a tag that no run can have is a UsageError here."""

    form: Form
    tag: str
    trace: bool

    def __post_init__(self) -> None:
        if self.form is Form.trec:
            with arguments():
                write_run(io.StringIO(), [("any", [("any", 1.0)])], self.tag)

    def write(self, file: TextIO, record: dict[str, Any]) -> None:
        """The lines of one query. A query without candidates has none in a run."""
        if self.form is Form.trec:
            if record["passages"]:
                write_run(file, [run_entry(ranking_from_json(record))], self.tag)
            return
        if not self.trace:
            record["rankr1"].pop("trace")
        file.write(to_line(record))
