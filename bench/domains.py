"""The embedded checkpoint on texts of other domains: single comparisons, and rankings of SciFact and TREC DL 2019.

    .venv-test/bin/python -m bench.domains HELD DATA OUT [--questions N] > bench/domains.md

HELD holds the held-out examples that `bench.training_data` makes (NAME-held.jsonl), DATA beir-scifact/ and
trec-dl-2019/, OUT what was asked: the same command resumes. Reranked are BM25's first 20: of SciFact for N of its
training queries (default 300), whose labels were never trained on, of TREC DL 2019 for N at most of its 43, with its
own BM25 run. Queries are drawn by a hash of their ids. Other options, such as `--option max_batch=8`, the default, go
to all commands that ask the model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankr1_eval.retrieval.bm25 import bm25
from rankr1_rag.checkpoints import EMBEDDED
from rankr1_rag.io.trec import write_run
from rankr1_rag.train.data import digest
from rankr1_rag.types import Passage, Query

SOURCES = (
    *("nq_oracle", "covidqa", "fairytaleqa", "medquad", "openbookqa", "xquad", "pubmedqa", "qed", "clapnq", "squad2"),
    "fever",
)
"""All sources of one hop."""

DEPTH = 20


def command(*arguments: str) -> str:
    """What a command of this project prints."""
    program = str(Path(sys.executable).parent / arguments[0])
    return subprocess.run([program, *arguments[1:]], check=True, text=True, stdout=subprocess.PIPE).stdout


def percent(one: Mapping[str, Any], sign: str = "") -> str:
    return f"{100 * one['mean']:{sign}.1f} ({100 * one['low']:{sign}.1f} to {100 * one['high']:{sign}.1f})"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines)


def comparisons(held: Path, out: Path, options: Sequence[str]) -> str:
    """The section on single comparisons."""
    files = [str(held / f"{name}-held.jsonl") for name in SOURCES]
    to = ("--out", str(out / "comparisons.jsonl"), "--json")
    made = json.loads(command("rankr1-eval", "comparisons", *files, *to, *options))
    rows = []
    for name, group in {**made["sources"], "all": made["all"]}.items():
        right, apart = group["accuracy"], percent(group["differences"]["bm25"], "+")
        rows.append([name, group["comparisons"], percent(right["bm25"]), percent(right["model"]), apart])
    heads = ("source", "comparisons", "BM25", "the embedded checkpoint", "less BM25")
    about = "Right answers among 5 passages, held-out questions of each source of one hop. Differences are paired."
    return f"## Single comparisons\n\n{about}\n\n{table(heads, rows)}"


def drawn(ids: Iterable[str], n: int) -> set[str]:
    """At most n of these queries."""
    return set(sorted(ids, key=digest)[:n])


def scifact(data: Path, out: Path, n: int) -> tuple[Path, ...]:
    """Files of the run, its queries, passages and judgements."""
    folder = data / "beir-scifact"
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        corpus = [Passage(one["_id"], one["text"], one["title"]) for one in map(json.loads, file)]
    labels = [line.split("\t") for line in (folder / "qrels_train.tsv").read_text("utf-8").splitlines()[1:]]
    kept = drawn({query for query, *_ in labels}, n)
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    asked = [Query(one["_id"], one["text"]) for one in map(json.loads, lines) if one["_id"] in kept]
    files = {
        "queries.jsonl": [json.dumps({"id": query.id, "query": query.text}) for query in asked],
        "passages.jsonl": [json.dumps({"id": one.id, "title": one.title, "text": one.text}) for one in corpus],
        "qrels.txt": [f"{query} 0 {passage} {score}" for query, passage, score in labels if query in kept],
    }
    for name, content in files.items():
        (out / f"scifact-{name}").write_text("\n".join([*content, ""]), "utf-8")
    write_run(out / "scifact-bm25.trec", bm25(corpus, asked, DEPTH).items())
    return tuple(out / f"scifact-{name}" for name in ("bm25.trec", *files))


def dl19(data: Path, out: Path, n: int) -> tuple[Path, ...]:
    """The same of TREC DL 2019."""
    folder = data / "trec-dl-2019"
    kept = drawn((line.split("\t")[0] for line in (folder / "queries.tsv").read_text("utf-8").splitlines()), n)
    for name in ("run.bm25.top100.trec", "qrels.txt"):
        lines = (folder / name).read_text("utf-8").splitlines()
        (out / f"dl19-{name}").write_text("\n".join([*(one for one in lines if one.split()[0] in kept), ""]), "utf-8")
    return (
        out / "dl19-run.bm25.top100.trec",
        folder / "queries.tsv",
        folder / "passages.jsonl.gz",
        out / "dl19-qrels.txt",
    )


def rankings(title: str, files: Sequence[Path], out: Path, options: Sequence[str]) -> str:
    """A section on BM25, the model alone and fused; `files` are a run, its queries, passages and judgements."""
    run, queries, passages, qrels = map(str, files)
    runs = [run]
    asked = ("--run", run, "--queries", queries, "--passages", passages, "--depth", str(DEPTH))
    for name, fusion in (("alone", ("--fusion", "off")), ("fused", ())):  # the second asks nothing that the store lacks
        runs.append(str(out / f"{title.lower().replace(' ', '-')}-{name}.trec"))
        to = ("--out", runs[-1], "--overwrite", "--store", str(out / "completions.sqlite"))
        command("rankr1", "rerank", *asked, *fusion, *to, *options)
    named = [word for one in runs for word in ("--run", one)]
    scores = json.loads(command("rankr1-eval", "ir", *named, "--qrels", qrels, "--measures", "nDCG@10", "--json"))[
        "runs"
    ]
    rows = []
    for name, one in zip(("BM25", "the embedded checkpoint alone", "fused, its default"), scores, strict=True):
        low, high = one["intervals"]["nDCG@10"]
        shown = percent({"mean": one["measures"]["nDCG@10"], "low": low, "high": high})
        rows.append([name, shown, percent(one["differences"]["nDCG@10"], "+") if one["differences"] else ""])
    about = f"nDCG@10 of {scores[0]['queries']} queries, BM25's first {DEPTH} reranked. Differences are paired."
    return f"## {title}\n\n{about}\n\n{table(('system', 'nDCG@10', 'less BM25'), rows)}"


def main() -> None:
    """Ask, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("held", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--questions", type=int, default=300)
    given, options = parser.parse_known_args()
    given.out.mkdir(parents=True, exist_ok=True)
    options = options or ["--option", "max_batch=8"]
    print("# Other domains\n\nMade by `python -m bench.domains HELD DATA OUT > bench/domains.md`.")
    print(f"The embedded checkpoint, {EMBEDDED}, with its defaults. In percent, with 95 % bootstrap intervals")
    print("over questions. Nothing was chosen by SciFact or TREC DL 2019, and nothing trained on them.")
    print("\n" + comparisons(given.held, given.out, options))
    print("\n" + rankings("SciFact", scifact(given.data, given.out, given.questions), given.out, options))
    print("\n" + rankings("TREC DL 2019", dl19(given.data, given.out, given.questions), given.out, options))


if __name__ == "__main__":
    main()
