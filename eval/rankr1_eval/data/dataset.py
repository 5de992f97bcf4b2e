"""What a data set of questions is to the loader: a name, a place on the hub, marks, and a reader of one record.

Knows no data set by name and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rankr1_eval.types import Question

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Hub:
    """Where the rows lie on the hub: a repository and its config, or `files`, split to the address of a parquet file.

    `files` are for a repository with a loading script, which `datasets` no longer runs.
    """

    id: str
    config: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A data set of questions.

    `read(record, supports)` makes a question of one record, in the official file's shape or the hub's, and raises
    ValueError where it cannot; `supports` says that a question without a support is an error. `marks` are fields that
    no other data set has.
    """

    name: str
    hub: Hub
    marks: frozenset[str]
    read: Callable[[Json, bool], Question]
