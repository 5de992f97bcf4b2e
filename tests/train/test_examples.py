"""Training examples from files: in every shape, whole again when written, and refused where nothing can be learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankr1_rag.errors import FileError
from rankr1_rag.train.data import Example, read_examples, share, write_examples
from rankr1_rag.types import Passage, Query


def file(folder: Path, *records: object) -> Path:
    path = folder / "examples.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def one(folder: Path, record: object) -> Example:
    (example,) = read_examples(file(folder, record))
    return example


FLEAS = Example(
    Query("7", "how long do fleas live"),
    (Passage("d1", "A year.", "Fleas"),),
    (Passage("d2", "Nine lives.", "Cats"), Passage("d3", "A day.")),
)


@pytest.mark.parametrize(
    "record",
    [
        {
            "id": 7,
            "query": "how long do fleas live",
            "positives": [{"id": "d1", "title": "Fleas", "text": "A year."}],
            "negatives": [{"id": "d2", "title": "Cats", "text": "Nine lives."}, {"id": "d3", "text": "A day."}],
        },
        {
            "query_id": "7",
            "query": "how long do fleas live",
            "positive_passages": [{"docid": "d1", "title": "Fleas", "text": "A year."}],
            "negative_passages": [
                {"docid": "d2", "title": "Cats", "text": "Nine lives."},
                {"docid": "d3", "title": "", "text": "A day."},
            ],
        },
        {
            "query": {"id": "7", "text": "how long do fleas live"},
            "pos": [{"id": "d1", "title": "Fleas", "text": "A year."}],
            "neg": [
                {"_id": "d2", "title": "Cats", "text": "Nine lives."},
                {"id": "d3", "title": None, "text": "A day."},
            ],
        },
    ],
    ids=["own", "Tevatron", "FlagEmbedding"],
)
def test_an_example_is_read_in_every_shape(tmp_path: Path, record: dict[str, Any]) -> None:
    assert one(tmp_path, record) == FLEAS
    assert one(tmp_path, record | {"source": "insects"}).source == "insects"
    known = one(tmp_path, record | {"known": [{"id": "d4", "title": "Lice", "text": "A month."}]})
    assert known == replace(FLEAS, known=(Passage("d4", "A month.", "Lice"),))


BARE = {"query": "which?", "positives": ["A", "B"], "negatives": ["C", "D"]}


def test_texts_alone_are_passages_and_ids_follow_from_the_content(tmp_path: Path) -> None:
    example = one(tmp_path, BARE)
    assert [passage.text for passage in example.positives + example.negatives] == ["A", "B", "C", "D"]
    later = read_examples(file(tmp_path, {"id": "q", **BARE}, BARE))[1]
    assert later == example
    ids = [passage.id for passage in example.positives + example.negatives] + [example.query.id]
    assert len({*ids, one(tmp_path, BARE | {"positives": ["A"]}).query.id}) == 6


def test_passages_that_come_again_are_read_once(tmp_path: Path) -> None:
    example = one(tmp_path, BARE | {"positives": ["A", "A"], "negatives": ["C", "D", "C"]})
    assert [passage.text for passage in example.positives + example.negatives] == ["A", "C", "D"]


def test_a_negative_that_says_what_a_positive_says_is_left_out(tmp_path: Path) -> None:
    same = {"id": "copy", "text": "A"}
    example = one(tmp_path, BARE | {"positives": [{"id": "p", "text": "A"}], "negatives": [same, "C"]})
    assert [passage.text for passage in example.negatives] == ["C"]


def test_several_files_are_one_list_and_may_use_the_same_ids(tmp_path: Path) -> None:
    write_examples(tmp_path / "a.jsonl", [FLEAS])
    write_examples(tmp_path / "b.jsonl.gz", [FLEAS])
    assert (tmp_path / "b.jsonl.gz").read_bytes().startswith(b"\x1f\x8b")
    assert read_examples(tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz") == [FLEAS, FLEAS]


@pytest.mark.parametrize(
    ("records", "line", "says"),
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
        (
            [BARE | {"positives": [{"id": "x", "text": "A"}], "negatives": [{"id": "x", "text": "C"}]}],
            1,
            "passage 'x' is both positive and negative",
        ),
        ([BARE | {"positives": [{"id": "x", "text": " "}]}], 1, "the positive 'x' is empty"),
        ([BARE | {"positives": "A"}], 1, 'field "positives" is a string where an array is needed'),
        ([BARE | {"negatives": ["C", 7]}], 1, "negatives[1]: the passage is a whole number"),
        ([BARE | {"negatives": [{"id": "x"}]}], 1, 'negatives[0]: field "text" or "contents" is missing'),
        ([BARE | {"source": 7}], 1, 'field "source" is a whole number'),
        ([{"id": "q", **BARE}, {"id": "r", **BARE}, {"id": "q", **BARE}], 3, "'q' appears twice, first in line 1"),
        ([BARE, BARE], 2, "appears twice, first in line 1"),
        ([[BARE]], 1, "the line is an array where an object is needed"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_line(
    tmp_path: Path, records: list[object], line: int | None, says: str
) -> None:
    with pytest.raises(FileError) as refused:
        read_examples(file(tmp_path, *records))
    assert refused.value.line == line
    assert says in refused.value.problem


def test_what_is_no_json_is_refused_with_its_line(tmp_path: Path) -> None:
    path = file(tmp_path, BARE)
    path.write_text(path.read_text() + "query\tpassage\n")
    with pytest.raises(FileError, match=r"examples.jsonl:2: not JSON"):
        read_examples(path)


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="name at least one"):
        read_examples()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"query": Query("7", "")}, "query '7' is empty"),
        ({"positives": ()}, "no positives"),
        ({"negatives": ()}, "no negatives"),
        ({"negatives": FLEAS.positives}, "both positive and negative"),
        ({"known": FLEAS.positives}, "passage 'd1' is both known and a candidate"),
        ({"known": FLEAS.negatives[1:]}, "passage 'd3' is both known and a candidate"),
    ],
)
def test_an_example_made_by_hand_is_held_to_the_same(changes: dict[str, Any], says: str) -> None:
    whole: dict[str, Any] = {"query": FLEAS.query, "positives": FLEAS.positives, "negatives": FLEAS.negatives}
    with pytest.raises(ValueError, match=says):
        Example(**(whole | changes))


TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
FULL = TEXT.filter(lambda text: bool(text.strip()))


@st.composite
def examples(draw: st.DrawFn) -> list[Example]:
    made = []
    for id in draw(st.lists(FULL, min_size=1, max_size=4, unique=True)):
        texts = draw(st.lists(FULL, min_size=2, max_size=6, unique=True))
        passages = tuple(Passage(f"{place}", text, draw(TEXT)) for place, text in enumerate(texts))
        cut = draw(st.integers(1, len(texts) - 1))
        end = draw(st.integers(cut + 1, len(texts)))
        made.append(Example(Query(id, draw(FULL)), passages[:cut], passages[cut:end], draw(TEXT), passages[end:]))
    return made


@given(examples())
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, made: list[Example]) -> None:
    path = tmp_path_factory.getbasetemp() / "written.jsonl"
    write_examples(path, made)
    assert read_examples(path) == made


def test_a_file_that_could_not_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    write_examples(path, [FLEAS])
    with pytest.raises(ValueError, match="no positives"):
        write_examples(path, (Example(FLEAS.query, FLEAS.positives[:n], FLEAS.negatives) for n in (1, 0)))
    assert read_examples(path) == [FLEAS]


MANY = [Example(Query(f"q{n}", "which?"), FLEAS.positives, FLEAS.negatives) for n in range(200)]


@given(st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True), st.integers())
def test_a_greater_share_holds_a_smaller_one_in_the_order_of_the_file(one: float, other: float, seed: int) -> None:
    less, more = sorted((one, other))
    small, great = share(MANY, less, seed), share(MANY, more, seed)
    assert [example for example in great if example in small] == small
    assert [example for example in MANY if example in great] == great
    assert len(small) == max(1, round(less * 200))


def test_a_share_follows_from_seed_and_ids_alone() -> None:
    drawn = [example.query.id for example in share(MANY, 0.02, 7)]
    assert {example.query.id for example in share(MANY[::-1], 0.02, 7)} == set(drawn)
    assert drawn == ["q6", "q78", "q109", "q186"]
    assert [example.query.id for example in share(MANY, 0.02, 8)] != drawn


@pytest.mark.parametrize("part", [0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(part: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        share(MANY, part, 0)


def test_the_real_samples_of_ms_marco_are_read(shared_data: Path, tmp_path: Path) -> None:
    hard = read_examples(shared_data / "train" / "msmarco_hard_negatives_10.jsonl")
    assert [len(example.negatives) for example in hard] == [25] * 10
    assert hard[2].query.text.strip()
    records = []
    for sample in json.loads((shared_data / "train" / "msmarco_qa_train_sample_200.json").read_text()):
        chosen = sample["passages"]["is_selected"]
        texts = [{"docid": str(n), "text": text} for n, text in enumerate(sample["passages"]["passage_text"])]
        passages = {kind: [text for text, right in zip(texts, chosen, strict=True) if right == kind] for kind in (0, 1)}
        if passages[0] and passages[1]:
            records.append({k: sample[k] for k in ("query_id", "query")})
            records[-1] |= {"positive_passages": passages[1], "negative_passages": passages[0]}
    tevatron = read_examples(file(tmp_path, *records))
    assert len(tevatron) == len(records) > 100
    assert tevatron[0].query.id == str(records[0]["query_id"])
