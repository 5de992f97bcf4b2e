"""What bench/training_study.sh found, as tables: `python -m bench.eval_training_study OUT`, which it ends with.

Knows the JSON of `rankr1-eval comparisons` and of `rankr1-eval qa`; asks no model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MODELS = {
    "untrained": "untrained",
    "label": "supervised, label alone",
    "cold-18": "cold start, 18 % of the questions",
    "grpo-18": "… and GRPO on the same 18 %",
    "grpo-100": "… and GRPO on all",
    "sft-100": "… and supervised on all, as many sets as GRPO",
    "embedded": "embedded, as it is shipped",
}
RIVALS = {"first": "the passage shown first", "bm25": "BM25", "dense": "dense"}
SETS = {"hotpotqa": "HotpotQA", "2wikimultihopqa": "2WikiMultihopQA", "musique": "MuSiQue"}


def spelled(one: dict[str, float], sign: str = "") -> str:
    """A share in percent with its interval."""
    return f"{100 * one['mean']:{sign}.1f} ({100 * one['low']:{sign}.1f} to {100 * one['high']:{sign}.1f})"


def loaded(path: Path) -> dict[str, Any] | None:
    """What a command printed or wrote; None where it was not asked for."""
    if not path.exists():
        return None
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def comparisons(out: Path) -> None:
    """The table of single comparisons: a system for each rival, then for each model."""
    found = {name: told for name in MODELS if (told := loaded(out / "comparisons" / f"{name}.json"))}
    richest = max(found.values(), key=lambda told: len(told["all"]["accuracy"]))
    print(f"\n## {richest['all']['comparisons']:,} comparisons: one support, four other finds of BM25\n")
    print(f"| | right, % | {' | '.join(SETS.values())} | after the cold start, points | form, % | most named place |")
    print("|---|---|---|---|---|---|---|---|")
    for name, label in RIVALS.items():
        if name in richest["all"]["accuracy"]:
            print(_system(richest, name, label, "", ""))
    for name, told in found.items():
        moved = told["all"]["differences"].get("against")
        form = told["format"]
        kept = f"{100 * form['mean']:.1f}" if form else ""
        print(_system(told, "model", MODELS[name], spelled(moved, "+") if moved else "", kept))


def _system(told: dict[str, Any], system: str, label: str, moved: str, form: str) -> str:
    own = [f"{100 * told['sources'][name]['accuracy'][system]['mean']:.1f}" for name in SETS]
    places = [f"{max(one['mean'] for one in told['places'][system]):.2f}"]
    return f"| {' | '.join([label, spelled(told['all']['accuracy'][system]), *own, moved, form, *places])} |"


def reranked(out: Path) -> None:
    """The table of rerankings: support recall@5 of BM25, and how much the others have more, unfused and fused."""
    print("\n## Support recall@5, BM25 top 20 reranked: points above BM25\n")
    print(f"| | fusion | {' | '.join(SETS.values())} |\n|---|---|---|---|---|")
    for name, label in {"dense": "dense, over all passages", **MODELS}.items():
        runs = [
            run["systems"]
            for dataset in SETS
            if (run := loaded(out / "reranked" / f"{name}-{dataset}" / "scores.json"))
        ]
        if len(runs) < len(SETS):
            continue
        if name == "dense":
            print(
                f"| BM25 itself, % | | {' | '.join(spelled(systems['none']['estimates']['R@5']) for systems in runs)} |"
            )
            print(f"| the best order of its 20 | | {_above(runs, 'oracle')} |")
        for system in [system for system in runs[0] if system.startswith(("dense:", "rank-r1:"))]:
            print(f"| {label} | {system.partition('fusion=')[2]} | {_above(runs, system)} |")


def _above(runs: list[dict[str, Any]], system: str) -> str:
    """The cells of one system: how much more than BM25, on each data set."""
    return " | ".join(spelled(systems[system]["differences"]["R@5"], "+") for systems in runs)


def main(out: Path) -> None:
    """Print all tables."""
    print("# What the labels are worth\n\nMade by `bench/training_study.sh DATA OUT`. 95 % bootstrap intervals.")
    comparisons(out)
    reranked(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
