"""`rankr1 demo`: reranks a small multi-hop corpus and prints gains and losses."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankr1_rag import demo as corpus
from rankr1_rag.checkpoints import BASE, EMBEDDED
from rankr1_rag.cli.options import CommandSettings, UsageError, arguments, with_hyphens
from rankr1_rag.cli.report import Job
from rankr1_rag.explain import PAGE, clean, cost_table, show, write_page
from rankr1_rag.explain.story import counted
from rankr1_rag.io.collection import as_passage, parse_object
from rankr1_rag.io.files import check_output, is_stream, located, numbered_lines
from rankr1_rag.io.jsonl import ranking_to_json
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Cost, Passage, Query, Ranking

SHOWN = 15
"""Questions of the corpus that the demo asks, the first ones: all of them take some minutes on two cores."""


@dataclass(frozen=True, slots=True)
class RerankedQuestion:
    """A question with its candidates before and after reranking."""

    question: corpus.DemoQuestion
    before: tuple[Passage, ...]
    ranking: Ranking

    def ranks(self, passages: Sequence[Passage]) -> list[int | None]:
        """The rank of each support, None if the first stage missed it."""
        ids = [passage.id for passage in passages]
        return [ids.index(support) + 1 if support in ids else None for support in self.question.supports]

    def gain(self, k: int) -> float:
        """Support recall@k after minus before."""
        return self.question.recall(self.ranking.passages, k) - self.question.recall(self.before, k)


def demo(
    *,
    settings: CommandSettings,
    ask: Annotated[str | None, typer.Option(help="A question of your own, in place of the 15.")] = None,
    passages: Annotated[
        str | None, typer.Option(help="Its passages: JSON lines, or plain texts, one a line (default: the demo's).")
    ] = None,
    html: Annotated[str | None, typer.Option(help="Path for a page about the question that changed most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures, or the ranking of --ask, as JSON.")] = False,
) -> None:
    """Rerank the BM25 top 20 of 15 multi-hop questions and print the result. It needs no arguments.

    With --base-url … it does the same with a model on a server. With --ask "…" --passages FILE it finds and reranks
    passages of your own, and shows why.
    """
    settings.check_files([html, "-" if as_json else None], [passages])
    check_output(html, PAGE)
    console = Console()
    if ask is not None:
        _ask(ask, passages, settings, html, as_json, console)
        return
    if passages is not None:
        raise UsageError("--passages needs --ask, the question about them")
    if not (as_json or console.is_terminal):  # there is no progress bar
        patience = "; with the embedded model this takes a minute or two" if settings.kind == "openvino" else ""
        console.print(f"Reranking the BM25 top 20 of 15 questions{patience} ...")
    job = Job(Console(stderr=True), len(corpus.questions()[:SHOWN]))
    with settings.reranker(job) as reranker:
        started = time.monotonic()
        answered = _answered(reranker, job)
        seconds = time.monotonic() - started
        try:
            if html is not None:
                write_page(max(answered, key=lambda one: abs(one.gain(settings.top))).ranking, html)
        finally:  # the answers may have cost something
            if as_json:
                typer.echo(json.dumps(_figures(answered, settings.top, seconds)))
            else:
                _print(console, answered, settings, seconds)
        if html is not None and not (as_json or is_stream(html)):
            console.print(Text(f"\nThe comparisons of one question: {clean(html)}"))


def _ask(
    text: str, path: str | None, settings: CommandSettings, html: str | None, as_json: bool, console: Console
) -> None:
    """Show how the passages of a file that BM25 finds for a question are reranked."""
    with arguments():
        pool = corpus.passages() if path is None else read_own(path)
        (found,) = corpus.first_stage([corpus.DemoQuestion(Query("", text), "", (), "")], pool)
    job = Job(Console(stderr=True), 1)
    with settings.reranker(job) as reranker:
        job.expect(reranker, len(found))
        with job, arguments(with_hyphens):
            ranking = reranker.rank(text, found)
        if html is not None:
            write_page(ranking, html)
        if as_json:
            typer.echo(json.dumps(ranking_to_json(ranking)))
        elif html is None:
            show(ranking, console)
        elif not is_stream(html):
            console.print(Text(clean(html)))


def read_own(path: str) -> list[Passage]:
    """The passages of a file: objects as JSON lines, or plain texts, one a line. FileError for a wrong line."""
    found = []
    for number, line in numbered_lines(path):
        record = located(path, number, parse_object, line) if line.lstrip().startswith("{") else line
        found.append(located(path, number, as_passage, record, str(number)))
    return found


def _answered(reranker: Reranker, job: Job) -> list[RerankedQuestion]:
    with arguments():  # the first stage may not be installed
        asked = corpus.questions()[:SHOWN]
        found = corpus.first_stage(asked, corpus.passages())
    rankings: dict[int, Ranking] = {}
    job.expect(reranker, len(found[0]))
    with job:
        for index, outcome in reranker.rank_many((q.query, best) for q, best in zip(asked, found, strict=True)):
            if isinstance(outcome, Exception):
                with arguments(with_hyphens):  # some faults depend on the query, like a context too small for it
                    raise outcome
            rankings[index] = outcome
            job.advance(outcome.cost.comparisons)
    return [RerankedQuestion(question, found[index], rankings[index]) for index, question in enumerate(asked)]


def _figures(answered: Sequence[RerankedQuestion], k: int, seconds: float) -> dict[str, Any]:
    n = len(answered)
    return {
        "k": k,
        "support_recall_before": sum(one.question.recall(one.before, k) for one in answered) / n,
        "support_recall_after": sum(one.question.recall(one.ranking.passages, k) for one in answered) / n,
        "better": sum(one.gain(k) > 0 for one in answered),
        "worse": sum(one.gain(k) < 0 for one in answered),
        "questions": n,
        "seconds": seconds,
        "cost": asdict(sum((one.ranking.cost for one in answered), Cost())),
    }


def _print(console: Console, answered: Sequence[RerankedQuestion], settings: CommandSettings, seconds: float) -> None:
    k = settings.top
    console.print(_table(answered, k))
    for title, one in (
        ("The greatest gain", max(answered, key=lambda one: one.gain(k))),
        ("The greatest loss", min(answered, key=lambda one: one.gain(k))),
    ):
        if one.gain(k):
            why = one.ranking.explain(1)
            asked = f"{one.question.query.text} (answer: {one.question.answer})"
            console.print(Text.assemble((f"\n{title}: ", "bold"), clean(asked)))
            console.print(Text(clean(f"Now first: {why.passage.title!r}. The reasoning of its last comparison:")))
            console.print(Text(" ".join(clean(why.reasoning).split()) or "(no reasoning)", style="dim italic"))
    cost = sum((one.ranking.cost for one in answered), Cost())
    console.print()
    console.print(cost_table({f"{len(answered)} questions": replace(cost, seconds=seconds)}))
    if cost.forced:
        text = f"{cost.forced:,} of {cost.comparisons:,} answers were forced: the model gave none by itself, "
        console.print(Text(text + "so its reasoning may not explain them.", style="yellow"))
    figures = _figures(answered, k, seconds)
    before, after = figures["support_recall_before"], figures["support_recall_after"]
    console.print(
        Text.assemble(
            ("Support recall", "bold"),
            f"@{k}: BM25 {before:.3f}, reranked ",
            (f"{after:.3f}", "green" if after > before else "red" if after < before else "yellow"),
            f"; {counted(figures['better'], 'question')} better, {figures['worse']} worse",
        )
    )
    if settings.kind == "openvino" and settings.model in (None, EMBEDDED, BASE):
        trained = "never trained to rerank" if settings.model == BASE else "trained on two CPU cores"
        console.print(
            Text(
                f"\n{settings.model or EMBEDDED} runs on any machine: it has 135 million parameters and was {trained}. "
                "The figures above are its own. For a model that reasons, serve a Rank-R1 checkpoint and run\n"
                "  rankr1 demo --base-url http://HOST:8000/v1 --server vllm --model MODEL",
                style="yellow",
            )
        )


def _table(answered: Sequence[RerankedQuestion], k: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"Ranks of the two supports among 20 (- not found), gain in recall@{k}")
    table.add_column("question", ratio=1)
    for name in ("BM25", "reranked", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in answered:
        gain = one.gain(k)
        style = "green" if gain > 0 else "red" if gain < 0 else "dim"
        ranks = [
            ", ".join("-" if rank is None else str(rank) for rank in one.ranks(passages))
            for passages in (one.before, one.ranking.passages)
        ]
        table.add_row(Text(clean(one.question.query.text)), *ranks, Text(f"{gain:+.0%}" if gain else "=", style=style))
    return table
