"""The data sets of questions: a name, a place on the hub, marks, and a reader of one record for each.

HotpotQA, of the distractor and of the fullwiki setting (Yang et al., 2018, https://hotpotqa.github.io), a JSON list:

    {"_id": "5abc", "answer": "Lower Saxony", "question": "In which state lies the town where the painter was born?",
     "supporting_facts": [["The Painter", 0], ["The Town", 1]], "type": "bridge", "level": "hard",
     "context": [["The Painter", ["She was born in The Town.", " She painted."]], …]}

On the hub `id` is `_id`, `context` {"title": […], "sentences": [[…], …]}, `supporting_facts` {"title": […],
"sent_id": […]}. Records with `paragraphs`, [{"title": …, "text": …, "is_gold": true}, …], are read too. Sentences carry
their own spaces. Each question takes two hops. In the fullwiki setting a retriever found the paragraphs, so a support
need not be among them.

2WikiMultihopQA (Ho et al., 2020, https://github.com/Alab-NII/2wikimultihop), a JSON list: the same fields without
`level`, and with `"evidences": [["The Film", "director", "The Director"], …]`. On the hub `context`, `supporting_facts`
and `evidences` are strings of JSON, and sentences may be called `content`. Sentences carry no spaces: one is put
between them. Hops follow from the type: "bridge_comparison" takes four paragraphs, the other types two.

MuSiQue-Ans (Trivedi et al., 2022, https://github.com/StonyBrookNLP/musique), JSON lines; the hub has the same fields:

    {"id": "2hop__123_456", "question": "What is the seat of the county of The Town?",
     "paragraphs": [{"title": "The Town", "paragraph_text": "It lies in The County.", "is_supporting": true}, …],
     "question_decomposition": [{"id": 123, "question": "The Town >> county", "answer": "The County",
                                 "paragraph_support_idx": 0}, …],
     "answer": "Seat", "answer_aliases": ["Seat City"], "answerable": true}

The type is the beginning of the id: "2hop", "3hop1" (a chain), "3hop2" (a fork), "4hop1"…; hops are its number, or else
the number of steps of the decomposition. Titles repeat within a question; supports are flagged, not named. Questions
that cannot be answered (MuSiQue-Full) are refused.

FlashRAG (https://github.com/RUC-NLPIR/FlashRAG) has all of them in one shape: `fields.official`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from rankr1_eval.data.fields import Dataset, Hub, Json, answers_of, query_of, table
from rankr1_eval.types import Question, passage_of
from rankr1_rag.io.collection import of_kind, text_of
from rankr1_rag.types import Passage

TITLE = ("title",)
NO_SUPPORT = "no support: a test split, whose supports are not public? Take the dev or the train file"


def titled(
    record: Json, joint: str, hops: Callable[[str], int | None], *, supports: bool, elsewhere: bool = False
) -> Question:
    """A question whose supports are named by titles; a text is its sentences with `joint` between them, stripped.

    `hops` of a type. With `elsewhere` a support may be none of its own paragraphs: then its id is that of a title
    without a text, and is never found. Otherwise that is a ValueError, as is, with `supports`, to have no support.
    """
    query, answers, type = query_of(record), answers_of(record), text_of(record, ("type",), "")
    flagged = "context" not in record and "paragraphs" in record
    if flagged:
        rows = table(record, "paragraphs", (TITLE, ("text",), ("is_gold",)))
    elif supports or "context" in record:
        rows = [(*row, None) for row in table(record, "context", (TITLE, ("sentences", "content")))]
    else:
        rows = []
    passages: list[Passage] = []
    found: list[str] = []
    sentences: dict[str, list[tuple[Passage, int]]] = {}
    for number, (title, text, gold) in enumerate(rows, start=1):
        what, length = f"of paragraph {number}", 0
        if not isinstance(text, str):
            parts = of_kind(f"the sentences {what}", text, "an array")
            length = len(parts)
            separator = "" if flagged else joint
            text = separator.join(of_kind(f"a sentence {what}", part, "a string") for part in parts)
        passages.append(passage_of(of_kind(f"title {what}", title, "a string"), text.strip()))
        sentences.setdefault(title, []).append((passages[-1], length))
        if flagged and of_kind(f'"is_gold" {what}', gold, "a boolean"):
            found.append(passages[-1].id)
    if not flagged and rows and (supports or record.get("supporting_facts") is not None):
        found = named_supports(record, sentences, supports=supports, elsewhere=elsewhere)
    if supports and not found:
        raise ValueError(NO_SUPPORT)
    return Question(query, answers, tuple(dict.fromkeys(found)), tuple(dict.fromkeys(passages)), type, hops(type))


def named_supports(
    record: Json, sentences: Mapping[str, list[tuple[Passage, int]]], *, supports: bool, elsewhere: bool
) -> list[str]:
    """The ids of the supports; `sentences` are by title the paragraphs with the number of their sentences."""
    found = []
    last: dict[str, int] = {}
    for title, sentence in table(record, "supporting_facts", (TITLE, ("sent_id",))):
        of_kind("the title of a supporting fact", title, "a string")
        number = of_kind(f"the sentence of supporting fact {title!r}", sentence, "a whole number")
        last[title] = max(number, last.get(title, 0))
    for title, sentence in last.items():
        if same := sentences.get(title):  # of several the first with the named sentences, or else the first
            found.append(next((passage for passage, n in same if n > sentence), same[0][0]).id)
        elif elsewhere:
            found.append(passage_of(title, "").id)
        elif supports:
            raise ValueError(
                f"support {title!r} is none of its own paragraphs: damaged, or a file of the fullwiki setting"
            )
    return found


def musique(record: Json, supports: bool) -> Question:
    """A question of MuSiQue."""
    query = query_of(record)
    if record.get("answerable") is False:
        raise ValueError("not answerable (MuSiQue-Full): take the files of MuSiQue-Ans, musique_ans_v1.0_….jsonl")
    answers = answers_of(record, "answer_aliases")
    type, hops = "", None
    if named := re.match(r"(([0-9])hop[0-9]?)__", query.id):
        type, hops = named[1], int(named[2])
    elif steps := record.get("question_decomposition"):
        hops = len(of_kind('field "question_decomposition"', steps, "an array"))
    passages, found = list[Passage](), list[str]()
    columns = (TITLE, ("paragraph_text",), ("is_supporting",))
    rows = table(record, "paragraphs", columns) if supports or "paragraphs" in record else []
    for number, (title, text, supporting) in enumerate(rows, start=1):
        what = f"of paragraph {number}"
        if supporting is not None or supports:
            of_kind(f'"is_supporting" {what}', supporting, "a boolean")
        title = of_kind(f"the title {what}", title, "a string")
        passages.append(passage_of(title, of_kind(f'"paragraph_text" {what}', text, "a string")))
        if supporting:
            found.append(passages[-1].id)
    if supports and not found:
        raise ValueError("no support: no paragraph has a true is_supporting")
    return Question(query, answers, tuple(dict.fromkeys(found)), tuple(dict.fromkeys(passages)), type, hops)


TWOWIKI_HOPS = {"comparison": 2, "inference": 2, "compositional": 2, "bridge_comparison": 4}
TWOWIKI_FILES = {"train": "train", "validation": "dev", "test": "test"}

HOTPOTQA = Dataset(
    "hotpotqa",
    Hub("hotpotqa/hotpot_qa", "distractor"),
    frozenset({"level"}),
    lambda record, supports: titled(record, "", lambda _: 2, supports=supports),
)
HOTPOTQA_FULLWIKI = Dataset(
    "hotpotqa-fullwiki",
    Hub("hotpotqa/hotpot_qa", "fullwiki"),
    HOTPOTQA.marks,
    lambda record, supports: titled(record, "", lambda _: 2, supports=supports, elsewhere=True),
)
TWOWIKI = Dataset(
    "2wikimultihopqa",
    Hub(
        "xanhho/2WikiMultihopQA",
        files={split: f"hf://datasets/xanhho/2WikiMultihopQA/{name}.parquet" for split, name in TWOWIKI_FILES.items()},
    ),
    frozenset({"evidences", "evidences_id", "entity_ids"}),
    lambda record, supports: titled(record, " ", TWOWIKI_HOPS.get, supports=supports),
)
MUSIQUE = Dataset(
    "musique",
    Hub("dgslibisey/MuSiQue"),
    frozenset({"question_decomposition", "answerable", "answer_aliases"}),
    musique,
)
