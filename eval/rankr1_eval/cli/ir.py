"""`rankr1-eval ir`: TREC runs scored against qrels, and compared with the first of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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

_COMMA = re.compile(r"[,\s]+(?![^(]*\))")
"""Between measures, and not between the arguments of one, as in P(rel=2,judged_only=True)@5."""


def ir(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="MEASURE", help="Further measures, after --measures.")
    ] = None,
    *,
    run: Annotated[
        list[str], typer.Option(help="TREC run (qid Q0 docid rank score tag); may be repeated, to compare.")
    ],
    qrels: Annotated[str, typer.Option(help="Judgements, TREC's (qid 0 docid rel) or BEIR's.")],
    measures: Annotated[
        list[str] | None,
        typer.Option(help="Names of ir-measures, separated by spaces or commas (default: nDCG@10 R@100 RR@10)."),
    ] = None,
    distances: Annotated[
        bool, typer.Option("--distances", help="Scores of the runs are distances: the least is the best.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Scores as JSON on standard output, each query's too.")
    ] = False,
) -> None:
    """Score TREC runs with trec_eval's rules: means over the judged queries, with 95 % bootstrap intervals.

    The order is by score; equal scores by id, the greater first. A judged query that a run does not rank counts as 0,
    and one without judgements is left out; both are reported. Further runs are compared with the first, with a paired
    randomisation test. "R(rel=2)@100" and the like need quotes.

        rankr1-eval ir --run bm25.trec --run rank-r1.trec --qrels qrels.txt --measures nDCG@10 R@5
    """
    from rich.console import Console

    from rankr1_eval.cli.options import print_if_stale
    from rankr1_eval.measures.ir import DEFAULT, compared, parsed, score_run
    from rankr1_rag.io.trec import read_qrels, read_run

    if more and not measures:
        raise UsageError(f"measure {more[0]!r} needs --measures before it")
    if len(set(run)) < len(run):
        raise UsageError("--run names a file twice: leave one out")
    names = [name for some in (*(measures or ()), *(more or ())) for name in _COMMA.split(some) if name] or DEFAULT
    with arguments():
        parsed(names)  # before files that may be long to read
    judgements = read_qrels(qrels)
    scores = {}
    for folder in dict.fromkeys([Path(qrels).parent, *(Path(path).parent.parent for path in run)]):
        print_if_stale(folder)
    for path in run:
        ranked = read_run(path, distances=distances)
        with arguments(), within(path):
            scores[path] = score_run(ranked, judgements, names)
    first = scores[run[0]]
    differences = {path: compared(other, first) if other is not first else {} for path, other in scores.items()}
    if not as_json:
        _print(Console(), scores, differences)
        return
    runs = []
    for path, found in scores.items():
        queries = list(next(iter(found.each.values())))
        figures = {
            "measures": {name: one.mean for name, one in found.estimates.items()},
            "intervals": {name: [one.low, one.high] for name, one in found.estimates.items()},
            "queries": len(queries),
            "each": {query: {name: values[query] for name, values in found.each.items()} for query in queries},
            "not_judged": found.not_judged,
            "not_ranked": found.not_ranked,
        }
        apart = {name: asdict(one) for name, one in differences[path].items()}
        runs.append(figures if len(run) == 1 else {"run": path, **figures, "differences": apart})
    typer.echo(json.dumps(runs[0] if len(run) == 1 else {"runs": runs}))


def _print(
    console: Console, scores: Mapping[str, RunScores], differences: Mapping[str, Mapping[str, Difference]]
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from rankr1_rag.explain import clean

    first = next(iter(scores.values()))
    several = len(scores) > 1
    caption = "Means, 95 % bootstrap intervals" + ("; p of a randomisation test." if several else ".")
    title = f"{len(next(iter(first.each.values()))):,} judged queries"
    table = Table(box=box.SIMPLE_HEAD, title=title, caption=caption)
    table.add_column("measure")
    for head in [*(["run"] if several else []), "mean", "interval", *(["change", "interval", "p"] if several else [])]:
        table.add_column(head, justify="left" if head == "run" else "right", overflow="fold")
    short = {path: Path(path).name for path in scores}
    shown = short if len(set(short.values())) == len(scores) else {path: path for path in scores}
    for name in first.estimates:
        for path, found in scores.items():
            one = found.estimates[name]
            cells = [Text(clean(shown[path]))] if several else []
            cells += [Text(f"{one.mean:.4f}"), Text(f"{one.low:.3f}-{one.high:.3f}")]
            if apart := differences[path].get(name):
                change = f"{apart.mean:+.4f}", f"{apart.low:+.3f} to {apart.high:+.3f}", f"{apart.p:.4f}"
                cells += map(Text, change)
            table.add_row(name, *cells)
    console.print(table)
    for path, found in scores.items():
        for what, ids in (("judged but not ranked, scored 0", found.not_ranked), ("not judged", found.not_judged)):
            if ids:
                some = ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
                console.print(Text(clean(f"{path}: {len(ids):,} {what}: {some}"), style="yellow"))
