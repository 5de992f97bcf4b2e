"""`rankr1 demo`: reranks a small multi-hop corpus, reads the answers, and prints gains and losses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from textwrap import shorten
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
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.explain import PAGE, clean, cost_table, show, write_page
from rankr1_rag.explain.story import counted
from rankr1_rag.io.collection import as_passage, parse_object
from rankr1_rag.io.files import check_output, is_stream, located, numbered_lines
from rankr1_rag.io.jsonl import ranking_to_json
from rankr1_rag.reader import Reader, normalised
from rankr1_rag.reranker import Reranker
from rankr1_rag.settings import TOP_N
from rankr1_rag.types import Cost, Passage, Ranking

HOPS, K, CANDIDATES, FOUND = 2, 2, 8, 4
"""Hops of the demo, passages selected, BM25's first ones, and the most that the search between the hops adds.

The best system of the study (docs/hops.md), smaller, so that reranking takes at most 90 seconds on two cores. Chosen by
counts of tokens alone (bench/demo_tokens.py), not by results.
"""


@dataclass(frozen=True, slots=True)
class RerankedQuestion:
    """A question with its candidates before and after reranking, and the answers read from the first k of each."""

    question: corpus.DemoQuestion
    before: tuple[Passage, ...]
    ranking: Ranking
    answers: tuple[str, str]

    def ranks(self, passages: Sequence[Passage]) -> list[int | None]:
        """The rank of each support, None if it is not there."""
        ids = [passage.id for passage in passages]
        return [ids.index(support) + 1 if support in ids else None for support in self.question.supports]

    def gain(self, k: int) -> float:
        """Support recall@k after minus before."""
        return self.question.recall(self.ranking.passages, k) - self.question.recall(self.before, k)

    @property
    def right(self) -> tuple[bool, bool]:
        """Whether each answer is the expected one, up to case, articles and punctuation."""
        before, after = (normalised(answer) == normalised(self.question.answer) for answer in self.answers)
        return before, after


def demo(
    *,
    settings: CommandSettings,
    ask: Annotated[str | None, typer.Option(help="A question of your own, in place of the demo's.")] = None,
    passages: Annotated[
        str | None, typer.Option(help="Its passages: JSON lines, or plain texts, one a line (default: the demo's).")
    ] = None,
    html: Annotated[str | None, typer.Option(help="Path for a page about the question that changed most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures, or the ranking of --ask, as JSON.")] = False,
) -> None:
    """Rerank BM25's first 8 of some questions of two hops, read the answers, and print the result. Needs no arguments.

    Reranked in two hops: for the second, more passages are found with the first one selected. With --base-url … it
    does the same with a model on a server. With --ask "…" --passages FILE it finds and reranks passages of your own,
    and shows why.
    """
    settings.check_files([html, "-" if as_json else None], [passages])
    check_output(html, PAGE)
    console = Console()
    if ask is not None:
        _ask(ask, passages, settings, html, as_json, console)
        return
    if passages is not None:
        raise UsageError("--passages needs --ask, the question about them")
    asked = [question for question in corpus.questions() if len(question.supports) == HOPS]
    if not (as_json or console.is_terminal):  # there is no progress bar
        patience = "; with the embedded model this takes about a minute" if settings.kind == "openvino" else ""
        console.print(f"Reranking BM25's first {CANDIDATES} of {len(asked)} questions{patience} ...")
    job = Job(Console(stderr=True), len(asked))
    with settings.reranker(job) as reranker, settings.reader(reranker, job) as reader:
        with job:
            started = time.monotonic()
            found, rankings = _reranked(asked, reranker, job)
            seconds = time.monotonic() - started
            job.begin("answers", 2 * len(asked))
            orders = [*found, *(ranking.passages for ranking in rankings)]
            texts = [question.query.text for question in asked * 2]
            firsts = [(text, order[: settings.top]) for text, order in zip(texts, orders, strict=True)]
            answers = private_loop().call(_read(reader, firsts, job))
        pairs = zip(answers[: len(asked)], answers[len(asked) :], strict=True)
        answered = [RerankedQuestion(*one) for one in zip(asked, found, rankings, pairs, strict=True)]
        figures = _figures(answered, settings.top, seconds) | {"reader": reader.backend.model}
        try:
            if html is not None:
                write_page(max(answered, key=lambda one: abs(one.gain(settings.top))).ranking, html)
        finally:  # the answers may have cost something
            if as_json:
                typer.echo(json.dumps(figures))
            else:
                _print(console, answered, settings, figures)
        if html is not None and not (as_json or is_stream(html)):
            console.print(Text(f"\nThe comparisons of one question: {clean(html)}"))


def _ask(
    text: str, path: str | None, settings: CommandSettings, html: str | None, as_json: bool, console: Console
) -> None:
    """Show how the passages of a file that BM25 finds for a question are reranked, and the answer read from them."""
    with arguments():
        first_stage = corpus.BM25(corpus.passages() if path is None else read_own(path))
        found = first_stage.search(text)
    job = Job(Console(stderr=True), 1)
    with settings.reranker(job) as reranker, settings.reader(reranker, job) as reader:
        job.expect(reranker, len(found))
        with job, arguments(with_hyphens):
            ranking = reranker.rank(text, found, retrieve=first_stage.search if settings.hops > 1 else None)
            (answer,) = private_loop().call(_read(reader, [(text, ranking.passages[: settings.top])]))
        if html is not None:
            write_page(ranking, html)
        if as_json:
            typer.echo(json.dumps(ranking_to_json(ranking) | {"answer": answer}))
        elif html is None:
            show(ranking, console)
            read = f"Answer read from the first {settings.top}: "
            console.print(Text.assemble((read, "bold"), clean(answer) or "none: they do not hold it"))
        elif not is_stream(html):
            console.print(Text(clean(html)))


def read_own(path: str) -> list[Passage]:
    """The passages of a file: objects as JSON lines, or plain texts, one a line. FileError for a wrong line."""
    found = []
    for number, line in numbered_lines(path):
        record = located(path, number, parse_object, line) if line.lstrip().startswith("{") else line
        found.append(located(path, number, as_passage, record, str(number)))
    return found


def _reranked(
    asked: Sequence[corpus.DemoQuestion], reranker: Reranker, job: Job
) -> tuple[list[tuple[Passage, ...]], list[Ranking]]:
    """The candidates of each question, and its ranking."""
    with arguments():  # the first stage may not be installed
        first_stage = corpus.BM25(corpus.passages())
        found = [first_stage.search(question.query.text, CANDIDATES) for question in asked]
        if reranker.hops > 1:
            reranker = replace(reranker, retrieve=lambda text: first_stage.search(text, FOUND))
    rankings = dict[int, Ranking]()
    job.expect(reranker, len(found[0]))
    for index, outcome in reranker.rank_many((q.query, best) for q, best in zip(asked, found, strict=True)):
        if isinstance(outcome, Exception):
            with arguments(with_hyphens):  # some faults depend on the query, like a context too small for it
                raise outcome
        rankings[index] = outcome
        job.advance(outcome.cost.comparisons)
    return found, [rankings[index] for index in range(len(asked))]


async def _read(
    reader: Reader, questions: Sequence[tuple[str, Sequence[Passage]]], job: Job | None = None
) -> list[str]:
    """The answer of each question that the reader finds in its passages."""

    async def read(text: str, passages: Sequence[Passage]) -> str:
        said = await reader.read(text, passages)
        if job is not None:
            job.advance()
        return said.answer

    return await asyncio.gather(*(read(text, passages) for text, passages in questions))


def _figures(answered: Sequence[RerankedQuestion], k: int, seconds: float) -> dict[str, Any]:
    """What was gained, in whole; `seconds` are those of reranking."""
    n = len(answered)
    recall = {
        at: {
            "before": sum(one.question.recall(one.before, at) for one in answered) / n,
            "after": sum(one.question.recall(one.ranking.passages, at) for one in answered) / n,
        }
        for at in sorted({k, TOP_N})
    }
    return {
        "k": k,
        "support_recall": recall,
        "better": sum(one.gain(k) > 0 for one in answered),
        "worse": sum(one.gain(k) < 0 for one in answered),
        "right_before": sum(one.right[0] for one in answered),
        "right_after": sum(one.right[1] for one in answered),
        "questions": n,
        "seconds": seconds,
        "cost": asdict(sum((one.ranking.cost for one in answered), Cost())),
    }


def _print(
    console: Console, answered: Sequence[RerankedQuestion], settings: CommandSettings, figures: dict[str, Any]
) -> None:
    k = settings.top
    changed = [one for one in answered if one.gain(k) or one.right[0] != one.right[1]]
    if changed:
        console.print(_table(changed, k))
    console.print(f"{counted(len(answered) - len(changed), 'question')} with nothing gained or lost.")
    for title, one in (
        ("The greatest gain", max(answered, key=lambda one: (one.gain(k), one.right[1] - one.right[0]))),
        ("The greatest loss", min(answered, key=lambda one: (one.gain(k), one.right[1] - one.right[0]))),
    ):
        if one.gain(k):
            why = one.ranking.explain(1)
            asked = f"{one.question.query.text} (answer: {one.question.answer})"
            console.print(Text.assemble((f"\n{title}: ", "bold"), clean(asked)))
            console.print(Text(clean(f"Now first: {why.passage.title!r}.")))
            if why.reasoning:
                console.print("The reasoning of its last comparison:")
                console.print(Text(" ".join(clean(why.reasoning).split()), style="dim italic"))
            elif why.comparison is not None:
                others = [one.ranking.candidates[place] for place in why.comparison.set if place != why.position]
                console.print(Text(clean(f"Chosen over {', '.join(other.title for other in others)}."), style="dim"))
    cost = sum((one.ranking.cost for one in answered), Cost())
    console.print()
    console.print(cost_table({f"{len(answered)} questions": replace(cost, seconds=figures["seconds"])}))
    if cost.forced:
        text = f"{cost.forced:,} of {cost.comparisons:,} answers were forced: the model gave none by itself, "
        console.print(Text(text + "so its reasoning may not explain them.", style="yellow"))
    for at, recall in figures["support_recall"].items():
        before, after = recall["before"], recall["after"]
        moves = f"; {counted(figures['better'], 'question')} better, {figures['worse']} worse" if at == k else ""
        color = "green" if after > before else "red" if after < before else "yellow"
        said = (("Support recall", "bold"), f"@{at}: BM25 {before:.3f}, reranked ", (f"{after:.3f}", color), moves)
        console.print(Text.assemble(*said))
    right = f", read by {figures['reader']}: {figures['right_before']} from BM25's first {k}"
    right += f", {figures['right_after']} from the reranked first {k}, of {len(answered)}"
    console.print(Text.assemble(("Right answers", "bold"), clean(right)))
    if settings.embedded:
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
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Ranks of the supports (- not found), gain in recall@{k}, and the answers read from the first {k}",
    )
    table.add_column("question", ratio=5)
    for name in ("BM25", "reranked", "gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("answer before", "answer after"):
        table.add_column(name, ratio=2)
    for one in answered:
        gain = one.gain(k)
        style = "green" if gain > 0 else "red" if gain < 0 else "dim"
        ranks = [
            ", ".join("-" if rank is None else str(rank) for rank in one.ranks(passages))
            for passages in (one.before, one.ranking.passages)
        ]
        answers = [
            Text(shorten(clean(answer), 60, placeholder=" …") or "(none)", style="green" if right else "dim")
            for answer, right in zip(one.answers, one.right, strict=True)
        ]
        table.add_row(
            Text(clean(one.question.query.text)),
            *ranks,
            Text(f"{gain:+.0%}" if gain else "=", style=style),
            *answers,
        )
    return table
