"""What the components of frameworks share: their settings as pydantic fields, and the one reranker behind them.

A component works from a `Reranker`, from a model that the framework already has (`llm`), or from the arguments of
`connect` and `Reranker`; each is None where it is not given, so that the defaults stand in one place. Imports pydantic,
which this package does not ask for: the frameworks bring it. Knows no framework.
"""

from __future__ import annotations

import difflib
import inspect
import os
import pickle
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, PrivateAttr, SecretStr, model_validator

from rankr1_rag.backends.borrowed import Borrowed
from rankr1_rag.connect import CONNECTING, RERANKING, Kind, reranker, wrapped
from rankr1_rag.engine import Force
from rankr1_rag.notice import notice
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Ranking

REASONING = "rankr1_reasoning"
"""The key of the reasoning that chose a passage, in its metadata; "" where none did."""

_MEANT = {"k": "top_n", "top_k": "top_n", "choice_batch_size": "size", "window_size": "size", "batch_size": "size"}
"""What other rerankers call a setting."""

PathText = Annotated[str, BeforeValidator(lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value)]
"""A text, or a path, kept as text: settings go into JSON."""


def _given(description: str) -> Any:  # noqa: ANN401
    """A setting that is decided when the component is made, and then stays."""
    return Field(default=None, frozen=True, description=description)


def live(description: str) -> Any:  # noqa: ANN401
    """A field that no file of settings can hold and no print should show."""
    return Field(default=None, frozen=True, exclude=True, repr=False, description=description)


