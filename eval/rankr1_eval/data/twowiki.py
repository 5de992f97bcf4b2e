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
"""

from __future__ import annotations

from rankr1_eval.data.dataset import Dataset, Hub, Json
from rankr1_eval.data.titled import titled
from rankr1_eval.types import Question

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
