"""What `stored`, `retried` and `limited` share: a backend that looks like the one it stands around.

Knows nothing of what the wrappers do.
"""

from __future__ import annotations

from rankr1_rag.backends import Backend, Request
from rankr1_rag.types import Completion


class Around:
    """Everything of `backend`, unchanged; a wrapper overrides `complete`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    @property
    def model(self) -> str:
        """As the backend's."""
        return self.backend.model

    @property
    def identity(self) -> str:
        """As the backend's: what is around it changes no completion."""
        return self.backend.identity

    @property
    def context(self) -> int | None:
        """As the backend's."""
        return self.backend.context

    @property
    def can_continue(self) -> bool:
        """As the backend's."""
        return self.backend.can_continue

    def count(self, text: str) -> int | None:
        """As the backend's."""
        return self.backend.count(text)

    async def complete(self, request: Request) -> Completion:
        """As the backend's."""
        return await self.backend.complete(request)

    async def close(self) -> None:
        """Close the backend."""
        await self.backend.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self.backend!r})"
