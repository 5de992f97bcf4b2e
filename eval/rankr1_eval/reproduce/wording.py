"""A reproduction in words: the cells of its table, its verdict, and the page `reproduction.md`.

Knows values; nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Iterator

from rankr1_eval.reproduce.results import Reproduction, Row

HEADS = (
    "collection",
    "row",
    "queries",
    "nDCG@10",
    "paper",
    "verdict",
    "Δ first stage",
    "comp.",
    "unparsed",
    "tokens",
    "s",
)
CAPTION = (
    "Under each nDCG@10 its 95 % bootstrap interval, under the paper's how far this is from it, under the difference from "
    "the first stage the p of a paired randomisation test. Comparisons, tokens (prompt + completion) and seconds are means "
    "a query, unparsed is the share of the comparisons."
)


def cells(row: Row) -> tuple[str, ...]:
    """The cells under `HEADS`; some have a second line."""
    return (
        row.collection,
        row.system,
        f"{row.ndcg.n:,}",
        f"{row.ndcg.mean:.4f}\n{row.ndcg.low:.3f}-{row.ndcg.high:.3f}",
        "-" if row.difference is None else f"{row.expected:.3f}\n{row.difference:+.4f}",
        {"within": f"within\n±{row.tolerance}", "outside": f"OUTSIDE\n±{row.tolerance}", "none": "-"}[row.verdict],
        f"{row.change.mean:+.4f}\np {row.change.p:.4f}" if row.change else "",
        *_costs(row),
    )


def _costs(row: Row) -> tuple[str, ...]:
    if not row.cost:
        return ("",) * 4
    tokens = f"{row.cost['prompt_tokens']:,.0f}\n+ {row.cost['completion_tokens']:,.0f}"
    return f"{row.cost['comparisons']:.1f}", f"{row.cost['unparsed']:.1%}", tokens, f"{row.cost['seconds']:.1f}"


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


def departed(found: Reproduction) -> str:
    """One sentence of how this was asked otherwise than the paper did, "" where it was not."""
    return f"Asked otherwise than the paper: {'; '.join(found.departures)}." if found.departures else ""


def markdown(found: Reproduction) -> str:
    """The page."""
    said = [f"**{verdict(found)}**", departed(found), *found.notes]
    parts = [f"# {found.target}, {found.model}", *(_escaped(text) for text in said if text), "\n".join(_table(found))]
    settings = "\n".join(f"* {name}: {value}" for name, value in found.settings.items())
    return "\n\n".join([*parts, CAPTION, "## Settings", settings]) + "\n"


def _table(found: Reproduction) -> Iterator[str]:
    yield f"| {' | '.join(HEADS)} |"
    yield f"|{'---|' * len(HEADS)}"
    for row in found.rows:
        yield f"| {' | '.join(_escaped(cell).replace(chr(10), '<br>') for cell in cells(row))} |"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("`", "'")
