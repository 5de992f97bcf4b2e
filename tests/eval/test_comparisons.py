"""Single comparisons: what counts as right, what is asked again, and what a figure is held against."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

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
from rankr1_eval.retrieval.bm25 import bm25, scores_at
from rankr1_eval.types import StageError
from rankr1_rag import Passage, Query, Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.errors import BackendError, FileError
from rankr1_rag.train.data import Example, TrainingSet
from rankr1_rag.types import Message

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


def reranker(model: Model, **settings: object) -> Reranker:
    return Reranker(Scripted(model), **{"k": 1, "size": 4, "in_flight": 1, **settings})  # type: ignore[arg-type]


def result(path: Path, examples: Sequence[Example], say: Say, draws: int = 2, **settings: object) -> ComparisonScores:
    """The figures of a model that says so."""
    sets = drawn(examples, size=4, hard=None, seed=1, draws=draws)
    asked = reranker(Model(say), **settings)
    with opened(path / "out.jsonl", asked, None) as records:
        assert sorted(ask(records, sets, asked)) == sorted(sets)
        return score(sets, answers(records, sets), rivals(sets, examples))


def test_every_positive_is_asked_about_among_negatives_alone() -> None:
    sets = drawn(made(5), size=4, hard=3, seed=1, draws=3)
    assert len(sets) == 5 * 2 * 3
    for one in sets.values():
        assert ["deep" in passage.text for passage in one.passages].index(True) == one.right
        assert sum("deep" in passage.text for passage in one.passages) == 1


def test_more_draws_and_more_examples_keep_the_sets_that_were() -> None:
    few = drawn(made(5), size=4, hard=None, seed=1)
    more = drawn(made(8), size=4, hard=None, seed=1, draws=3)
    assert few.items() <= more.items()
    assert not few.keys() & drawn(made(5), size=4, hard=None, seed=2).keys()
    assert not few.keys() & drawn(made(5), size=5, hard=None, seed=1).keys()


KNOWN = [replace(example, known=(Passage("k", "a pond"),)) for example in made(2)]


@pytest.mark.parametrize(
    ("draws", "examples", "told"),
    [(0, made(2), "draws=0"), (1, made(2) * 2, "duplicate example"), (1, KNOWN, "made without --known")],
)
def test_what_would_count_nothing_or_double_is_refused(draws: int, examples: list[Example], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        drawn(examples, size=4, hard=None, seed=1, draws=draws)


def test_a_perfect_model_is_always_right_and_stands_where_the_right_ones_do(tmp_path: Path) -> None:
    found = result(tmp_path, made(30), perfect)
    right = found.all.accuracy[MODEL]
    assert (right.mean, right.low, right.high, right.n) == (1, 1, 1, 30)
    assert (found.all.comparisons, found.all.questions) == (120, 30)
    assert found.places[MODEL] == found.places[RIGHT]
    assert sum(place.mean for place in found.places[MODEL]) == pytest.approx(4)
    assert found.format is not None
    assert (found.format.mean, found.unparsed, found.forced) == (1, 0, 0)
    assert found.all.accuracy["bm25"].mean == 1, "here words tell all"
    assert found.all.differences["bm25"].mean == 0
    assert found.all.differences["first"].low > 0
    json.dumps(found.to_json())


def test_whoever_names_the_first_shown_is_no_better_than_always_first(tmp_path: Path) -> None:
    found = result(tmp_path, made(30), always_first)
    assert found.all.accuracy[MODEL] == found.all.accuracy["first"]
    assert found.all.accuracy[MODEL].mean == pytest.approx(0.25, abs=0.12)
    assert (found.all.differences["first"].mean, found.all.differences["first"].p) == (0, 1)
    assert [place.mean for place in found.places[MODEL]] == [4, 0, 0, 0]


def test_what_cannot_be_read_is_wrong_and_counts_for_no_place(tmp_path: Path) -> None:
    def mumbles(lines: Sequence[str]) -> str:
        return perfect(lines) if "deep" in lines[0] else "The last one, perhaps."

    found = result(tmp_path, made(30), mumbles, force="never")
    first = found.all.accuracy["first"].mean
    assert found.all.accuracy[MODEL].mean == pytest.approx(first)
    assert found.unparsed == round((1 - first) * 120)
    assert [place.mean for place in found.places[MODEL]] == [4, 0, 0, 0]
    assert found.format is not None
    assert found.format.mean == pytest.approx(first)


def test_a_model_that_never_answers_has_no_places(tmp_path: Path) -> None:
    nothing = result(tmp_path, made(3), lambda lines: "?", force="never")
    assert nothing.unparsed == 12
    assert nothing.places[MODEL] == ()
    assert nothing.all.accuracy[MODEL].mean == 0


def test_a_forced_label_counts_and_the_format_was_not_kept(tmp_path: Path) -> None:
    def says(messages: Sequence[Message]) -> str:
        return "2]</answer>" if messages[-1]["role"] == "assistant" else "I would say the second."

    sets = drawn(made(6), size=4, hard=None, seed=1)
    asked = Reranker(Scripted(says), k=1, size=4, force="unparsed")
    with opened(tmp_path / "out.jsonl", asked, None) as records:
        list(ask(records, sets, asked))
        found = score(sets, answers(records, sets), rivals(sets, made(6)))
        text = records[next(iter(sets))]["text"]
    assert text == "<think>I would say the second. </think> <answer>[2]</answer>"
    assert (found.forced, found.unparsed) == (12, 0)
    assert [place.mean for place in found.places[MODEL]] == [0, 4, 0, 0]
    assert found.format is not None
    assert found.format.mean == 0
    assert score(sets, answered_all(sets), {}, written=False).format is None


def answered_all(sets: dict[str, TrainingSet]) -> dict[str, ComparisonAnswer]:
    """What a perfect model makes of them."""
    return {id: ComparisonAnswer(one.right, True, False, 9) for id, one in sets.items()}


def test_the_form_is_held_to_the_letter(tmp_path: Path) -> None:
    found = result(tmp_path, made(5), lambda lines: f"Well. {perfect(lines)}")
    assert found.all.accuracy[MODEL].mean == 1
    assert found.format is not None
    assert found.format.mean == 0


def test_sources_are_told_apart(tmp_path: Path) -> None:
    def knows_lakes(lines: Sequence[str]) -> str:
        return perfect(lines) if any("lake 1" in line for line in lines) else "?"

    examples = [*made(1, source="b"), *made(12, source="a")]
    found = result(tmp_path, examples, knows_lakes, force="never")
    assert list(found.sources) == ["a", "b"]
    assert found.sources["b"].accuracy[MODEL].mean == 0
    assert found.sources["a"].questions == 12
    assert found.sources["a"].accuracy[MODEL].mean == pytest.approx(3 / 12)
    assert found.all.questions == 13, "equal ids of two sources are two questions"


def test_a_place_that_few_sets_have_is_measured_by_those(tmp_path: Path) -> None:
    examples = [*made(10, negatives=1), *made(10, negatives=9, source="sea")]
    found = result(tmp_path, examples, lambda lines: label(len(lines) - 1))
    assert found.places[MODEL][0].mean == 0
    assert found.places[MODEL][3].mean == 4
    assert found.places[MODEL][1].mean == pytest.approx(40 / (40 / 2 + 40 / 4))


def test_comparisons_of_one_question_are_one_piece_of_evidence(tmp_path: Path) -> None:
    def by_question(lines: Sequence[str]) -> str:
        number = re.search(r"lake (\d+)", " ".join(lines))
        return perfect(lines) if number and int(number[1]) % 2 else label(-1 + len(lines))

    (tmp_path / "a").mkdir()
    once = result(tmp_path / "a", made(40, positives=1), by_question, draws=1).all.accuracy[MODEL]
    often = result(tmp_path, made(40, positives=1), by_question, draws=8).all.accuracy[MODEL]
    assert once.n == often.n == 40
    assert often.high - often.low > 0.7 * (once.high - once.low), "eight times as many comparisons, no more questions"


def test_what_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    sets, path = drawn(made(20), size=4, hard=None, seed=1), tmp_path / "out.jsonl"
    breaks = Model(perfect, most=15)
    with opened(path, reranker(breaks), None) as records, pytest.raises(StageError, match="25 of 40"):
        list(ask(records, sets, reranker(breaks)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])  # as a killed process leaves it
    model = Model(perfect)
    with opened(path, reranker(model), None) as records:
        assert sorted(ask(records, sets, reranker(model))) == sorted(sets)
        assert model.asked == 40 - 15 + 1
        assert all(one.chosen == sets[id].right for id, one in answers(records, sets).items())
    again = Model(perfect)
    with opened(path, reranker(again), None) as records:
        list(ask(records, sets, reranker(again)))
    assert again.asked == 0


@pytest.mark.parametrize("changed", [{"reasoning_tokens": 7}, {"seed": 2}, {"size": 5}, {"passage_tokens": 9}])
def test_another_setting_is_told_by_name(tmp_path: Path, changed: dict[str, int]) -> None:
    asked = reranker(Model(perfect))
    with opened(tmp_path / "out.jsonl", asked, 20) as records:
        list(ask(records, drawn(made(1), size=4, hard=20, seed=1), asked))
    with pytest.raises(FileError, match=next(iter(changed))):
        opened(tmp_path / "out.jsonl", reranker(Model(perfect), **changed), 20)
    with pytest.raises(FileError, match="hard 20"):
        opened(tmp_path / "out.jsonl", reranker(Model(perfect)), 10)


def test_another_model_is_compared_on_the_same_sets(tmp_path: Path) -> None:
    examples, sets = made(30), drawn(made(30), size=4, hard=None, seed=1, draws=2)
    result(tmp_path, examples, always_first)
    other = elsewhere(tmp_path / "out.jsonl", sets)
    chosen = {"against": {id: one.chosen for id, one in other.items()}}
    found = score(sets, answered_all(sets), chosen)
    assert found.all.accuracy["against"].mean == pytest.approx(0.25, abs=0.12)
    change = found.all.differences["against"]
    assert change.mean == pytest.approx(1 - found.all.accuracy["against"].mean)
    assert change.low > 0
    assert change.p < 0.001


def test_other_sets_cannot_be_compared(tmp_path: Path) -> None:
    result(tmp_path, made(5), perfect, draws=1)
    path = tmp_path / "out.jsonl"
    for others, told in (
        (drawn(made(5), size=4, hard=None, seed=2), "lacks 10 of these 10 and has 10 others"),
        (drawn(made(6), size=4, hard=None, seed=1), "lacks 2 of these 12 and has 0 others"),
        (drawn(made(4), size=4, hard=None, seed=1), "lacks 0 of these 8 and has 2 others"),
    ):
        with pytest.raises(FileError, match=told):
            elsewhere(path, others)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileError, match="unfinished"):
        elsewhere(path, drawn(made(5), size=4, hard=None, seed=1))
    (tmp_path / "mine").write_text('{"id": "q1"}\n')
    with pytest.raises(FileError, match="not the records of 'comparisons'"):
        elsewhere(tmp_path / "mine", drawn(made(5), size=4, hard=None, seed=1))


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
    sets = drawn(examples, size=3, hard=None, seed=1, draws=3)
    assert rivals(sets, examples)["bm25"] == rivals(sets, examples)["first"] == dict.fromkeys(sets, 0)
