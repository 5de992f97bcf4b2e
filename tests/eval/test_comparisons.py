"""Single comparisons: what counts as right, what is asked again, and what a figure is held against."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rankr1_eval.cli.app import app
from rankr1_eval.comparisons import (
    MODEL,
    RIGHT,
    ComparisonAnswer,
    ComparisonScores,
    answers,
    ask,
    drawn,
    elsewhere,
    opened,
    rivals,
    score,
)
from rankr1_eval.data import load
from rankr1_eval.retrieval.bm25 import bm25, scores_at
from rankr1_eval.training_examples import examples
from rankr1_eval.types import StageError
from rankr1_rag import Passage, Query, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendError, FileError
from rankr1_rag.train.data import Example, write_examples
from rankr1_rag.types import Message
from tests.cli.conftest import JudgeServer

Say = Callable[[Sequence[str]], str]
"""What a model says to the passages that it is shown."""


def made(n: int, positives: int = 2, negatives: int = 9, source: str = "lakes") -> list[Example]:
    """Examples whose positives, and nothing else, hold the word "deep"."""
    return [
        Example(
            Query(f"{source}{q}", f"how deep is lake {q}"),
            tuple(Passage(f"{q}+{p}", f"lake {q} is {p} deep", f"Lake {q}") for p in range(positives)),
            tuple(Passage(f"{q}-{p}", f"the {q} shores of {p}", f"Shore {p}") for p in range(negatives)),
            source,
        )
        for q in range(n)
    ]


def label(place: int) -> str:
    return f"<think>that one</think> <answer>[{place + 1}]</answer>"


def perfect(lines: Sequence[str]) -> str:
    return label(next(place for place, line in enumerate(lines) if "deep" in line))


def always_first(_lines: Sequence[str]) -> str:
    return label(0)


class Model:
    """Says what it is told to say of the passages shown, counts what it is asked, and fails after so many."""

    def __init__(self, say: Say, most: int = 10**9) -> None:
        self.say, self.most, self.asked = say, most, 0

    def __call__(self, messages: Sequence[Message]) -> str:
        if self.asked >= self.most:
            raise BackendError("out of order")
        self.asked += 1
        return self.say(re.findall(r"^\[\d+\] (.*)", messages[1]["content"], re.MULTILINE))


def reranker(model: Callable[[Sequence[Message]], str], **settings: object) -> Reranker:
    return Reranker(Scripted(model), **{"k": 1, "size": 4, "in_flight": 1, **settings})  # type: ignore[arg-type]


four = partial(drawn, size=4, hard=None, seed=1)
"""Sets of four passages."""


def result(
    path: Path,
    examples: Sequence[Example],
    model: Callable[[Sequence[Message]], str],
    draws: int = 2,
    **settings: object,
) -> ComparisonScores:
    """The figures of this model."""
    sets, asked = four(examples, draws=draws), reranker(model, **settings)
    with opened(path / "out.jsonl", asked, None) as records:
        assert sorted(ask(records, sets, asked)) == sorted(sets)
        return score(sets, answers(records, sets), rivals(sets, examples))


def test_every_positive_is_asked_about_among_negatives_alone() -> None:
    sets = drawn(made(5), size=4, hard=3, seed=1, draws=3)
    assert len(sets) == 5 * 2 * 3
    for one in sets.values():
        assert [place for place, passage in enumerate(one.passages) if "deep" in passage.text] == [one.right]


def test_more_draws_and_more_examples_keep_the_sets_that_were() -> None:
    few = four(made(5))
    assert few.items() <= four(made(8), draws=3).items()
    assert not few.keys() & (four(made(5), seed=2).keys() | four(made(5), size=5).keys())


@pytest.mark.parametrize("size", [1, 4])
def test_of_scores_the_highest_is_chosen_however_many_comparisons_give_them(tmp_path: Path, size: int) -> None:
    def scored(messages: Sequence[Message]) -> str:
        lines = re.findall(r"^\[(\d+)\]\. (.*)", messages[1]["content"], re.MULTILINE)
        return f"<answer>{json.dumps({f'[{label}]': 9 if 'deep' in text else 1 for label, text in lines})}</answer>"

    found = result(tmp_path, made(5), scored, format="grouprank", size=size)
    assert (found.all.accuracy["model"].mean, found.unparsed) == (1, 0)


KNOWN = [replace(example, known=(Passage("k", "a pond"),)) for example in made(2)]


@pytest.mark.parametrize(
    ("draws", "examples", "told"),
    [(0, made(2), "draws=0"), (1, made(2) * 2, "duplicate example"), (1, KNOWN, "made without --known")],
)
def test_what_would_count_nothing_or_double_is_refused(draws: int, examples: list[Example], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        four(examples, draws=draws)


@pytest.mark.parametrize(
    ("say", "right", "format", "parsed", "places"),
    [
        (perfect, 1, 1, 1, RIGHT),
        (lambda lines: f"Well. {perfect(lines)}", 1, 0, 1, RIGHT),
        (always_first, "first", 1, 1, [4, 0, 0, 0]),
        (lambda lines: perfect(lines) if "deep" in lines[0] else "The last?", "first", "first", "first", [4, 0, 0, 0]),
        (lambda _: "?", 0, 0, 0, []),
    ],
    ids=["perfect", "another form", "always the first", "unparsed but for the first", "never an answer"],
)
def test_what_is_read_counts_as_right_for_its_place_and_for_the_format(
    tmp_path: Path, say: Say, right: object, format: object, parsed: object, places: object
) -> None:
    found = result(tmp_path, made(30), Model(say), force="never")
    first = found.all.accuracy["first"]
    share = {"first": first.mean, 0: 0.0, 1: 1.0}
    assert (found.all.comparisons, found.all.questions, found.forced) == (120, 30, 0)
    assert first.mean == pytest.approx(0.25, abs=0.12)
    assert found.all.accuracy[MODEL].mean == pytest.approx(share[right])
    assert found.all.differences["first"].mean == pytest.approx(share[right] - first.mean)
    assert found.all.accuracy["bm25"].mean == 1, "here the words are enough"
    assert found.all.differences["bm25"].mean == pytest.approx(share[right] - 1)
    assert found.format is not None
    assert found.format.mean == pytest.approx(share[format])
    assert found.unparsed == round((1 - share[parsed]) * 120)
    means = [place.mean for place in found.places[MODEL]]
    assert means == ([place.mean for place in found.places[RIGHT]] if places == RIGHT else places)
    assert json.loads(json.dumps(asdict(found)))["all"]["comparisons"] == 120


def test_a_forced_label_counts_and_the_format_was_not_kept(tmp_path: Path) -> None:
    def says(messages: Sequence[Message]) -> str:
        return "2]</answer>" if messages[-1]["role"] == "assistant" else "I would say the second."

    found = result(tmp_path, made(6), says, force="unparsed")
    assert (
        '"text": "<think>I would say the second. </think> <answer>[2]</answer>"' in (tmp_path / "out.jsonl").read_text()
    )
    assert (found.forced, found.unparsed) == (24, 0)
    assert [place.mean for place in found.places[MODEL]] == [0, 4, 0, 0]
    assert found.format is not None
    assert found.format.mean == 0


def test_sources_are_told_apart(tmp_path: Path) -> None:
    def knows_lakes(lines: Sequence[str]) -> str:
        return perfect(lines) if any("lake 1" in line for line in lines) else "?"

    examples = [*made(1, source="b"), *made(12, source="a")]
    found = result(tmp_path, examples, Model(knows_lakes), force="never")
    assert list(found.sources) == ["a", "b"]
    assert found.sources["b"].accuracy[MODEL].mean == 0
    assert found.sources["a"].questions == 12
    assert found.sources["a"].accuracy[MODEL].mean == pytest.approx(3 / 12)
    assert found.all.questions == 13, "equal ids of two sources are two questions"


def test_a_place_that_few_sets_have_is_measured_by_those(tmp_path: Path) -> None:
    examples = [*made(10, negatives=1), *made(10, negatives=9, source="sea")]
    found = result(tmp_path, examples, Model(lambda lines: label(len(lines) - 1)))
    assert found.places[MODEL][0].mean == 0
    assert found.places[MODEL][3].mean == 4
    assert found.places[MODEL][1].mean == pytest.approx(40 / (40 / 2 + 40 / 4))


def test_comparisons_of_one_question_are_one_piece_of_evidence(tmp_path: Path) -> None:
    def by_question(lines: Sequence[str]) -> str:
        number = re.search(r"lake (\d+)", " ".join(lines))
        return perfect(lines) if number and int(number[1]) % 2 else label(-1 + len(lines))

    found = []
    for draws in (1, 8):
        (folder := tmp_path / str(draws)).mkdir()
        found.append(result(folder, made(40, positives=1), Model(by_question), draws).all.accuracy[MODEL])
    once, often = found
    assert once.n == often.n == 40
    assert often.high - often.low > 0.7 * (once.high - once.low), "eight times as many comparisons, no more questions"


def test_what_failed_is_asked_again_and_nothing_else(tmp_path: Path) -> None:
    model = Model(perfect, most=15)
    with pytest.raises(StageError, match="25 of 40"):
        result(tmp_path, made(20), model, draws=1)
    model.most = 40
    assert result(tmp_path, made(20), model, draws=1) == result(tmp_path, made(20), model, draws=1)
    assert model.asked == 40


def test_another_setting_is_told_by_name(tmp_path: Path) -> None:
    asked, path = reranker(Model(perfect)), tmp_path / "out.jsonl"
    with opened(path, asked, 20) as records:
        list(ask(records, four(made(1), hard=20), asked))
    for name, value in {"reasoning_tokens": 7, "seed": 2, "size": 5, "passage_tokens": 9}.items():
        with pytest.raises(FileError, match=name):
            opened(path, reranker(Model(perfect), **{name: value}), 20)
    with pytest.raises(FileError, match="hard 20"):
        opened(path, asked, 10)


def test_another_model_is_compared_on_the_same_sets(tmp_path: Path) -> None:
    result(tmp_path, made(30), Model(always_first))
    sets = four(made(30), draws=2)
    chosen = {"against": {id: one.chosen for id, one in elsewhere(tmp_path / "out.jsonl", sets).items()}}
    perfect = {id: ComparisonAnswer(one.right, True, False, 9) for id, one in sets.items()}
    found = score(sets, perfect, chosen, written=False)
    accuracy, change = found.all.accuracy, found.all.differences["against"]
    assert (accuracy[MODEL].low, accuracy[MODEL].high, accuracy[MODEL].n) == (1, 1, 30)
    assert accuracy["against"].mean == pytest.approx(0.25, abs=0.12)
    assert change.mean == pytest.approx(1 - accuracy["against"].mean)
    assert change.low > 0
    assert change.p < 0.001
    assert found.format is None


def test_other_sets_cannot_be_compared(tmp_path: Path) -> None:
    result(tmp_path, made(5), Model(perfect), draws=1)
    path = tmp_path / "out.jsonl"
    whole = path.read_bytes()
    for content, others, told in (
        (whole, four(made(5), seed=2), "lacks 10 of these 10 and has 10 others"),
        (whole, four(made(6)), "lacks 2 of these 12 and has 0 others"),
        (whole, four(made(4)), "lacks 0 of these 8 and has 2 others"),
        (whole[:-9], four(made(5)), "unfinished"),
        (b'{"id": "q1"}\n', four(made(5)), "not the records of 'comparisons'"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match=told):
            elsewhere(path, others)


def test_bm25_gives_a_passage_the_score_that_it_has_in_a_run() -> None:
    corpus = [passage for example in made(4) for passage in (*example.positives, *example.negatives)]
    queries = [example.query for example in made(4)] + [Query("none", "zebra"), Query("empty", "")]
    run = bm25(corpus, queries, len(corpus))
    places = list(range(0, len(corpus), 3))
    found = scores_at(corpus, [(query.text, places) for query in queries])
    for query, scores in zip(queries, found, strict=True):
        by = {scored.id: scored.score for scored in run[query.id]}
        assert scores == [by[corpus[place].id] for place in places]


def test_whoever_knows_no_word_names_the_first_shown() -> None:
    examples = [Example(Query("q", "zebra"), (Passage("a", "a cat"),), (Passage("b", "a dog"), Passage("c", "a cow")))]
    sets = four(examples, size=3, draws=3)
    assert rivals(sets, examples)["bm25"] == rivals(sets, examples)["first"] == dict.fromkeys(sets, 0)


# The command.


@pytest.fixture
def held(tmp_path: Path) -> Path:
    write_examples(tmp_path / "held.jsonl", [*made(2), *made(2, source="sea")])
    return tmp_path / "held.jsonl"


def line(held: Path, out: Path, *more: object) -> list[str]:
    return ["comparisons", *map(str, (held, "--out", out, "--size", 3, *more))]


def test_killed_it_resumes_and_asks_nothing_twice(held: Path, tmp_path: Path, server: JudgeServer) -> None:
    def figures(out: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(CliRunner().invoke(app, line(held, out, *server.options, "--json")).stdout)
        return found

    server.judge, server.delay = Model(perfect), 0.05
    whole, torn, n = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl", 8
    asked = [sys.executable, "-m", "rankr1_eval", *line(held, torn, *server.options, "--requests", 1)]
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not torn.exists() or torn.read_bytes().count(b"\n") <= 2:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        process.kill()  # SIGKILL
    kept = torn.read_bytes().count(b"\n") - 1
    assert 2 <= kept < n
    before = len(server.prompts)
    found = figures(torn)
    assert len(server.prompts) - before == n - kept
    assert found == figures(whole)
    assert (found["all"]["comparisons"], found["all"]["questions"], list(found["sources"])) == (n, 4, ["lakes", "sea"])
    assert list(found["all"]["accuracy"]) == ["model", "first", "bm25"]
    assert sorted(torn.read_text().splitlines()) == sorted(whole.read_text().splitlines())
    told = CliRunner().invoke(app, line(held, torn, *server.options, "--against", whole))
    assert re.search(
        r"(?s)8 comparisons of 3 passages, 4 questions.*whole .*p = 1\.00.*format kept in 100\.0 %", told.stdout
    )
    write_examples(held, made(1))
    output = CliRunner().invoke(app, line(held, torn, *server.options)).output
    assert "torn.jsonlholds6morecomparisons" in "".join(output.split())  # a long path is wrapped anywhere
    assert len(server.prompts) == before + 2 * n - kept


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--size", "1"), "size=1: a whole number in 2..20 is needed"),
        (("--against", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--backend", "openai"), "model"),
        (("--votes", "3"), "No such option"),
        (("--draws", "0"), "--draws"),
        (("BAD",), "bad.jsonl:1: query 'q' has no negatives"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_asked(
    held: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "q", "query": "how deep", "positives": [{"id": "a", "text": "a"}], "negatives": []}\n')
    more = [str(bad) if one == "BAD" else one for one in arguments]
    done = CliRunner().invoke(app, line(held, tmp_path / "out.jsonl", *more))
    assert done.exit_code != 0
    assert told in f"{done.output} {done.exception}"
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.slow
def test_an_embedding_model_knows_more_than_chance(shared_data: Path, weights: str) -> None:
    real = examples(load("hotpotqa", shared_data / "train" / "hotpotqa_train_500.jsonl")[:6], 10).examples
    sets = four(real, size=5, draws=2)
    chosen = rivals(sets, real, weights)
    assert list(chosen) == ["first", "bm25", "dense"]
    right = {name: sum(choices[id] == one.right for id, one in sets.items()) for name, choices in chosen.items()}
    assert right["dense"] > 1.5 * right["first"]
