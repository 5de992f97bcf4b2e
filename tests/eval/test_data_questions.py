"""Questions of real samples: their number, pooled corpus, supports, types and hops."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from rankr1_eval.data import DATASETS, load
from rankr1_eval.types import passage_of, pooled

HOTPOTQA = "hotpotqa/dev_distractor_sample.json"
TWOWIKI = "2wikimultihopqa/dev_sample.json"
MUSIQUE = "musique/musique_ans_v1.0_dev_sample.jsonl"
DEV = [("hotpotqa", HOTPOTQA, 340, 3369), ("2wikimultihopqa", TWOWIKI, 327, 2267), ("musique", MUSIQUE, 100, 1769)]
TRAIN = [
    ("hotpotqa", "train/hotpotqa_train_500.jsonl", 500, 4968),
    ("2wikimultihopqa", "train/2wikimultihopqa_train_500.json", 500, 3112),
    ("musique", "train/musique_train_100.json", 100, 1890),
]


@pytest.mark.parametrize(("name", "file", "count", "corpus"), [*DEV, *TRAIN])
def test_a_sample_has_its_questions_and_its_pooled_corpus(
    shared_data: Path, name: str, file: str, count: int, corpus: int
) -> None:
    questions = load(name, shared_data / file)
    assert len(questions) == len({question.query.id for question in questions}) == count
    assert len(pooled(questions)) == corpus


@pytest.mark.parametrize(("name", "file", "count", "corpus"), [*DEV, *TRAIN])
def test_every_support_is_an_own_paragraph(shared_data: Path, name: str, file: str, count: int, corpus: int) -> None:
    for question in load(name, shared_data / file):
        assert question.supports
        assert len(set(question.supports)) == len(question.supports)
        assert set(question.supports) <= {passage.id for passage in question.passages}
        assert question.answers[0].strip()


@pytest.mark.parametrize(
    ("name", "file", "kinds"),
    [
        ("hotpotqa", HOTPOTQA, {("bridge", 2, 2): 277, ("comparison", 2, 2): 63}),
        (
            "2wikimultihopqa",
            TWOWIKI,
            {
                ("compositional", 2, 2): 127,
                ("bridge_comparison", 4, 4): 83,
                ("comparison", 2, 2): 75,
                ("inference", 2, 2): 42,
            },
        ),
        (
            "musique",
            MUSIQUE,
            {
                ("2hop", 2, 2): 75,
                ("3hop1", 3, 3): 13,
                ("4hop1", 4, 4): 8,
                ("4hop3", 4, 4): 3,
                ("3hop2", 3, 3): 1,
            },
        ),
    ],
)
def test_types_and_hops_are_those_of_the_data_and_each_hop_has_a_support(
    shared_data: Path, name: str, file: str, kinds: dict[tuple[str, int, int], int]
) -> None:
    questions = load(name, shared_data / file)
    assert Counter((question.type, question.hops, len(question.supports)) for question in questions) == kinds


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, file, *_ in DEV])
def test_the_ids_are_those_that_official_predictions_have(shared_data: Path, name: str, file: str) -> None:
    items = json.loads((shared_data / "golden/official_answer_scores.json").read_text())[name]["items"]
    assert [question.query.id for question in load(name, shared_data / file)] == list(items)


def test_a_text_is_its_sentences_as_the_data_set_spaces_them(shared_data: Path) -> None:
    hotpotqa, twowiki = load("hotpotqa", shared_data / HOTPOTQA), load("2wikimultihopqa", shared_data / TWOWIKI)
    first = json.loads((shared_data / HOTPOTQA).read_text())[0]["context"][0]
    assert hotpotqa[0].passages[0] == passage_of(first[0], "".join(first[1]).strip())
    assert not any("  " in passage.text for passage in hotpotqa[0].passages)
    second = json.loads((shared_data / TWOWIKI).read_text())[0]["context"][1]
    assert twowiki[0].passages[1] == passage_of(second[0], " ".join(second[1]).strip())


def test_supports_of_musique_are_those_of_its_decomposition(shared_data: Path) -> None:
    records = [json.loads(line) for line in (shared_data / MUSIQUE).read_text().splitlines()]
    for record, question in zip(records, load("musique", shared_data / MUSIQUE), strict=True):
        steps = {step["paragraph_support_idx"] for step in record["question_decomposition"]}
        assert {question.passages[step].id for step in steps} == set(question.supports)


def test_aliases_of_musique_stand_behind_its_answer(shared_data: Path) -> None:
    questions = load("musique", shared_data / MUSIQUE)
    assert sum(len(question.answers) > 1 for question in questions) == 35


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, file, *_ in DEV])
def test_a_gzipped_file_gives_the_same(shared_data: Path, tmp_path: Path, name: str, file: str) -> None:
    packed = tmp_path / f"{Path(file).name}.gz"
    packed.write_bytes(gzip.compress((shared_data / file).read_bytes()))
    assert load(name, packed) == load(name, shared_data / file)


def test_a_pretty_printed_list_and_lines_give_the_same_as_the_official_list(shared_data: Path, tmp_path: Path) -> None:
    records = json.loads((shared_data / HOTPOTQA).read_text())[:20]
    (tmp_path / "list.json").write_text(json.dumps(records, indent=2))
    (tmp_path / "lines.jsonl").write_text("\n\n".join(map(json.dumps, records)))
    expected = load("hotpotqa", shared_data / HOTPOTQA)[:20]
    assert load("hotpotqa", tmp_path / "list.json") == load("hotpotqa", tmp_path / "lines.jsonl") == expected


def test_a_distractor_file_is_read_alike_under_the_fullwiki_name(shared_data: Path) -> None:
    assert load("hotpotqa-fullwiki", shared_data / HOTPOTQA) == load("hotpotqa", shared_data / HOTPOTQA)


def test_an_unknown_data_set_is_refused_with_those_known() -> None:
    with pytest.raises(ValueError, match=f"'squad' is unknown: must be one of {', '.join(DATASETS)}"):
        load("squad", "file.json")
