"""A job's queries put to the reranker, those first that were not tried before. Knows no files and no forms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count

from rankr1_rag.cli.journal import Journal
from rankr1_rag.cli.progress import Job
from rankr1_rag.cli.report import Report
from rankr1_rag.cli.sources import Work
from rankr1_rag.reranker import Reranker
from rankr1_rag.types import Passage, Query, Ranking


@dataclass(frozen=True, slots=True)
class Asking:
    """What is to be asked, to what depth, and who is told of it; `live`: the work comes when it comes."""

    reranker: Reranker
    work: Iterable[Work]
    depth: int
    report: Report
    job: Job
    live: bool

    def ranked(self, journal: Journal | None = None) -> Iterator[tuple[Work, Ranking]]:
        """Each query with its ranking as it is done; failures go to the report, what the journal has is passed over."""
        opened: dict[int, Work] = {}
        numbers = count()

        def items() -> Iterator[tuple[Query, tuple[Passage, ...]]]:
            for one in self.work if journal is None else self._rest(journal):
                opened[next(numbers)] = one
                yield one.query, one.candidates[: self.depth]

        results = self.reranker.rank_many(items(), live=self.live)
        with self.job, closing(results):  # type: ignore[type-var]
            for number, outcome in results:
                one = opened.pop(number)
                self.job.advance()
                if not isinstance(outcome, Exception):
                    self.report.take(outcome)
                    yield one, _whole(outcome, one)
                    continue
                self.report.fail(one.query, outcome)
                if self.report.hopeless:
                    if journal is not None:
                        journal.give_up(one.index)
                    return

    def _rest(self, journal: Journal) -> Iterator[Work]:
        """What is not done: first what comes behind the place where the last run gave up, then what stands before."""
        before = []
        for one in self.work:
            if journal.done(one.index, one.key):
                self.report.before += 1
                self.job.advance()
            elif one.index <= journal.gave_up_at:
                before.append(one)
            else:
                yield one
        yield from before


def _whole(ranking: Ranking, one: Work) -> Ranking:
    """The ranking with the candidates beyond the depth behind it, as they were."""
    rest = tuple(range(len(ranking), len(one.candidates)))
    return replace(ranking, candidates=one.candidates, order=ranking.order + rest) if rest else ranking
