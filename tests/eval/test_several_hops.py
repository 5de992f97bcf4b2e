"""Systems with several hops: what is chosen is shown, what is found between the hops is nowhere lost."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.pipeline import finish, result_settings
from rankr1_eval.report.charts import support_moves
from rankr1_eval.report.wording import View
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.scoring import EvaluatedRun, SystemRun
from rankr1_eval.types import Question, Scores, StageError, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.types import Query
from tests.eval import evaluations
from tests.eval.evaluations import Model

PLAIN, HOPS, AGAIN = "rank-r1", "rank-r1:hops=2", "rank-r1:hops=2+retrieve=true"
N = 5
"""Candidates of a question: few, so that BM25 misses supports."""


@pytest.fixture(scope="module")
def asked(real: list[Question]) -> list[Question]:
    return real[:30]


def run(asked: list[Question], model: Model, path: Path, systems: str, **other: Any) -> dict[str, SystemRun]:
    found = evaluations.run(asked, model, path, systems, **{"first_stage": FirstStage(n=N), **other})
    return {system.name: system for system in found.systems}


@dataclass(frozen=True)
class Whole:
    """A finished run of all systems, its scores and its folder; `model` answered it."""

    run: EvaluatedRun
    scores: Scores
    path: Path
    model: Model

    def __getitem__(self, name: str) -> SystemRun:
        return next(system for system in self.run.systems if system.name == name)


@pytest.fixture(scope="module")
def whole(asked: list[Question], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path, model = tmp_path_factory.mktemp("whole"), Model(asked)
    found = evaluations.run(asked, model, path, f"none,{PLAIN},{HOPS},{AGAIN}", first_stage=FirstStage(n=N))
    scores, left_out = finish(found, path)
    assert not left_out
    return Whole(found, scores, path, model)


def test_a_system_of_hops_is_what_the_reranker_makes_of_them(asked: list[Question], whole: Whole) -> None:
    with Reranker(Scripted(Model(asked)), k=5, size=4, hops=2) as reranker:
        for question in asked[:5]:
            first = [whole.run.passages[id] for id in whole["none"].orders[question.query.id]]
            wanted, kept = reranker.rank(question.query, first), whole[HOPS].rankings[question.query.id]
            assert (kept.order, kept.trace) == (wanted.order, wanted.trace)
            assert {comparison.known for comparison in kept.trace} == {(), (kept.order[0],)}
    assert not whole[HOPS].retrieved


def test_what_is_found_between_the_hops_can_be_chosen_and_is_read(asked: list[Question], whole: Whole) -> None:
    new_supports = shown = 0
    for question in asked:
        id = question.query.id
        ranking, order, candidates = whole[AGAIN].rankings[id], whole[AGAIN].orders[id], whole["none"].orders[id]
        ids = [passage.id for passage in ranking.candidates]
        assert tuple(ids[:N]) == candidates
        assert sorted(order) == sorted(ids)
        assert len(order) == N + ranking.retrieved == N + whole[AGAIN].retrieved[id]
        new = set(order[:5]) - set(candidates)
        new_supports += len(new & set(question.supports))
        for text in (whole.run.passages[one].text[:80].strip() for one in new):
            assert any(question.query.text.strip() in prompt and text in prompt for prompt in whole.model.read)
            shown += 1
    assert shown >= new_supports > 3


def test_a_passage_is_searched_for_with_the_question_and_what_was_chosen(asked: list[Question], whole: Whole) -> None:
    for question in asked:
        ranking = whole[AGAIN].rankings[question.query.id]
        chosen = ranking.passages[0]
        text = f"{question.query.text} {chosen.title} {chosen.text}"
        wanted = [one.id for one in bm25(pooled(asked), [Query("q", text)], N)["q"]]
        first = {passage.id for passage in ranking.candidates[:N]}
        assert [passage.id for passage in ranking.candidates[N:]] == [id for id in wanted if id not in first]


def test_scores_and_costs_know_what_was_found(whole: Whole) -> None:
    systems = whole.scores.systems
    assert systems[AGAIN].estimates["R@5"].mean > systems["oracle"].estimates["R@5"].mean
    assert systems[AGAIN].cost["comparisons"] >= systems[HOPS].cost["comparisons"] > 0
    assert systems[AGAIN].cost["retrieved"] == sum(whole[AGAIN].retrieved.values()) / len(whole.run.questions) > 0
    assert all("retrieved" not in systems[name].cost for name in ("none", PLAIN, HOPS))


def test_the_report_says_what_was_found_between_the_hops(whole: Whole) -> None:
    finds = r"Rank-R1, hops 2, retrieve true finds \d+ % in the first 5, [\d.]+ points more than Rank-R1 "
    alone = replace(whole.run, systems=tuple(one for one in whole.run.systems if one.name in ("none", AGAIN)))
    moved = support_moves(View(alone, whole.scores), AGAIN)
    assert moved is not None
    assert moved.missing >= moved.retrieved >= moved.read > 3
    path = Path(shutil.copytree(whole.path, whole.path.with_name("alone")))
    finish(alone, path)
    for name in ("report.html", "report.md"):
        text = " ".join((whole.path / name).read_text("utf-8").split())
        for part in ("asks the first stage again between the hops", "retrieved between hops", f"{AGAIN[-4:]} has "):
            assert part in text
        assert re.search(finds, text)
        for part in (f"{moved.retrieved} ", "retrieved between the hops"):
            assert part in (path / name).read_text("utf-8")


def test_only_a_question_that_failed_after_a_hop_is_asked_again(
    asked: list[Question], whole: Whole, tmp_path: Path
) -> None:
    bad, again = asked[3].query, Model(asked)
    known = Reranker(Scripted(again)).plan.format.known.partition("{line}")[0]
    failing = Model(asked, lambda text: bad.text + known in text)
    with pytest.raises(StageError, match="1 of 30 questions failed"):
        run(asked, failing, tmp_path, AGAIN, reader=None)
    assert run(asked, again, tmp_path, AGAIN, reader=None)[AGAIN].orders == whole[AGAIN].orders
    assert again.asked
    assert all(bad.text in text for text in again.asked)


def test_a_run_does_not_mix_with_one_that_searched_otherwise() -> None:
    with Reranker(Scripted(Model())) as plain:
        settings = result_settings(plain)
        assert "hops" not in settings, "runs from before there were hops resume"
        several = replace(plain, hops=2)
        assert result_settings(several) == {**settings, "hops": 2}
        searching = replace(several, retrieve=lambda text: [])
        assert result_settings(searching) == {**settings, "hops": 2, "retrieve": True}


@pytest.mark.parametrize(
    ("systems", "first_stage", "told"),
    [
        (AGAIN, FirstStage("own", n=N), f"system '{re.escape(AGAIN)}': retrieve=true .* bm25 or dense"),
        (AGAIN, FirstStage("run", n=N, run=Path("nowhere")), "the retriever 'run', which knows only"),
        ("rank-r1:retrieve=true", FirstStage(n=N), r"system 'rank-r1:retrieve=true': retrieve= needs hops >= 2"),
        ("rank-r1:hops=0", FirstStage(n=N), "system 'rank-r1:hops=0': hops=0"),
    ],
)
def test_what_cannot_be_searched_again_is_an_error_before_anything_is_asked(
    asked: list[Question], tmp_path: Path, systems: str, first_stage: FirstStage, told: str
) -> None:
    model = Model(asked)
    with pytest.raises(ValueError, match=told):
        run(asked, model, tmp_path, f"none,{systems}", first_stage=first_stage)
    assert model.asked == []
    assert not (tmp_path / "candidates.jsonl").exists()


def test_a_system_may_only_retrieve_between_the_hops_of_the_command(
    asked: list[Question], whole: Whole, tmp_path: Path
) -> None:
    model, names = Model(asked), ("rank-r1:retrieve=true", "rank-r1:retrieve=false")
    reranker = Reranker(Scripted(model), k=5, size=4, hops=2)
    found = run(asked, model, tmp_path, ",".join(names), reranker=reranker, reader=None)
    assert [found[name].orders for name in names] == [whole[AGAIN].orders, whole[HOPS].orders]


def test_a_search_of_ones_own_is_refused_because_it_may_find_what_the_corpus_lacks(asked: list[Question]) -> None:
    own = Reranker(Scripted(Model()), hops=2, retrieve=lambda text: ["elsewhere"])
    with pytest.raises(ValueError, match="name the system rank-r1:hops=2"):
        evaluations.evaluation(asked, Model(), "none", reranker=own)


def test_the_first_stage_finds_the_same_for_a_text_from_any_thread(asked: list[Question]) -> None:
    corpus, queries = pooled(asked), [question.query for question in asked]
    wanted = bm25(corpus, queries, 7)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(FirstStage(n=7).search(corpus), [query.text for query in queries]))
    assert [[one.id for one in passages] for passages in found] == [[one.id for one in wanted[q.id]] for q in queries]
