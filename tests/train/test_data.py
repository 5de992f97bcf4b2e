"""Training examples from files, the sets drawn from them, and the completions to learn."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.errors import FileError
from rankr1_rag.prompt import FORMATS
from rankr1_rag.train.data import (
    Example,
    TrainingSet,
    name,
    read_examples,
    readings,
    sets,
    share,
    target,
    write_examples,
)
from rankr1_rag.types import Passage, Query

NAMING, PLAIN, LISTWISE = FORMATS["naming-v1"], FORMATS["setwise-sft-v0.1"], FORMATS["listwise-v1"]
FLEAS = Example(
    Query("7", "how long do fleas live"),
    (Passage("d1", "A year.", "Fleas"),),
    (Passage("d2", "Nine lives.", "Cats"), Passage("d3", "A day.")),
)
FLEA = {"id": "d1", "title": "Fleas", "text": "A year."}
CATS = {"_id": "d2", "title": "Cats", "text": "Nine lives."}
A_DAY = {"docid": "d3", "title": "", "text": "A day."}
BARE = {"query": "which?", "positives": ["A", "B"], "negatives": ["C", "D"]}


def file(folder: Path, *records: object) -> Path:
    path = folder / "examples.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def one(folder: Path, record: object) -> Example:
    (example,) = read_examples(file(folder, record))
    return example


def texts(example: Example) -> list[str]:
    return [passage.text for passage in example.positives + example.negatives]


@pytest.mark.parametrize(
    "record",
    [
        {"id": 7, "positives": [FLEA], "negatives": [CATS, {"id": "d3", "text": "A day."}]},
        {"query_id": "7", "positive_passages": [FLEA], "negative_passages": [CATS, A_DAY]},
        {"query": {"id": "7", "text": "how long do fleas live"}, "pos": [FLEA], "neg": [CATS, A_DAY | {"title": None}]},
    ],
    ids=["own", "Tevatron", "FlagEmbedding"],
)
def test_an_example_is_read_in_every_shape(tmp_path: Path, record: dict[str, Any]) -> None:
    known = [{"id": "d4", "title": "Lice", "text": "A month."}]
    more = replace(FLEAS, source="insects", known=(Passage("d4", "A month.", "Lice"),))
    record = {"query": "how long do fleas live", **record}
    assert one(tmp_path, record) == FLEAS
    assert one(tmp_path, record | {"source": "insects", "known": known}) == more


def test_texts_alone_are_passages_and_ids_follow_from_the_content(tmp_path: Path) -> None:
    example = one(tmp_path, BARE)
    assert texts(example) == ["A", "B", "C", "D"]
    assert read_examples(file(tmp_path, {"id": "q", **BARE}, BARE))[1] == example
    ids = [passage.id for passage in example.positives + example.negatives] + [example.query.id]
    assert len({*ids, one(tmp_path, BARE | {"positives": ["A"]}).query.id}) == 6


def test_a_repeated_passage_and_a_negative_that_says_what_a_positive_says_are_left_out(tmp_path: Path) -> None:
    assert texts(one(tmp_path, BARE | {"positives": ["A", "A"], "negatives": ["C", "D", "C"]})) == ["A", "C", "D"]
    same = {"positives": [{"id": "p", "text": "A"}], "negatives": [{"id": "copy", "text": "A"}, "C"]}
    assert texts(one(tmp_path, BARE | same)) == ["A", "C"]


def test_several_files_are_one_list_and_may_use_the_same_ids(tmp_path: Path) -> None:
    write_examples(tmp_path / "a.jsonl", [FLEAS])
    write_examples(tmp_path / "b.jsonl.gz", [FLEAS])
    assert (tmp_path / "b.jsonl.gz").read_bytes().startswith(b"\x1f\x8b")
    assert read_examples(tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz") == [FLEAS, FLEAS]
    with pytest.raises(ValueError, match="name at least one"):
        read_examples()


@pytest.mark.parametrize(
    ("records", "line", "problem"),
    [
        ([], None, "empty"),
        ([BARE | {"positives": []}], 1, "has no positives"),
        ([BARE | {"negatives": []}], 1, "has no negatives"),
        ([BARE | {"positives": None}], 1, '"positives" or "positive_passages" or "pos" is missing or null'),
        ([{"query": "which?", "positives": ["A"]}], 1, '"negatives" or "negative_passages" or "neg" is missing'),
        ([BARE | {"query": " "}], 1, "is empty: there is nothing to choose by"),
        ([{"positives": ["A"], "negatives": ["B"]}], 1, '"query" is missing'),
        ([BARE | {"query": 7}], 1, "a string or an object is needed"),
        ([BARE | {"negatives": ["C", "A"]}], 1, "is both positive and negative"),
        ([BARE | {"known": ["K", "A"]}], 1, "is both known and a candidate"),
        ([BARE | {"known": ["D"]}], 1, "is both known and a candidate"),
        ([BARE | {"positives": [{"id": "x", "text": " "}]}], 1, "the positive 'x' is empty"),
        ([BARE | {"positives": "A"}], 1, 'field "positives" is a string where an array is needed'),
        ([BARE | {"negatives": ["C", 7]}], 1, "negatives[1]: the passage is a whole number"),
        ([BARE | {"negatives": [{"id": "x"}]}], 1, 'negatives[0]: field "text" or '),
        ([BARE | {"source": 7}], 1, 'field "source" is a whole number'),
        ([{"id": "q", **BARE}, {"id": "r", **BARE}, {"id": "q", **BARE}], 3, "'q' appears twice, first in line 1"),
        ([BARE, BARE], 2, "appears twice, first in line 1"),
        ([[BARE]], 1, "the line is an array where an object is needed"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_line(
    tmp_path: Path, records: list[object], line: int | None, problem: str
) -> None:
    with pytest.raises(FileError) as refused:
        read_examples(file(tmp_path, *records))
    assert refused.value.line == line
    assert problem in refused.value.problem


TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
FULL = TEXT.filter(lambda text: bool(text.strip()))


@st.composite
def any_examples(draw: st.DrawFn) -> list[Example]:
    made = []
    for id in draw(st.lists(FULL, min_size=1, max_size=4, unique=True)):
        texts = draw(st.lists(FULL, min_size=2, max_size=6, unique=True))
        passages = tuple(Passage(f"{place}", text, draw(TEXT)) for place, text in enumerate(texts))
        cut = draw(st.integers(1, len(texts) - 1))
        end = draw(st.integers(cut + 1, len(texts)))
        made.append(Example(Query(id, draw(FULL)), passages[:cut], passages[cut:end], draw(TEXT), passages[end:]))
    return made


@given(any_examples())
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, made: list[Example]) -> None:
    path = tmp_path_factory.getbasetemp() / "written.jsonl"
    write_examples(path, made)
    assert read_examples(path) == made


def test_a_file_that_could_not_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [FLEAS])
    with pytest.raises(ValueError, match="no positives"):
        write_examples(path, (replace(FLEAS, positives=FLEAS.positives[:n]) for n in (1, 0)))
    assert read_examples(path) == [FLEAS]


def test_the_real_samples_of_ms_marco_are_read(shared_data: Path) -> None:
    hard = read_examples(shared_data / "train" / "msmarco_hard_negatives_10.jsonl")
    assert [len(example.negatives) for example in hard] == [25] * 10
    assert hard[2].query.text.strip()


MANY = [replace(FLEAS, query=Query(f"q{n}", "which?")) for n in range(200)]


@given(st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True), st.integers())
def test_a_greater_share_holds_a_smaller_one_in_the_order_of_the_file(one: float, other: float, seed: int) -> None:
    less, more = sorted((one, other))
    small, great = share(MANY, less, seed), share(MANY, more, seed)
    assert [example for example in great if example in small] == small
    assert [example for example in MANY if example in great] == great
    assert len(small) == max(1, round(less * 200))


def test_a_share_follows_from_seed_and_ids_alone_and_is_one() -> None:
    drawn = [example.query.id for example in share(MANY, 0.02, 7)]
    assert {example.query.id for example in share(MANY[::-1], 0.02, 7)} == set(drawn)
    assert drawn == ["q6", "q78", "q109", "q186"]
    assert [example.query.id for example in share(MANY, 0.02, 8)] != drawn
    for part in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            share(MANY, part, 0)


# Sets


def example(id: str, positives: int = 1, negatives: int = 30) -> Example:
    right = tuple(Passage(f"{id}+{n}", f"right {n}") for n in range(positives))
    wrong = tuple(Passage(f"{id}-{n}", f"wrong {n}") for n in range(negatives))
    return Example(Query(id, f"query {id}"), right, wrong, f"source of {id}")


ANY = st.builds(example, st.text(max_size=3), st.integers(1, 3), st.integers(1, 25))
EXAMPLES = st.lists(ANY, max_size=6, unique_by=lambda one: one.query.id)
HARD = st.none() | st.integers(1, 30)
SETTINGS = st.fixed_dictionaries(
    {"size": st.integers(2, 20), "seed": st.integers(), "hard": HARD, "epoch": st.integers(0, 9)}
)


@given(EXAMPLES, SETTINGS)
def test_each_positive_is_shown_once_among_distinct_negatives(
    examples: list[Example], settings: dict[str, int]
) -> None:
    by = {one.query.id: one for one in examples}
    drawn = sets(examples, **settings)
    for one in drawn:
        of, shown = by[one.query.id], list(one.passages)
        hard = of.negatives[: settings["hard"]]
        assert shown.pop(one.right) in of.positives
        assert set(shown) <= set(hard)
        assert len(set(shown)) == len(shown) == min(settings["size"] - 1, len(hard)) > 0
        assert (one.query, one.source) == (of.query, of.source)
    met = [(one.query.id, one.passages[one.right].id) for one in drawn]
    assert sorted(met) == sorted((one.query.id, right.id) for one in examples for right in one.positives)


@given(EXAMPLES, SETTINGS, st.randoms())
def test_other_examples_change_no_set_and_no_order(
    examples: list[Example], settings: dict[str, int], chance: random.Random
) -> None:
    kept = [one for one in examples if chance.random() < 0.5]
    chance.shuffle(kept)
    ids = {one.query.id for one in kept}
    assert sets(kept, **settings) == [one for one in sets(examples, **settings) if one.query.id in ids]


def test_known_passages_are_shown_apart_and_not_to_choose_from() -> None:
    known = (Passage("k", "known"),)
    (plain,) = sets([example("q")], size=5, seed=1)
    assert sets([replace(example("q"), known=known)], size=5, seed=1) == [replace(plain, known=known)]


def test_the_global_state_of_chance_is_neither_used_nor_changed() -> None:
    random.seed(1)
    first, state = sets([example("a"), example("b")], size=5, seed=3), random.getstate()
    random.seed(2)
    assert sets([example("a"), example("b")], size=5, seed=3) == first
    random.seed(1)
    assert random.getstate() == state


def seen(drawn: list[TrainingSet]) -> list[list[str]]:
    return [[passage.id for passage in one.passages] for one in drawn]


def test_a_draw_is_the_same_in_every_python() -> None:
    assert seen(sets([example("a"), example("b", 2)], size=4, seed=7)) == [
        ["a+0", "a-21", "a-29", "a-28"],
        ["b+0", "b-2", "b-24", "b-18"],
        ["b-3", "b-0", "b+1", "b-15"],
    ]


def test_another_seed_or_epoch_draws_other_sets() -> None:
    examples = [example(str(n)) for n in range(20)]
    first, *others = (sets(examples, size=5, seed=seed, epoch=epoch) for seed, epoch in ((7, 0), (8, 0), (7, 1)))
    for other in others:
        assert [it.query.id for it in first] != [it.query.id for it in other]
        assert not {tuple(ids) for ids in seen(first)} & {tuple(ids) for ids in seen(other)}


def test_every_place_and_every_negative_gets_its_share() -> None:
    drawn = [one for epoch in range(400) for one in sets([example("a", 1, 8)], size=5, seed=0, epoch=epoch)]
    places = Counter(one.right for one in drawn)
    shown = Counter(passage.id for one in drawn for passage in one.passages)
    assert {*places} == {0, 1, 2, 3, 4}
    assert all(50 < count < 110 for count in places.values())
    assert all(160 < shown[f"a-{n}"] < 240 for n in range(8))


def test_another_size_is_refused() -> None:
    for changed in ({"size": 1}, {"size": 21}, {"size": 2.5}, {"size": True}, {"hard": 0}):
        ((name, value),) = changed.items()
        with pytest.raises(ValueError, match=f"{name}={value}: a whole number"):
            sets([example("a")], **{"size": 5, "seed": 0} | changed)


# Completions to learn


@pytest.mark.parametrize(
    ("passage", "named"),
    [
        (Passage("d", "A year.", "Fleas and ticks of the far north of Norway"), None),
        (Passage("d", "A flea can live up to a year, but"), "A flea can live up to"),
        (Passage("d", "A\n flea"), "A flea"),
        (Passage("d", "one two three four five six seven", " \n"), "one two three four five six"),
        (Passage("d", "A year.", "  Fleas\n(insects) "), "Fleas (insects)"),
        (Passage("d", "A year.", "a " * 20), "a a a a a a a a a a a a"),
        (Passage("d", "[3] is best </think> <answer>[1]</answer> so"), "(3) is best (/think) (answer)(1)(/answer) so"),
        (Passage("d", "A year.", "</think><|im_end|>"), "(/think)(im_end)"),
        (Passage("d", "Born [1] in 1900 [2, 3] or so"), "Born (1) in 1900 (2,"),
    ],
)
def test_a_passage_is_named_by_its_title_or_six_of_its_words(passage: Passage, named: str | None) -> None:
    named = named or passage.title
    assert named_alone(passage) == named
    assert target("label", 3, NAMING, named) == target("label", 3, PLAIN) == "<answer>[3]</answer>"
    assert target("naming", 3, NAMING, named) == f"<think> {named} </think> <answer>[3]</answer>"
    of_the_format = f"<think> {named} </think>\n<answer>[3]</answer>"
    assert target("naming", 3, FORMATS["rank-r1-v0.2"], named) == of_the_format
    behind = f"<think> [3] {named} </think> <answer>[3]</answer>"  # the label is behind the passage in the prompt, too
    assert target("naming", 3, FORMATS["naming-v2"], named) == behind


def named_alone(passage: Passage) -> str:
    """The name of a passage that is shown alone and whole."""
    return name(TrainingSet(Query("q", "which"), (passage,), 0, ""), [NAMING.line(passage)], NAMING)


@given(st.text(), st.sampled_from(["[3]", "<think>", "</answer>", "<answer>[2]</answer>", "[[1]2]", "<|im_end|>"]))
def test_nothing_in_a_passage_becomes_a_label_or_a_tag(text: str, evil: str) -> None:
    half = len(text) // 2
    for passage in (Passage("d", text[:half] + evil + text[half:]), Passage("d", text, text[:half] + evil)):
        named = named_alone(passage)
        written = target("naming", 3, NAMING, named)
        assert not re.search(r"[\[\]\n]|</?(?:think|answer)>|<\|im_end\|>", named, re.IGNORECASE)
        assert NAMING.strict(written, 5) == NAMING.parse(written, 5) == (2,)
        assert NAMING.reasoning_of(written) == named.strip()


@given(st.text(st.characters(exclude_characters="[]<>…")), st.text(st.characters(exclude_characters="[]<>…")))
def test_a_name_is_copied_from_what_the_prompt_shows(title: str, text: str) -> None:
    passage = Passage("d", text, title)
    assert named_alone(passage) in " ".join(NAMING.line(passage).split())


def test_words_are_quoted_where_the_answer_is_or_else_where_the_query_is() -> None:
    story = "There was no king. He had three sons and a horse. The youngest rode to the glass hill at night."
    other = Passage("o", "Of something else", "Tales")
    for query, answer, named in (
        ("who rode to the hill", "", "rode to the glass hill at"),
        ("who was first", "three sons", "He had three sons and a"),
        ("who rode to the hill", "nobody", "rode to the glass hill at"),  # not in the text
        ("who rode to the hill", "lass", "rode to the glass hill at"),  # a part of a word
        ("did one ride to the hill at night", "no", "to the glass hill at night."),
    ):
        drawn = TrainingSet(Query("q", query), (other, Passage("p", story, "Tales")), 1, "", answer=answer)
        assert name(drawn, [f"Tales {other.text}", f"Tales {story}"], NAMING) == named
    cut = "Tales … three sons and a horse. …"
    assert name(drawn, [f"Tales {other.text}", cut], NAMING) == "three sons and a horse."


def test_a_format_that_cannot_hold_the_target_is_refused() -> None:
    for kind, label, format, problem in (
        ("naming", 3, PLAIN, r"'setwise-sft-v0\.1' has no reasoning"),
        ("label", 3, LISTWISE, "'listwise-v1' needs whole orders"),
        ("label", 0, PLAIN, "labels count from 1"),
    ):
        with pytest.raises(ValueError, match=problem):
            target(kind, label, format, "Fleas")


def test_sizes_of_sets_are_drawn_from_the_smallest_on() -> None:
    passages = [Passage(f"n{n}", f"text {n}") for n in range(9)]
    many = [Example(Query(f"q{n}", f"query {n}"), (Passage("p", "right"),), tuple(passages)) for n in range(60)]
    assert {len(one.passages) for one in sets(many, size=5, seed=0, smallest=2)} == {2, 3, 4, 5}
    assert {len(one.passages) for one in sets(many, size=5, seed=0)} == {5}


def answered(count: int = 200) -> list[Example]:
    """Examples with two positives, eight negatives and an answer."""
    right = (Passage("p1", "first"), Passage("p2", "second"))
    wrong = tuple(Passage(f"n{n}", f"text {n}") for n in range(8))
    return [Example(Query(f"q{n}", f"query {n}"), right, wrong, answer=f"answer {n}") for n in range(count)]


def test_a_reading_shows_all_positives_or_has_no_answer() -> None:
    found = readings(answered(), size=5, seed=0, missing=0.25)
    assert found == readings(answered(), size=5, seed=0, missing=0.25) != readings(answered(), size=5, seed=1)
    assert {len(one.passages) for one in found} == {5}
    for one in found:
        assert ({"p1", "p2"} <= {passage.id for passage in one.passages}) == bool(one.answer)
    assert 30 < sum(not one.answer for one in found) < 70
    first = sum(one.passages[0].id in ("p1", "p2") for one in found)
    assert 120 < first < 200  # more often than not, and not always


def test_what_has_no_answer_or_too_many_positives_is_not_read() -> None:
    plain, *rest = answered(3)
    assert len(readings([replace(plain, answer=""), *rest], size=2, seed=0)) == 2
    with pytest.raises(ValueError, match='no example has an "answer"'):
        readings(answered(3), size=1, seed=0)


def test_answers_are_read_and_written(tmp_path: Path) -> None:
    write_examples(tmp_path / "some.jsonl", answered(2))
    assert read_examples(tmp_path / "some.jsonl") == answered(2)
