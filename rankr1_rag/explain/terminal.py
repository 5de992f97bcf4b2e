"""A ranking and its tournament on a terminal, by rich.

Works at 80 columns, without colour and through a pipe: what colour says, words or signs say too. Everything that came
from a model, a passage or a query goes through `clean` into a `Text`, which rich never reads as markup.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rankr1_rag.explain.story import Asked, Place, known, lede, name, origin, places, round_costs, rounds, warnings
from rankr1_rag.explain.text import clean, counted, line, start
from rankr1_rag.types import Cost, Ranking

_FIGURES = {
    "comparisons": "com-\nparisons",
    "rounds": "rounds",
    "passages_read": "passages\nread",
    "prompt_tokens": "prompt\ntokens",
    "cached_tokens": "of them\ncached",
    "completion_tokens": "comple-\ntion",
}
_GAP = (0, 1, 0, 0)


def show(ranking: Ranking, console: Console, *, top: int | None = None, thoughts: bool = True) -> None:
    """Print the query, the result, every comparison round by round, and the cost.

    `top` is how many ranks the result has (None: k); `thoughts=False` leaves out the model's reasoning.
    """
    console.print(_heading(ranking))
    if ranking.order:
        console.print(Text(), ranking_table(ranking, top), Text(), sep="\n")
    for number, members in rounds(ranking).items():
        console.print(_rule(number, members))
        if beside := known(ranking, members[0].comparison):
            console.print(Padding(Text(f"known already: {beside}"), (0, 0, 1, 4)))
        for asked in members:
            console.print(_asked(ranking, asked, thoughts))
    console.print(Rule(Text("Cost", style="bold"), align="left", style="dim"))
    console.print(cost_table(round_costs(ranking), ranking.cost))


def ranking_table(ranking: Ranking, top: int | None = None) -> Table:
    """The first `top` ranks, or the first k."""
    table = Table(box=SIMPLE_HEAD, padding=_GAP, show_edge=False, expand=True)
    for heading in ("rank", "first\nstage", "move", "won:\nlost"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("id", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("passage", no_wrap=True, overflow="ellipsis", ratio=1)
    everyone = places(ranking)
    shown = everyone[: ranking.k if top is None else top]
    for place in shown:
        table.add_row(*_cells(place))
    left_out = len(everyone) - len(shown)
    legend = "✓ selected" + (f"; {left_out:,} more follow" if left_out else "")
    table.caption = Text(legend, style="dim")
    table.caption_justify = "left"
    return table


def cost_table(costs: Mapping[str, Cost], whole: Cost | None = None) -> Table:
    """One line a cost and, below several, one for the total: `whole`, or else the sum.

    Where only the whole was timed, seconds are left blank.
    """
    whole = sum(costs.values(), Cost()) if whole is None else whole
    table = Table(box=SIMPLE_HEAD, padding=_GAP, show_edge=False, show_footer=len(costs) > 1)
    table.add_column("", "total", overflow="fold", max_width=24)
    for field, heading in _FIGURES.items():
        table.add_column(heading, f"{getattr(whole, field):,}", justify="right", no_wrap=True)
    table.add_column("seconds", f"{whole.seconds:,.1f}", justify="right", no_wrap=True)
    for label, cost in costs.items():
        figures = [f"{getattr(cost, field):,}" for field in _FIGURES]
        table.add_row(Text(line(label)), *figures, f"{cost.seconds:,.1f}" if cost.seconds else "")
    stored = f", from the store {whole.stored:,}" if whole.stored else ""
    thought = (
        f", thought {whole.reasoning_tokens / whole.comparisons:,.0f} tokens each" if whole.reasoning_tokens else ""
    )
    counts = f"unparsed {whole.unparsed:,}, forced {whole.forced:,}, clipped {whole.clipped:,}"
    table.caption = Text(f"{counts}{thought}{stored}")
    table.caption_justify = "left"
    return table


def _heading(ranking: Ranking) -> RenderableType:
    head = Text("Query", style="bold")
    if ranking.query.id:
        head.append(f" {start(ranking.query.id, 60)}", style="dim")
    query = Padding(Text(clean(ranking.query.text) or "(empty)"), (0, 0, 0, 2))
    marks = [Text(f"! {warning}", style="yellow") for warning in warnings(ranking)]
    return Group(head, query, Text(), Text(lede(ranking)), *marks)


def _cells(place: Place) -> list[Text]:
    why = place.why
    style = "" if why.selected else "dim"
    passage = Text(place.name, style="bold" if why.passage.title else "")
    if why.passage.title:
        passage.append(f"  {start(why.passage.text, 160)}", style="not bold")
    first = "" if place.found else str(place.first)
    plain = [str(why.rank), first, place.moved, f"{why.won}:{why.lost}", "✓" if why.selected else ""]
    cells = [*map(Text, plain), Text(line(why.passage.id)), passage]
    for cell in cells:
        cell.stylize_before(style)
    return cells


def _rule(number: int, members: list[Asked]) -> Rule:
    title = f"Round {number} · {counted(len(members), 'comparison')}"
    return Rule(Text(title, style="bold"), align="left", style="dim")


def _asked(ranking: Ranking, asked: Asked, thoughts: bool) -> RenderableType:
    """The set in shown order under the labels that the model saw, its choice, its thought, its price."""
    comparison = asked.comparison
    choice = Text(f"→ {name(ranking, asked.chosen)}", style="bold green" if comparison.parsed else "bold yellow")
    choice.append(f"  {origin(ranking, asked.chosen)}", style="not bold dim")
    parts: list[RenderableType] = [_set(ranking, asked), choice]
    if asked.odds:
        parts.append(Text(f"most probable labels: {asked.odds}", style="dim"))
    if asked.listing:
        parts.append(Text(f"answered {asked.listing}"))
    if asked.flags:
        parts.append(Text(", ".join(asked.flags), style="yellow"))
    if thoughts and comparison.reasoning.strip():
        parts.append(Text(clean(comparison.reasoning.strip()), style="dim"))
    parts.append(Text(asked.tokens, style="dim italic"))
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(justify="right", min_width=3)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_row(Text(f"{asked.number}.", style="bold"), Group(*parts))
    return Padding(grid, (0, 0, 1, 0))


def _set(ranking: Ranking, asked: Asked) -> Columns:
    shown = []
    for label, position in enumerate(asked.comparison.set, start=1):
        mark, style = ("→", "bold green") if position == asked.chosen else (" ", "")
        shown.append(Text(f"{mark}{f'[{label}]':>4} {start(name(ranking, position), 18)}", style=style, no_wrap=True))
    return Columns(shown, padding=(0, 1))
