"""The options that every command which asks a model shares, and the reranker that they make.

Knows the command line and the constructor arguments; knows nothing of files.

What is the caller's fault and not ours. Knows exceptions; nothing of commands.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from rankr1_rag.cli.report import Job
from rankr1_rag.connect import reranker
from rankr1_rag.errors import FileError
from rankr1_rag.prompt import FORMATS
from rankr1_rag.reranker import Reranker
from rankr1_rag.selection import ALGORITHMS
from rankr1_rag.settings import BALLOT


class UsageError(Exception):
    """An argument is wrong, or something it needs is not installed: told in one line."""


@contextmanager
def arguments() -> Iterator[None]:
    """Around what checks arguments: its ValueError or ImportError is told as a UsageError. Elsewhere those are bugs."""
    try:
        yield
    except FileError:
        raise
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from error


BackendName = StrEnum("BackendName", ["openvino", "openai", "vllm", "transformers"])
Server = StrEnum("Server", {"vllm": "vllm", "sglang": "sglang", "llama_server": "llama-server", "tgi": "tgi"})
Force = StrEnum("Force", ["truncated", "unparsed", "never"])
OnFailure = StrEnum("OnFailure", {"raising": "raise", "first_stage": "first_stage"})
MODEL, PROMPT, SEARCH = "Model", "Prompt and answer", "Selection"


def _option(help: str, panel: str, *names: str) -> Any:  # noqa: ANN401
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model is asked, how, and how its answers become a ranking. None: as the checkpoint or the package says."""

    backend: Annotated[
        BackendName, _option("openvino: this machine's CPU. vllm, transformers: its GPUs. openai: a server.", MODEL)
    ] = BackendName.openvino
    model: Annotated[
        str | None,
        _option(
            "openvino: a GGUF file or OpenVINO folder. vllm, transformers: a released checkpoint, or any name of the "
            "hub or folder. openai: the name the server knows.",
            MODEL,
        ),
    ] = None
    adapter: Annotated[str | None, _option("A LoRA adapter: a folder; vllm, transformers: or a name.", MODEL)] = None
    base_url: Annotated[
        list[str] | None, _option("The server's address, ending in /v1; give it again for each further server.", MODEL)
    ] = None
    server: Annotated[Server | None, _option("What runs there: tells how to force a label.", MODEL)] = None
    api_key_env: Annotated[str | None, _option("The variable that holds the key (RANKR1_API_KEY).", MODEL)] = None
    context: Annotated[int | None, _option("Longest prompt and completion together, in tokens.", MODEL)] = None
    timeout: Annotated[float, _option("Seconds to wait for one completion of a server.", MODEL)] = 600.0
    attempts: Annotated[int, _option("How often a server or engine is asked before giving up.", MODEL)] = 6
    requests: Annotated[int | None, _option("At most so many requests at once.", MODEL)] = None
    option: Annotated[
        list[str] | None,
        _option(
            "A further argument of the backend, NAME=VALUE, tensor_parallel=2 for example; may be repeated.", MODEL
        ),
    ] = None
    store: Annotated[
        str | None, _option("Keep completions in this SQLite file: what is there is not asked again.", MODEL)
    ] = None
    format: Annotated[str | None, _option(f"The prompt format: {', '.join(FORMATS)}.", PROMPT)] = None
    reasoning_tokens: Annotated[int | None, _option("Budget of a thought; then its label is forced.", PROMPT)] = None
    force: Annotated[Force | None, _option("When a label is forced.", PROMPT)] = None
    temperature: Annotated[float, _option("0 is greedy.", PROMPT)] = 0.0
    query_tokens: Annotated[int | None, _option("Clip queries to so many tokens.", PROMPT)] = None
    passage_tokens: Annotated[int | None, _option("Clip passages to so many tokens.", PROMPT)] = None
    strict: Annotated[bool, _option("Fail a query where an answer names no passage.", PROMPT)] = False
    on_failure: Annotated[OnFailure, _option("What becomes of a query whose model fails.", PROMPT)] = OnFailure.raising
    k: Annotated[int, _option("How many to select.", SEARCH)] = 10
    size: Annotated[int | None, _option("Passages shown at once, 2 to 20.", SEARCH)] = None
    algorithm: Annotated[
        str | None,
        _option(
            f"How answers make a top k: {', '.join([*ALGORITHMS, BALLOT])}; default tournament, window for listwise.",
            SEARCH,
        ),
    ] = None
    votes: Annotated[
        str, _option("Ask each set so often, in fresh orders; auto: only where the first answer is unsure.", SEARCH)
    ] = "1"
    probabilities: Annotated[
        bool, _option("Ask for the probability of every label; scores are made of them.", SEARCH)
    ] = False
    prefix_order: Annotated[
        bool, _option("Show sets so that prompts begin alike: fewer tokens with a prefix cache.", SEARCH)
    ] = False
    hops: Annotated[
        int, _option("Stages: each later one is shown what was chosen before. 1 judges by the query alone.", SEARCH)
    ] = 1
    seed: Annotated[int, _option("Draws the orders of votes, and samples.", SEARCH)] = 0
    fusion: Annotated[str | None, _option("Fuse with the first stage: the constant, often 60; or off.", SEARCH)] = None
    in_flight: Annotated[int, _option("Queries open at once.", SEARCH)] = 64

    def reranker(self, job: Job) -> Reranker:
        """A reranker on the backend with its wrappers, whose completions the job counts. UsageError, StoreError."""
        given = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        given["votes"] = _votes(self.votes)
        given["fusion"] = _fusion(self.fusion)
        given["base_url"] = self.base_url or None  # not given, it may also come as []
        with arguments():
            given["options"] = dict(map(_named, given.pop("option") or ()))
            return reranker(given, around=job.counted)

    def telling(self) -> dict[str, object]:
        """What a finished result depends on: all but speed, patience, where things lie, and what failures become."""
        beside = {"base_url", "api_key_env", "timeout", "attempts", "requests", "store", "in_flight", "on_failure"}
        told = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in beside}
        return {**told, "fusion": _fusion(self.fusion)}


