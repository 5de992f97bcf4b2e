"""What the components of frameworks share: the one reranker behind their settings.

A component works from a `Reranker`, from a model that the framework already has (`llm`), or from the arguments of
`connect` and `Reranker`. Knows no framework; its settings and what they mean stand in `component_settings`.

The candidates of one query with the object of a framework behind each, those given and those found on the way.

A component serves many queries at once: each has `Candidates` of its own. Knows what a framework calls a retriever;
knows no framework, and leaves it to the stages what of the found is new.
"""

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

from rankr1_rag.connect import CONNECTING, RERANKING, reranker, wrapped
from rankr1_rag.engine.query import Retrieve
from rankr1_rag.engine.retrieval import Retriever
from rankr1_rag.frameworks.fields import REASONING, Settings
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import check_within
from rankr1_rag.types import Passage, Ranking

Item = TypeVar("Item")


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


class Candidates(Generic[Item]):
    """The `items` given, best first, as `passages`; `retrieve` finds more, None where there is no retriever.

    TypeError for items of another kind, also for those that are found.
    """

    def __init__(
        self,
        kind: type[Item],
        items: Iterable[Item],
        passage: Callable[[Item], Passage],
        retriever: Retriever | None = None,
    ) -> None:
        self.items = list(all_of(kind, items))
        self.retrieve: Retrieve | None = None if retriever is None else partial(self._found, retriever)
        self._kind = kind
        self._passage = passage
        self._later: list[tuple[Passage, Item]] = []

    @cached_property
    def passages(self) -> tuple[Passage, ...]:
        """One for each of the items."""
        return tuple(map(self._passage, self.items))

    def behind(self, ranking: Ranking) -> list[Item]:
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


def all_of(kind: type[Item], items: Iterable[Item]) -> Iterator[Item]:
    """The items, each checked as it is taken: TypeError for what is of another kind."""
    if isinstance(items, str):
        raise TypeError(f"a str stands where {kind.__name__} objects should: is it the query?")
    for place, item in enumerate(items):
        if not isinstance(item, kind):
            raise TypeError(f"item {place} is a {type(item).__name__}, not a {kind.__name__}")
        yield item


T = TypeVar("T")


