"""The part that the components of LlamaIndex and LangChain share: one reranker behind its options, and its items."""

from __future__ import annotations

import copy
import pickle
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import PrivateAttr

from rankr1_rag.concurrency.foreign_loop import Retriever
from rankr1_rag.connect import CONNECTING, RERANKING, reranker, wrapped
from rankr1_rag.engine.query import Retrieve
from rankr1_rag.frameworks.fields import OWN, REASONING, ComponentFields
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import check_no_secret
from rankr1_rag.types import Passage, Ranking

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class RetrieverKind:
    """The class of a framework's retrievers, with the names of its sync and its async method.

    `own` is the method that a retriever overrides to be async itself. A retriever that does not override it runs its
    sync method there, which would block the caller's event loop: it is called in a thread instead.
    """

    kind: type[Any]
    sync: str
    native: str
    own: str | None = None

    def retriever(self, retrieve: Any) -> Retriever:  # noqa: ANN401
        """The way to call a retriever or a plain function. ValueError for anything else."""
        if isinstance(retrieve, self.kind):
            sync_only = self.own is not None and getattr(type(retrieve), self.own) is getattr(self.kind, self.own)
            return Retriever(getattr(retrieve, self.sync), None if sync_only else getattr(retrieve, self.native))
        if not callable(retrieve):
            raise ValueError(f"retrieve= is a {type(retrieve).__name__}: pass a retriever or a function of a text")
        return Retriever(retrieve)


class Sources(Generic[Item]):
    """The objects of a framework that one query is reranked from, as `passages`; `retrieve` finds more.

    TypeError for objects of another class, also for those that are found.
    """

    def __init__(
        self,
        kind: type[Item],
        items: Iterable[Item],
        passage: Callable[[Item], Passage],
        retriever: Retriever | None = None,
    ) -> None:
        self._kind = kind
        self._passage = passage
        self.items = self._checked(items)
        self.retrieve: Retrieve | None = None if retriever is None else partial(self._find, retriever)
        self._later: list[tuple[Passage, Item]] = []

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """One for each of the items."""
        return tuple(map(self._passage, self.items))

    def behind(self, ranking: Ranking) -> list[Item]:
        """The object behind each candidate of the ranking, in their order."""
        found = {id(passage): item for passage, item in self._later}
        return self.items + [found[id(passage)] for passage in ranking.candidates[len(self.items) :]]

    def _checked(self, items: Iterable[Item]) -> list[Item]:
        if isinstance(items, str):
            raise TypeError(f"a str instead of {self._kind.__name__} objects: is it the query?")
        items = list(items)
        for place, item in enumerate(items):
            if not isinstance(item, self._kind):
                raise TypeError(f"item {place} is a {type(item).__name__}, not a {self._kind.__name__}")
        return items

    async def _find(self, retriever: Retriever, text: str) -> list[Passage]:
        """The passages found. One whose id is taken gets none: with another text it would pass for the first."""
        found = await retriever.find(text)
        try:
            items = self._checked(found)
        except TypeError as error:
            raise TypeError(f"retrieve= must return a list of {self._kind.__name__} objects: {error}") from None
        taken = {passage.id for passage in self.passages} | {passage.id for passage, _ in self._later}
        new = []
        for item in items:
            passage = self._passage(item)
            new.append((replace(passage, id="") if passage.id in taken else passage, item))
            taken.add(passage.id)
        self._later += new
        return [passage for passage, _ in new]


