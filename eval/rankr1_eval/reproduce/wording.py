"""A reproduction in words: the cells of its table, its verdict, and the page `reproduction.md`.

Knows values; nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Iterator

from rankr1_eval.reproduce.results import Reproduction, Row

HEADS = ("row", "nDCG@10", "paper", "Δ first stage", "comp.", "tokens", "s")
CAPTION = (
    "nDCG@10 with its 95 % bootstrap interval; the paper's, the difference from it and whether that is within the "
    "tolerance; the difference from the first stage with the p of a paired randomisation test; comparisons, with the "
    "share of unparsed answers; tokens of prompts + completions; seconds. Costs are means a query."
)


def cells(row: Row) -> tuple[str, ...]:
    """The cells under `HEADS`, of several lines each."""
    said = {"within": f"within {row.tolerance}", "outside": f"OUTSIDE {row.tolerance}", "none": ""}[row.verdict]
    return (
        f"{row.system.rpartition('/')[2]}\n{row.collection}, n {row.ndcg.n:,}",
        f"{row.ndcg.mean:.4f}\n{row.ndcg.low:.3f}-{row.ndcg.high:.3f}",
        "-" if row.difference is None else f"{row.expected:.3f}\n{row.difference:+.4f}\n{said}".rstrip(),
        f"{row.change.mean:+.4f}\np {row.change.p:.4f}" if row.change else "",
        *_costs(row),
    )


def _costs(row: Row) -> tuple[str, ...]:
    if not row.cost:
        return ("",) * 3
    return (
        f"{row.cost['comparisons']:.1f}\n{row.cost['unparsed']:.1%}",
        f"{row.cost['prompt_tokens']:,.0f}\n+ {row.cost['completion_tokens']:,.0f}",
        f"{row.cost['seconds']:.1f}",
    )


def verdict(found: Reproduction) -> str:
    """One sentence: within, outside, or why there is no verdict."""
    row = found.rows[-1]
    measured = f"{found.model} on {found.target}: nDCG@10 {row.ndcg.mean:.4f}"
    if row.verdict == "none":
        return f"NO VERDICT: {measured}; {row.reason}."
    beside = (
        f"the paper has {row.expected:.3f}, a difference of {row.difference:+.4f} where ±{row.tolerance} is allowed"
    )
    return f"{row.verdict.upper()} the tolerance: {measured}, {beside}."


def remarks(found: Reproduction) -> list[str]:
    """A sentence each: how this was asked otherwise than the paper did, labels that were forced, and the notes."""
    said = [f"Asked otherwise than the paper: {'; '.join(found.departures)}."] if found.departures else []
    if forced := found.rows[-1].cost.get("forced"):
        said.append(f"{forced:.1%} of the labels had to be forced: there the model came to no answer by itself.")
    return [*said, *found.notes]


def markdown(found: Reproduction) -> str:
    """The page."""
    said = [_escaped(text) for text in [f"**{verdict(found)}**", *remarks(found)]]
    parts = [f"# {found.target}, {found.model}", *said, "\n".join(_table(found))]
    settings = "\n".join(f"* {name}: {value}" for name, value in found.settings.items())
    return "\n\n".join([*parts, CAPTION, "## Settings", settings]) + "\n"


def _table(found: Reproduction) -> Iterator[str]:
    yield f"| {' | '.join(HEADS)} |"
    yield f"|{'---|' * len(HEADS)}"
    for row in found.rows:
        yield f"| {' | '.join(_escaped(cell).replace(chr(10), '<br>') for cell in cells(row))} |"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("`", "'")
