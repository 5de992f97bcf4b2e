"""What bench/study.sh found, as tables: `python -m bench.eval_study OUT`, which it ends with.

Knows runs of `rankr1-eval qa` and how to pair their systems; asks no model.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rankr1_eval.compare import Pair, ScoredRun, groups, paired, read
from rankr1_eval.report.wording import system_name
from rankr1_eval.types import Difference, Estimate

SETS = {"hotpotqa": "HotpotQA", "2wikimultihopqa": "2WikiMultihopQA", "musique": "MuSiQue"}
PLAIN = "rank-r1"
EVIDENCE = ("R@2", "R@5", "All@5")
ANSWERS = ("EM@5", "F1@5")
HOPS = ("rank-r1:hops=2", "rank-r1:hops=2+retrieve=true")
HEAD = """# Several hops

Made by `bench/study.sh DATA OUT > bench/study.md`: BM25 top 20 of the paragraphs of all questions of a sample, k=5,
all defaults of the embedded checkpoint. In percent and points, with 95 % bootstrap intervals over questions. Dense is
all-MiniLM-L6-v2 over the same 20 candidates. `oracle` puts the supports among them first: no order of those finds more.
Comparisons and tokens are means a question."""


def line(*cells: object) -> None:
    """A line of a table."""
    print(f"| {' | '.join(map(str, cells))} |")


def head(title: str, *columns: str) -> None:
    """A heading, and the head of a table."""
    print(f"\n## {title}\n")
    line(*columns)
    print("|---" * len(columns) + "|")


def spelled(one: Estimate | Difference, sign: str = "") -> str:
    """A mean or a difference in percent, with its interval."""
    return f"{100 * one.mean:{sign}.1f} ({100 * one.low:{sign}.1f} to {100 * one.high:{sign}.1f})"


def label(system: str) -> str:
    """What a system is called here."""
    return "Dense" if system.startswith("dense") else system_name(system)


def means(runs: dict[str, ScoredRun], measures: Sequence[str], systems: Iterable[str] = ()) -> None:
    """A line for each system of each run: its means and what it cost."""
    for name, run in runs.items():
        for system in systems or run.scores.systems:
            scores = run.scores.systems[system]
            if measures[0] not in scores.estimates:
                continue
            cost = scores.cost
            asked = cost.get("comparisons", 0.0)
            tokens = f"{cost['prompt_tokens']:,.0f} + {cost['completion_tokens']:,.0f}" if asked else ""
            told = [spelled(scores.estimates[measure]) for measure in measures]
            line(SETS[name], label(system), *told, f"{asked:.1f}" if asked else "", tokens)


def moved(runs: dict[str, ScoredRun], against: str, measures: Sequence[str], systems: Sequence[str]) -> None:
    """A line for each of these systems of each run: its paired differences from another."""
    for name, run in runs.items():
        pairs = paired(run, run, against, measures).pairs
        for system in systems:
            line(
                SETS[name],
                system_name(system),
                *(spelled(one.difference, "+") for one in pairs if one.system == system),
            )


def apart(runs: dict[str, ScoredRun], by: str, systems: Sequence[str]) -> None:
    """A line for each group of questions: support recall@5 and how it differs from plain reranking."""
    for name, run in runs.items():
        pairs = paired(run, run, PLAIN, ("R@5",), groups(run, by)).pairs
        found: dict[str, dict[str, Pair]] = {}
        for one in pairs:
            found.setdefault(one.group, {})[one.system] = one
        for group, each in found.items():
            plain = f"{100 * each[systems[0]].first:.1f}"
            changes = [spelled(each[system].difference, "+") for system in systems]
            line(SETS[name], group or "all", each[systems[0]].n, plain, *changes)


def main(out: Path) -> None:
    """Print all tables."""
    runs = {name: read(out / name) for name in SETS}
    dense = next(system for system in runs["musique"].scores.systems if system.startswith("dense"))
    print(HEAD)
    print(
        "\n" + ", ".join(f"{SETS[name]} {len(run.scores.systems['none'].each['R@5'])}" for name, run in runs.items()),
        end=" ",
    )
    print("questions.")
    head("Evidence", "data set", "system", *EVIDENCE, "comparisons", "prompt + completion tokens")
    means(runs, EVIDENCE)
    head("Less plain reranking, question by question", "data set", "system", *EVIDENCE)
    moved(runs, PLAIN, EVIDENCE, HOPS)
    head("Less BM25", "data set", "system", *EVIDENCE)
    moved(runs, "none", EVIDENCE, (PLAIN, "rank-r1:fusion=off", *HOPS))
    head("Less dense", "data set", "system", *EVIDENCE)
    moved(runs, dense, EVIDENCE, (PLAIN, *HOPS))
    for by in ("type", "hops"):
        head(
            f"By {by}: support recall@5",
            "data set",
            by,
            "questions",
            "plain",
            *(f"{system_name(system)}, less it" for system in HOPS),
        )
        apart(runs, by, HOPS)
    if (out / "read").is_dir():
        runs = {name: read(out / "read" / name) for name in SETS}
        print("\nAnd read, by SmolLM2-135M-Instruct, a nested sample of 60 questions of each set.")
    if "EM@5" in runs["musique"].scores.systems["none"].estimates:
        head("Answers", "data set", "system", *ANSWERS, "comparisons", "prompt + completion tokens")
        means(runs, ANSWERS)
        head("Answers, less plain reranking", "data set", "system", *ANSWERS)
        moved(runs, PLAIN, ANSWERS, HOPS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
