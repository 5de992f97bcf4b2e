"""`rankr1-eval ir`: TREC runs scored against qrels, and compared with the first of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankr1_rag.cli.options import UsageError, arguments
from rankr1_rag.io.collection import within

if TYPE_CHECKING:
    from rich.console import Console

    from rankr1_eval.measures.ir import RunScores
    from rankr1_eval.types import Difference
    from rankr1_rag.io.trec import Qrels

_COMMA = re.compile(r"[,\s]+(?![^(]*\))")
"""Between measures, and not between the arguments of one, as in P(rel=2,judged_only=True)@5."""


def ir(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="MEASURE", help="More measures, behind --measures.")
    ] = None,
    *,
    run: Annotated[
        list[str], typer.Option(help="A TREC run (qid Q0 docid rank score tag); again for another to compare.")
    ],
    qrels: Annotated[str, typer.Option(help="The judgements (qid 0 docid rel).")],
    measures: Annotated[
        list[str] | None,
        typer.Option(help="Names of ir-measures, by spaces or commas: nDCG@10 R@100 RR@10 by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON, each query's too.")] = False,
) -> None:
    """Score TREC runs with trec_eval's rules: means over the judged queries, with 95 % bootstrap intervals.

    The order is by score; equal scores by id, the greater first. A judged query that a run does not rank counts as 0,
    and one without judgements is left out; both are told. Further runs are compared with the first, with a paired
    randomisation test. "R(rel=2)@100" and the like need quotes.

        rankr1-eval ir --run bm25.trec --run rank-r1.trec --qrels qrels.txt --measures nDCG@10 R@5
    """
    from rich.console import Console

    from rankr1_eval.measures.ir import DEFAULT, compared, parsed
    from rankr1_rag.io.trec import read_qrels

    if more and not measures:
        raise UsageError(f"{more[0]!r} stands alone: --measures comes before measures")
    if len(set(run)) < len(run):
        raise UsageError("--run: one file is given twice")
    names = [name for given in (*(measures or ()), *(more or ())) for name in _COMMA.split(given) if name] or DEFAULT
    with arguments():
        parsed(names)  # before files that may be long to read
    judgements = read_qrels(qrels)
    scores = {path: _scored(path, judgements, names) for path in run}
    first, *others = scores.values()
    differences = [{}, *(compared(other, first) for other in others)]
    if as_json:
        typer.echo(json.dumps(_all_figures(scores, differences)))
    else:
        _tell(Console(), scores, differences)


def _scored(path: str, judgements: Qrels, names: Sequence[str]) -> RunScores:
    from rankr1_eval.measures.ir import score_run
    from rankr1_rag.io.trec import read_run

    run = read_run(path)
    with arguments(), within(path):
        return score_run(run, judgements, names)


def _all_figures(scores: Mapping[str, RunScores], differences: Iterable[Mapping[str, Difference]]) -> dict[str, object]:
    """Of one run its figures; of several a list of them, with what differs from the first."""
    if len(scores) == 1:
        return _figures(next(iter(scores.values())))
    pairs = zip(scores.items(), differences, strict=True)
    return {
        "runs": [
            {"run": path, **_figures(found), "differences": {name: asdict(one) for name, one in apart.items()}}
            for (path, found), apart in pairs
        ]
    }


def _figures(scores: RunScores) -> dict[str, object]:
    queries = list(next(iter(scores.each.values())))
    return {
        "measures": {name: found.mean for name, found in scores.estimates.items()},
        "intervals": {name: [found.low, found.high] for name, found in scores.estimates.items()},
        "queries": len(queries),
        "each": {query: {name: values[query] for name, values in scores.each.items()} for query in queries},
        "not_judged": scores.not_judged,
        "not_ranked": scores.not_ranked,
    }


def _tell(console: Console, scores: Mapping[str, RunScores], differences: Iterable[Mapping[str, Difference]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from rankr1_rag.explain import clean

    queries = len(next(iter(next(iter(scores.values())).each.values())))
    title = f"{queries:,} judged queries"
    several = len(scores) > 1
    caption = "Means, 95 % bootstrap intervals" + ("; p of a randomisation test." if several else ".")
    table = Table(box=box.SIMPLE_HEAD, title=title, caption=caption)
    table.add_column("measure")
    for head in [*(["run"] if several else []), "mean", "interval", *(["change", "interval", "p"] if several else [])]:
        table.add_column(head, justify="left" if head == "run" else "right", overflow="fold")
    apart = dict(zip(scores, differences, strict=True))
    shown = _names(list(scores))
    for name in next(iter(scores.values())).estimates:
        for path, found in scores.items():
            one = found.estimates[name]
            cells = [Text(clean(shown[path]))] if several else []
            table.add_row(
                name, *cells, f"{one.mean:.4f}", f"{one.low:.3f}-{one.high:.3f}", *_change(apart[path].get(name))
            )
    console.print(table)
    for path, found in scores.items():
        for what, ids in (("judged but not ranked, scored 0", found.not_ranked), ("not judged", found.not_judged)):
            if ids:
                some = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
                console.print(Text(clean(f"{path}: {len(ids):,} {what}: {some}"), style="yellow"))


def _names(paths: Sequence[str]) -> dict[str, str]:
    """What to call the runs: their files' names, where those differ."""
    short = {path: Path(path).name for path in paths}
    return short if len(set(short.values())) == len(paths) else {path: path for path in paths}


def _change(difference: Difference | None) -> list[str]:
    if difference is None:
        return []
    return [f"{difference.mean:+.4f}", f"{difference.low:+.3f} to {difference.high:+.3f}", f"{difference.p:.4f}"]