class Component(BaseModel):
    """One reranker for the life of the object; its model is loaded at its first use. Wrong settings are told at once.

    `top_n`, `title_key`, `include_reasoning` and `on_ranking` may be changed later, the others not. Pickled, it is the
    arguments it was made with: TypeError, naming it, for what cannot be pickled.
    """

    model_config = ConfigDict(
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
        validate_assignment=True,
    )

    top_n: int | None = Field(
        default=5, ge=1, strict=True, description="How many come back, best first; None is all of them."
    )
    title_key: str | None = Field(default="title", description="The metadata key of a title, shown before the text.")
    include_reasoning: bool = Field(default=False, description=f"Put the reasoning into metadata[{REASONING!r}].")
    on_ranking: Callable[[Ranking], object] | None = Field(
        default=None, exclude=True, repr=False, description="Called with each whole Ranking; what it raises is raised."
    )
    reranker: InstanceOf[Reranker] | None = live("A Reranker made elsewhere; top_n stands for its k.")
    llm: Any = live("A language model that the pipeline already has.")

    model: PathText | None = _given("A server's name of a model, a GGUF file or an OpenVINO folder; None: embedded.")
    backend: Kind | None = _given("What runs it; None: 'openai' where there is a base_url, else 'openvino'.")
    base_url: str | None = _given("The address of an OpenAI-compatible server, ending in /v1.")
    server: Literal["vllm", "sglang", "llama-server", "tgi"] | None = _given("What runs there: tells how to force.")
    api_key: SecretStr | None = live("The server's key; never printed, pickled or serialised.")
    api_key_env: str | None = _given("The variable that holds the key, RANKR1_API_KEY by default.")
    context: int | None = _given("Longest prompt and completion together, in tokens.")
    timeout: float | None = _given("Seconds to wait for one completion of a server.")
    attempts: int | None = _given("How often a server is asked before giving up.")
    requests: int | None = _given("At most so many requests at once.")
    store: PathText | None = _given("An SQLite file of completions: what is there is not asked again.")

    format: str | None = _given("The prompt format, a name in FORMATS; None: as the table of checkpoints says.")
    size: int | None = _given("Passages shown at once, 2..20.")
    algorithm: str | None = _given("How answers make a top k, a name in ALGORITHMS.")
    votes: int | None = _given("Ask each set so often, in fresh orders.")
    seed: int | None = _given("Draws the orders of votes, and samples.")
    temperature: float | None = _given("0, the default, is greedy.")
    think_tokens: int | None = _given("The budget of a thought; one that runs over it is ended, its label forced.")
    force: Force | None = _given("When a label is forced.")
    strict: bool | None = _given("Raise UnparsedError where an answer names no passage.")
    on_failure: Literal["raise", "first_stage"] | None = _given("What becomes of a query whose model fails.")
    fusion: float | None = _given("The constant of a fusion with the first-stage order, often 60.")
    in_flight: int | None = _given("Queries open at once.")
    query_tokens: int | None = _given("Clip queries to so many tokens.")
    passage_tokens: int | None = _given("Clip passages to so many tokens.")

    _reranker: Reranker = PrivateAttr()
    _unpickled: ClassVar[frozenset[str]] = frozenset()
    """Fields of the framework's own that a pickle leaves out."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401
        """Every setting with its meaning into the docstring, for `help` and notebooks."""
        told = [f"    {name}: {field.description}" for name, field in cls.model_fields.items() if field.description]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Settings:", *told])

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:  # noqa: ANN401
        """ValueErrors that say what was meant, where pydantic only says that it is not that."""
        for name in given.keys() - cls.model_fields.keys():
            near = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, cls.model_fields, n=1)
            raise ValueError(f"there is no setting {name!r}" + "".join(f", did you mean {one!r}?" for one in near))
        if isinstance(given.get("llm"), str):
            raise ValueError(
                f"llm={given['llm']!r} is a name, not a model: give model= with base_url= or backend='openai'"
            )
        if inspect.iscoroutinefunction(given.get("on_ranking")):
            raise ValueError("on_ranking is called and not awaited: give a plain function")
        return given

    @abstractmethod
    def _borrowed(self, llm: Any) -> Borrowed:  # noqa: ANN401
        """The backend around a model that the pipeline has."""

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401
        """Make the reranker; nothing is loaded yet."""
        settings = {name: getattr(self, name) for name in sorted(CONNECTING | RERANKING - {"k"} | {"backend"})}
        self._reranker = self._made({name: value for name, value in settings.items() if value is not None})

    def _made(self, given: dict[str, Any]) -> Reranker:
        if self.reranker is not None:
            _refuse("reranker", "it has settings of its own", given if self.llm is None else {"llm": self.llm} | given)
            return self.reranker
        if self.llm is not None:
            elsewhere = (CONNECTING | {"backend"}) - {"requests", "store"}
            _refuse("llm", "it brings its own connection", elsewhere & given.keys())
            model = self._borrowed(self.llm)
            _ = model.identity if self.store is not None else None  # told now, if it cannot be told
            backend = wrapped(model, given.pop("requests", model.at_once), given.pop("store", None))
            return Reranker(backend, k=self.top_n, **given)
        if self.api_key is not None:
            given["api_key"] = self.api_key.get_secret_value()
        return reranker(given | {"k": self.top_n})

    @property
    def ranker(self) -> Reranker:
        """The reranker behind this component."""
        return self._reranker

    def rank(self, query: str, passages: Iterable[Passage]) -> Ranking:
        """`Reranker.rank` of the `top_n`, told to `on_ranking`; what it must not hide is logged, see `notice`."""
        candidates = tuple(passages)
        return self._told(self._reranker.rank(query, candidates, k=self.top_n or max(1, len(candidates))))

    async def arank(self, query: str, passages: Iterable[Passage]) -> Ranking:
        """`rank`, from any event loop."""
        candidates = tuple(passages)
        return self._told(await self._reranker.arank(query, candidates, k=self.top_n or max(1, len(candidates))))

    def _told(self, ranking: Ranking) -> Ranking:
        notice(ranking)
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

    def __setattr__(self, name: str, value: object) -> None:
        """ValueError for what is decided when the component is made; pydantic's own would print the value, a key."""
        field = type(self).model_fields.get(name)
        if field is not None and field.frozen:
            raise ValueError(f"{name} is frozen: it is decided when the component is made, make a new one")
        super().__setattr__(name, value)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, which shares the reranker; a new one where a setting is decided anew."""
        fields = type(self).model_fields
        if any(name not in fields or fields[name].frozen for name in update or {}):
            given = {name: getattr(self, name) for name in self.model_fields_set}
            return type(self)(**{**given, **(update or {})})
        return super().model_copy(update=update, deep=deep)

    def close(self) -> None:
        """Give back the model, others' use of it included; an `llm` stays its owner's. Safe to call twice."""
        self._reranker.close()

    async def aclose(self) -> None:
        """`close`, from any event loop."""
        await self._reranker.aclose()

    def _check_no_live(self) -> None:
        """TypeError where it was made from an object that no file of settings can hold."""
        for name in ("reranker", "llm", "on_ranking"):
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
        self.__init__(**state)  # type: ignore[misc]


def _refuse(name: str, why: str, others: Iterable[str]) -> None:
    if others := sorted(others):
        raise ValueError(f"{name}= was given, and {why}: leave out {', '.join(others)}")


def _check_pickles(name: str, value: object) -> None:
    shown = value.plan.backend if isinstance(value, Reranker) else value if callable(value) else type(value).__name__
    try:
        pickle.dumps(value)
    except Exception as error:
        raise TypeError(f"{name}={shown!s:.200} cannot be pickled: {error}") from error
