"""The options of a component as pydantic fields, made from the table in `settings`; the frameworks bring pydantic."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from numbers import Integral, Real
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Optional

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    SecretStr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from rankr1_rag.prompt import Format
from rankr1_rag.redaction import excerpt_of, without_secrets
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import TOP_N, Connection, Option, Settings, no_such_option, options, readable
from rankr1_rag.types import Ranking

CHOSEN = "rankr1_chosen"
"""The metadata key of the rank in the model's own order, before any fusion; absent if it did not select the passage."""

REASONING = "rankr1_reasoning"
"""The metadata key of the reasoning that chose a passage; "" if none did."""

PLAIN: dict[Any, Any] = {
    **{os.PathLike[str]: str, Sequence[str]: list[str], Format: str},
    **{Mapping[str, Any]: dict[str, Any], Mapping[str, str]: dict[str, str]},
}
"""Types that JSON has, for those that it does not have."""


def live(help: str, default: str = "none", frozen: bool = True) -> Any:  # noqa: ANN401
    """A field that no file of settings can hold and no print should show."""
    return Field(default=None, frozen=frozen, exclude=True, repr=False, description=f"{help} (default: {default}).")


TABLE = {name: one for name, one in (options(Settings) | options(Connection)).items() if name != "k"}
CHECKED = TABLE | {"top_n": replace(options(Settings)["k"], name="top_n")}


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A path as text, a number of NumPy as one of Python."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _field(option: Option) -> Any:  # noqa: ANN401
    """The option as a pydantic field. None is not set, so that the defaults are in the table alone."""
    if option.secret and option.kinds == (str,):
        return Optional[SecretStr], live(option.help, option.default)  # noqa: UP045
    kinds: Any = reduce(operator.or_, [PLAIN.get(kind, kind) for kind in option.kinds], None)
    if option.secret:
        kinds = Annotated[kinds, PlainSerializer(lambda value: without_secrets({option.name: value})[option.name])]
    return kinds, Field(default=None, frozen=True, repr=not option.secret, description=option.full_help)


if TYPE_CHECKING:

    class OptionFields(BaseModel, Settings, Connection):  # type: ignore[misc]  # frozen, each field by itself
        """The options of `Reranker` and `connect`."""

else:
    OptionFields = create_model("OptionFields", **{name: _field(option) for name, option in TABLE.items()})


class ComponentFields(OptionFields):  # type: ignore[misc]
    """The options of a component; those declared here may be changed later, except live objects."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, protected_namespaces=(), validate_assignment=True
    )

    top_n: int | None = Field(
        default=TOP_N,
        ge=1,
        strict=True,
        description=f"Number of passages to return, best first; None returns all (default: {TOP_N}).",
    )
    title_key: str | None = Field(default="title", description="Metadata key of the title shown (default: title).")
    metadata_keys: list[str] | None = Field(
        default=None, description="Keys of other metadata that the model sees with the text (default: none)."
    )
    include_reasoning: bool = Field(
        default=False, strict=True, description=f"Reasoning of the winner in metadata[{REASONING!r}] (default: off)."
    )
    keep_retrieval_score: bool = Field(
        default=False,
        strict=True,
        description="The first stage's score in metadata['retrieval_score'] (default: off).",
    )
    on_ranking: SkipJsonSchema[Callable[[Ranking], object] | None] = live(
        "Function called with each whole Ranking; its errors are raised", frozen=False
    )
    reranker: SkipJsonSchema[InstanceOf[Reranker] | None] = live("Reranker to use; top_n takes the place of its k")
    llm: Any = live("Language model of the pipeline")
    retrieve: Any = live("Retriever, or function of a text, that finds more between two hops; takes hops=2 or more")

    _unpickled: ClassVar[frozenset[str]] = frozenset()
    """Fields of the framework's own that a pickle and a print leave out."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401
        # Every option with its help goes into the docstring, for `help` and notebooks.
        lines = [f"    {name}: {field.description}" for name, field in cls.model_fields.items() if field.description]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Options:", *lines])
        if cls.__init__ is BaseModel.__init__:  # type: ignore[comparison-overlap]
            cls.__signature__ = readable(cls.__signature__, TABLE)

    @model_validator(mode="before")
    @classmethod
    def _check(cls, values: Any) -> Any:  # noqa: ANN401
        """ValueErrors by the table of options and with a remedy, instead of pydantic's."""
        if not isinstance(values, dict):
            return values
        for name in map(str, values.keys() - cls.model_fields.keys()):
            raise ValueError(no_such_option(name, cls.model_fields))
        values = {name: _plain(one) for name, one in values.items()}
        for name in values.keys() & CHECKED.keys():
            if values[name] is not None and not isinstance(values[name], SecretStr):
                CHECKED[name].check(values[name])
        if isinstance(values.get("llm"), str):
            raise ValueError(
                f"llm={excerpt_of(values['llm'])} is a name: use model= with base_url= or backend='openai'"
            )
        if hasattr(llm := values.get("llm"), "can_continue"):
            raise ValueError(f"llm= is a {type(llm).__name__}, a backend: use an LLM, or reranker=Reranker(backend)")
        if not isinstance(one := values.get("reranker"), Reranker | None):
            raise ValueError(f"reranker= is a {type(one).__name__}: pass Reranker(backend, …)")
        if inspect.iscoroutinefunction(values.get("on_ranking")):
            raise ValueError("on_ranking= is async and would never be awaited: use a plain function")
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _without_input(cls, values: Any, read: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        """The errors without what was passed, which `errors()` would show with its key."""
        try:
            return read(values)
        except ValidationError as error:
            title, found = error.title, error.errors(include_input=False, include_url=False, include_context=False)
        details = [
            InitErrorDetails(type=PydanticCustomError(one["type"], one["msg"]), loc=one["loc"], input=None)
            for one in found
        ]
        raise ValidationError.from_exception_data(title, details, hide_input=True)

    @field_validator("llm", mode="wrap")
    @classmethod
    def _check_llm(cls, llm: Any, read: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        try:
            return read(llm)
        except ValidationError:
            raise ValueError(
                f"llm= is a {type(llm).__name__}: use a language model of the framework, or model="
            ) from None

    def __setattr__(self, name: str, value: object) -> None:
        """ValueError for an option that cannot change later; pydantic's own would print the value, perhaps a key."""
        field = type(self).model_fields.get(name)
        if field is not None and field.frozen:
            got = f" (got {excerpt_of(value)})" if field.repr else ""
            raise ValueError(f"{name} cannot change later{got}: make a new component")
        super().__setattr__(name, value)
