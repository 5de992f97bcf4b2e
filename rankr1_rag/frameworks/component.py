"""The components of LlamaIndex and LangChain without the framework: a reranker behind its options, and its items."""

from __future__ import annotations

import copy
import pickle
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import isnan
from numbers import Real
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import PrivateAttr

from rankr1_rag.concurrency.foreign_loop import Retriever
from rankr1_rag.connect import CONNECTING, reranker, wrapped
from rankr1_rag.engine.query import Retrieve
from rankr1_rag.frameworks.fields import CHOSEN, REASONING, TABLE, ComponentFields
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.reranker import Candidate, Reranker
from rankr1_rag.settings import check_no_secret
from rankr1_rag.types import Passage, Ranking

Item = TypeVar("Item")


@dataclass(eq=False)
class Sources(Generic[Item]):
    """The objects that one query is reranked from; `retrieve` finds more. TypeError for objects of another class."""

    kind: type[Item]
    items: Sequence[Item]
    passage: Callable[[Item], Passage]
    retriever: Retriever | None = None
    distances: bool = False

    def __post_init__(self) -> None:
        self.items = self._checked(self.items)
        if self.distances and all((one := self.score(item)) is not None and one == one for item in self.items):
            self.items = sorted(self.items, key=lambda item: self.score(item) or 0.0)  # as the reranker does
        self.retrieve: Retrieve | None = None if self.retriever is None else partial(self._find, self.retriever)
        self._later: list[tuple[Passage, Item]] = []

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """One for each of the items."""
        return tuple([self.passage(item) for item in self.items])

    def score(self, item: Item) -> float | None:
        """The first-stage score of a node, or of a document that has it in its metadata."""
        places = vars(item) if hasattr(item, "score") else getattr(item, "metadata", {})
        names = ("relevance_score", "score", "_score", *(("distance", "_distance") if self.distances else ()))
        found = [one for name in names if isinstance(one := places.get(name), Real)]
        return float(found[0]) if found else None

    @property
    def scored(self) -> list[tuple[Passage, float | None]]:
        """The passages with the first-stage scores of their items."""
        return [(passage, self.score(item)) for passage, item in zip(self.passages, self.items, strict=True)]

    def behind(self, ranking: Ranking) -> list[Item]:
        """The object behind each candidate of the ranking, in their order."""
        found = {id(passage): item for passage, item in self._later}
        return [*self.items, *(found[id(passage)] for passage in ranking.candidates[len(self.passages) :])]

    def _checked(self, items: Iterable[Item]) -> list[Item]:
        if isinstance(items, str):
            raise TypeError(f"a str instead of {self.kind.__name__} objects: is it the query?")
        items = list(items)
        for place, item in enumerate(items):
            if not isinstance(item, self.kind):
                raise TypeError(f"item {place} is a {type(item).__name__}, not a {self.kind.__name__}")
        return items

    async def _find(self, retriever: Retriever, text: str) -> list[Passage]:
        """The passages found. One whose id is taken gets none: with another text it would pass for the first."""
        found = await retriever.find(text)
        try:
            items = self._checked(found)
        except TypeError as error:
            raise TypeError(f"retrieve= must return a list of {self.kind.__name__} objects: {error}") from None
        taken, before = {one.id for one in [*self.passages, *(one for one, _ in self._later)]}, len(self._later)
        for item in items:
            passage = self.passage(item)
            self._later.append((replace(passage, id="") if passage.id in taken else passage, item))
            taken.add(passage.id)
        return [passage for passage, _ in self._later[before:]]