def _plain(value: Any) -> Any:  # noqa: ANN401
    return value.value if isinstance(value, StrEnum) else value


def _named(option: str) -> tuple[str, object]:
    """NAME=VALUE, the value as JSON where it is that, else as text."""
    name, is_there, value = option.partition("=")
    if not (name and is_there):
        raise ValueError(f"--option {option!r}: NAME=VALUE is needed, tensor_parallel=2 for example")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


def _votes(given: str) -> int | str:
    return int(given) if given.isdecimal() else given


def _fusion(given: str | None) -> float | str | None:
    try:
        return None if given is None else float(given)
    except ValueError:
        return given


def with_settings(
    command: Callable[..., None], *, without: Collection[str] = (), **defaults: object
) -> Callable[..., None]:
    """A typer command whose parameters that are dataclasses, like `settings`, are spelled out as options.

    `defaults` are for options of this command that have another one, or none, in their class; `without` are fields that
    have no say in it, and no option.
    """
    taken = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters.values()
    groups = {parameter.name: taken[parameter.name] for parameter in parameters if is_dataclass(taken[parameter.name])}

    @wraps(command)
    def spelled(**given: Any) -> None:  # noqa: ANN401
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group) if field.name not in without})
            for name, group in groups.items()
        }
        command(**given, **made)

    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=taken[parameter.name])
        for parameter in parameters
        if parameter.name not in groups
    ]
    every = [option for group in groups.values() for option in _options(group, defaults)]
    options = [option for option in every if option.name not in without]
    spelled.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    spelled.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *options]}
    del spelled.__wrapped__
    return spelled


def _options(group: type, defaults: Mapping[str, object]) -> list[inspect.Parameter]:
    """The fields of a dataclass as keyword parameters; one without a default is an option that must be given."""
    hints = get_type_hints(group, include_extras=True)
    own = {
        field.name: inspect.Parameter.empty if field.default is MISSING else field.default for field in fields(group)
    }
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name, default), annotation=hints[name]
        )
        for name, default in own.items()
    ]
