"""`rankr1 models`: the models whose prompt and settings are known, and which of them fit a GPU."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_rag.checkpoints import CHECKPOINTS

SHARE = 0.8
"""Part of a GPU's memory that weights may take: vLLM uses 0.9 of it, and prompts need the rest."""

NOTE = (
    "Figures are those of the authors, over first stages that differ: they do not order the models. Memory is that of "
    "the weights in bfloat16. A licence that is not listed was not found with the weights."
)


def models(
    *,
    gpu: Annotated[float | None, typer.Option(min=1, help="Memory of a GPU in GiB: list only models that fit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The list as JSON.")] = False,
) -> None:
    """List the models that need no options: prompt format, set size and reasoning budget follow from the name.

    A model fits a GPU if its weights in bfloat16 take at most 80 % of the memory.
    """
    known = [one for one in CHECKPOINTS.values() if gpu is None or one.memory <= SHARE * gpu]
    if as_json:
        rows = [
            {
                "model": one.name,
                "base": one.base,
                "adapter": one.adapter,
                "format": one.format.name,
                "kind": one.format.kind,
                "size": one.size,
                "step": one.step,
                "reasoning_tokens": one.reasoning_tokens if one.format.reasoning else 0,
                "memory_gib": round(one.memory, 1) or None,
                "licence": one.licence or None,
                "figures": one.figures or None,
            }
            for one in known
        ]
        typer.echo(json.dumps(rows))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model, licence, figures")
    table.add_column("kind", no_wrap=True)
    for name in ("size", "reasoning", "GiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in known:
        reasoning = f"{one.reasoning_tokens:,}" if one.format.reasoning and one.reasoning_tokens else ""
        memory = f"{one.memory:.1f}" if one.memory else ""
        details = "; ".join(filter(None, (one.licence, one.figures)))
        named = Text.assemble(one.name, (f"\n  {details}" if details else "", "dim"))
        table.add_row(named, one.format.kind, str(one.size), reasoning, memory)
    console = Console()
    console.print(table)
    console.print(Text(NOTE, style="dim"))
