"""Rows with several hops: what is chosen is shown, what is found between the hops is nowhere lost."""

import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.data import load
from rankr1_eval.pipeline import finish, result_settings
from rankr1_eval.report.charts import support_moves
from rankr1_eval.report.wording import View
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.scoring import EvaluatedRun, SystemRun
from rankr1_eval.types import Question, Scores, StageError, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendError
from rankr1_rag.types import Message, Query
from tests.eval import evaluations

PLAIN, HOPS, AGAIN = "rank-r1", "rank-r1:hops=2", "rank-r1:hops=2+retrieve=true"
N = 5
"""Candidates of a question: few, so that BM25 misses supports."""


@pytest.fixture(scope="module")
def asked(shared_data: Path) -> list[Question]:
    """Real questions that need two passages."""
    return load("hotpotqa", shared_data / "hotpotqa" / "dev_distractor_sample.json")[:30]


class Model:
    """Names a support where one is shown, else the first passage; answers with a word. Counts its calls."""

    def __init__(self, questions: Sequence[Question], fails: Callable[[str], bool] = lambda text: False) -> None:
        self.asked: list[str] = []
        self._fails = fails
        self._right = {
            question.query.text: [one.title for one in question.passages if one.id in question.supports]
            for question in questions
        }

    def __call__(self, messages: Sequence[Message]) -> str:
        text = messages[-1]["content"]
        if self._fails(text):
            raise BackendError("out of order")
        self.asked.append(text)
        shown = re.findall(r"^\[(\d+)\] (.*)$", text, re.MULTILINE)
        if not shown:
            return "Answer: Dublin."
        titles = next(titles for question, titles in self._right.items() if question in text)
        right = [label for label, line in shown if any(line.startswith(title) for title in titles)]
        return f"<think>it is named</think> <answer>[{(right or shown[0])[0]}]</answer>"


def run(
    questions: Sequence[Question], path: Path, systems: str = f"none,{PLAIN},{HOPS},{AGAIN}", **other: Any
) -> tuple[EvaluatedRun, Scores, Model]:
    model = other.pop("model", None) or Model(questions)
    found = evaluations.run(questions, model, path, systems, **{"first_stage": FirstStage(n=N), **other})
    scores, left_out = finish(found, path)
    assert not left_out
    return found, scores, model


@pytest.fixture(scope="module")
def whole(asked: list[Question], tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluatedRun, Scores, Path]:
    """A finished run, its scores and its folder."""
    path = tmp_path_factory.mktemp("whole")
    found, scores, _ = run(asked, path)
    return found, scores, path


def system(run: EvaluatedRun, name: str) -> SystemRun:
    return next(system for system in run.systems if system.name == name)


def test_a_row_of_hops_is_what_the_reranker_makes_of_them(
    asked: list[Question], whole: tuple[EvaluatedRun, Scores, Path]
) -> None:
    found = whole[0]
    with Reranker(Scripted(Model(asked)), k=5, size=4, hops=2) as reranker:
        for question in asked[:5]:
            first = [found.passages[id] for id in system(found, "none").orders[question.query.id]]
            wanted, kept = reranker.rank(question.query, first), system(found, HOPS).rankings[question.query.id]
            assert (kept.order, kept.trace) == (wanted.order, wanted.trace)
            assert {comparison.known for comparison in kept.trace} == {(), (kept.order[0],)}
    assert not system(found, HOPS).retrieved


def test_what_is_found_between_the_hops_stands_behind_the_candidates_and_can_be_chosen(
    asked: list[Question], whole: tuple[EvaluatedRun, Scores, Path]
) -> None:
    found = whole[0]
    first, again = system(found, "none"), system(found, AGAIN)
    new_supports = 0
    for question in asked:
        id = question.query.id
        ranking, order, candidates = again.rankings[id], again.orders[id], first.orders[id]
        ids = [passage.id for passage in ranking.candidates]
        assert tuple(ids[:N]) == candidates
        assert sorted(order) == sorted(ids)
        assert len(order) == N + ranking.retrieved == N + again.retrieved[id]
        new_supports += len(set(question.supports) & set(order[:5]) - set(candidates))
    assert new_supports > 3


def test_a_passage_is_searched_for_with_the_question_and_what_was_chosen(
    asked: list[Question], whole: tuple[EvaluatedRun, Scores, Path]
) -> None:
    found = whole[0]
    for question in asked:
        ranking = system(found, AGAIN).rankings[question.query.id]
        chosen = ranking.passages[0]
        text = f"{question.query.text} {chosen.title} {chosen.text}"
        wanted = [one.id for one in bm25(pooled(asked), [Query("q", text)], N)["q"]]
        first = {passage.id for passage in ranking.candidates[:N]}
        assert [passage.id for passage in ranking.candidates[N:]] == [id for id in wanted if id not in first]


def test_scores_and_costs_know_what_was_found(whole: tuple[EvaluatedRun, Scores, Path]) -> None:
    found, scores, _ = whole
    systems = scores.systems
    assert systems[AGAIN].estimates["R@5"].mean > systems["oracle"].estimates["R@5"].mean
    assert systems[AGAIN].cost["comparisons"] >= systems[HOPS].cost["comparisons"] > 0
    assert systems[AGAIN].cost["retrieved"] == sum(system(found, AGAIN).retrieved.values()) / len(found.questions) > 0
    assert all("retrieved" not in systems[name].cost for name in ("none", PLAIN, HOPS))


def test_the_reader_is_shown_a_passage_that_only_the_second_search_found(asked: list[Question], tmp_path: Path) -> None:
    found, _, model = run(asked, tmp_path, f"none,{AGAIN}")
    read = [text for text in model.asked if "Question:" in text]
    shown = 0
    for question in asked:
        id = question.query.id
        new = set(system(found, AGAIN).orders[id][:5]) - set(system(found, "none").orders[id])
        for one in new:
            assert any(question.query.text in text and found.passages[one].text[:80].strip() in text for text in read)
            shown += 1
    assert shown


