"""What goes wrong in an evaluation beside a wrong argument or file. Knows the core's tree of errors."""

from __future__ import annotations

from rankr1_rag.errors import RankR1Error


class StageError(RankR1Error):
    """Some questions of a stage failed; what was finished is kept, and the same command asks for the rest."""

    def __init__(self, stage: str, failed: int, asked: int, first: Exception, why: str = "") -> None:
        super().__init__(
            f"{stage}: {why}{failed} of {asked} questions failed, the first with {type(first).__name__}: {first}. "
            "What was finished is kept: the same command asks for the rest"
        )
