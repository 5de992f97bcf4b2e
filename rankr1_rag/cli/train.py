"""`rankr1 train sft` and `rankr1 train grpo`: train a LoRA adapter from relevance labels.

The options are the fields of `train.config`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import StrEnum
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.text import Text

from rankr1_rag.cli.options import arguments
from rankr1_rag.cli.report import bar
from rankr1_rag.explain import clean
from rankr1_rag.train.config import GRPO, SFT, Training
from rankr1_rag.train.run_dir import RunDir, is_main

_SHOWN = ("loss", "reward", "accuracy", "format_rate")


class TrainingProgress:
    """A bar on a terminal, else a line per evaluation. Call it with the step, the number of steps, and a log line."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._progress = bar(console, "figures")
        self._task = self._progress.add_task(title, total=None, figures="loading")

    def __call__(self, step: int, steps: int, line: Mapping[str, Any]) -> None:
        """Show a log line."""
        if held := line.get("held_out"):
            self._console.print(
                f"step {step} of {steps}: {held['sets']} held-out sets, {held['accuracy']:.3f} right, "
                f"{held['format_rate']:.3f} in the right format"
            )
        figures = ", ".join(f"{name.replace('_', ' ')} {line[name]:.3f}" for name in _SHOWN if name in line)
        if figures:
            self._progress.update(self._task, completed=step, total=steps, figures=figures)
            if not self._console.is_terminal:
                self._console.print(f"step {step} of {steps}: {figures}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()


S = TypeVar("S", bound=Training)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train a LoRA adapter for reranking from relevance labels."
)


def _command(kind: type[S], help: str, begin: Callable[[S, TrainingProgress], RunDir]) -> None:
    """Add a command whose options are the fields of a dataclass of settings."""

    def command(as_json: bool, **options: Any) -> None:  # noqa: ANN401
        console = Console(stderr=True, quiet=not is_main())
        with arguments():
            settings = kind(**{name: _plain(value) for name, value in options.items()})
        with TrainingProgress(console, kind.__name__) as progress, arguments():
            folder = begin(settings, progress)
        if is_main():
            print_result(folder, as_json)

    parameters = [_option(kind, field.name) for field in fields(kind)]
    as_json = inspect.Parameter(
        "as_json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="Print the result as JSON.")],
    )
    command.__signature__ = inspect.Signature([*parameters, as_json])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*parameters, as_json)}
    app.command(kind.__name__.lower(), help=help, no_args_is_help=True)(command)


def _option(kind: type[Training], name: str) -> inspect.Parameter:
    """One field as an option; its text is the help."""
    hint, help, panel = get_args(get_type_hints(kind, include_extras=True)[name])
    field = next(field for field in fields(kind) if field.name == name)
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    default = [] if default == () else default
    option = typer.Option(help=help, rich_help_panel=panel, show_default=True)
    annotation: Any = Annotated.__class_getitem__((_spelled(name, hint), option))  # type: ignore[attr-defined]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _spelled(name: str, hint: Any) -> Any:  # noqa: ANN401
    """The type for the command line: lists for tuples, an enumeration for a choice."""
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


def print_result(folder: RunDir, as_json: bool) -> None:
    """Print where the adapter is, and the first and last scores on held-out sets."""
    measured = [one["held_out"] for one in folder.records() if "held_out" in one]
    if as_json:
        typer.echo(json.dumps({"adapter": str(folder.path), "held_out": measured[-1] if measured else None}))
        return
    console = Console()
    console.print(Text(f"The adapter, its card and its plots are in {clean(str(folder.path))}"), soft_wrap=True)
    if measured:
        before, after = measured[0], measured[-1]
        console.print(
            f"{after['sets']} held-out sets: right {before['accuracy']:.3f} before, {after['accuracy']:.3f} after; "
            f"right format {before['format_rate']:.3f} before, {after['format_rate']:.3f} after.",
            soft_wrap=True,
        )


def _sft(settings: SFT, progress: TrainingProgress) -> RunDir:
    from rankr1_rag.train.sft import sft

    return sft(settings, progress)


def _grpo(settings: GRPO, progress: TrainingProgress) -> RunDir:
    from rankr1_rag.train.grpo import grpo

    return grpo(settings, progress)


_command(SFT, "Supervised training: the label, or with --target naming the passage first (the start for GRPO).", _sft)
_command(GRPO, "Reinforcement learning: an answer earns 1 if its format and its label are right, else 0.", _grpo)
