"""The stages put together: what a system is, and that nothing finished is ever asked again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankr1_eval.baselines import FirstStage
from rankr1_eval.scoring import EvaluatedRun, score
from rankr1_eval.types import Question, StageError, pooled
from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendUnavailable, FileError
from rankr1_rag.reader import Reader
from tests.eval import evaluations
from tests.eval.evaluations import ALL, Model

pytestmark = pytest.mark.third_party

AGAIN = "rank-r1:hops=2+retrieve=true"
Run = Callable[..., EvaluatedRun]


@pytest.fixture
def run(questions: list[Question], tmp_path: Path) -> Run:
    """A function that evaluates systems on the demo's questions, always in the same folder."""

    def run(systems: str, model: Any = None, asked: list[Question] = questions, **other: Any) -> EvaluatedRun:
        return evaluations.run(asked, model or Model(), other.pop("path", tmp_path), systems, **other)

    return run


@pytest.fixture(scope="module")
def whole(questions: list[Question], tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluatedRun, Path]:
    """A finished run of all systems, and its folder."""
    path = tmp_path_factory.mktemp("whole")
    return evaluations.run(questions, Model(), path, f"{ALL},{AGAIN}"), path


def reranker(says: Any = None, **other: Any) -> Reranker:
    return Reranker(Scripted(says or Model()), **{"k": 5, "size": 4, **other})


def test_every_system_orders_the_same_candidates(whole: tuple[EvaluatedRun, Path]) -> None:
    systems = {system.name: system.orders for system in whole[0].systems}
    for question in whole[0].questions:
        id = question.query.id
        first = systems["none"][id]
        assert len(first) == len(set(first)) == 8
        for name in ("random", "oracle", "rank-r1", "rank-r1:votes=3"):
            assert sorted(systems[name][id]) == sorted(first)
        supported = [passage in question.supports for passage in systems["oracle"][id]]
        assert supported == sorted(supported, reverse=True)
    assert systems["random"] != systems["none"]
    assert systems["gold"] == {}


def test_a_system_is_read_at_every_k(run: Run, questions: list[Question]) -> None:
    model = Model()
    none, gold, *_ = run("none,gold,no-context", model, questions[:3]).systems
    assert set(none.reads) == set(gold.reads) == {2, 5}
    assert gold.reads[2] is gold.reads[5]
    assert len(model.read) == 3 * 4, "none at two k, gold and no-context once each"
    answered = none.reads[2][questions[0].query.id]
    assert (answered.answer, answered.text) == ("Dublin.", "Answer: Dublin.")


def test_systems_that_cost_nothing_are_always_ranked_and_only_read_if_named(run: Run) -> None:
    found = run("rank-r1")
    assert [(one.name, bool(one.reads)) for one in found.systems] == [
        ("rank-r1", True), ("none", False), ("oracle", False), ("random", False)
    ]  # fmt: skip
    id = found.questions[0].query.id
    ranking = found.systems[0].rankings[id]  # out of the file
    assert ranking.explain(1).reasoning.startswith("It is named")
    assert ranking.cost.comparisons == found.systems[0].costs[id].comparisons > 0


def test_a_finished_run_asks_nothing_again(run: Run, whole: tuple[EvaluatedRun, Path]) -> None:
    again = Model()
    assert run(f"{ALL},{AGAIN}", again, path=whole[1]).systems == whole[0].systems
    assert again.asked == []


def test_a_run_grows_by_questions_systems_and_k(run: Run, questions: list[Question]) -> None:
    corpus, more = pooled(questions), Model()
    run("none,rank-r1", None, questions[:5], corpus=corpus, ks=(2,))
    run("none,rank-r1,gold", more, questions[:6], corpus=corpus, ks=(2, 3))
    assert len(more.read) == 2 + 2 * 6 + 6, "a question at k 2, all at k 3, all with gold context"
    for question in questions[:5]:
        assert not any(question.query.text in text for text in more.ranked)


def test_a_failure_is_reported_and_what_was_finished_is_kept(run: Run, questions: list[Question]) -> None:
    bad, again = questions[1].query.text, Model()
    with pytest.raises(StageError, match=r"rerank rank-r1: 1 of 15 questions failed.*out of order.*the same command"):
        run("rank-r1", Model(fails=lambda text: bad in text))
    assert len(run("rank-r1", again).systems[0].orders) == 15
    assert all(bad in text for text in again.ranked)


def test_a_model_that_is_not_there_is_not_asked_for_every_question(run: Run) -> None:
    def unavailable(_: object) -> str:
        raise BackendUnavailable("no answer")

    with pytest.raises(StageError, match="gave up after 10 in a row; 10 of 15 questions failed"):
        run("none", unavailable)


