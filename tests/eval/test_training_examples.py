"""Training examples out of multi-hop questions: supports against what BM25 finds in the whole file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rankr1_eval.data import load
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.training_examples import ALONE, MISLEADING, MISLED, UNFOUND, UNSUPPORTED, apart, examples, known
from rankr1_eval.types import Question, pooled
from rankr1_rag.train.data import read_examples, write_examples
from tests.eval.evaluations import command

FILES = {
    "hotpotqa": "train/hotpotqa_train_500.jsonl",
    "2wikimultihopqa": "train/2wikimultihopqa_train_500.json",
    "musique": "train/musique_train_100.json",
}


@pytest.mark.parametrize("dataset", FILES)
def test_real_questions_give_their_supports_and_the_order_of_bm25_without_them(
    shared_data: Path, tmp_path: Path, dataset: str
) -> None:
    questions = load(dataset, shared_data / FILES[dataset])
    made = examples(questions, 20, dataset)
    assert [example.query for example in made.examples] == [question.query for question in questions]
    assert (made.left_out, made.absent) == ({}, 0)
    run = bm25(pooled(questions), [question.query for question in questions], 20)
    for question, example in zip(questions, made.examples, strict=True):
        assert tuple(passage.id for passage in example.positives) == question.supports
        ranked = [scored.id for scored in run[question.query.id] if scored.id not in question.supports]
        assert [passage.id for passage in example.negatives] == ranked
        assert example.source == dataset
    own = {passage.id for passage in questions[0].passages}
    assert any(passage.id not in own for passage in made.examples[0].negatives)
    write_examples(tmp_path / "made.jsonl.gz", made.examples)
    assert read_examples(tmp_path / "made.jsonl.gz") == list(made.examples)


def test_a_question_that_cannot_be_one_is_left_out_with_the_reason(questions: list[Question]) -> None:
    lost = replace(questions[0], supports=("nowhere",))
    half = replace(questions[1], supports=(*questions[1].supports, "nowhere"))
    made = examples([lost, half, *questions[2:]], 8)
    assert made.left_out == {lost.query.id: UNSUPPORTED}
    assert made.absent == 2
    assert made.examples[0].query == half.query
    assert tuple(passage.id for passage in made.examples[0].positives) == questions[1].supports
    only = [passage for passage in questions[2].passages if passage.id in questions[2].supports]
    assert examples([questions[2]], corpus=only).left_out == {questions[2].query.id: ALONE}


@pytest.mark.parametrize("dataset", FILES)
def test_only_supports_that_bm25_finds_are_positives_where_that_is_asked_for(shared_data: Path, dataset: str) -> None:
    questions = load(dataset, shared_data / FILES[dataset])
    run = bm25(pooled(questions), [question.query for question in questions], 20)
    whole, made = examples(questions, 50, dataset), examples(questions, 50, dataset, found=20)
    found = {id: {scored.id for scored in ranked} for id, ranked in run.items()}
    expected = {
        one.query.id: tuple(passage for passage in one.positives if passage.id in found[one.query.id])
        for one in whole.examples
    }
    assert {one.query.id: one.positives for one in made.examples} == {id: met for id, met in expected.items() if met}
    assert made.left_out == {id: UNFOUND for id, met in expected.items() if not met}
    assert {one.query.id: one.negatives for one in whole.examples}.items() >= {
        one.query.id: one.negatives for one in made.examples
    }.items()


@pytest.mark.parametrize("dataset", FILES)
def test_each_support_is_to_be_named_where_another_is_known(shared_data: Path, tmp_path: Path, dataset: str) -> None:
    questions = load(dataset, shared_data / FILES[dataset])
    plain = examples(questions, 50, dataset)
    made = known(plain.examples, plain.passages, 0)
    by = {one.query.id: one for one in plain.examples}
    misled = 0
    for one in made:
        origin = by[one.query.id.rpartition("+")[0]]
        (positive,), (beside,) = one.positives, one.known
        assert (one.query.text, one.source) == (origin.query.text, dataset)
        assert positive in origin.positives
        assert not {passage.id for passage in origin.positives} & {passage.id for passage in one.negatives}
        misled += beside not in origin.positives
        assert beside in (*origin.positives, *origin.negatives[:MISLEADING])
        first = next(passage for passage in origin.negatives if passage != beside)
        assert one.negatives[0] == first
    assert len(made) == sum(len(one.positives) for one in plain.examples if len(one.positives) > 1)
    assert abs(misled / len(made) - MISLED) < 0.06
    assert known(plain.examples[5:9], plain.passages, 0) == [
        one for one in made if one.query.id.rpartition("+")[0] in {one.query.id for one in plain.examples[5:9]}
    ]
    write_examples(tmp_path / "known.jsonl", made)
    assert read_examples(tmp_path / "known.jsonl") == made


def test_what_is_held_out_follows_from_seed_and_id_alone(questions: list[Question]) -> None:
    made = examples(questions, 8).examples
    kept, held = apart(made, 0.2, 3)
    assert len(held) == round(0.2 * len(made))
    assert [one for one in made if one in kept or one in held] == list(made)
    assert not {one.query.id for one in kept} & {one.query.id for one in held}
    backwards = apart(made[::-1], 0.2, 3)[1]
    assert {one.query.id for one in backwards} == {one.query.id for one in held}
    assert {one.query.id for one in held} < {one.query.id for one in apart(made, 0.5, 3)[1]}
    assert apart(made, 0.2, 4)[1] != held
    assert len(apart(made, 0.001, 3)[1]) == 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(questions: list[Question], share: float) -> None:
    made = examples(questions, 8).examples
    with pytest.raises(ValueError, match="held-out share"):
        apart(made, share, 0)
    with pytest.raises(ValueError, match="none is left to train on"):
        apart(made[:1], 0.5, 0)


def hotpotqa(data: Path) -> Sequence[object]:
    return ("examples", "--dataset", "hotpotqa", "--data", data / FILES["hotpotqa"])


def test_the_command_writes_both_files_and_tells_what_it_made(shared_data: Path, tmp_path: Path) -> None:
    out, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    found = command(*hotpotqa(shared_data), "--out", out, "--held-out", held, "--depth", 30, "--json")
    told = json.loads(found.stdout)
    assert (told["examples"], told["held_out"], told["positives"], told["left_out"]) == (450, 50, 1000, {})
    train, kept = read_examples(out), read_examples(held)
    assert (len(train), len(kept)) == (450, 50)
    assert not {one.query.id for one in train} & {one.query.id for one in kept}
    assert max(len(one.negatives) for one in train) <= 30
    again = command(*hotpotqa(shared_data), "--out", tmp_path / "again", "--held-out", held, "--depth", 30)
    assert "450 examples" in " ".join(again.stdout.split())
    assert (tmp_path / "again").read_bytes() == out.read_bytes()


def test_the_command_makes_examples_in_which_a_support_is_known(shared_data: Path, tmp_path: Path) -> None:
    out, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    command(*hotpotqa(shared_data), "--out", out, "--held-out", held, "--known", "--json")
    train, kept = read_examples(out), read_examples(held)
    assert (len(train), len(kept)) == (900, 100)
    assert all(len(one.known) == 1 for one in train)
    assert not {one.query.text for one in train} & {one.query.text for one in kept}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--held-share", "0.2"), "--held-out"),
        (("--held-out", "OUT"), "give two files"),
        (("--held-out", "held.jsonl", "--held-share", "1.5"), "between 0 and 1"),
        (("--depth", "0"), "depth=0"),
        (("--found", "0"), "found=0"),
        (("--dataset", "hotpot"), "hotpotqa"),
        (("--data", "nowhere.json"), "nowhere.json"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line_and_nothing_is_written(
    shared_data: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    out = tmp_path / "train.jsonl"
    given = [str(out) if one == "OUT" else one for one in arguments]
    assert told in command(*hotpotqa(shared_data), "--questions", "20", "--out", out, *given, code=2).stderr
    assert not out.exists()
