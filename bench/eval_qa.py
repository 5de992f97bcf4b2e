"""`rankr1-eval qa` with its defaults on 50 questions of each multi-hop sample: what it takes and what it finds.

    python -m bench.eval_qa ../shared/data FOLDER > bench/eval_qa.md

A run that FOLDER already holds goes on. Knows the command and its scores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.eval_loading import FILES
from rankr1_rag.checkpoints import BASE

QUESTIONS = 50
NOTES = Path(__file__).with_name("eval_qa-notes.md")
HEAD = f"""# The evaluation with SmolLM2 untrained

Made by `python -m bench.eval_qa ../shared/data FOLDER > bench/eval_qa.md`: {QUESTIONS} questions of each sample, all
defaults of `rankr1-eval qa`: BM25 top 20 of the pooled corpus, SmolLM2-135M-Instruct as reranker (top 5, 64 reasoning
tokens) and as reader of the first 5. It was trained for neither: this shows that the whole path runs, its
cost, and the worth of an untrained model. Minutes are wall time of reranking and reading. In brackets the 95 %
interval; the last column is the paired difference in support recall from no rerank.

| data set | minutes | system | R@5 | All@5 | EM@5 | F1@5 | comparisons | prompt + completion tokens | ΔR@5 |
|---|---|---|---|---|---|---|---|---|---|"""


def spelled(given: dict[str, float] | None) -> str:
    if given is None:
        return ""
    return f"{given['mean']:.3f} [{given['low']:.3f}, {given['high']:.3f}]"


def taken(scores: dict[str, Any]) -> float:
    """Wall seconds of the stages rerank and read of a system, in a run that was not interrupted."""
    return QUESTIONS * float(sum(scores["cost"].get(name, 0.0) for name in ("seconds", "reader_seconds")))


def system(name: str, scores: dict[str, Any]) -> str:
    means = [spelled(scores["estimates"].get(measure)) for measure in ("R@5", "All@5", "EM@5", "F1@5")]
    cost = scores["cost"]
    asked = cost.get("comparisons", 0)
    costs = [f"{asked:.1f}", f"{cost['prompt_tokens']:,.0f} + {cost['completion_tokens']:,.0f}"] if asked else ["", ""]
    return " | ".join([name, *means, *costs, spelled(scores["differences"].get("R@5"))])


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    print(HEAD)
    for dataset, file in FILES.items():
        folder = out / dataset
        command = [
            sys.executable,
            "-m",
            "rankr1_eval",
            "qa",
            "--dataset",
            dataset,
            "--data",
            str(data / file),
            "--model",
            BASE,
        ]
        subprocess.run(
            [*command, "--questions", str(QUESTIONS), "--out", str(folder)], check=True, stdout=subprocess.DEVNULL
        )
        systems = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["systems"]
        minutes = sum(map(taken, systems.values())) / 60
        for place, (name, scores) in enumerate(systems.items()):
            first = f"{dataset} | {minutes:.1f}" if not place else " | "
            print(f"| {first} | {system(name, scores)} |", flush=True)
    print(NOTES.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
