"""`rankr1 demo`: reranks a small multi-hop corpus, reads the answers, and prints gains and losses."""

from __future__ import annotations

import asyncio
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
from rankr1_rag.concurrency.event_loop import private_loop
from rankr1_rag.explain import PAGE, clean, cost_table, show, write_page
from rankr1_rag.explain.story import counted
from rankr1_rag.io.collection import as_passage, parse_object
from rankr1_rag.io.files import check_output, is_stream, located, numbered_lines
from rankr1_rag.io.jsonl import ranking_to_json
from rankr1_rag.reader import Reader, normalised
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Cost, Passage, Ranking

HOPS = 2
"""Hops of the demo, with a retrieval between them: what is best for questions of several hops (docs/hops.md)."""


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
    """Rerank the BM25 top 20 of some multi-hop questions, read the answers, and print the result. Needs no arguments.

    Reranked in two hops: for the second, more passages are found with the first one selected. With --base-url … it
    does the same with a model on a server. With --ask "…" --passages FILE it finds and reranks passages of your own,
    and shows why.
    """
    settings.check_files([html, "-" if as_json else None], [passages])
    check_output(html, PAGE)
    console, asked = Console(), corpus.questions()
    if ask is not None:
        _ask(ask, passages, settings, html, as_json, console)
        return
    if passages is not None:
        raise UsageError("--passages needs --ask, the question about them")
    if not (as_json or console.is_terminal):  # there is no progress bar
        patience = "; with the embedded model this takes some minutes" if settings.kind == "openvino" else ""
        console.print(f"Reranking the BM25 top 20 of {len(asked)} questions{patience} ...")
    job = Job(Console(stderr=True), len(asked))
    with settings.reranker(job) as reranker, settings.reader(reranker, job) as reader:
        started = time.monotonic()
        answered = _answered(asked, reranker, reader, job)
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


def _answered(
    asked: Sequence[corpus.DemoQuestion], reranker: Reranker, reader: Reader, job: Job
) -> list[RerankedQuestion]:
    with arguments():  # the first stage may not be installed
        first_stage = corpus.BM25(corpus.passages())
        found = [first_stage.search(question.query.text) for question in asked]
        if reranker.hops > 1:
            reranker = replace(reranker, retrieve=first_stage.search)
    assert reranker.k is not None
    k, rankings = reranker.k, dict[int, Ranking]()
    job.expect(reranker, len(found[0]))
    with job:
        for index, outcome in reranker.rank_many((q.query, best) for q, best in zip(asked, found, strict=True)):
            if isinstance(outcome, Exception):
                with arguments(with_hyphens):  # some faults depend on the query, like a context too small for it
                    raise outcome
            rankings[index] = outcome
            job.advance(outcome.cost.comparisons)
        job.begin("answers", 2 * len(asked))
        before = [(question.query.text, best[:k]) for question, best in zip(asked, found, strict=True)]
        after = [(question.query.text, rankings[index].passages[:k]) for index, question in enumerate(asked)]
        answers = private_loop().call(_read(reader, before + after, job))
    pairs = list(zip(answers[: len(asked)], answers[len(asked) :], strict=True))
    return [RerankedQuestion(one, found[at], rankings[at], pairs[at]) for at, one in enumerate(asked)]


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
    n = len(answered)
    return {
        "k": k,
        "support_recall_before": sum(one.question.recall(one.before, k) for one in answered) / n,
        "support_recall_after": sum(one.question.recall(one.ranking.passages, k) for one in answered) / n,
        "better": sum(one.gain(k) > 0 for one in answered),
        "worse": sum(one.gain(k) < 0 for one in answered),
        "right_before": sum(one.right[0] for one in answered),
        "right_after": sum(one.right[1] for one in answered),
        "questions": n,
        "seconds": seconds,
        "cost": asdict(sum((one.ranking.cost for one in answered), Cost())),
    }


def _print(console: Console, answered: Sequence[RerankedQuestion], settings: CommandSettings, seconds: float) -> None:
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
    right = (
        f": {figures['right_before']} read from BM25's first {k}, {figures['right_after']} from the reranked first {k}"
    )
    console.print(Text.assemble(("Right answers", "bold"), f"{right}, of {len(answered)}"))
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
            Text(clean(answer) or "(none)", style="green" if right else "dim")
            for answer, right in zip(one.answers, one.right, strict=True)
        ]
        table.add_row(
            Text(clean(one.question.query.text)),
            *ranks,
            Text(f"{gain:+.0%}" if gain else "=", style=style),
            *answers,
        )
    return table
