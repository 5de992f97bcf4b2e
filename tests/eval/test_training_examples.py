"""Training examples out of multi-hop questions: supports against what BM25 finds in the whole file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rankr1_eval.cli.app import app
from rankr1_eval.data import load
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.training_examples import (
    ALONE,
    MISLEADING,
    MISLED,
    UNFOUND,
    UNSUPPORTED,
    ExamplesMade,
    apart,
    examples,
    known,
)
from rankr1_eval.types import Question, pooled
from rankr1_rag.cli.options import UsageError
from rankr1_rag.errors import FileError
from rankr1_rag.train.data import read_examples, write_examples

FILES = {
    "hotpotqa": "train/hotpotqa_train_500.jsonl",
    "2wikimultihopqa": "train/2wikimultihopqa_train_500.json",
    "musique": "train/musique_train_100.json",
}


Real = tuple[list[Question], ExamplesMade]


@pytest.fixture(scope="module", params=FILES)
def real(request: pytest.FixtureRequest, shared_data: Path) -> Real:
    """A hundred questions of a data set, and the examples made of them."""
    questions = load(request.param, shared_data / FILES[request.param])[:100]
    return questions, examples(questions, 50, request.param)


def test_positives_are_the_supports_and_negatives_the_rest_of_bm25(real: Real, tmp_path: Path) -> None:
    questions, made = real
    assert (made.left_out, made.absent) == ({}, 0)
    run = bm25(pooled(questions), [question.query for question in questions], 50)
    found = examples(questions, 50, found=20)
    by = {example.query.id: example for example in found.examples}
    for question, example in zip(questions, made.examples, strict=True):
        ranked = [scored.id for scored in run[question.query.id]]
        assert example.query == question.query
        assert tuple(passage.id for passage in example.positives) == question.supports
        assert [one.id for one in example.negatives] == [id for id in ranked if id not in question.supports]
        met = tuple(one for one in example.positives if one.id in ranked[:20])  # with `found`, only those that it finds
        assert (by[question.query.id].positives if met else found.left_out[question.query.id]) == (met or UNFOUND)
        assert not met or by[question.query.id].negatives == example.negatives
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


def test_each_support_is_to_be_named_where_another_is_known(real: Real, tmp_path: Path) -> None:
    plain = real[1]
    made = known(plain.examples, plain.passages, 0)
    by = {one.query.id: one for one in plain.examples}
    misled = 0
    for one in made:
        origin = by[one.query.id.rpartition("+")[0]]
        (positive,), (beside,) = one.positives, one.known
        assert (one.query.text, one.source) == (origin.query.text, origin.source)
        assert positive in origin.positives
        assert not {passage.id for passage in origin.positives} & {passage.id for passage in one.negatives}
        misled += beside not in origin.positives
        assert beside in (*origin.positives, *origin.negatives[:MISLEADING])
        assert one.negatives[0] == next(passage for passage in origin.negatives if passage != beside)
    assert len(made) == sum(len(one.positives) for one in plain.examples if len(one.positives) > 1)
    assert abs(misled / len(made) - MISLED) < 0.06
    ids = {one.query.id for one in plain.examples[5:9]}
    alone = [one for one in made if one.query.id.rpartition("+")[0] in ids]
    assert known(plain.examples[5:9], plain.passages, 0) == alone
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


def command(data: Path, *arguments: object) -> Result:
    """The command over sixty questions."""
    some = ("--dataset", "hotpotqa", "--data", data / FILES["hotpotqa"], "--questions", 60, "--pool", 60)
    return CliRunner().invoke(app, ["examples", *map(str, (*some, *arguments))])


def test_the_command_writes_both_files_and_tells_what_it_made(shared_data: Path, tmp_path: Path) -> None:
    out, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    files = ("--out", out, "--held-out", held, "--depth", 30)
    told = json.loads(command(shared_data, *files, "--json").stdout)
    assert (told["examples"], told["held_out"], told["positives"], told["left_out"]) == (54, 6, 120, {})
    train, kept = read_examples(out), read_examples(held)
    assert (len(train), len(kept)) == (54, 6)
    assert not {one.query.id for one in train} & {one.query.id for one in kept}
    assert max(len(one.negatives) for one in train) <= 30
    before = out.read_bytes()
    assert "54 examples, 108 positives" in " ".join(command(shared_data, *files).stdout.split())
    assert out.read_bytes() == before
    assert command(shared_data, *files, "--known").exit_code == 0
    train, kept = read_examples(out), read_examples(held)
    assert (len(train), len(kept), {len(one.known) for one in train}) == (108, 12, {1})
    assert not {one.query.text for one in train} & {one.query.text for one in kept}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--held-share", "0.2"), "--held-out"),
        (("--held-out", "OUT"), "is another output"),
        (("--held-out", "held.jsonl", "--held-share", "1.5"), "between 0 and 1"),
        (("--depth", "0"), "depth=0"),
        (("--found", "0"), "found=0"),
        (("--dataset", "hotpot"), "hotpotqa"),
        (("--data", "nowhere.json"), "nowhere.json"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_written(
    shared_data: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    out = tmp_path / "train.jsonl"
    error = command(shared_data, "--out", out, *[out if one == "OUT" else one for one in arguments]).exception
    assert isinstance(error, UsageError | FileError | FileNotFoundError)
    assert told in str(error)
    assert not out.exists()