def test_questions_that_always_fail_do_not_keep_others_from_being_asked(run: Run, questions: list[Question]) -> None:
    model = Model(fails=lambda text: any(question.query.text in text for question in questions[:9]))
    with pytest.raises(StageError, match="read none: 9 of 15 questions failed"):
        run("none", model, ks=(2,))
    assert len(model.asked) == 6


def test_a_strict_reranker_fails_a_question_and_not_the_run(
    run: Run, questions: list[Question], tmp_path: Path
) -> None:
    def says(messages: Any) -> str:
        mumbles = questions[2].query.text in messages[-1]["content"]
        return "I do not know" if mumbles else "<answer>[1]</answer>"

    with pytest.raises(StageError, match="1 of 15 questions failed, the first with UnparsedError"):
        run("rank-r1", reranker=reranker(says, strict=True, force="never"))
    assert len((tmp_path / "rerank" / "rank-r1.jsonl").read_text().splitlines()) == 1 + 14


def test_a_ranking_that_failed_is_asked_again_and_read_again(run: Run, questions: list[Question]) -> None:
    bad, again = questions[1].query, Model()
    patient = reranker(Model(fails=lambda text: bad.text in text), on_failure="first_stage")
    runs = run("rank-r1", reranker=patient, ks=(5,)), run("rank-r1", again, ks=(5,))
    assert [bool(one.systems[0].rankings[bad.id].failure) for one in runs] == [True, False]
    assert all(bad.text in text for text in again.asked)
    assert again.read


def test_nothing_is_asked_before_all_systems_fit(run: Run) -> None:
    model = Model()
    with pytest.raises(ValueError, match=r"system 'rank-r1:size=1': .*got size=1"):
        run("none,rank-r1:size=1", model)
    with pytest.raises(ValueError, match="cannot see 9 of 8 candidates"):
        run("none", model, ks=(9,))
    run("rank-r1", model, ks=(2,))
    asked = len(model.asked)
    with pytest.raises(FileError, match="k 5 → 4"):
        run("none,gold,rank-r1", model, reranker=reranker(model, k=4))
    assert len(model.asked) == asked


def test_files_of_somebody_else_are_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "passages.jsonl").write_text("mine")
    with pytest.raises(FileError, match="is not the file of a run"):
        run("none")
    with pytest.raises(FileError, match="not a folder that can be written to"):
        run("none", path=tmp_path / "passages.jsonl")
    assert (tmp_path / "passages.jsonl").read_text() == "mine"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"first_stage": FirstStage(n=7)}, "candidates 8 → 7"),
        ({"reranker": reranker(size=3)}, "size 4 → 3"),
        ({"reader": Reader(Scripted(Model()), tokens=5)}, "tokens 32 → 5"),
        ({"source": {"dataset": "other"}}, "'demo' → 'other'"),
    ],
)
def test_another_setting_does_not_mix_with_what_is_there(
    run: Run, whole: tuple[EvaluatedRun, Path], other: dict[str, Any], told: str
) -> None:
    with pytest.raises(FileError, match=told):
        run("none,rank-r1", path=whole[1], **other)


def test_own_paragraphs_are_candidates_in_file_order(run: Run, questions: list[Question]) -> None:
    found = run("none", first_stage=FirstStage("own", n=4), ks=(2,)).systems[0].orders
    for question in questions:
        assert found[question.query.id] == tuple(dict.fromkeys(passage.id for passage in question.passages))[:4]


def test_a_run_of_ones_own_has_the_candidates(run: Run, questions: list[Question], tmp_path: Path) -> None:
    ids, path = [passage.id for passage in pooled(questions)][:6], tmp_path / "mine.trec"
    lines = [f"{one.query.id} Q0 {id} {rank} {1 / rank} mine\n" for one in questions for rank, id in enumerate(ids, 1)]
    path.write_text("".join(lines))
    found = run("none", first_stage=FirstStage("run", n=4, run=path), ks=(2,), path=tmp_path / "out")
    assert set(found.systems[0].orders.values()) == {tuple(ids[:4])}
    path.write_text(f"{questions[0].query.id} Q0 nowhere 1 1.0 mine\n")
    for asked, told in ((questions, r"'nowhere' is not in passages.jsonl"), (questions[1:], "ranks nothing for the")):
        with pytest.raises(FileError, match=told):
            run("none", None, asked, first_stage=FirstStage("run", n=4, run=path), ks=(2,), path=tmp_path / told[:5])


def test_what_was_ranked_without_a_reader_is_read_later(run: Run) -> None:
    model, later = Model(), Model()
    found = run(ALL, model, reader=None, ks=(7,))
    assert [system.name for system in found.systems] == ["none", "random", "oracle", "rank-r1", "rank-r1:votes=3"]
    assert not model.read
    assert {"R@5", "All@5", "R@7"} <= set(score(found).systems["rank-r1"].estimates)
    assert all(system.reads for system in run(ALL, later).systems)
    assert later.asked == later.read != []
