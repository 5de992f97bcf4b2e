"""The examples of which the embedded adapters learn: files for training, and a tenth of each source held out.

    .venv-test/bin/python -m bench.training_data DATA MORE OUT [MOST]

DATA holds the training samples of HotpotQA, 2WikiMultihopQA and MuSiQue, MORE the questions of other sources, each a
file of examples in the project's own format. OUT gets for each source NAME.jsonl and NAME-held.jsonl, and for those of
several hops NAME-known.jsonl and NAME-known-held.jsonl, in which another support is known already. The figures of all
files are printed as a table. A question that comes again in a later source is left out there, so that no held-out
question is trained on. MOST limits the questions of a source, to try it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rankr1_eval.data import load
from rankr1_eval.retrieval.bm25 import bm25
from rankr1_eval.training_examples import DEPTH, apart, examples, known
from rankr1_rag.io.files import numbered_lines
from rankr1_rag.train.data import Example, example_from_json, share, write_examples
from rankr1_rag.types import Passage

HELD_OUT, SEED = 0.1, 0


@dataclass(frozen=True)
class Source:
    """A file of examples; `most` of them are used.

    `mined`: the negatives are BM25's over the passages of all its questions; else those of the file, hardest first.
    `hops`: also examples with a known support.
    """

    name: str
    most: int | None = None
    mined: bool = False
    hops: bool = False


MULTI_HOP = {
    "hotpotqa": "hotpotqa_train_500.jsonl",
    "2wikimultihopqa": "2wikimultihopqa_train_500.json",
    "musique": "musique_train_100.json",
}
"""The official samples: the name of a data set, and its file."""

SOURCES = (
    Source("hotpotqa_amor", mined=True, hops=True),
    Source("hotpotqa_hipporag", mined=True, hops=True),
    Source("hotpotqa_mudaf"),
    Source("ircot", mined=True, hops=True),
    Source("hotpotqa_ecm", hops=True),
    Source("strategyqa_paragraphs", most=150, hops=True),
    Source("strategyqa_facts", most=600, hops=True),
    Source("entailmentbank", most=600, hops=True),
    Source("fairytaleqa", most=3000),
    Source("nq_oracle"),
    Source("qed"),
    Source("clapnq"),
    Source("squad2"),
    Source("xquad", most=600),
    Source("covidqa"),
    Source("medquad", most=1500),
    Source("pubmedqa", most=500),
    Source("openbookqa", most=2500),
    Source("fever", most=1000),
)
"""In the order in which a question that comes twice is kept."""

PRONOUN = re.compile(r"(?:he|she|it|they|his|her|its|their|this|these|that|those)\b", re.IGNORECASE)
"""The beginning of a sentence that nobody can place without those before it."""


def hardest_first(found: Sequence[Example], mined: bool) -> list[Example]:
    """The examples with their negatives in BM25's order over all passages of the source; `mined`: BM25's first ones."""
    pool = {passage.id: passage for one in found for passage in one.positives + one.negatives}
    run = bm25(list(pool.values()), [one.query for one in found], DEPTH if mined else 1000)
    ordered = []
    for one in found:
        right = {passage.id for passage in one.positives}
        ranks = {scored.id: rank for rank, scored in enumerate(run[one.query.id])}
        if mined:
            negatives = [pool[id] for id in ranks if id not in right]
        else:
            negatives = sorted(one.negatives, key=lambda passage: ranks.get(passage.id, len(ranks)))
        ordered.append(replace(one, negatives=tuple(negatives)))
    return ordered


def recognisable(one: Example) -> Example | None:
    """The example with the positives that can be understood alone, None if there are none: for single sentences."""
    positives = tuple(passage for passage in one.positives if passage.title or not PRONOUN.match(passage.text))
    return replace(one, positives=positives) if positives else None


def main() -> None:
    """Write the files, and print a table of them."""
    data, more, out = map(Path, sys.argv[1:4])
    limit = int(sys.argv[4]) if sys.argv[4:] else None
    out.mkdir(parents=True, exist_ok=True)
    asked: set[str] = set()
    print("| file | examples | positives | with an answer |\n|---|---|---|---|")
    official: list[tuple[str, list[Example], Sequence[Passage]]] = []
    for name, file in MULTI_HOP.items():
        made = examples(load(name, data / file)[:limit], source=name)
        official.append((name, list(made.examples), made.passages))
    for name, found, pool in official:
        write(out, name, found, asked, pool)
    for source in SOURCES:
        read, ids = [], set[str]()
        for _, line in numbered_lines(more / f"{source.name}.jsonl.gz"):
            record = json.loads(line)
            right = {one["id"] for one in record["positives"]}
            record["negatives"] = [one for one in record["negatives"] if one["id"] not in right]
            if record["negatives"] and record["id"] not in ids:  # some come twice
                ids.add(record["id"])
                read.append(example_from_json(record))
        found = [kept for one in read if (kept := recognisable(replace(one, source=source.name)))]
        found = [one for one in found if key(one) not in asked]
        most = min(source.most or len(found), limit or len(found))
        if len(found) > most:
            found = share(found, most / len(found), SEED)
        found = hardest_first(found, source.mined)
        pool = list({p.id: p for one in found for p in one.positives + one.negatives}.values())
        write(out, source.name, found, asked, pool if source.hops else None)


def key(one: Example) -> str:
    """What two spellings of a question share."""
    return " ".join(re.findall(r"\w+", one.query.text.lower()))


def write(out: Path, name: str, found: Sequence[Example], asked: set[str], pool: Sequence[Passage] | None) -> None:
    """Both files of a source, and with a pool those with a known support."""
    first = {key(one): one for one in reversed(found)}
    asked |= first.keys()
    kept, held = apart(list(reversed(first.values())), HELD_OUT, SEED) if len(first) > 1 else (list(first.values()), [])
    files = {name: kept, f"{name}-held": held}
    if pool is not None:
        files |= {f"{name}-known": known(kept, pool, SEED), f"{name}-known-held": known(held, pool, SEED)}
    for file, some in files.items():
        write_examples(out / f"{file}.jsonl", some)
        answered = sum(bool(one.answer) for one in some)
        print(f"| {file} | {len(some)} | {sum(len(one.positives) for one in some)} | {answered} |")


if __name__ == "__main__":
    main()
