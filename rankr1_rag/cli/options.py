"""The options that all commands with a model share, made from the table in `settings`."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from enum import StrEnum
from functools import partial, wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

import typer

from rankr1_rag.backends.openvino.weights import SHIPPED
from rankr1_rag.checkpoints import BASE, EMBEDDED, READER
from rankr1_rag.cli.report import Job, printing_logs
from rankr1_rag.connect import connect, reranker
from rankr1_rag.errors import FileError
from rankr1_rag.io.files import AnyPath, check_apart, check_output
from rankr1_rag.reader import Prompt, Reader
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import Connection, EffectiveDefault, Settings, options

log = logging.getLogger("rankr1_rag")


class UsageError(Exception):
    """A wrong argument, or something that is not installed: printed in one line."""


@contextmanager
def arguments(spell: Callable[[str], str] = str) -> Iterator[None]:
    """Make a ValueError or ImportError a UsageError, around code that checks arguments; elsewhere those are bugs."""
    try:
        yield
    except FileError:
        raise
    except (ValueError, ImportError) as error:
        raise UsageError(spell(str(error))) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class CommandSettings(Settings, Connection):
    """The options of a command with a model: which model is asked, how, and how its answers become a ranking."""

    def __post_init__(self) -> None:
        Connection.__post_init__(self)

    @property
    def top(self) -> int:
        """`k` as a number: on the command line there always is one."""
        assert self.k is not None
        return self.k

    @property
    def inputs(self) -> list[str]:
        """Paths of a local model and its adapter, which no output may replace."""
        named = [] if self.kind == "openai" else [self.model, self.adapter]
        return [os.path.expanduser(one) for one in named if one]

    def check_files(self, outputs: Iterable[AnyPath | None], inputs: Iterable[AnyPath | None] = ()) -> None:
        """FileError if two of the command's files, with model and store, are one, or if the store cannot be one."""
        check_apart([*outputs, self.store], [*inputs, *self.inputs])
        check_output(self.store, re.compile(rb"\ASQLite format 3\0"))

    def reranker(self, job: Job) -> Reranker:
        """A reranker on the backend with its wrappers, whose completions the job counts. UsageError, StoreError."""
        with arguments(with_hyphens):
            return reranker({name: getattr(self, name) for name in options(CommandSettings)}, around=job.counted)

    @property
    def embedded(self) -> bool:
        """Whether these settings name the embedded model, trained or not."""
        return self.kind == "openvino" and self.model in (None, EMBEDDED, BASE)

    def reader(self, reranker: Reranker, job: Job, tokens: int = 32) -> Reader:
        """A reader whose completions the job counts: for the embedded model the embedded reader, else the same model.

        While no reader is embedded, the model before training reads in its place. `tokens` is the longest answer.
        StoreError.
        """
        if not self.embedded:
            return Reader(reranker.plan.backend, tokens)
        if not (trained := SHIPPED[READER].is_dir()):
            log.warning("no reader is embedded: the answers are read by %s, which was never trained to read", BASE)
        with arguments(with_hyphens):
            backend = connect("openvino", READER if trained else BASE, store=self.store, options=self.options)
        prompt: Prompt = "reader-v1" if trained else "five-examples-v1"
        return Reader(job.counted(backend), tokens, own=True, prompt=prompt)

    def fingerprint(self) -> dict[str, object]:
        """The options that a finished result depends on: all but speed, patience, places and the handling of errors."""
        without = {"base_url", "api_key", "api_key_env", "timeout", "attempts", "requests", "store", "in_flight"}
        without |= {"headers", "query"}
        kept = options(CommandSettings).keys() - without - {"on_failure"}
        newer = ("deadline", "budget_tokens", "step", "passes", "instruction")  # than some jobs that may be resumed
        unset = {name for name in newer if getattr(self, name) is None}
        return {name: getattr(self, name) for name in sorted(kept - unset)} | {"backend": self.kind}


def with_hyphens(problem: str, names: Collection[str] = options(CommandSettings).keys()) -> str:
    """The error with its options as on the command line: `--base-url` for `base_url=`."""
    pattern = rf"(?<![\w/?&-])({'|'.join(names)})=(?=([\w'\[{{-])?)"
    spelled = re.sub(pattern, lambda one: f"--{one[1].replace('_', '-')}{' ' if one[2] else ''}", problem)
    return spelled.replace("--options", "--option").replace("a Format or ", "")


Parse = Callable[[Any], Any]
VERBOSE = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log of what is done: models loaded, requests retried, queries done.")
]

