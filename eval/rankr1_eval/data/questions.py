"""2WikiMultihopQA (Ho et al., 2020, https://github.com/Alab-NII/2wikimultihop).

One record of `dev.json`, a JSON list, shortened:

    {"_id": "8f3a", "type": "compositional", "question": "Who is the mother of the director of film The Film?",
     "context": [["The Film", ["The Film is a film.", "It was directed by The Director."]],
                 ["The Director", ["His mother is The Mother."]], …],
     "supporting_facts": [["The Film", 1], ["The Director", 0]],
     "evidences": [["The Film", "director", "The Director"], ["The Director", "mother", "The Mother"]],
     "answer": "The Mother"}

On the hub `context`, `supporting_facts` and `evidences` are strings of JSON, and sentences may be called `content`.
Sentences carry no spaces: one is put between them. Hops follow from the type, as the data set was made:
"bridge_comparison" compares the ends of two bridges and takes four paragraphs, the other types two. Knows nothing of
files.

What a data set of questions is to the loader: a name, a place on the hub, marks, and a reader of one record.

Knows no data set by name and no file.

Questions whose supports are named by the titles of paragraphs: HotpotQA, and 2WikiMultihopQA in the same shape.

Knows the shape; nothing of either data set's words.

HotpotQA, of the distractor and of the fullwiki setting (Yang et al., 2018, https://hotpotqa.github.io).

One record of `hotpot_dev_distractor_v1.json`, a JSON list, shortened:

    {"_id": "5abc", "answer": "Lower Saxony", "question": "In which state lies the town where the painter was born?",
     "supporting_facts": [["The Painter", 0], ["The Town", 1]],
     "context": [["The Painter", ["She was born in The Town.", " She painted."]],
                 ["The Town", ["A town.", " It lies in Lower Saxony."]], …],
     "type": "bridge", "level": "hard"}

On the hub `id` is `_id`, `context` {"title": […], "sentences": [[…], …]}, `supporting_facts` {"title": […],
"sent_id": […]}. Records with `paragraphs`, [{"title": …, "text": …, "is_gold": true}, …], are read too. Sentences carry
their own spaces. Each question takes two hops. In the fullwiki setting the paragraphs are what a retriever found, so a
support need not be among them. Knows nothing of files.

MuSiQue-Ans (Trivedi et al., 2022, https://github.com/StonyBrookNLP/musique).

One record of `musique_ans_v1.0_dev.jsonl`, JSON lines, shortened:

    {"id": "2hop__123_456",
     "paragraphs": [{"idx": 0, "title": "The Town", "paragraph_text": "It lies in The County.", "is_supporting": true},
                    {"idx": 1, "title": "The County", "paragraph_text": "Its seat is Seat.", "is_supporting": true}, …],
     "question": "What is the seat of the county of The Town?",
     "question_decomposition": [{"id": 123, "question": "The Town >> county", "answer": "The County",
                                 "paragraph_support_idx": 0}, …],
     "answer": "Seat", "answer_aliases": ["Seat City"], "answerable": true}

The hub has the same fields. The type is what the id begins with: "2hop", "3hop1" (a chain), "3hop2" (a fork), "4hop1"…;
hops are its number, or else the number of steps of the decomposition. Titles repeat within a question; supports are
flagged, not named. Questions that cannot be answered (MuSiQue-Full) are refused. Knows nothing of files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rankr1_eval.data.fields import Dataset, Hub, Json, answers_of, query_of, table, type_of
from rankr1_eval.types import Question, passage_of
from rankr1_rag.io.collection import of_kind
from rankr1_rag.types import Passage

TITLE = ("title",)


class Paragraph(NamedTuple):
    """A paragraph of a question, with the number of its sentences."""

    passage: Passage
    sentences: int


def titled(
    record: Json, joint: str, hops: Callable[[str], int | None], *, supports: bool, elsewhere: bool = False
) -> Question:
    """The question; a text is its sentences with `joint` between them, stripped; `hops` of a type.

    With `elsewhere` a support may be none of its own paragraphs: then its id stands for a title without a text, and
    is never found. Otherwise that is a ValueError, as is, with `supports`, to have no support.
    """
    query, answers, type = query_of(record), answers_of(record), type_of(record)
    if "context" not in record and "paragraphs" in record:
        passages, found = _flagged(record)
    else:
        paragraphs = _paragraphs(record, joint)
        passages = [paragraph.passage for paragraph in paragraphs]
        facts = _facts(record, supports)
        found = [id for title, last in facts.items() if (id := _named(paragraphs, title, last, elsewhere, supports))]
    if supports and not found:
        raise ValueError("no support: a test split, whose supports are not public? Take the dev or the train file")
    return Question(query, answers, tuple(dict.fromkeys(found)), tuple(dict.fromkeys(passages)), type, hops(type))


def _flagged(record: Json) -> tuple[list[Passage], list[str]]:
    """Paragraphs with whole texts that say themselves whether they are supports."""
    rows = table(record, "paragraphs", (TITLE, ("text",), ("is_gold",)))
    passages = []
    supports = []
    for number, (title, text, gold) in enumerate(rows, start=1):
        what = f"of paragraph {number}"
        passages.append(passage_of(of_kind(f"title {what}", title, "a string"), _text(what, text, "").strip()))
        if of_kind(f'"is_gold" {what}', gold, "a boolean"):
            supports.append(passages[-1].id)
    return passages, supports


def _paragraphs(record: Json, joint: str) -> list[Paragraph]:
    paragraphs = []
    for number, (title, sentences) in enumerate(table(record, "context", (TITLE, ("sentences", "content"))), start=1):
        what = f"of paragraph {number}"
        text = _text(what, sentences, joint).strip()
        count = len(sentences) if not isinstance(sentences, str) else 0
        paragraphs.append(Paragraph(passage_of(of_kind(f"title {what}", title, "a string"), text), count))
    return paragraphs


def _text(what: str, sentences: object, joint: str) -> str:
    if isinstance(sentences, str):
        return sentences
    found = of_kind(f"the sentences {what}", sentences, "an array")
    return joint.join(of_kind(f"a sentence {what}", sentence, "a string") for sentence in found)


def _facts(record: Json, supports: bool) -> dict[str, int]:
    """Title of each support to the last of its sentences that is named, in file order."""
    if not supports and record.get("supporting_facts") is None:
        return {}
    last: dict[str, int] = {}
    for title, sentence in table(record, "supporting_facts", (TITLE, ("sent_id",))):
        of_kind("the title of a supporting fact", title, "a string")
        number = of_kind(f"the sentence of supporting fact {title!r}", sentence, "a whole number")
        last[title] = max(number, last.get(title, 0))
    return last


def _named(paragraphs: Sequence[Paragraph], title: str, last: int, elsewhere: bool, supports: bool) -> str | None:
    """The paragraph of that title; of several the first that has the named sentences, or else the first."""
    same = [paragraph for paragraph in paragraphs if paragraph.passage.title == title]
    if same:
        return next((found for found in same if found.sentences > last), same[0]).passage.id
    if elsewhere:
        return passage_of(title, "").id
    if supports:
        raise ValueError(f"support {title!r} is none of its own paragraphs: damaged, or a file of the fullwiki setting")
    return None


MARKS = frozenset({"level"})


def _two(_: str) -> int:
    return 2


def _distractor(record: Json, supports: bool) -> Question:
    return titled(record, "", _two, supports=supports)


def _fullwiki(record: Json, supports: bool) -> Question:
    return titled(record, "", _two, supports=supports, elsewhere=True)


HOTPOTQA = Dataset("hotpotqa", Hub("hotpotqa/hotpot_qa", "distractor"), MARKS, _distractor)
HOTPOTQA_FULLWIKI = Dataset("hotpotqa-fullwiki", Hub("hotpotqa/hotpot_qa", "fullwiki"), MARKS, _fullwiki)


COLUMNS = (("title",), ("paragraph_text",), ("is_supporting",))


def _musique(record: Json, supports: bool) -> Question:
    query = query_of(record)
    if record.get("answerable") is False:
        raise ValueError(
            "it cannot be answered (MuSiQue-Full): take the files of MuSiQue-Ans, musique_ans_v1.0_….jsonl"
        )
    answers = answers_of(record, "answer_aliases")
    type, hops = _type(query.id, record)
    passages: list[Passage] = []
    found: list[str] = []
    for number, row in enumerate(table(record, "paragraphs", COLUMNS), start=1):
        passage, supporting = _paragraph(f"of paragraph {number}", *row, supports=supports)
        passages.append(passage)
        if supporting:
            found.append(passage.id)
    if supports and not found:
        raise ValueError("no support: no paragraph has a true is_supporting")
    return Question(query, answers, tuple(dict.fromkeys(found)), tuple(dict.fromkeys(passages)), type, hops)


def _paragraph(what: str, title: object, text: object, supporting: object, *, supports: bool) -> tuple[Passage, bool]:
    if supporting is not None or supports:
        of_kind(f'"is_supporting" {what}', supporting, "a boolean")
    passage = passage_of(
        of_kind(f"the title {what}", title, "a string"), of_kind(f'"paragraph_text" {what}', text, "a string")
    )
    return passage, supporting is True


def _type(id: str, record: Json) -> tuple[str, int | None]:
    if named := re.match(r"(([0-9])hop[0-9]?)__", id):
        return named[1], int(named[2])
    steps = record.get("question_decomposition")
    return "", len(of_kind('field "question_decomposition"', steps, "an array")) if steps else None


MUSIQUE = Dataset(
    "musique",
    Hub("dgslibisey/MuSiQue"),
    frozenset({"question_decomposition", "answerable", "answer_aliases"}),
    _musique,
)


HOPS = {"comparison": 2, "inference": 2, "compositional": 2, "bridge_comparison": 4}
SPLITS = {"train": "train", "validation": "dev", "test": "test"}


def _twowiki(record: Json, supports: bool) -> Question:
    return titled(record, " ", HOPS.get, supports=supports)


TWOWIKI = Dataset(
    "2wikimultihopqa",
    Hub(
        "xanhho/2WikiMultihopQA",
        files={split: f"hf://datasets/xanhho/2WikiMultihopQA/{name}.parquet" for split, name in SPLITS.items()},
    ),
    frozenset({"evidences", "evidences_id", "entity_ids"}),
    _twowiki,
)
