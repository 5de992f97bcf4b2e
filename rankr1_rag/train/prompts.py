"""Sets as the messages that a reranker would send for them: the same cleaning, the same clipping, the same format.

Knows nothing of models: tokens are counted by a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rankr1_rag.budget import Budget
from rankr1_rag.collection import within
from rankr1_rag.prompt import Format
from rankr1_rag.train.sets import TrainingSet
from rankr1_rag.types import Message

Count = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class _Room:
    context: int | None
    count: Count


def messages(
    set: TrainingSet,
    format: Format,
    count: Count,
    *,
    context: int | None,
    think_tokens: int,
    query_tokens: int | None = None,
    passage_tokens: int | None = None,
) -> list[Message]:
    """The messages of a set. ValueError with the query's id where the context, in tokens, cannot hold them.

    Arguments as those of `Reranker`; `context` None is no limit, `count` gives None where it cannot tell.
    """
    thinks = think_tokens * format.reasoning
    n = len(set.passages)
    budget = Budget(format, n, thinks, query_tokens, passage_tokens, known=len(set.given))
    with within(f"query {set.query.id!r}"):
        texts = budget.fit(set.query.text, set.passages + set.given, _Room(context, count))
    return format.messages(texts.query, texts.lines[:n], texts.lines[n:])
