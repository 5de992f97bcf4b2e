"""The candidates of one query with the object of a framework behind each, those given and those found on the way.

A component serves many queries at once: each has `Candidates` of its own. Knows what a framework calls a retriever;
knows no framework, and leaves it to the stages what of the found is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

from rankr1_rag.retrieving import Retriever
from rankr1_rag.stages import Retrieve
from rankr1_rag.types import Passage, Ranking

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retrievers:
    """What a framework calls a retriever: a `kind`, the names of its `sync` and its `native` async method.

    `own` is the method that a retriever overrides to have an async way of its own. Where it does not, that of the kind
    is the sync one in disguise, which would hold up the caller's event loop, and is not used.
    """

    kind: type[Any]
    sync: str
    native: str
    own: str | None = None

    def asked(self, retrieve: Any) -> Retriever:  # noqa: ANN401
        """How one of them, or a plain function, is asked. ValueError for anything else."""
        if isinstance(retrieve, self.kind):
            disguised = self.own is not None and getattr(type(retrieve), self.own) is getattr(self.kind, self.own)
            return Retriever(getattr(retrieve, self.sync), None if disguised else getattr(retrieve, self.native))
        if not callable(retrieve):
            kind = type(retrieve).__name__
            raise ValueError(f"retrieve= is a {kind}, neither a {self.kind.__name__} nor a function of a text")
        return Retriever(retrieve)


class Candidates(Generic[T]):
    """The `items` given, best first, as `passages`; `retrieve` finds more, None where there is no retriever.

    TypeError for items of another kind, also for those that are found.
    """

    def __init__(
        self, kind: type[T], items: Iterable[T], passage: Callable[[T], Passage], retriever: Retriever | None = None
    ) -> None:
        self.items = list(all_of(kind, items))
        self.retrieve: Retrieve | None = None if retriever is None else partial(self._found, retriever)
        self._kind = kind
        self._passage = passage
        self._later: list[tuple[Passage, T]] = []

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """One for each of the items."""
        return tuple(map(self._passage, self.items))

    def behind(self, ranking: Ranking) -> list[T]:
        """The object behind each candidate of the ranking, in their order."""
        found = {id(passage): item for passage, item in self._later}
        return self.items + [found[id(passage)] for passage in ranking.candidates[len(self.items) :]]

    async def _found(self, retriever: Retriever, text: str) -> list[Passage]:
        """What was found, as passages. An id that is taken is left out: one with another text would pass for it."""
        found = await retriever.find(text)
        try:
            items = list(all_of(self._kind, found))
        except TypeError as error:
            raise TypeError(f"what retrieve= gave are not {self._kind.__name__} objects: {error}") from None
        taken = {passage.id for passage in self.passages} | {passage.id for passage, _ in self._later}
        new = []
        for item in items:
            passage = self._passage(item)
            new.append((replace(passage, id="") if passage.id in taken else passage, item))
            taken.add(passage.id)
        self._later += new
        return [passage for passage, _ in new]


def all_of(kind: type[T], items: Iterable[T]) -> Iterator[T]:
    """The items, each checked as it is taken: TypeError for what is of another kind."""
    if isinstance(items, str):
        raise TypeError(f"a str stands where {kind.__name__} objects should: is it the query?")
    for place, item in enumerate(items):
        if not isinstance(item, kind):
            raise TypeError(f"item {place} is a {type(item).__name__}, not a {kind.__name__}")
        yield item