class Component(Settings):
    """One reranker for the life of the object; its model is loaded at its first use. Wrong settings are told at once.

    `top_n`, `title_key`, `include_reasoning` and `on_ranking` may be changed later, the others not. Pickled, it is the
    arguments it was made with: TypeError, naming it, for what cannot be pickled.
    """

    _retrievers: ClassVar[Retrievers]
    """What the framework calls a retriever."""
    _reranker: Reranker = PrivateAttr()
    _retriever: Retriever | None = PrivateAttr(default=None)

    @abstractmethod
    def _borrowed(self, llm: Any) -> FrameworkLLM:  # noqa: ANN401
        """The backend around a model that the pipeline has."""

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401
        """Make the reranker; nothing is loaded yet. `retrieve` is no setting of it: each query has one of its own."""
        names = sorted(CONNECTING | RERANKING - {"k", "retrieve"} | {"backend"})
        settings = {name: getattr(self, name) for name in names}
        self._reranker = self._made({name: value for name, value in settings.items() if value is not None})
        if self.retrieve is not None:
            self._retriever = self._retrievers.asked(self.retrieve)
            if self._reranker.plan.hops < 2:
                raise ValueError("retrieve= finds more between two stages, and hops=1 is a single one: give hops=2")

    def _made(self, given: dict[str, Any]) -> Reranker:
        if self.reranker is not None:
            _refuse("reranker", "it has settings of its own", given if self.llm is None else {"llm": self.llm} | given)
            if self.reranker.retrieve is not None:
                raise ValueError("reranker= has a retrieve=, which finds bare passages: give retrieve= here instead")
            return self.reranker
        if self.llm is not None:
            elsewhere = (CONNECTING | {"backend"}) - {"context", "requests", "store"}
            _refuse("llm", "it brings its own connection", elsewhere & given.keys())
            model = self._borrowed(self.llm)
            if "context" in given:
                model.context = check_within("context", given.pop("context"), 1)
            model.sets_limit, model.sets_temperature = "reasoning_tokens" in given, "temperature" in given
            _ = model.identity if self.store is not None else None  # told now, if it cannot be told
            backend = wrapped(model, given.pop("requests", None), given.pop("store", None))
            return Reranker(backend, k=self.top_n, **given)
        if self.api_key is not None:
            given["api_key"] = getattr(self.api_key, "get_secret_value", str)()
        return reranker(given | {"k": self.top_n})

    @property
    def ranker(self) -> Reranker:
        """The reranker behind this component."""
        return self._reranker

    def rank(self, query: str, passages: Iterable[Passage], retrieve: Retrieve | None = None) -> Ranking:
        """`Reranker.rank` of the `top_n`, told to `on_ranking`; problems are logged, see `Ranking.log_problems`."""
        return self._told(self._reranker.rank(query, passages, k=self.top_n or sys.maxsize, retrieve=retrieve))

    async def arank(self, query: str, passages: Iterable[Passage], retrieve: Retrieve | None = None) -> Ranking:
        """`rank`, from any event loop."""
        return self._told(await self._reranker.arank(query, passages, k=self.top_n or sys.maxsize, retrieve=retrieve))

    def _candidates(self, kind: type[T], items: Iterable[T], passage: Callable[[T], Passage]) -> Candidates[T]:
        """What one query is reranked from: the framework's objects, and what `retrieve` finds for it."""
        return Candidates(kind, items, passage, self._retriever)

    def _told(self, ranking: Ranking) -> Ranking:
        ranking.log_problems()
        if self.on_ranking is not None:
            self.on_ranking(ranking)
        return ranking

    def _results(self, ranking: Ranking) -> Iterator[tuple[int, float, dict[str, Any]]]:
        """The first `top_n`: the position of each, its score, and what is to be added to its metadata."""
        for rank, (position, score) in enumerate(zip(ranking.order[: self.top_n], ranking.scores, strict=False), 1):
            why = ranking.explain(rank)
            chosen = why.won and why.comparison is not None and why.comparison.parsed
            yield position, score, {REASONING: why.reasoning if chosen else ""} if self.include_reasoning else {}

    def _title(self, metadata: Mapping[str, Any]) -> str:
        """The title in a passage's metadata; "" where there is none."""
        title = metadata.get(self.title_key) if self.title_key else None
        return "" if title is None else str(title)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which shares the reranker, deep or not; a new one where a setting is decided anew."""
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
        """Give back the model, others' use of it included; an `llm` stays its owner's. Safe to call twice."""
        self._reranker.close()

    async def aclose(self) -> None:
        """`close`, from any event loop."""
        await self._reranker.aclose()

    def _check_no_live(self) -> None:
        """TypeError where it was made from an object that no file of settings can hold."""
        for name in ("reranker", "llm", "retrieve", "on_ranking"):
            if getattr(self, name) is not None:
                raise TypeError(f"{name}= is a live object and cannot be serialised: give settings, or use pickle")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What was given, and of a live model its name."""
        if self.llm is not None or self.reranker is not None:
            yield "of", self._reranker.plan.backend.model
        for name, value in super().__repr_args__():
            if value is not None and name not in self._unpickled:
                yield name, value

    def __getstate__(self) -> dict[str, Any]:
        """The arguments it was made with."""
        if self.api_key is not None:
            raise TypeError("a component made with api_key= is not pickled, as the key would be: use api_key_env=")
        given = {name: getattr(self, name) for name in sorted(self.model_fields_set - self._unpickled)}
        for name, value in given.items():
            _check_pickles(name, value)
        return given

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__pydantic_validator__.validate_python(state, self_instance=self)


def copied(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy; a value that cannot be copied, a lock say, is shared."""
    return {key: _copied(value) for key, value in metadata.items()}


def _copied(value: Any) -> Any:  # noqa: ANN401
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _refuse(name: str, why: str, others: Iterable[str]) -> None:
    if others := sorted(others):
        raise ValueError(f"{name}= was given, and {why}: leave out {', '.join(others)}")


def _check_pickles(name: str, value: object) -> None:
    shown = value.plan.backend if isinstance(value, Reranker) else value if callable(value) else type(value).__name__
    try:
        pickle.dumps(value)
    except Exception as error:
        raise TypeError(f"{name}={shown!s:.200} cannot be pickled: {error}") from error
