"""The stages put together: what a system is, and that nothing finished is ever asked again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.reader import Reader
from rankr1_eval.report import write_report
from rankr1_eval.scoring import SystemRun, score
from rankr1_eval.types import Question, StageError, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendUnavailable, FileError
from rankr1_rag.types import Message
from tests.eval.evaluations import ALL, Model, run

pytestmark = pytest.mark.third_party


@pytest.fixture(scope="module")
def finished(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, SystemRun], Path]:
    """A run of all systems, and its folder."""
    path = tmp_path_factory.mktemp("finished")
    return {system.name: system for system in run(questions, Model(), path, ALL).systems}, path


def test_every_system_orders_the_same_candidates(
    questions: list[Question], finished: tuple[dict[str, SystemRun], Path]
) -> None:
    systems = {name: system.orders for name, system in finished[0].items()}
    for question in questions:
        id = question.query.id
        first = systems["none"][id]
        assert len(first) == len(set(first)) == 8
        for name in ("random", "oracle", "rank-r1", "rank-r1:votes=3"):
            assert sorted(systems[name][id]) == sorted(first)
        supported = [passage in question.supports for passage in systems["oracle"][id]]
        assert supported == sorted(supported, reverse=True)
    assert systems["random"] != systems["none"]
    assert systems["gold"] == {}


def test_a_system_is_read_at_every_k(questions: list[Question], tmp_path: Path) -> None:
    model = Model()
    none, gold, *_ = run(questions[:3], model, tmp_path, "none,gold,no-context").systems
    assert set(none.reads) == set(gold.reads) == {2, 5}
    assert gold.reads[2] is gold.reads[5]
    assert len(model.read) == 3 * 4, "none at two k, gold and no-context once each"
    answered = none.reads[2][questions[0].query.id]
    assert (answered.answer, answered.text) == ("Dublin.", "Answer: Dublin.")


def test_systems_that_cost_nothing_are_always_ranked_and_only_read_if_named(
    questions: list[Question], tmp_path: Path
) -> None:
    ours, *free = run(questions, Model(), tmp_path, "rank-r1").systems
    assert (ours.name, *(system.name for system in free)) == ("rank-r1", "none", "oracle", "random")
    assert [bool(system.reads) for system in (ours, *free)] == [True, False, False, False]
    ranking = ours.rankings[questions[0].query.id]  # out of the file
    assert ranking.explain(1).reasoning.startswith("It is named")
    assert ranking.cost.comparisons == ours.costs[questions[0].query.id].comparisons > 0


def test_a_finished_run_asks_nothing_again(
    questions: list[Question], finished: tuple[dict[str, SystemRun], Path]
) -> None:
    before, again = finished[0].values(), Model()
    after = run(questions, again, finished[1], ALL).systems
    assert again.asked == []
    assert [(one.orders, one.reads) for one in after] == [(one.orders, one.reads) for one in before]


def test_a_run_grows_by_questions_systems_and_k(questions: list[Question], tmp_path: Path) -> None:
    corpus = pooled(questions)
    run(questions[:5], Model(), tmp_path, "none,rank-r1", corpus=corpus, ks=(2,))
    more = Model()
    run(questions[:6], more, tmp_path, "none,rank-r1,gold", corpus=corpus, ks=(2, 3))
    assert len(more.read) == 2 + 2 * 6 + 6, "a question at k 2, all at k 3, all with gold context"
    for question in questions[:5]:
        assert not any(question.query.text in text for text in more.ranked)


def test_a_failure_is_reported_and_what_was_finished_is_kept(questions: list[Question], tmp_path: Path) -> None:
    bad = questions[1].query.text
    with pytest.raises(StageError, match=r"rerank rank-r1: 1 of 15 questions failed.*out of order.*the same command"):
        run(questions, Model(fails=lambda text: bad in text), tmp_path, "rank-r1")
    again = Model()
    assert len(run(questions, again, tmp_path, "rank-r1").systems[0].orders) == 15
    assert all(bad in text for text in again.ranked)


def unavailable(messages: Sequence[Message]) -> str:
    raise BackendUnavailable("no answer")


def test_a_model_that_is_not_there_is_not_asked_for_every_question(questions: list[Question], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="gave up after 10 in a row; 10 of 15 questions failed"):
        run(questions, Model(), tmp_path, "none", reader=Reader(Scripted(unavailable)))


def test_questions_that_always_fail_do_not_keep_the_others_from_being_asked(
    questions: list[Question], tmp_path: Path
) -> None:
    bad = {question.query.text for question in questions[:9]}
    model = Model(fails=lambda text: any(one in text for one in bad))
    with pytest.raises(StageError, match="read none: 9 of 15 questions failed"):
        run(questions, model, tmp_path, "none", ks=(2,))
    assert len(model.asked) == 6


def test_a_strict_reranker_fails_a_question_and_not_the_run(questions: list[Question], tmp_path: Path) -> None:
    def says(messages: Sequence[Message]) -> str:
        mumbles = questions[2].query.text in messages[-1]["content"]
        return "I do not know" if mumbles else "<answer>[1]</answer>"

    strict = Reranker(Scripted(says), k=5, size=4, strict=True, force="never")
    with pytest.raises(StageError, match="1 of 15 questions failed, the first with UnparsedError"):
        run(questions, Model(), tmp_path, "rank-r1", reranker=strict)
    assert len((tmp_path / "rerank" / "rank-r1.jsonl").read_text().splitlines()) == 1 + 14


def test_a_ranking_that_failed_is_asked_again_and_read_again(questions: list[Question], tmp_path: Path) -> None:
    bad, again = questions[1].query, Model()
    patient = Reranker(Scripted(Model(fails=lambda text: bad.text in text)), k=5, size=4, on_failure="first_stage")
    before = run(questions, Model(), tmp_path, "none,rank-r1", reranker=patient, ks=(5,)).systems[1]
    after = run(questions, again, tmp_path, "none,rank-r1", ks=(5,)).systems[1]
    assert [bool(one.rankings[bad.id].failure) for one in (before, after)] == [True, False]
    assert all(bad.text in text for text in again.asked)
    assert again.read


def test_nothing_is_asked_before_all_systems_fit(questions: list[Question], tmp_path: Path) -> None:
    model = Model()
    with pytest.raises(ValueError, match="system 'rank-r1:size=1': size=1"):
        run(questions, model, tmp_path, "none,rank-r1:size=1")
    with pytest.raises(ValueError, match="cannot see 9 of 8 candidates"):
        run(questions, model, tmp_path, "none", ks=(9,))
    run(questions, model, tmp_path, "rank-r1", ks=(2,))
    asked = len(model.asked)
    with pytest.raises(FileError, match="k 5 → 4"):
        run(questions, model, tmp_path, "none,gold,rank-r1", reranker=Reranker(Scripted(model), k=4, size=4))
    assert len(model.asked) == asked


def test_files_of_somebody_else_are_left_alone(questions: list[Question], tmp_path: Path) -> None:
    (tmp_path / "passages.jsonl").write_text("mine")
    with pytest.raises(FileError, match="is not the file of a run"):
        run(questions, Model(), tmp_path, "none")
    with pytest.raises(FileError, match="give a folder as --out"):
        run(questions, Model(), tmp_path / "passages.jsonl", "none")
    assert (tmp_path / "passages.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"first_stage": FirstStage(n=7)}, "candidates 8 → 7"),
        ({"reranker": Reranker(Scripted(Model()), k=5, size=3)}, "size 4 → 3"),
        ({"reader": Reader(Scripted(Model()), tokens=5)}, "tokens 32 → 5"),
        ({"source": {"dataset": "other"}}, "'demo' → 'other'"),
    ],
)
def test_another_setting_does_not_mix_with_what_is_there(
    questions: list[Question], finished: tuple[dict[str, SystemRun], Path], other: dict[str, Any], told: str
) -> None:
    with pytest.raises(FileError, match=told):
        run(questions, Model(), finished[1], "none,rank-r1", **other)


def test_own_paragraphs_are_candidates_in_file_order(questions: list[Question], tmp_path: Path) -> None:
    found = run(questions, Model(), tmp_path, "none", first_stage=FirstStage("own", n=4), ks=(2,)).systems[0].orders
    for question in questions:
        assert found[question.query.id] == tuple(dict.fromkeys(passage.id for passage in question.passages))[:4]


def test_a_run_of_ones_own_has_the_candidates(questions: list[Question], tmp_path: Path) -> None:
    ids, path = [passage.id for passage in pooled(questions)][:6], tmp_path / "mine.trec"
    lines = [f"{one.query.id} Q0 {id} {rank} {1 / rank} mine\n" for one in questions for rank, id in enumerate(ids, 1)]
    path.write_text("".join(lines))
    mine: dict[str, Any] = {"first_stage": FirstStage("run", n=4, run=path), "ks": (2,)}
    found = run(questions, Model(), tmp_path / "out", "none", **mine)
    assert set(found.systems[0].orders.values()) == {tuple(ids[:4])}
    path.write_text(f"{questions[0].query.id} Q0 nowhere 1 1.0 mine\n")
    mine["first_stage"] = FirstStage("run", n=4, run=path)
    with pytest.raises(FileError, match=r"'nowhere' is not in passages.jsonl"):
        run(questions, Model(), tmp_path / "other", "none", **mine)
    with pytest.raises(FileError, match="ranks nothing for the question"):
        run(questions[1:], Model(), tmp_path / "third", "none", **mine)


def test_without_a_reader_there_is_support_recall_and_what_was_ranked_is_read_later(
    questions: list[Question], tmp_path: Path
) -> None:
    model, later = Model(), Model()
    found = run(questions, model, tmp_path, ALL, reader=None, ks=(7,))
    assert [system.name for system in found.systems] == ["none", "random", "oracle", "rank-r1", "rank-r1:votes=3"]
    assert not any(system.reads for system in found.systems)
    assert not model.read
    scores = score(found)
    assert {"R@5", "All@5", "R@7"} <= set(scores.systems["rank-r1"].estimates)
    assert "F1@5" not in scores.systems["rank-r1"].estimates
    write_report(found, scores, tmp_path)
    assert "Nothing was read" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not list((tmp_path / "read").iterdir())
    assert all(system.reads for system in run(questions, later, tmp_path, ALL).systems)
    assert later.asked == later.read != []