FLAGS = {"options": ["--option"], "headers": ["--header", "--headers"]}
"""Options whose name on the command line is another one, as each use names one of several."""

EXAMPLES = {
    "options": "tensor_parallel=2",
    "headers": "api-key=$AZURE_OPENAI_API_KEY",
    "query": "api-version=2024-10-21",
    "extra_body": "reasoning_effort=low",
}


def spelled(name: str, hint: Any) -> tuple[Any, Parse]:  # noqa: ANN401
    """The type that typer takes for a type of Python, and what makes a value of Python of a value of typer."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [kind for kind in members if kind is not NoneType]
    origins = [get_origin(kind) or kind for kind in kinds]
    one: Any
    parse: Parse
    if Mapping in origins:
        one, parse = list[str], partial(_named, name, get_args(kinds[0])[1] is str)
    elif Sequence in origins:  # not used, it may also come as []
        one, parse = list[str], lambda values: tuple(values or ()) or (None if NoneType in members else ())
    elif origins == [Literal]:
        one, parse = StrEnum(name, {value: value for value in get_args(kinds[0])}), lambda value: value and value.value
    elif Literal in origins:
        one, parse = str, lambda text: number if type(number := _value(text)) in (int, float) else text
    elif str in origins:
        one, parse = str, lambda text: text
    else:
        return hint, lambda value: value
    return (Optional[one] if NoneType in members else one), parse  # noqa: UP045  # of values, not of written types


def _value(text: str | None) -> Any:  # noqa: ANN401
    """As JSON if it is that, else the text."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named(option: str, holds_texts: bool, pairs: Sequence[str] | None) -> dict[str, object] | None:
    """`["NAME=VALUE", …]` as a dict, of texts or of JSON values, which may be secret: the error does not show them."""
    flag = FLAGS.get(option, [f"--{option.replace('_', '-')}"])[0]
    for pair in pairs or ():
        if not pair.partition("=")[0] or "=" not in pair:
            other = "; queries of a run: --queries" if option == "query" else ""
            raise ValueError(f"{flag}: NAME=VALUE is needed, {EXAMPLES[option]} for example{other}")
    split = [pair.partition("=") for pair in pairs or ()]
    if holds_texts:
        return {name: value for name, _, value in split} or None
    return {name.replace("-", "_"): _value(value) for name, _, value in split} or None


def _parameter(owner: type, name: str, default: Any) -> tuple[inspect.Parameter, Parse]:  # noqa: ANN401
    """A field of a dataclass as an option of typer, and its parser."""
    hint = get_type_hints(owner, include_extras=True)[name]
    declared = options(owner).get(name)
    parse: Parse = lambda value: value  # noqa: E731
    if declared is not None:
        plain, parse = spelled(name, declared.type)
        if isinstance(default, EffectiveDefault):
            declared, default = replace(declared, default=default.text), None
        required = default is inspect.Parameter.empty
        help = (
            f"{declared.help}." if required else replace(declared, value=None if default == () else default).full_help
        )
        option = typer.Option(*FLAGS.get(name, ()), help=help, rich_help_panel=declared.group, show_default=False)
        default = str(default) if plain is str and not required else default
        hint = Annotated[plain, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint), parse


def with_settings(
    command: Callable[..., None], *, without: Collection[str] = (), **defaults: object
) -> Callable[..., None]:
    """A typer command whose parameters that are dataclasses, like `settings`, are spelled out as options.

    `defaults` replace those of the fields, `without` are fields that are no options of this command.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters.values()
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
        for parameter in parameters
        if not is_dataclass(hints[parameter.name])
    ]
    groups: dict[str, dict[str, tuple[inspect.Parameter, Parse]]] = {}
    for parameter in parameters:
        if is_dataclass(owner := hints[parameter.name]):
            assert isinstance(owner, type)
            groups[parameter.name] = {
                one.name: _parameter(
                    owner,
                    one.name,
                    defaults.get(one.name, inspect.Parameter.empty if one.default is MISSING else one.default),
                )
                for one in fields(owner)
                if one.name not in without and one.name != "api_key"
            }

    @wraps(command)
    def run(verbose: bool, **given: Any) -> None:  # noqa: ANN401
        with arguments(lambda problem: with_hyphens(problem, [name for group in groups.values() for name in group])):
            made = {
                group: hints[group](**{name: parse(given.pop(name)) for name, (_, parse) in members.items()})
                for group, members in groups.items()
            }
        with printing_logs(verbose):
            command(**given, **made)

    own.append(inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VERBOSE))
    every = [*own, *(option for members in groups.values() for option, _ in members.values())]
    run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    del run.__wrapped__
    return run
