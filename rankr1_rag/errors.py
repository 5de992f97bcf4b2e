"""The errors of this package, in one tree.

    RankR1Error                    catch this to catch them all
    ├── BackendError               the model or its server gives no completion, and trying again will not help
    │   ├── BackendUnavailable     … it may work later: refused, timed out, 429, 5xx; `retried` tries these again
    │   └── PromptTooLong          … the prompt is longer than the model's context
    ├── UnparsedError              the model's answer names no passage, and `strict=True`
    ├── StoreError                 the file under `stored` cannot be read or written
    ├── FileError (ValueError)     a malformed file (with its line), or a path that no output may have
    └── LoopError (RuntimeError)   the sync API called on the private loop itself, or a closed reranker

A wrong argument is a plain ValueError or TypeError, a missing extra a plain ImportError with the command to install it.
Every message names the fault, the value and the remedy.
"""

from __future__ import annotations

from pathlib import Path

from rankr1_rag.redaction import redact


class RankR1Error(Exception):
    """The root of the tree. No message holds a secret that this process knows."""

    def __init__(self, *args: object) -> None:
        super().__init__(*[redact(one) if isinstance(one, str) else one for one in args])


class BackendError(RankR1Error):
    """The backend gave no completion and will not: a wrong model, a refused key, a bad request."""


LONGEST_WISH = 60.0
"""Seconds: a server's Retry-After counts for no more, or one wrong value would stop all later queries."""


class BackendUnavailable(BackendError):
    """The backend gave no completion this time; `retry_after` is the server's wish in seconds (0 to 60), if any."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        # In this order NaN becomes 0.
        self.retry_after = None if retry_after is None else min(LONGEST_WISH, max(0.0, retry_after))


class PromptTooLong(BackendError):
    """The prompt and its completion do not fit the model's context."""


class UnparsedError(RankR1Error):
    """An answer named no passage of its set and `strict=True` forbids trusting the retriever instead."""


class StoreError(RankR1Error):
    """The store of completions is corrupt, full, or not a store."""


class FileError(RankR1Error, ValueError):
    """A malformed file, or an output that may not be here; begins with `path:line:` or `path:`, as compilers do."""

    def __init__(self, path: str | Path, line: int | None, problem: str) -> None:
        problem = redact(problem)
        super().__init__(f"{path}:{line}: {problem}" if line is not None else f"{path}: {problem}")
        self.path = Path(path)
        self.line = line
        self.problem = problem

    def __reduce__(self) -> tuple[type[FileError], tuple[Path, int | None, str]]:
        return type(self), (self.path, self.line, self.problem)


class LoopError(RankR1Error, RuntimeError):
    """The private event loop was used in a way that would deadlock, or after it was closed."""
