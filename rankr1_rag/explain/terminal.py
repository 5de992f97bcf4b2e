"""Prints a ranking and its tournament on a terminal, with rich.

Works at 80 columns, without colour and through a pipe: words or signs repeat whatever colour says. Everything from a
model, a passage or a query goes through `clean` into a `Text`, which rich never reads as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from rankr1_rag.explain import story
from rankr1_rag.explain.story import NumberedComparison, clean, counted, line, name, start
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
_MOST_ROUNDS = 100
"""Up to this number of rounds the cost of each is shown."""


def show(ranking: Ranking, console: Console, *, top: int | None = None, reasoning: bool = True) -> None:
    """Print the query, the result, every comparison round by round, and the cost.

    `top` is the number of ranks in the result (None: k); `reasoning=False` leaves out the model's reasoning.
    """
    console.print(Text.assemble(("Query", "bold"), (f" {start(ranking.query.id, 60)}".rstrip(), "dim")))
    wish = ranking.query.instruction.strip() and f"\nInstruction: {ranking.query.instruction.strip()}"
    console.print(Padding(Text(clean(f"{ranking.query.text}{wish}") or "(empty)"), (0, 0, 1, 2)))
    console.print(Text(story.lede(ranking)))
    for warning in story.warnings(ranking):
        console.print(Text(f"! {warning}", style="yellow"))
    if ranking.order:
        console.print(Text(), ranking_table(ranking, top), Text(), sep="\n")
    names = [name(ranking, position) for position in range(len(ranking.candidates))]
    for number, members in story.rounds(ranking).items():
        console.print(heading(f"Round {number} · {counted(len(members), 'comparison')}"))
        if context := story.known(ranking, members[0].comparison):
            console.print(Padding(Text(f"known already: {context}"), (0, 0, 1, 4)))
        for asked in members:
            text = comparison_text(ranking, names, asked, reasoning, console)
            console.print(text, no_wrap=True, overflow="ignore", crop=False)
    console.print(heading("Cost"))
    costs = story.round_costs(ranking)
    console.print(cost_table(costs if len(costs) <= _MOST_ROUNDS else {"total": ranking.cost}, ranking.cost))


def heading(title: str) -> Rule:
    """A rule with a title on the left."""
    return Rule(Text(title, style="bold"), align="left", style="dim")


def ranking_table(ranking: Ranking, top: int | None = None) -> Table:
    """The first `top` ranks, or the first k."""
    table = Table(box=SIMPLE_HEAD, padding=_GAP, show_edge=False, expand=True, caption_justify="left")
    is_scored = any(comparison.scores for comparison in ranking.trace)
    for title in ("rank", "first\nstage", "move", "score" if is_scored else "won:\nlost"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("id", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("passage", no_wrap=True, overflow="ellipsis", ratio=1)
    shown = min(len(ranking), ranking.k if top is None else top)
    for rank in range(1, shown + 1):
        here = story.place(ranking, rank)
        why = here.why
        first = "" if here.retrieved else str(here.first)
        plain = [
            str(rank),
            first,
            here.moved,
            f"{why.won}:{why.lost}" if not is_scored else "" if why.score is None else f"{why.score:.2f}",
            "✓" if why.selected else "",
            line(why.passage.id),
        ]
        passage = Text(here.name, style="bold" if why.passage.title else "")
        if why.passage.title:
            passage.append(f"  {start(why.passage.text, 160)}", style="not bold")
        table.add_row(*map(Text, plain), passage, style="" if why.selected else "dim")
    left_out = len(ranking) - shown
    mark = "✓ selected" if ranking.chosen is None else "✓ chosen by the model"
    notes = [*([] if ranking.failure else [mark]), *([f"{left_out:,} more follow"] if left_out else [])]
    table.caption = Text("; ".join(notes), style="dim")
    return table


def cost_table(costs: Mapping[str, Cost], whole: Cost | None = None) -> Table:
    """One line a cost and, below several, one for the total: `whole`, or else the sum.

    Where only the whole was timed, seconds are left blank.
    """
    whole = sum(costs.values(), Cost()) if whole is None else whole
    table = Table(box=SIMPLE_HEAD, padding=_GAP, show_edge=False, show_footer=len(costs) > 1, caption_justify="left")
    table.add_column("", "total", overflow="fold", max_width=24)
    for field, title in _FIGURES.items():
        table.add_column(title, f"{getattr(whole, field):,}", justify="right", no_wrap=True)
    table.add_column("seconds", f"{whole.seconds:,.1f}", justify="right", no_wrap=True)
    for label, cost in costs.items():
        figures = [f"{getattr(cost, field):,}" for field in _FIGURES]
        table.add_row(Text(line(label)), *figures, f"{cost.seconds:,.1f}" if cost.seconds else "")
    caption = f"unparsed {whole.unparsed:,}, forced {whole.forced:,}, clipped {whole.clipped:,}"
    if whole.reasoning_tokens:
        caption += f", reasoning {whole.reasoning_tokens / max(1, whole.comparisons):,.0f} tokens each"
    if whole.lenient:
        caption += f", in another form {whole.lenient:,}"
    table.caption = Text(caption + (f", from the store {whole.stored:,}" if whole.stored else ""))
    return table


def comparison_text(
    ranking: Ranking, names: Sequence[str], asked: NumberedComparison, reasoning: bool, console: Console
) -> Text:
    """The set in shown order under the labels that the model saw, its choice, its reasoning, its tokens.

    The lines are laid out here: rich's tables and columns take ten times as long, and a job may have thousands.
    """
    comparison, number = asked.comparison, f"{asked.number:>2}. "
    width = max(20, console.width - len(number))
    cells = []
    for label, position in enumerate(comparison.set, start=1):
        cells.append(f"{'→' if position == asked.chosen else ' '}{f'[{label}]':>4} {start(names[position], 18)}")
    wide = min(width, max(map(cell_len, cells)))
    in_line = (width + 2) // (wide + 2)
    shown = Text()
    for place, cell in enumerate(cells):
        shown.append("" if place == 0 else "  " if place % in_line else "\n")
        shown.append(set_cell_size(cell, wide), "bold green" if cell[0] == "→" else "")
    choice = Text(f"→ {names[asked.chosen]}", style="bold green" if comparison.parsed else "bold yellow")
    choice.append(f"  {story.origin(ranking, asked.chosen)}", style="not bold dim")
    parts = [shown, choice]
    if asked.odds:
        parts.append(Text(f"most probable labels: {asked.odds}", style="dim"))
    if asked.listing:
        parts.append(Text(f"answered {asked.listing}"))
    if asked.flags:
        parts.append(Text(", ".join(asked.flags), style="yellow"))
    if reasoning and comparison.reasoning.strip():
        parts.append(Text(clean(comparison.reasoning.strip()), style="dim"))
    parts.append(Text(asked.tokens, style="dim italic"))
    lines = [one for part in parts for one in part.wrap(console, width, overflow="fold")]
    whole = Text()
    for place, one in enumerate(lines):
        one.rstrip()
        whole.append(" " * len(number) if place else number, "bold").append_text(one).append("\n")
    return whole


@contextmanager
def query_bar(items: object) -> Iterator[Callable[[Ranking | Exception], None]]:
    """A bar on stderr that counts each result that it is called with, out of the number of items if that is known."""
    comparisons = failed = truncated = 0
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress("queries", *columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(items) if isinstance(items, Sized) else None)

        def count(result: Ranking | Exception) -> None:
            nonlocal comparisons, failed, truncated
            comparisons += len(result.trace) if isinstance(result, Ranking) else 0
            failed += not isinstance(result, Ranking) or result.failure is not None
            truncated += isinstance(result, Ranking) and result.truncated is not None
            text = f"{comparisons:,} comparisons" + (f", {failed:,} failed" if failed else "")
            text += f", {truncated:,} ended early" if truncated else ""
            progress.update(task, advance=1, description=text)

        yield count
