"""MuSiQue-Ans (Trivedi et al., 2022, https://github.com/StonyBrookNLP/musique).

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

from rankr1_eval.data.dataset import Dataset, Hub, Json
from rankr1_eval.data.fields import answers_of, query_of, table
from rankr1_eval.types import Question, passage_of
from rankr1_rag.collection import of_kind
from rankr1_rag.types import Passage

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
