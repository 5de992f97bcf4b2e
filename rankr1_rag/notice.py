"""What someone who never looks at a `Ranking` has to hear: logged as a warning, by the logger `rankr1_rag`.

For edges that hand on an order and no more. Knows rankings and nothing of those edges.
"""

from __future__ import annotations

import logging

from rankr1_rag.types import Ranking

_log = logging.getLogger("rankr1_rag")


def notice(ranking: Ranking) -> None:
    """Warn where the model failed, or where at least half of its answers named no passage."""
    cost, query = ranking.cost, ranking.query.text
    if ranking.failure:
        _log.warning("query %.100r stays in first-stage order: %s", query, ranking.failure)
    elif cost.unparsed and 2 * cost.unparsed >= cost.comparisons:
        last = next(one.completion.text for one in reversed(ranking.trace) if not one.parsed)
        _log.warning(
            "query %.100r: %d of %d answers name no passage, the retriever was trusted there; the last ends %r. "
            "force='unparsed' asks such a model for its label once more",
            query,
            cost.unparsed,
            cost.comparisons,
            last[-100:],
        )