class Component(ComponentFields):  # type: ignore[misc]
    """One reranker for the life of the object; its model is loaded at its first use, wrong options are errors at once.

    Pickled, it is the options that were set: TypeError, naming it, for an option that cannot be pickled.
    """

    _retrievers: ClassVar[tuple[type[Any], str, str, str | None]]
    """The class of the framework's retrievers, the names of its sync and its async method, and the method that a
    retriever overrides to be async; one that does not is called in a thread, as it would block the event loop."""
    _reranker: Reranker = PrivateAttr()
    _retriever: Retriever | None = PrivateAttr(default=None)

    @abstractmethod
    def _wrap_llm(self, llm: Any) -> FrameworkLLM:  # noqa: ANN401
        """The backend around a model of the pipeline."""

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401
        """Make the reranker; nothing is loaded yet. `retrieve` is not its own: each query has one."""
        self._reranker = self._make({name: value for name in TABLE if (value := getattr(self, name)) is not None})
        if (retrieve := self.retrieve) is None:
            return
        kind, sync, native, own = self._retrievers
        if isinstance(retrieve, kind):
            sync_only = own is not None and getattr(type(retrieve), own) is getattr(kind, own)
            self._retriever = Retriever(getattr(retrieve, sync), None if sync_only else getattr(retrieve, native))
        elif callable(retrieve):
            self._retriever = Retriever(retrieve)
        else:
            raise ValueError(f"retrieve= is a {type(retrieve).__name__}: pass a retriever or a function of a text")
        if self._reranker.plan.hops < 2:
            raise ValueError("retrieve= needs hops >= 2 (got hops=1): set hops=2, in the Reranker if there is one")

    def _make(self, settings: dict[str, Any]) -> Reranker:
        if self.reranker is not None:
            if others := sorted([*settings, *(["llm"] if self.llm is not None else [])]):
                raise ValueError(f"reranker= has options of its own: leave out {', '.join(others)}")
            if self.reranker.retrieve is not None:
                raise ValueError("reranker= has a retrieve=, which finds bare passages: use retrieve= here instead")
            return self.reranker
        if self.llm is None:
            if self.api_key is not None:
                settings["api_key"] = getattr(self.api_key, "get_secret_value", str)()
            return reranker(settings | {"k": self.top_n})
        if others := sorted(settings.keys() & (CONNECTING - {"context", "requests", "store"})):
            raise ValueError(f"llm= has a connection of its own: leave out {', '.join(others)}")
        model = self._wrap_llm(self.llm)
        model.context = settings.pop("context", model.context)
        model.sets_limit, model.sets_temperature = "reasoning_tokens" in settings, "temperature" in settings
        _ = model.identity if self.store is not None else None  # an error now, if it has none
        backend = wrapped(model, settings.pop("requests", None), settings.pop("store", None))
        return Reranker(backend, k=self.top_n, **settings)

    @property
    def ranker(self) -> Reranker:
        """The reranker behind this component."""
        return self._reranker

    def rank(self, query: str, passages: Iterable[Candidate], retrieve: Retrieve | None = None) -> Ranking:
        """`Reranker.rank` of the `top_n`, passed to `on_ranking`."""
        return self._report(self._reranker.rank(query, passages, k=self.top_n or sys.maxsize, retrieve=retrieve))

    async def arank(self, query: str, passages: Iterable[Candidate], retrieve: Retrieve | None = None) -> Ranking:
        """`rank`, from any event loop."""
        return self._report(await self._reranker.arank(query, passages, k=self.top_n or sys.maxsize, retrieve=retrieve))

    def _report(self, ranking: Ranking) -> Ranking:
        if self.on_ranking is not None:
            self.on_ranking(ranking)
        return ranking

    def _results(self, found: Sources[Item], ranking: Ranking) -> Iterator[tuple[Item, float, dict[str, Any]]]:
        """The first `top_n` objects, each with its score and the metadata to add; CHOSEN only if it was selected."""
        objects = found.behind(ranking)
        places = {position: place for place, position in enumerate(ranking.selected, 1)}
        for rank, (position, score) in enumerate(zip(ranking.order[: self.top_n], ranking.scores, strict=False), 1):
            added: dict[str, Any] = {CHOSEN: places[position]} if position in places else {}
            if self.include_reasoning:
                why = ranking.explain(rank)
                won = why.won and why.comparison is not None and why.comparison.parsed
                is_scored = why.comparison is not None and why.comparison.scores
                added[REASONING] = why.reasoning if (why.score is not None if is_scored else won) else ""
            yield objects[position], score, added

    def _to_passage(self, id: str, text: str, metadata: Mapping[Any, Any]) -> Passage:
        """The text, below the `metadata_keys`, with the title in the metadata."""
        known = {key: one for key, one in metadata.items() if not (isinstance(one, float) and isnan(one))}  # pandas'
        shown = {key: known.get(key) for key in self.metadata_keys or () if key != self.title_key}
        lines = [f"{key}: {value}" for key, value in shown.items() if value is not None]
        title = known.get(self.title_key)
        return Passage(id, "\n".join([*lines, "", text] if lines else [text]), "" if title is None else str(title))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which shares the reranker, deep or not; a new one if an option changes that is frozen."""
        fields = type(self).model_fields
        if any(name not in fields or fields[name].frozen for name in update or {}):
            other = type(self).__new__(type(self))  # not by calling it: a subclass may have an __init__ of its own
            other.__setstate__({name: getattr(self, name) for name in self.model_fields_set} | dict(update or {}))
            return other
        return super().model_copy(update=update)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()  # shares the reranker: two of them would load two models

    def close(self) -> None:
        """Close the model, for all its users; an `llm` stays open. Safe to call twice."""
        self._reranker.close()

    async def aclose(self) -> None:
        """`close`, from any event loop."""
        await self._reranker.aclose()

    def _check_no_live(self) -> None:
        for name in ("reranker", "llm", "retrieve", "on_ranking"):
            if getattr(self, name) is not None:
                raise TypeError(f"{name}= is a live object and cannot be serialised: use plain options, or pickle")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        if self.llm is not None or self.reranker is not None:
            yield "of", self._reranker.plan.backend.model
        for name, value in super().__repr_args__():
            if value is not None and name not in self._unpickled:
                yield name, value

    def __getstate__(self) -> dict[str, Any]:
        """The options that were set."""
        check_no_secret(self, "a component")
        state = {name: getattr(self, name) for name in sorted(self.model_fields_set - self._unpickled)}
        for name, value in state.items():
            try:
                pickle.dumps(value)
            except Exception as error:
                of = value.plan.backend if isinstance(value, Reranker) else value
                shown = of if of is not value or callable(value) else type(value).__name__
                raise TypeError(f"{name}={shown!s:.200} cannot be pickled: {error}") from error
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__pydantic_validator__.validate_python(state, self_instance=self)


def deep_copies(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy; a value that cannot be copied, a lock for example, is shared."""
    copies = dict(metadata)
    for key, value in metadata.items():
        with suppress(Exception):
            copies[key] = copy.deepcopy(value)
    return copies
