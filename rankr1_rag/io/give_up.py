"""The one rule by which a long job stops early: nothing works any more."""

from __future__ import annotations

from dataclasses import dataclass

from rankr1_rag.errors import BackendError, BackendUnavailable, PromptTooLong, UnparsedError


@dataclass(slots=True)
class GiveUp:
    """Counts the failures in a row that mean that the model is gone; at `limit` the job should stop.

    `BackendUnavailable` counts always, any other `BackendError` only before the first answer: then it is a wrong key or
    model, later it is the fault of one query. A prompt that is too long and an answer that cannot be parsed show that
    the model works. `answered`: an earlier run of the job has had an answer.
    """

    limit: int = 10
    answered: bool = False
    in_a_row: int = 0

    def succeed(self) -> None:
        """Record an answer."""
        self.in_a_row, self.answered = 0, True

    def fail(self, error: Exception) -> None:
        """Record a failure."""
        if isinstance(error, PromptTooLong | UnparsedError):
            self.succeed()
        elif isinstance(error, BackendUnavailable) or (isinstance(error, BackendError) and not self.answered):
            self.in_a_row += 1

    @property
    def is_due(self) -> bool:
        """Whether the job should stop."""
        return self.in_a_row >= self.limit