class Component(ComponentFields):  # type: ignore[misc]
    """One reranker for the life of the object; its model is loaded at its first use, wrong options are errors at once.

    `top_n`, `title_key`, `include_reasoning` and `on_ranking` may be changed later, the others not. Pickled, it is the
    options that were set: TypeError, naming it, for an option that cannot be pickled.
    """

    _retrievers: ClassVar[RetrieverKind]
    """The retrievers of the framework."""
    _reranker: Reranker = PrivateAttr()
    _retriever: Retriever | None = PrivateAttr(default=None)

    @abstractmethod
    def _wrap_llm(self, llm: Any) -> FrameworkLLM:  # noqa: ANN401
        """The backend around a model of the pipeline."""

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401
        """Make the reranker; nothing is loaded yet. `retrieve` is not its own: each query has one."""
        names = sorted({"backend"} | CONNECTING | RERANKING - OWN)
        self._reranker = self._make({name: value for name in names if (value := getattr(self, name)) is not None})
        if self.retrieve is not None:
            self._retriever = self._retrievers.retriever(self.retrieve)
            if self._reranker.plan.hops < 2:
                raise ValueError("retrieve= needs hops >= 2 (got hops=1): set hops=2, in the Reranker if there is one")

    def _make(self, settings: dict[str, Any]) -> Reranker:
        if self.reranker is not None:
            others = sorted(settings.keys() | ({"llm"} if self.llm is not None else set()))
            if others:
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

    def rank(self, query: str, passages: Iterable[Passage], retrieve: Retrieve | None = None) -> Ranking:
        """`Reranker.rank` of the `top_n`, passed to `on_ranking`; problems are logged, see `Ranking.log_problems`."""
        return self._reported(self._reranker.rank(query, passages, k=self.top_n or sys.maxsize, retrieve=retrieve))

    async def arank(self, query: str, passages: Iterable[Passage], retrieve: Retrieve | None = None) -> Ranking:
        """`rank`, from any event loop."""
        k = self.top_n or sys.maxsize
        return self._reported(await self._reranker.arank(query, passages, k=k, retrieve=retrieve))

    def _reported(self, ranking: Ranking) -> Ranking:
        ranking.log_problems()
        if self.on_ranking is not None:
            self.on_ranking(ranking)
        return ranking

    def _sources(self, kind: type[Item], items: Iterable[Item], passage: Callable[[Item], Passage]) -> Sources[Item]:
        """The objects that one query is reranked from, and those that `retrieve` finds for it."""
        return Sources(kind, items, passage, self._retriever)

    def _results(self, ranking: Ranking) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """The first `top_n`: the position of each, its score, and the metadata to add."""
        for rank, (position, score) in enumerate(zip(ranking.order[: self.top_n], ranking.scores, strict=False), 1):
            why = ranking.explain(rank)
            chosen = why.won and why.comparison is not None and why.comparison.parsed
            yield position, score, {REASONING: why.reasoning if chosen else ""} if self.include_reasoning else {}

    def _title(self, metadata: Mapping[str, Any]) -> str:
        """The title in a passage's metadata; "" if there is none."""
        title = metadata.get(self.title_key) if self.title_key else None
        return "" if title is None else str(title)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which shares the reranker, deep or not; a new one if an option changes that is frozen."""
        fields = type(self).model_fields
        if any(name not in fields or fields[name].frozen for name in update or {}):
            other = type(self).__new__(type(self))  # not by calling it: a subclass may have an __init__ of its own
            other.__setstate__({name: getattr(self, name) for name in self.model_fields_set} | dict(update or {}))
            return other
        return super().model_copy(update=update)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """One that shares the reranker: two of them would load two models."""
        return self.model_copy()

    def close(self) -> None:
        """Close the model, for all its users; an `llm` stays open. Safe to call twice."""
        self._reranker.close()

    async def aclose(self) -> None:
        """`close`, from any event loop."""
        await self._reranker.aclose()

    def _check_no_live(self) -> None:
        """TypeError for an object that no file of options can hold."""
        for name in ("reranker", "llm", "retrieve", "on_ranking"):
            if getattr(self, name) is not None:
                raise TypeError(f"{name}= is a live object and cannot be serialised: use plain options, or pickle")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What was set, and the name of a live model."""
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
                shown = value.plan.backend if isinstance(value, Reranker) else value
                shown = shown if callable(value) or isinstance(value, Reranker) else type(value).__name__
                raise TypeError(f"{name}={shown!s:.200} cannot be pickled: {error}") from error
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__pydantic_validator__.validate_python(state, self_instance=self)


def deep_copies(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy; a value that cannot be copied, a lock for example, is shared."""
    copies = dict(metadata)
    for key, value in metadata.items():
        try:
            copies[key] = copy.deepcopy(value)
        except Exception:
            continue
    return copies