def test_the_report_tells_what_was_found_between_the_hops(whole: tuple[EvaluatedRun, Scores, Path]) -> None:
    found, scores, path = whole
    page, plain = (" ".join((path / name).read_text("utf-8").split()) for name in ("report.html", "report.md"))
    for text in (page, plain):
        assert "asks the first stage again between the hops" in text
        assert "retrieved between hops" in text
        assert "Rank-R1, hops 2, retrieve true has " in text
        assert re.search(
            r"Rank-R1, hops 2, retrieve true finds \d+ % in the first 5, [\d.]+ points more than Rank-R1 ", text
        )
    alone = replace(found, systems=tuple(one for one in found.systems if one.name in ("none", AGAIN)))
    moved = support_moves(View(alone, scores), AGAIN)
    assert moved is not None
    assert moved.missing >= moved.retrieved >= moved.read > 3
    finish(alone, Path(shutil.copytree(path, path.with_name("alone"))))
    for name in ("report.html", "report.md"):
        assert f"{moved.retrieved} " in (told := (path.with_name("alone") / name).read_text("utf-8"))
        assert "retrieved between the hops" in told


def test_a_finished_run_asks_and_searches_nothing_again(
    asked: list[Question], whole: tuple[EvaluatedRun, Scores, Path]
) -> None:
    before, scores, path = whole
    after, again, model = run(asked, path)
    assert model.asked == []
    assert [one.orders for one in after.systems] == [one.orders for one in before.systems]
    assert [one.retrieved for one in after.systems] == [one.retrieved for one in before.systems]
    assert [one.rankings for one in after.systems] == [one.rankings for one in before.systems]
    assert again == scores


def test_a_question_that_failed_behind_its_first_hop_is_asked_again_and_no_other(
    asked: list[Question], whole: tuple[EvaluatedRun, Scores, Path], tmp_path: Path
) -> None:
    bad = asked[3].query
    known = Reranker(Scripted(Model(asked))).plan.format.known.partition("{line}")[0]
    failing = Model(asked, lambda text: bad.text + known in text)
    with pytest.raises(StageError, match="1 of 30 questions failed"):
        run(asked, tmp_path, AGAIN, model=failing, reader=None)
    found, _, again = run(asked, tmp_path, AGAIN, reader=None)
    assert again.asked
    assert all(bad.text in text for text in again.asked)
    assert system(found, AGAIN).orders == system(whole[0], AGAIN).orders


def test_a_run_does_not_mix_with_one_that_searched_otherwise(asked: list[Question]) -> None:
    with Reranker(Scripted(Model(asked))) as plain:
        assert "hops" not in result_settings(plain), "runs from before there were hops go on"
        several = replace(plain, hops=2)
        assert result_settings(several) == {**result_settings(plain), "hops": 2}
        assert result_settings(replace(several, retrieve=lambda text: [])) == {
            **result_settings(several),
            "retrieve": True,
        }


@pytest.mark.parametrize(
    ("systems", "other", "told"),
    [
        (
            AGAIN,
            {"first_stage": FirstStage("own", n=N)},
            f"system '{re.escape(AGAIN)}': retrieve=true .* bm25 or dense",
        ),
        (
            AGAIN,
            {"first_stage": FirstStage("run", n=N, run=Path("nowhere"))},
            "the retriever 'run', which knows only",
        ),
        ("rank-r1:retrieve=true", {}, r"system 'rank-r1:retrieve=true': retrieve= needs hops >= 2"),
        ("rank-r1:hops=0", {}, "system 'rank-r1:hops=0': hops=0"),
    ],
)
def test_what_cannot_be_searched_again_is_told_before_anything_is_asked(
    asked: list[Question], tmp_path: Path, systems: str, other: dict[str, Any], told: str
) -> None:
    model = Model(asked)
    with pytest.raises(ValueError, match=told):
        run(asked, tmp_path, f"none,{systems}", model=model, **other)
    assert model.asked == []
    assert not list(tmp_path.iterdir()) or not (tmp_path / "candidates.jsonl").exists()


def test_hops_of_the_command_serve_a_row_that_only_retrieves_and_false_is_no_search(
    asked: list[Question], whole: tuple[EvaluatedRun, Scores, Path], tmp_path: Path
) -> None:
    both = "rank-r1:retrieve=true,rank-r1:retrieve=false"
    reranker = Reranker(Scripted(Model(asked)), k=5, size=4, hops=2)
    found, _, _ = run(asked, tmp_path, both, reranker=reranker, reader=None)
    assert system(found, "rank-r1:retrieve=true").orders == system(whole[0], AGAIN).orders
    assert system(found, "rank-r1:retrieve=false").orders == system(whole[0], HOPS).orders


def test_a_search_of_ones_own_is_refused_because_it_may_find_what_the_corpus_lacks(asked: list[Question]) -> None:
    own = Reranker(Scripted(Model(asked)), hops=2, retrieve=lambda text: ["elsewhere"])
    with pytest.raises(ValueError, match="name the system rank-r1:hops=2"):
        evaluations.evaluation(asked, Model(asked), "none", reranker=own)


def test_the_first_stage_finds_the_same_for_a_text_from_any_thread(asked: list[Question]) -> None:
    corpus = pooled(asked)
    search = FirstStage(n=7).search(corpus)
    wanted = bm25(corpus, [question.query for question in asked], 7)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(search, [question.query.text for question in asked]))
    assert [[one.id for one in passages] for passages in found] == [
        [scored.id for scored in wanted[question.query.id]] for question in asked
    ]
