"""The settings of a component as pydantic fields, with what each means; the arguments of `connect` and `Reranker`.

Each is None where it is not given, so that the defaults stand in one place. Imports pydantic, which this package does
not ask for: the frameworks bring it. Knows no framework, and makes no reranker.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, SecretStr, model_validator
from pydantic.json_schema import SkipJsonSchema

from rankr1_rag.connect import Kind
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Force, Ranking

REASONING = "rankr1_reasoning"
"""The key of the reasoning that chose a passage, in its metadata; "" where none did."""

_MEANT = {"k": "top_n", "top_k": "top_n", "choice_batch_size": "size", "window_size": "size", "batch_size": "size"}
"""What other rerankers call a setting."""


def _text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


if TYPE_CHECKING:
    PathText = str | os.PathLike[str]
    Secret = SecretStr | str
else:
    PathText = Annotated[str, BeforeValidator(_text)]
    """A text, or a path, kept as text: settings go into JSON."""
    Secret = SecretStr


def _given(description: str) -> Any:  # noqa: ANN401
    """A setting that is decided when the component is made, and then stays."""
    return Field(default=None, frozen=True, description=description)


def live(description: str) -> Any:  # noqa: ANN401
    """A field that no file of settings can hold and no print should show."""
    return Field(default=None, frozen=True, exclude=True, repr=False, description=description)


class Settings(BaseModel):
    """What a component may be given. `top_n`, `title_key`, `include_reasoning`, `on_ranking` may be changed later."""

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
    include_reasoning: bool = Field(default=False, description=f"Put why it won into metadata[{REASONING!r}].")
    on_ranking: SkipJsonSchema[Callable[[Ranking], object] | None] = Field(
        default=None, exclude=True, repr=False, description="Called with each whole Ranking; what it raises is raised."
    )
    reranker: SkipJsonSchema[InstanceOf[Reranker] | None] = live("A Reranker made elsewhere; top_n stands for its k.")
    llm: Any = live("A language model that the pipeline already has.")
    retrieve: Any = live("Finds more between two stages: a retriever, or a function of a text; needs hops=2 or more.")

    model: PathText | None = _given("A name of the hub or of a server, a folder, a GGUF file; None: embedded.")
    backend: Kind | None = _given("What runs it; None: 'openai' where there is a base_url, else 'openvino'.")
    adapter: PathText | None = _given("A LoRA adapter on the model: a folder; for 'vllm', 'transformers' also a name.")
    options: dict[str, Any] | None = _given("Further arguments of the backend's class.")
    base_url: str | list[str] | None = _given("An OpenAI-compatible server's address, ending in /v1; or several.")
    server: Literal["vllm", "sglang", "llama-server", "tgi"] | None = _given("What runs there: tells how to force.")
    api_key: Secret | None = live("The server's key; never printed, pickled or serialised.")
    api_key_env: str | None = _given("The variable that holds the key, RANKR1_API_KEY by default.")
    context: int | None = _given("Longest prompt and completion together, in tokens.")
    timeout: float | None = _given("Seconds to wait for one completion of a server.")
    attempts: int | None = _given("How often a server is asked before giving up.")
    requests: int | None = _given("At most so many requests at once.")
    store: PathText | None = _given("An SQLite file of completions: what is there is not asked again.")

    format: str | None = _given("The prompt format, a name in FORMATS; None: as the table of checkpoints says.")
    size: int | None = _given("Passages shown at once, 2..20.")
    algorithm: str | None = _given("How answers make a top k, a name in ALGORITHMS or 'ballot'.")
    votes: int | Literal["auto"] | None = _given("Ask each set so often, in fresh orders; 'auto': where unsure.")
    probabilities: bool | None = _given("Ask for the probability of every label: scores are made of them.")
    prefix_order: bool | None = _given("Show sets so that prompts begin alike: fewer tokens with a prefix cache.")
    hops: int | None = _given("Stages: each later one is shown what was chosen before; 1: the query alone.")
    seed: int | None = _given("Draws the orders of votes, and samples.")
    temperature: float | None = _given("0, the default, is greedy; an llm keeps its own where this is not given.")
    reasoning_tokens: int | None = _given(
        "The budget of a thought, then its label is forced; an llm keeps its own limit."
    )
    force: Force | None = _given("When a label is forced.")
    strict: bool | None = _given("Raise UnparsedError where an answer names no passage.")
    on_failure: Literal["raise", "first_stage"] | None = _given("What becomes of a query whose model fails.")
    fusion: float | Literal["off"] | None = _given("The constant of a fusion with the first-stage order, often 60.")
    in_flight: int | None = _given("Queries open at once.")
    query_tokens: int | None = _given("Clip queries to so many tokens.")
    passage_tokens: int | None = _given("Clip passages to so many tokens.")

    _unpickled: ClassVar[frozenset[str]] = frozenset()
    """Fields of the framework's own that a pickle and a print leave out."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401
        """Every setting with its meaning into the docstring, for `help` and notebooks."""
        told = [f"    {name}: {field.description}" for name, field in cls.model_fields.items() if field.description]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Settings:", *told])

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:  # noqa: ANN401
        """ValueErrors that say what was meant, where pydantic only says that it is not that."""
        if not isinstance(given, dict):
            return given
        for name in map(str, given.keys() - cls.model_fields.keys()):
            near = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, cls.model_fields, n=1)
            raise ValueError(f"there is no setting {name!r}" + "".join(f", did you mean {one!r}?" for one in near))
        if isinstance(given.get("llm"), str):
            raise ValueError(
                f"llm={given['llm']!r} is a name, not a model: give model= with base_url= or backend='openai'"
            )
        if inspect.iscoroutinefunction(given.get("on_ranking")):
            raise ValueError("on_ranking is called and not awaited: give a plain function")
        return given

    def __setattr__(self, name: str, value: object) -> None:
        """ValueError for what is decided when the component is made; pydantic's own would print the value, a key."""
        field = type(self).model_fields.get(name)
        if field is not None and field.frozen:
            raise ValueError(f"{name} is frozen: it is decided when the component is made, make a new one")
        super().__setattr__(name, value)
