"""`rankr1 train sft` and `rankr1 train grpo`: a LoRA adapter that reranks, from relevance labels.

The options are the fields of `train.settings`. Knows the command line; all training happens below.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.text import Text

from rankr1_rag.cli.course import Course
from rankr1_rag.cli.usage import arguments
from rankr1_rag.explain import clean
from rankr1_rag.train.folder import Folder
from rankr1_rag.train.processes import is_main
from rankr1_rag.train.settings import GRPO, SFT, Training

S = TypeVar("S", bound=Training)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train a LoRA adapter that reranks, from labels.")


def _command(kind: type[S], help: str, begin: Callable[[S, Course], Folder]) -> None:
    """Add a command whose options are the fields of a dataclass of settings."""

    def command(as_json: bool, **given: Any) -> None:  # noqa: ANN401
        console = Console(stderr=True, quiet=not is_main())
        with arguments():
            settings = kind(**{name: _plain(value) for name, value in given.items()})
        with Course(console, kind.__name__) as course, arguments():
            folder = begin(settings, course)
        if is_main():
            _tell(folder, as_json)

    options = [_option(kind, field.name) for field in fields(kind)]
    as_json = inspect.Parameter(
        "as_json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")],
    )
    command.__signature__ = inspect.Signature([*options, as_json])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*options, as_json)}
    app.command(kind.__name__.lower(), help=help, no_args_is_help=True)(command)


def _option(kind: type[Training], name: str) -> inspect.Parameter:
    """One field as an option: its words are its help."""
    hint, help, panel = get_args(get_type_hints(kind, include_extras=True)[name])
    field = next(field for field in fields(kind) if field.name == name)
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    default = [] if default == () else default
    option = typer.Option(help=help, rich_help_panel=panel, show_default=True)
    annotation: Any = Annotated.__class_getitem__((_spelled(name, hint), option))  # type: ignore[attr-defined]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _spelled(name: str, hint: Any) -> Any:  # noqa: ANN401
    """The type as the command line has it: lists for tuples, an enumeration for a choice."""
    if get_origin(hint) is tuple:
        return list[str]
    if get_origin(hint) is Literal:
        return StrEnum(name, {value: value for value in get_args(hint)})
    if type(None) in get_args(hint):
        (inner,) = [one for one in get_args(hint) if one is not type(None)]
        return Union[_spelled(name, inner), None]  # noqa: UP007  # of values, not of written types
    return hint


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, StrEnum):
        return value.value
    return tuple(value) if isinstance(value, list) else value


def _tell(folder: Folder, as_json: bool) -> None:
    measured = [one["held_out"] for one in folder.records() if "held_out" in one]
    if as_json:
        typer.echo(json.dumps({"adapter": str(folder.path), "held_out": measured[-1] if measured else None}))
        return
    console = Console()
    console.print(Text(f"The adapter, its card and its plots are in {clean(str(folder.path))}"), soft_wrap=True)
    if measured:
        before, after = measured[0], measured[-1]
        console.print(
            f"Of {after['sets']} held-out sets right: {before['accuracy']:.3f} before, {after['accuracy']:.3f} now; "
            f"in the form: {before['format_rate']:.3f} before, {after['format_rate']:.3f} now.",
            soft_wrap=True,
        )


def _sft(settings: SFT, course: Course) -> Folder:
    from rankr1_rag.train.sft import sft

    return sft(settings, course)


def _grpo(settings: GRPO, course: Course) -> Folder:
    from rankr1_rag.train.grpo import grpo

    return grpo(settings, course)


_command(SFT, "Learn to name the label, or, with --target naming, the passage first: the start for GRPO.", _sft)
_command(GRPO, "Reinforcement learning: an answer is worth 1 if its form and its label are right, else 0.", _grpo)
