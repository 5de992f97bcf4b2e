"""HotpotQA, of the distractor and of the fullwiki setting (Yang et al., 2018, https://hotpotqa.github.io).

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
"""

from __future__ import annotations

from rankr1_eval.data.dataset import Dataset, Hub, Json
from rankr1_eval.data.titled import titled
from rankr1_eval.types import Question

MARKS = frozenset({"level"})


def _two(_: str) -> int:
    return 2


def _distractor(record: Json, supports: bool) -> Question:
    return titled(record, "", _two, supports=supports)


def _fullwiki(record: Json, supports: bool) -> Question:
    return titled(record, "", _two, supports=supports, elsewhere=True)


HOTPOTQA = Dataset("hotpotqa", Hub("hotpotqa/hotpot_qa", "distractor"), MARKS, _distractor)
HOTPOTQA_FULLWIKI = Dataset("hotpotqa-fullwiki", Hub("hotpotqa/hotpot_qa", "fullwiki"), MARKS, _fullwiki)
