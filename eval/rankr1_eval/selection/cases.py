"""The queries of a study: each with its candidates in first-stage order and their grades.

Knows runs and qrels. Must not know judges or algorithms.
"""

from __future__ import annotations

from dataclasses import dataclass

from rankr1_rag.errors import FileError
from rankr1_rag.files import FilePath
from rankr1_rag.trec import Qrels, read_qrels, read_run


@dataclass(frozen=True, slots=True)
class Case:
    """A query: the ids of its candidates, first-stage best first, and their grades; 0 where there is no judgement.

    A grade below 0, as some qrels have for junk, is 0: to trec_eval too it is nothing gained.
    """

    query: str
    ids: tuple[str, ...]
    grades: tuple[int, ...]


def cases(run: FilePath, qrels: FilePath, depth: int) -> tuple[list[Case], Qrels, list[str]]:
    """The queries of the run in file order with their best `depth` candidates; the qrels; the judged queries that the
    run does not rank, which the study leaves out.

    FileError where the qrels have no judgement of a query of the run, or a file is malformed.
    """
    ranked, judged = read_run(run, depth), read_qrels(qrels)
    if unjudged := [query for query in ranked if query not in judged]:
        more = f" and {len(unjudged) - 1} more" if len(unjudged) > 1 else ""
        problem = f"no judgement of query {unjudged[0]!r}{more} of {run}: take these out of the run, or give its qrels"
        raise FileError(qrels, None, problem)
    made = [_case(query, [passage.id for passage in best], judged[query]) for query, best in ranked.items()]
    return made, {query: judged[query] for query in ranked}, [query for query in judged if query not in ranked]


def _case(query: str, ids: list[str], judgements: dict[str, int]) -> Case:
    return Case(query, tuple(ids), tuple(max(0, judgements.get(id, 0)) for id in ids))
