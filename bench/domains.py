"""The embedded checkpoint on texts of other domains: single comparisons, and rankings of SciFact and TREC DL 2019.

    .venv-test/bin/python -m bench.domains HELD DATA OUT [--questions N] > bench/domains.md

HELD holds the held-out examples that `bench.training_data` makes (NAME-held.jsonl), DATA beir-scifact/ and
trec-dl-2019/, OUT what was asked: the same command resumes. SciFact is reranked for N of its training queries, drawn by
a seed (its labels were never trained on), over BM25's first 20; TREC DL 2019 over the first 20 of its own BM25 run.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankr1_eval.retrieval.bm25 import bm25
from rankr1_rag.io.trec import write_run
from rankr1_rag.train.data import digest
from rankr1_rag.types import Passage, Query

SOURCES = (
    "nq_oracle",
    "covidqa",
    "fairytaleqa",
    "medquad",
    "openbookqa",
    "xquad",
    "pubmedqa",
    "qed",
    "clapnq",
    "fever",
)
DEPTH = 20


def command(*arguments: str) -> str:
    """What a command of this project prints."""
    return subprocess.run(
        [str(Path(sys.executable).parent / arguments[0]), *arguments[1:]], check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def percent(one: dict[str, Any], sign: str = "") -> str:
    return f"{100 * one['mean']:{sign}.1f} ({100 * one['low']:{sign}.1f} to {100 * one['high']:{sign}.1f})"


def comparisons(held: Path, out: Path, options: list[str]) -> None:
    files = [str(held / f"{name}-held.jsonl") for name in SOURCES]
    made = json.loads(
        command("rankr1-eval", "comparisons", *files, "--out", str(out / "comparisons.jsonl"), "--json", *options)
    )
    print("\n## Single comparisons\n\nRight answers of 5 passages, in percent.\n")
    print("| source | comparisons | BM25 | the embedded checkpoint | difference from BM25 |\n|---|---|---|---|---|")
    for name, group in {**made["sources"], "all": made["all"]}.items():
        right, apart = group["accuracy"], group["differences"]["bm25"]
        row = [name, group["comparisons"], percent(right["bm25"]), percent(right["model"]), percent(apart, "+")]
        print(f"| {' | '.join(map(str, row))} |")


def scifact(data: Path, out: Path, n: int) -> tuple[Path, ...]:
    """Files of the run, its queries, passages and judgements."""
    with gzip.open(data / "beir-scifact" / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    corpus = [Passage(one["_id"], one["text"], one["title"]) for one in records]
    labels = [
        line.split("\t") for line in (data / "beir-scifact" / "qrels_train.tsv").read_text("utf-8").splitlines()[1:]
    ]
    judged = {query for query, *_ in labels}
    lines = (data / "beir-scifact" / "queries.jsonl").read_text("utf-8").splitlines()
    queries = [Query(one["_id"], one["text"]) for one in map(json.loads, lines) if one["_id"] in judged]
    asked = sorted(queries, key=lambda query: digest(query.id))[:n]
    drawn = {query.id for query in asked}
    files = {
        "passages.jsonl": [json.dumps({"id": one.id, "title": one.title, "text": one.text}) for one in corpus],
        "queries.jsonl": [json.dumps({"id": query.id, "query": query.text}) for query in asked],
        "qrels.txt": [f"{query} 0 {passage} {score}" for query, passage, score in labels if query in drawn],
    }
    for name, content in files.items():
        (out / f"scifact-{name}").write_text("\n".join([*content, ""]), "utf-8")
    write_run(out / "scifact-bm25.trec", bm25(corpus, asked, DEPTH).items())
    return tuple(out / f"scifact-{name}" for name in ("bm25.trec", *("queries.jsonl", "passages.jsonl", "qrels.txt")))


def rankings(title: str, files: Sequence[Path], out: Path, options: Sequence[str]) -> None:
    """A table of BM25, the model alone and fused; `files` are a run, its queries, passages and judgements."""
    run, queries, passages, qrels = map(str, files)
    runs = [run]
    for fusion in ("off", None):
        runs.append(str(out / f"{title.lower().replace(' ', '-')}-{fusion or 'fused'}.trec"))
        if not Path(runs[-1]).exists():
            asked = (
                "--run",
                run,
                "--queries",
                queries,
                "--passages",
                passages,
                "--depth",
                str(DEPTH),
                "--out",
                runs[-1],
            )
            fused = ("--fusion", fusion) if fusion else ()
            command("rankr1", "rerank", *asked, *fused, "--store", str(out / "completions.sqlite"), *options)
    named = [word for one in runs for word in ("--run", one)]
    scores = json.loads(command("rankr1-eval", "ir", *named, "--qrels", qrels, "--measures", "nDCG@10", "--json"))[
        "runs"
    ]
    print(f"\n## {title}\n\nnDCG@10 of {scores[0]['queries']} queries, BM25's first {DEPTH}.\n")
    print("| system | nDCG@10 | difference from BM25 |\n|---|---|---|")
    for name, one in zip(("BM25", "the embedded checkpoint alone", "fused, its default"), scores, strict=True):
        low, high = one["intervals"]["nDCG@10"]
        cells = [f"{100 * one['measures']['nDCG@10']:.1f} ({100 * low:.1f} to {100 * high:.1f})"]
        cells.append(percent(one["differences"]["nDCG@10"], "+") if one["differences"] else "")
        print(f"| {' | '.join([name, *cells])} |")


def main() -> None:
    """Ask, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("held", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--questions", type=int, default=300)
    given, options = parser.parse_known_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print("# Other domains\n\nMade by `python -m bench.domains HELD DATA OUT > bench/domains.md`.")
    print("In percent, with 95 % bootstrap intervals over questions.")
    print("Nothing was chosen by SciFact or TREC DL 2019, and nothing trained on them.")
    options = options or ["--option", "max_batch=8"]
    comparisons(given.held, given.out, options)
    rankings("SciFact", scifact(given.data, given.out, given.questions), given.out, options)
    dl19 = given.data / "trec-dl-2019"
    names = ("run.bm25.top100.trec", "queries.tsv", "passages.jsonl.gz", "qrels.txt")
    rankings("TREC DL 2019", [dl19 / name for name in names], given.out, options)


if __name__ == "__main__":
    main()
